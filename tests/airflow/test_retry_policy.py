"""The retry policy, evaluated by Airflow's own task runner: which errors are retried, when, and with which job."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from airflow.models.taskinstancehistory import TaskInstanceHistory
from airflow.utils.session import create_session
from sqlalchemy import select

from airflow_provider_osai.api import errors
from airflow_provider_osai.jobs import lifecycle
from airflow_provider_osai.operators.retry_policy import HAS_RETRY_POLICIES, OsaiRetryPolicy, osai_retry_policy

WITH_POLICY = pytest.mark.skipif(not HAS_RETRY_POLICIES, reason="retry policies need Airflow 3.3")
MODES = ["blocking", "deferrable"]
DOWN = {"status": 503, "times": 10**6}


@pytest.fixture(autouse=True)
def hurried(monkeypatch):
    monkeypatch.setattr(lifecycle, "MAX_RETRY_DELAY", 0.05)


@pytest.fixture
def jobs(sandbox):
    """The states of the jobs that the sandbox has."""
    return lambda: [job["state"] for job in sandbox.control.record()["jobs"]]


def tries(ran, task_id="train"):
    """The delay and the reason that the policy gave each try that was retried."""
    with create_session() as session:
        row = TaskInstanceHistory
        query = select(row.retry_delay_override, row.retry_reason).where(
            row.dag_id == ran.run.dag_id, row.run_id == ran.run.run_id, row.task_id == task_id
        )
        return [tuple(each) for each in session.execute(query.order_by(row.try_number))]


@pytest.mark.parametrize("mode", MODES)
def test_a_job_that_failed_by_its_data_is_not_submitted_again(run_dag, connection, sandbox, jobs, mode):
    """On every Airflow; the dataset has no images, so the training really fails."""
    ran = run_dag(f"retries_{mode}")
    assert ran.tasks == {"data": "success", "train": "failed"}
    assert jobs() == ["failed"]


@pytest.mark.parametrize("mode", MODES)
def test_a_job_that_failed_for_another_reason_is_submitted_again_after_the_tasks_delay(
    run_dag, connection, sandbox, jobs, mode
):
    sandbox.control.script("training", "immediate", end="failed", message="out of memory")
    assert run_dag(f"retries_{mode}").tasks["train"] == "failed"
    assert jobs() == ["failed", "failed"]


@WITH_POLICY
@pytest.mark.parametrize("mode", MODES)
def test_a_job_that_was_cancelled_is_not_submitted_again(run_dag, connection, sandbox, jobs, mode):
    """Somebody wanted it to end; without the policy a retry submits a new one."""
    sandbox.control.script("training", "reads", reads=2, end="cancelled")
    assert run_dag(f"retries_{mode}").tasks["train"] == "failed"
    assert jobs() == ["cancelled"]


@WITH_POLICY
def test_a_task_without_room_is_retried_later_and_submits_its_only_job_then(run_dag, connection, sandbox, jobs):
    """With the policy's delay, and its reason on the task instance."""
    sandbox.control.script("training", "immediate")
    sandbox.control.fault("status", "training.submit", status=429, times=10**6)
    ran = run_dag("retries_blocking")
    assert ran.state == "success"
    assert jobs() == ["succeeded"]
    assert tries(ran) == [(0.2, "OsaiBusy: OSAI has no room (busy)")]


@WITH_POLICY
def test_a_task_that_lost_its_job_is_retried_soon_and_reconnects(run_dag, connection, sandbox, jobs):
    sandbox.control.script("training", "seconds", seconds=1)
    sandbox.control.fault("status", "training.get", **DOWN)
    ran = run_dag("retries_blocking")
    assert ran.state == "success"
    assert jobs() == ["succeeded"]
    assert tries(ran) == [(0.1, "OsaiJobLost: the job may still run; the retry reconnects to it")]


