"""A task's memory between its tries: Airflow's task state store, where there is one (3.3 and newer)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError

from airflow_provider_osai.jobs.ledger import Entry, Forgetful, Ledger

if TYPE_CHECKING:
    from airflow.sdk import Context

__all__ = ["StateStoreLedger", "ledger_of"]

KEY: Final = "osai_job"
"""Under which key of the task's state store the entry is kept."""


class StateStoreLedger:
    """Keeps the entry in the task's state store, which survives its process, its retries and its clears."""

    def __init__(self, store: Any) -> None:
        self._store = store

    def read(self) -> Entry | None:
        """Return the entry; one that does not fit (of a newer version of this package) counts as none."""
        try:
            return Entry.model_validate(self._store.get(KEY))
        except ValidationError:
            return None

    def write(self, entry: Entry) -> None:
        """Keep the entry; Airflow has stored it when this returns."""
        self._store.set(KEY, entry.model_dump(mode="json"))


def ledger_of(context: Context) -> Ledger:
    """Return the ledger of the task that runs."""
    store = context.get("task_state_store")
    return Forgetful() if store is None else StateStoreLedger(store)
