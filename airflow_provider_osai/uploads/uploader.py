"""Sends images into a dataset: many at once, none twice, and never without unlocking the dataset at the end."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from airflow_provider_osai.api.client import OsaiClient
from airflow_provider_osai.api.errors import OsaiError, OsaiUnreachable
from airflow_provider_osai.api.requests import OnBadFile, UploadRequest
from airflow_provider_osai.data.datasets import find_categories
from airflow_provider_osai.data.sources import Source
from airflow_provider_osai.data.survey import Picture, Survey
from airflow_provider_osai.jobs.flow import run
from airflow_provider_osai.uploads.crew import Crew
from airflow_provider_osai.uploads.memory import Forgetful, UploadMemory
from airflow_provider_osai.uploads.sending import Dealt, Fate, Shipment
from airflow_provider_osai.uploads.tally import Tally

__all__ = ["Stopped", "Uploader"]

CHECKPOINT: Final = 1.0
"""Seconds between two times that what was sent is remembered."""
TOLD: Final = 5.0
"""Seconds between two lines of progress."""
GLANCE: Final = 0.2
"""Seconds after which a stop is noticed at the latest."""
ROUNDS: Final = 3
"""Times that an image is sent that got no answer, and of which OSAI's list then shows that it did not arrive."""
IN_A_ROW: Final = 20
"""Images in a row that may get no answer until OSAI counts as gone."""
LAST_WORDS: Final = 1.5
"""Seconds that images on their way have left when an upload ends early; Airflow kills a task 5 s after its signal."""
LAST_CALL: Final = 2.0
"""Seconds that OSAI may be silent when it is told to unlock the dataset then."""

Left = Mapping[str, Picture]


class Stopped(OsaiError):
    """The task was killed. The dataset is unlocked, and what was sent is remembered."""


