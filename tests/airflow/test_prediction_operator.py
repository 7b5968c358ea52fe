"""What the prediction operator says of images that it did not label."""

from __future__ import annotations

import shutil

import pytest

from airflow_provider_osai.hooks.osai import OsaiHook
from airflow_provider_osai.operators.dataset import OsaiUploadImagesOperator
from airflow_provider_osai.operators.prediction import OsaiPredictOperator
from airflow_provider_osai.operators.training import OsaiTrainModelOperator


@pytest.fixture
def filled(connection, context, images, tmp_path):
    """Create a dataset of images, with a folder for each category or without folders; return its id."""

    def fill(name, *, has_categories):
        source = images
        if not has_categories:
            source = tmp_path / name
            source.mkdir()
            for number, image in enumerate(sorted(images.glob("*/*.png"))[:6]):
                shutil.copy(image, source / f"{number}.png")
        with OsaiHook().get_conn() as client:
            dataset = client.create_dataset(name).id
        OsaiUploadImagesOperator(task_id="upload", dataset_id=dataset, source=str(source)).execute(context)
        return dataset

    return fill


@pytest.fixture
def model(filled, context):
    train = OsaiTrainModelOperator(
        task_id="train", dataset_ids=[filled("known", has_categories=True)], model_name="m", poll_interval=0.1
    )
    return train.execute(context)["model_id"]


@pytest.mark.parametrize("context", ["without a state store"], indirect=True)
def test_images_that_were_not_labelled_are_a_warning_with_the_reason(model, filled, context, logged):
    dataset = filled("new", has_categories=False)

    def predict(**options):
        task = OsaiPredictOperator(
            task_id=f"predict-{'-'.join(map(str, options.values()))}",
            model_id=model,
            dataset_id=dataset,
            poll_interval=0.1,
            durable=False,
            **options,
        )
        return task.execute(context)["metrics"]

    metrics = predict(mode="unannotated")
    assert (metrics["images"], metrics["labelled"]) == (6, 0)
    assert "None of the 6 images was labelled: with mode='unannotated', an image that has a category" in logged()
    assert predict(min_confidence=1.0)["labelled"] == 0
    assert "None of the 6 images was labelled: no label has the min_confidence of 1.0" in logged()
    labelled = predict(mode="all", min_confidence=0.0)
    assert labelled["labelled"] == 6
    assert "accuracy" not in labelled  # the upload's category for images without a folder is none of the model's
    assert logged().count("was labelled") == 2
