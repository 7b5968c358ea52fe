"""Event triggers: one event for each change, persisted state, no event on an error, shared polls."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
from collections.abc import Callable
from contextlib import asynccontextmanager, suppress

import pytest
from airflow.triggers.base import BaseEventTrigger

from airflow_provider_osai.compat import HAS_SHARED_STREAMS
from airflow_provider_osai.sandbox.models import ModelRecord
from airflow_provider_osai.triggers import asset_polling
from airflow_provider_osai.triggers.events import OsaiDatasetChangedTrigger, OsaiModelTrainedTrigger
from tests.conftest import CANARY
from tests.sandbox.client import png

POLL_INTERVAL = 0.1
shared_only = pytest.mark.skipif(not HAS_SHARED_STREAMS, reason="Airflow 3.3 and newer")


@pytest.fixture
def osai(sandbox, connection):
    return Osai(sandbox)


class Osai:
    """The sandbox, and changes to its data."""

    def __init__(self, sandbox):
        self.sandbox = sandbox
        self.datasets = sandbox.state.datasets
        self.control = sandbox.control

    def dataset(self) -> str:
        return self.datasets.create("defects").id

    def start_upload(self, dataset_id: str) -> str:
        upload = self.datasets.start_upload(dataset_id)
        self.datasets.add_image(dataset_id, upload, io.BytesIO(png()))
        return upload

    def change(self, dataset_id: str) -> None:
        self.datasets.finish_upload(dataset_id, self.start_upload(dataset_id))

    def train(self, model_id: str, name: str = "m") -> None:
        self.sandbox.state.save_model(ModelRecord(model_id, name, "classification", {"f1": 0.9}))

    def count(self, endpoint: str) -> int:
        return self.control.record()["counts"].get(endpoint, 0)

    async def wait_for_polls(self, times: int = 2, endpoint: str = "dataset.find") -> None:
        """Wait for *times* more polls; the first may have started before."""
        target = self.count(endpoint) + times
        await until(lambda: self.count(endpoint) >= target)


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(600):
        if condition():
            return
        await asyncio.sleep(0.05)
    raise AssertionError("the condition was not met in time")


class FakeSupervisor:
    """A fake supervisor with an asset state store, as in Airflow 3.3."""

    def __init__(self):
        self.states: dict[str, dict[str, str]] = {}
        self.is_down = False

    async def asend(self, message):
        from airflow.sdk.exceptions import ErrorType
        from airflow.sdk.execution_time import comms

        if self.is_down:
            raise RuntimeError("no response")
        state = self.states.setdefault(message.name, {})
        if isinstance(message, comms.SetAssetStateStoreByName):
            state[message.key] = json.dumps(message.value)
            return comms.OKResponse(ok=True)
        if message.key in state:
            return comms.AssetStateStoreResult(value=json.loads(state[message.key]))
        return comms.ErrorResponse(error=ErrorType.ASSET_STORE_NOT_FOUND)

    def reported(self, asset: str = "a"):
        """Return the reported state of an asset, or ``None``."""
        return next((json.loads(value)["told"] for value in self.states.get(asset, {}).values()), None)


@pytest.fixture
def supervisor(monkeypatch):
    from airflow.sdk.execution_time import task_runner

    fake = FakeSupervisor()
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", fake, raising=False)
    return fake


class Triggerer:
    """A minimal triggerer: Airflow's manager of shared streams, and a fake database for events.

    :param persists: whether events reach the database.
    """

    def __init__(self, *, persists: bool = True):
        from airflow.triggers.shared_stream import SharedStreamManager

        self.manager = SharedStreamManager()
        self.persists = persists
        self.tasks: list[asyncio.Task] = []

    def watch(self, trigger: BaseEventTrigger, *assets: str) -> list[dict]:
        """Run a trigger for assets; return the growing list of its events."""
        from airflow.sdk import Asset
        from airflow.sdk.execution_time.context import AssetStateStoreAccessors

        trigger = type(trigger)(**json.loads(json.dumps(trigger.serialize()[1])))
        names = assets or ("a",)
        trigger.asset_state_store = AssetStateStoreAccessors(inlets=[Asset(name) for name in names])
        number = len(self.tasks)
        events: list[dict] = []
        self.tasks.append(asyncio.create_task(self._run(number, trigger, events)))
        return events

    async def _run(self, number: int, trigger, events: list[dict]) -> None:
        key = trigger.shared_stream_key()
        stream = self.manager.subscribe(trigger_id=number, trigger=trigger, key=key)
        try:
            async for event in trigger.filter_shared_stream(stream):
                seq = self.manager.bind_pending_event(trigger_id=number, key=key)
                assert CANARY not in json.dumps(event.payload, allow_nan=False)
                events.append(event.payload)
                if self.persists:
                    asyncio.get_running_loop().call_later(0.01, self.manager.confirm_persisted, [seq])
        finally:
            await self.manager.unsubscribe(number, key)

    async def stop(self) -> None:
        for task in self.tasks:
            task.cancel()
        for result in await asyncio.gather(*self.tasks, return_exceptions=True):
            assert isinstance(result, asyncio.CancelledError), result  # it neither returned nor failed


@asynccontextmanager
async def triggerer(**options):
    running = Triggerer(**options)
    try:
        yield running
    finally:
        await running.stop()


def watcher(dataset_id: str, **options) -> OsaiDatasetChangedTrigger:
    return OsaiDatasetChangedTrigger(dataset_id, **{"poll_interval": POLL_INTERVAL} | options)


@shared_only
class TestShared:
    """Shared polls, as Airflow 3.3 runs them."""

    def test_each_change_fires_once_and_the_first_poll_sets_the_baseline(self, osai, supervisor):
        dataset = osai.dataset()

        async def main():
            async with triggerer() as airflow:
                events = airflow.watch(watcher(dataset))
                await until(lambda: supervisor.reported() is not None)
                for count in (1, 2, 3):
                    osai.change(dataset)
                    await until(lambda count=count: (supervisor.reported() or {}).get("image_count") == count)
                    await osai.wait_for_polls()
                return events

        events = asyncio.run(main())
        assert [event["image_count"] for event in events] == [1, 2, 3]
        assert [event["previous"]["image_count"] for event in events] == [0, 1, 2]
        for earlier, later in itertools.pairwise(events):
            assert later["previous"]["updated_at"] == earlier["updated_at"]
        first = events[0]
        assert (first["kind"], first["dataset_id"], first["name"]) == ("dataset_changed", dataset, "defects")

    def test_after_a_restart_missed_changes_fire_once(self, osai, supervisor):
        dataset = osai.dataset()

        async def main(count: int) -> list[dict]:
            async with triggerer() as airflow:
                events = airflow.watch(watcher(dataset))
                await until(lambda: (supervisor.reported() or {}).get("image_count") == count)
                await osai.wait_for_polls()
            return events

        assert asyncio.run(main(0)) == []
        assert asyncio.run(main(0)) == []
        osai.change(dataset)
        assert [event["image_count"] for event in asyncio.run(main(1))] == [1]
        assert asyncio.run(main(1)) == []

    def test_an_event_that_was_not_persisted_fires_again(self, osai, supervisor):
        """A kill before the event is in the database loses no change: the state is saved after that."""
        dataset = osai.dataset()

        async def main(**options) -> list[dict]:
            async with triggerer(**options) as airflow:
                events = airflow.watch(watcher(dataset))
                await until(lambda: supervisor.reported() is not None)
                osai.change(dataset)
                await until(lambda: len(events) == 1)
                await osai.wait_for_polls(4)
            return events

        assert len(asyncio.run(main(persists=False))) == 1
        assert supervisor.reported()["image_count"] == 0
        assert [event["previous"]["image_count"] for event in asyncio.run(main())] == [0]
        assert supervisor.reported()["image_count"] == 2

    def test_an_event_that_was_persisted_fires_again_if_its_state_was_not_saved(self, osai, supervisor):
        """The only way for a change to fire twice: a kill in the second between the two."""
        dataset = osai.dataset()

        async def main(*, killed: bool) -> list[dict]:
            async with triggerer() as airflow:
                events = airflow.watch(watcher(dataset))
                await until(lambda: supervisor.reported() is not None)
                if killed:
                    supervisor.is_down = True
                    osai.change(dataset)
                    await until(lambda: len(events) == 1)
                await osai.wait_for_polls(4)
            supervisor.is_down = False
            return events

        assert [len(asyncio.run(main(killed=killed))) for killed in (True, False, False)] == [1, 1, 0]

    def test_many_triggers_of_a_connection_share_one_poll(self, osai, supervisor):
        """One request for all datasets or all models; each trigger fires its own changes only."""
        first, second = osai.dataset(), osai.dataset()

        async def main():
            async with triggerer() as airflow:
                watched = (("a", first), ("b", second), ("c", second))
                events = [airflow.watch(watcher(dataset), name) for name, dataset in watched]
                await until(lambda: all(supervisor.reported(name) for name in "abc"))
                assert len({trigger.shared_stream_key() for trigger in (watcher(first), watcher(second))}) == 1
                before = osai.control.record()["counts"]
                osai.change(second)
                await until(lambda: [len(fired) for fired in events] == [0, 1, 1])
                await osai.wait_for_polls(5)
                after = osai.control.record()["counts"]
                return before, after

        before, after = asyncio.run(main())
        assert after["dataset.find"] - before["dataset.find"] < 3 * 5
        assert after["auth.sign_in"] == 1
        assert "dataset.get" not in after

    def test_only_equal_poll_targets_share_a_key(self):
        """Connection, kind of object and interval must match."""
        triggers = [
            OsaiDatasetChangedTrigger("7"),
            OsaiDatasetChangedTrigger("7", osai_conn_id="other"),
            OsaiDatasetChangedTrigger("7", poll_interval=5),
            OsaiModelTrainedTrigger(),
        ]
        assert len({trigger.shared_stream_key() for trigger in triggers}) == 4
        assert OsaiDatasetChangedTrigger("8").shared_stream_key() == triggers[0].shared_stream_key()
        assert OsaiModelTrainedTrigger("m").shared_stream_key() == triggers[3].shared_stream_key()

    def test_one_trigger_serves_several_assets(self, osai, supervisor):
        """Airflow's own access to the state fails then; an asset that was added later gets the state of the others."""
        dataset = osai.dataset()

        async def main(*assets: str) -> list[dict]:
            async with triggerer() as airflow:
                events = airflow.watch(watcher(dataset), *assets)
                await until(lambda: all(supervisor.reported(name) for name in assets))
                await osai.wait_for_polls()
            return events

        assert asyncio.run(main("a")) == []
        osai.change(dataset)
        assert len(asyncio.run(main("a", "b"))) == 1
        assert supervisor.states["a"] == supervisor.states["b"]
        assert asyncio.run(main("b")) == []

    def test_the_latest_state_of_several_assets_counts(self, osai, supervisor):
        """A kill between two writes leaves an older one."""
        dataset = osai.dataset()

        async def main(**options) -> list[dict]:
            async with triggerer() as airflow:
                events = airflow.watch(watcher(dataset), "a", "b")
                await until(lambda: supervisor.reported("a") == supervisor.reported("b") is not None)
                await osai.wait_for_polls()
            return events

        asyncio.run(main())
        older = dict(supervisor.states["b"])
        osai.change(dataset)
        assert len(asyncio.run(main())) == 1
        supervisor.states["b"] = older
        assert asyncio.run(main()) == []
        assert supervisor.states["a"] == supervisor.states["b"]

    def test_without_access_to_the_reported_state_nothing_fires(self, osai, supervisor, logged):
        """Once it can be read again, missed changes fire."""
        dataset = osai.dataset()

        async def main():
            async with triggerer() as airflow:
                airflow.watch(watcher(dataset))
                await until(lambda: supervisor.reported() is not None)
            osai.change(dataset)
            supervisor.is_down = True
            async with triggerer() as airflow:
                events = airflow.watch(watcher(dataset))
                await osai.wait_for_polls(4)
                assert events == []
                supervisor.is_down = False
                await until(lambda: len(events) == 1 and supervisor.reported()["image_count"] == 1)
                supervisor.is_down = True
                osai.change(dataset)
                await until(lambda: len(events) == 2)
                await osai.wait_for_polls(4)
                assert supervisor.reported()["image_count"] == 1
                supervisor.is_down = False
                await until(lambda: supervisor.reported()["image_count"] == 2)
                return events

        assert len(asyncio.run(main())) == 2
        assert logged().count("Loading the last reported state failed") == 1
        assert logged().count("Saving the reported state failed") == 1

    @pytest.mark.parametrize(
        "fault",
        [
            {"kind": "reset"},
            {"kind": "malformed"},
            {"kind": "html"},
            {"kind": "status", "status": 503},
            {"kind": "status", "status": 429, "retry_after": "1"},
            {"kind": "status", "status": 403},
        ],
        ids=lambda fault: str(fault.get("status", fault["kind"])),
    )
    def test_an_outage_fires_nothing_and_is_logged_once(self, osai, supervisor, fault, logged):
        """Missed changes fire after the outage."""
        dataset = osai.dataset()

        async def main():
            async with triggerer() as airflow:
                events = airflow.watch(watcher(dataset))
                await until(lambda: supervisor.reported() is not None)
                osai.control.fault(**fault, endpoint="dataset.*", times=3)
                osai.change(dataset)
                await osai.wait_for_polls(2)
                assert events == []
                await until(lambda: events != [])
                await osai.wait_for_polls(2)
                return events

        assert len(asyncio.run(main())) == 1
        assert logged().count("Polling datasets of connection osai_default failed") == 1
        assert logged().count("Polling datasets of connection osai_default recovered") == 1

    def test_a_rejected_token_and_a_missing_connection_fire_nothing(self, osai, supervisor, connection, logged):
        dataset = osai.dataset()

        async def main():
            async with triggerer() as airflow:
                missing = airflow.watch(watcher(dataset, osai_conn_id="none_such"), "b")
                events = airflow.watch(watcher(dataset))
                await until(lambda: supervisor.reported() is not None)
                osai.sandbox.state.accounts.rotate("canary-of-the-new-token")
                osai.sandbox.state.accounts.expire_all()
                osai.change(dataset)
                await osai.wait_for_polls(2, "auth.sign_in")
                assert events == missing == []
                osai.sandbox.state.accounts.rotate(CANARY)
                await until(lambda: len(events) == 1)
                assert missing == []

        asyncio.run(main())
        assert logged().count("Polling datasets of connection osai_default failed") == 1
        assert logged().count("Polling datasets of connection none_such failed") == 1

    def test_a_locked_dataset_fires_nothing_until_the_upload_has_ended(self, osai, supervisor):
        """All images of the upload are one change."""
        dataset = osai.dataset()

        async def main():
            async with triggerer() as airflow:
                events = airflow.watch(watcher(dataset))
                await until(lambda: supervisor.reported() is not None)
                upload = osai.start_upload(dataset)
                osai.datasets.add_image(dataset, upload, io.BytesIO(png()))
                await osai.wait_for_polls(3)
                assert events == []
                osai.datasets.finish_upload(dataset, upload)
                await until(lambda: events != [])
                await osai.wait_for_polls(2)
                return events

        assert [event["image_count"] for event in asyncio.run(main())] == [2]

    def test_an_unknown_dataset_fires_nothing_and_is_logged_once(self, osai, supervisor, logged):
        """It may be created later, or its id is wrong. Other triggers are not affected."""
        dataset = osai.dataset()

        async def main():
            async with triggerer() as airflow:
                missing = airflow.watch(watcher("none-such"), "b")
                events = airflow.watch(watcher(dataset))
                await until(lambda: supervisor.reported() is not None)
                osai.change(dataset)
                await until(lambda: events != [])
                await osai.wait_for_polls(3)
                assert (len(events), missing) == (1, [])

        asyncio.run(main())
        assert logged().count("dataset 'none-such' was not found") == 1

    def test_new_models_fire_once_in_order_and_by_name(self, osai, supervisor):
        """Also after a restart."""
        osai.train("old")

        async def main(*ids: str) -> tuple[list[str], list[str]]:
            async with triggerer() as airflow:
                all_models = airflow.watch(OsaiModelTrainedTrigger(poll_interval=POLL_INTERVAL), "a")
                named = airflow.watch(OsaiModelTrainedTrigger("m", poll_interval=POLL_INTERVAL), "b")
                await until(lambda: supervisor.reported("a") and supervisor.reported("b"))
                for model_id in ids:
                    osai.train(model_id, "m" if model_id.startswith("m") else "other")
                await until(lambda: set(ids) <= set(supervisor.reported("a")["model_ids"]))
                await osai.wait_for_polls(2, "model.list")
            return [event["model_id"] for event in all_models], [event["model_id"] for event in named]

        assert asyncio.run(main("m1", "x1", "m2")) == (["m1", "x1", "m2"], ["m1", "m2"])
        assert asyncio.run(main("m3")) == (["m3"], ["m3"])
        assert asyncio.run(main()) == ([], [])

    def test_a_stopped_trigger_does_not_affect_others(self, osai, supervisor):
        """Its Dag may have been deleted."""
        dataset = osai.dataset()

        async def main():
            async with triggerer() as airflow:
                airflow.watch(watcher(dataset), "a")
                events = airflow.watch(watcher(dataset), "b")
                await until(lambda: supervisor.reported("a") and supervisor.reported("b"))
                airflow.tasks[0].cancel()
                with suppress(asyncio.CancelledError):
                    await airflow.tasks[0]
                osai.change(dataset)
                await until(lambda: (supervisor.reported("b") or {}).get("image_count") == 1)
                return events

        assert len(asyncio.run(main())) == 1
        assert supervisor.reported("a")["image_count"] == 0
        assert asset_polling._required_ids == {}


