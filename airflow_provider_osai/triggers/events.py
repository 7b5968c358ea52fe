"""Event triggers for Airflow assets: an ``AssetWatcher`` with one of them starts Dags when OSAI data changes."""

from __future__ import annotations

from abc import abstractmethod
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, ClassVar, Final

from airflow.triggers.base import BaseEventTrigger, TriggerEvent

from airflow_provider_osai.compat import HAS_SHARED_STREAMS, SharedStreamProducer
from airflow_provider_osai.hooks.osai import OsaiHook
from airflow_provider_osai.triggers.asset_polling import (
    DATASETS,
    MODELS,
    PollTarget,
    Snapshot,
    poll_snapshots,
    require_ids,
)
from airflow_provider_osai.triggers.asset_state import ChangeReporter, ReportedStateStore
from airflow_provider_osai.triggers.change_detection import ReportedState, dataset_changes, is_comparable, model_changes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from airflow.triggers.shared_stream import AdvanceItem

__all__ = ["OsaiDatasetChangedTrigger", "OsaiEventTrigger", "OsaiModelTrainedTrigger", "OsaiPollStream"]

DEFAULT_INTERVAL: Final = 60.0
"""Default seconds between two polls."""
MIN_INTERVAL: Final = 0.1
"""Minimum seconds between two polls, whatever is configured."""
MAX_INTERVAL: Final = 86_400.0
"""Maximum seconds between two polls, whatever is configured."""


class OsaiPollStream(SharedStreamProducer):
    """The polls shared by the triggers of one :class:`PollTarget`. Airflow reports when their events are persisted.

    :param target: what is polled.
    """

    def __init__(self, target: PollTarget) -> None:
        self._target = target

    async def open_stream(self) -> AsyncIterator[tuple[Snapshot, Snapshot]]:
        """Poll endlessly. Never raises, since an exception would stop all triggers that share the polls."""
        async with aclosing(poll_snapshots(self._target)) as stream:
            async for snapshot in stream:
                yield snapshot, snapshot

    async def advance(self, batch: Sequence[AdvanceItem]) -> None:
        """Save the reported states of the triggers whose events are now in Airflow's database.

        If a trigger that processed a snapshot has failed since, it is unknown whether its event was persisted; the
        states are then saved after the next poll.
        """
        for snapshot, outcome in batch:
            if outcome.acked >= snapshot.consumers:
                await snapshot.run_callbacks()


class OsaiEventTrigger(BaseEventTrigger):
    """Base class of the event triggers. They run endlessly and never fire on an error.

    The arguments are plain JSON and contain no secret; unknown ones, of newer versions, are ignored.
    """

    supports_triggerer_queue = True
    listing: ClassVar[str]
    osai_conn_id: str
    poll_interval: float

    def shared_stream_key(self) -> PollTarget | None:
        """Return the poll target; triggers with equal targets share one poll. ``None`` before Airflow 3.3."""
        return self._target() if HAS_SHARED_STREAMS else None

    @classmethod
    def create_shared_stream_producer(cls, kwargs: dict[str, Any]) -> OsaiPollStream:
        """Return the shared poll; Airflow calls this once for all triggers that share it."""
        return OsaiPollStream(cls(**kwargs)._target())

    async def filter_shared_stream(self, shared_stream: AsyncIterator[Snapshot]) -> AsyncIterator[TriggerEvent]:
        """Fire an event for each change in the shared snapshots."""
        reporter = self._reporter()
        with require_ids(self._target(), *self._required_ids()):
            async for snapshot in shared_stream:
                for event in await reporter.detect_changes(snapshot):
                    yield TriggerEvent(event)

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Fire an event for each change, with polls of its own; for Airflow before 3.3, which cannot share them."""
        reporter = self._reporter()
        previous: Snapshot | None = None
        with require_ids(self._target(), *self._required_ids()):
            async with aclosing(poll_snapshots(self._target())) as stream:
                async for snapshot in stream:
                    if previous is not None:
                        await previous.run_callbacks()
                    for event in await reporter.detect_changes(snapshot):
                        yield TriggerEvent(event)
                    previous = snapshot

    def _target(self) -> PollTarget:
        try:
            interval = min(max(MIN_INTERVAL, float(self.poll_interval)), MAX_INTERVAL)
        except (TypeError, ValueError):
            interval = DEFAULT_INTERVAL
        return PollTarget(self.osai_conn_id, self.listing, interval)

    def _reporter(self) -> ChangeReporter:
        key = f"osai.{self.osai_conn_id}.{self._state_key()}"
        store = ReportedStateStore(getattr(self, "asset_state_store", None), key)
        return ChangeReporter(store, self._detect_changes, self.log)

    def _required_ids(self) -> Sequence[str]:
        """Return the ids to fetch even if the list does not contain them."""
        return ()

    @abstractmethod
    def _state_key(self) -> str:
        """Return the part of the state's key that identifies what the trigger watches."""

    @abstractmethod
    def _detect_changes(
        self, reported: ReportedState | None, snapshot: Snapshot
    ) -> tuple[list[dict[str, Any]], ReportedState | None]:
        """Return the payloads of the events since *reported*, and the state to report next."""


