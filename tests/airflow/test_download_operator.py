"""OsaiDownloadModelOperator and OsaiConvertModelOperator against a local sandbox server."""

from __future__ import annotations

import hashlib
import random

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException
from airflow.sdk import ObjectStoragePath

from airflow_provider_osai.api.errors import OsaiDownloadFailed, OsaiUnsupported
from airflow_provider_osai.operators.conversion import OsaiConvertModelOperator, OsaiDownloadModelOperator
from airflow_provider_osai.sandbox.models import ModelRecord
from tests.conftest import ROOT

CONTENT = random.Random(1).randbytes(3_000_000)


@pytest.fixture
def model(sandbox):
    """A model with an ``onnx`` file of 3 MB."""
    path = sandbox.state.folder / "model.onnx"
    path.write_bytes(CONTENT)
    sandbox.state.save_model(ModelRecord("m1", "digits", "classification", {}, ("0", "1"), files={"onnx": path}))
    return "m1"


@pytest.fixture
def download(connection, model, context):
    def run(destination, **options):
        defaults = {"task_id": "task", "model_id": model, "target": "onnx"}
        return OsaiDownloadModelOperator(destination=destination, **defaults | options).execute(context)

    return run


@pytest.fixture
def convert(connection, model, context):
    def run(target="jetson", **options):
        defaults = {"task_id": "task", "model_id": model, "poll_interval": 0.05, "deferrable": False}
        return OsaiConvertModelOperator(target=target, **defaults | options).execute(context)

    return run


@pytest.fixture
def statuses(sandbox):
    """The HTTP statuses of the download requests."""
    return lambda: [
        request["status"] for request in sandbox.control.record()["requests"] if request["endpoint"] == "model.download"
    ]


@pytest.fixture
def submitted(sandbox):
    """The number of submitted conversions."""
    return lambda: sandbox.control.record()["counts"].get("conversion.submit", 0)


class TestDownload:
    def test_downloaded_file_and_digest_match_the_server(self, download, tmp_path):
        result = download(f"{tmp_path}/")
        digest = hashlib.sha256(CONTENT).hexdigest()
        path = f"{tmp_path}/model.onnx"
        assert result == {"model_id": "m1", "target": "onnx", "path": path, "bytes": len(CONTENT), "sha256": digest}
        assert (tmp_path / "model.onnx").read_bytes() == CONTENT

    @pytest.mark.parametrize("kind", [str, ObjectStoragePath], ids=["text", "path"])
    def test_file_url_is_a_local_path(self, download, tmp_path, kind):
        download(kind(f"file://{tmp_path}/here.onnx"))
        assert [path.name for path in tmp_path.iterdir()] == ["here.onnx"]
        assert (tmp_path / "here.onnx").read_bytes() == CONTENT

    @pytest.mark.parametrize("destination", ["", "null", "file://", ObjectStoragePath("")])
    def test_an_empty_template_is_not_the_workers_directory(self, download, tmp_path, monkeypatch, destination):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(AirflowFailException, match="destination = .*: is empty"):
            download(destination)
        assert list(tmp_path.iterdir()) == []

    def test_broken_connection_is_resumed_with_a_range(self, download, sandbox, statuses, tmp_path):
        sandbox.control.fault("cut", "model.download", keep=1_000_000)
        download(tmp_path / "model.onnx")
        assert statuses() == [200, 206]
        assert (tmp_path / "model.onnx").read_bytes() == CONTENT

    def test_download_of_a_killed_task_is_resumed_by_the_next_try(self, connection, model, context, statuses, tmp_path):
        final = tmp_path / "model.onnx"

        def operator():
            return OsaiDownloadModelOperator(task_id="task", model_id=model, target="onnx", destination=str(final))

        killed = operator()
        killed.on_kill()
        with pytest.raises(OsaiDownloadFailed, match="killed"):
            killed.execute(context)
        assert not final.exists()
        operator().execute(context)
        assert (statuses(), final.read_bytes()) == ([200, 206], CONTENT)

    def test_checksum_mismatch_leaves_no_file(self, download, tmp_path):
        with pytest.raises(OsaiDownloadFailed, match="Checksum mismatch"):
            download(tmp_path / "model.onnx", sha256="0" * 64)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("options", [{"target": "coral"}, {"model_id": "nobody"}])
    def test_unknown_target_or_model_fails_without_retries(self, download, tmp_path, options):
        with pytest.raises(AirflowFailException, match="404"):
            download(tmp_path / "model.onnx", **options)
        assert not (tmp_path / "model.onnx").exists()

    def test_unknown_storage_scheme_fails_without_retries(self, download):
        with pytest.raises(AirflowFailException, match="provider of this storage installed"):
            download("nosuchscheme://bucket/model.onnx")


