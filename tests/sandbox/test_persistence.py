"""A sandbox with a folder continues where an earlier one was stopped or killed."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import shutil
import sqlite3
import subprocess
import sys
import time
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from airflow_provider_osai.api.models import JobKind, JobState
from airflow_provider_osai.api.requests import DeviceRentalRequest, TrainingRequest
from airflow_provider_osai.sandbox import Sandbox, SandboxState
from airflow_provider_osai.sandbox.persistence import FolderError
from airflow_provider_osai.sandbox.scenarios import Script
from tests.conftest import CANARY
from tests.sandbox.client import Api, png, shades

RENTAL = DeviceRentalRequest(device="jetson", duration=60)
KIND = JobKind.DEVICE_RENTAL
BODY = {"device": "jetson", "duration": 60}
LATER = {"confusionMatrix", "samples"}
"""Fields of a job's result that earlier versions did not write."""
ENDLESS_PARAMETERS = {"epochs": 1_000_000}


@pytest.fixture
def folder(tmp_path):
    """Return a folder that does not exist yet."""
    return tmp_path / "kept" / "here"


@pytest.fixture
def kept(folder, clock):
    """Return a function that opens the folder's state, by default without workers."""
    return lambda workers=0: SandboxState(folder=folder, workers=workers, clock=clock, access_token="right")


@contextmanager
def process(folder, port=0):
    """Run a sandbox as a process and return a client; kill it at the end."""
    command = [sys.executable, "-m", "airflow_provider_osai.sandbox", "--folder", str(folder), "--port", str(port)]
    command += ["--access-token", CANARY]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) as running:
        try:
            details = json.loads(running.stdout.readline())
            with Api(
                SimpleNamespace(**details, access_token=CANARY, portal=details["base_url"].removesuffix("/api"))
            ) as client:
                yield client
        finally:
            running.kill()


@pytest.fixture(scope="module")
def before(tmp_path_factory):
    """Return what the first sandbox of a folder contained and returned."""
    folder = tmp_path_factory.mktemp("whole")
    with Sandbox(folder=folder) as sandbox, Api(sandbox) as api:
        made = SimpleNamespace(folder=folder, dataset=api.dataset(shades(), name="shades"))
        made.model = api.train(made.dataset)["result"]["modelId"]
        api.run("Conversions", modelId=made.model, target="onnx")
        api.run("Predictions", modelId=made.model, datasetId=made.dataset)
        body = {"datasetId": made.dataset, "name": "more", "operations": [{"type": "rotation", "angle": 9}]}
        made.more = api.run("Manipulations", **body)["result"]["datasetId"]
        made.paths = [*paths(made), *job_paths(api)]
        made.responses, made.jobs = responses(api, made), sandbox.control.record()["jobs"]
        made.labels = [sandbox.control.images(each) for each in (made.dataset, made.more)]
        made.old = api.headers["Authorization"]
    return made


@pytest.fixture
def again(before, tmp_path):
    """Return a client of a sandbox with a copy of that folder, since a folder may be moved."""
    shutil.copytree(before.folder, tmp_path / "copy")
    with Sandbox(folder=tmp_path / "copy") as sandbox, Api(sandbox) as client:
        yield client


class TestStopped:
    """After an orderly stop, in one process."""

    def test_responses_are_the_same_after_a_restart(self, before, again):
        """Datasets, categories, models, converted files, jobs with their history and order, and labels."""
        assert len(before.jobs) == 4
        for name in (b"valAccuracy", b"confusionMatrix", b"samples"):
            assert any(name in answer for answer in before.responses)
        assert responses(again, before) == before.responses
        assert again.sandbox.control.record()["jobs"] == before.jobs
        assert [again.sandbox.control.images(each) for each in (before.dataset, before.more)] == before.labels

    def test_model_still_predicts_and_can_be_retrained(self, before, again):
        for dataset_id in (before.dataset, again.dataset(shades(4))):
            predicted = again.run("Predictions", modelId=before.model, datasetId=dataset_id)
            assert (predicted["message"], predicted["result"]["metrics"]["accuracy"]) == (None, 1.0)
        body = {"modelId": before.model, "datasetIds": [before.dataset], "modelName": "m2"}
        retrained = again.run("Retrainings", **body, parameters={"epochs": 1})
        assert retrained["result"]["metrics"]["accuracy"] == 1.0

    def test_folder_whose_jobs_have_no_confusion_matrix_and_samples_is_read(self, before, tmp_path):
        """As jobs of an earlier version."""
        folder = shutil.copytree(before.folder, tmp_path / "older")
        with contextlib.closing(sqlite3.connect(folder / "sandbox.sqlite3")) as database, database:
            rows = database.execute("SELECT id, data FROM record WHERE kind = 'JobRecord'").fetchall()
            for job_id, data in rows:
                job = pickle.loads(data)
                job.result = {name: each for name, each in job.result.items() if name not in LATER}
                database.execute("UPDATE record SET data = ? WHERE id = ?", (pickle.dumps(job), job_id))
        with Sandbox(folder=folder) as sandbox, Api(sandbox) as api:
            for path in job_paths(api):
                job = api.ok("GET", path)
                assert (job["status"], LATER & set(job["result"])) == ("succeeded", set())
                assert api.get(f"{sandbox.portal_url}{path.lower()}").status_code == 200
            assert "confusionMatrix" in api.train(before.dataset, epochs=1)["result"]

    def test_jwts_are_invalid_after_a_restart(self, before, again):
        """As with a real server."""
        assert again.get("/Datasets", headers={"Authorization": before.old}).status_code == 401
        assert again.get("/Datasets").status_code == 200


