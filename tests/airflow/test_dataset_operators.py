"""Datasets made, replaced, varied and deleted by operators, against a local OSAI that really does it."""

from __future__ import annotations

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from airflow.sdk import DAG

from airflow_provider_osai.api.errors import OsaiJobFailed, OsaiUnreachable
from airflow_provider_osai.operators.dataset import (
    BrightnessContrast,
    OsaiCreateDatasetOperator,
    OsaiDeleteDatasetOperator,
    OsaiManipulateDatasetOperator,
    Resize,
    Rotation,
)
from tests.sandbox.client import Api, shades


@pytest.fixture
def api(sandbox):
    with Api(sandbox) as signed_in:
        yield signed_in


@pytest.fixture
def vary(connection, api):
    """Make a manipulation of a dataset of ten images."""
    source = api.dataset(shades(5), name="few")

    def made(**options):
        defaults = {"dataset_id": source, "name": "many", "operations": [Rotation(angle=20, generate=2)]}
        return OsaiManipulateDatasetOperator(
            task_id="task", **{"deferrable": False, "poll_interval": 0.05} | defaults | options
        )

    made.source = source
    return made


def names(api):
    return sorted(dataset["name"] for dataset in api.ok("GET", "/Datasets"))


class TestManipulation:
    """A new dataset, the old one as it was."""

    def test_the_new_dataset_is_larger_and_the_old_one_as_it_was(self, vary, context, api, sandbox):
        """Ten images with two turned ones each."""
        told = vary().execute(context)
        assert told["dataset_id"] != vary.source
        assert len(sandbox.control.images(told["dataset_id"])) == 30
        assert len(sandbox.control.images(vary.source)) == 10
        assert names(api) == ["few", "many"]

    def test_operations_follow_each_other(self, vary, context, sandbox):
        """Two of each by the first, two of each of these by the second, and the size of all by the third."""
        steps = [Rotation(angle=20), BrightnessContrast(contrast=1.2, brightness=10), Resize(width=6, height=5)]
        told = vary(operations=steps).execute(context)
        assert len(sandbox.control.images(told["dataset_id"])) == 40

    @pytest.mark.parametrize(
        "wrong", [{"operations": []}, {"operations": [{"type": "blur"}]}, {"name": ""}, {"dataset_id": "None"}]
    )
    def test_a_bad_value_is_refused_before_anything_is_sent(self, vary, context, sandbox, wrong):
        """And no retry is wasted."""
        with pytest.raises(AirflowFailException, match=next(iter(wrong))):
            vary(**wrong).execute(context)
        assert sandbox.control.record()["jobs"] == []

    def test_a_retry_adopts_the_manipulation_and_leaves_its_result_alone(self, vary, context, sandbox, api):
        """Even where a dataset of that name is to be replaced: this one is the task's own."""
        first = vary(if_exists="replace").execute(context)
        again = vary(if_exists="replace").execute(context)
        assert first["dataset_id"] == again["dataset_id"]
        assert names(api) == ["few", "many"]
        assert len(sandbox.control.record()["jobs"]) == 1

    def test_what_has_the_name_already_is_kept_refused_or_replaced(self, vary, context, api):
        """As the user says; beside it is the default."""
        old = api.dataset(name="many")
        with pytest.raises(AirflowFailException, match="many.*fail"):
            vary(if_exists="fail").execute(context)
        assert names(api) == ["few", "many"]
        told = vary(if_exists="replace").execute(context)
        assert told["dataset_id"] != old
        assert names(api) == ["few", "many"]

    def test_the_source_is_never_replaced(self, vary, context, api):
        """By a dataset of its own name."""
        with pytest.raises(AirflowFailException, match="must not be replaced"):
            vary(name="few", if_exists="replace").execute(context)
        assert names(api) == ["few"]

    def test_a_manipulation_that_fails_fails_the_task(self, vary, context, sandbox):
        """A retry submits a new job."""
        sandbox.control.script("manipulation", end="failed")
        with pytest.raises(OsaiJobFailed):
            vary().execute(context)

    def test_operations_may_come_from_templates(self, vary):
        """They are rendered inside the operation."""
        task = vary(operations=[Rotation(angle="{{ params.angle }}")], dag=DAG("d", schedule=None))
        task.render_template_fields({"params": {"angle": 30}})
        assert task.build_request().wire()["operations"] == [{"type": "rotation", "angle": 30.0, "generate": 1}]

    def test_the_log_says_what_was_made_of_what(self, vary, context, logged):
        """In one line: both ids, the operations and OSAI's figures."""
        told = vary(operations=[Rotation(angle=20, generate=2), Resize(width=6, height=5)]).execute(context)
        (line,) = [line for line in logged().splitlines() if "from dataset" in line]
        said = f"Created dataset {told['dataset_id']} 'many' from dataset {vary.source} with rotation, resize"
        assert f"{said}; metrics: " in line
        assert '"images": 10' in line

    def test_the_log_says_what_was_replaced(self, vary, context, api, logged):
        """It is gone, whatever becomes of the job."""
        old = api.dataset(shades(1), name="many")
        vary(if_exists="replace").execute(context)
        assert f"Deleted dataset {old} 'many' with 2 images (if_exists='replace')" in logged()


