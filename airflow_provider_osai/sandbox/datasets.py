"""Datasets with their documented lock, their categories and their images on disk."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from threading import RLock
from typing import IO, Any

from airflow_provider_osai.sandbox import pictures
from airflow_provider_osai.sandbox.records import CategoryRecord, DatasetRecord, ImageRecord, Refused
from airflow_provider_osai.sandbox.store import Store

__all__ = ["Datasets"]


class Datasets:
    """The rules of datasets (docs.onestepai.com/how_to_use_api/image_upload).

    :param store: where images and records are kept; what it has of them is there from the start.
    :param lock: the state's one lock.
    :param idle_unlock: seconds after which a forgotten upload unlocks its dataset.
    :param clock: seconds since the epoch.
    :param new_id: makes ids.
    """

    def __init__(
        self, store: Store, *, lock: RLock, idle_unlock: float, clock: Callable[[], float], new_id: Callable[[], str]
    ) -> None:
        self._store, self._lock, self._idle_unlock = store, lock, idle_unlock
        self._clock, self._new_id = clock, new_id
        self._all: dict[str, DatasetRecord] = {record.id: record for _, record in store.load(DatasetRecord)}
        for record in self._all.values():
            record.folder = store.files / record.id  # the folder may have been moved
        for dataset_id, image in store.load(ImageRecord):
            image.path = self._all[dataset_id].folder / image.id
            self._all[dataset_id].images[image.id] = image

    def create(self, name: str) -> DatasetRecord:
        """Make a dataset. Several may have the same name."""
        with self._lock:
            record = self.draft(name)
            self.add(record)
            return record

    def draft(self, name: str) -> DatasetRecord:
        """Make a dataset that nobody sees until it is added."""
        dataset_id = self._new_id()
        record = DatasetRecord(dataset_id, name, self._store.files / dataset_id, updated=self._clock())
        record.folder.mkdir(parents=True)
        return record

    def add(self, record: DatasetRecord) -> None:
        """Show a draft to everybody."""
        with self._lock:
            self._all[record.id] = record
            self.changed(record)
            self.keep(record, record.images.values())

    def changed(self, record: DatasetRecord) -> None:
        """Note that a dataset's images or categories are not what they were."""
        record.updated = self._clock()

    def keep(self, record: DatasetRecord, images: Iterable[ImageRecord] = ()) -> None:
        """Have the store keep what has changed of a dataset, and those of its images that have changed."""
        self._store.keep(record)
        self._store.keep(*images, owner=record.id)

    def get(self, dataset_id: str) -> DatasetRecord:
        """Return a dataset as it is now; 404 if there is none."""
        with self._lock:
            record = self._all.get(dataset_id)
            if record is None:
                raise Refused(404, f"there is no dataset {dataset_id}")
            if record.upload and self._clock() - record.touched >= self._idle_unlock:
                record.upload = None
            return record

    def unlocked(self, dataset_id: str) -> DatasetRecord:
        """Return a dataset that no upload locks; 409 if one does."""
        record = self.get(dataset_id)
        if record.upload:
            raise Refused(409, f"dataset {dataset_id} is locked by an open upload; finish it first")
        return record

    def find(self, name: str | None) -> list[DatasetRecord]:
        """Return the datasets called *name*, or all, in the order they were made."""
        with self._lock:
            return [self.get(key) for key, record in self._all.items() if name is None or record.name == name]

    def delete(self, dataset_id: str) -> None:
        """Remove a dataset and its images."""
        with self._lock:
            record = self.unlocked(dataset_id)
            del self._all[dataset_id]
            self._store.drop(record)
        shutil.rmtree(record.folder, ignore_errors=True)

    def clear(self) -> None:
        """Remove all datasets, locked or not."""
        with self._lock:
            records, self._all = list(self._all.values()), {}
        for record in records:
            shutil.rmtree(record.folder, ignore_errors=True)

    def create_category(self, dataset_id: str, name: str) -> CategoryRecord:
        """Make a category; 400 if the dataset has one of that name."""
        with self._lock:
            record = self.get(dataset_id)
            if any(category.name == name for category in record.categories.values()):
                raise Refused(400, f"dataset {dataset_id} already has a category called {name}")
            category = self.ensure_category(record, name)
            self.keep(record)
            return category

    def ensure_category(self, record: DatasetRecord, name: str) -> CategoryRecord:
        """Return the dataset's category of that name, made if it is missing."""
        with self._lock:
            category = next((one for one in record.categories.values() if one.name == name), None)
            if category is None:
                category = CategoryRecord(self._new_id(), name, record.id)
                record.categories[category.id] = category
                self.changed(record)
            return category

    def start_upload(self, dataset_id: str) -> str:
        """Lock the dataset and return the upload's id; 409 if it is locked."""
        with self._lock:
            record = self.unlocked(dataset_id)
            record.upload, record.touched, record.brought = self._new_id(), self._clock(), False
            record.uploads.add(record.upload)
            self.keep(record)
            return record.upload

    def finish_upload(self, dataset_id: str, upload_id: str) -> None:
        """Unlock the dataset, which has changed if images came. Finishing an upload that is over changes nothing."""
        with self._lock:
            record = self.get(dataset_id)
            if upload_id not in record.uploads:
                raise Refused(404, f"dataset {dataset_id} has no upload {upload_id}")
            if record.upload == upload_id:
                record.upload = None
                if record.brought:
                    self.changed(record)
                self.keep(record)

    def add_image(self, dataset_id: str, upload_id: str, file: IO[bytes], **details: Any) -> ImageRecord:
        """Take one image of an open upload: on disk, and only if it can be decoded.

        :param details: ``file_name``, ``category_id``, ``annotations`` (JSON text).
        """
        with self._lock:
            record = self._uploading(dataset_id, upload_id)
            category_id = details.get("category_id") or None
            if category_id and category_id not in record.categories:
                raise Refused(400, f"dataset {dataset_id} has no category {category_id}; create it first")
            image_id = self._new_id()
        annotations = _parsed(details.get("annotations"))
        path = record.folder / image_id
        digest = pictures.store(file, path)  # outside the lock: it takes its time
        image = ImageRecord(image_id, details.get("file_name") or image_id, path, category_id, annotations, digest)
        with self._lock:
            try:
                record = self._uploading(dataset_id, upload_id)
            except Refused:
                path.unlink(missing_ok=True)
                raise
            record.images[image_id] = image
            record.brought = True
            self.changed(record)
            self.keep(record, [image])
        return image

    def adopt_image(
        self, record: DatasetRecord, path: Path, source: ImageRecord, category: str | None, annotations: Any = None
    ) -> None:
        """Add an image that a job has written to *path* inside the folder of its draft."""
        category_id = self.ensure_category(record, category).id if category else None
        record.images[path.name] = ImageRecord(path.name, source.file_name, path, category_id, annotations)

    def _uploading(self, dataset_id: str, upload_id: str) -> DatasetRecord:
        record = self.get(dataset_id)
        if record.upload != upload_id:
            raise Refused(409, f"upload {upload_id} of dataset {dataset_id} is not open; start one first")
        record.touched = self._clock()
        return record


def _parsed(annotations: Any) -> Any:
    if not annotations:
        return None
    try:
        return json.loads(annotations)
    except (TypeError, ValueError):
        raise Refused(400, "annotations are no JSON") from None