def paths(made):
    """Return the paths of the datasets, their categories, and the model with its file."""
    datasets = (made.dataset, made.more)
    addresses = [f"/Datasets/{each}" for each in datasets] + [f"/Categories?datasetId={each}" for each in datasets]
    return [*addresses, "/Datasets", f"/Models/{made.model}", f"/Models/{made.model}/Download?target=onnx"]


def job_paths(api):
    resources = {"conversion": "Conversions", "manipulation": "Manipulations"}
    resources |= {"prediction": "Predictions", "training": "Trainings"}
    return [f"/{resources[job['kind']]}/{job['id']}" for job in api.sandbox.control.record()["jobs"]]


def responses(api, made):
    """Return the response bodies."""
    got = [api.get(path) for path in made.paths]
    assert {answer.status_code for answer in got} == {200}
    return [answer.content for answer in got]


class TestKilled:
    """After SIGKILL, in separate processes."""

    def test_open_upload_continues(self, folder):
        """With the images stored before, at the same address."""
        with process(folder) as api:
            dataset_id = api.dataset()
            upload_id = api.ok("POST", f"/Datasets/{dataset_id}/StartUploading")["id"]
            made = api.ok("POST", "/Categories", json={"datasetId": dataset_id, "name": "dark"})
            taken = [api.image(dataset_id, upload_id, png(i), categoryId=made["id"]).json()["id"] for i in range(5)]
            updated_at = api.ok("GET", f"/Datasets/{dataset_id}")["updatedAt"]
        with process(folder, port=api.base_url.port) as again:
            assert again.base_url == api.base_url
            assert again.ok("GET", f"/Datasets/{dataset_id}") == {
                "id": dataset_id,
                "name": "data",
                "locked": True,
                "imageCount": 5,
                "updatedAt": updated_at,
            }
            taken.append(again.image(dataset_id, upload_id, png(9), categoryId=made["id"]).json()["id"])
            finish = f"/Datasets/{dataset_id}/FinishUploading"
            assert again.ok("POST", finish, params={"datasetUploadId": upload_id}) == {}
            shown = again.get(f"{again.sandbox.portal}/sandbox/datasets/{dataset_id}/images").json()
        assert [(image["id"], image["category"]) for image in shown] == [(image_id, "dark") for image_id in taken]

    def test_jobs_continue_by_their_timing(self, folder):
        """Ended jobs stay ended, reads continue counting, and time has passed."""
        with process(folder) as api:
            ids = {}
            for timing, details in (("immediate", {}), ("reads", {"reads": 3}), ("seconds", {"seconds": 3600})):
                script(api, timing=timing, **details)
                ids[timing] = api.ok("POST", "/DeviceRentals", json={**BODY, "reference": timing})["id"]
            api.ok("GET", f"/DeviceRentals/{ids['reads']}")
            known = {timing: api.ok("GET", f"/DeviceRentals/{job_id}") for timing, job_id in ids.items()}
        with process(folder) as again:
            seen = {timing: again.ok("GET", "/DeviceRentals", params={"reference": timing}) for timing in ids}
            ended = [again.ok("GET", f"/DeviceRentals/{ids['reads']}")["status"] for _ in range(2)]
        assert [seen["immediate"], seen["seconds"]] == [[known["immediate"]], [known["seconds"]]]
        assert known["immediate"]["status"] == "succeeded"
        assert (known["reads"]["progress"], seen["reads"][0]["progress"]) == (0.5, 0.75)
        assert ended == ["succeeded", "succeeded"]

    def test_running_training_starts_over(self, folder):
        """As the same job with a new history; once cancelled, it stays cancelled after a second kill."""
        with process(folder) as api:
            job_id = start_endless_training(api)
            first = api.ok("GET", f"/Trainings/{job_id}")
        with process(folder) as again:
            wait_until_running(again, job_id)
            job = again.ok("GET", f"/Trainings/{job_id}")
            again.ok("POST", f"/Trainings/{job_id}/Cancel")
        with process(folder) as third:
            assert third.ended("Trainings", job_id)["status"] == "cancelled"
        assert (job["createdAt"], job["reference"]) == (first["createdAt"], "r")
        assert job["startedAt"] > first["startedAt"]
        assert job["history"][0] == first["history"][0]