class TestCreation:
    """Of a name that is there already."""

    @pytest.fixture
    def create(self, connection):
        def made(**options):
            return OsaiCreateDatasetOperator(task_id="task", name="digits", **options)

        return made

    def test_a_new_one_beside_it_or_in_its_place(self, create, context, api):
        """``new`` leaves it, ``replace`` deletes it."""
        old = create().execute(context)["dataset_id"]
        assert create(if_exists="replace").execute(context)["dataset_id"] != old
        assert names(api) == ["digits"]
        assert create(if_exists="new").execute(context)["created"]
        assert names(api) == ["digits", "digits"]

    def test_the_log_says_what_was_created_and_reused(self, create, context, api, logged):
        """One line a task, with the id and what became of the categories; many are cut."""
        made = create(categories=["a", "b"]).execute(context)["dataset_id"]
        assert f"Created dataset {made} 'digits'" in logged()
        assert "2 categories (2 created, 0 existing): 'a', 'b'" in logged()
        create(categories=["b", *(f"c{number:02}" for number in range(30))]).execute(context)
        (line,) = [line for line in logged().splitlines() if "Reused dataset" in line]
        assert f"Reused dataset {made} 'digits'" in line
        assert "31 categories (30 created, 1 existing): 'b', 'c00'" in line
        assert "'c18' and 11 more" in line
        assert "'c19'" not in line

    def test_the_log_says_what_was_created_before_it_failed(self, create, context, sandbox, api, logged):
        """The dataset is there, and its first category."""
        sandbox.control.fault("status", "category.create", status=400, after=1)
        with pytest.raises(AirflowFailException):
            create(categories=["a", "b"]).execute(context)
        (line,) = [line for line in logged().splitlines() if "Created dataset" in line]
        assert "created 1 of its categories before the error: 'a'" in line

    def test_the_log_says_what_was_replaced(self, create, context, logged):
        """Two things were done."""
        old = create().execute(context)["dataset_id"]
        new = create(if_exists="replace").execute(context)["dataset_id"]
        assert f"Deleted dataset {old} 'digits' with 0 images (if_exists='replace')" in logged()
        assert f"Created dataset {new} 'digits'" in logged()

    def test_of_several_none_is_replaced(self, create, context, api):
        """Nobody knows which is meant."""
        create(if_exists="new").execute(context)
        create(if_exists="new").execute(context)
        with pytest.raises(AirflowFailException, match="2 datasets with this name"):
            create(if_exists="replace").execute(context)
        assert names(api) == ["digits", "digits"]


class TestDeletion:
    """The dataset does not exist afterwards."""

    @pytest.fixture
    def delete(self, connection):
        def made(dataset_id, **options):
            return OsaiDeleteDatasetOperator(task_id="task", dataset_id=dataset_id, **options)

        return made

    def test_a_dataset_is_deleted_once(self, delete, context, api):
        """The second time there is nothing to do."""
        dataset_id = api.dataset(shades(3))
        assert delete(dataset_id).execute(context) == {"dataset_id": dataset_id, "deleted": True}
        assert delete(dataset_id).execute(context) == {"dataset_id": dataset_id, "deleted": False}
        assert names(api) == []

    def test_the_log_says_what_was_deleted(self, delete, context, api, logged):
        """With its name and images; and that there was nothing, the second time."""
        dataset_id = api.dataset(shades(3), name="few")
        for _ in range(2):
            delete(dataset_id).execute(context)
        told = logged()
        assert told.count(f"Deleted dataset {dataset_id} 'few' with 6 images") == 1
        assert told.count(f"Nothing was deleted: OSAI has no dataset {dataset_id}") == 1

    @pytest.mark.parametrize("missing", [None, "", "None"])
    def test_what_was_never_made_is_no_dataset(self, delete, context, missing, sandbox):
        """The task that it comes from failed; a teardown must not."""
        assert delete(missing).execute(context)["deleted"] is False

    def test_it_can_be_asked_to_be_there(self, delete, context):
        """Then a missing one is an error, which no retry mends."""
        with pytest.raises(AirflowFailException, match="if_missing is 'fail'"):
            delete("4711", if_missing="fail").execute(context)

    def test_one_that_is_in_use_is_not_deleted_while_it_is(self, delete, context, api):
        """An upload locks it; the task gives up after its timeout, and a retry deletes it when that is finished."""
        dataset_id = api.dataset()
        upload_id = api.ok("POST", f"/Datasets/{dataset_id}/StartUploading")["id"]
        with pytest.raises(OsaiUnreachable, match="still in use"):
            delete(dataset_id, timeout=0).execute(context)
        api.ok("POST", f"/Datasets/{dataset_id}/FinishUploading", params={"datasetUploadId": upload_id})
        assert delete(dataset_id).execute(context)["deleted"]

    @pytest.mark.parametrize("wrong", [{"timeout": -1}, {"timeout": "long"}, {"if_missing": "cry"}])
    def test_a_bad_value_is_refused(self, delete, context, wrong):
        """By its name."""
        with pytest.raises(AirflowFailException, match=next(iter(wrong))):
            delete("1", **wrong).execute(context)

    def test_it_is_a_teardown_of_what_makes_the_dataset(self, delete):
        """As the example wires it."""
        with DAG("d", schedule=None):
            made = OsaiCreateDatasetOperator(task_id="make", name="d")
            gone = delete(made.output["dataset_id"]).as_teardown(setups=made)
        assert (made.is_setup, gone.is_teardown) == (True, True)
