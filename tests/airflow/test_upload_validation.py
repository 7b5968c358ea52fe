"""``OsaiUploadImagesOperator(validate=...)``: what it logs, returns and refuses; the dataset stays as it was."""

from __future__ import annotations

import contextlib
import shutil

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from airflow.sdk import DAG

from airflow_provider_osai.api.errors import OsaiQualityCheckFailed
from airflow_provider_osai.operators.dataset import OsaiUploadImagesOperator
from airflow_provider_osai.uploads.uploader import Stopped
from tests.data.quality.making import fill, photo


@pytest.fixture
def folder(tmp_path):
    fill(tmp_path / "data" / "cat", 4)
    fill(tmp_path / "data" / "dog", 4, first=10)
    return tmp_path / "data"


@pytest.fixture
def with_conflict(folder):
    """A folder with an error, in which one image has two categories, and a warning."""
    photo(0).save(folder / "dog" / "copy.png")
    photo(11).save(folder / "dog" / "near.jpg", quality=80)
    return folder


def operator(dataset, source, **options):
    return OsaiUploadImagesOperator(task_id="task", dataset_id=dataset, source=str(source), **options)


def requests(sandbox, *names):
    counts = sandbox.control.record()["counts"]
    return sum(counts.get(name, 0) for name in names)


def changes(sandbox):
    return requests(sandbox, "upload.start", "upload.image", "category.create")


@pytest.mark.parametrize("validate", [None, "", "None"])
def test_by_default_nothing_is_checked(client, dataset, with_conflict, context, logged, validate):
    """Nor if the template of the argument is empty."""
    result = operator(dataset, with_conflict, validate=validate).execute(context)
    assert result["images"] == 10
    assert "quality" not in result
    assert "Data quality" not in logged()


@pytest.mark.parametrize("validate", ["warn", "fail", "STRICT"])
def test_good_images_are_uploaded_with_a_summary(client, dataset, folder, context, logged, validate):
    result = operator(dataset, folder, validate=validate).execute(context)
    assert result["images"] == 8
    assert result["quality"] == {"verdict": "passed", "images": 8, "errors": 0, "warnings": 0, "findings": {}}
    assert "Data quality: No problem found: 8 images in 2 categories checked" in logged()


def test_warn_logs_the_findings_and_uploads(client, dataset, with_conflict, context, logged):
    result = operator(dataset, with_conflict, validate="warn").execute(context)
    assert result["images"] == 10
    assert result["quality"]["findings"] == {"label-conflict": 1, "near-duplicate": 1}
    assert "Data quality: error label-conflict (1): Identical images have different categories" in logged()
    assert "cat/0.png, dog/copy.png: 'cat', 'dog'" in logged()
    assert "Data quality: warning near-duplicate (1)" in logged()


def test_fail_ends_the_task_before_anything_is_sent(client, dataset, sandbox, with_conflict, context):
    """Without retries. The summary is an XCom, since there is no result."""
    with pytest.raises(AirflowFailException, match=r"OsaiQualityCheckFailed: .*label-conflict.*Nothing was") as failed:
        operator(dataset, with_conflict, validate="fail").execute(context)
    assert isinstance(failed.value.__cause__, OsaiQualityCheckFailed)
    assert "near-duplicate" not in str(failed.value)
    assert changes(sandbox) == 0
    assert not client.send(client.calls.get_dataset(dataset)).locked
    assert context["ti"].xcoms["quality"]["verdict"] == "errors"


@pytest.mark.parametrize(("validate", "level"), [("warn", "warning"), ("fail", "error"), ("strict", "error")])
def test_a_bad_verdict_is_no_mere_information(client, dataset, with_conflict, context, logged, validate, level):
    with contextlib.suppress(AirflowFailException):
        operator(dataset, with_conflict, validate=validate).execute(context)
    (line,) = [line for line in logged().splitlines() if "Data quality: Not ready for training" in line]
    assert f"[{level}" in line


def test_strict_fails_on_warnings_fail_does_not(client, dataset, sandbox, folder, context):
    photo(11).save(folder / "dog" / "near.jpg", quality=80)
    with pytest.raises(AirflowFailException, match="near-duplicate"):
        operator(dataset, folder, validate="strict").execute(context)
    assert changes(sandbox) == 0
    assert operator(dataset, folder, validate="fail").execute(context)["images"] == 9


