"""Triggers that watch OSAI for Airflow's assets: an ``AssetWatcher`` with one of them starts Dags by itself."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Any, ClassVar, Final

from airflow.triggers.base import BaseEventTrigger, TriggerEvent

from airflow_provider_osai.compat import SHARES_STREAMS, SharedStreamProducer
from airflow_provider_osai.hooks.osai import OsaiHook
from airflow_provider_osai.jobs.news import Told, dataset_news, is_comparable, model_news
from airflow_provider_osai.triggers.looking import DATASETS, MODELS, Look, Subject, looks, wanting
from airflow_provider_osai.triggers.telling import Memory, Teller

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from airflow.triggers.shared_stream import AdvanceItem

__all__ = ["OsaiDatasetChangedTrigger", "OsaiEventTrigger", "OsaiLooks", "OsaiModelTrainedTrigger"]

MINUTE: Final = 60.0
SHORTEST, LONGEST = 0.1, 86_400.0
"""Seconds between two looks at the least and at the most, whatever is asked for."""


class OsaiLooks(SharedStreamProducer):
    """The looks that triggers of one :class:`Subject` share. Airflow says when the events of each are in its database.

    :param subject: what is looked at.
    """

    def __init__(self, subject: Subject) -> None:
        self._subject = subject

    async def open_stream(self) -> AsyncIterator[tuple[Look, Look]]:
        """Look, for ever; it raises nothing, since that would end the watching of all who share it."""
        async with aclosing(looks(self._subject)) as stream:
            async for look in stream:
                yield look, look

    async def advance(self, batch: Sequence[AdvanceItem]) -> None:
        """Let the triggers remember what they told, which is in Airflow's database now.

        If one that heard a look has failed since, nobody knows which event is there; the next look lets them remember.
        """
        for look, outcome in batch:
            if outcome.acked >= look.heard:
                await look.settle()


class OsaiEventTrigger(BaseEventTrigger):
    """What the triggers that watch OSAI have in common. They never end, and never fire on an error.

    Arguments are plain JSON and hold no secret; unknown ones, of newer versions, are ignored.
    """

    supports_triggerer_queue = True
    listing: ClassVar[str]
    osai_conn_id: str
    poll_interval: float

    def shared_stream_key(self) -> Subject | None:
        """Return what is looked at: all who look at the same share one poll. ``None`` before Airflow 3.3."""
        return self._subject() if SHARES_STREAMS else None

    @classmethod
    def create_shared_stream_producer(cls, kwargs: dict[str, Any]) -> OsaiLooks:
        """Return the shared poll; Airflow calls this once for all who share it."""
        return OsaiLooks(cls(**kwargs)._subject())

    async def filter_shared_stream(self, shared_stream: AsyncIterator[Look]) -> AsyncIterator[TriggerEvent]:
        """Fire an event for each change that the shared looks show."""
        teller = self._teller()
        with wanting(self._subject(), *self._ids()):
            async for look in shared_stream:
                for event in await teller.hear(look):
                    yield TriggerEvent(event)

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look by itself, where polls cannot be shared, and fire an event for each change."""
        teller, before = self._teller(), None
        with wanting(self._subject(), *self._ids()):
            async with aclosing(looks(self._subject())) as stream:
                async for look in stream:
                    if before is not None:
                        await before.settle()
                    for event in await teller.hear(look):
                        yield TriggerEvent(event)
                    before = look

    def _subject(self) -> Subject:
        try:
            interval = min(max(SHORTEST, float(self.poll_interval)), LONGEST)
        except (TypeError, ValueError):
            interval = MINUTE
        return Subject(self.osai_conn_id, self.listing, interval)

    def _teller(self) -> Teller:
        store = getattr(self, "asset_state_store", None)
        return Teller(Memory(store, f"osai.{self.osai_conn_id}.{self._key()}"), self._news, self.log)

    def _ids(self) -> Sequence[str]:
        """Return what must be looked at even if no list shows it."""
        return ()

    def _key(self) -> str:
        raise NotImplementedError

    def _news(self, told: Told | None, look: Look) -> tuple[list[dict[str, Any]], Told | None]:
        raise NotImplementedError


