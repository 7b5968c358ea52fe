"""The augmentation example: more images are trained on than were sent, and what was made for that is gone."""

from __future__ import annotations

from tests.sandbox.client import Api


def test_the_example_trains_on_both_and_deletes_what_it_made(run_dag, connection, images, sandbox, logged):
    """Sixty images, and six of each of them: itself and two turned ones, each lighter or darker too."""
    ran = run_dag("example_osai_augmentation", images=str(images))
    assert ran.state == "success", ran.tasks
    assert ran.xcom("train_model")["metrics"]["images"] == 60 + 6 * 60
    assert ran.xcom("delete_varied")["deleted"] is True
    with Api(sandbox) as api:
        assert [dataset["name"] for dataset in api.ok("GET", "/Datasets")] == ["few images"]