@pytest.mark.parametrize("endpoint", [None, {"path": "/Datasets/{name}"}])
def test_without_a_list_of_datasets_each_is_fetched_by_its_id(osai, connection, endpoint):
    """The contract may have no such endpoint, or one that needs a name."""
    connection(contract={"dataset.find": endpoint})
    dataset = osai.dataset()

    async def main():
        events = run_alone(watcher(dataset))
        first = asyncio.ensure_future(anext(events))
        await osai.wait_for_polls(2, "dataset.get")
        osai.change(dataset)
        event = (await first).payload
        await events.aclose()
        return event

    assert asyncio.run(main())["image_count"] == 1
    assert osai.count("dataset.find") == 0


def run_alone(trigger: BaseEventTrigger):
    """Run a trigger as Airflow before 3.3 does: without shared polls and without an asset state store."""
    trigger = type(trigger)(**json.loads(json.dumps(trigger.serialize()[1])))
    return trigger.run()


def test_before_3_3_each_start_sets_a_new_baseline(osai):
    """Changes while no triggerer ran do not fire."""
    dataset = osai.dataset()

    async def main(changes: int) -> list[int]:
        events = []

        async def watch():
            async for event in run_alone(watcher(dataset)):
                events.append(event.payload["image_count"])  # noqa: PERF401 - the loop never ends

        watching = asyncio.create_task(watch())
        await osai.wait_for_polls()
        for number in range(1, changes + 1):
            osai.change(dataset)
            await until(lambda number=number: len(events) == number)
        await osai.wait_for_polls()
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
        return events

    assert asyncio.run(main(2)) == [1, 2]
    osai.change(dataset)
    assert asyncio.run(main(1)) == [4]


@pytest.mark.parametrize(
    ("trigger", "arguments"),
    [
        (OsaiDatasetChangedTrigger("7", poll_interval=5), {"dataset_id": "7", "poll_interval": 5}),
        (OsaiModelTrainedTrigger("m"), {"model_name": "m", "poll_interval": 60.0}),
        (OsaiModelTrainedTrigger(), {"model_name": None, "poll_interval": 60.0}),
    ],
)
def test_the_arguments_are_stable_and_newer_ones_ignored(trigger, arguments):
    """Airflow identifies a watcher by them: different ones at each parsing would be a new watcher each time."""
    path, written = trigger.serialize()
    assert written == {"osai_conn_id": "osai_default", "version": 1, **arguments}
    recreated = type(trigger)(**json.loads(json.dumps(written)), from_a_newer_version={"x": 1})
    assert BaseEventTrigger.hash(path, written) == BaseEventTrigger.hash(*recreated.serialize())
    assert type(trigger).supports_triggerer_queue


@pytest.mark.parametrize("interval", ["soon", None, float("nan"), -1, 1e30])
def test_any_poll_interval_is_clamped(interval):
    """A trigger that raises would be restarted every second."""
    assert 0.1 <= watcher("7", poll_interval=interval)._target().interval <= 86_400
