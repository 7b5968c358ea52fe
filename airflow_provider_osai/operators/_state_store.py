"""Stores job and upload checkpoints in Airflow's task state store (Airflow 3.3 and newer)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel, ConfigDict, ValidationError

from airflow_provider_osai.jobs.checkpoint import JobCheckpoint, JobCheckpointStore, NullCheckpointStore
from airflow_provider_osai.uploads import checkpoint

if TYPE_CHECKING:
    from airflow.sdk import Context

__all__ = ["StateStoreJobCheckpoints", "StateStoreUploadCheckpoints", "job_checkpoint_store", "upload_checkpoint_store"]

KEY: Final = "osai_job"
"""Key of the job checkpoint in the task state store."""
UPLOAD: Final = "osai_upload"
"""Key of the upload checkpoint; the images that were sent are stored under ``osai_upload_0`` and so on."""
PROGRESS: Final = "osai_progress"
"""Key of the upload's progress."""
IMAGES_PER_VALUE: Final = 500
"""Maximum number of images in one value. That is 12 kB, which every database accepts."""
DIGITS: Final = 24
"""Hexadecimal digits of an image's deduplication key."""


class StateStoreJobCheckpoints:
    """Stores the job checkpoint in the task state store, which survives the task's process, retries and clears.

    :param store: the task state store.
    :param about: identifies the job if the task has several at a time.
    :param is_first_try: whether no other try may have submitted a job. An earlier one may have run before an upgrade
        to Airflow 3.3, and have stored nothing.
    """

    def __init__(self, store: Any, about: str = "", *, is_first_try: bool = True) -> None:
        self._store = store
        self._key = f"{KEY}_{about}" if about else KEY
        self._is_first_try = is_first_try
        self.remembers = is_first_try

    def read(self) -> JobCheckpoint | None:
        """Return the checkpoint; one that cannot be parsed, for instance of a much newer version, counts as missing."""
        value = self._store.get(self._key)
        if value is None:
            self.remembers = self._is_first_try
            return None
        self.remembers = True
        try:
            return JobCheckpoint.model_validate(value)
        except ValidationError:
            self.remembers = False
            return None

    def write(self, entry: JobCheckpoint) -> None:
        """Store the checkpoint; Airflow has persisted it when this returns."""
        self._store.set(self._key, entry.model_dump(mode="json"))


def job_checkpoint_store(context: Context, about: str = "") -> JobCheckpointStore:
    """Return the job checkpoint store of the running task.

    :param about: identifies the job if the task has several at a time.
    """
    store = context.get("task_state_store")
    if store is None:
        return NullCheckpointStore()
    return StateStoreJobCheckpoints(store, about, is_first_try=context["ti"].try_number <= 1)


class _Upload(BaseModel):
    model_config = ConfigDict(extra="ignore")

    version: int = 1
    dataset_id: str
    upload_id: str | None = None
    parts: int = 0


class StateStoreUploadCheckpoints:
    """Stores the upload checkpoint in the task state store: the keys of images, up to 500 in one value."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self._upload = _Upload(dataset_id="")
        self._last = ""

    def load(self, dataset_id: str) -> checkpoint.UploadCheckpoint:
        """Return the checkpoint of earlier tries; empty if it belongs to another dataset."""
        try:
            upload = _Upload.model_validate(self._store.get(UPLOAD))
        except ValidationError:
            upload = None
        if upload is None or upload.dataset_id != dataset_id:
            self._upload = _Upload(dataset_id=dataset_id)
            return checkpoint.UploadCheckpoint()
        self._upload = upload
        parts = [str(self._store.get(f"{UPLOAD}_{number}") or "") for number in range(upload.parts)]
        text = "".join(parts)
        self._last = parts[-1] if parts else ""
        return checkpoint.UploadCheckpoint(
            {text[at : at + DIGITS] for at in range(0, len(text), DIGITS)}, upload.upload_id
        )

    def save_upload_id(self, upload_id: str | None) -> None:
        """Record the id of the open upload; ``None`` if none is open."""
        self._upload.upload_id = upload_id
        self._write()

    def save_keys(self, keys: Iterable[str]) -> None:
        """Record images that were sent."""
        parts = self._upload.parts
        if not parts:
            parts = 1
            self._last = ""
        for key in keys:
            if len(self._last) >= IMAGES_PER_VALUE * DIGITS:
                self._store.set(f"{UPLOAD}_{parts - 1}", self._last)
                parts += 1
                self._last = ""
            self._last += key
        self._store.set(f"{UPLOAD}_{parts - 1}", self._last)
        if parts != self._upload.parts:
            self._upload.parts = parts
            self._write()

    def progress(self, figures: dict[str, Any]) -> None:
        """Store the upload's progress."""
        self._store.set(PROGRESS, figures)

    def _write(self) -> None:
        self._store.set(UPLOAD, self._upload.model_dump(mode="json"))


def upload_checkpoint_store(context: Context) -> checkpoint.UploadCheckpointStore:
    """Return the upload checkpoint store of the running task."""
    store = context.get("task_state_store")
    return checkpoint.NullUploadStore() if store is None else StateStoreUploadCheckpoints(store)
