"""Find a model's conversions: those that can be reused, and those that OSAI marks as impossible."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from airflow_provider_osai.api.errors import (
    OsaiContractError,
    OsaiError,
    OsaiRequestError,
    OsaiUnreachable,
    OsaiUnsupported,
    sanitize_server_text,
)
from airflow_provider_osai.api.models import Conversion, Job, JobKind, JobResult, JobState
from airflow_provider_osai.api.text import normalize_word

if TYPE_CHECKING:
    from airflow_provider_osai.api.client import OsaiClient

__all__ = ["explain_unsupported", "find_conversion", "is_unsupported"]

UNSUPPORTED: Final = re.compile(r"\bUNSUPPORTED\b")
"""How OSAI marks impossible conversions (docs.onestepai.com/model_creation_and_training/hardware_and_conversions)."""


def is_unsupported(thing: Job | Conversion) -> bool:
    """Return whether a job or a conversion failed because it is impossible: by its status, or by its message."""
    if thing.state is not JobState.FAILED or (isinstance(thing, Job) and thing.kind is not JobKind.CONVERSION):
        return False
    return normalize_word(thing.status) == "unsupported" or bool(UNSUPPORTED.search(thing.message or ""))


def find_conversion(client: OsaiClient, model_id: str, target: str, log: Callable[[str], object]) -> Job | None:
    """Return the job of a conversion that has already succeeded; ``None`` if there is none or OSAI cannot tell.

    A conversion that is still running is left alone: another task waits for it, and may cancel it.

    :param log: called with a message for the log.
    :raises OsaiUnsupported: if OSAI has marked the conversion as impossible.
    """
    conversions = _list_conversions(client, model_id, log)
    matching = [one for one in conversions if (one.target or "").strip().casefold() == target.strip().casefold()]
    for conversion in matching:
        if conversion.state is JobState.SUCCEEDED:
            log(f"Reusing conversion {conversion.id} of model {model_id} for {target}")
            return Job(
                kind=JobKind.CONVERSION,
                id=conversion.job_id or conversion.id,
                state=conversion.state,
                status=conversion.status,
                message=conversion.message,
                result=JobResult(model_id=model_id, conversion_id=conversion.id),
                simulated=conversion.simulated,
            )
    impossible = next((one for one in matching if is_unsupported(one)), None)
    if impossible is not None:
        msg = "OSAI has already marked this conversion as impossible (UNSUPPORTED)"
        raise OsaiUnsupported(msg, kind=JobKind.CONVERSION, job_id=impossible.job_id or impossible.id)
    return None


def explain_unsupported(client: OsaiClient, error: OsaiUnsupported, model_id: str, target: str) -> OsaiUnsupported:
    """Return *error* with the model, the target, and the targets that it has been converted for, if OSAI lists them."""
    try:
        conversions = _list_conversions(client, model_id, lambda _: None)
    except OsaiError:
        conversions = []
    targets = sorted({one.target for one in conversions if one.target and one.state is JobState.SUCCEEDED})
    converted = f"; it is already converted for: {sanitize_server_text(', '.join(targets))}" if targets else ""
    reason = str(error).partition(": ")[2]
    msg = f"model {model_id} cannot be converted for {target!r}{converted}. Choose another target. Reason: {reason}"
    return OsaiUnsupported(msg, kind=error.kind, job_id=error.job_id)


def _list_conversions(client: OsaiClient, model_id: str, log: Callable[[str], object]) -> list[Conversion]:
    """Return a model's conversions; an empty list if the API has no such operation, which is only assumed."""
    if "model.conversions" not in client.calls.contract:
        return []
    try:
        return client.list_conversions(model_id)
    except OsaiContractError as error:
        reason = str(error)
    except OsaiRequestError as error:
        if not error.is_unsupported_operation:
            raise
        reason = str(error)
    except OsaiUnreachable as error:
        if error.status != 200:  # 200: a web page, as servers send for every unknown address
            raise
        reason = str(error)
    log(f"OSAI does not list conversions ({reason}). If it never does, set model.conversions to null in the contract")
    return []