def script(api, **details):
    assert api.post(f"{api.sandbox.portal}/sandbox/scripts", json=details).status_code == 204


def start_endless_training(api):
    """Submit a training that does not end by itself, and return its id when it is running."""
    body = {
        "datasetIds": [api.dataset(shades(3))],
        "modelName": "m",
        "parameters": ENDLESS_PARAMETERS,
        "reference": "r",
    }
    return wait_until_running(api, api.ok("POST", "/Trainings", json=body)["id"])


def wait_until_running(api, job_id):
    while not api.ok("GET", f"/Trainings/{job_id}")["history"]:
        time.sleep(0.02)
    return job_id


class TestJobs:
    """Jobs after a restart, with an injected clock."""

    def test_job_timed_by_seconds_ends_by_the_clock(self, kept, clock):
        """Time before the restart counts."""
        with kept() as state:
            job = state.submit(RENTAL, Script(timing="seconds", seconds=60))
        clock.now += 59
        with kept() as state:
            assert state.jobs.get(KIND, job.id).state is JobState.RUNNING
            clock.now += 1
            assert state.jobs.get(KIND, job.id).state is JobState.SUCCEEDED

    def test_queued_job_runs_after_the_restart(self, kept):
        with kept() as state:
            dataset = state.datasets.create("empty")
            request = TrainingRequest(dataset_ids=dataset.id, model_name="m")
            job = state.submit(request, reference="r")
        with kept(workers=1) as state, Sandbox(state=state) as sandbox, Api(sandbox) as api:
            assert "No images to train on" in api.ended("Trainings", job.id)["message"]
            assert [queued.id for queued in state.jobs.find(JobKind.TRAINING, None, "r")] == [job.id]

    def test_job_cancelled_before_the_restart_never_succeeds(self, kept):
        """Even if no worker had noticed, and without a worker now."""
        with kept() as state:
            job = state.submit(TrainingRequest(dataset_ids=state.datasets.create("d").id, model_name="m"))
            state.jobs._start(job)  # as a worker does before it is killed
            state.jobs.cancel(job.kind, job.id)
            assert job.state is JobState.RUNNING
        with kept() as state:
            state.jobs.resume()
            assert state.jobs.get(job.kind, job.id).state is JobState.CANCELLED

    def test_dataset_used_by_a_job_is_still_in_use_after_the_restart(self, kept):
        with kept() as state:
            dataset = state.datasets.create("d")
            state.submit(TrainingRequest(dataset_ids=dataset.id, model_name="m"))
        with kept() as state:
            assert state.jobs.uses_dataset(dataset.id)

    @pytest.mark.parametrize("details", [{"timing": "seconds", "seconds": 60}, {"timing": "work"}])
    def test_webhook_of_a_job_that_ends_after_the_restart_is_sent(self, kept, clock, receiver, details):
        """Even if its time was up before the restart."""
        with kept() as state:
            job = state.submit(RENTAL, Script(**details), webhook_url=receiver.url)
            state.jobs.tick()
        clock.now += 61
        with kept(workers=1) as state, Sandbox(state=state):
            assert receiver.taken.get(timeout=20) == {"id": job.id, "kind": "device_rental", "status": "succeeded"}
        assert receiver.taken.empty()

    def test_reads_of_a_scripted_status_word_continue_counting(self, kept):
        """The job itself is queued again."""
        with kept() as state:
            request = TrainingRequest(dataset_ids=state.datasets.create("d").id, model_name="m")
            job = state.submit(request, Script(word="Pondering", word_reads=2))
            state.jobs._start(job)  # as a worker does before it is killed
            state.jobs.read(job.kind, job.id)
        with kept() as state:
            assert state.jobs.get(job.kind, job.id).state is JobState.QUEUED
            assert [state.jobs.read(job.kind, job.id).reads for _ in range(2)] == [2, 3]


