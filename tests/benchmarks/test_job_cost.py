"""The harness of the cost of a job: what it counts, and that no CPU time is lost when a process ends."""

from __future__ import annotations

import os
import ssl
import sys
from types import SimpleNamespace

import httpx
import psutil
import pytest

from airflow_provider_osai.api.client import OsaiClient
from airflow_provider_osai.api.models import JobState
from airflow_provider_osai.api.requests import TrainingRequest
from airflow_provider_osai.api.settings import OsaiSettings
from airflow_provider_osai.demo.process_group import ProcessGroup
from benchmarks.job_cost import (
    COMPONENTS,
    SIDES,
    Check,
    Cost,
    CpuTimes,
    count_calls,
    jobs_of,
    main,
    net,
    summary,
    table,
    write_dags,
)
from benchmarks.peer_process import until
from benchmarks.service import ACCESS_TOKEN, API, Service

TASK = "01900000-0000-7000-8000-00000000000a"
XCOM = "/execution/xcoms/ours/manual__2026-01-01T00:00:00+00:00/train"
BEGIN = "2026-01-01T00:00:00.000000Z [info     ] request finished [http.access] client_addr=127.0.0.1:5 "
LOG = f"""
{BEGIN} method=PATCH path=/execution/task-instances/{TASK}/run query= status_code=200
{BEGIN} method=POST path={XCOM}/job_id query=map_index=3 status_code=201
{BEGIN} method=POST path={XCOM}/a/b query= status_code=201
{BEGIN} method=PUT path=/execution/store/ti/{TASK}/osai_job query= status_code=204
{BEGIN} method=GET path=/api/v2/dags/execution query= status_code=200
2026-01-01T00:00:00Z [info     ] something else method=GET path=/execution/health
"""
CPU = 0.2
"""CPU seconds that the task below uses, by its own clock."""
COMPONENT = f"""
import os, sys, time
part = sys.argv[1]
if part == "launch":
    for part in {COMPONENTS!r}:
        if os.fork() == 0:
            output = os.open(f"{{sys.argv[2]}}/{{part}}.log", os.O_CREAT | os.O_WRONLY)
            os.dup2(output, 1)
            os.execv(sys.executable, [sys.executable, __file__, part, sys.argv[2]])
if part == "scheduler" and os.fork() == 0:  # an executor process, whose task ends
    if os.fork() == 0:
        while time.process_time() < {CPU}:
            pass
        os._exit(0)
    os.wait()
    open(f"{{sys.argv[2]}}/done", "w").close()
time.sleep(300)
"""


def cost(side, worker, calls=None):
    cpu = {"worker": worker, "api-server": 0.25, "scheduler": 0.125, "triggerer": 0.125}
    cpu |= {"database": 10.0, "dag-processor": 10.0, "other": 10.0}
    return Cost(side, cpu, dict.fromkeys(cpu, 0.0), calls or {}, 2.0, 30.0, Check(1.0, 2.0, 2.0))


@pytest.fixture
def airflow(tmp_path):
    """Processes with the family tree of an Airflow whose only task has ended."""
    logs = tmp_path / "parts"
    logs.mkdir()
    script = tmp_path / "component.py"
    script.write_text(COMPONENT)
    command = [sys.executable, str(script), "launch", str(logs)]
    with ProcessGroup(command, tmp_path / "log", os.environ, grace=0) as group:
        until((logs / "done").exists, 60, "the end of the task")
        yield SimpleNamespace(logs=tmp_path, processes=group.processes)


@pytest.fixture
def service():
    with Service(0, seconds=0.0) as service:
        yield service


def test_calls_are_counted_by_route_and_those_of_other_apis_are_not():
    assert count_calls(LOG) == {
        "PATCH task-instances/{id}/run": 1,
        "POST xcoms/{dag}/{run}/{task}/job_id": 1,
        "POST xcoms/{dag}/{run}/{task}/a/b": 1,
        "PUT store/ti/{id}/osai_job": 1,
    }


def test_cpu_per_job_is_without_that_of_the_idle_airflow():
    assert net({"worker": 12.0, "scheduler": 3.0}, {"worker": 0.0, "scheduler": 0.25}, 8.0, jobs=4) == {
        "worker": 3.0,
        "scheduler": 0.25,
    }


