"""Models as files: fetched piece by piece, resumed where the connection broke, checked, and named when whole."""

from __future__ import annotations

import errno
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Final

from airflow_provider_osai.api.calls import Calls
from airflow_provider_osai.api.errors import (
    OsaiArgumentError,
    OsaiDownloadFailed,
    OsaiError,
    OsaiRequestError,
    OsaiUnreachable,
)
from airflow_provider_osai.api.pieces import STEADY, Stream
from airflow_provider_osai.api.requests import present
from airflow_provider_osai.data.headers import Head, safe_name
from airflow_provider_osai.data.landing import Landing, hashes, landing_at
from airflow_provider_osai.data.parts import Note, Part
from airflow_provider_osai.data.progress import Progress
from airflow_provider_osai.jobs.flow import Flow, Sleep

__all__ = ["Download", "download_model"]

MOST_IDLE: Final = 5
"""How often in a row a download goes on after it has brought less than 64 KiB."""
LONGEST_PAUSE: Final = 10.0
"""Seconds before a broken connection is made again."""
FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
MISPLACED: Final = frozenset(
    {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP}
)


class _Taken(Enum):
    """What became of one answer."""

    WHOLE = auto()
    SAME = auto()
    OTHER = auto()


@dataclass(frozen=True, slots=True)
class Download:
    """One file to fetch.

    :param model_id: the model.
    :param target: the hardware that it is converted for; ``None``: the model itself.
    :param destination: see :func:`.landing_at`, as for *is_folder*.
    :param sha256: what the file's SHA-256 must be, hexadecimal.
    :param stopped: whether to stop; asked after each piece.
    :param say: writes a line into a log.
    """

    model_id: str
    target: str | None
    destination: Any
    is_folder: bool = False
    sha256: str | None = None
    stopped: Callable[[], bool] = lambda: False
    say: Callable[..., object] = field(default=lambda *_: None)


def download_model(calls: Calls, wish: Download) -> Flow[dict[str, Any]]:
    """Fetch a model's file to its destination; return ``model_id``, ``target``, ``path``, ``bytes`` and ``sha256``.

    :raises OsaiArgumentError: if a value is wrong, or nobody may write there.
    :raises OsaiDownloadFailed: if the file is not what was announced, if the connection breaks over and over without
        progress, or the disk is full. What came is kept if a later try can go on with it.
    """
    fetch = _Fetch(calls, wish)
    try:
        return (yield from fetch.run())
    except OSError as error:
        raise fetch.meant(error) from error


