"""A model's file from a real local server, and conversions that are taken, impossible, or skipped."""

from __future__ import annotations

import hashlib
import random

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException
from airflow.sdk import ObjectStoragePath

from airflow_provider_osai.api.errors import OsaiDownloadFailed, OsaiUnsupported
from airflow_provider_osai.operators.conversion import OsaiConvertModelOperator, OsaiDownloadModelOperator
from airflow_provider_osai.sandbox.records import ModelRecord
from tests.conftest import ROOT

CONTENT = random.Random(1).randbytes(3_000_000)


@pytest.fixture
def model(sandbox):
    """A model of three megabytes for ``onnx``."""
    path = sandbox.state.folder / "model.onnx"
    path.write_bytes(CONTENT)
    sandbox.state.add_model(ModelRecord("m1", "digits", "classification", {}, ("0", "1"), files={"onnx": path}))
    return "m1"


@pytest.fixture
def download(connection, model, context):
    """Download it."""

    def run(destination, **options):
        defaults = {"task_id": "task", "model_id": model, "target": "onnx"}
        return OsaiDownloadModelOperator(destination=destination, **defaults | options).execute(context)

    return run


@pytest.fixture
def convert(connection, model, context):
    """Convert it."""

    def run(target="jetson", **options):
        defaults = {"task_id": "task", "model_id": model, "poll_interval": 0.05, "deferrable": False}
        return OsaiConvertModelOperator(target=target, **defaults | options).execute(context)

    return run


@pytest.fixture
def statuses(sandbox):
    """How the server answered to downloads."""
    return lambda: [
        one["status"] for one in sandbox.control.record()["requests"] if one["endpoint"] == "model.download"
    ]


@pytest.fixture
def submitted(sandbox):
    """How many conversions were submitted."""
    return lambda: sandbox.control.record()["counts"].get("conversion.submit", 0)


class TestDownload:
    """To this machine and to storages."""

    def test_the_file_is_the_servers(self, download, tmp_path):
        """With its digest."""
        told = download(f"{tmp_path}/")
        digest = hashlib.sha256(CONTENT).hexdigest()
        path = f"{tmp_path}/model.onnx"
        assert told == {"model_id": "m1", "target": "onnx", "path": path, "bytes": len(CONTENT), "sha256": digest}
        assert (tmp_path / "model.onnx").read_bytes() == CONTENT

    @pytest.mark.parametrize("kind", [str, ObjectStoragePath], ids=["text", "path"])
    def test_a_file_address_is_this_machine(self, download, tmp_path, kind):
        """As Airflow means it."""
        download(kind(f"file://{tmp_path}/here.onnx"))
        assert [path.name for path in tmp_path.iterdir()] == ["here.onnx"]
        assert (tmp_path / "here.onnx").read_bytes() == CONTENT

    def test_a_cut_connection_is_resumed_by_a_range(self, download, sandbox, statuses, tmp_path):
        """The server sends only the rest."""
        sandbox.control.fault("cut", "model.download", keep=1_000_000)
        download(tmp_path / "model.onnx")
        assert statuses() == [200, 206]
        assert (tmp_path / "model.onnx").read_bytes() == CONTENT

    def test_what_a_killed_task_left_is_gone_on_with(self, connection, model, context, statuses, tmp_path):
        """By the next try on this machine."""
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

    def test_another_file_than_was_wanted_is_refused(self, download, tmp_path):
        """Nothing is under its name."""
        with pytest.raises(OsaiDownloadFailed, match="checksum"):
            download(tmp_path / "model.onnx", sha256="0" * 64)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("options", [{"target": "coral"}, {"model_id": "nobody"}])
    def test_what_is_not_there_fails_for_good(self, download, tmp_path, options):
        """No retry makes it."""
        with pytest.raises(AirflowFailException, match="404"):
            download(tmp_path / "model.onnx", **options)
        assert not (tmp_path / "model.onnx").exists()

    def test_a_storage_that_airflow_does_not_know_fails_for_good(self, download):
        """And says so."""
        with pytest.raises(AirflowFailException, match="provider installed"):
            download("nosuchscheme://bucket/model.onnx")