class TestFolder:
    """The contents of the folder."""

    def test_deleted_dataset_stays_deleted(self, kept):
        with kept() as state:
            gone, stays = state.datasets.create("gone"), state.datasets.create("stays")
            upload(state, gone, 3)
            state.delete_dataset(gone.id)
        with kept() as state:
            assert [dataset.id for dataset in state.datasets.find(None)] == [stays.id]
            assert [path.name for path in state.folder.iterdir()] == [stays.id]

    def test_reset_empties_the_folder(self, kept):
        with kept() as state:
            upload(state, state.datasets.create("d"), 3)
            state.submit(TrainingRequest(dataset_ids=[state.datasets.find(None)[0].id], model_name="m"))
            state.submit(RENTAL, Script(timing="immediate"))
            state.reset()
        with kept() as state:
            assert (state.jobs.all_jobs(), state.datasets.find(None), state.models) == ([], [], {})
            assert list(state.folder.iterdir()) == []

    def test_files_of_killed_jobs_are_deleted(self, kept):
        """But nothing outside of the sandbox's own folder."""
        with kept() as state:
            draft = state.datasets.draft("never added")
            (draft.folder / "image").touch()
            (state.folder / "file.onnx").touch()
            (state.folder.parent / "mine.txt").touch()
        with kept() as state:
            assert list(state.folder.iterdir()) == []
            assert (state.folder.parent / "mine.txt").exists()

    def test_files_are_private_and_contain_no_tokens(self, folder):
        """Checked while the sandbox runs, since SQLite has additional files then."""
        with Sandbox(folder=folder, access_token=CANARY) as sandbox, Api(sandbox) as api:
            api.dataset({"": [png()]})
            api.ok("POST", "/DeviceRentals", json=BODY)
            secrets = [CANARY.encode(), api.headers["Authorization"].removeprefix("Bearer ").encode()]
            files = [path for path in folder.rglob("*") if path.is_file()]
            assert len([path for path in files if "sqlite3" in path.name]) >= 2
            assert not [path for path in files if "sqlite3" in path.name and path.stat().st_mode & 0o077]
            assert not [path for path in files for secret in secrets if secret in path.read_bytes()]

    def test_adding_an_image_does_not_rewrite_the_others(self, kept):
        """Otherwise the cost of an upload would be quadratic."""
        with kept() as state:
            dataset = state.datasets.create("d")
            upload(state, dataset, 1)
            size = len(pickle.dumps(dataset))
            upload(state, dataset, 50)
            assert len(dataset.images) == 51
            assert len(pickle.dumps(dataset)) < 2 * size

    def test_without_a_folder_only_images_are_written_and_deleted_at_the_end(self):
        with SandboxState() as state:
            upload(state, state.datasets.create("d"), 2)
            state.submit(RENTAL, Script(timing="immediate"))
            files = [path for path in state.folder.rglob("*") if path.is_file()]
            assert {path.name for path in files} == set(state.datasets.find(None)[0].images)
        assert not state.folder.exists()

    def test_second_sandbox_with_the_folder_fails_while_the_first_runs(self, kept, folder):
        """In the same process or another; the first is not affected."""
        command = [sys.executable, "-m", "airflow_provider_osai.sandbox", "--folder", str(folder)]
        with kept() as state:
            with pytest.raises(FolderError, match="Another sandbox uses"):
                kept()
            other = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
            state.datasets.create("d")
        assert (other.returncode, other.stdout) == (1, "")
        assert other.stderr == f"osai-airflow sandbox: Another sandbox uses {folder}; stop it, or use another folder\n"
        with kept() as state:
            assert len(state.datasets.find(None)) == 1

    @pytest.mark.parametrize("harm", ["PRAGMA user_version = 99", "UPDATE record SET data = x'00'"])
    def test_unreadable_records_raise_and_release_the_folder(self, kept, folder, harm):
        with kept() as state:
            state.datasets.create("d")
        with sqlite3.connect(folder / "sandbox.sqlite3") as database:
            database.execute(harm)
        database.close()
        for _ in range(2):
            with pytest.raises(FolderError, match=r"Cannot read .*sandbox\.sqlite3 .* new folder"):
                kept()

    def test_file_that_is_not_a_database_raises_and_is_not_changed(self, kept, folder):
        folder.mkdir(parents=True)
        (folder / "sandbox.sqlite3").write_text("not a database\n" * 100)
        with pytest.raises(FolderError, match="file is not a database"):
            kept()
        assert (folder / "sandbox.sqlite3").read_text().startswith("not a database")


def upload(state, dataset, count):
    """Add images in one upload."""
    upload_id = state.datasets.start_upload(dataset.id)
    for i in range(count):
        state.datasets.add_image(dataset.id, upload_id, io.BytesIO(png(i)), file_name=f"{i}.png")
    state.datasets.finish_upload(dataset.id, upload_id)
