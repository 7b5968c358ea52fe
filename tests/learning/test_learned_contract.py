"""What is learned from the recordings of a style is enough for the whole retraining on an API of that style."""

from __future__ import annotations

import json

import pytest

from airflow_provider_osai.api.contract import Contract
from airflow_provider_osai.api.overrides import apply_overrides
from airflow_provider_osai.cli.contract import main
from airflow_provider_osai.operators.conversion import OsaiConvertModelOperator
from airflow_provider_osai.operators.dataset import OsaiCreateDatasetOperator, OsaiUploadImagesOperator
from airflow_provider_osai.operators.prediction import OsaiPredictOperator
from airflow_provider_osai.operators.training import OsaiTrainModelOperator
from airflow_provider_osai.sandbox import Sandbox
from airflow_provider_osai.triggers import job as job_trigger
from tests.airflow.conftest import dagbag, impatient, run_dag  # noqa: F401 - fixtures
from tests.conftest import CANARY
from tests.gallery import conftest as gallery
from tests.gallery.conftest import deferrable, pictures  # noqa: F401 - fixtures
from tests.gallery.servers import create_app
from tests.gallery.world import World
from tests.learning.scoring import ANSWERS, recordings_of
from tests.learning.styles import STYLES
from tests.threaded_server import served

pytestmark = pytest.mark.slow
DAG_STYLES = [style for style in STYLES.values() if not style.query]
"""Each style once: the recordings by push and with cookies are of the same API."""


@pytest.fixture
def learned(tmp_path):
    """Return the path of the document that the command learns from the recordings of a style."""

    def learn(style):
        answers = tmp_path / "answers.yaml"
        answers.write_text(json.dumps(ANSWERS))
        document = tmp_path / "osai.yaml"
        recordings = list(map(str, recordings_of(style)))
        assert main(["learn", *recordings, "--answers", str(answers), "-o", str(document)]) == 0
        return document

    return learn


SERVER_STYLES = [style for style in gallery.STYLES if style.name in STYLES and style.name != "graph_objects"]
"""All but the one whose server has a word for the end of each kind of job, where the sandbox has one for all."""


@pytest.fixture(params=SERVER_STYLES, ids=lambda style: style.name)
def learned_story(request, learned, tmp_path, monkeypatch):
    """The gallery's server of a style, which shares no code with the sandbox, and what was learned from the latter."""
    monkeypatch.setattr(job_trigger, "MIN_HOLD", 0.0)
    style, world = request.param, World()
    with served(create_app(style.name, world)) as address:
        connection = {
            "conn_type": "osai",
            "password": world.access_token if style.has_sign_in else world.api_key,
            "extra": {"base_url": f"{address}/api", "contract": str(learned(STYLES[style.name]))},
        }
        monkeypatch.setenv("AIRFLOW_CONN_OSAI_DEFAULT", json.dumps(connection))
        monkeypatch.setenv("AIRFLOW_VAR_OSAI_DEPLOYMENT_SECRET", "gallery")
        yield gallery.Story(style, deferrable=True, world=world, folder=tmp_path)


def test_a_server_of_the_style_trains_with_the_learned_contract(learned_story, pictures):  # noqa: F811
    story = learned_story
    made = story.run(OsaiCreateDatasetOperator, name="fruit", categories=["apple", "pear"])
    dataset_id = made["dataset_id"]
    told = story.run(OsaiUploadImagesOperator, dataset_id=dataset_id, source=str(pictures))
    assert (told["uploaded"], told["images"]) == (6, 6)
    training = {"dataset_ids": [dataset_id], "model_name": "first", "parameters": {"epochs": 3}}
    trained = story.job(OsaiTrainModelOperator, **training)
    assert story.last_job().settings == {"name": "first", "type": "classification", "options": {"epochs": 3}}
    assert story.is_id(trained["model_id"], min(story.world.models))
    converted = story.job(OsaiConvertModelOperator, model_id=trained["model_id"], target="jetson-nano")
    predicted = story.job(OsaiPredictOperator, model_id=trained["model_id"], dataset_id=dataset_id)
    assert (converted["state"], predicted["state"]) == ("succeeded", "succeeded")
    assert story.kinds() == ["train", "convert", "predict"]


@pytest.mark.parametrize("style", DAG_STYLES, ids=lambda style: style.name)
def test_the_retraining_dag_runs_with_the_learned_contract(style, learned, run_dag, images, monkeypatch):  # noqa: F811
    contract = apply_overrides(Contract(), str(style.contract)) if style.contract else Contract()
    with Sandbox(access_token=CANARY, contract=contract) as sandbox:
        connection = {
            "conn_type": "osai",
            "password": CANARY,
            "extra": {"base_url": sandbox.base_url, "contract": str(learned(style))},
        }
        monkeypatch.setenv("AIRFLOW_CONN_OSAI_DEFAULT", json.dumps(connection))
        ran = run_dag("example_osai_retraining", images=str(images))
        assert ran.state == "success", ran.tasks
        assert ran.xcom("upload_images")["images"] == 60
        trained, converted, predicted = (ran.xcom(task) for task in ("train_model", "convert_model", "predict"))
        assert trained["model_id"]
        assert (converted["kind"], converted["state"], predicted["state"]) == ("conversion", "succeeded", "succeeded")
