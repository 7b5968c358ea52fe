"""The link to a job's page, with the paths of contract documents."""

from __future__ import annotations

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_osai.api.settings import OsaiSettings
from airflow_provider_osai.links.portal import OsaiPortalLink
from airflow_provider_osai.operators.gate import OsaiModelGateOperator
from airflow_provider_osai.operators.training import OsaiTrainModelOperator
from airflow_provider_osai.sensors.job import OsaiJobSensor

JOINED = {"training.page": {"path": "/projects/{id.1}/trainings/{id.2}"}}


@pytest.mark.parametrize(
    ("contract", "job_id", "path"),
    [
        (None, "7", "/trainings/7"),
        (JOINED, "a b/7", "/projects/a%20b/trainings/7"),
        (JOINED, "7", ""),  # the id of a job that was submitted before the contract had parts
        ({"training.page": None}, "7", ""),
    ],
)
def test_the_page_of_a_job(contract, job_id, path):
    extra = {"base_url": "https://osai.example.com/api", "contract": contract}
    settings = OsaiSettings.from_connection("t" * 20, extra)
    assert OsaiPortalLink.url(settings, "training", job_id) == f"https://osai.example.com{path}"


class TestLinksAtTheEndOfATask:
    """Airflow reads and pushes each link of the task's operator then; a missing XCom is an error in the log."""

    def test_of_a_task_that_fails_before_it_submits_a_job(self, train, ti):
        task = train(model_name="")
        with pytest.raises(AirflowFailException):
            task.execute({"ti": ti})
        assert not task.operator_extra_links

    def test_of_a_task_that_has_pushed_its_link(self, train, context, sandbox):
        sandbox.control.script("training", "immediate")
        task = train()
        task.execute(context)
        assert not task.operator_extra_links

    def test_of_a_sensor(self, train, context, sandbox):
        sandbox.control.script("training", "immediate")
        job_id = train(wait_for_completion=False).execute(context)["job_id"]
        sensor = OsaiJobSensor(task_id="task", kind="training", job_id=job_id)
        sensor.execute(context)
        assert context["ti"].xcoms["osai_portal_link"].endswith(f"/trainings/{job_id}")
        assert not sensor.operator_extra_links

    def test_the_dag_still_has_them(self):
        """Or Airflow's UI would not show them."""
        for operator in (OsaiTrainModelOperator, OsaiModelGateOperator, OsaiJobSensor):
            assert [link.name for link in operator.operator_extra_links] == ["OSAI portal"]
