"""Record what version 0.1.0 leaves in Airflow's database. Run by its Python, not with pytest; see test_recorded.py.

``python record_0_1_0.py BASE_URL IMAGES``, with the connection ``osai_default`` in the environment, prints a JSON
object: for each task the trigger, the values in the task state store, the XComs and the result; and the payloads of
trigger events.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from types import SimpleNamespace
from typing import Any

import httpx
from airflow.providers.common.compat.sdk import TaskDeferred
from airflow.sdk import DAG

from airflow_provider_osai.hooks.osai import OsaiHook
from airflow_provider_osai.operators.dataset import OsaiUploadImagesOperator
from airflow_provider_osai.operators.device import OsaiRentDeviceOperator
from airflow_provider_osai.operators.training import OsaiTrainModelOperator
from airflow_provider_osai.triggers.job import OsaiJobTrigger


class Store:
    """Stands in for the task state store."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    def get(self, key: str, default: Any = None) -> Any:
        return self.values.get(key, default)

    def set(self, key: str, value: Any) -> None:
        self.values[key] = json.loads(json.dumps(value))


class TaskInstance:
    """Stands in for Airflow's task instance."""

    dag_id, run_id, map_index = "dag", "run", -1
    try_number, max_tries = 1, 2
    start_date = None

    def __init__(self, task_id: str) -> None:
        self.task_id = task_id
        self.xcoms: dict[str, Any] = {}

    def xcom_push(self, key: str, value: Any) -> None:
        self.xcoms[key] = json.loads(json.dumps(value))

    def xcom_pull(self, task_ids: Any, key: str, map_indexes: Any) -> Any:
        return self.xcoms.get(key)


def record(operator: Any) -> dict[str, Any]:
    """Execute a task until it is deferred or has ended."""
    ti, store = TaskInstance(operator.task_id), Store()
    found: dict[str, Any] = {"trigger": None, "result": None}
    try:
        found["result"] = operator.execute({"ti": ti, "task_state_store": store})
    except TaskDeferred as deferred:
        found["trigger"] = deferred.trigger.serialize()
    return found | {"store": store.values, "xcoms": ti.xcoms}


def event(**arguments: Any) -> Any:
    """Return the payload of a trigger's event."""

    async def run() -> Any:
        trigger = OsaiJobTrigger(**{"since": time.time(), "poll_interval": 0.05, **arguments})
        trigger.task_instance = SimpleNamespace(dag_id="dag", run_id="run", task_id="task", map_index=-1)
        return await anext(one.payload async for one in trigger.run())

    return asyncio.run(run())


def main(base_url: str, images: str) -> None:
    """Record everything."""
    control = httpx.Client(base_url=base_url.removesuffix("/api") + "/sandbox", timeout=30)

    def script(kind: str, timing: str, **details: Any) -> None:
        control.post("/scripts", json={"kind": kind, "timing": timing, **details}).raise_for_status()

    with OsaiHook().get_conn() as client:
        dataset = client.send(client.calls.create_dataset("d")).id
    with DAG("dag", schedule=None):
        train = OsaiTrainModelOperator(task_id="train", dataset_ids=[dataset], model_name="m", deferrable=True)
        rent = OsaiRentDeviceOperator(task_id="rent", device="jetson", duration=3600, deferrable=True)
        upload = OsaiUploadImagesOperator(task_id="upload", dataset_id=dataset, source=images)
    script("training", "seconds", seconds=10**6)
    control.post("/devices", params={"count": 0})
    tasks = {"train": record(train), "rent": record(rent), "upload": record(upload)}
    running = {"kind": "training", "job_id": tasks["train"]["xcoms"]["job_id"]}
    events = {"deadline": event(**running, deadline=time.time() - 1)}
    for end in ("succeeded", "failed", "cancelled"):
        script("training", "immediate", end=end)
        with DAG("dag", schedule=None):
            ended = OsaiTrainModelOperator(
                task_id=end, dataset_ids=[dataset], model_name="m", wait_for_completion=False
            )
        events[end] = event(kind="training", job_id=record(ended)["xcoms"]["job_id"])
    events["lost"] = event(kind="training", job_id="missing", since=time.time() - 60)
    events["error"] = event(kind="of no kind", job_id="1")
    sys.stdout.write(json.dumps({"tasks": tasks, "events": events}, indent=1) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
