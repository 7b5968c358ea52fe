"""OSAI's webhooks in a whole Airflow, behind a base path: they resume tasks, each once, and let nobody else in."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess

import httpx
import pytest
from cryptography.fernet import Fernet

from airflow_provider_osai.api.client import OsaiClient
from airflow_provider_osai.api.models import JobKind
from airflow_provider_osai.api.requests import DeviceRentalRequest
from airflow_provider_osai.demo.airflow_instance import WholeAirflow
from airflow_provider_osai.jobs.idempotency import TaskKey
from airflow_provider_osai.webhooks.address import address
from airflow_provider_osai.webhooks.token import WebhookToken, seal
from tests.conftest import AIRFLOW, CANARY, SECRET, settings_for
from tests.waiting import until

pytestmark = pytest.mark.e2e
DEPLOYMENT_SECRET = "canary-deployment-secret-1"
WEBHOOK_SECRET = "canary-webhook-secret-1"
MANY = 500
DAGS = {
    "one.py": """
from airflow.sdk import DAG
from airflow_provider_osai.operators.training import OsaiTrainModelOperator

with DAG("one", schedule=None, params={"dataset": "none"}):
    OsaiTrainModelOperator(task_id="train", dataset_ids="{{ params.dataset }}", model_name="m", deferrable=True)
""",
    "many.py": f"""
from airflow.sdk import DAG, task

with DAG("many", schedule=None):
    @task(pool="nobody")
    def wait(number):
        return number

    wait.expand(number=list(range({MANY})))
""",
}
DEFER = """
import json, sys
from airflow.models.taskinstance import TaskInstance
from airflow.models.trigger import Trigger
from airflow.utils.session import create_session
from airflow_provider_osai.triggers.job import OsaiJobTrigger
from sqlalchemy import select

run_id, jobs = json.load(sys.stdin)
with create_session() as session:
    for ti in session.scalars(select(TaskInstance).where(TaskInstance.run_id == run_id)).all():
        path, arguments = OsaiJobTrigger("osai_default", "device_rental", jobs[ti.map_index]).serialize()
        arguments |= {"poll_interval": 600.0, "shortest_interval": 600.0, "since": 0.0}
        trigger = Trigger(classpath=path, kwargs=arguments)
        session.add(trigger)
        session.flush()
        ti.state, ti.trigger_id, ti.next_method, ti.next_kwargs = "deferred", trigger.id, "execute_complete", {}
"""
"""Does to the scheduled tasks of a run what a task that defers itself causes."""


@pytest.fixture(scope="module")
def airflow(osai, tmp_path_factory):
    osai.control.script(None, "reads", reads=10**9)
    dags = tmp_path_factory.mktemp("dags")
    for name, text in DAGS.items():
        (dags / name).write_text(text)
    extra = {"base_url": osai.base_url, "webhook_secret": WEBHOOK_SECRET}
    connections = {"osai_default": {"conn_type": "osai", "password": CANARY, "extra": extra}}
    environment = {
        "AIRFLOW_VAR_OSAI_DEPLOYMENT_SECRET": DEPLOYMENT_SECRET,
        "AIRFLOW__CORE__MAX_ACTIVE_TASKS_PER_DAG": "1000",
        "AIRFLOW__TRIGGERER__CAPACITY": "1000",
        "AIRFLOW__CORE__FERNET_KEY": Fernet.generate_key().decode(),  # for the process that writes triggers, too
    }
    home = tmp_path_factory.mktemp("home")
    airflow = WholeAirflow(
        dags, home=home, connections=connections, environment=environment, executable=AIRFLOW, base_path="/team-a"
    )
    extra["webhook_base_url"] = airflow.url
    with airflow:
        airflow.wait_for_dag("one")
        airflow.wait_for_dag("many")
        yield airflow
    texts = [path.read_text(errors="replace") for path in airflow.all_logs()]
    assert not [text for text in texts if SECRET.search(text) or WEBHOOK_SECRET in text]
    assert not [text for text in texts if DEPLOYMENT_SECRET in text]
    assert not [text for text in texts if re.search(r"webhook/[\w-]*\.?b3NhaV9kZWZhdWx0\.", text)]  # of osai_default


def deferred(airflow, osai):
    """Run the Dag whose task waits for a job that does not end by itself; return the run's id and the job."""
    before = {job.id for job in osai.state.jobs.all_jobs()}
    with OsaiClient(settings_for(osai.base_url)) as client:
        dataset = client.send(client.calls.create_dataset("d")).id
    run_id = airflow.trigger("one", {"dataset": dataset})
    until(lambda: airflow.task_instances("one", run_id)[0]["state"], "deferred")
    (job,) = [job for job in osai.state.jobs.all_jobs() if job.id not in before]
    until(lambda: job.reads >= 1, True)  # the trigger has looked at it
    return run_id, job


def server_log(airflow):
    return (airflow.logs / "parts" / "api-server.log").read_text(errors="replace")


