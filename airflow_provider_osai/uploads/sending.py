"""One image on its way into an open upload: read, told from those that are there, sent, and what became of it."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from enum import Enum, auto
from typing import IO, Any, Final

from airflow_provider_osai.api.calls import FilePart
from airflow_provider_osai.api.client import OsaiClient
from airflow_provider_osai.api.errors import OsaiArgumentError, OsaiError, OsaiRequestError, OsaiUnreachable
from airflow_provider_osai.api.models import Image, Upload
from airflow_provider_osai.data.images import HEAD, digest_of, is_image, key_of
from airflow_provider_osai.data.sources import Opener
from airflow_provider_osai.data.survey import Picture
from airflow_provider_osai.jobs.lifecycle import NO_SUCH_OPERATION

__all__ = ["Dealt", "Fate", "Shipment"]

BAD_IMAGE: Final = frozenset({400, 413, 415, 422})
"""How OSAI may say that it is the image it does not take."""
NOT_OPEN: Final = frozenset({400, 404, 409})
"""How OSAI may say that an upload to be finished is over."""
LOCKED: Final = 409
SHA_256: Final = re.compile(r"[0-9a-f]{64}", re.IGNORECASE)


class Fate(Enum):
    """What has become of an image."""

    SENT = auto()
    KNOWN = auto()
    BAD = auto()
    IN_DOUBT = auto()
    """OSAI gave no answer, and may have taken it."""
    NOT_TRIED = auto()


@dataclass(frozen=True, slots=True)
class Dealt:
    """An image, its fate, and why."""

    picture: Picture
    fate: Fate
    key: str = ""
    error: OsaiError | None = None


class Shipment:
    """Images into one dataset, on any number of threads.

    The dataset is locked when an image is to be sent, not before: an upload that has nothing new does nothing. The
    threads leave the locking to who remembers it, and wait for it.

    :param client: sends the calls.
    :param dataset_id: the dataset.
    :param ids: of all its categories, by name.
    """

    def __init__(self, client: OsaiClient, dataset_id: str, ids: Mapping[str, str]) -> None:
        self._client, self._dataset_id, self._ids = client, dataset_id, ids
        self._change = threading.Condition()
        self.is_closed = self.waits_for_lock = False
        self._call: Callable[[], None] = lambda: None
        self.upload_id: str | None = None
        self.known: set[str] = set()

    def deal_with(self, picture: Picture, opener: Opener) -> Dealt:
        """Send one image unless the dataset has it.

        :raises OsaiError: if no other image would fare better.
        """
        try:
            file = opener()
        except OSError as error:
            return _bad(picture, f"it cannot be read: {error}")
        with file:
            try:
                head = file.read(HEAD)
                file.seek(0)
                digest = digest_of(file)
            except OSError as error:
                return _bad(picture, f"it cannot be read: {error}")
            if not is_image(head):
                return _bad(picture, "it is no image (PNG, JPEG, GIF, BMP, TIFF, WebP), whatever its name says")
            boxes = [box.wire() for box in picture.boxes]
            key = key_of(digest, picture.category, boxes)
            if key in self.known:
                return Dealt(picture, Fate.KNOWN, key)
            return self._send(picture, file, boxes, key)

    def listed(self) -> set[str] | None:
        """Return what tells the dataset's images from others; ``None`` if the API cannot say."""
        if "image.list" not in self._client.calls.contract:
            return None
        try:
            images = self._client.send(self._client.calls.list_images(self._dataset_id))
        except OsaiRequestError as error:
            if error.status in NO_SUCH_OPERATION:
                return None
            raise
        names = {category_id: name for name, category_id in self._ids.items()}
        if not all(SHA_256.fullmatch(image.digest or "") for image in images):
            return None
        return {_key(image, names) for image in images}

    def begin(self, call: Callable[[], None]) -> None:
        """Take images from now on; *call* is called when the dataset is to be locked."""
        self.is_closed, self._call = False, call

    def close(self) -> None:
        """Take no more images; those that wait for the lock are not tried."""
        with self._change:
            self.is_closed = True
            self._change.notify_all()

    def lock(self) -> str:
        """Lock the dataset and let the threads go on; return the upload's id.

        :raises OsaiUnreachable: if somebody else has locked it.
        """
        try:
            upload: Upload = self._client.send(self._client.calls.start_upload(self._dataset_id))
        except OsaiRequestError as error:
            if error.status != LOCKED:
                raise
            msg = (
                f"dataset {self._dataset_id} is locked by another upload; OSAI unlocks it when that is finished, or "
                f"was idle for some time ({error})"
            )
            raise OsaiUnreachable(msg, sent=False, status=LOCKED) from error
        with self._change:
            self.upload_id, self.waits_for_lock = upload.id, False
            self._change.notify_all()
        return upload.id

    def finish(self, upload_id: str, client: OsaiClient) -> None:
        """Unlock the dataset; that it is unlocked already is no error.

        :raises OsaiError: if OSAI cannot be told.
        """
        try:
            client.send(client.calls.finish_upload(self._dataset_id, upload_id))
        except OsaiRequestError as error:
            if error.status not in NOT_OPEN:
                raise
        self.upload_id = None

    def _locked(self) -> str | None:
        """Wait until the dataset is locked and return the upload's id; ``None`` if that is no more wanted."""
        with self._change:
            if self.upload_id is None:
                self.waits_for_lock = True
                self._call()
            self._change.wait_for(lambda: bool(self.is_closed or self.upload_id))
            return None if self.is_closed else self.upload_id

    def _send(self, picture: Picture, file: IO[bytes], boxes: list[dict[str, Any]], key: str) -> Dealt:
        upload_id = self._locked()
        if upload_id is None:
            return Dealt(picture, Fate.NOT_TRIED)

        def again() -> AbstractContextManager[IO[bytes]]:
            file.seek(0)
            return nullcontext(file)

        notes = [{**box, "categoryId": self._ids[box["category"]]} for box in boxes]
        call = self._client.calls.upload_image(
            self._dataset_id,
            upload_id,
            FilePart(picture.name.rpartition("/")[2], again),
            category_id=self._ids[picture.category] if picture.category else None,
            annotations=json.dumps(notes) if notes else None,
        )
        try:
            self._client.send(call)
        except OsaiRequestError as error:
            if error.status not in BAD_IMAGE:
                raise
            return Dealt(picture, Fate.BAD, key, error)
        except OsaiUnreachable as error:
            if not error.sent:
                raise
            return Dealt(picture, Fate.IN_DOUBT, key, error)
        return Dealt(picture, Fate.SENT, key)


def _bad(picture: Picture, reason: str) -> Dealt:
    return Dealt(picture, Fate.BAD, error=OsaiArgumentError(f"{picture.name}: {reason}"))


def _key(image: Image, names: Mapping[str, str]) -> str:
    notes = image.annotations if isinstance(image.annotations, list) else []
    boxes = [{name: value for name, value in note.items() if name != "categoryId"} for note in notes]
    return key_of((image.digest or "").lower(), names.get(image.category_id or ""), boxes)
