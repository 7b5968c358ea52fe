"""Download a model's file: stream, resume after a broken connection, verify, then commit to the destination."""

from __future__ import annotations

import errno
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, TypedDict

from airflow_provider_osai.api.errors import (
    OsaiArgumentError,
    OsaiDownloadFailed,
    OsaiError,
    OsaiRequestError,
    OsaiUnreachable,
    sanitize_server_text,
)
from airflow_provider_osai.api.models import JobState
from airflow_provider_osai.api.requests import require_id
from airflow_provider_osai.api.streaming import MIN_PROGRESS_BYTES, Stream
from airflow_provider_osai.api.text import normalize_word
from airflow_provider_osai.downloads.destination import Destination, compute_digests, resolve_destination
from airflow_provider_osai.downloads.headers import FileHeaders, safe_name
from airflow_provider_osai.downloads.partial_file import PartialFile, PartialFileMetadata
from airflow_provider_osai.downloads.progress import Progress

if TYPE_CHECKING:
    from airflow_provider_osai.api.client import OsaiClient

__all__ = ["Download", "DownloadedModel", "download_model"]

MAX_STALLS: Final = 5
"""Maximum consecutive retries after attempts that each received less than 64 KiB."""
MAX_BACKOFF: Final = 10.0
"""Maximum seconds before a download is retried."""
DISK_FULL_ERRORS: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
INVALID_PATH_ERRORS: Final = frozenset(
    {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP}
)


class _Outcome(Enum):
    """The result of one response."""

    COMPLETE = auto()
    ALREADY_THERE = auto()
    WRONG_RANGE = auto()


@dataclass(frozen=True, slots=True)
class Download:
    """The arguments of a download.

    :param model_id: the model's id.
    :param target: the hardware the model was converted for; ``None`` downloads the model itself.
    :param destination: see :func:`.resolve_destination`, as for *is_folder*.
    :param sha256: the expected SHA-256, hexadecimal.
    :param stopped: returns whether to stop the download; called after each chunk.
    :param log: writes a log line.
    """

    model_id: str
    target: str | None
    destination: Any
    is_folder: bool = False
    sha256: str | None = None
    stopped: Callable[[], bool] = lambda: False
    log: Callable[..., object] = field(default=lambda *_: None)


class DownloadedModel(TypedDict):
    """The result of a download task. ``path``: path or URL of the file; ``bytes``: its size."""

    model_id: str
    target: str | None
    path: str
    bytes: int
    sha256: str


def download_model(client: OsaiClient, download: Download) -> DownloadedModel:
    """Download a model's file; return ``model_id``, ``target``, ``path``, ``bytes`` and ``sha256``.

    :raises OsaiArgumentError: if an argument is invalid, or the destination is not writable.
    :raises OsaiDownloadFailed: if the file does not match its announced size or digest, the connection keeps breaking
        without progress, or the disk is full. Partial data that a later try can resume is kept.
    """
    process = _Download(client, download)
    try:
        return process.run()
    except OSError as error:
        raise process.error_from(error) from error