@pytest.mark.parametrize(
    "options",
    [{"ignore": ["label-conflict"]}, {"ignore": "label-conflict,near-duplicate", "max_imbalance": "20"}],
    ids=str,
)
def test_findings_can_be_accepted(client, dataset, with_conflict, context, options):
    result = operator(dataset, with_conflict, validate="fail", validate_options=options).execute(context)
    assert result["images"] == 10


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"validate": "maybe"}, "validate = 'maybe'"),
        ({"validate": True}, "validate = True"),
        (
            {"validate": "warn", "validate_options": {"min_size": 3, 7: 1}},
            "unknown '7', 'min_size'; .* holdout, ignore, .*",
        ),
        ({"validate": "warn", "validate_options": {"max_imbalance": 0}}, "max_imbalance = 0"),
        ({"validate": "warn", "validate_options": "min_side=3"}, "must be a dict"),
    ],
)
def test_an_invalid_argument_fails_without_retry_before_any_request(
    sandbox, connection, folder, context, options, reason
):
    with pytest.raises(AirflowFailException, match=reason):
        operator("1", folder, **options).execute(context)
    assert sandbox.control.record()["requests"] == []


def test_all_faults_are_reported_together(client, dataset, sandbox, with_conflict, context, logged):
    """Also those that would end the scan: an invalid file, and a category that is too small."""
    (with_conflict / "cat" / "notes.doc").write_text("text")
    fill(with_conflict / "owl", 1, first=50)
    (with_conflict / "cat" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(AirflowFailException, match="4 kinds of errors: unreadable-image") as failed:
        operator(dataset, with_conflict, validate="fail").execute(context)
    assert "broken.png" not in str(failed.value)  # the log has it already
    assert str(failed.value).endswith("or set validate='warn'")
    for code in ("unreadable-image", "invalid-file", "label-conflict", "few-images"):
        assert f"Data quality: error {code} (1)" in logged()
    assert changes(sandbox) == 0


def test_warn_does_not_accept_what_an_upload_rejects(client, dataset, sandbox, folder, context):
    (folder / "cat" / "notes.doc").write_text("text")
    with pytest.raises(AirflowFailException, match=r"notes\.doc"):
        operator(dataset, folder, validate="warn").execute(context)
    (folder / "cat" / "notes.doc").unlink()
    fill(folder / "owl", 1, first=50)
    with pytest.raises(AirflowFailException, match="each category needs at least 3 images, but 'owl' has 1"):
        operator(dataset, folder, validate="warn").execute(context)
    assert changes(sandbox) == 0


def test_skipped_files_do_not_fail_the_check(client, dataset, folder, context):
    (folder / "cat" / "notes.doc").write_text("text")
    (folder / "cat" / "empty.png").write_bytes(b"")
    result = operator(dataset, folder, validate="fail", on_invalid_file="skip").execute(context)
    assert (result["images"], result["invalid_count"]) == (8, 2)
    assert result["quality"]["verdict"] == "warnings"


def test_small_categories_are_accepted_if_the_upload_accepts_them(client, dataset, folder, context):
    """The dataset may already contain more images of them; the thresholds can still require some."""
    fill(folder / "owl", 1, first=50)
    accepts = {"validate": "fail", "min_images_per_category": 1}
    assert operator(dataset, folder, **accepts).execute(context)["images"] == 9
    with pytest.raises(AirflowFailException, match="few-images"):
        operator(dataset, folder, **accepts, validate_options={"min_images": 2}).execute(context)


def test_remedies_name_the_arguments_of_the_operator(client, dataset, folder, context, logged):
    fill(folder / "owl", 2, first=50)
    options = {"max_pixels": 96 * 80, "min_side": 81}
    photo(60, (97, 80)).save(folder / "cat" / "large.png")
    with pytest.raises(AirflowFailException):
        operator(dataset, folder, validate="fail", validate_options=options).execute(context)
    assert "raise max_pixels in validate_options if" in logged()
    assert "lower min_images_per_category." in logged()
    assert "The limit is min_side in validate_options." in logged()


def test_images_of_the_holdout_fail_the_check(client, dataset, sandbox, folder, context, tmp_path, logged):
    """The holdout has the forms of the source, and its own template."""
    shutil.copytree(folder / "cat", tmp_path / "holdout" / "cat")
    archive = shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path / "holdout")
    for holdout in (str(tmp_path / "holdout"), archive):
        with pytest.raises(AirflowFailException, match=r"1 kind of error: holdout-overlap \(4\)"):
            operator(dataset, folder, validate="fail", validate_options={"holdout": holdout}).execute(context)
    assert "cat/0.png, holdout: cat/0.png" in logged()
    assert changes(sandbox) == 0
    options = {"validate": "fail", "validate_options": {"holdout": "None"}}
    assert operator(dataset, folder, **options).execute(context)["images"] == 8
    assert options["validate_options"] == {"holdout": "None"}


@pytest.mark.parametrize("holdout", ["{tmp}/nowhere", "{tmp}/empty", 7], ids=str)
def test_a_holdout_that_cannot_be_read_fails_the_task(client, dataset, sandbox, folder, context, tmp_path, holdout):
    (tmp_path / "empty").mkdir()
    holdout = holdout.format(tmp=tmp_path) if isinstance(holdout, str) else holdout
    with pytest.raises(AirflowFailException, match=r"validate_options\['holdout'\]"):
        operator(dataset, folder, validate="warn", validate_options={"holdout": holdout}).execute(context)
    assert changes(sandbox) == 0


