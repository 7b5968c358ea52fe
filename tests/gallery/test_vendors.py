"""Contract documents of real services: the sandbox speaks each to the vendor's own client, and to our operators."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import onnxruntime
import pytest
import urllib3
from airflow.providers.common.compat.sdk import TaskDeferred
from PIL import Image

from airflow_provider_osai.api.contract import Contract
from airflow_provider_osai.api.overrides import apply_overrides
from airflow_provider_osai.hooks.osai import OsaiHook
from airflow_provider_osai.operators.conversion import OsaiConvertModelOperator, OsaiDownloadModelOperator
from airflow_provider_osai.operators.dataset import OsaiCreateDatasetOperator, OsaiDeleteDatasetOperator
from airflow_provider_osai.operators.training import OsaiTrainModelOperator
from airflow_provider_osai.operators.upload import OsaiUploadImagesOperator
from airflow_provider_osai.sandbox import Sandbox
from tests.airflow.conftest import FakeTaskInstance
from tests.conftest import CANARY

pytestmark = pytest.mark.slow

DOCUMENTS = Path(__file__).parent / "vendors"
KEY = "gallery-api-key"  # not a secret; the vendors' clients may log it
DEADLINE = 300.0


def png(number: int) -> bytes:
    """Return an image that differs from those of other numbers; from 3 on it is bright."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (30 * number, 10, 200 if number >= 3 else 20)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def source(tmp_path) -> Path:
    """A folder with three images of each of two categories."""
    for number in range(6):
        folder = tmp_path / "images" / ("cat" if number < 3 else "dog")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.png").write_bytes(png(number))
    return tmp_path / "images"


@contextmanager
def serving(document: str, base_path: str, access_token: str) -> Iterator[Sandbox]:
    """Run a sandbox that speaks a vendor's document; its ids are whole numbers, which all vendors take."""
    contract = apply_overrides(Contract(), str(DOCUMENTS / document))
    numbers = map(str, itertools.count(1))
    with Sandbox(
        contract=contract, base_path=base_path, access_token=access_token, new_id=lambda: next(numbers)
    ) as running:
        yield running


def until(read: Callable[[], Any], is_done: Callable[[Any], bool]) -> Any:
    """Read again until it is done."""
    deadline = time.monotonic() + DEADLINE
    while not is_done(found := read()):
        assert time.monotonic() < deadline, found
        time.sleep(0.1)
    return found


def connect(monkeypatch, sandbox: Sandbox, document: str) -> None:
    """Make the default connection one to a sandbox that speaks a vendor's document."""
    extra = {"base_url": sandbox.base_url, "contract": str(DOCUMENTS / document)}
    connection = {"conn_type": "osai", "password": CANARY, "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_OSAI_DEFAULT", json.dumps(connection))


def run(operator: type, *, deferrals: list[str] | None = None, **arguments: Any) -> dict[str, Any]:
    """Run an operator as a task; if it defers, note it, run its trigger and go on."""
    task = operator(task_id="task", **arguments)
    context = {"ti": FakeTaskInstance()}
    try:
        return task.execute(context)
    except TaskDeferred as deferred:
        if deferrals is not None:
            deferrals.append(operator.__name__)
        event = asyncio.run(anext(deferred.trigger.run())).payload
        return getattr(task, deferred.method_name)(context, event=event, **(deferred.kwargs or {}))


def ended(sandbox: Sandbox) -> list[tuple[str, str]]:
    """Return kind and state of all jobs in the sandbox's own record."""
    return [(job["kind"], job["state"]) for job in sandbox.control.record()["jobs"]]


def categories(sandbox: Sandbox, dataset_id: str) -> list[str]:
    """Return the categories of a dataset's images in the sandbox."""
    return sorted(image["category"] for image in sandbox.control.images(dataset_id))


def statuses(sandbox: Sandbox, endpoint: str) -> set[int | None]:
    return {each["status"] for each in sandbox.control.record()["requests"] if each["endpoint"] == endpoint}


def read_model(content: bytes) -> list[str]:
    """Return the names of a model's outputs; the model must be real."""
    return [output.name for output in onnxruntime.InferenceSession(content).get_outputs()]


def upload(sandbox, project, source):
    """Upload the pictures with our operator; the sandbox has them with their categories."""
    uploaded = run(OsaiUploadImagesOperator, dataset_id=project, source=str(source))
    assert (uploaded["uploaded"], uploaded["categories"]) == (6, ["cat", "dog"])
    assert categories(sandbox, project) == ["cat"] * 3 + ["dog"] * 3


