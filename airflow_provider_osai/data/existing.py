"""Datasets that are there already, as flows: find them by name, make way for a new one, delete one."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any, Final

from airflow_provider_osai.api.calls import Calls
from airflow_provider_osai.api.errors import OsaiArgumentError, OsaiRequestError, OsaiUnreachable
from airflow_provider_osai.api.models import Dataset
from airflow_provider_osai.jobs.flow import Flow, Sleep

__all__ = ["PATIENCE", "IfExists", "IfMissing", "chosen", "delete_dataset", "make_way", "named", "the_one"]

PATIENCE: Final = 600.0
"""Seconds for which a dataset that is in use is waited for."""
LONGEST_PAUSE: Final = 30.0
"""Seconds between two tries to delete it."""
IN_USE: Final = frozenset({409, 423})
"""How OSAI may say that a dataset is locked by an upload or used by a job (assumed)."""
GONE: Final = frozenset({404, 410})
NO_ID: Final = frozenset({"", "None", "null"})
"""What a template leaves of an id that is missing."""
NOT_AN_ID: Final = ("{'", '{"', "[")
"""How a dict or a list begins that was rendered as text."""


class IfExists(StrEnum):
    """What to do when a dataset of that name is already there."""

    REUSE = "reuse"
    FAIL = "fail"
    REPLACE = "replace"
    NEW = "new"


class IfMissing(StrEnum):
    """What to do when the dataset to delete is not there."""

    IGNORE = "ignore"
    FAIL = "fail"


def chosen(argument: str, word: str, among: tuple[str, ...]) -> str:
    """Return *word* if it is one of the choices; raise OsaiArgumentError naming the *argument* if not."""
    if word not in among:
        raise OsaiArgumentError(f"{argument} = {word!r}: choose {', '.join(among[:-1])} or {among[-1]}")
    return str(word)


def named(calls: Calls, name: str, *, surely: bool = False) -> Flow[list[Dataset]]:
    """Return the datasets called *name*.

    :param surely: raise OsaiContractError if the API cannot tell; else there are none then.
    """
    if not surely and "dataset.find" not in calls.contract:
        return []
    answer: list[Dataset] = yield calls.find_datasets(name)
    return [dataset for dataset in answer if dataset.name == name]


def the_one(name: str, there: list[Dataset]) -> Dataset | None:
    """Return the dataset of that name, if there is one; raise OsaiArgumentError if there are several."""
    if len(there) > 1:
        ids = ", ".join(dataset.id for dataset in there)
        msg = f"name = {name!r}: OSAI has {len(there)} datasets of this name ({ids}); use the id of one"
        raise OsaiArgumentError(msg)
    return there[0] if there else None


def make_way(
    calls: Calls, name: str, if_exists: str, *, source_id: str | None = None, patience: float = PATIENCE
) -> Flow[None]:
    """Do what *if_exists* says before a dataset called *name* is made: ``new`` nothing, ``fail``, or ``replace``.

    :param source_id: a dataset that is still needed, and never replaced.
    :param patience: seconds for which a dataset to replace may be in use.
    :raises OsaiArgumentError: if *if_exists* is ``fail`` and the dataset is there, if several that might be replaced
        have the name, or if it is the *source_id*.
    """
    rule = chosen("if_exists", if_exists, (IfExists.NEW, IfExists.FAIL, IfExists.REPLACE))
    if rule == IfExists.NEW:
        return
    there = yield from named(calls, name, surely=True)
    if there and rule == IfExists.FAIL:
        ids = ", ".join(dataset.id for dataset in there)
        raise OsaiArgumentError(f"name = {name!r}: OSAI already has this dataset (id {ids}), and if_exists is 'fail'")
    old = the_one(name, there)
    if old is None:
        return
    if old.id == source_id:
        raise OsaiArgumentError(f"name = {name!r}: that is the dataset {old.id} itself, which must not be replaced")
    yield from delete_dataset(calls, old.id, patience=patience)


def delete_dataset(
    calls: Calls,
    dataset_id: Any,
    if_missing: str = IfMissing.IGNORE,
    patience: float = PATIENCE,
    note: Callable[[str], object] = lambda _: None,
) -> Flow[dict[str, Any]]:
    """Delete one dataset, and say whether this did it. While OSAI still uses it, wait.

    :param dataset_id: its id; what is left of an id that is missing counts as no dataset.
    :param patience: seconds to wait for an upload that locks it, or a job that works on it.
    :param note: is told what somebody should know who reads the log.
    :raises OsaiArgumentError: if it is not there and *if_missing* is ``fail``, or if that is no id.
    :raises OsaiUnreachable: if it was in use for longer than *patience*.
    """
    missing_is_bad = chosen("if_missing", if_missing, (IfMissing.IGNORE, IfMissing.FAIL)) == IfMissing.FAIL
    if isinstance(patience, bool) or not isinstance(patience, (int, float)) or not patience >= 0:
        raise OsaiArgumentError(f"patience = {patience!r}: a number of seconds from 0 on is needed")
    wanted = _id(dataset_id)
    if wanted:
        seen = "dataset.get" not in calls.contract or (yield from _is_there(calls, wanted))
        if seen and (yield from _deleted(calls, wanted, float(patience), note)):
            return {"dataset_id": wanted, "deleted": True}
    fact = f"OSAI has no dataset {wanted}" if wanted else "an id is missing; the task that it comes from made none"
    if missing_is_bad:
        raise OsaiArgumentError(f"dataset_id = {dataset_id!r}: {fact}, and if_missing is 'fail'")
    note(f"Nothing was deleted: {fact}")
    return {"dataset_id": wanted, "deleted": False}


def _id(value: Any) -> str | None:
    """Return the id; ``None`` if there is none; raise OsaiArgumentError for what cannot be one."""
    text = "" if value is None else str(value).strip()
    if isinstance(value, (bool, float)) or not isinstance(value, (str, int, type(None))) or text.startswith(NOT_AN_ID):
        raise OsaiArgumentError(f"dataset_id = {value!r}: the id of one dataset is needed")
    return None if text in NO_ID else text


def _is_there(calls: Calls, dataset_id: str) -> Flow[bool]:
    try:
        yield calls.get_dataset(dataset_id)
    except OsaiRequestError as error:
        if error.status not in GONE:
            raise
        return False
    return True


def _deleted(calls: Calls, dataset_id: str, patience: float, note: Callable[[str], object]) -> Flow[bool]:
    """Delete a dataset as soon as OSAI lets it go; return whether it was there."""
    waited, pause, again = 0.0, 1.0, False
    while True:
        try:
            yield calls.delete_dataset(dataset_id)
        except OsaiRequestError as error:
            if error.status in GONE:
                # Where it could be seen before, somebody deleted it just now, most likely this call at its first try.
                return "dataset.get" in calls.contract
            if error.status not in IN_USE:
                raise
            said = error.text
        except OsaiUnreachable as error:
            if not error.is_busy:
                raise
            said = str(error)
        else:
            return True
        if waited >= patience:
            msg = f"dataset {dataset_id} is still in use after {waited:.0f} s, by an upload or a job; OSAI says: {said}"
            raise OsaiUnreachable(msg, sent=False, status=409)
        if not again:
            note(f"Dataset {dataset_id} is in use, waiting up to {patience:.0f} s for it; OSAI says: {said}")
        pause, again = min(pause, patience - waited), True
        waited += pause
        yield Sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)