def test_a_job_that_ends_resumes_its_task_and_nothing_is_cancelled(airflow, osai):
    """Although Airflow kills the trigger that is no longer needed."""
    run_id, job = deferred(airflow, osai)
    looks = job.reads
    osai.control.end(job.id)
    assert airflow.wait("one", run_id) == "success", airflow.failures("one", run_id)
    assert looks <= 1
    assert f"job {job.id} is succeeded; resumed the task" in server_log(airflow)
    assert osai.control.record()["counts"].get("training.cancel", 0) == 0
    assert airflow.xcom("one", run_id, "train")["job_id"] == job.id


def test_nobody_else_is_let_in(airflow, osai):
    """With a ticket of another secret, or none; below the base path or beside it."""
    run_id, job = deferred(airflow, osai)
    job.webhook_url = None  # OSAI tells nobody
    ticket = WebhookToken("osai_default", TaskKey("one", run_id, "train", -1, 0))
    secrets = (WEBHOOK_SECRET, "canary-of-a-stranger-000")
    good, forged = (seal(ticket.sign([secret]), DEPLOYMENT_SECRET) for secret in secrets)
    unsealed = ticket.sign([WEBHOOK_SECRET])
    assert httpx.post(address(airflow.url, good)).status_code == 202  # it lives
    osai.control.end(job.id)
    paths = [
        address("", forged),
        address("", unsealed),
        "/osai/webhook/",
        "/osai/webhook",
        "/osai/docs",
        "/osai/openapi.json",
    ]
    assert {httpx.post(airflow.url + path).status_code for path in paths} == {404}
    assert httpx.post(address(airflow.url.removesuffix("/team-a"), good)).status_code in (404, 405)
    assert httpx.get(address(airflow.url, good)).status_code == 404
    assert httpx.post(address(airflow.url, good)).status_code in (200, 202)  # an earlier poll may have been faster
    assert airflow.wait("one", run_id) == "success", airflow.failures("one", run_id)


def test_a_flood_of_junk_harms_neither_the_server_nor_a_webhook_that_is_meant(airflow, osai):
    """A thousand at the same time, forged and malformed."""
    run_id, job = deferred(airflow, osai)
    before = dict(osai.control.record()["counts"])
    owner = TaskKey("one", run_id, "train", -1, 0)

    async def flood():
        limits = httpx.Limits(max_connections=1000)
        async with httpx.AsyncClient(limits=limits, timeout=120) as http:

            async def junk(number):
                secret = "canary-of-a-stranger-000"
                ticket = WebhookToken("osai_default" if number % 2 else f"osai_{number}", owner).sign([secret])
                answer = await http.post(address(airflow.url, ticket), content=b"{" * 1000)
                return answer.status_code, answer.content

            answers = asyncio.gather(*(junk(number) for number in range(1000)))
            await asyncio.sleep(0.1)
            await asyncio.to_thread(osai.control.end, job.id)
            return await answers

    assert set(asyncio.run(flood())) == {(404, b"")}
    assert airflow.wait("one", run_id) == "success", airflow.failures("one", run_id)
    after = osai.control.record()["counts"]
    assert after["training.get"] + after.get("training.list", 0) <= 6 + before.get("training.get", 0) + before.get(
        "training.list", 0
    )
    health = httpx.get(f"{airflow.url}/api/v2/monitor/health").json()
    assert {health[part]["status"] for part in ("metadatabase", "scheduler", "triggerer")} == {"healthy"}


def test_five_hundred_jobs_that_end_in_one_second_resume_each_task_once(airflow, osai):
    """The tasks stay scheduled then, since their pool does not exist."""
    run_id = airflow.trigger("many")
    states = lambda: {ti["state"] for ti in tis()}
    tis = lambda: pages(airflow, run_id)
    until(lambda: (len(tis()), states()), (MANY, {"scheduled"}))
    jobs = []
    with OsaiClient(settings_for(osai.base_url)) as client:
        for number in range(MANY):
            ticket = WebhookToken("osai_default", TaskKey("many", run_id, "wait", number, 0)).sign([WEBHOOK_SECRET])
            request = DeviceRentalRequest(device="tpu", duration=60)
            url = address(airflow.url, seal(ticket, DEPLOYMENT_SECRET))
            call = client.calls.submit_job(request, f"many-{number}", url)
            jobs.append(client.send(call).id)
    subprocess.run(
        [AIRFLOW, "-c", DEFER],
        input=json.dumps([run_id, jobs]),
        env={key: value for key, value in os.environ.items() if "AIRFLOW" not in key} | airflow._env(),
        check=True,
        text=True,
    )
    records = {job.id: job for job in osai.state.jobs.all_jobs()}
    until(lambda: sum(records[job].reads > 0 for job in jobs), MANY)  # their triggers run
    for job in jobs:
        osai.control.end(job)
    until(states, {"scheduled"})
    log = server_log(airflow)
    assert {log.count(f"job {job} is succeeded; resumed the task") for job in jobs} == {1}
    assert osai.control.record()["counts"].get(f"{JobKind.DEVICE_RENTAL}.cancel", 0) == 0


def pages(airflow, run_id):
    """All task instances of the run, a hundred at a time."""
    path, found = f"/api/v2/dags/many/dagRuns/{run_id}/taskInstances", []
    while page := airflow._get(path, limit=100, offset=len(found))["task_instances"]:
        found += page
    return found
