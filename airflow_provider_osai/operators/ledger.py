"""A task's memory between its tries: Airflow's task state store, where there is one (3.3 and newer)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel, ConfigDict, ValidationError

from airflow_provider_osai.jobs.ledger import Entry, Forgetful, Ledger
from airflow_provider_osai.uploads import memory

if TYPE_CHECKING:
    from airflow.sdk import Context

__all__ = ["StateStoreLedger", "StateStoreUploads", "ledger_of", "upload_memory_of"]

KEY: Final = "osai_job"
"""Under which key of the task's state store the entry is kept."""
UPLOAD: Final = "osai_upload"
"""The same for an upload; the images that were sent follow under ``osai_upload_0`` and so on."""
PROGRESS: Final = "osai_progress"
"""The same for how far an upload is."""
TOGETHER: Final = 500
"""Images under one key: 12 kB, which every database takes."""
DIGITS: Final = 24
"""Digits that tell one image from others."""


class StateStoreLedger:
    """Keeps the entry in the task's state store, which survives its process, its retries and its clears."""

    def __init__(self, store: Any, about: str = "") -> None:
        self._store = store
        self._key = f"{KEY}_{about}" if about else KEY

        self.remembers = True

    def read(self) -> Entry | None:
        """Return the entry; one that cannot be read, as of a far newer version, counts as forgotten."""
        kept = self._store.get(self._key)
        self.remembers = True
        if kept is None:
            return None
        try:
            return Entry.model_validate(kept)
        except ValidationError:
            self.remembers = False
            return None

    def write(self, entry: Entry) -> None:
        """Keep the entry; Airflow has stored it when this returns."""
        self._store.set(self._key, entry.model_dump(mode="json"))


def ledger_of(context: Context, about: str = "") -> Ledger:
    """Return the ledger of the task that runs.

    :param about: which of its jobs, if the task has several at a time.
    """
    store = context.get("task_state_store")
    return Forgetful() if store is None else StateStoreLedger(store, about)


class _Upload(BaseModel):
    model_config = ConfigDict(extra="ignore")

    version: int = 1
    dataset_id: str
    upload_id: str | None = None
    parts: int = 0


class StateStoreUploads:
    """Keeps what was sent in the task's state store: digits of digests, a few hundred under each key."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self._upload = _Upload(dataset_id="")
        self._last = ""

    def recall(self, dataset_id: str) -> memory.Past:
        """Return what earlier tries sent into this dataset; of another dataset, nothing."""
        try:
            found = _Upload.model_validate(self._store.get(UPLOAD))
        except ValidationError:
            found = None
        if found is None or found.dataset_id != dataset_id:
            self._upload = _Upload(dataset_id=dataset_id)
            return memory.Past()
        self._upload = found
        parts = [str(self._store.get(f"{UPLOAD}_{number}") or "") for number in range(found.parts)]
        text = "".join(parts)
        self._last = parts[-1] if parts else ""
        return memory.Past({text[at : at + DIGITS] for at in range(0, len(text), DIGITS)}, found.upload_id)

    def opened(self, upload_id: str | None) -> None:
        """Remember that an upload is open, or that none is."""
        self._upload.upload_id = upload_id
        self._write()

    def sent(self, keys: Iterable[str]) -> None:
        """Remember images that were sent."""
        parts = self._upload.parts
        if not parts:
            parts, self._last = 1, ""
        for key in keys:
            if len(self._last) >= TOGETHER * DIGITS:
                self._store.set(f"{UPLOAD}_{parts - 1}", self._last)
                parts, self._last = parts + 1, ""
            self._last += key
        self._store.set(f"{UPLOAD}_{parts - 1}", self._last)
        if parts != self._upload.parts:
            self._upload.parts = parts
            self._write()

    def progress(self, figures: dict[str, Any]) -> None:
        """Show how far it is."""
        self._store.set(PROGRESS, figures)

    def _write(self) -> None:
        self._store.set(UPLOAD, self._upload.model_dump(mode="json"))


def upload_memory_of(context: Context) -> memory.UploadMemory:
    """Return what the task that runs remembers of its uploads."""
    store = context.get("task_state_store")
    return memory.Forgetful() if store is None else StateStoreUploads(store)
