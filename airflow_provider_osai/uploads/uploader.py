"""Uploads images into a dataset concurrently, without duplicates, and always unlocks the dataset at the end."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from airflow_provider_osai.api.client import OsaiClient
from airflow_provider_osai.api.errors import OsaiError, OsaiUnreachable, sanitize_server_text
from airflow_provider_osai.api.requests import OnInvalidFile, UploadRequest
from airflow_provider_osai.data.datasets import create_category, find_categories
from airflow_provider_osai.data.scan import ImageFile, ScanResult
from airflow_provider_osai.data.sources import Source
from airflow_provider_osai.uploads.checkpoint import NullUploadStore, UploadCheckpoint, UploadCheckpointStore
from airflow_provider_osai.uploads.progress import UploadProgress, UploadSummary
from airflow_provider_osai.uploads.summary_log import summary_lines
from airflow_provider_osai.uploads.workers import UploadResult, UploadSession, UploadStatus, UploadWorkers

__all__ = ["Stopped", "Uploader"]

CHECKPOINT_INTERVAL: Final = 1.0
"""Seconds between two checkpoints."""
LOG_INTERVAL: Final = 5.0
"""Seconds between two progress log lines."""
KILL_CHECK_INTERVAL: Final = 0.2
"""Maximum seconds until a stop is noticed."""
MAX_ATTEMPTS: Final = 3
"""Maximum upload attempts for an image whose request got no response and which is missing in OSAI's list."""
MAX_CONSECUTIVE_FAILURES: Final = 20
"""Consecutive images without a response after which OSAI counts as unreachable."""
DRAIN_TIMEOUT: Final = 1.5
"""Seconds to wait for uploads in flight at the end; Airflow kills a task 5 s after SIGTERM."""
UNLOCK_TIMEOUT: Final = 2.0
"""Connect and read timeout in seconds of the request that unlocks the dataset after a kill."""


class Stopped(OsaiError):
    """The task was killed. The dataset is unlocked, and the uploaded images are saved in the checkpoint."""


