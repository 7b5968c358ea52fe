"""The panel of jobs: who may see it, what it says, and that it gives nothing away."""

from __future__ import annotations

import pytest
from airflow.api_fastapi import app as airflow_app
from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
from starlette.testclient import TestClient

from airflow_provider_osai.plugins.panel import create_panel
from tests.conftest import CANARY, SECRET

DAG = "example_osai_retraining"


class Guard(SimpleAuthManager):
    """Lets the user "stranger" read no Dag, and everybody else all."""

    def is_authorized_dag(self, *, method, user, access_entity=None, details=None):
        if user.get_id() == "stranger":
            return False
        return super().is_authorized_dag(method=method, user=user, access_entity=access_entity, details=details)


@pytest.fixture(scope="module")
def guard():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW__API_AUTH__JWT_SECRET", "for these tests only, " * 4)
        made = Guard()
        # Where Airflow 3.1 keeps it is another place; both are what get_auth_manager gives.
        kept = getattr(airflow_app, "_AuthManagerState", None)
        patch.setattr(*((kept, "instance") if kept else (airflow_app, "auth_manager")), made)
        assert airflow_app.get_auth_manager() is made
        yield made


@pytest.fixture
def browser(guard):
    """A client of the panel, signed in as somebody; ``None``: not signed in."""

    def make(name="viewer", role="VIEWER"):
        client = TestClient(create_panel())
        if name:
            token = guard.generate_jwt(SimpleAuthManagerUser(username=name, role=role))
            client.headers["Authorization"] = f"Bearer {token}"
        return client

    return make


@pytest.fixture
def ran(run_dag, connection, images):
    return run_dag(DAG, images=str(images))


def task(ran, task_id="train_model", map_index="-1"):
    return f"/task/{DAG}/{ran.run.run_id}/{task_id}/{map_index}"


def test_a_viewer_sees_the_training_with_its_curves(browser, ran):
    """State, times, metrics, a line for each epoch, and where the portal shows it."""
    client = browser()
    page = client.get(task(ran))
    assert page.status_code == 200
    assert 'data-job="-1/job"' in page.text
    job = client.get(f"{task(ran)}/job").json()
    assert (job["kind"], job["state"], job["is_terminal"]) == ("training", "succeeded", True)
    assert len(job["history"]) == 20
    facts = dict(job["facts"])
    assert facts["Model"] == ran.xcom("train_model", "model_id")
    assert {"Submitted", "Waited in the queue", "Ran", "accuracy"} <= set(facts)
    assert job["portal_url"].endswith(f"/trainings/{job['id']}")
    assert not SECRET.search(page.text + str(job))


def test_a_task_that_is_not_mapped_has_the_address_that_airflows_page_gives_it(browser, ran):
    """It leaves the map index as it is."""
    assert 'data-job="-1/job"' in browser().get(task(ran, map_index="{MAP_INDEX}")).text


def test_the_list_has_all_jobs_of_dags_that_the_user_may_read(browser, ran):
    """With links to their panels."""
    text = browser().get("/").text
    for name in ("train_model", "convert_model", "predict"):
        assert ran.xcom(name, "job_id") in text
        assert f"/{name}/-1" in text


@pytest.mark.parametrize("path", ["", "/job"])
def test_who_may_not_read_the_task_sees_nothing(browser, ran, path):
    """Neither a stranger to the Dag nor somebody who is not signed in."""
    assert browser("stranger").get(task(ran) + path).status_code == 403
    assert browser(None).get(task(ran) + path).status_code == 401
    assert browser(None).get("/").status_code == 401
    assert ran.xcom("train_model", "job_id") not in browser("stranger").get("/").text


def test_a_task_without_a_job_says_so(browser, ran):
    """It may have one later."""
    told = browser().get(f"{task(ran, 'upload_images')}/job").json()
    assert told == {"error": "This task has submitted no OSAI job yet.", "is_terminal": False}


@pytest.mark.parametrize(
    ("broken", "said"), [({"base_url": "http://127.0.0.1:9/api"}, "OsaiUnreachable"), ({"region": "mars"}, "OsaiArg")]
)
def test_what_goes_wrong_is_said_in_words(browser, ran, connection, broken, said):
    """No traceback, no secret."""
    connection(**broken) if "base_url" in broken else connection(base_url="", **broken)
    told = browser().get(f"{task(ran)}/job").json()
    assert said in told["error"]
    assert CANARY not in str(told)


def test_all_that_the_page_loads_is_shipped(browser, ran):
    """Nothing comes from elsewhere."""
    client = browser()
    page = client.get(task(ran)).text
    for name in ("uPlot.iife.min.js", "uPlot.min.css", "panel.js", "panel.css"):
        assert f"../../../../static/{name}" in page
        assert client.get(f"/static/{name}").status_code == 200
    assert "http" not in page
