"""What OSAI already has converted, and what it never will."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from airflow_provider_osai.api.calls import Calls
from airflow_provider_osai.api.errors import (
    OsaiContractError,
    OsaiError,
    OsaiRequestError,
    OsaiUnreachable,
    OsaiUnsupported,
    quotable,
)
from airflow_provider_osai.api.models import Conversion, Job, JobKind, JobResult, JobState
from airflow_provider_osai.api.naming import folded
from airflow_provider_osai.jobs.flow import Flow

__all__ = ["existing", "explained", "is_unsupported"]

UNSUPPORTED: Final = re.compile(r"\bUNSUPPORTED\b")
"""How impossible conversions are marked (docs.onestepai.com/model_creation_and_training/hardware_and_conversions)."""
UNTOLD: Final = frozenset({400, 404, 405, 501})
"""How an API without the list may answer to it."""


def is_unsupported(thing: Job | Conversion) -> bool:
    """Whether a job or a conversion failed because it is impossible: by its status word, or by its message."""
    if thing.state is not JobState.FAILED or (isinstance(thing, Job) and thing.kind is not JobKind.CONVERSION):
        return False
    return folded(thing.status) == "unsupported" or bool(UNSUPPORTED.search(thing.message or ""))


def existing(calls: Calls, model_id: str, target: str, note: Callable[[str], object]) -> Flow[Job | None]:
    """Return the job of a conversion that has already succeeded; ``None`` if there is none or OSAI cannot tell.

    One that is still being made belongs to somebody else, who may cancel it, so it is left alone.

    :param note: is told what somebody should know who reads the log.
    :raises OsaiUnsupported: if OSAI knows already that it is impossible.
    """
    conversions = yield from _listed(calls, model_id, note)
    same = [one for one in conversions if (one.target or "").strip().casefold() == target.strip().casefold()]
    for one in same:
        if one.state is JobState.SUCCEEDED:
            note(f"model {model_id} is already converted for {target} (conversion {one.id}); it is used again")
            result = JobResult(model_id=model_id, conversion_id=one.id)
            kind = JobKind.CONVERSION
            return Job(kind=kind, id=one.job_id or one.id, state=one.state, status=one.status, result=result)
    impossible = next((one for one in same if is_unsupported(one)), None)
    if impossible is not None:
        msg = "OSAI has already found this conversion impossible (UNSUPPORTED)"
        raise OsaiUnsupported(msg, kind=JobKind.CONVERSION, job_id=impossible.job_id or impossible.id)
    return None


def explained(calls: Calls, error: OsaiUnsupported, model_id: str, target: str) -> Flow[OsaiUnsupported]:
    """Return *error* with the model, the target, and the targets that are known to be good, if OSAI tells."""
    try:
        conversions = yield from _listed(calls, model_id, lambda _: None)
    except OsaiError:
        conversions = []
    good = sorted({one.target for one in conversions if one.target and one.state is JobState.SUCCEEDED})
    known = f"; it is already converted for: {quotable(', '.join(good))}" if good else ""
    told = str(error).partition(": ")[2]
    msg = f"model {model_id} cannot be converted for {target!r}{known}. Choose another target. {told}"
    return OsaiUnsupported(msg, kind=error.kind, job_id=error.job_id)


def _listed(calls: Calls, model_id: str, note: Callable[[str], object]) -> Flow[list[Conversion]]:
    """Return a model's conversions; none if OSAI cannot tell, since this operation is only assumed."""
    if "model.conversions" not in calls.contract:
        return []
    try:
        found: list[Conversion] = yield calls.list_conversions(model_id)
    except OsaiContractError as error:
        why = str(error)
    except OsaiRequestError as error:
        if error.status not in UNTOLD:
            raise
        why = str(error)
    except OsaiUnreachable as error:
        if error.status != 200:
            raise
        why = str(error)  # a page for every address that there is none for
    else:
        return found
    note(f"OSAI does not tell what is already converted ({why}); bind model.conversions to null if it never does")
    return []