@WITH_POLICY
def test_each_mapped_task_is_decided_on_its_own(run_dag, connection, sandbox, jobs):
    """``partial()`` takes the policy."""
    sandbox.control.script("training", "reads", reads=2, end="cancelled")
    ran = run_dag("retries_mapped")
    assert (ran.tasks["train[0]"], ran.tasks["train[1]"]) == ("failed", "failed")
    assert jobs() == ["cancelled", "cancelled"]


@WITH_POLICY
def test_a_task_of_ones_own_that_uses_the_hook_does_not_retry_what_is_rejected(run_dag, connection, sandbox):
    """Its OsaiRequestError is not an AirflowFailException, so Airflow alone would retry it."""
    ran = run_dag("retries_taskflow")
    assert ran.tasks == {"read": "failed"}
    assert sandbox.control.record()["counts"]["dataset.get"] == 1


def error(name, **fields):
    cls = getattr(errors, name)
    if issubclass(cls, errors.OsaiJobError):
        return cls("no", kind="training", job_id="7")
    return cls(404, "GET", "/x", "no") if cls is errors.OsaiRequestError else cls("no", **fields)


DECISIONS = {
    "OsaiArgumentError": "fail",
    "OsaiAuthError": "fail",
    "OsaiBusy": 900.0,
    "OsaiContractError": "fail",
    "OsaiDownloadFailed": "default",
    "OsaiError": "default",
    "OsaiInvalidData": "fail",
    "OsaiJobCancelled": "fail",
    "OsaiJobError": "default",
    "OsaiJobFailed": "default",
    "OsaiJobLost": 60.0,
    "OsaiJobTimeout": "default",
    "OsaiJobStopped": "default",
    "OsaiQualityCheckFailed": "fail",
    "OsaiRequestError": "fail",
    "OsaiUnreachable": 900.0,
    "OsaiUnsupported": "fail",
}


def decide(exception, **options):
    decision = osai_retry_policy(**options).evaluate(exception, 1, 3)
    return decision.retry_delay.total_seconds() if decision.retry_delay else decision.action.value


@WITH_POLICY
def test_each_error_has_its_decision():
    assert {name: decide(error(name)) for name in errors.__all__} == DECISIONS
    assert decide(KeyError("x")) == "default"


@WITH_POLICY
def test_delays_and_cancelled_jobs_can_be_decided_otherwise_and_retry_after_is_honoured():
    assert decide(error("OsaiJobLost"), lost=timedelta(minutes=3)) == 180.0
    assert decide(error("OsaiBusy", retry_after=40.0), busy=timedelta(seconds=5)) == 40.0
    assert decide(error("OsaiBusy", retry_after=40.0)) == 900.0
    assert decide(error("OsaiJobCancelled"), retry_cancelled=True) == "default"


@pytest.mark.parametrize("options", [{"lost": 60}, {"busy": timedelta(seconds=-1)}, {"busy": None}], ids=str)
def test_an_invalid_delay_is_refused_when_the_dag_is_parsed(options):
    """On every Airflow."""
    with pytest.raises(errors.OsaiArgumentError, match="a timedelta of zero or more is needed"):
        osai_retry_policy(**options)


@WITH_POLICY
def test_the_serialized_dag_has_only_a_flag_of_the_policy(dagbag):
    """So a changed delay makes no new version of the Dag."""
    from airflow.serialization.serialized_objects import DagSerialization

    text = json.dumps(DagSerialization.to_dict(dagbag.dags["retries_blocking"]))
    assert '"has_retry_policy": true' in text
    assert "OsaiRetryPolicy" not in text


@WITH_POLICY
def test_a_policy_survives_its_own_serialization():
    policy = osai_retry_policy(lost=timedelta(seconds=7), retry_cancelled=True)
    again = OsaiRetryPolicy.deserialize(json.loads(json.dumps(policy.serialize())))
    assert again == policy != osai_retry_policy()
    assert (hash(again), repr(again)) == (hash(policy), repr(policy))


@pytest.mark.skipif(HAS_RETRY_POLICIES, reason="this Airflow has retry policies")
def test_without_retry_policies_there_is_none():
    """``default_args`` takes that."""
    assert osai_retry_policy() is None
