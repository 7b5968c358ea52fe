"""Worker threads that upload images, and the upload session that they share."""

from __future__ import annotations

import json
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from enum import Enum, auto
from typing import IO, Any, Final

from airflow_provider_osai.api.calls import FilePart
from airflow_provider_osai.api.client import OsaiClient
from airflow_provider_osai.api.errors import OsaiArgumentError, OsaiError, OsaiRequestError, OsaiUnreachable
from airflow_provider_osai.api.models import Image, Upload
from airflow_provider_osai.data.annotations.writing import write_annotations
from airflow_provider_osai.data.images import HEAD, dedup_key, is_image, sha256_of
from airflow_provider_osai.data.local_files import UnreadableFile
from airflow_provider_osai.data.scan import ImageFile
from airflow_provider_osai.data.sources import Opener

__all__ = ["UploadResult", "UploadSession", "UploadStatus", "UploadWorkers"]

BAD_IMAGE: Final = frozenset({400, 413, 415, 422})
"""Statuses by which OSAI may reject a single image (assumed)."""
NOT_OPEN: Final = frozenset({400, 404, 409})
"""Statuses by which OSAI may report that an upload is already finished (assumed)."""
LOCKED: Final = 409
NO_UPLOAD: Final = "-"
"""Stands for the id of an upload, if the API has no operation that starts one."""
SHA_256: Final = re.compile(r"[0-9a-f]{64}", re.IGNORECASE)


class UploadStatus(Enum):
    """The result of an image's upload."""

    UPLOADED = auto()
    SKIPPED = auto()
    """Already in the dataset."""
    INVALID = auto()
    UNCERTAIN = auto()
    """No response: OSAI may have stored the image."""
    NOT_TRIED = auto()


@dataclass(frozen=True, slots=True)
class UploadResult:
    """The result of an image's upload, with the error if there was one."""

    image: ImageFile
    status: UploadStatus
    key: str = ""
    error: OsaiError | None = None


class UploadSession:
    """An upload of images into one dataset; thread-safe.

    The dataset is locked when the first image is to be uploaded: an upload without new images does not lock it. The
    worker threads wait until the main thread has locked the dataset and saved the upload id.

    :param client: sends the calls.
    :param dataset_id: the dataset.
    :param category_ids: the ids of its categories, by name.
    """

    def __init__(self, client: OsaiClient, dataset_id: str, category_ids: Mapping[str, str]) -> None:
        self._client = client
        self._dataset_id = dataset_id
        self._category_ids = category_ids
        self._state_changed = threading.Condition()
        self._request_lock: Callable[[], None] = lambda: None
        self.is_closed = False
        self.waits_for_lock = False
        self.upload_id: str | None = None
        self.already_uploaded: set[str] = set()

    def upload(self, image: ImageFile, opener: Opener) -> UploadResult:
        """Upload an image unless the dataset already contains it.

        :raises OsaiError: if the error would affect every other image, too.
        """
        try:
            file = opener()
        except UnreadableFile as error:
            return _invalid(image, str(error))
        except OSError as error:
            return _invalid(image, f"cannot be read: {error}")
        with file:
            try:
                head = file.read(HEAD)
                file.seek(0)
                digest = sha256_of(file)
            except OSError as error:
                return _invalid(image, f"cannot be read: {error}")
            if not is_image(head):
                return _invalid(image, "not an image (PNG, JPEG, GIF, BMP, TIFF or WebP) despite its name")
            boxes = [box.wire() for box in image.boxes]
            key = dedup_key(digest, image.category, boxes)
            text = self._annotations(image, file, boxes)
            listed = key if text is None else dedup_key(digest, image.category, _as_listed(text))
            if not self.already_uploaded.isdisjoint((key, listed)):
                return UploadResult(image, UploadStatus.SKIPPED, key)
            return self._send(image, file, text, key)

    def list_keys(self) -> set[str] | None:
        """Return the keys of the images in the dataset; ``None`` if the API cannot list images with SHA-256 digests."""
        if "image.list" not in self._client.calls.contract:
            return None
        try:
            images = self._client.send(self._client.calls.list_images(self._dataset_id))
        except OsaiRequestError as error:
            if error.is_unsupported_operation:
                return None
            raise
        names = {category_id: name for name, category_id in self._category_ids.items()}
        if not all(SHA_256.fullmatch(image.digest or "") for image in images):
            return None
        has_form = self._client.calls.contract["upload.image"].rules.annotations is not None
        return {_key(image, names, has_form=has_form) for image in images}

    def open(self, request_lock: Callable[[], None]) -> None:
        """Accept images. *request_lock* is called when the dataset has to be locked."""
        self.is_closed = False
        self._request_lock = request_lock

    def close(self) -> None:
        """Accept no more images. Images that wait for the lock are not tried."""
        with self._state_changed:
            self.is_closed = True
            self._state_changed.notify_all()

    def lock(self) -> str:
        """Lock the dataset, release the waiting threads, and return the upload's id.

        :raises OsaiUnreachable: if another upload has locked the dataset.
        """
        if "upload.start" not in self._client.calls.contract:
            return self._accept_images(NO_UPLOAD)
        try:
            upload: Upload = self._client.send(self._client.calls.start_upload(self._dataset_id))
        except OsaiRequestError as error:
            if error.status != LOCKED:
                raise
            msg = (
                f"Dataset {self._dataset_id} is locked by another upload; OSAI unlocks it when that upload is finished "
                f"or has been idle for some time ({error})"
            )
            raise OsaiUnreachable(msg, may_have_been_processed=False, status=LOCKED) from error
        return self._accept_images(upload.id)

    def _accept_images(self, upload_id: str) -> str:
        with self._state_changed:
            self.upload_id = upload_id
            self.waits_for_lock = False
            self._state_changed.notify_all()
        return upload_id

    def finish(self, upload_id: str, client: OsaiClient) -> None:
        """Finish the upload, which unlocks the dataset. An upload that is already finished is not an error.

        :raises OsaiError: if the call fails.
        """
        if "upload.finish" not in client.calls.contract:
            self.upload_id = None
            return
        try:
            client.send(client.calls.finish_upload(self._dataset_id, upload_id))
        except OsaiRequestError as error:
            if error.status not in NOT_OPEN:
                raise
        self.upload_id = None

    def _wait_for_lock(self) -> str | None:
        """Wait until the dataset is locked and return the upload's id; ``None`` if the session is closed."""
        with self._state_changed:
            if self.upload_id is None:
                self.waits_for_lock = True
                self._request_lock()
            self._state_changed.wait_for(lambda: bool(self.is_closed or self.upload_id))
            return None if self.is_closed else self.upload_id

    def _annotations(self, image: ImageFile, file: IO[bytes], boxes: list[dict[str, Any]]) -> str | None:
        """Return the text of an image's boxes in the contract's form; ``None`` if it has none."""
        rule = self._client.calls.contract["upload.image"].rules.annotations
        return write_annotations(boxes, self._category_ids, rule, _base_name(image), file) if boxes else None

    def _send(self, image: ImageFile, file: IO[bytes], annotations: str | None, key: str) -> UploadResult:
        upload_id = self._wait_for_lock()
        if upload_id is None:
            return UploadResult(image, UploadStatus.NOT_TRIED)

        def rewind() -> AbstractContextManager[IO[bytes]]:
            file.seek(0)
            return nullcontext(file)

        call = self._client.calls.upload_image(
            self._dataset_id,
            None if upload_id == NO_UPLOAD else upload_id,
            FilePart(_base_name(image), rewind),
            category_id=self._category_ids[image.category] if image.category else None,
            category=image.category,
            annotations=annotations,
        )
        try:
            self._client.send(call)
        except OsaiRequestError as error:
            if error.status not in BAD_IMAGE:
                raise
            return UploadResult(image, UploadStatus.INVALID, key, error)
        except OsaiUnreachable as error:
            if not error.may_have_been_processed:
                raise
            return UploadResult(image, UploadStatus.UNCERTAIN, key, error)
        return UploadResult(image, UploadStatus.UPLOADED, key)