class Uploader:
    """An upload of the images of a source into a dataset; runs once.

    :param client: the client; several threads use it.
    :param request: the dataset, the concurrency and the handling of invalid files.
    :param source: the source of the images.
    :param scan: the images to upload and the invalid files.
    :param store: the checkpoint store; ``None`` keeps no checkpoint.
    :param log: called with each message for the log.
    :param warn: called with each warning; ``None``: *log*.
    :param clock: monotonic time in seconds.
    """

    def __init__(
        self,
        client: OsaiClient,
        request: UploadRequest,
        source: Source,
        scan: ScanResult,
        *,
        store: UploadCheckpointStore | None = None,
        log: Callable[[str], None] = lambda _: None,
        warn: Callable[[str], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._request = request
        self._source = source
        self._scan = scan
        self._dataset_id = request.dataset_id
        self._store = store or NullUploadStore()
        self._log = log
        self._warn = warn or log
        self._clock = clock
        self._is_stopped = False
        self._consecutive_failures = 0
        self._unsaved_keys: list[str] = []
        self._last_checkpoint = clock()
        self._last_log = self._last_checkpoint

    def stop(self) -> None:
        """Request an orderly stop within a fraction of a second. Signal-safe."""
        self._is_stopped = True

    def run(self) -> UploadSummary:
        """Upload the images that the dataset does not contain, and return the summary.

        :raises OsaiArgumentError: on an invalid file, unless invalid files are skipped.
        :raises OsaiRequestError: if OSAI rejects a request for another reason than an invalid image.
        :raises OsaiUnreachable: if OSAI does not respond, or the dataset is locked; a retry continues the upload.
        :raises Stopped: if :meth:`stop` was called.
        """
        scan = self._scan
        progress = UploadProgress(len(scan.images), sum(image.size for image in scan.images.values()), self._clock)
        for name, reason in scan.invalid_files.items():
            self._skip_invalid(progress, name, reason)
        session = UploadSession(self._client, self._dataset_id, self._ensure_categories(scan.categories))
        checkpoint = self.finish_earlier_upload()
        session.already_uploaded = set(checkpoint.keys) | (session.list_keys() or set())
        missing: Mapping[str, ImageFile] = scan.images
        for _ in range(MAX_ATTEMPTS):
            missing = self._upload(session, missing, progress)
            if not missing:
                break
        else:
            msg = (
                f"{len(missing)} images got no response in {MAX_ATTEMPTS} attempts, for instance {next(iter(missing))}"
            )
            raise OsaiUnreachable(msg)
        for line in summary_lines(self._dataset_id, scan, progress):
            self._log(line)
        self._report(progress)
        for line in scan.too_few(progress.invalid_files) if progress.invalid_files else ():
            self._warn(line)
        return progress.summary(self._dataset_id, scan.categories, scan.counts(progress.invalid_files))

    def finish_earlier_upload(self) -> UploadCheckpoint:
        """Unlock the dataset if a killed try has left it locked, and return the checkpoint of the earlier tries."""
        checkpoint = self._store.load(self._dataset_id)
        if checkpoint.upload_id is not None:
            UploadSession(self._client, self._dataset_id, {}).finish(checkpoint.upload_id, self._client)
            self._store.save_upload_id(None)
        return checkpoint

    def _ensure_categories(self, names: Sequence[str]) -> dict[str, str]:
        """Create the missing categories, and return the ids of all by name."""
        ids = find_categories(self._client, self._dataset_id) if names else {}
        missing = [name for name in names if name not in ids]
        with ThreadPoolExecutor(self._request.max_concurrency) as pool:
            created = pool.map(lambda name: create_category(self._client, self._dataset_id, name), missing)
        return ids | dict(zip(missing, created, strict=True))

    def _upload(
        self, session: UploadSession, images: Mapping[str, ImageFile], progress: UploadProgress
    ) -> Mapping[str, ImageFile]:
        """Upload images; return those that are missing in the dataset."""
        uncertain: dict[str, UploadResult] = {}
        workers = UploadWorkers(
            session,
            ((images[name], opener) for name, opener in self._source.walk(images)),
            self._request.max_concurrency,
        )
        try:
            while workers.wait(KILL_CHECK_INTERVAL):
                self._collect_results(workers, progress, uncertain)
                if self._is_stopped:
                    raise Stopped("The task was killed; a retry uploads the remaining images")
                if session.waits_for_lock:
                    self._store.save_upload_id(session.lock())
                now = self._clock()
                if now - self._last_checkpoint >= CHECKPOINT_INTERVAL:
                    self._save_checkpoint()
                if now - self._last_log >= LOG_INTERVAL:
                    self._report(progress)
            self._collect_results(workers, progress, uncertain)
        finally:
            self._finish(session, workers, progress)
        return self._resolve_uncertain(session, uncertain, progress) if uncertain else {}

    def _collect_results(
        self, workers: UploadWorkers, progress: UploadProgress, uncertain: dict[str, UploadResult]
    ) -> None:
        """Count the new results, and raise an error that ends the upload."""
        for result in workers.results():
            if result.status is not UploadStatus.UNCERTAIN:
                self._consecutive_failures = 0
                self._count(progress, result)
                continue
            uncertain[result.image.name] = result
            self._consecutive_failures += 1
            if self._consecutive_failures >= MAX_CONSECUTIVE_FAILURES and result.error:
                raise result.error
        workers.raise_for_error()

    def _count(self, progress: UploadProgress, result: UploadResult) -> None:
        image = result.image
        if result.status is UploadStatus.UPLOADED:
            progress.uploaded += 1
            progress.uploaded_bytes += image.size
            progress.keys.add(result.key)
            self._unsaved_keys.append(result.key)
        elif result.status is UploadStatus.SKIPPED:
            progress.skipped += 1
            progress.skipped_bytes += image.size
            progress.keys.add(result.key)
        elif result.status is UploadStatus.INVALID and result.error:
            if self._request.on_invalid_file is OnInvalidFile.FAIL:
                raise result.error
            self._skip_invalid(progress, image.name, str(result.error))
            progress.skipped_bytes += image.size

    def _skip_invalid(self, progress: UploadProgress, name: str, reason: str) -> None:
        progress.invalid_files[name] = reason
        self._log(sanitize_server_text(f"Skipped {name}: {reason}"))

    def _save_checkpoint(self) -> None:
        self._last_checkpoint = self._clock()
        if self._unsaved_keys:
            self._store.save_keys(self._unsaved_keys)
            self._unsaved_keys = []

    def _report(self, progress: UploadProgress) -> None:
        self._last_log = self._clock()
        self._log(progress.log_line())
        self._store.progress(progress.as_dict())

    def _finish(self, session: UploadSession, workers: UploadWorkers, progress: UploadProgress) -> None:
        """Stop the workers, unlock the dataset and save a checkpoint, also after an error."""
        failure = sys.exception()
        workers.stop_workers(DRAIN_TIMEOUT)
        for result in workers.results():
            if result.status is UploadStatus.UPLOADED:
                self._count(progress, result)
        try:
            self._unlock(session, was_killed=isinstance(failure, Stopped))
            self._save_checkpoint()
        except Exception as error:
            if failure is None:
                raise
            self._log(f"Dataset {self._dataset_id} may stay locked until OSAI unlocks it after some idle time: {error}")

    def _unlock(self, session: UploadSession, *, was_killed: bool) -> None:
        if session.upload_id is None:
            return
        if was_killed:
            with self._client.clone(UNLOCK_TIMEOUT) as client:
                session.finish(session.upload_id, client)
        else:
            session.finish(session.upload_id, self._client)
        self._store.save_upload_id(None)

    def _resolve_uncertain(
        self, session: UploadSession, uncertain: dict[str, UploadResult], progress: UploadProgress
    ) -> dict[str, ImageFile]:
        """Look up the images without a response in OSAI's list; return those that are missing."""
        stored = session.list_keys()
        if stored is None:
            name, result = next(iter(uncertain.items()))
            msg = (
                f"{len(uncertain)} images got no response, for instance {name} ({result.error}), and this OSAI cannot "
                "list images, so it is unknown whether they were stored. All others were uploaded. A retry uploads "
                "these again; check the OSAI portal for duplicates"
            )
            raise OsaiUnreachable(msg)
        for result in uncertain.values():
            if result.key in stored:
                self._count(progress, UploadResult(result.image, UploadStatus.UPLOADED, result.key))
        self._save_checkpoint()
        return {name: result.image for name, result in uncertain.items() if result.key not in stored}
