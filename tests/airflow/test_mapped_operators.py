"""Mapped operators: what an operator is by itself, it is under ``partial().expand()`` too."""

from __future__ import annotations

from datetime import timedelta

import pytest
from airflow.sdk import DAG, TaskGroup, task_group

from airflow_provider_osai.api.errors import OsaiArgumentError
from airflow_provider_osai.assets import osai_model
from airflow_provider_osai.operators.dataset import OsaiUploadImagesOperator
from airflow_provider_osai.operators.device import OsaiReleaseDeviceOperator, OsaiRentDeviceOperator
from airflow_provider_osai.operators.gate import OsaiModelGateOperator
from tests.airflow.test_weekly import events
from tests.sandbox.client import Api, png, shades

ASSET, OTHER = osai_model("mapped"), osai_model("mapped-other")
ARGUMENTS = {
    OsaiModelGateOperator: {"champion": ASSET, "candidate": ["a", "b"]},
    OsaiUploadImagesOperator: {"skip_if_trained_on": ASSET, "dataset_id": "1", "source": ["a", "b"]},
    OsaiReleaseDeviceOperator: {"job_id": ["1", "2"]},
    OsaiRentDeviceOperator: {"duration": 60, "device": ["jetson", "coral"]},
}
READ_BY_AIRFLOW = ("inlets", "outlets", "retries", "retry_delay", "max_active_tis_per_dag", "trigger_rule", "pool")


def candidate(model_id, accuracy=None):
    metrics = {} if accuracy is None else {"accuracy": accuracy}
    return {"kind": "training", "model_id": model_id, "metrics": metrics, "data_digest": "data 1"}


def both(cls, dag_defaults=None, **options):
    """Return the same task twice: by itself, and mapped over its last argument."""
    given, name = dict(ARGUMENTS[cls]), list(ARGUMENTS[cls])[-1]
    values = given.pop(name)
    given |= options
    with DAG("d", schedule=None, default_args=dag_defaults or {}):
        alone = cls(task_id="alone", **given, **{name: values[0]})
        mapped = cls.partial(task_id="mapped", **given).expand(**{name: values})
    return alone, mapped


class TestWhatAirflowReads:
    """Of a mapped task it is read before there are instances."""

    @pytest.mark.parametrize("cls", ARGUMENTS)
    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"retries": 3, "retry_delay": timedelta(seconds=7)},
            {"inlets": [OTHER], "outlets": [OTHER]},
            {"inlets": [ASSET], "outlets": [ASSET, OTHER]},
            {"inlets": OTHER, "outlets": None},
            {"max_active_tis_per_dag": 4, "pool": "gates"},
            {"default_args": {"retries": 5, "outlets": [OTHER]}},
        ],
        ids=lambda options: "+".join(options) or "nothing",
    )
    def test_it_is_the_same_mapped_and_alone(self, cls, options):
        alone, mapped = both(cls, {"retries": 1, "inlets": [OTHER], "max_active_tis_per_dag": 7}, **options)
        assert {n: getattr(mapped, n) for n in READ_BY_AIRFLOW} == {n: getattr(alone, n) for n in READ_BY_AIRFLOW}

    @pytest.mark.parametrize("cls", ARGUMENTS)
    def test_an_instance_is_the_same_as_the_mapped_task(self, cls):
        _, mapped = both(cls, inlets=[OTHER])
        one = mapped.unmap({list(ARGUMENTS[cls])[-1]: "a"})
        assert {n: getattr(one, n) for n in READ_BY_AIRFLOW} == {n: getattr(mapped, n) for n in READ_BY_AIRFLOW}
        assert one.requested_outputs is None

    def test_a_gate_reads_and_updates_its_champion_and_runs_one_at_a_time(self):
        for gate in both(OsaiModelGateOperator):
            assert gate.inlets == gate.outlets == [ASSET]
            assert gate.max_active_tis_per_dag == 1

    def test_an_upload_reads_what_was_trained(self):
        for upload in both(OsaiUploadImagesOperator):
            assert (upload.inlets, upload.outlets) == ([ASSET], [])

    def test_the_assets_of_default_args_are_kept(self):
        for gate in both(OsaiModelGateOperator, {"inlets": [OTHER], "outlets": OTHER}):
            assert gate.inlets == gate.outlets == [OTHER, ASSET]

    def test_a_release_has_ten_retries_unless_it_is_given_others(self):
        for release in both(OsaiReleaseDeviceOperator, {"retries": 0}):
            assert (release.retries, release.retry_delay) == (10, timedelta(seconds=30))
        for release in both(OsaiReleaseDeviceOperator, retries=3):
            assert (release.retries, release.retry_delay) == (3, timedelta(seconds=30))

    @pytest.mark.parametrize("where", ["dag", "group", "task"])
    def test_an_asset_may_be_a_default_argument(self, where):
        defaults = {"skip_if_trained_on": ASSET}
        at = {name: defaults if where == name else {} for name in ("dag", "group", "task")}
        with DAG("d", schedule=None, default_args=at["dag"]), TaskGroup("group", default_args=at["group"]):
            partial = OsaiUploadImagesOperator.partial(task_id="upload", dataset_id="1", default_args=at["task"])
            upload = partial.expand(source=["a"])
        assert upload.inlets == [ASSET]
        assert upload.unmap({"source": "a"}).skip_if_trained_on == ASSET