class OsaiDatasetChangedTrigger(OsaiEventTrigger):
    """Fires when a dataset has changed, once for each change, and not before the upload that changes it is over.

    A change is another ``updatedAt`` or, where OSAI says none, another number of images (both assumed). The first look
    is what changes are measured by. From Airflow 3.3 on the last change is remembered for the asset, so that one while
    no triggerer runs is told afterwards; before, the first look after each start is the measure.

    The event: ``{"kind": "dataset_changed", "dataset_id", "name", "updated_at", "image_count", "previous": {...}}``.

    :param dataset_id: the dataset's id.
    :param osai_conn_id: the connection's id.
    :param poll_interval: seconds between two looks.
    :param version: of these arguments.
    """

    listing = DATASETS

    def __init__(
        self,
        dataset_id: str = "",
        osai_conn_id: str = OsaiHook.default_conn_name,
        poll_interval: float = MINUTE,
        version: int = 1,
        **_newer: Any,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow has no types for it
        self.dataset_id = dataset_id
        self.osai_conn_id = osai_conn_id
        self.poll_interval = poll_interval
        self.version = version
        self._complained = False

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what another process makes this trigger from."""
        return (
            f"{__name__}.{type(self).__name__}",
            {
                "dataset_id": self.dataset_id,
                "osai_conn_id": self.osai_conn_id,
                "poll_interval": self.poll_interval,
                "version": self.version,
            },
        )

    def _ids(self) -> Sequence[str]:
        return (str(self.dataset_id),)

    def _key(self) -> str:
        return f"dataset_changed.{self.dataset_id}"

    def _news(self, told: Told | None, look: Look) -> tuple[list[dict[str, Any]], Told | None]:
        dataset_id = str(self.dataset_id)
        dataset = look.found.get(dataset_id)
        if dataset_id in look.missing:
            self._complain(f"dataset {dataset_id!r} is not there: {look.missing[dataset_id]}")
        elif dataset is not None and not is_comparable(dataset):
            self._complain(f"OSAI tells neither when dataset {dataset_id!r} changed nor how many images it has")
        elif dataset is not None:
            self._complained = False
        return dataset_news(told, dataset)

    def _complain(self, reason: str) -> None:
        if not self._complained:
            self.log.warning("Cannot tell of changes, and go on looking: %s", reason)
        self._complained = True


class OsaiModelTrainedTrigger(OsaiEventTrigger):
    """Fires when OSAI has a new model, once for each; several at once in the order of their making.

    The models of the first look are not new. What is remembered is as for :class:`OsaiDatasetChangedTrigger`.

    The event: ``{"kind": "model_trained", "model_id", "name", "metrics", "created_at"}``.

    :param model_name: tells only of models that are called so; ``None``: of all.
    :param osai_conn_id: the connection's id.
    :param poll_interval: seconds between two looks.
    :param version: of these arguments.
    """

    listing = MODELS

    def __init__(
        self,
        model_name: str | None = None,
        osai_conn_id: str = OsaiHook.default_conn_name,
        poll_interval: float = MINUTE,
        version: int = 1,
        **_newer: Any,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow has no types for it
        self.model_name = model_name
        self.osai_conn_id = osai_conn_id
        self.poll_interval = poll_interval
        self.version = version

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what another process makes this trigger from."""
        return (
            f"{__name__}.{type(self).__name__}",
            {
                "model_name": self.model_name,
                "osai_conn_id": self.osai_conn_id,
                "poll_interval": self.poll_interval,
                "version": self.version,
            },
        )

    def _key(self) -> str:
        return "model_trained" if self.model_name is None else f"model_trained.{self.model_name}"

    def _news(self, told: Told | None, look: Look) -> tuple[list[dict[str, Any]], Told | None]:
        return model_news(told, look.found.values(), self.model_name)