class _Fetch:
    def __init__(self, calls: Calls, wish: Download) -> None:
        self._calls, self._wish = calls, wish
        self._model_id = present(str(wish.model_id))
        self._target = None if wish.target is None else present(str(wish.target))
        self._expected = _checked(wish.sha256)
        parts = [self._model_id, *([self._target] if self._target else [])]
        default = "-".join(safe_name(re.sub(r"[/\\]", "_", part)) or "model" for part in parts)
        self._landing: Landing = landing_at(wish.destination, default, is_folder=wish.is_folder)
        self._progress = Progress(wish.say)
        self._found: dict[str, str] = {}

    def run(self) -> Flow[dict[str, Any]]:
        with Part(self._landing.part(), f"{self._model_id}\n{self._target or ''}") as part:
            if part.have:
                self._wish.say("Going on after the %s bytes that an earlier try left in %s", part.have, part.path)
            try:
                taken = yield from self._all(part)
                part.settle()
            except OSError as error:
                if error.errno in FULL:  # do not fill the disk for others too
                    part.remove()
                raise
            return self._placed(part, taken)

    def _placed(self, part: Part, taken: _Taken) -> dict[str, Any]:
        size = part.have
        if taken is _Taken.SAME:
            size, path = part.note.total or 0, self._landing.address(part.note.name)
            part.remove()
            self._wish.say("It is already there: %s", path)
        else:
            self._verify(part)
            path = self._landing.place(part, part.note.name)
            self._wish.say("Downloaded %s bytes to %s", size, path)
        ids = {"model_id": self._model_id, "target": self._target}
        return {**ids, "path": path, "bytes": size, "sha256": self._found["sha256"]}

    def _all(self, part: Part) -> Flow[_Taken]:
        """Ask until the file is whole, with bounded patience."""
        idle = 0
        while True:
            trouble: OsaiError
            had = part.have
            try:
                ask = self._calls.download_model(
                    self._model_id, self._target, part.wish(), lambda stream: self._take(part, stream)
                )
                taken: _Taken = yield ask
                if taken is not _Taken.OTHER:
                    return taken
                trouble = OsaiUnreachable("OSAI sent another part than was asked for")
            except OsaiUnreachable as error:
                trouble = error
            except OsaiRequestError as error:
                if error.status != 416 or not had:
                    raise
                part.clear()
                trouble = error
            if self._wish.stopped():
                raise _killed()
            idle = 0 if part.have - had >= STEADY else idle + 1
            if idle > MOST_IDLE:
                msg = f"the download stood still {idle} times in a row at {part.have} bytes, at last because {trouble}"
                raise OsaiDownloadFailed(msg) from trouble
            self._wish.say("Broken off at %s bytes (%s)", part.have, trouble)
            yield Sleep(min(2.0 ** (idle - 1), LONGEST_PAUSE))

    def _take(self, part: Part, stream: Stream) -> _Taken:
        """Take one answer into the part."""
        head = Head.of(stream)
        packed = stream.headers.get("content-encoding", "identity").strip().lower()
        if packed not in ("", "identity"):
            raise OsaiDownloadFailed(f"the file came packed as {packed[:50]!r} although that was not wanted")
        if stream.status == 206:
            if not _continues(head, part):
                part.clear()
                return _Taken.OTHER
            part.learn(part.note.model_copy(update={"digests": {**part.note.digests, **head.digests}}))
        else:
            note = part.note.model_copy(update={"validator": head.validator, "total": head.total, "name": head.name})
            part.begin(note.model_copy(update={"digests": dict(head.digests)}))
            if self._is_there(part.note):
                return _Taken.SAME
        self._room(part)
        self._fill(part, stream)
        return _Taken.WHOLE

    def _fill(self, part: Part, stream: Stream) -> None:
        have, total = part.have, part.note.total
        self._progress.begin(have)
        for piece in stream.pieces:
            have += len(piece)
            if total is not None and have > total:
                part.clear()
                raise OsaiDownloadFailed(f"more came than the {total} bytes that were announced")
            part.write(piece)
            self._progress(have, total)
            if self._wish.stopped():
                part.settle()
                raise _killed()
        if total is not None and have < total:
            raise OsaiUnreachable(f"only {have} of {total} bytes came")

    def _is_there(self, note: Note) -> bool:
        if note.total is None:
            return False
        digests = {**note.digests, **({"sha256": self._expected} if self._expected else {})}
        self._found = self._landing.holds(note.name, note.total, digests) or {}
        return bool(self._found)

    def _room(self, part: Part) -> None:
        left, free = (part.note.total or 0) - part.have, shutil.disk_usage(part.path.parent).free
        if left > free:
            raise OSError(errno.ENOSPC, f"{left} bytes are still to come and {free} are free", str(part.path.parent))

    def _verify(self, part: Part) -> None:
        """Compare what lies on the disk with what was announced and wanted; it is removed if that differs."""
        announced = {"given in sha256": ("sha256", self._expected)} if self._expected else {}
        announced |= {f"announced ({name})": (name, digest) for name, digest in part.note.digests.items()}
        with part.path.open("rb") as file:
            self._found = hashes(file, {"sha256", *part.note.digests})
        for what, (name, digest) in announced.items():
            if self._found[name] != digest:
                part.remove()
                msg = f"the file's checksum is {self._found[name]}, not {digest} as {what}; it was removed"
                raise OsaiDownloadFailed(msg)
        if part.have == 0:
            part.remove()
            raise OsaiDownloadFailed("the file is empty")

    def meant(self, error: OSError) -> OsaiError:
        """Return what a failed read or write means for who reads the log."""
        said = f"destination = {self._landing.shown!r}: {error.strerror or error}"
        if error.errno in FULL:
            return OsaiDownloadFailed(f"{said}. Make room and try again")
        return OsaiArgumentError(said) if error.errno in MISPLACED else OsaiDownloadFailed(said)


def _continues(head: Head, part: Part) -> bool:
    """Whether an answer is the rest of the part: from where it ends, and of the same file."""
    note = part.note
    if not part.have or head.start != part.have or head.total not in (None, note.total):
        return False
    is_other = head.validator is not None and head.validator != note.validator
    return not is_other and all(note.digests.get(name, digest) == digest for name, digest in head.digests.items())


def _checked(sha256: str | None) -> str | None:
    if sha256 is None:
        return None
    text = str(sha256).strip().lower().removeprefix("sha256:")
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        raise OsaiArgumentError(f"sha256 = {sha256!r}: 64 hexadecimal digits are needed")
    return text


def _killed() -> OsaiDownloadFailed:
    return OsaiDownloadFailed("the task was killed; what came so far is kept, and a retry on this machine goes on")
