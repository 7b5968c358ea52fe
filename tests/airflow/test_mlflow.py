"""Trainings and promotions are written to MLflow's own server, and go on without it."""

from __future__ import annotations

import math
import re
import socket
import sys
from datetime import UTC, datetime, timedelta

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, TaskDeferred

from airflow_provider_osai.api.errors import OsaiArgumentError, OsaiJobCancelled, OsaiJobFailed, OsaiJobTimeout
from airflow_provider_osai.api.models import Epoch, Job, JobKind, JobResult, JobState
from airflow_provider_osai.assets import osai_model
from airflow_provider_osai.hooks.osai import OsaiHook
from airflow_provider_osai.operators.gate import OsaiModelGateOperator
from airflow_provider_osai.operators.training import OsaiTrainModelOperator
from airflow_provider_osai.tracking import mlflow as tracking
from airflow_provider_osai.triggers.event import JobEvent, Outcome
from tests.airflow.conftest import Ran
from tests.conftest import CANARY, ROOT
from tests.dags import parse
from tests.mlflow_server import QUIET, free_port, mlflow_server
from tests.sandbox.client import Api, shades

FOREVER = {"timing": "reads", "reads": 10**6}


@pytest.fixture(scope="session")
def address(tmp_path_factory):
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as running:
        yield running


@pytest.fixture
def uri(monkeypatch):
    """Set MLflow's tracking URI, as a worker's environment does."""
    for name, value in QUIET.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")  # of a server that shares two cores with the tests

    def use(value: str) -> str:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", value)
        return value

    monkeypatch.setattr(tracking, "WRITE_TIMEOUT", 120.0)
    return use


@pytest.fixture
def mlflow(address, uri):
    """MLflow's client, to read what was written."""
    from mlflow import MlflowClient

    return MlflowClient(uri(address))


@pytest.fixture
def experiment(request):
    return f"{request.node.name} {datetime.now(UTC).isoformat()}"


@pytest.fixture
def runs(mlflow, experiment):
    """The runs of an experiment; by default, that of the test."""

    def find(name=experiment):
        found = mlflow.get_experiment_by_name(name)
        return list(mlflow.search_runs([found.experiment_id])) if found else []

    return find


@pytest.fixture
def make(connection, sandbox, experiment):
    """Make a training operator that is tracked, and script what the sandbox does with its job."""
    with OsaiHook().get_conn() as client:
        dataset = client.send(client.calls.create_dataset("digits")).id

    def operator(timing="immediate", **options):
        script = {name: options.pop(name) for name in ("reads", "seconds", "end", "message") if name in options}
        sandbox.control.script("training", timing, **script)
        defaults = {"task_id": "task", "dataset_ids": [dataset], "model_name": "m", "poll_interval": 0.05}
        tracked = {"track_to": "mlflow", "mlflow_experiment": experiment}
        return OsaiTrainModelOperator(**defaults | tracked | options)

    return operator


def warnings(logged):
    return [line for line in logged().splitlines() if "to MLflow failed" in line]


def curve(mlflow, run, name):
    return [(point.step, point.value) for point in mlflow.get_metric_history(run.info.run_id, f"epoch/{name}")]