class Uploader:
    """One upload, run once.

    :param client: used by several threads at the same time.
    :param wish: into which dataset, and how.
    :param source: where the images are.
    :param found: what of them is to be there.
    :param memory: what earlier tries sent, and a place for what this one sends.
    :param tell: is given a line for the log now and then.
    :param clock: seconds that never go back.
    """

    def __init__(
        self,
        client: OsaiClient,
        wish: UploadRequest,
        source: Source,
        found: Survey,
        *,
        memory: UploadMemory | None = None,
        tell: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client, self._wish, self._source, self._found = client, wish, source, found
        self._dataset_id = wish.dataset_id
        self._memory, self._tell, self._clock = memory or Forgetful(), tell, clock
        self._is_stopped = False
        self._silent = 0
        self._new: list[str] = []
        self._saved = self._told = clock()

    def stop(self) -> None:
        """End soon and in order; may be called from a signal's handler."""
        self._is_stopped = True

    def run(self) -> dict[str, Any]:
        """Send what the dataset lacks, and return a summary.

        :raises OsaiArgumentError: at a bad file, if bad files are not skipped.
        :raises OsaiRequestError: if OSAI refuses something else than an image.
        :raises OsaiUnreachable: if it does not answer, or the dataset is locked; a retry goes on where this ended.
        :raises Stopped: if it was stopped.
        """
        found = self._found
        progress = Tally(len(found.pictures), sum(p.size for p in found.pictures.values()), self._clock)
        for name, reason in found.bad.items():
            self._note_bad(progress, name, reason)
        ids = self._categories(found.categories)
        shipment = Shipment(self._client, self._dataset_id, ids)
        past = self._memory.recall(self._dataset_id)
        if past.upload_id is not None:
            shipment.finish(past.upload_id, self._client)  # of a try that was killed: the dataset is locked until then
            self._memory.opened(None)
        shipment.known = set(past.keys) | (shipment.listed() or set())
        left: Left = found.pictures
        for _ in range(ROUNDS):
            left = self._round(shipment, left, progress)
            if not left:
                break
        else:
            raise OsaiUnreachable(f"{len(left)} images got no answer {ROUNDS} times, for instance {next(iter(left))}")
        self._report(progress)
        return progress.summary(self._dataset_id, found.categories)

    def _categories(self, names: Sequence[str]) -> dict[str, str]:
        """Make the categories that the dataset lacks, and return the id of each by name."""
        calls, send = self._client.calls, self._client.send
        ids = run(find_categories(calls, self._dataset_id), send) if names else {}
        missing = [name for name in names if name not in ids]
        with ThreadPoolExecutor(self._wish.max_concurrency) as pool:
            made = pool.map(lambda name: send(calls.create_category(self._dataset_id, name)).id, missing)
        return ids | dict(zip(missing, made, strict=True))

    def _round(self, shipment: Shipment, left: Left, progress: Tally) -> Left:
        """Send images; return those that did not arrive."""
        doubtful: dict[str, Dealt] = {}
        crew = Crew(
            shipment, ((left[name], opener) for name, opener in self._source.walk(left)), self._wish.max_concurrency
        )
        try:
            while crew.wait(GLANCE):
                self._take_in(crew, progress, doubtful)
                if self._is_stopped:
                    raise Stopped("the task was killed; a retry goes on with the images that were not sent")
                if shipment.waits_for_lock:
                    self._memory.opened(shipment.lock())
                now = self._clock()
                if now - self._saved >= CHECKPOINT:
                    self._save()
                if now - self._told >= TOLD:
                    self._report(progress)
            self._take_in(crew, progress, doubtful)
        finally:
            self._end(shipment, crew, progress)
        return self._settle(shipment, doubtful, progress) if doubtful else {}

    def _take_in(self, crew: Crew, progress: Tally, doubtful: dict[str, Dealt]) -> None:
        """Count what has been dealt with; raise what ended it."""
        for dealt in crew.dealt():
            if dealt.fate is not Fate.IN_DOUBT:
                self._silent = 0
                self._count(progress, dealt)
                continue
            doubtful[dealt.picture.name] = dealt
            self._silent += 1
            if self._silent >= IN_A_ROW and dealt.error:
                raise dealt.error
        crew.must_be_well()

    def _count(self, progress: Tally, dealt: Dealt) -> None:
        picture = dealt.picture
        if dealt.fate is Fate.SENT:
            progress.sent += 1
            progress.sent_bytes += picture.size
            progress.keys.add(dealt.key)
            self._new.append(dealt.key)
        elif dealt.fate is Fate.KNOWN:
            progress.known += 1
            progress.known_bytes += picture.size
            progress.keys.add(dealt.key)
        elif dealt.fate is Fate.BAD and dealt.error:
            if self._wish.on_bad_file is OnBadFile.FAIL:
                raise dealt.error
            self._note_bad(progress, picture.name, str(dealt.error))
            progress.known_bytes += picture.size

    def _note_bad(self, progress: Tally, name: str, reason: str) -> None:
        progress.bad[name] = reason
        self._tell(f"Skipped {name}: {reason}")

    def _save(self) -> None:
        self._saved = self._clock()
        if self._new:
            self._memory.sent(self._new)
            self._new = []

    def _report(self, progress: Tally) -> None:
        self._told = self._clock()
        self._tell(progress.line())
        self._memory.progress(progress.figures())

    def _end(self, shipment: Shipment, crew: Crew, progress: Tally) -> None:
        """Unlock the dataset and remember what was sent, whatever has happened."""
        failure = sys.exception()
        crew.dismiss(LAST_WORDS)
        for dealt in crew.dealt():
            if dealt.fate is Fate.SENT:
                self._count(progress, dealt)
        try:
            self._unlock(shipment, is_hurried=isinstance(failure, Stopped))
            self._save()
        except Exception as error:
            if failure is None:
                raise
            self._tell(f"Dataset {self._dataset_id} may stay locked until OSAI unlocks it by itself: {error}")

    def _unlock(self, shipment: Shipment, *, is_hurried: bool) -> None:
        if shipment.upload_id is None:
            return
        if is_hurried:
            with self._client.sibling(LAST_CALL) as client:
                shipment.finish(shipment.upload_id, client)
        else:
            shipment.finish(shipment.upload_id, self._client)
        self._memory.opened(None)

    def _settle(self, shipment: Shipment, doubtful: dict[str, Dealt], progress: Tally) -> Left:
        """Ask which of the images that got no answer have arrived, and return the others."""
        there = shipment.listed()
        if there is None:
            name, dealt = next(iter(doubtful.items()))
            msg = (
                f"{len(doubtful)} images got no answer, for instance {name} ({dealt.error}), and this OSAI cannot list "
                "its images. All others have arrived. A retry sends these again; look into the portal for doubles"
            )
            raise OsaiUnreachable(msg)
        for dealt in doubtful.values():
            if dealt.key in there:
                self._count(progress, Dealt(dealt.picture, Fate.SENT, dealt.key))
        self._save()
        return {name: dealt.picture for name, dealt in doubtful.items() if dealt.key not in there}
