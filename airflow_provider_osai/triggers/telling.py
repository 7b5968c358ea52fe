"""Tells each change once, and remembers it where a restarted triggerer finds it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_osai.compat import each_asset_state

if TYPE_CHECKING:
    from airflow_provider_osai.jobs.news import Told
    from airflow_provider_osai.triggers.looking import Look

__all__ = ["Memory", "Teller"]

VERSION: Final = 1

News = Callable[["Told | None", "Look"], "tuple[list[dict[str, Any]], Told | None]"]


class Memory:
    """What one trigger has told, in the state stores of the assets that it serves; nowhere before Airflow 3.3.

    All that a trigger tells goes to all its assets, so what is kept for them is the same, but for an asset that was
    added later, or a kill between two writings: then the latest counts.

    :param store: what Airflow gives a trigger to reach its assets' state, or ``None``.
    :param key: what it is kept under, beside what other triggers keep there.
    """

    def __init__(self, store: Any, key: str) -> None:
        self._stores, self._key = each_asset_state(store), key
        self._number = 0
        self.is_whole = True
        """Whether all assets have what was recalled."""

    async def recall(self) -> Told | None:
        """Return what was told last; ``None`` if nothing is known of it. May raise anything."""
        kept = [_read(await store.aget(self._key)) for store in self._stores]
        found = [one for one in kept if one is not None]
        if not found:
            return None
        self._number, told = max(found, key=lambda one: one[0])
        self.is_whole = all(one == (self._number, told) for one in kept)
        return told

    async def remember(self, told: Told) -> None:
        """Keep what was told, for each asset. May raise anything."""
        self._number += 1
        for store in self._stores:
            await store.aset(self._key, {"version": VERSION, "number": self._number, "told": told})


class Teller:
    """Compares each look with what was told, for one trigger.

    What is told is remembered after the event that tells it is kept: a kill in between tells it once more, and never
    leaves it untold.

    :param memory: of the trigger.
    :param news: finds what to tell, given what was told and a look.
    :param log: of the trigger.
    """

    def __init__(self, memory: Memory, news: News, log: Any) -> None:
        self._memory, self._news, self._log = memory, news, log
        self._told: Told | None = None
        self._saved: Told | None = None
        self._recalled = False
        """Whether nothing that the memory may say yet is newer than what is known here."""
        self._complained = False

    async def hear(self, look: Look) -> list[dict[str, Any]]:
        """Return the events that a look gives rise to."""
        look.heard += 1
        if not self._recalled and not await self._recall():
            return []
        events, told = self._news(self._told, look)
        self._recalled = self._recalled or bool(events)
        self._told = told
        if told is not None and told != self._saved:
            look.after(partial(self._save, told))
        return events

    async def _recall(self) -> bool:
        """Take up what was told before, if it can be known; whether the look may be judged."""
        try:
            told = await self._memory.recall()
        except Exception as error:  # noqa: BLE001 - it is Airflow's, and comes and goes
            self._complain("Cannot recall what was told, and tell nothing until that works: %s: %s", error)
            return False
        if told is not None:
            self._told, self._recalled = told, True
            self._saved = told if self._memory.is_whole else None
        return True

    async def _save(self, told: Told) -> None:
        """Remember; what fails is tried again after the next look."""
        if told == self._saved:
            return
        try:
            await self._memory.remember(told)
        except Exception as error:  # noqa: BLE001 - same
            self._complain("Cannot remember what was told, and try again after the next look: %s: %s", error)
            return
        self._saved, self._recalled, self._complained = told, True, False

    def _complain(self, text: str, error: Exception) -> None:
        if not self._complained:
            self._log.warning(text, type(error).__name__, error)
        self._complained = True


def _read(kept: Any) -> tuple[int, Told] | None:
    """Return the number and the contents of what is kept; ``None`` if it is nothing of ours."""
    if not isinstance(kept, dict) or not isinstance(kept.get("told"), dict):
        return None
    number = kept.get("number")
    return (number if isinstance(number, int) else 0), kept["told"]
