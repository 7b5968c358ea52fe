"""Triggers that watch OSAI: once for each change, remembered, nothing on an error, one poll for all."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable
from contextlib import asynccontextmanager, suppress

import pytest
from airflow.triggers.base import BaseEventTrigger

from airflow_provider_osai.compat import SHARES_STREAMS
from airflow_provider_osai.sandbox.records import ModelRecord
from airflow_provider_osai.triggers import looking
from airflow_provider_osai.triggers.events import OsaiDatasetChangedTrigger, OsaiModelTrainedTrigger
from tests.conftest import CANARY
from tests.sandbox.client import png

QUICK = 0.1
shared_only = pytest.mark.skipif(not SHARES_STREAMS, reason="Airflow 3.3 and newer")


@pytest.fixture
def osai(sandbox, connection):
    return Osai(sandbox)


class Osai:
    """The sandbox, and what happens in it."""

    def __init__(self, sandbox):
        self.sandbox, self.datasets, self.control = sandbox, sandbox.state.datasets, sandbox.control

    def dataset(self) -> str:
        return self.datasets.create("defects").id

    def begin(self, dataset_id: str) -> str:
        upload = self.datasets.start_upload(dataset_id)
        self.datasets.add_image(dataset_id, upload, io.BytesIO(png()))
        return upload

    def change(self, dataset_id: str) -> None:
        self.datasets.finish_upload(dataset_id, self.begin(dataset_id))

    def train(self, model_id: str, name: str = "m") -> None:
        self.sandbox.state.add_model(ModelRecord(model_id, name, "classification", {"f1": 0.9}))

    def count(self, endpoint: str) -> int:
        return self.control.record()["counts"].get(endpoint, 0)

    async def looked(self, times: int = 2, endpoint: str = "dataset.find") -> None:
        """Wait until it was looked at so many times more; the first may have begun before."""
        wanted = self.count(endpoint) + times
        await until(lambda: self.count(endpoint) >= wanted)


async def until(true: Callable[[], bool]) -> None:
    for _ in range(600):
        if true():
            return
        await asyncio.sleep(0.05)
    raise AssertionError("did not come true")


class Supervisor:
    """Answers what triggers ask of their supervisor about the state of assets, as Airflow 3.3 does."""

    def __init__(self):
        self.kept: dict[str, dict[str, str]] = {}
        self.broken = False

    async def asend(self, message):
        from airflow.sdk.exceptions import ErrorType
        from airflow.sdk.execution_time import comms

        if self.broken:
            raise RuntimeError("no answer")
        kept = self.kept.setdefault(message.name, {})
        if isinstance(message, comms.SetAssetStateStoreByName):
            kept[message.key] = json.dumps(message.value)
            return comms.OKResponse(ok=True)
        if message.key in kept:
            return comms.AssetStateStoreResult(value=json.loads(kept[message.key]))
        return comms.ErrorResponse(error=ErrorType.ASSET_STORE_NOT_FOUND)

    def remembered(self, asset: str = "a"):
        """What is kept for an asset, if it is anything."""
        return next((json.loads(value)["told"] for value in self.kept.get(asset, {}).values()), None)


@pytest.fixture
def supervisor(monkeypatch):
    from airflow.sdk.execution_time import task_runner

    made = Supervisor()
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", made, raising=False)
    return made


class Triggerer:
    """Airflow's triggerer in small: its own manager of shared streams, and a database that keeps events.

    :param keeps: whether the events get as far as the database.
    """

    def __init__(self, *, keeps: bool = True):
        from airflow.triggers.shared_stream import SharedStreamManager

        self.manager, self.keeps = SharedStreamManager(), keeps
        self.told: dict[int, list[dict]] = {}
        self.tasks: list[asyncio.Task] = []

    def watch(self, trigger: BaseEventTrigger, *assets: str) -> list[dict]:
        """Run a trigger for assets; the events that it fires."""
        from airflow.sdk import Asset
        from airflow.sdk.execution_time.context import AssetStateStoreAccessors

        trigger = type(trigger)(**json.loads(json.dumps(trigger.serialize()[1])))
        names = assets or ("a",)
        trigger.asset_state_store = AssetStateStoreAccessors(inlets=[Asset(name) for name in names])
        number = len(self.tasks)
        told = self.told[number] = []
        self.tasks.append(asyncio.create_task(self._run(number, trigger, told)))
        return told

    async def _run(self, number: int, trigger, told: list[dict]) -> None:
        key = trigger.shared_stream_key()
        stream = self.manager.subscribe(trigger_id=number, trigger=trigger, key=key)
        try:
            async for event in trigger.filter_shared_stream(stream):
                seq = self.manager.bind_pending_event(trigger_id=number, key=key)
                assert CANARY not in json.dumps(event.payload, allow_nan=False)
                told.append(event.payload)
                if self.keeps:
                    asyncio.get_running_loop().call_later(0.01, self.manager.confirm_persisted, [seq])
        finally:
            await self.manager.unsubscribe(number, key)

    async def stop(self) -> None:
        for task in self.tasks:
            task.cancel()
        for result in await asyncio.gather(*self.tasks, return_exceptions=True):
            assert isinstance(result, asyncio.CancelledError), result  # it neither ended nor failed before


@asynccontextmanager
async def triggerer(**options):
    running = Triggerer(**options)
    try:
        yield running
    finally:
        await running.stop()


def watcher(dataset_id: str, **options) -> OsaiDatasetChangedTrigger:
    return OsaiDatasetChangedTrigger(dataset_id, **{"poll_interval": QUICK} | options)


@shared_only
class TestShared:
    """As Airflow 3.3 runs them."""

    def test_each_change_fires_once_and_the_first_look_does_not(self, osai, supervisor):
        """What there is before is the measure."""
        dataset = osai.dataset()

        async def main():
            async with triggerer() as airflow:
                told = airflow.watch(watcher(dataset))
                await until(lambda: supervisor.remembered() is not None)
                for count in (1, 2, 3):
                    osai.change(dataset)
                    await until(lambda count=count: (supervisor.remembered() or {}).get("image_count") == count)
                    await osai.looked()
                return told

        told = asyncio.run(main())
        assert [event["image_count"] for event in told] == [1, 2, 3]
        assert [event["previous"]["image_count"] for event in told] == [0, 1, 2]
        assert [event["updated_at"] for event in told[:-1]] == [event["previous"]["updated_at"] for event in told[1:]]
        assert (told[0]["kind"], told[0]["dataset_id"], told[0]["name"]) == ("dataset_changed", dataset, "defects")

    def test_a_restarted_triggerer_tells_what_happened_meanwhile_and_nothing_twice(self, osai, supervisor):
        """It remembers."""
        dataset = osai.dataset()

        async def main(count: int) -> list[dict]:
            async with triggerer() as airflow:
                told = airflow.watch(watcher(dataset))
                await until(lambda: (supervisor.remembered() or {}).get("image_count") == count)
                await osai.looked()
            return told

        assert asyncio.run(main(0)) == []
        assert asyncio.run(main(0)) == []
        osai.change(dataset)
        assert [event["image_count"] for event in asyncio.run(main(1))] == [1]
        assert asyncio.run(main(1)) == []

    def test_an_event_that_airflow_did_not_keep_is_told_again(self, osai, supervisor):
        """A kill before the event is in the database loses nothing: what is told is remembered after that."""
        dataset = osai.dataset()

        async def main(**options) -> list[dict]:
            async with triggerer(**options) as airflow:
                told = airflow.watch(watcher(dataset))
                await until(lambda: supervisor.remembered() is not None)
                osai.change(dataset)
                await until(lambda: len(told) == 1)
                await osai.looked(4)
            return told

        assert len(asyncio.run(main(keeps=False))) == 1
        assert supervisor.remembered()["image_count"] == 0
        assert [event["previous"]["image_count"] for event in asyncio.run(main())] == [0]
        assert supervisor.remembered()["image_count"] == 2

    def test_an_event_that_was_kept_and_not_remembered_is_told_once_more(self, osai, supervisor):
        """The one way to hear of a change twice: a kill in the second between the two."""
        dataset = osai.dataset()

        async def main(*, killed: bool) -> list[dict]:
            async with triggerer() as airflow:
                told = airflow.watch(watcher(dataset))
                await until(lambda: supervisor.remembered() is not None)
                if killed:
                    supervisor.broken = True
                    osai.change(dataset)
                    await until(lambda: len(told) == 1)
                await osai.looked(4)
            supervisor.broken = False
            return told

        assert [len(asyncio.run(main(killed=killed))) for killed in (True, False, False)] == [1, 1, 0]

    def test_many_triggers_of_a_connection_share_one_poll(self, osai, supervisor):
        """Datasets or models: one request each, not one for each trigger; and each gets its own changes."""
        first, second = osai.dataset(), osai.dataset()

        async def main():
            async with triggerer() as airflow:
                told = [airflow.watch(watcher(one), name) for name, one in (("a", first), ("b", second), ("c", second))]
                await until(lambda: all(supervisor.remembered(name) for name in "abc"))
                assert len({trigger.shared_stream_key() for trigger in (watcher(first), watcher(second))}) == 1
                before = osai.control.record()["counts"]
                osai.change(second)
                await until(lambda: [len(events) for events in told] == [0, 1, 1])
                await osai.looked(5)
                after = osai.control.record()["counts"]
                return before, after

        before, after = asyncio.run(main())
        assert after["dataset.find"] - before["dataset.find"] < 3 * 5
        assert after["auth.sign_in"] == 1
        assert "dataset.get" not in after

    def test_what_is_polled_apart_has_another_key(self):
        """Another connection, another thing, another interval."""
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
        """Airflow's own access to the state fails then; one that was added later joins what is remembered."""
        dataset = osai.dataset()

        async def main(*assets: str) -> list[dict]:
            async with triggerer() as airflow:
                told = airflow.watch(watcher(dataset), *assets)
                await until(lambda: all(supervisor.remembered(name) for name in assets))
                await osai.looked()
            return told

        assert asyncio.run(main("a")) == []
        osai.change(dataset)
        assert len(asyncio.run(main("a", "b"))) == 1
        assert supervisor.kept["a"] == supervisor.kept["b"]
        assert asyncio.run(main("b")) == []

    def test_the_latest_of_what_assets_remember_counts(self, osai, supervisor):
        """A kill between two writings leaves an older one."""
        dataset = osai.dataset()

        async def main(**options) -> list[dict]:
            async with triggerer() as airflow:
                told = airflow.watch(watcher(dataset), "a", "b")
                await until(lambda: supervisor.remembered("a") == supervisor.remembered("b") is not None)
                await osai.looked()
            return told

        asyncio.run(main())
        older = dict(supervisor.kept["b"])
        osai.change(dataset)
        assert len(asyncio.run(main())) == 1
        supervisor.kept["b"] = older
        assert asyncio.run(main()) == []
        assert supervisor.kept["a"] == supervisor.kept["b"]

    def test_while_airflow_cannot_say_what_was_told_nothing_is(self, osai, supervisor, logged):
        """It would be a guess; when it can, what happened meanwhile is told."""
        dataset = osai.dataset()

        async def main():
            async with triggerer() as airflow:
                airflow.watch(watcher(dataset))
                await until(lambda: supervisor.remembered() is not None)
            osai.change(dataset)
            supervisor.broken = True
            async with triggerer() as airflow:
                told = airflow.watch(watcher(dataset))
                await osai.looked(4)
                assert told == []
                supervisor.broken = False
                await until(lambda: len(told) == 1 and supervisor.remembered()["image_count"] == 1)
                supervisor.broken = True
                osai.change(dataset)
                await until(lambda: len(told) == 2)
                await osai.looked(4)
                assert supervisor.remembered()["image_count"] == 1
                supervisor.broken = False
                await until(lambda: supervisor.remembered()["image_count"] == 2)
                return told

        assert len(asyncio.run(main())) == 2
        assert logged().count("Cannot recall what was told") == 1
        assert logged().count("Cannot remember what was told") == 1

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
    def test_an_outage_fires_nothing_ends_nothing_and_is_logged_once(self, osai, supervisor, fault, logged):
        """What changed meanwhile is told when it is over."""
        dataset = osai.dataset()

        async def main():
            async with triggerer() as airflow:
                told = airflow.watch(watcher(dataset))
                await until(lambda: supervisor.remembered() is not None)
                osai.control.fault(**fault, endpoint="dataset.*", times=3)
                osai.change(dataset)
                await osai.looked(2)
                assert told == []
                await until(lambda: told != [])
                await osai.looked(2)
                return told

        assert len(asyncio.run(main())) == 1
        assert logged().count("Cannot look at the datasets of osai_default") == 1
        assert logged().count("can be looked at again") == 1

    def test_a_refused_token_and_a_connection_that_is_missing_fire_nothing(self, osai, supervisor, connection, logged):
        """Until somebody mends them."""
        dataset = osai.dataset()

        async def main():
            async with triggerer() as airflow:
                lost = airflow.watch(watcher(dataset, osai_conn_id="none_such"), "b")
                told = airflow.watch(watcher(dataset))
                await until(lambda: supervisor.remembered() is not None)
                osai.sandbox.state.accounts.rotate("canary-of-the-new-token")
                osai.sandbox.state.accounts.expire_all()
                osai.change(dataset)
                await osai.looked(2, "auth.sign_in")
                assert told == lost == []
                osai.sandbox.state.accounts.rotate(CANARY)
                await until(lambda: len(told) == 1)
                assert lost == []

        asyncio.run(main())
        assert logged().count("of osai_default, and tell nothing") == 1
        assert logged().count("of none_such, and tell nothing") == 1

    def test_a_locked_dataset_tells_nothing_until_the_upload_is_over(self, osai, supervisor):
        """Then its images are one change."""
        dataset = osai.dataset()

        async def main():
            async with triggerer() as airflow:
                told = airflow.watch(watcher(dataset))
                await until(lambda: supervisor.remembered() is not None)
                upload = osai.begin(dataset)
                osai.datasets.add_image(dataset, upload, io.BytesIO(png()))
                await osai.looked(3)
                assert told == []
                osai.datasets.finish_upload(dataset, upload)
                await until(lambda: told != [])
                await osai.looked(2)
                return told

        assert [event["image_count"] for event in asyncio.run(main())] == [2]

    def test_an_unknown_dataset_fires_nothing_and_hurts_nobody(self, osai, supervisor, logged):
        """It may come to be, or the id is wrong: said once."""
        dataset = osai.dataset()

        async def main():
            async with triggerer() as airflow:
                lost = airflow.watch(watcher("none-such"), "b")
                told = airflow.watch(watcher(dataset))
                await until(lambda: supervisor.remembered() is not None)
                osai.change(dataset)
                await until(lambda: told != [])
                await osai.looked(3)
                assert (len(told), lost) == (1, [])

        asyncio.run(main())
        assert logged().count("dataset 'none-such' is not there") == 1

    def test_new_models_are_told_in_order_and_by_name(self, osai, supervisor):
        """Once each, also after a restart."""
        osai.train("old")

        async def main(*ids: str) -> tuple[list[str], list[str]]:
            async with triggerer() as airflow:
                every = airflow.watch(OsaiModelTrainedTrigger(poll_interval=QUICK), "a")
                named = airflow.watch(OsaiModelTrainedTrigger("m", poll_interval=QUICK), "b")
                await until(lambda: supervisor.remembered("a") and supervisor.remembered("b"))
                for model_id in ids:
                    osai.train(model_id, "m" if model_id.startswith("m") else "other")
                await until(lambda: set(ids) <= set(supervisor.remembered("a")["model_ids"]))
                await osai.looked(2, "model.list")
            return [event["model_id"] for event in every], [event["model_id"] for event in named]

        assert asyncio.run(main("m1", "x1", "m2")) == (["m1", "x1", "m2"], ["m1", "m2"])
        assert asyncio.run(main("m3")) == (["m3"], ["m3"])
        assert asyncio.run(main()) == ([], [])

    def test_a_trigger_that_leaves_leaves_the_others_watching(self, osai, supervisor):
        """A Dag is deleted."""
        dataset = osai.dataset()

        async def main():
            async with triggerer() as airflow:
                airflow.watch(watcher(dataset), "a")
                told = airflow.watch(watcher(dataset), "b")
                await until(lambda: supervisor.remembered("a") and supervisor.remembered("b"))
                airflow.tasks[0].cancel()
                with suppress(asyncio.CancelledError):
                    await airflow.tasks[0]
                osai.change(dataset)
                await until(lambda: (supervisor.remembered("b") or {}).get("image_count") == 1)
                return told

        assert len(asyncio.run(main())) == 1
        assert supervisor.remembered("a")["image_count"] == 0
        assert looking._wanted == {}