class TestWholeDags:
    @pytest.mark.parametrize("dag_id", ["tracked_on_a_worker", "tracked_deferred"])
    def test_run_has_parameters_curves_metrics_digest_and_links(
        self, dag_id, run_dag, connection, sandbox, images, mlflow, runs
    ):
        ran = run_dag(dag_id, images=str(images))
        assert ran.state == "success", ran.tasks
        trained = ran.xcom("train")
        (run,) = runs(dag_id)
        assert (run.info.status, run.info.run_id) == ("FINISHED", ran.xcom("train", "mlflow_run_id"))
        assert run.info.run_name == f"{dag_id}.train {ran.run.run_id}"
        expected = {"epochs": "3", "model_name": "tracked", "model_type": "classification"}
        assert run.data.params == expected | {"dataset_ids": ran.xcom("upload")["dataset_id"]}
        assert run.data.metrics["accuracy"] == trained["metrics"]["accuracy"]
        points = curve(mlflow, run, "loss")
        assert points
        assert [step for step, _ in points] == sorted({step for step, _ in points})
        tags = run.data.tags
        assert tags["osai.job_id"] == trained["job_id"]
        assert tags["osai.model_id"] == trained["model_id"]
        assert tags["osai.data_digest"] == trained["data_digest"]
        assert (tags["airflow.dag_id"], tags["airflow.task_id"]) == (dag_id, "train")
        assert tags["airflow.run_id"] == ran.run.run_id
        assert tags["osai.portal_url"] == f"{sandbox.portal_url}/trainings/{trained['job_id']}"
        assert tags["osai.portal_url"] in tags["mlflow.note.content"]
        assert "osai.simulated" not in tags
        (retrained,) = runs(f"experiment of {dag_id}")
        assert retrained.data.params["base_model_id"] == trained["model_id"]
        assert retrained.info.status == "FINISHED"

    def test_promotion_moves_the_alias_to_the_version_of_the_model(self, run_dag, connection, images, mlflow):
        ran = run_dag("tracked_on_a_worker", images=str(images))
        model_id = ran.result("train", "model_id")
        version = mlflow.get_model_version_by_alias("tracked", "champion")
        assert version.tags["osai.model_id"] == model_id
        assert version.run_id == ran.xcom("train", "mlflow_run_id")
        assert version.source == version.tags["osai.model_uri"]
        assert version.source.endswith(f"/models/{model_id}")
        of_model = [each for each in mlflow.search_model_versions() if each.tags.get("osai.model_id") == model_id]
        assert [each.version for each in of_model] == [version.version]

    def test_each_mapped_training_has_its_own_run(self, run_dag, connection, images, runs):
        ran = run_dag("tracked_mapped", images=str(images))
        assert ran.state == "success", ran.tasks
        assert {
            run.data.tags["airflow.map_index"]: run.data.params["model_name"] for run in runs("tracked_mapped")
        } == {
            "0": "a",
            "1": "b",
        }

    @pytest.mark.parametrize("dag_id", ["tracked_on_a_worker", "tracked_deferred"])
    def test_without_a_server_everything_else_succeeds(self, dag_id, run_dag, connection, images, uri, logged):
        uri(f"http://ann:{CANARY}@127.0.0.1:{free_port()}")  # the canary must not be logged
        ran = run_dag(dag_id, images=str(images))
        assert ran.state == "success", ran.tasks
        assert ran.xcom("train", "mlflow_run_id") is None
        assert "Writing OSAI training job" in logged()


class TestPage:
    """docs/mlflow.md."""

    def test_its_dag_trains_and_moves_the_alias(self, connection, sandbox, mlflow, run_dag, tmp_path, monkeypatch):
        monkeypatch.setattr("airflow.settings.DAGS_FOLDER", str(tmp_path))
        monkeypatch.setenv("AIRFLOW__CORE__DAGS_FOLDER", str(tmp_path))
        (source,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "mlflow.md").read_text(), re.DOTALL)
        with Api(sandbox) as api:
            dataset = api.dataset(shades(6))
        (tmp_path / "page.py").write_text(source.replace("4711", dataset))
        ran = Ran(parse(tmp_path).dags["tracked_defects"].test())
        assert ran.state == "success", ran.tasks
        version = mlflow.get_model_version_by_alias("defects", "champion")
        assert version.run_id == ran.xcom("train", "mlflow_run_id")

    def test_it_names_each_tag(self, mlflow, tracked, runs):
        tracked(task=tracking.TrackedTask("d", "r", "t", 0, "http://airflow")).update(job(simulated=True))
        (run,) = runs()
        page = (ROOT / "docs" / "mlflow.md").read_text()
        assert [tag for tag in run.data.tags if not tag.startswith("mlflow.") and f"`{tag}`" not in page] == []


