"""Looks at all datasets or all models again and again, with one request for all who watch through a connection."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from airflow_provider_osai.api.errors import OsaiArgumentError, OsaiError, OsaiRequestError
from airflow_provider_osai.hooks.osai import OsaiHook
from airflow_provider_osai.jobs.pace import Pace
from airflow_provider_osai.triggers.sharing import Shared, join, leave

if TYPE_CHECKING:
    from airflow_provider_osai.api.client import AsyncOsaiClient
    from airflow_provider_osai.api.models import Dataset

__all__ = ["DATASETS", "MODELS", "Look", "Subject", "looks", "wanting"]

log = logging.getLogger(__name__)

DATASETS: Final = "datasets"
MODELS: Final = "models"
CALMEST: Final = 300.0
"""Seconds between two looks at the most while they fail, unless the interval is longer or OSAI asks for more."""
DOUBLINGS: Final = 10


class Subject(NamedTuple):
    """What is looked at together: through which connection, what of it, and every how many seconds."""

    osai_conn_id: str
    listing: str
    interval: float


class Look:
    """What one look has found, and what is to be done once all that was told of it is kept.

    :param found: the datasets or models by their ids.
    :param missing: of what was wanted and not found, the reasons by id.
    """

    def __init__(self, found: Mapping[str, Any], missing: dict[str, str]) -> None:
        self.found, self.missing = found, missing
        self.heard = 0
        """How many have taken it in."""
        self._after: list[Callable[[], Awaitable[None]]] = []

    def after(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do *work* once the events that came of this look are kept. It must raise nothing."""
        self._after.append(work)

    async def settle(self) -> None:
        """Do what was to be done after it."""
        work, self._after = self._after, []
        for one in work:
            await one()


_wanted: dict[Subject, Counter[str]] = {}
"""The ids for which those who watch a subject wait: what a list does not show is asked for by itself."""


@contextmanager
def wanting(subject: Subject, *ids: str) -> Iterator[None]:
    """Have looks at *subject* ask for these ids as long as the block lasts."""
    wanted = _wanted.setdefault(subject, Counter())
    wanted.update(ids)
    try:
        yield
    finally:
        wanted.subtract(ids)
        _wanted[subject] = +wanted
        if not _wanted[subject]:
            del _wanted[subject]


async def looks(subject: Subject) -> AsyncGenerator[Look, None]:
    """Look, for ever. A look that fails is none: it is logged once for each outage, and the pauses grow.

    The connection is read again between looks (see :func:`~airflow_provider_osai.triggers.sharing.join`), so that one
    that was changed or mended counts from then on.
    """
    hook, trouble = OsaiHook(subject.osai_conn_id), _Trouble(subject)
    shared: Shared | None = None
    try:
        while True:
            try:
                shared, before = await join(hook), shared
                if before is not None:
                    await leave(before)
                look = await _look(shared.client, subject.listing, set(_wanted.get(subject, ())))
            except Exception as error:  # noqa: BLE001 - one that came out would end the watching of all who share it
                pause = trouble.noted(error)
            else:
                pause = trouble.over()
                yield look
            await asyncio.sleep(pause)
    finally:
        if shared is not None:
            await leave(shared)


async def _look(client: AsyncOsaiClient, listing: str, wanted: Collection[str]) -> Look:
    if listing == MODELS:
        models = await client.send(client.calls.list_models(), once=True)
        return Look({model.id: model for model in models}, {})
    return await _look_at_datasets(client, wanted)


async def _look_at_datasets(client: AsyncOsaiClient, wanted: Collection[str]) -> Look:
    """Ask for all datasets at once, and for those by themselves that no list shows."""
    contract = client.calls.contract
    found: dict[str, Dataset] = {}
    missing: dict[str, str] = {}
    if "dataset.find" in contract and not contract["dataset.find"].placeholders:
        found = {one.id: one for one in await client.send(client.calls.find_datasets(), once=True)}
    for dataset_id in sorted(set(wanted) - found.keys()):
        if "dataset.get" not in contract:
            missing[dataset_id] = "OSAI does not list it"
            continue
        try:
            found[dataset_id] = await client.send(client.calls.get_dataset(dataset_id), once=True)
        except (OsaiRequestError, OsaiArgumentError) as error:  # about this dataset alone
            missing[dataset_id] = str(error)
    return Look(found, missing)


class _Trouble:
    """Counts the looks that failed in a row, says so once, and says how long to pause."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._pace = Pace(subject.interval, shortest=0.0)
        self._times = 0
        self._said: type[Exception] | None = None

    def noted(self, error: Exception) -> float:
        """Return the seconds to pause after a look that failed."""
        self._times += 1
        if type(error) is not self._said:
            self._said = type(error)
            reason = str(error) if isinstance(error, OsaiError) else f"{type(error).__name__}: {error}"
            log.warning(
                "Cannot look at the %s of %s, and tell nothing of them until that works again: %s",
                self._subject.listing,
                self._subject.osai_conn_id,
                reason,
            )
        calm = min(CALMEST, self._subject.interval * 2 ** min(self._times, DOUBLINGS))
        return self._pace.interval(math.inf, at_least=max(calm, getattr(error, "retry_after", None) or 0.0))

    def over(self) -> float:
        """Return the seconds to pause after a look."""
        if self._times:
            log.info(
                "The %s of %s can be looked at again, after %d looks that failed",
                self._subject.listing,
                self._subject.osai_conn_id,
                self._times,
            )
        self._times, self._said = 0, None
        return self._pace.interval(math.inf)
