"""Fires each change once, and persists the last reported state in Airflow's asset state store."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_osai.compat import asset_state_stores

if TYPE_CHECKING:
    from airflow_provider_osai.triggers.asset_polling import Snapshot
    from airflow_provider_osai.triggers.change_detection import ReportedState

__all__ = ["ChangeReporter", "ReportedStateStore"]

VERSION: Final = 1

DetectChanges = Callable[["ReportedState | None", "Snapshot"], "tuple[list[dict[str, Any]], ReportedState | None]"]


class ReportedStateStore:
    """The state that a trigger last reported, in the state store of each of its assets; a no-op before Airflow 3.3.

    A trigger fires its events for all its assets, so they store the same state, except for an asset that was added
    later, or after a kill between two writes. Then the latest state counts.

    :param store: the object through which Airflow gives a trigger access to the state of its assets, or ``None``.
    :param key: the key of this trigger's state, different from that of other triggers of the asset.
    """

    def __init__(self, store: Any, key: str) -> None:
        self._stores = asset_state_stores(store)
        self._key = key
        self._number = 0
        self.is_complete = True
        """Whether all assets store the state that was loaded."""

    async def load(self) -> ReportedState | None:
        """Return the last reported state; ``None`` if there is none. May raise any exception."""
        values = [_parse(await store.aget(self._key)) for store in self._stores]
        valid = [value for value in values if value is not None]
        if not valid:
            return None
        self._number, reported = max(valid, key=lambda value: value[0])
        self.is_complete = all(value == (self._number, reported) for value in values)
        return reported

    async def save(self, reported: ReportedState) -> None:
        """Store the reported state for each asset. May raise any exception."""
        self._number += 1
        for store in self._stores:
            await store.aset(self._key, {"version": VERSION, "number": self._number, "told": reported})


class ChangeReporter:
    """Compares each snapshot with the last reported state, for one trigger.

    The new state is saved only after its event is persisted: a kill in between fires the event a second time, but never
    loses it.

    :param store: store of the trigger's reported state.
    :param detect: returns the events and the new reported state, given the last reported state and a snapshot.
    :param log: the trigger's logger.
    """

    def __init__(self, store: ReportedStateStore, detect: DetectChanges, log: Any) -> None:
        self._store = store
        self._detect = detect
        self._log = log
        self._reported: ReportedState | None = None
        self._saved: ReportedState | None = None
        self._is_loaded = False
        """Whether the state in memory is at least as new as the stored one, so that the store need not be read."""
        self._has_warned = False

    async def detect_changes(self, snapshot: Snapshot) -> list[dict[str, Any]]:
        """Return the events for a snapshot."""
        snapshot.consumers += 1
        if not self._is_loaded and not await self._load():
            return []
        events, reported = self._detect(self._reported, snapshot)
        self._is_loaded = self._is_loaded or bool(events)
        self._reported = reported
        if reported is not None and reported != self._saved:
            snapshot.add_callback(partial(self._save, reported))
        return events

    async def _load(self) -> bool:
        """Load the last reported state, if there is one; return ``False`` if the store cannot be read."""
        try:
            reported = await self._store.load()
        except Exception as error:  # whatever Airflow raises, loading is retried at the next poll
            self._warn_once("Loading the last reported state failed; no events fire until it succeeds: %s: %s", error)
            return False
        if reported is not None:
            self._reported = reported
            self._is_loaded = True
            self._saved = reported if self._store.is_complete else None
        return True

    async def _save(self, reported: ReportedState) -> None:
        """Save the reported state; after a failure, the next poll tries again."""
        if reported == self._saved:
            return
        try:
            await self._store.save(reported)
        except Exception as error:  # whatever Airflow raises, saving is retried after the next poll
            self._warn_once("Saving the reported state failed; retrying after the next poll: %s: %s", error)
            return
        self._saved = reported
        self._is_loaded = True
        self._has_warned = False

    def _warn_once(self, message: str, error: Exception) -> None:
        if not self._has_warned:
            self._log.warning(message, type(error).__name__, error)
        self._has_warned = True


def _parse(value: Any) -> tuple[int, ReportedState] | None:
    """Return the number and the reported state of a stored value; ``None`` if it is not valid."""
    if not isinstance(value, dict) or not isinstance(value.get("told"), dict):
        return None
    number = value.get("number")
    return (number if isinstance(number, int) else 0), value["told"]