class TestTraining:
    def test_a_retry_continues_the_run_of_its_job(self, make, context, ti, mlflow, runs):
        with pytest.raises(TaskDeferred):
            make(**FOREVER, deferrable=True).execute(context)
        (run,) = runs()
        assert run.info.status == "RUNNING"
        ti.try_number = 2
        with pytest.raises(TaskDeferred):
            make(**FOREVER, deferrable=True).execute(context)
        assert [again.info.run_id for again in runs()] == [run.info.run_id]

    def test_a_retry_after_a_failed_job_has_a_new_run(self, make, context, runs):
        with pytest.raises(OsaiJobFailed):
            make(end="failed").execute(context)
        make().execute(context)
        assert sorted(run.info.status for run in runs()) == ["FAILED", "FINISHED"]
        assert len({run.data.tags["osai.job_id"] for run in runs()}) == 2

    def test_a_cleared_task_ends_the_run_of_the_job_before(self, make, context, ti, runs):
        """No process of the task could, when it was killed while deferred."""
        with pytest.raises(TaskDeferred):
            make(**FOREVER, deferrable=True).execute(context)
        ti.max_tries = 1
        make().execute(context)
        statuses = {run.data.tags["osai.job_id"] == ti.xcoms["osai_job"]["job_id"]: run.info.status for run in runs()}
        assert statuses == {False: "KILLED", True: "FINISHED"}

    def test_a_resumed_task_ends_the_run(self, make, context, ti, sandbox, runs):
        with pytest.raises(TaskDeferred):
            make(**FOREVER, deferrable=True).execute(context)
        sandbox.control.end(ti.xcoms["osai_job"]["job_id"])
        event = JobEvent(kind="training", job_id=ti.xcoms["osai_job"]["job_id"], outcome=Outcome.ENDED).payload()
        make(**FOREVER, deferrable=True).execute_complete(context, event)
        assert [run.info.status for run in runs()] == ["FINISHED"]

    @pytest.mark.parametrize(
        ("end", "error", "status"), [("failed", OsaiJobFailed, "FAILED"), ("cancelled", OsaiJobCancelled, "KILLED")]
    )
    def test_every_bad_end_is_the_status_of_the_run(self, make, context, runs, end, error, status):
        with pytest.raises(error):
            make("reads", reads=2, end=end).execute(context)
        assert [run.info.status for run in runs()] == [status]

    def test_a_run_is_killed_at_the_deadline(self, make, context, ti, runs):
        ti.start_date = datetime.now(UTC) - timedelta(minutes=10)
        with pytest.raises(OsaiJobTimeout):
            make(**FOREVER, execution_timeout=timedelta(minutes=5)).execute(context)
        assert [run.info.status for run in runs()] == ["KILLED"]

    def test_a_run_is_killed_with_its_task(self, make, context, runs):
        operator = make(**FOREVER)
        submitted = operator._on_job

        def kill(*args):
            submitted(*args)
            operator.on_kill()

        operator._on_job = kill
        with pytest.raises(OsaiJobCancelled):
            operator.execute(context)
        assert [run.info.status for run in runs()] == ["KILLED"]

    def test_simulated_job_is_tagged(self, make, context, runs):
        make().execute(context)
        assert [run.data.tags["osai.simulated"] for run in runs()] == ["true"]

    def test_curves_are_written_while_a_worker_waits(self, make, context, mlflow, runs, monkeypatch):
        monkeypatch.setattr(tracking, "CURVE_INTERVAL", 0.0)
        operator = make(**FOREVER)
        seen = []

        def look(job, pause):
            operator._tracked.on_poll(job.model_copy(update={"history": HISTORY}))
            seen.append(runs()[0])
            operator.on_kill()

        monkeypatch.setattr("airflow_provider_osai.operators.job.PollLogger", lambda *args, **options: look)
        with pytest.raises(OsaiJobCancelled):
            operator.execute(context)
        assert curve(mlflow, seen[0], "loss") == [(1, 0.5), (2, 0.25)]
        assert seen[0].info.status == "RUNNING"

    def test_a_metric_that_is_not_a_number_is_written_beside_the_others(self, make, context, sandbox, mlflow, runs):
        operator = make()
        metrics = {"accuracy": 0.5, "loss": "nan", "note": "x"}  # JSON has no NaN
        sandbox.control.script("training", "immediate", metrics=metrics)
        assert operator.execute(context)["metrics"]["loss"] == "nan"
        (run,) = runs()
        assert run.info.status == "FINISHED"
        assert run.data.metrics.pop("accuracy") == 0.5
        assert [name for name, value in run.data.metrics.items() if math.isnan(value)] == ["loss"]

    def test_another_experiment_is_that_of_mlflows_environment(self, make, context, runs, experiment, monkeypatch):
        monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", f"{experiment} of the environment")
        make(mlflow_experiment=None).execute(context)
        assert len(runs(f"{experiment} of the environment")) == 1


