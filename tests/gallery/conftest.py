"""Stories against the servers of the gallery: the real operators, hook and triggers, by a contract document."""

from __future__ import annotations

import asyncio
import importlib
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred
from PIL import Image

from airflow_provider_osai.hooks.osai import OsaiHook
from airflow_provider_osai.jobs import submission
from airflow_provider_osai.triggers import job as job_trigger
from tests.airflow.conftest import FakeStateStore, FakeTaskInstance
from tests.gallery.servers import create_app
from tests.gallery.world import Job, World
from tests.threaded_server import served

DOCUMENTS = Path(__file__).parent / "documents"
KINDS = frozenset({"train", "retrain", "predict", "manipulate", "convert", "rent"})


@dataclass(frozen=True)
class Style:
    """What a style lacks or has besides what all have.

    :param has_sign_in: whether the access token is exchanged for another one.
    :param lists_jobs: whether jobs can be found by the client's key.
    :param cancels: the kinds of jobs that can be cancelled.
    :param has_reasons: whether a failed job says why it failed.
    :param has_metrics: whether a job has the metrics of its model.
    :param has_epochs: whether a training has a history.
    :param has_original: whether a model can be downloaded as it was trained.
    :param lists_conversions: whether the conversions of a model can be listed.
    :param id_of: returns what the end of an id is on the wire, for a number of the world.
    :param ids_are_of_jobs: whether what a job makes has the id of the job.
    """

    name: str
    has_sign_in: bool = True
    lists_jobs: bool = True
    cancels: frozenset[str] = KINDS
    has_reasons: bool = True
    has_metrics: bool = True
    has_epochs: bool = False
    has_original: bool = True
    lists_conversions: bool = True
    id_of: Callable[[int], str] = str
    ids_are_of_jobs: bool = False


STYLES = (
    Style("accepted_location", id_of="{:012x}".format),
    Style("aspnet_envelope", has_epochs=True),
    Style("graph_objects"),
    Style("multipart_parts"),
    Style("nested_parents", lists_jobs=False),
    Style("no_list_no_cancel", has_sign_in=False, lists_jobs=False, cancels=frozenset({"rent"})),
    Style("paged_cursors", has_epochs=True),
    Style("paged_numbers"),
    Style("plain_statuses"),
    Style("put_patch_verbs", has_epochs=True),
    Style("signed_downloads", has_original=False),
    Style("text_answers", lists_jobs=False, has_reasons=False, has_metrics=False, ids_are_of_jobs=True),
    Style("two_flags", has_epochs=True),
)


class Crash(BaseException):
    """The process of a task ends at once: no handler of the operator for ordinary errors sees it."""


class CrashingTaskInstance(FakeTaskInstance):
    """Crashes as soon as the job is submitted, and its id stored if there is a store."""

    def xcom_push(self, key: str, value: Any) -> None:
        if key == "osai_job":
            raise Crash
        super().xcom_push(key, value)


class CrashingStateStore(FakeStateStore):
    """Crashes before the id of a job is stored, once."""

    has_crashed = False

    def set(self, key: str, value: Any) -> None:
        if value.get("job_id") and not self.has_crashed:
            self.has_crashed = True
            raise Crash
        super().set(key, value)