@pytest.mark.parametrize("bound", [None, {"path": "/Datasets/{name}"}])
def test_without_a_list_of_datasets_each_is_asked_for(osai, connection, bound):
    """Where the contract says that there is none, or that it needs a name."""
    connection(contract={"dataset.find": bound})
    dataset = osai.dataset()

    async def main():
        events = alone(watcher(dataset))
        first = asyncio.ensure_future(anext(events))
        await osai.looked(2, "dataset.get")
        osai.change(dataset)
        event = (await first).payload
        await events.aclose()
        return event

    assert asyncio.run(main())["image_count"] == 1
    assert osai.count("dataset.find") == 0


def alone(trigger: BaseEventTrigger):
    """Run a trigger as an Airflow does that shares no polls and has no memory."""
    trigger = type(trigger)(**json.loads(json.dumps(trigger.serialize()[1])))
    return trigger.run()


def test_an_older_airflow_runs_each_by_itself_and_measures_anew_after_a_start(osai):
    """Nothing is remembered there: what happened while it was down is not told."""
    dataset = osai.dataset()

    async def main(changes: int) -> list[int]:
        told = []

        async def watch():
            async for event in alone(watcher(dataset)):
                told.append(event.payload["image_count"])  # noqa: PERF401 - it never ends

        watching = asyncio.create_task(watch())
        await osai.looked()
        for number in range(1, changes + 1):
            osai.change(dataset)
            await until(lambda number=number: len(told) == number)
        await osai.looked()
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
        return told

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
    """Airflow knows a watcher by them: with others at each parsing it would be a new one each time."""
    path, written = trigger.serialize()
    assert written == {"osai_conn_id": "osai_default", "version": 1, **arguments}
    again = type(trigger)(**json.loads(json.dumps(written)), from_a_newer_version={"x": 1})
    assert BaseEventTrigger.hash(path, written) == BaseEventTrigger.hash(*again.serialize())
    assert type(trigger).supports_triggerer_queue


@pytest.mark.parametrize("interval", ["soon", None, float("nan"), -1, 1e30])
def test_any_interval_can_be_looked_at(interval):
    """A trigger that raises would be started again each second."""
    assert 0.1 <= watcher("7", poll_interval=interval)._subject().interval <= 86_400