class OsaiDatasetChangedTrigger(OsaiEventTrigger):
    """Fires once for each change of a dataset, after the upload that changed it has ended.

    A change is a different ``updatedAt`` or, if OSAI returns none, a different number of images (both assumed). The
    first poll sets the baseline. With Airflow 3.3 and newer, the last reported state is stored for the asset, so that a
    change while no triggerer runs fires afterwards; with older versions, the first poll after each start sets a new
    baseline.

    The event: ``{"kind": "dataset_changed", "dataset_id", "name", "updated_at", "image_count", "previous": {...}}``.

    :param dataset_id: the dataset's id.
    :param osai_conn_id: the connection's id.
    :param poll_interval: seconds between two polls.
    :param version: version of these arguments.
    """

    listing = DATASETS

    def __init__(
        self,
        dataset_id: str = "",
        osai_conn_id: str = OsaiHook.default_conn_name,
        poll_interval: float = DEFAULT_INTERVAL,
        version: int = 1,
        **_newer: Any,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow has no types for it
        self.dataset_id = dataset_id
        self.osai_conn_id = osai_conn_id
        self.poll_interval = poll_interval
        self.version = version
        self._has_warned = False

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments from which another process recreates this trigger."""
        return (
            f"{__name__}.{type(self).__name__}",
            {
                "dataset_id": self.dataset_id,
                "osai_conn_id": self.osai_conn_id,
                "poll_interval": self.poll_interval,
                "version": self.version,
            },
        )

    def _required_ids(self) -> Sequence[str]:
        return (str(self.dataset_id),)

    def _state_key(self) -> str:
        return f"dataset_changed.{self.dataset_id}"

    def _detect_changes(
        self, reported: ReportedState | None, snapshot: Snapshot
    ) -> tuple[list[dict[str, Any]], ReportedState | None]:
        dataset_id = str(self.dataset_id)
        dataset = snapshot.items.get(dataset_id)
        if dataset_id in snapshot.missing:
            self._warn_once(f"dataset {dataset_id!r} was not found: {snapshot.missing[dataset_id]}")
        elif dataset is not None and not is_comparable(dataset):
            self._warn_once(f"OSAI returns neither the change time nor the number of images of dataset {dataset_id!r}")
        elif dataset is not None:
            self._has_warned = False
        return dataset_changes(reported, dataset)

    def _warn_once(self, reason: str) -> None:
        if not self._has_warned:
            self.log.warning("Cannot detect changes (%s); will keep polling", reason)
        self._has_warned = True


class OsaiModelTrainedTrigger(OsaiEventTrigger):
    """Fires once for each new model; for several at once, in the order of their creation.

    The models of the first poll are the baseline. The reported state is stored as for
    :class:`OsaiDatasetChangedTrigger`.

    The event: ``{"kind": "model_trained", "model_id", "name", "metrics", "created_at"}``.

    :param model_name: fire only for models with this name; ``None``: for all.
    :param osai_conn_id: the connection's id.
    :param poll_interval: seconds between two polls.
    :param version: version of these arguments.
    """

    listing = MODELS

    def __init__(
        self,
        model_name: str | None = None,
        osai_conn_id: str = OsaiHook.default_conn_name,
        poll_interval: float = DEFAULT_INTERVAL,
        version: int = 1,
        **_newer: Any,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow has no types for it
        self.model_name = model_name
        self.osai_conn_id = osai_conn_id
        self.poll_interval = poll_interval
        self.version = version

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments from which another process recreates this trigger."""
        return (
            f"{__name__}.{type(self).__name__}",
            {
                "model_name": self.model_name,
                "osai_conn_id": self.osai_conn_id,
                "poll_interval": self.poll_interval,
                "version": self.version,
            },
        )

    def _state_key(self) -> str:
        return "model_trained" if self.model_name is None else f"model_trained.{self.model_name}"

    def _detect_changes(
        self, reported: ReportedState | None, snapshot: Snapshot
    ) -> tuple[list[dict[str, Any]], ReportedState | None]:
        return model_changes(reported, snapshot.items.values(), self.model_name)