def _invalid(image: ImageFile, reason: str) -> UploadResult:
    return UploadResult(image, UploadStatus.INVALID, error=OsaiArgumentError(f"{image.name}: {reason}"))


def _base_name(image: ImageFile) -> str:
    return image.name.rpartition("/")[2]


def _key(image: Image, names: Mapping[str, str], *, has_form: bool) -> str:
    """Return the key of a listed image.

    :param has_form: whether the contract has a form of annotations: they are then compared as they are stored.
    """
    digest, category = (image.digest or "").lower(), names.get(image.category_id or "", image.category)
    if has_form and image.annotations:
        return dedup_key(digest, category, _as_listed(image.annotations))
    annotations = image.annotations if isinstance(image.annotations, list) else []
    boxes = [{name: value for name, value in item.items() if name != "categoryId"} for item in annotations]
    return dedup_key(digest, category, boxes)


def _as_listed(annotations: Any) -> list[Any]:
    """Return annotations in the contract's form so that equal ones are equal: JSON or its text, or any other text."""
    try:
        text = annotations.strip() if isinstance(annotations, str) else json.dumps(annotations)
        return [json.loads(text, parse_float=_number)]
    except ValueError:
        return [text]


def _number(text: str) -> float:
    number = float(text)
    return int(number) if number.is_integer() else number


URGENT: Final = frozenset({UploadStatus.INVALID, UploadStatus.UNCERTAIN})
"""Results that wake the main thread at once."""


class UploadWorkers:
    """Threads that upload images until none is left, a worker fails, or :meth:`stop_workers` is called.

    :param session: the upload session.
    :param images: the images with their openers; each worker takes the next one when it is free, so that
        nothing is read ahead beyond the uploads in flight.
    :param size: number of threads, which is the maximum number of concurrent uploads.
    """

    def __init__(self, session: UploadSession, images: Iterator[tuple[ImageFile, Opener]], size: int) -> None:
        self._session = session
        self._images = images
        self._images_lock = threading.Lock()
        self._results: deque[UploadResult] = deque()
        self._error: BaseException | None = None
        self._wake_up = threading.Event()
        session.open(self._wake_up.set)
        self._threads = [threading.Thread(target=self._work, name="osai-upload", daemon=True) for _ in range(size)]
        for thread in self._threads:
            thread.start()

    def wait(self, seconds: float) -> bool:
        """Wait for an urgent result or request, at most *seconds*; return whether a worker is still running."""
        self._wake_up.wait(seconds)
        self._wake_up.clear()
        return any(thread.is_alive() for thread in self._threads)

    def results(self) -> Iterator[UploadResult]:
        """Yield and remove the new results."""
        while self._results:
            yield self._results.popleft()

    def raise_for_error(self) -> None:
        """Raise the first error of a worker, if there was one."""
        if self._error:
            raise self._error

    def stop_workers(self, seconds: float) -> None:
        """Start no more uploads, and wait at most *seconds* for those in flight."""
        self._session.close()
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _work(self) -> None:
        try:
            while not self._session.is_closed:
                with self._images_lock:
                    image = next(self._images, None)
                if image is None:
                    break
                result = self._session.upload(*image)
                self._results.append(result)
                if result.status in URGENT:
                    self._wake_up.set()
        except BaseException as error:  # raise_for_error raises it in the main thread
            self._error = self._error or error
            self._session.close()
        finally:
            self._wake_up.set()