def test_last_line_has_medians_of_the_four_components_and_null_for_what_was_not_measured():
    costs = [cost("ours", worker, {"PATCH": 2.0, "PUT": 1.0}) for worker in (0.5, 4.5, 1.5)]
    line = summary([*costs, cost("trivial", 0.5), cost("batch500", 0.0)])
    assert list(line)[:6] == [
        "floor_cpu_s", "ours_cpu_s", "http_cpu_s", "batch500_cpu_s", "ours_api_calls", "batch_ratio",
    ]  # fmt: skip
    assert line == {
        "floor_cpu_s": 1.0,
        "ours_cpu_s": 2.0,
        "http_cpu_s": None,
        "batch500_cpu_s": 0.5,
        "ours_api_calls": 3.0,
        "batch_ratio": 4.0,
        "blocking_cpu_s": None,
        "batch50_cpu_s": None,
    }


def test_batch_without_cost_has_no_ratio():
    assert summary([cost("ours", 0.5), cost("batch500", -0.5)])["batch_ratio"] is None


def test_table_has_a_row_for_each_side_and_the_calls_of_a_deferred_job():
    lines = list(table([cost("ours", 0.5, {"PATCH run": 2.0}), cost("blocking", 1.0), cost("ours", 1.5)]))
    assert [line.split()[0] for line in lines] == ["per", "ours", "blocking", "ours:"]
    assert lines[-1] == "ours: PATCH run: 1 calls per job"
    assert len({len(line) for line in lines[:3]}) == 1


def test_number_in_the_name_of_a_side_is_that_of_its_jobs():
    assert [jobs_of(side, 7) for side in SIDES] == [7, 7, 7, 7, 50, 500]


def test_each_side_has_a_dag_file_of_its_own_and_another_for_the_run_before(tmp_path):
    write_dags(tmp_path, list(SIDES), 7)
    sources = {path.stem: path.read_text() for path in tmp_path.glob("*.py")}
    assert set(sources) == {*SIDES, *(f"{side}_before" for side in SIDES)}
    for dag, source in sources.items():
        compile(source, dag, "exec")
        assert f'DAG("{dag}"' in source
    assert "range(500)" in sources["batch500"]
    assert "deferrable=False" in sources["blocking"]
    assert "deferrable=True" in sources["ours"]


def test_unknown_side_is_rejected_before_anything_starts(capfd):
    with pytest.raises(SystemExit):
        main(["--sides", "ours,theirs"])
    assert "unknown theirs" in capfd.readouterr().err


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_cpu_of_a_task_that_has_ended_is_that_of_the_worker(airflow):
    times = CpuTimes(airflow, psutil.Process().pid)
    found = times.read()
    assert found["worker"] >= CPU - 1 / os.sysconf("SC_CLK_TCK")
    assert found["scheduler"] < CPU
    assert set(found) == {*COMPONENTS, "worker", "database", "other"}
    assert times.is_quiet()


def test_submitted_training_runs_until_after_its_first_poll(service, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(service.authority))
    settings = OsaiSettings.from_connection(ACCESS_TOKEN, {"base_url": service.url + API})
    with OsaiClient(settings) as client:
        request = TrainingRequest(dataset_ids="digits", model_name="m")
        jobs = [client.submit_job(request, key, None) for key in ("first", "second")]
        assert [job.reference for job in jobs] == ["first", "second"]
        assert {job.state for job in jobs} == {JobState.RUNNING}
        call = client.calls.get_job(jobs[0].kind, jobs[0].id)
        assert client.send(call).state is JobState.RUNNING
        until(lambda: client.send(call).state is JobState.SUCCEEDED, 60, "the end of the job")
    assert service.counts()["submitted"] == len({job.id for job in jobs}) == 2


def test_generic_resource_of_a_submitted_job_is_missing_until_the_job_ends(service):
    context = ssl.create_default_context(cafile=str(service.authority))
    with httpx.Client(base_url=service.url, verify=context, trust_env=False) as client:
        path = f"/generic/{client.post('/generic', json={}).text}"
        assert client.get(path).status_code == httpx.codes.NOT_FOUND
        until(lambda: client.get(path).status_code == httpx.codes.OK, 60, "the end of the job")