class TestWhatCannotBeMapped:
    """It is refused when the Dag is parsed."""

    @pytest.mark.parametrize(
        ("cls", "name"), [(OsaiModelGateOperator, "champion"), (OsaiUploadImagesOperator, "skip_if_trained_on")]
    )
    def test_an_asset(self, cls, name):
        given = {n: value for n, value in ARGUMENTS[cls].items() if n != name}
        mapped_over = list(given)[-1]
        values = given.pop(mapped_over)
        with pytest.raises(OsaiArgumentError, match=rf"mapped over {name}: .*partial\(\)"):
            cls.partial(task_id="t", **given).expand(**{name: [ASSET], mapped_over: values})
        with pytest.raises(OsaiArgumentError, match=rf"mapped over {name}: .*partial\(\)"):
            cls.partial(task_id="t", **given).expand_kwargs([{name: ASSET, mapped_over: values[0]}])

    @pytest.mark.parametrize("name", ["wait_for_completion", "use_webhook", "cancel_on_kill"])
    def test_what_a_rent_refuses(self, name):
        with pytest.raises(TypeError, match=name):
            OsaiRentDeviceOperator.partial(task_id="rent", duration=60, **{name: True})
        with pytest.raises(OsaiArgumentError, match=name):
            OsaiRentDeviceOperator.partial(task_id="rent", duration=60).expand(device=["a"], **{name: [True]})

    def test_what_a_gate_refuses(self):
        with pytest.raises(TypeError, match="wait_for_completion"):
            OsaiModelGateOperator.partial(task_id="gate", champion=ASSET, wait_for_completion=False)

    def test_a_gate_that_branches(self):
        with pytest.raises(OsaiArgumentError, match=r"rejected_task_ids = 'tell'.*mapped gate"):
            OsaiModelGateOperator.partial(task_id="gate", champion=ASSET, rejected_task_ids="tell")

    def test_a_task_group_over_its_champions(self):
        @task_group
        def group(champion):
            OsaiModelGateOperator(task_id="gate", candidate="1", champion=champion)

        with DAG("d", schedule=None), pytest.raises(OsaiArgumentError, match="champion = "):
            group.expand(champion=[ASSET, OTHER])

    def test_what_comes_too_late_fails_before_anything_is_asked(self, run_dag, connection, sandbox, images, logged):
        """No retry can help: all have two."""
        ran = run_dag("mapped_late", images=str(images))
        assert [ran.tasks[f"{name}[0]"] for name in ("upload", "gate", "branch", "group.gate")] == ["failed"] * 4
        assert {ti.try_number for ti in ran.run.get_task_instances() if ti.state == "failed"} == {1}
        assert sandbox.control.record()["requests"] == []
        assert "OsaiArgumentError: skip_if_trained_on = " in logged()
        assert "OsaiArgumentError: champion = " in logged()
        assert "OsaiArgumentError: rejected_task_ids = 'follows'" in logged()
        assert "OsaiArgumentError: rejected_task_ids = 'group.follows'" in logged()


