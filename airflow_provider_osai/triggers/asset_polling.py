"""Polls all datasets or all models of a connection, shared by every trigger that watches them."""

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
from airflow_provider_osai.hooks.shared_client import SharedClient, acquire_shared_client, release_shared_client
from airflow_provider_osai.jobs.polling import PollSchedule

if TYPE_CHECKING:
    from airflow_provider_osai.api.client import AsyncOsaiClient
    from airflow_provider_osai.api.models import Dataset

__all__ = ["DATASETS", "MODELS", "PollTarget", "Snapshot", "poll_snapshots", "require_ids"]

log = logging.getLogger(__name__)

DATASETS: Final = "datasets"
MODELS: Final = "models"
MAX_BACKOFF: Final = 300.0
"""Maximum seconds between two polls while they fail, unless the interval is longer or OSAI sends ``Retry-After``."""
MAX_DOUBLINGS: Final = 10


class PollTarget(NamedTuple):
    """What triggers poll together: the connection, the kind of object, and the interval in seconds."""

    osai_conn_id: str
    listing: str
    interval: float


class Snapshot:
    """The result of one poll, with callbacks to run once the events that it caused are persisted.

    :param items: the datasets or models by id.
    :param missing: required ids that were not found, with the reason.
    """

    def __init__(self, items: Mapping[str, Any], missing: dict[str, str]) -> None:
        self.items = items
        self.missing = missing
        self.consumers = 0
        """Number of triggers that have processed it."""
        self._callbacks: list[Callable[[], Awaitable[None]]] = []

    def add_callback(self, callback: Callable[[], Awaitable[None]]) -> None:
        """Register *callback* to run once the events of this poll are persisted. It must not raise."""
        self._callbacks.append(callback)

    async def run_callbacks(self) -> None:
        """Run the registered callbacks once."""
        callbacks = self._callbacks
        self._callbacks = []
        for callback in callbacks:
            await callback()


_required_ids: dict[PollTarget, Counter[str]] = {}
"""Ids that the triggers of a target watch; those missing from the list are fetched one by one."""


@contextmanager
def require_ids(target: PollTarget, *ids: str) -> Iterator[None]:
    """Include these ids in the polls of *target* while the block runs."""
    required = _required_ids.setdefault(target, Counter())
    required.update(ids)
    try:
        yield
    finally:
        required.subtract(ids)
        _required_ids[target] = +required
        if not _required_ids[target]:
            del _required_ids[target]


async def poll_snapshots(target: PollTarget) -> AsyncGenerator[Snapshot, None]:
    """Poll endlessly. A failed poll yields nothing; it is logged once for each outage, with backoff between polls.

    The connection is read again between polls (see :func:`.acquire_shared_client`), so a change takes effect.
    """
    hook = OsaiHook(target.osai_conn_id)
    backoff = _FailureBackoff(target)
    shared: SharedClient | None = None
    try:
        while True:
            try:
                previous = shared
                shared = await acquire_shared_client(hook)
                if previous is not None:
                    await release_shared_client(previous)
                snapshot = await _fetch(shared.client, target.listing, set(_required_ids.get(target, ())))
            except Exception as error:  # an exception would stop the shared poll for every trigger
                pause = backoff.record_failure(error)
            else:
                pause = backoff.record_success()
                yield snapshot
            await asyncio.sleep(pause)
    finally:
        if shared is not None:
            await release_shared_client(shared)


async def _fetch(client: AsyncOsaiClient, listing: str, required_ids: Collection[str]) -> Snapshot:
    if listing == MODELS:
        models = await client.send(client.calls.list_models(), retry=False)
        return Snapshot({model.id: model for model in models}, {})
    return await _fetch_datasets(client, required_ids)


async def _fetch_datasets(client: AsyncOsaiClient, required_ids: Collection[str]) -> Snapshot:
    """Fetch all datasets with one request, and the required ones that the list does not contain one by one."""
    contract = client.calls.contract
    datasets: dict[str, Dataset] = {}
    missing: dict[str, str] = {}
    if "dataset.find" in contract and not contract["dataset.find"].placeholders:
        listed = await client.send(client.calls.list_datasets(), retry=False)
        datasets = {dataset.id: dataset for dataset in listed}
    for dataset_id in sorted(set(required_ids) - datasets.keys()):
        if "dataset.get" not in contract:
            missing[dataset_id] = "OSAI does not list it"
            continue
        try:
            datasets[dataset_id] = await client.send(client.calls.get_dataset(dataset_id), retry=False)
        except (OsaiRequestError, OsaiArgumentError) as error:  # concerns this dataset only
            missing[dataset_id] = str(error)
    return Snapshot(datasets, missing)


class _FailureBackoff:
    """Counts consecutive failed polls, logs the first one of each outage, and computes the pauses."""

    def __init__(self, target: PollTarget) -> None:
        self._target = target
        self._schedule = PollSchedule(target.interval, min_interval=0.0)
        self._failures = 0
        self._logged: type[Exception] | None = None

    def record_failure(self, error: Exception) -> float:
        """Return the seconds to pause after a failed poll."""
        self._failures += 1
        if type(error) is not self._logged:
            self._logged = type(error)
            log.warning(
                "Polling %s of connection %s failed; no events fire until it recovers: %s",
                self._target.listing,
                self._target.osai_conn_id,
                str(error) if isinstance(error, OsaiError) else f"{type(error).__name__}: {error}",
            )
        pause = min(MAX_BACKOFF, self._target.interval * 2 ** min(self._failures, MAX_DOUBLINGS))
        retry_after = getattr(error, "retry_after", None) or 0.0
        return self._schedule.next_interval(math.inf, retry_after=max(pause, retry_after))

    def record_success(self) -> float:
        """Return the seconds to pause after a successful poll."""
        if self._failures:
            log.info(
                "Polling %s of connection %s recovered after %d failed polls",
                self._target.listing,
                self._target.osai_conn_id,
                self._failures,
            )
        self._failures = 0
        self._logged = None
        return self._schedule.next_interval(math.inf)
