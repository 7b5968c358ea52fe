"""Which Airflow deployment this is: a random secret in an Airflow variable, made at the first job."""

from __future__ import annotations

import secrets
import time
from typing import Final

from airflow.providers.common.compat.sdk import Variable, mask_secret

from airflow_provider_osai.api.errors import OsaiUnreachable
from airflow_provider_osai.jobs.reference import Deployment

__all__ = ["VARIABLE", "load_deployment"]

VARIABLE: Final = "osai_deployment_secret"
"""The variable's name; Airflow masks the values of names that hold "secret"."""
DESCRIPTION: Final = (
    "Signs the idempotency keys of OSAI jobs, so that this Airflow tells its own jobs from those of others. Made by "
    "airflow-provider-osai. While jobs run, do not change or delete it."
)
SETTLING: Final = 1.0
"""Seconds after which the first worker of a deployment reads again what several may have written at once."""


def load_deployment(name: str | None = None) -> Deployment:
    """Return this deployment. Each metadata database has a secret of its own, which survives restarts and upgrades.

    :param name: the connection's extra ``deployment``.
    :raises OsaiUnreachable: if Airflow does not tell the variable now.
    """
    try:
        secret = Variable.get(VARIABLE, None)
        if not secret:
            Variable.set(VARIABLE, secrets.token_hex(16), DESCRIPTION)
            time.sleep(SETTLING)
            secret = Variable.get(VARIABLE, None)
    except Exception as error:
        if not _runs_in_airflow():
            return Deployment("", name or "")
        msg = (
            f"Airflow does not tell its variable {VARIABLE} ({type(error).__name__}), without which no job is submitted"
        )
        raise OsaiUnreachable(msg, sent=False) from error
    mask_secret(secret)
    return Deployment(str(secret or ""), name or "")


def _runs_in_airflow() -> bool:
    """Whether a supervisor watches this process, as that of each real task is."""
    import sys  # noqa: PLC0415

    runner = sys.modules.get("airflow.sdk.execution_time.task_runner")
    return getattr(runner, "SUPERVISOR_COMMS", None) is not None
