"""Conversions asked for once and told apart from impossible ones; files brought home, in a local OSAI."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException
from airflow.sdk import ObjectStoragePath

from airflow_provider_osai.api.errors import OsaiDownloadFailed
from airflow_provider_osai.operators.conversion import OsaiConvertModelOperator, OsaiDownloadModelOperator
from tests.sandbox.client import Api, shades


@pytest.fixture
def model(sandbox):
    with Api(sandbox) as api:
        return api.train(api.dataset(shades()), epochs=2)["result"]["modelId"]


@pytest.fixture
def convert(connection, model):
    def made(target="onnx", **options):
        defaults = {"task_id": "task", "model_id": model, "deferrable": False, "poll_interval": 0.05}
        return OsaiConvertModelOperator(**defaults | {"target": target} | options)

    return made


@pytest.fixture
def download(connection, model):
    def made(destination, **options):
        return OsaiDownloadModelOperator(
            **{"task_id": "task", "model_id": model, "target": "onnx", "destination": destination} | options
        )

    return made


def conversions(sandbox):
    return [job for job in sandbox.control.record()["jobs"] if job["kind"] == "conversion"]


class TestConversion:
    """Nothing is paid for twice."""

    def test_one_that_is_there_is_taken_whoever_asked_for_it(self, convert, context, ti, sandbox):
        """Here another run, which has nothing in common with this one."""
        first = convert().execute(context)
        ti.run_id, ti.task_id = "another run", "another"
        context.pop("task_state_store", None)
        again = convert(task_id="another", target="ONNX").execute(context)
        assert (first["reused"], again["reused"]) == (False, True)
        assert first["conversion_id"] == again["conversion_id"]
        assert len(conversions(sandbox)) == 1

    def test_it_is_asked_for_anew_if_the_user_wants_that(self, convert, context, ti, sandbox):
        """``if_exists="convert"``."""
        convert().execute(context)
        ti.run_id = "another run"
        context.pop("task_state_store", None)
        assert convert(if_exists="convert").execute(context)["reused"] is False
        assert len(conversions(sandbox)) == 2

    def test_an_impossible_one_fails_at_once_and_says_what_is_possible(self, convert, context, ti):
        """With the targets that are known to be good."""
        convert().execute(context)
        ti.run_id = "another run"
        context.pop("task_state_store", None)
        with pytest.raises(AirflowFailException, match=r"OsaiUnsupported: .*'unsupported'; .*converted for: onnx"):
            convert("unsupported").execute(context)

    def test_an_impossible_one_is_not_asked_for_again(self, convert, context, ti, sandbox):
        """OSAI has said so before."""
        for run_id in ("first", "second"):
            ti.run_id = run_id
            context.pop("task_state_store", None)
            with pytest.raises(AirflowFailException, match="OsaiUnsupported"):
                convert("unsupported").execute(context)
        assert len(conversions(sandbox)) == 1

    def test_an_impossible_one_may_skip(self, convert, context, ti, sandbox):
        """When it ends so, and when it is known beforehand."""
        for run_id in ("first", "second"):
            ti.run_id = run_id
            context.pop("task_state_store", None)
            with pytest.raises(AirflowSkipException, match="cannot be converted"):
                convert("unsupported", if_unsupported="skip").execute(context)

    def test_without_the_list_it_is_asked_for(self, convert, connection, context, ti, sandbox):
        """The list is only assumed."""
        connection(contract='{"model.conversions": null}')
        for run_id in ("first", "second"):
            ti.run_id = run_id
            context.pop("task_state_store", None)
            assert convert().execute(context)["reused"] is False
        assert len(conversions(sandbox)) == 2

    @pytest.mark.parametrize("wrong", [{"if_exists": "maybe"}, {"if_unsupported": "cry"}])
    def test_a_word_that_is_none_of_the_choices_is_refused(self, convert, context, wrong):
        """By its name."""
        with pytest.raises(AirflowFailException, match=next(iter(wrong))):
            convert(**wrong).execute(context)


class TestDownload:
    """Whole, checked, under its name."""

    @pytest.fixture(autouse=True)
    def converted(self, convert, context):
        return convert().execute(context)

    @pytest.mark.parametrize("storage", [False, True])
    def test_a_models_file_comes_to_a_path_or_a_storage(self, download, context, tmp_path, storage):
        """It is the model: ONNX reads it."""
        import onnxruntime

        place = tmp_path / "models" / "digits.onnx"
        told = download(ObjectStoragePath(f"file://{place}") if storage else str(place)).execute(context)
        content = place.read_bytes()
        assert told["sha256"] == hashlib.sha256(content).hexdigest()
        assert told["bytes"] == len(content)
        assert onnxruntime.InferenceSession(content).get_inputs()[0].name == "pixels"
        assert [path.name for path in place.parent.iterdir()] == ["digits.onnx"]

    def test_a_connection_that_breaks_is_made_again_and_only_the_rest_is_sent(
        self, download, context, tmp_path, sandbox, monkeypatch
    ):
        """The sandbox cuts it off in the middle."""
        monkeypatch.setattr("airflow_provider_osai.data.downloads.LONGEST_PAUSE", 0.01)
        sandbox.control.fault("cut", "model.download", length=1000)
        told = download(f"{tmp_path}/").execute(context)
        assert Path(told["path"]).stat().st_size == told["bytes"] > 1000
        seen = [request for request in sandbox.control.record()["requests"] if request["endpoint"] == "model.download"]
        assert [request["status"] for request in seen] == [200, 206]

    def test_a_wrong_checksum_leaves_no_file(self, download, context, tmp_path):
        """The user knows better what it has to be."""
        with pytest.raises(OsaiDownloadFailed, match="checksum"):
            download(f"{tmp_path}/x", sha256="0" * 64).execute(context)
        assert list(tmp_path.iterdir()) == []

    def test_a_target_that_it_is_not_converted_for_is_refused(self, download, context, tmp_path):
        """No retry is wasted."""
        with pytest.raises(AirflowFailException, match="not converted for tflite; it is for: onnx"):
            download(f"{tmp_path}/x", target="tflite").execute(context)

    def test_a_kill_ends_it_and_a_retry_goes_on(self, download, context, tmp_path):
        """As a signal handler does it."""
        task = download(f"{tmp_path}/x")
        task.on_kill()
        with pytest.raises(OsaiDownloadFailed, match="the task was killed"):
            task.execute(context)
        assert Path(download(f"{tmp_path}/x").execute(context)["path"]).name == "x"
