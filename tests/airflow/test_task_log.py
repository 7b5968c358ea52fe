"""What the logs of tasks show: the progress of a job while it runs, and a summary at its end."""

from __future__ import annotations

import importlib
from datetime import UTC, datetime, timedelta

import pytest

from airflow_provider_osai.api.client import OsaiClient
from airflow_provider_osai.api.errors import OsaiJobTimeout
from airflow_provider_osai.api.requests import TrainingRequest
from airflow_provider_osai.operators.training import OsaiTrainModelOperator
from airflow_provider_osai.sandbox.job_runner import JobRunner
from airflow_provider_osai.sandbox.models import JobFailed
from tests.airflow.conftest import group, messages
from tests.conftest import settings_for
from tests.sandbox.client import Api, shades
from tests.waiting import until

MODES = pytest.mark.parametrize("mode", ["deferrable", "blocking"])


@pytest.fixture
def polled_each_epoch(monkeypatch):
    """A training begins an epoch only after a poll has seen the last one."""
    on_epoch = JobRunner._on_epoch

    def wait_for_poll(self, job, epoch, progress):
        on_epoch(self, job, epoch, progress)
        reads = job.reads
        if epoch:
            until(lambda: job.reads > reads or job.stopped, pause=0.01)

    monkeypatch.setattr(JobRunner, "_on_epoch", wait_for_poll)


@MODES
def test_the_log_of_a_training_shows_its_epochs_and_a_summary(
    run_dag, connection, images, polled_each_epoch, logged, mode
):
    assert run_dag(f"journey_{mode}", images=str(images), epochs=12).state == "success"
    lines = messages(logged())
    summary, others = group(lines, "Summary of OSAI training job")
    name = next(line for line in others if line.endswith(" is queued")).removesuffix(" is queued")
    assert [line for line in others if line.startswith(f"{name} is running: waited ")]
    epochs = [line for line in others if line.startswith(f"{name}: epoch ")]
    assert len(epochs) >= 10
    assert all(" of about 12: loss " in line and " progress " in line for line in epochs)
    assert any("ETA " in line for line in epochs)
    assert summary[0].split() == ["epoch", "loss", "val_loss", "accuracy", "val_accuracy"]
    assert [line.split()[0] for line in summary[1:-1]][:: len(summary) - 3] == ["1", "12"]
    assert len(summary) <= 12
    assert summary[-1].startswith("Metrics: accuracy ")
    assert [line for line in others if line.startswith(f"{name} succeeded: accuracy ")]
    assert len([line for line in lines if name in line]) + len(summary) < 60


@MODES
def test_the_log_of_a_training_that_fails_shows_its_epochs_and_what_osai_says(
    run_dag, connection, images, polled_each_epoch, logged, monkeypatch, mode
):
    """Text of OSAI cannot begin a line or hide what follows."""

    def run_out_of_memory(self, job, epoch, progress):
        on_epoch(self, job, epoch, progress)
        if progress > 0.5:
            raise JobFailed("out of memory\n::group::nothing more to see")

    on_epoch = JobRunner._on_epoch
    monkeypatch.setattr(JobRunner, "_on_epoch", run_out_of_memory)
    assert run_dag(f"journey_{mode}", images=str(images), epochs=6).tasks["train"] == "failed"
    lines = messages(logged())
    summary, others = group(lines, "Summary of OSAI training job")
    assert [line.split()[0] for line in summary[1:]] == ["1", "2", "3", "4"]
    failed = " failed. OSAI's message: out of memory : :group::nothing more to see"
    assert [line for line in others if line.endswith(failed)]
    assert not [line for line in lines if "::group::nothing" in line]


def test_the_log_of_a_training_that_reaches_its_time_limit_shows_its_epochs(
    sandbox, connection, context, ti, polled_each_epoch, logged
):
    with Api(sandbox) as api:
        dataset = api.dataset(shades())
    task = OsaiTrainModelOperator(
        task_id="train",
        dataset_ids=[dataset],
        model_name="m",
        parameters={"epochs": 10_000},
        poll_interval=0.05,
        execution_timeout=timedelta(minutes=5),
        deferrable=False,
    )
    importlib.import_module("sklearn.neural_network")  # which takes longer than the time limit leaves
    ti.start_date = datetime.now(UTC) - timedelta(minutes=5, seconds=-8)
    with pytest.raises(OsaiJobTimeout):
        task.execute(context)
    summary, _ = group(messages(logged()), "Summary of OSAI training job")
    assert summary[1].split()[0] == "1"
    assert len(summary) <= 11


@MODES
def test_the_log_of_a_job_that_does_not_train_shows_its_progress_and_no_table(
    run_dag, sandbox, connection, images, logged, mode
):
    sandbox.control.script("training", "reads", reads=9)
    assert run_dag(f"journey_{mode}", images=str(images)).state == "success"
    lines = messages(logged())
    progress = [line for line in lines if ": progress " in line and "ETA " in line]
    assert 3 <= len(progress) <= 10
    assert not [line for line in lines if "Summary of OSAI" in line]
    assert len([line for line in lines if "is simulated" in line]) == 1


@pytest.mark.parametrize("mode", ["poke", "reschedule", "deferrable"])
def test_the_log_of_a_sensor_shows_the_job_in_every_mode(run_dag, sandbox, connection, logged, mode):
    sandbox.control.script("training", "reads", reads=5)
    with OsaiClient(settings_for(sandbox.base_url)) as client:
        dataset = client.send(client.calls.create_dataset("d"))
        job = client.send(client.calls.submit_job(TrainingRequest(dataset_ids=[dataset.id], model_name="m"), "r"))
    assert run_dag(f"sensor_{mode}", job_id=job.id, kind="training").state == "success"
    lines = messages(logged())
    assert [line for line in lines if line.startswith(f"OSAI training job {job.id} is running (simulated): ")]