class TestConfiguration:
    """What no retry can fix fails before a job is submitted."""

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"track_to": "wandb"}, "track_to = 'wandb': must be 'mlflow' or None"),
            ({"wait_for_completion": False}, "track_to needs wait_for_completion=True"),
        ],
    )
    def test_invalid_argument_fails_the_task(self, make, context, sandbox, uri, options, message):
        uri("http://127.0.0.1:9")
        with pytest.raises(AirflowFailException, match=message):
            make(**options).execute(context)
        assert sandbox.control.record()["jobs"] == []

    def test_missing_package_names_the_extra(self, make, context, sandbox, monkeypatch):
        monkeypatch.setitem(sys.modules, "mlflow", None)
        with pytest.raises(AirflowFailException, match=r'pip install "airflow-provider-osai\[mlflow\]"'):
            make().execute(context)
        assert sandbox.control.record()["jobs"] == []

    def test_missing_tracking_uri_names_the_variable(self, make, context, sandbox, monkeypatch):
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        with pytest.raises(AirflowFailException, match="MLFLOW_TRACKING_URI"):
            make().execute(context)
        assert sandbox.control.record()["jobs"] == []

    def test_a_gate_checks_it_too(self, context):
        gate = OsaiModelGateOperator(task_id="gate", candidate="m", champion=osai_model("a"), track_to="neptune")
        with pytest.raises(OsaiArgumentError, match="track_to = 'neptune'"):
            gate._decide(context)

    @pytest.mark.parametrize("rendered", [None, "", "None"])
    def test_without_tracking_mlflow_is_not_imported(self, make, context, monkeypatch, rendered):
        monkeypatch.setitem(sys.modules, "mlflow", None)
        assert make(track_to=rendered).execute(context)["state"] == "succeeded"


class TestOutages:
    """None fails a training."""

    def test_a_server_that_is_down_is_one_warning(self, make, context, uri, logged):
        uri(f"http://ann:{CANARY}@127.0.0.1:{free_port()}")
        assert make("reads", reads=3).execute(context)["state"] == "succeeded"
        (line,) = warnings(logged)
        assert "the task continues: MlflowException" in line

    def test_a_server_that_hangs_is_left_after_the_time_limit(self, make, context, uri, logged, monkeypatch):
        """Whatever limit of a request the worker's environment has."""
        monkeypatch.setattr(tracking, "WRITE_TIMEOUT", 0.3)
        with socket.create_server(("127.0.0.1", 0)) as silent:
            uri(f"http://127.0.0.1:{silent.getsockname()[1]}")
            assert make("reads", reads=3).execute(context)["state"] == "succeeded"
        (line,) = warnings(logged)
        assert "no result after 0.3 seconds" in line

    def test_a_request_without_a_response_ends_by_mlflows_own_limit(self, make, context, uri, logged, monkeypatch):
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
        with socket.create_server(("127.0.0.1", 0)) as silent:
            uri(f"http://127.0.0.1:{silent.getsockname()[1]}")
            assert make().execute(context)["state"] == "succeeded"
        assert "MlflowException" in warnings(logged)[0]

    def test_a_run_is_complete_after_an_outage_in_between(self, make, context, ti, address, uri, runs, sandbox):
        uri(f"http://127.0.0.1:{free_port()}")
        with pytest.raises(TaskDeferred):
            make(**FOREVER, deferrable=True).execute(context)
        uri(address)
        sandbox.control.end(ti.xcoms["osai_job"]["job_id"])
        event = JobEvent(kind="training", job_id=ti.xcoms["osai_job"]["job_id"], outcome=Outcome.ENDED).payload()
        make(**FOREVER, deferrable=True).execute_complete(context, event)
        (run,) = runs()
        assert (run.info.status, run.data.params["model_name"]) == ("FINISHED", "m")

    @pytest.mark.parametrize("token", [f"{CANARY}\n", f" {CANARY}"], ids=["line feed", "space"])
    def test_a_token_that_is_no_header_is_not_logged(self, make, context, address, uri, monkeypatch, token):
        uri(address)
        monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", token)
        assert make().execute(context)["state"] == "succeeded"

    def test_the_workers_environment_stays_as_it_was(self, make, context, mlflow, monkeypatch):
        import os

        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "5")
        before = dict(os.environ)
        make().execute(context)
        assert dict(os.environ) == before


