"""How a task waits for its job: until when, how often it looks, and whether OSAI tells it of the end."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any, Final

from airflow.providers.common.compat.sdk import conf

from airflow_provider_osai.api.errors import OsaiArgumentError
from airflow_provider_osai.jobs.lifecycle import Watch
from airflow_provider_osai.jobs.pace import Pace
from airflow_provider_osai.jobs.report import Reporter
from airflow_provider_osai.operators.base import started_at

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_osai.api.settings import OsaiSettings
    from airflow_provider_osai.jobs.reference import Owner
    from airflow_provider_osai.operators.job import OsaiJobOperator

__all__ = ["takes_webhook", "watch_of", "webhook_pace", "webhook_url"]

SAFETY_NET: Final = 600.0
"""Seconds between two looks at a job whose webhook is awaited."""


def watch_of(task: OsaiJobOperator, context: Context) -> Watch:
    """Return how *task* waits, from now on, up to its ``execution_timeout`` after its start.

    :raises OsaiArgumentError: if an interval is no number of seconds.
    """
    for name in ("poll_interval", "max_unreachable"):
        value = getattr(task, name)
        if not isinstance(value, (int, float)) or not math.isfinite(value) or value <= 0:
            raise OsaiArgumentError(f"{name} = {value!r}: a number of seconds above 0 is needed")
    now = time.time()
    limit = task.execution_timeout.total_seconds() if task.execution_timeout else None
    return Watch(
        since=now,
        deadline=task.carried_deadline or (None if limit is None else started_at(context) + limit),
        pace=Pace(float(task.poll_interval)),
        max_unreachable=float(task.max_unreachable),
        observe=Reporter(task.log, since=now),
        until_ready=task.until_ready,
    )


def takes_webhook(use_webhook: bool | None, settings: OsaiSettings, log: Any) -> bool:
    """Return whether OSAI shall tell of the job's end.

    :param use_webhook: as the user wants it; ``None``: if the connection is set up for it.
    :raises OsaiArgumentError: if the user wants it and the connection lacks something.
    """
    if use_webhook is False or settings.takes_webhooks:
        return use_webhook is not False
    lacking = "webhook_secret" if settings.webhook_base_url else "webhook_base_url"
    if use_webhook:
        msg = f"use_webhook = True: the connection has no {lacking}; see docs/webhooks.md"
        raise OsaiArgumentError(msg)
    if settings.webhook_base_url:
        log.warning("The connection has a webhook_base_url but no %s, so the job is polled only", lacking)
    return False


def webhook_url(settings: OsaiSettings, osai_conn_id: str, owner: Owner) -> str:
    """Return the address, signed for this task instance; it holds for thirty days."""
    # Not at the top: most tasks that import this module await no webhook.
    from airflow_provider_osai.jobs.ticket import Ticket, address  # noqa: PLC0415

    secrets = [secret.get_secret_value() for secret in settings.webhook_secrets]
    return address(str(settings.webhook_base_url), Ticket(osai_conn_id, owner).sign(secrets))


def webhook_pace(pace: Pace) -> Pace:
    """Return how often to look at a job whose webhook is awaited: once, then seldom."""
    seldom = conf.getfloat("osai", "webhook_poll_interval", fallback=SAFETY_NET)
    return Pace(longest=max(pace.longest, seldom), shortest=seldom)