class _Download:
    def __init__(self, client: OsaiClient, download: Download) -> None:
        self._client = client
        self._download = download
        self._model_id = require_id(str(download.model_id))
        self._target = None if download.target is None else require_id(str(download.target))
        self._expected_sha256 = _validate_sha256(download.sha256)
        ids = [self._model_id, *([self._target] if self._target else [])]
        default = "-".join(safe_name(re.sub(r"[/\\]", "_", text)) or "model" for text in ids)
        self._destination: Destination = resolve_destination(
            download.destination, default, is_folder=download.is_folder
        )
        self._progress = Progress(download.log)
        self._digests: dict[str, str] = {}

    def run(self) -> DownloadedModel:
        source = f"{self._model_id}\n{self._target or ''}"
        destination = self._destination
        with PartialFile(destination.partial_path(), source, is_private=destination.is_private) as part:
            if part.size:
                self._download.log("Resuming the download at %s bytes from %s", part.size, part.path)
            try:
                outcome = self._fetch(part)
                part.fsync()
            except OSError as error:
                if error.errno in DISK_FULL_ERRORS:  # free the space for other processes
                    part.remove()
                raise
            return self._finish(part, outcome)

    @cached_property
    def _conversion_id(self) -> str | None:
        """The id of the conversion for the target, if the API's download needs it."""
        if not self._client.calls.contract["model.download"].takes("conversionId"):
            return None
        conversions = self._client.list_conversions(self._model_id)
        finished = [one for one in conversions if one.state is JobState.SUCCEEDED]
        wanted = normalize_word(self._target or "")
        matching = [one for one in finished if not wanted or normalize_word(one.target or "") == wanted]
        if len(matching) == 1 or (matching and wanted):
            return matching[-1].id
        targets = sanitize_server_text(", ".join(sorted({str(one.target) for one in finished}))) or "none"
        msg = f"model {self._model_id} has {len(matching)} conversions for target {self._target!r}; finished: {targets}"
        raise OsaiArgumentError(msg)

    def _finish(self, part: PartialFile, outcome: _Outcome) -> DownloadedModel:
        name = part.metadata.name
        if outcome is _Outcome.ALREADY_THERE:
            size = part.metadata.total or 0
            path = self._destination.final_path(name)
            part.remove()
            self._download.log("Skipped the download: %s already exists with the same digest", path)
        else:
            self._verify(part)
            size = part.size
            path = self._destination.commit(part, name)
            self._download.log("Downloaded %s bytes to %s", size, path)
        return {
            "model_id": self._model_id,
            "target": self._target,
            "path": path,
            "bytes": size,
            "sha256": self._digests["sha256"],
        }

    def _fetch(self, part: PartialFile) -> _Outcome:
        """Send requests until the file is complete; give up after too many attempts without progress."""
        stalls = 0
        while True:
            failure: OsaiError
            size_before = part.size
            try:
                outcome = self._client.download_model(
                    self._model_id,
                    self._target,
                    lambda stream: self._receive(part, stream),
                    part.range_headers(),
                    conversion_id=self._conversion_id,
                )
                if outcome is not _Outcome.WRONG_RANGE:
                    return outcome
                failure = OsaiUnreachable("OSAI returned another range than requested")
            except OsaiUnreachable as error:
                failure = error
            except OsaiRequestError as error:
                if error.status != 416 or not size_before:
                    raise
                part.clear()
                failure = error
            if self._download.stopped():
                raise _killed_error()
            stalls = 0 if part.size - size_before >= MIN_PROGRESS_BYTES else stalls + 1
            if stalls > MAX_STALLS:
                msg = f"Download stalled {stalls} times in a row at {part.size} bytes; last error: {failure}"
                raise OsaiDownloadFailed(msg) from failure
            self._download.log("Download interrupted at %s bytes, retrying: %s", part.size, failure)
            self._client.sleep(min(2.0 ** (stalls - 1), MAX_BACKOFF))

    def _receive(self, part: PartialFile, stream: Stream) -> _Outcome:
        """Write one response into the partial file."""
        headers = FileHeaders.from_stream(stream)
        encoding = stream.headers.get("content-encoding", "identity").strip().lower()
        if encoding not in ("", "identity"):
            raise OsaiDownloadFailed(f"Unexpected Content-Encoding {encoding[:50]!r}; requested identity")
        if stream.status == 206:
            if not _is_continuation(headers, part):
                part.clear()
                return _Outcome.WRONG_RANGE
            digests = {**part.metadata.digests, **headers.digests}
            part.update_metadata(part.metadata.model_copy(update={"digests": digests}))
        else:
            update = {
                "validator": headers.validator,
                "total": headers.total,
                "name": headers.name,
                "digests": dict(headers.digests),
            }
            part.restart(part.metadata.model_copy(update=update))
            if self._already_exists(part.metadata):
                return _Outcome.ALREADY_THERE
        self._require_disk_space(part)
        self._write_body(part, stream)
        return _Outcome.COMPLETE

    def _write_body(self, part: PartialFile, stream: Stream) -> None:
        size = part.size
        total = part.metadata.total
        self._progress.restart(size)
        for chunk in stream.chunks:
            size += len(chunk)
            if total is not None and size > total:
                part.clear()
                raise OsaiDownloadFailed(f"Received more than the announced {total} bytes")
            part.write(chunk)
            self._progress.update(size, total)
            if self._download.stopped():
                part.fsync()
                raise _killed_error()
        if total is not None and size < total:
            raise OsaiUnreachable(f"Received only {size} of {total} bytes")

    def _already_exists(self, metadata: PartialFileMetadata) -> bool:
        if metadata.total is None:
            return False
        digests = {**metadata.digests, **({"sha256": self._expected_sha256} if self._expected_sha256 else {})}
        self._digests = self._destination.existing_digests(metadata.name, metadata.total, digests) or {}
        return bool(self._digests)

    def _require_disk_space(self, part: PartialFile) -> None:
        folder = part.path.parent
        required = (part.metadata.total or 0) - part.size
        free = shutil.disk_usage(folder).free
        if required > free:
            raise OSError(errno.ENOSPC, f"{required} more bytes required, {free} bytes free", str(folder))

    def _verify(self, part: PartialFile) -> None:
        """Compare the file on disk with the expected digests; remove it if they differ."""
        expected = {"given in sha256": ("sha256", self._expected_sha256)} if self._expected_sha256 else {}
        expected |= {f"announced ({name})": (name, digest) for name, digest in part.metadata.digests.items()}
        self._digests = compute_digests(part.rewind(), {"sha256", *part.metadata.digests})
        for origin, (name, digest) in expected.items():
            if self._digests[name] != digest:
                part.remove()
                msg = f"Checksum mismatch: the file has {self._digests[name]}, not {digest} as {origin}; it was removed"
                raise OsaiDownloadFailed(msg)
        if part.size == 0:
            part.remove()
            raise OsaiDownloadFailed("The downloaded file is empty; it was removed")

    def error_from(self, error: OSError) -> OsaiError:
        """Return the OsaiError for a failed read or write."""
        message = f"destination = {self._destination.display_name!r}: {error.strerror or error}"
        if error.errno in DISK_FULL_ERRORS:
            return OsaiDownloadFailed(f"{message}. Free disk space and try again")
        return OsaiArgumentError(message) if error.errno in INVALID_PATH_ERRORS else OsaiDownloadFailed(message)


def _is_continuation(headers: FileHeaders, part: PartialFile) -> bool:
    """Return whether a response starts where the partial file ends and belongs to the same file."""
    metadata = part.metadata
    if not part.size or headers.start != part.size or headers.total not in (None, metadata.total):
        return False
    if headers.validator not in (None, metadata.validator):
        return False
    return all(metadata.digests.get(name, digest) == digest for name, digest in headers.digests.items())


def _validate_sha256(sha256: str | None) -> str | None:
    if sha256 is None:
        return None
    text = str(sha256).strip().lower().removeprefix("sha256:")
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        raise OsaiArgumentError(f"sha256 = {sha256!r}: must be 64 hexadecimal digits")
    return text


def _killed_error() -> OsaiDownloadFailed:
    return OsaiDownloadFailed("The task was killed. Partial data is kept; a retry on this machine resumes the download")