HISTORY = (Epoch(epoch=1, loss=0.5, accuracy=0.5), Epoch(epoch=2, loss=0.25, accuracy=0.75))
LATER = (*HISTORY, Epoch(epoch=3, loss=math.nan, val_loss=math.inf))


def job(state=JobState.SUCCEEDED, metrics=None, **fields):
    result = JobResult(model_id="m'1", metrics=metrics)
    return Job(kind=JobKind.TRAINING, id="j'1\"", state=state, result=result, **fields)


@pytest.fixture
def errors():
    return []


@pytest.fixture
def tracked(mlflow, experiment, errors):
    """Open the run of a job as a process does; each call is another process."""

    def open_run(**fields):
        writer = tracking.MlflowWriter(experiment=experiment, default_experiment="dag", on_error=errors.append)
        defaults = {
            "writer": writer,
            "task": tracking.TrackedTask("dag", "run", "task"),
            "uri": tracking.job_uri("eu", "training", "j'1\""),
            "params": {},
            "tags": {"osai.job_id": "j'1\""},
            "note": "",
            "registered_model": None,
            "region": "eu",
        }
        return tracking.TrainingRun(**defaults | fields)

    yield open_run
    assert errors == []


class TestOddValues:
    """Against MLflow's own server."""

    def test_nan_and_infinite_metrics_do_not_hide_the_others(self, tracked, mlflow, runs):
        metrics = {"accuracy": 0.9, "loss": math.nan, "ratio": math.inf, "huge": 10**400, "name": "x", "ok": True}
        tracked().update(job(metrics=metrics, history=LATER))
        (run,) = runs()
        assert run.data.metrics["accuracy"] == 0.9
        assert math.isnan(run.data.metrics["loss"])
        assert {"huge", "name", "ok"}.isdisjoint(run.data.metrics)
        assert [step for step, _ in curve(mlflow, run, "loss")] == [1, 2, 3]

    @pytest.mark.parametrize("name", ["a b", "mAP@0.5", "", " ", "/", "../x", "a//b", ".", "a/", "ä" * 300, "x'\"`"])
    def test_any_name_of_a_metric_and_a_parameter_is_accepted(self, tracked, runs, name):
        tracked(params={name: 1}).update(job(metrics={name: 0.5}))
        (run,) = runs()
        assert list(run.data.metrics.values()) == [0.5]
        assert list(run.data.params.values()) == ["1"]

    def test_long_and_nested_parameters_are_cut_and_written_as_json(self, tracked, runs):
        params = {
            "long": "x" * 50_000,
            "nested": {"a": [1, None]},
            "none": None,
            "object": datetime(2026, 1, 1, tzinfo=UTC),
        }
        tracked(params=params | {f"p{n}": n for n in range(250)}).update(job())
        (run,) = runs()
        assert len(run.data.params) == 253
        assert len(run.data.params["long"]) == 6000
        assert run.data.params["nested"] == '{"a": [1, null]}'

    def test_a_long_history_needs_several_requests(self, tracked, mlflow, runs):
        tracked().update(job(history=tuple(Epoch(epoch=n, loss=1 / (n + 1), val_loss=1.0) for n in range(1500))))
        (run,) = runs()
        assert run.data.metrics["epoch/loss"] == pytest.approx(1 / 1500)
        assert len(mlflow.get_metric_history(run.info.run_id, "epoch/loss")) == 1500

    def test_points_written_twice_are_one(self, tracked, mlflow, runs):
        running = job(JobState.RUNNING, history=HISTORY)
        first = tracked()
        first.update(running)
        first.update(running)
        tracked().update(running)
        tracked().update(job(history=LATER))
        (run,) = runs()
        assert curve(mlflow, run, "accuracy") == [(1, 0.5), (2, 0.75)]

    def test_ids_with_quotation_marks_find_their_run_and_version(self, tracked, mlflow, runs, experiment):
        name = f"model's {experiment}".replace(":", "").replace("[", "(")
        for _ in range(2):
            tracked(registered_model=name).update(job())
        assert len(runs()) == 1
        (version,) = [each for each in mlflow.search_model_versions() if each.name == name]
        assert version.tags["osai.model_id"] == "m'1"

    def test_an_empty_duplicate_is_deleted(self, tracked, mlflow, runs):
        """The late effect of a request that got no response."""
        tracked(params={"a": 1}).update(job(JobState.RUNNING))
        (run,) = runs()
        tags = {"osai.job_uri": tracking.job_uri("eu", "training", "j'1\"")}
        mlflow.create_run(run.info.experiment_id, tags=tags, start_time=1)
        assert len(runs()) == 2
        tracked(params={"a": 1}).update(job())
        assert [(left.info.run_id, left.info.status) for left in runs()] == [(run.info.run_id, "FINISHED")]

    def test_a_later_end_than_the_servers_clock_is_no_error(self, tracked, runs):
        times = {"started_at": "2026-01-01T10:00:00Z", "finished_at": "2026-01-01T09:00:00Z"}
        tracked().update(job(**times))
        (run,) = runs()
        assert run.info.end_time == run.info.start_time