class TestConvert:
    def test_successful_conversion_is_reused_by_another_dag(self, convert, submitted, ti, logged):
        """The target is compared without case."""
        first = convert()
        ti.dag_id = "another"
        second = convert("JETSON")
        assert (first["reused"], second["reused"], submitted()) == (False, True, 1)
        assert second["conversion_id"] == first["conversion_id"]

    @pytest.mark.parametrize("options", [{"target": "coral"}, {"if_exists": "convert"}])
    def test_another_target_or_if_exists_convert_submits_a_conversion(self, convert, submitted, ti, options):
        convert()
        ti.dag_id = "another"
        assert convert(**options)["reused"] is False
        assert submitted() == 2

    def test_conversion_is_reused_with_durable_false(self, convert, submitted):
        """``durable=False`` affects only the task's own jobs."""
        convert()
        assert convert(durable=False)["reused"] is True
        assert submitted() == 1

    def test_api_without_a_conversion_list_submits_a_conversion(self, convert, connection, submitted, ti):
        connection(contract={"model.conversions": None})
        convert()
        ti.dag_id = "another"
        assert convert()["reused"] is False
        assert submitted() == 2

    def test_model_is_returned_though_the_api_does_not_report_it(self, convert, connection, model):
        connection(contract={"conversion.get": {"response": {"result.modelId": None}}})
        assert convert()["model_id"] == model

    def test_404_for_the_conversion_list_is_logged_and_submits_a_conversion(self, convert, sandbox, logged):
        sandbox.control.fault("status", "model.conversions", status=404)
        assert convert()["reused"] is False
        assert "does not list conversions" in logged()

    def test_unsupported_target_fails_without_retries_and_is_not_submitted_again(self, convert, submitted, ti):
        """The message names the targets the model is already converted for."""
        convert("jetson")
        for _ in range(2):
            with pytest.raises(AirflowFailException, match=r"UNSUPPORTED") as failed:
                convert("unsupported")
            assert isinstance(failed.value.__cause__, OsaiUnsupported)
            assert "jetson" in str(failed.value)
            ti.dag_id = "another"
        assert submitted() == 2

    def test_unsupported_target_can_skip_the_task(self, convert, submitted, ti):
        """On the first conversion, and when OSAI has already marked the target."""
        for _ in range(2):
            with pytest.raises(AirflowSkipException, match="UNSUPPORTED"):
                convert("unsupported", if_unsupported="skip")
            ti.dag_id = "another"
        assert submitted() == 1

    @pytest.mark.parametrize("name", ["if_exists", "if_unsupported"])
    def test_invalid_choice_fails_before_any_submission(self, convert, submitted, name):
        with pytest.raises(AirflowFailException, match=name):
            convert(**{name: "perhaps"})
        assert submitted() == 0


class TestExample:
    def test_example_has_at_most_sixty_lines(self):
        assert len((ROOT / "example_dags/example_osai_edge_model.py").read_text().splitlines()) <= 60

    def test_example_downloads_the_converted_file(self, run_dag, connection, model, tmp_path):
        run = run_dag("example_osai_edge_model", model_id=model, target="jetson", destination=f"{tmp_path}/")
        assert run.state == "success", run.tasks
        (file,) = tmp_path.iterdir()
        assert run.result("download_model", "path") == str(file)
        assert file.read_bytes() == b"simulated conversion\n"

    def test_unsupported_target_skips_both_tasks(self, run_dag, connection, model, tmp_path):
        run = run_dag("example_osai_edge_model", model_id=model, target="unsupported", destination=f"{tmp_path}/")
        assert run.tasks == {"convert_model": "skipped", "download_model": "skipped"}
        assert list(tmp_path.iterdir()) == []