def train(sandbox, project, options):
    """Train with our operator; the job and the model have one id, and the model the metrics of the sandbox's."""
    trained = run(OsaiTrainModelOperator, dataset_ids=[project], model_name="m", **options)
    (model,) = sandbox.state.models.values()
    job = sandbox.control.record()["jobs"][0]
    assert (trained["job_id"], trained["model_id"]) == (f"{project}/{job['id']}",) * 2
    with OsaiHook().get_conn() as client:
        assert client.get_model(trained["model_id"]).metrics["accuracy"] == model.metrics["accuracy"]
    return trained, model


class TestAzureCustomVision:
    """Its client has no download: users open the address in the list of exports, without a key."""

    DOCUMENT = "azure_custom_vision.yaml"
    BASE_PATH = "/customvision/v3.4-preview/training"

    @pytest.fixture
    def vendor(self) -> Iterator[Sandbox]:
        with serving(self.DOCUMENT, self.BASE_PATH, KEY) as running:
            yield running

    @pytest.fixture
    def client(self, vendor) -> Any:
        from azure.cognitiveservices.vision.customvision.training import CustomVisionTrainingClient
        from msrest.authentication import ApiKeyCredentials

        with CustomVisionTrainingClient(
            vendor.portal_url, ApiKeyCredentials(in_headers={"Training-key": KEY})
        ) as client:
            yield client

    def test_the_vendors_client_goes_from_images_to_an_exported_model(self, client, vendor):
        project = client.create_project("story & co", classification_type="Multiclass")
        assert [(each.id, each.name) for each in client.get_projects()] == [(project.id, "story & co")]
        assert client.get_project(project.id).last_modified.year >= 2026
        tags = [client.create_tag(project.id, name) for name in ("cat", "dog")]
        assert [(tag.id, tag.name) for tag in client.get_tags(project.id)] == [(tag.id, tag.name) for tag in tags]
        for number in range(6):
            batch = client.create_images_from_data(project.id, png(number), tag_ids=[tags[number // 3].id])
            assert (batch.is_batch_successful, [each.status for each in batch.images]) == (True, ["OK"])
        pages = [client.get_images(project.id, take=4, skip=skip) for skip in (0, 4)]
        assert [[image.tags[0].tag_id == tags[0].id for image in page] for page in pages] == [
            [True, True, True, False],
            [False, False],
        ]
        assert categories(vendor, project.id) == ["cat"] * 3 + ["dog"] * 3

        started = client.train_project(project.id)
        assert (started.status, started.trained_at) == ("Training", None)
        iteration = until(lambda: client.get_iteration(project.id, started.id), lambda it: it.status != "Training")
        assert (iteration.id, iteration.status, iteration.project_id) == (started.id, "Completed", project.id)
        assert iteration.trained_at > iteration.created
        (model,) = vendor.state.models.values()
        performance = client.get_iteration_performance(project.id, iteration.id)
        assert performance.precision == model.metrics["accuracy"]

        export = client.export_iteration(project.id, iteration.id, "ONNX")
        assert (export.platform, export.status, export.download_uri) == ("ONNX", "Exporting", None)
        (export,) = until(
            lambda: client.get_exports(project.id, iteration.id), lambda exports: exports[0].status != "Exporting"
        )
        assert (export.platform, export.status) == ("ONNX", "Done")
        with urllib.request.urlopen(export.download_uri) as answer:
            content = answer.read()
        assert content == model.files["onnx"].read_bytes()
        assert read_model(content)

        client.delete_project(project.id)
        assert ended(vendor) == [("training", "succeeded"), ("conversion", "succeeded")]
        assert statuses(vendor, "dataset.delete") == {204}
        assert vendor.state.datasets.find(None) == []

    def test_the_vendors_client_reads_the_errors(self, client, vendor):
        from azure.cognitiveservices.vision.customvision.training.models import CustomVisionErrorException

        with pytest.raises(CustomVisionErrorException) as caught:
            client.get_project("unknown")
        assert (caught.value.response.status_code, caught.value.error.code) == (404, "NotFound")
        assert "Dataset unknown does not exist" in caught.value.message
        project = client.create_project("fruit")
        tag = client.create_tag(project.id, "apple")
        with pytest.raises(CustomVisionErrorException, match="already has a category apple"):
            client.create_tag(project.id, "apple")
        batch = client.create_images_from_data(project.id, b"no image", tag_ids=[tag.id])
        assert (batch.is_batch_successful, batch.images[0].status) == (False, "ErrorImageFormat")
        vendor.control.script("training", "immediate", end="failed", message="out of memory")
        iteration = client.get_iteration(project.id, client.train_project(project.id).id)
        assert (iteration.status, iteration.training_error_details) == ("Failed", "out of memory")

    def test_a_wrong_key_is_refused(self, vendor):
        from azure.cognitiveservices.vision.customvision.training import CustomVisionTrainingClient
        from azure.cognitiveservices.vision.customvision.training.models import CustomVisionErrorException
        from msrest.authentication import ApiKeyCredentials

        credentials = ApiKeyCredentials(in_headers={"Training-key": "wrong"})
        with (
            CustomVisionTrainingClient(vendor.portal_url, credentials) as client,
            pytest.raises(CustomVisionErrorException) as caught,
        ):
            client.get_projects()
        assert caught.value.response.status_code == 401

    @pytest.mark.parametrize("deferrable", [False, True])
    def test_our_operators_tell_the_same_story(self, deferrable, source, tmp_path, monkeypatch):
        deferrals: list[str] = []
        options = {"poll_interval": 0.1, "deferrable": deferrable, "deferrals": deferrals}
        with serving(self.DOCUMENT, self.BASE_PATH, CANARY) as sandbox:
            connect(monkeypatch, sandbox, self.DOCUMENT)
            project = run(OsaiCreateDatasetOperator, name="story & co", categories=["cat", "dog"])["dataset_id"]
            assert run(OsaiCreateDatasetOperator, name="story & co")["created"] is False
            upload(sandbox, project, source)
            trained, model = train(sandbox, project, options)
            assert ("OsaiTrainModelOperator" in deferrals) is deferrable
            with OsaiHook().get_conn() as client:
                assert len(client.list_images(project)) == 6

            arguments = {"model_id": trained["model_id"], "target": "ONNX"}
            converted = run(OsaiConvertModelOperator, **arguments, **options)
            assert (converted["job_id"], converted["reused"]) == (f"{trained['model_id']}/ONNX", False)
            assert run(OsaiConvertModelOperator, **arguments, **options)["reused"] is True
            downloaded = run(OsaiDownloadModelOperator, **arguments, destination=str(tmp_path / "model.onnx"))
            content = Path(downloaded["path"]).read_bytes()
            assert content == model.files["onnx"].read_bytes()
            assert read_model(content)

            assert run(OsaiDeleteDatasetOperator, dataset_id=project)["deleted"] is True
            assert ended(sandbox) == [("training", "succeeded"), ("conversion", "succeeded")]
            assert sandbox.control.record()["counts"]["conversion.submit"] == 1


class TestEdgeImpulse:
    """Its client has no upload: users send forms to the ingestion service, which finds the project by the key."""

    DOCUMENT = "edge_impulse.yaml"
    BUILD: ClassVar = {"engine": "tflite", "model_type": "int8"}

    @pytest.fixture
    def vendor(self) -> Iterator[Sandbox]:
        with serving(self.DOCUMENT, "", KEY) as running:
            yield running

    @pytest.fixture
    def sdk(self) -> Any:
        import edgeimpulse_api  # takes seconds

        return edgeimpulse_api

    def connect_client(self, sdk: Any, sandbox: Sandbox, key: str = KEY) -> Any:
        return sdk.ApiClient(
            sdk.Configuration(
                host=f"{sandbox.portal_url}/v1", api_key={"ApiKeyAuthentication": key}, retries=urllib3.Retry(1)
            )
        )

    def upload(self, sandbox: Sandbox, number: int, content: bytes) -> dict[str, Any]:
        """Upload an image as the page of the ingestion service shows it; return what it says of the file."""
        answer = urllib3.request(
            "POST",
            f"{sandbox.portal_url}/api/training/files",
            headers={"x-api-key": KEY, "x-label": "cat" if number < 3 else "dog", "x-disallow-duplicates": "1"},
            fields={"data": (f"{number}.png", content, "image/png")},
        )
        assert (answer.status, answer.json()["success"]) == (200, True)
        (file,) = answer.json()["files"]
        return file

    def finish(self, sdk: Any, client: Any, project: int, job: int) -> Any:
        jobs = sdk.JobsApi(client)
        return until(lambda: jobs.get_job_status(project, job).job, lambda job: job.finished)

    def test_the_vendors_client_goes_from_images_to_a_deployment(self, sdk, vendor):
        client = self.connect_client(sdk, vendor)
        projects, jobs = sdk.ProjectsApi(client), sdk.JobsApi(client)
        project = projects.create_project(sdk.CreateProjectRequest(project_name="story & co")).id
        assert [(each.id, each.name) for each in projects.list_projects().projects] == [(project, "story & co")]
        assert projects.get_project_info(project).project.name == "story & co"
        assert all(self.upload(vendor, number, png(number))["sampleId"] > project for number in range(6))
        samples = sdk.RawDataApi(client).list_samples(project, "training", limit=4, offset=2)
        assert samples.total_count == 6
        assert [each.filename for each in samples.samples] == ["2.png", "3.png", "4.png", "5.png"]
        assert [each.label for each in samples.samples] == ["cat", "dog", "dog", "dog"]
        assert categories(vendor, str(project)) == ["cat"] * 3 + ["dog"] * 3

        started = jobs.start_retrain_job(project).id
        job = self.finish(sdk, client, project, started)
        assert (job.id, job.finished_successful) == (started, True)
        assert job.created <= job.started <= job.finished
        (model,) = vendor.state.models.values()
        (metrics,) = sdk.LearnApi(client).get_keras_metadata(project, 3).model_validation_metrics
        assert (metrics.accuracy, metrics.loss) == (model.metrics["accuracy"], model.metrics["loss"])

        build = jobs.build_on_device_model_job(project, "zip", sdk.BuildOnDeviceModelRequest(**self.BUILD)).id
        assert self.finish(sdk, client, project, build).finished_successful is True
        answer = sdk.DeploymentApi(client).download_build(project, "zip", **self.BUILD, _preload_content=False)
        assert answer.data == model.files["zip"].read_bytes()

        vendor.control.script("training", "reads", reads=10**6)
        other = jobs.start_retrain_job(project).id
        running = jobs.get_job_status(project, other).job
        assert (running.id, running.finished, running.finished_successful) == (other, None, None)
        assert jobs.cancel_job(project, other).success is True
        assert self.finish(sdk, client, project, other).finished_successful is False
        assert ended(vendor) == [("training", "succeeded"), ("conversion", "succeeded"), ("training", "cancelled")]
        assert projects.delete_project(project).success is True
        assert vendor.state.datasets.find(None) == []

    def test_the_vendors_client_reads_the_errors(self, sdk, vendor):
        projects = sdk.ProjectsApi(self.connect_client(sdk, vendor))
        with pytest.raises(sdk.exceptions.NotFoundException, match="Dataset 99 does not exist"):
            projects.get_project_info(99)
        projects.create_project(sdk.CreateProjectRequest(project_name="fruit"))
        assert self.upload(vendor, 0, b"no image")["success"] is False
        with pytest.raises(sdk.exceptions.UnauthorizedException):
            sdk.ProjectsApi(self.connect_client(sdk, vendor, "wrong")).list_projects()

    @pytest.mark.parametrize("deferrable", [False, True])
    def test_our_operators_tell_the_same_story(self, deferrable, source, tmp_path, monkeypatch):
        deferrals: list[str] = []
        options = {"poll_interval": 0.1, "deferrable": deferrable, "deferrals": deferrals}
        with serving(self.DOCUMENT, "", CANARY) as sandbox:
            connect(monkeypatch, sandbox, self.DOCUMENT)
            created = run(OsaiCreateDatasetOperator, name="story & co", categories=["cat", "dog"])
            project = created["dataset_id"]
            assert created["categories"] == {"cat": "cat", "dog": "dog"}
            upload(sandbox, project, source)
            trained, model = train(sandbox, project, options)
            assert ("OsaiTrainModelOperator" in deferrals) is deferrable
            with OsaiHook().get_conn() as client:
                images = client.list_images(project)
            assert sorted(image.category_id for image in images) == ["cat"] * 3 + ["dog"] * 3

            arguments = {"model_id": trained["model_id"], "target": "zip"}
            converted = run(OsaiConvertModelOperator, **arguments, **options)
            assert converted["job_id"].startswith(f"{project}/")
            assert converted["simulated"] is True  # the sandbox converts really to ONNX only, and says so
            downloaded = run(OsaiDownloadModelOperator, **arguments, destination=str(tmp_path / "model.zip"))
            assert Path(downloaded["path"]).read_bytes() == model.files["zip"].read_bytes()

            assert run(OsaiDeleteDatasetOperator, dataset_id=project)["deleted"] is True
            assert ended(sandbox) == [("training", "succeeded"), ("conversion", "succeeded")]