class TestConvert:
    """What is already there is not paid for twice."""

    def test_a_conversion_that_succeeded_is_taken_by_others(self, convert, submitted, ti, logged):
        """Another Dag, the same model and target, whatever its case."""
        first = convert()
        ti.dag_id = "another"
        second = convert("JETSON")
        assert (first["reused"], second["reused"], submitted()) == (False, True, 1)
        assert second["conversion_id"] == first["conversion_id"]

    @pytest.mark.parametrize("options", [{"target": "coral"}, {"if_exists": "convert"}])
    def test_another_target_or_the_users_will_converts(self, convert, submitted, ti, options):
        """Then there are two."""
        convert()
        ti.dag_id = "another"
        assert convert(**options)["reused"] is False
        assert submitted() == 2

    def test_one_without_memory_takes_it_too(self, convert, submitted):
        """``durable=False`` is about the task's own jobs."""
        convert()
        assert convert(durable=False)["reused"] is True
        assert submitted() == 1

    def test_an_api_that_lists_none_converts(self, convert, connection, submitted, ti):
        """The operation is only assumed."""
        connection(contract={"model.conversions": None})
        convert()
        ti.dag_id = "another"
        assert convert()["reused"] is False
        assert submitted() == 2

    def test_an_api_that_knows_no_list_says_so_and_converts(self, convert, sandbox, logged):
        """404 is no reason to fail."""
        sandbox.control.fault("status", "model.conversions", status=404)
        assert convert()["reused"] is False
        assert "does not tell what is already converted" in logged()

    def test_what_is_impossible_fails_for_good_and_is_not_tried_again(self, convert, submitted, ti):
        """The second time OSAI's word of before is enough, and the message names what would do."""
        convert("jetson")
        for _ in range(2):
            with pytest.raises(AirflowFailException, match=r"UNSUPPORTED") as failed:
                convert("unsupported")
            assert isinstance(failed.value.__cause__, OsaiUnsupported)
            assert "jetson" in str(failed.value)
            ti.dag_id = "another"
        assert submitted() == 2

    def test_what_is_impossible_can_be_skipped(self, convert, submitted, ti):
        """Both when it is found out and when it is known."""
        for _ in range(2):
            with pytest.raises(AirflowSkipException, match="UNSUPPORTED"):
                convert("unsupported", if_unsupported="skip")
            ti.dag_id = "another"
        assert submitted() == 1

    @pytest.mark.parametrize("name", ["if_exists", "if_unsupported"])
    def test_a_choice_that_is_none_is_refused(self, convert, submitted, name):
        """Before anything is asked."""
        with pytest.raises(AirflowFailException, match=name):
            convert(**{name: "perhaps"})
        assert submitted() == 0


class TestExample:
    """Convert, download."""

    def test_it_is_short(self):
        """At most sixty lines."""
        assert len((ROOT / "example_dags/example_osai_edge_model.py").read_text().splitlines()) <= 60

    def test_it_brings_the_file_home(self, run_dag, connection, model, tmp_path):
        """Of the conversion that it made."""
        ran = run_dag("example_osai_edge_model", model_id=model, target="jetson", destination=f"{tmp_path}/")
        assert ran.state == "success", ran.tasks
        (file,) = tmp_path.iterdir()
        assert ran.xcom("download_model", "path") == str(file)
        assert file.read_bytes() == b"simulated conversion\n"

    def test_an_impossible_target_skips_both(self, run_dag, connection, model, tmp_path):
        """And does not fail the run."""
        ran = run_dag("example_osai_edge_model", model_id=model, target="unsupported", destination=f"{tmp_path}/")
        assert ran.tasks == {"convert_model": "skipped", "download_model": "skipped"}
        assert list(tmp_path.iterdir()) == []