class TestRuns:
    """Whole Dags, against the sandbox."""

    def test_create_upload_train_and_convert(self, run_dag, connection, images):
        """Each instance has results of its own; unchanged data is skipped the next time."""
        ran = run_dag("mapped_training", images=str(images))
        assert ran.state == "success", ran.tasks
        for task_id, key in {"create": "dataset_id", "train": "model_id", "convert": "conversion_id"}.items():
            assert len({ran.result(task_id, key, index) for index in (0, 1)}) == 2
        models = {ran.result("train", "model_id", index) for index in (0, 1)}
        assert {extra["model_id"] for extra in events("osai://eu/models/mapped-candidates")} == models
        again = run_dag("mapped_training", images=str(images))
        assert {again.tasks["upload[0]"], again.tasks["upload[1]"], again.tasks["train"]} == {"skipped"}

    def test_a_gate_for_each_candidate(self, run_dag, connection):
        """Whatever their order, the best is the champion at last, and only promotions make events."""
        ran = run_dag("mapped_gate", candidates=[candidate("a", 0.5), candidate("b", 0.7), candidate("c", 0.6)])
        verdicts = {model: ran.result("gate", "decision", index) for index, model in enumerate("abc")}
        told = events("osai://eu/models/mapped-champion")
        assert ran.state == "success", ran.tasks
        assert told[-1]["model_id"] == "b"
        assert {extra["model_id"] for extra in told} == {m for m, verdict in verdicts.items() if verdict == "promoted"}
        assert [extra["replaces"] for extra in told] == [None, *(extra["model_id"] for extra in told[:-1])]

    def test_a_gate_for_each_candidate_that_evaluates(self, run_dag, connection, sandbox):
        """The champion's event is about the promotion, and not about the prediction that it was decided by."""
        with Api(sandbox) as api:
            model = api.train(api.dataset(shades()), epochs=3)["result"]["modelId"]
            holdout = api.dataset({"dark": [png(13)] * 3, "light": [png(173)] * 3})
        ran = run_dag("mapped_holdout", candidates=[candidate(model)], holdout=str(holdout))
        assert ran.state == "success", ran.tasks
        [extra] = events("osai://eu/models/mapped-holdout")
        assert set(extra) == {"model_id", "metrics", "measured_on", "replaces", "run", "decision"}
        assert (extra["model_id"], extra["measured_on"]) == (model, f"dataset {holdout}")

    def test_a_gate_for_each_candidate_whose_champion_was_deleted(self, run_dag, connection, sandbox, logged):
        """It fails at its first try, and on its template's word decides without a champion. No log line is in vain."""
        with Api(sandbox) as api:
            models = [api.train(api.dataset(shades()), epochs=3)["result"]["modelId"] for _ in range(3)]
            holdout = api.dataset({"dark": [png(13)] * 3, "light": [png(173)] * 3})

        def run(model, missing="fail"):
            return run_dag("mapped_missing", candidates=[candidate(model)], holdout=str(holdout), missing=missing)

        assert run(models[0]).state == "success"
        sandbox.state.models.pop(models[0])
        failed = run(models[1])
        assert {(ti.state, ti.try_number) for ti in failed.run.get_task_instances(["failed"])} == {("failed", 1)}
        assert f"Champion model {models[0]} is missing at OSAI" in logged()
        assert run(models[2], "ignore").tasks["gate[0]"] == "success"
        told = events("osai://eu/models/mapped-missing")
        assert [(extra["model_id"], extra["replaces"]) for extra in told] == [(models[0], None), (models[2], models[0])]
        assert "XCom not found" not in logged()

    def test_a_gate_for_each_candidate_in_a_task_group(self, run_dag, connection):
        """What follows a gate is that of its candidate."""
        ran = run_dag("mapped_group", candidates=[candidate("a", 0.5), candidate("b", float("nan"))])
        assert [ran.tasks[f"judged.gate[{index}]"] for index in (0, 1)] == ["success", "skipped"]
        assert [ran.tasks[f"judged.promoted[{index}]"] for index in (0, 1)] == ["success", "skipped"]

    def test_rent_use_and_release(self, run_dag, connection, sandbox):
        """Each device is given back, by a task that is retried ten times."""
        ran = run_dag("mapped_rent")
        assert ran.state == "success", ran.tasks
        jobs = [ran.result("rent", "job_id", index) for index in (0, 1)]
        assert [ran.result("release", "released", index) for index in (0, 1)] == [[job] for job in jobs]
        assert [ran.xcom("use", map_index=i) for i in (0, 1)] == [ran.result("rent", "device_id", i) for i in (0, 1)]
        assert {rental["state"] for rental in sandbox.control.rentals()} == {"cancelled"}
        assert {ti.max_tries for ti in ran.run.get_task_instances() if ti.task_id == "release"} == {10}

    def test_a_release_that_is_not_mapped_like_its_rent_says_so(self, run_dag, connection, sandbox, logged):
        """It has the ids of all rentals, and would find none under them together."""
        ran = run_dag("mapped_rent_released_at_once")
        assert ran.tasks["release"] == "failed"
        assert "map the release like the renting" in logged()