class TestGate:
    @pytest.fixture
    def gate(self, run_dag, uri):
        return lambda threshold=0.0: run_dag("tracked_gate", threshold=threshold)

    def test_a_rejected_model_is_not_registered(self, gate, connection, mlflow):
        assert gate(threshold=0.99).tasks["gate"] == "skipped"
        assert "a-model" not in {model.name for model in mlflow.search_registered_models()}

    def test_default_name_is_that_of_the_champion(self, gate, connection, mlflow):
        assert gate().tasks["gate"] == "success"
        version = mlflow.get_model_version_by_alias("a-model", "champion")
        assert version.tags["osai.model_id"] == "b"
        assert version.run_id in (None, "")

    def test_a_gate_without_a_connection_or_a_server_still_promotes(self, gate, uri, monkeypatch, logged):
        monkeypatch.delenv("AIRFLOW_CONN_OSAI_DEFAULT", raising=False)
        uri(f"http://127.0.0.1:{free_port()}")
        assert gate().result("gate", "decision") == "promoted"
        assert "Writing the promotion of model b to MLflow failed" in logged()


class TestPromotion:
    @pytest.fixture
    def promote(self, mlflow, experiment, errors):
        def promoted(name, model_id):
            writer = tracking.MlflowWriter(experiment=experiment, default_experiment="dag", on_error=errors.append)
            uri = tracking.model_uri("eu", model_id)
            return tracking.promote(writer, tracking.Promotion(name, uri, {"osai.model_id": model_id}, "note"))

        return promoted

    def test_an_unregistered_model_is_registered_with_its_run(self, promote, tracked, mlflow, runs, experiment):
        tracked().update(job())
        name = experiment.replace(":", "")
        assert promote(name, "m'1") == "1"
        version = mlflow.get_model_version_by_alias(name, "champion")
        assert version.run_id == runs()[0].info.run_id

    def test_the_next_promotion_moves_the_alias_and_a_repeated_one_keeps_it(self, promote, mlflow, experiment):
        name = experiment.replace(":", "")
        assert [promote(name, model) for model in ("a", "b", "b")] == ["1", "2", "2"]
        assert mlflow.get_model_version_by_alias(name, "champion").version == "2"

    def test_an_invalid_name_is_an_error_that_is_reported(self, promote, errors):
        assert promote("a/b", "m") is None
        assert len(errors) == 1


@pytest.mark.parametrize(
    ("tracking_uri", "page"),
    [
        ("http://ann:pw@host:5000/", "http://host:5000/#/experiments/1/runs/r"),
        ("https://host/mlflow?token=x", "https://host/mlflow/#/experiments/1/runs/r"),
        ("databricks", None),
        ("postgresql://ann:pw@host/db", None),
        ("http://[", None),
    ],
)
def test_the_page_of_a_run_has_no_credentials(tracking_uri, page):
    assert tracking.run_url(tracking_uri, "1", "r") == page


def test_a_write_that_was_abandoned_sends_nothing_more(mlflow, errors, monkeypatch):
    import threading

    monkeypatch.setattr(tracking, "WRITE_TIMEOUT", 0.05)
    go_on, refused = threading.Event(), threading.Event()

    def slow(client):
        go_on.wait()
        try:
            client.search_experiments()
        except TimeoutError:
            refused.set()

    writer = tracking.MlflowWriter(experiment=None, default_experiment="dag", on_error=errors.append)
    assert writer.write(slow) is None
    go_on.set()
    assert refused.wait(60)
    assert [type(error) for error in errors] == [TimeoutError]