def test_a_kill_during_the_check_stops_the_task(client, dataset, sandbox, folder, context, monkeypatch):
    task = operator(dataset, folder, validate="fail")
    from airflow_provider_osai.data.quality import decoding

    decode = decoding._decode

    def decode_and_kill(*arguments):
        task.on_kill()
        return decode(*arguments)

    monkeypatch.setattr(decoding, "_decode", decode_and_kill)
    with pytest.raises(Stopped, match="nothing was uploaded"):
        task.execute(context)
    assert changes(sandbox) == 0


def test_a_retry_continues_an_interrupted_upload(client, dataset, sandbox, folder, context):
    """Each image is uploaded once, and is checked again before."""
    sandbox.control.fault("delay", "upload.image", seconds=0.2, times=1000)
    task = operator(dataset, folder, validate="fail", max_concurrency=1)
    uploader = task.build_uploader(client, context)
    uploader._collect_results = stop_after(uploader, uploader._collect_results, 2)
    with pytest.raises(Stopped):
        uploader.run()
    assert 0 < requests(sandbox, "upload.image") < 8
    result = operator(dataset, folder, validate="fail").execute(context)
    assert (result["images"], result["quality"]["verdict"]) == (8, "passed")
    assert requests(sandbox, "upload.image") == 8


def stop_after(uploader, collect, images):
    def collected(workers, progress, uncertain):
        collect(workers, progress, uncertain)
        if progress.uploaded >= images:
            uploader.stop()

    return collected


def test_a_failing_check_unlocks_what_a_killed_try_has_left_locked(client, dataset, folder, context):
    """The task will not be retried, so nothing else would."""
    store = context.get("task_state_store")
    if store is None:
        pytest.skip("this Airflow keeps no checkpoint")
    from airflow_provider_osai.operators._state_store import upload_checkpoint_store

    checkpoints = upload_checkpoint_store(context)
    checkpoints.load(dataset)
    checkpoints.save_upload_id(client.send(client.calls.start_upload(dataset)).id)
    assert client.send(client.calls.get_dataset(dataset)).locked
    photo(0).save(folder / "dog" / "copy.png")
    with pytest.raises(AirflowFailException, match="label-conflict"):
        operator(dataset, folder, validate="fail").execute(context)
    assert not client.send(client.calls.get_dataset(dataset)).locked


def test_a_second_run_after_the_correction_passes(client, dataset, with_conflict, context):
    with pytest.raises(AirflowFailException):
        operator(dataset, with_conflict, validate="fail").execute(context)
    (with_conflict / "dog" / "copy.png").unlink()
    assert operator(dataset, with_conflict, validate="fail").execute(context)["images"] == 9


def test_an_archive_is_checked_and_then_uploaded(client, dataset, folder, context, tmp_path):
    archive = shutil.make_archive(str(tmp_path / "data"), "gztar", folder)
    result = operator(dataset, archive, validate="strict").execute(context)
    assert (result["images"], result["quality"]["images"]) == (8, 8)


def test_the_arguments_can_be_mapped_and_templated(dataset):
    assert {"validate", "validate_options"} <= set(OsaiUploadImagesOperator.template_fields)
    with DAG("d", schedule=None):
        mapped = OsaiUploadImagesOperator.partial(task_id="t", dataset_id="1", source="x").expand_kwargs(
            [{"validate": "warn"}, {"validate": "fail", "validate_options": {"min_side": 64}}]
        )
    assert mapped.operator_class is OsaiUploadImagesOperator


@pytest.mark.parametrize(
    ("ignore", "states"), [("near-duplicate", ["success", "failed"]), ("label-conflict", ["success", "success"])]
)
def test_a_later_task_reads_the_summary_of_each_upload(run_dag, connection, sandbox, folder, tmp_path, ignore, states):
    """Mapped, from templates, and also of the one that failed, which was tried once."""
    other = fill(tmp_path / "other" / "cat", 3).parent
    fill(other / "dog", 3, first=10)
    photo(0).save(other / "dog" / "copy.png")
    ran = run_dag("validated", folders=[str(folder), str(other)], validate="fail", ignore=ignore)
    assert [ran.tasks[f"upload[{index}]"] for index in (0, 1)] == states
    first, second = ran.xcom("report")
    assert (first["verdict"], second["verdict"]) == ("passed", "passed" if ignore == "label-conflict" else "errors")
    assert second["images"] == 7
    tries = {ti.map_index: ti.try_number for ti in ran.run.get_task_instances() if ti.task_id == "upload"}
    assert tries == {0: 1, 1: 1}