@dataclass
class Story:
    """One style's server, and how tasks are run against it.

    :param deferrable: whether tasks wait in the triggerer.
    :param deferrals: how often a task was deferred.
    :param before_trigger: called with the job's id before each trigger runs.
    """

    style: Style
    deferrable: bool
    world: World
    folder: Path
    deferrals: int = 0
    before_trigger: Callable[[str], None] = lambda job_id: None

    def context(self, task_id: str, ti: FakeTaskInstance | None = None, **more: Any) -> dict[str, Any]:
        """Return what a task runs in."""
        return {"ti": ti or FakeTaskInstance(task_id=task_id), "task_state_store": FakeStateStore(), **more}

    def job(self, operator: type[Any], context: dict[str, Any] | None = None, **arguments: Any) -> dict[str, Any]:
        """Run a task that waits for a job; return its result."""
        arguments = {"task_id": "task", "deferrable": self.deferrable, "poll_interval": 0.02, **arguments}
        return self.finish(lambda: operator(**arguments), context or self.context(arguments["task_id"]))

    def finish(self, make: Callable[[], Any], context: dict[str, Any]) -> dict[str, Any]:
        """Run a task to its end, with each deferral in a trigger that was stored, and a new operator after it."""
        try:
            return make().execute(context)
        except TaskDeferred as deferred:
            reason = deferred
        while True:
            self.deferrals += 1
            self.before_trigger(reason.trigger.job_id)
            event = run_trigger(reason)
            try:
                return getattr(make(), reason.method_name)(context, event, **(reason.kwargs or {}))
            except TaskDeferred as deferred:
                reason = deferred

    def run(self, operator: type[Any], **arguments: Any) -> Any:
        """Run a task without a job; return its result."""
        return operator(task_id="task", **arguments).execute(self.context("task"))

    def client(self) -> Any:
        """Return the hook's client."""
        return OsaiHook().get_conn()

    def is_id(self, shown: str, number: int) -> bool:
        """Return whether an id on the wire is that of an object of the world."""
        if self.style.ids_are_of_jobs:
            rows = [*self.world.datasets.values(), *self.world.models.values()]
            makers = {row.id: row.job_id for row in rows if row.job_id}
            makers |= {job.result["device"]: job.id for job in self.world.jobs.values() if "device" in job.result}
            number = makers.get(number, number)
        return shown.endswith(self.style.id_of(number))

    def last_job(self) -> Job:
        """Return the world's record of the job that was submitted last."""
        return self.world.jobs[self.world.submits[-1][1]]

    def kinds(self) -> list[str]:
        """Return the kinds of all submitted jobs."""
        return [kind for kind, _ in self.world.submits]


def run_trigger(deferred: TaskDeferred) -> Any:
    """Store the trigger as Airflow does, run it, and return the payload of its event."""
    path, arguments = deferred.trigger.serialize()
    module, _, name = path.rpartition(".")
    trigger = getattr(importlib.import_module(module), name)(**json.loads(json.dumps(arguments)))

    async def first_event() -> Any:
        async for event in trigger.run():
            return event.payload
        raise AssertionError("the trigger ended without an event")

    return asyncio.run(first_event())


def png(number: int) -> bytes:
    """Return an image that differs from those of other numbers."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (40 * number, 10, 200)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def pictures(tmp_path):
    """Six images in the folders of two categories."""
    folder = tmp_path / "pictures"
    for number in range(6):
        path = folder / ("apple", "pear")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(number))
    return folder


@pytest.fixture(params=[False, True], ids=["blocking", "deferrable"])
def deferrable(request):
    return request.param


@pytest.fixture(params=STYLES, ids=lambda style: style.name)
def story(request, deferrable, tmp_path, monkeypatch):
    """A server of each style, and a connection to it with the style's document; in both modes."""
    monkeypatch.setattr(submission, "VISIBILITY_TIMEOUT", 0.1)
    monkeypatch.setattr(submission, "VISIBILITY_POLL", 0.05)
    monkeypatch.setattr(submission, "HELD_TIMEOUTS", 0.0)
    monkeypatch.setattr(job_trigger, "MIN_HOLD", 0.0)
    style, world = request.param, World()
    with served(create_app(style.name, world)) as address:
        connection = {
            "conn_type": "osai",
            "password": world.access_token if style.has_sign_in else world.api_key,
            "extra": {"base_url": f"{address}/api", "contract": str(DOCUMENTS / f"{style.name}.yaml")},
        }
        monkeypatch.setenv("AIRFLOW_CONN_OSAI_DEFAULT", json.dumps(connection))
        monkeypatch.setenv("AIRFLOW_VAR_OSAI_DEPLOYMENT_SECRET", "gallery")
        yield Story(style, deferrable, world, tmp_path)
