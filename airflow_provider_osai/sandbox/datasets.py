"""Datasets: their documented upload lock, categories, and images on disk."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from threading import RLock
from typing import IO, Any

from airflow_provider_osai.sandbox import image_features
from airflow_provider_osai.sandbox.models import ApiError, CategoryRecord, DatasetRecord, ImageRecord
from airflow_provider_osai.sandbox.persistence import Store

__all__ = ["Datasets"]


class Datasets:
    """All datasets, with OSAI's rules for them (docs.onestepai.com/how_to_use_api/image_upload).

    :param store: stores images and records; its records are loaded at once.
    :param lock: the lock of the sandbox's state.
    :param idle_unlock: seconds without an image after which an open upload no longer locks its dataset.
    :param clock: returns the seconds since the epoch.
    :param new_id: returns a new id.
    """

    def __init__(
        self, store: Store, *, lock: RLock, idle_unlock: float, clock: Callable[[], float], new_id: Callable[[], str]
    ) -> None:
        self._store = store
        self._lock = lock
        self._idle_unlock = idle_unlock
        self._clock = clock
        self._new_id = new_id
        self._records: dict[str, DatasetRecord] = {record.id: record for _, record in store.load(DatasetRecord)}
        for record in self._records.values():
            record.folder = store.files / record.id  # the folder may have been moved
        for dataset_id, image in store.load(ImageRecord):
            image.path = self._records[dataset_id].folder / image.id
            self._records[dataset_id].images[image.id] = image

    def create(self, name: str) -> DatasetRecord:
        """Create a dataset. Names need not be unique."""
        with self._lock:
            record = self.draft(name)
            self.add(record)
            return record

    def draft(self, name: str) -> DatasetRecord:
        """Create a dataset that is not visible until :meth:`add`."""
        dataset_id = self._new_id()
        record = DatasetRecord(dataset_id, name, self._store.files / dataset_id, updated=self._clock())
        record.folder.mkdir(parents=True)
        return record

    def add(self, record: DatasetRecord) -> None:
        """Make a draft visible."""
        with self._lock:
            self._records[record.id] = record
            self.mark_updated(record)
            self.save(record, record.images.values())

    def mark_updated(self, record: DatasetRecord) -> None:
        """Record that a dataset's images or categories have changed now."""
        record.updated = self._clock()

    def save(self, record: DatasetRecord, images: Iterable[ImageRecord] = ()) -> None:
        """Write a changed dataset, and those of its *images* that have changed, to the store."""
        self._store.save(record)
        self._store.save(*images, owner=record.id)

    def get(self, dataset_id: str) -> DatasetRecord:
        """Return a dataset, unlocked if its upload has been idle for too long.

        :raises ApiError: 404, if it does not exist.
        """
        with self._lock:
            record = self._records.get(dataset_id)
            if record is None:
                raise ApiError(404, f"Dataset {dataset_id} does not exist")
            if record.upload and self._clock() - record.touched >= self._idle_unlock:
                record.upload = None
            return record

    def get_unlocked(self, dataset_id: str) -> DatasetRecord:
        """Return a dataset that can be changed or used.

        :raises ApiError: 404, if it does not exist; 409, if an upload locks it.
        """
        record = self.get(dataset_id)
        if record.upload:
            raise ApiError(409, f"Dataset {dataset_id} is locked by an open upload; finish it first")
        return record

    def find(self, name: str | None) -> list[DatasetRecord]:
        """Return the datasets with this name (``None``: all), oldest first."""
        with self._lock:
            return [self.get(key) for key, record in self._records.items() if name is None or record.name == name]

    def delete(self, dataset_id: str) -> None:
        """Delete a dataset and its images."""
        with self._lock:
            record = self.get_unlocked(dataset_id)
            del self._records[dataset_id]
            self._store.delete(record)
        shutil.rmtree(record.folder, ignore_errors=True)

    def clear(self) -> None:
        """Delete all datasets, locked or not."""
        with self._lock:
            records = list(self._records.values())
            self._records = {}
        for record in records:
            shutil.rmtree(record.folder, ignore_errors=True)

    def create_category(self, dataset_id: str, name: str) -> CategoryRecord:
        """Create a category.

        :raises ApiError: 400, if the dataset already has a category of this name.
        """
        with self._lock:
            record = self.get(dataset_id)
            if any(category.name == name for category in record.categories.values()):
                raise ApiError(400, f"Dataset {dataset_id} already has a category {name}")
            category = self.ensure_category(record, name)
            self.save(record)
            return category

    def ensure_category(self, record: DatasetRecord, name: str) -> CategoryRecord:
        """Return the dataset's category of this name; create it if it does not exist."""
        with self._lock:
            category = next((category for category in record.categories.values() if category.name == name), None)
            if category is None:
                category = CategoryRecord(self._new_id(), name, record.id)
                record.categories[category.id] = category
                self.mark_updated(record)
            return category

    def ensure_named_category(self, dataset_id: str, name: str) -> None:
        """Create the category whose id is its name, unless the dataset has it."""
        with self._lock:
            record = self.get(dataset_id)
            if name not in record.categories:
                record.categories[name] = CategoryRecord(name, name, record.id)
                self.mark_updated(record)

    def only(self) -> DatasetRecord:
        """Return the dataset, where requests do not name it.

        :raises ApiError: 400, unless there is exactly one.
        """
        with self._lock:
            if len(self._records) != 1:
                raise ApiError(400, f"The request names no dataset, and there are {len(self._records)}")
            return next(iter(self._records.values()))

    def start_upload(self, dataset_id: str) -> str:
        """Lock the dataset and return the upload's id.

        :raises ApiError: 409, if the dataset is already locked.
        """
        with self._lock:
            record = self.get_unlocked(dataset_id)
            record.upload = self._new_id()
            record.touched = self._clock()
            record.brought = False
            record.uploads.add(record.upload)
            self.save(record)
            return record.upload

    def finish_upload(self, dataset_id: str, upload_id: str) -> None:
        """Unlock the dataset, and mark it as updated if images were uploaded. Idempotent.

        :raises ApiError: 404, if the dataset has never had this upload.
        """
        with self._lock:
            record = self.get(dataset_id)
            if upload_id not in record.uploads:
                raise ApiError(404, f"Dataset {dataset_id} has no upload {upload_id}")
            if record.upload == upload_id:
                record.upload = None
                if record.brought:
                    self.mark_updated(record)
                self.save(record)

    def of_upload(self, upload_id: str) -> DatasetRecord:
        """Return the dataset of an upload.

        :raises ApiError: 404, if there has never been this upload.
        """
        with self._lock:
            for record in self._records.values():
                if upload_id in record.uploads:
                    return record
        raise ApiError(404, f"There is no upload {upload_id}")

    def category_named(self, dataset_id: str, name: str) -> CategoryRecord:
        """Return a category of a dataset.

        :raises ApiError: 400, if it does not exist.
        """
        with self._lock:
            for category in self.get(dataset_id).categories.values():
                if category.name == name:
                    return category
        raise ApiError(400, f"Dataset {dataset_id} has no category {name}; create it first")

    def add_image(self, dataset_id: str, upload_id: str | None, file: IO[bytes], **details: Any) -> ImageRecord:
        """Store one image of an open upload on disk, if it can be decoded.

        :param upload_id: of the open upload; ``None`` if the contract has no uploads.
        :param details: ``file_name``, ``category_id``, ``annotations`` (JSON text).
        :raises ApiError: 400, if the image, its category or its annotations are invalid; 409, if the upload is not
            open.
        """
        with self._lock:
            record = self._get_uploading(dataset_id, upload_id)
            category_id = details.get("category_id") or None
            if category_id and category_id not in record.categories:
                raise ApiError(400, f"Dataset {dataset_id} has no category {category_id}; create it first")
            image_id = self._new_id()
        annotations = _parse_annotations(details.get("annotations"))
        path = record.folder / image_id
        digest = image_features.store(file, path)  # slow, so outside the lock
        image = ImageRecord(image_id, details.get("file_name") or image_id, path, category_id, annotations, digest)
        with self._lock:
            try:
                record = self._get_uploading(dataset_id, upload_id)
            except ApiError:
                path.unlink(missing_ok=True)
                raise
            record.images[image_id] = image
            record.brought = True
            self.mark_updated(record)
            self.save(record, [image])
        return image

    def add_generated_image(
        self, record: DatasetRecord, path: Path, source: ImageRecord, category: str | None, annotations: Any = None
    ) -> None:
        """Add an image that a job has written to *path*, in the folder of its draft dataset."""
        category_id = self.ensure_category(record, category).id if category else None
        record.images[path.name] = ImageRecord(path.name, source.file_name, path, category_id, annotations)

    def _get_uploading(self, dataset_id: str, upload_id: str | None) -> DatasetRecord:
        if upload_id is None:
            return self.get_unlocked(dataset_id)
        record = self.get(dataset_id)
        if record.upload != upload_id:
            raise ApiError(409, f"Upload {upload_id} of dataset {dataset_id} is not open; start one first")
        record.touched = self._clock()
        return record


def _parse_annotations(annotations: Any) -> Any:
    if not annotations:
        return None
    try:
        return json.loads(annotations)
    except (TypeError, ValueError):
        raise ApiError(400, "annotations: not valid JSON") from None
