"""When a job is submitted with a webhook URL, which URL, and the poll interval with a webhook."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, TaskDeferred

from airflow_provider_osai.hooks.deployment import load_deployment
from airflow_provider_osai.hooks.osai import OsaiHook
from airflow_provider_osai.jobs.idempotency import TaskKey
from airflow_provider_osai.operators.training import OsaiTrainModelOperator
from airflow_provider_osai.webhooks.token import WebhookToken, unseal

NEW, OLD = "canary-webhook-secret-1", "canary-webhook-secret-2"
BASE = "http://127.0.0.1:1/team"


@pytest.fixture
def run(sandbox, connection, context):
    """Run a training whose job does not end, through a connection with the given extras; return the deferral."""
    sandbox.control.script("training", "reads", reads=10**6)

    def run(extra=None, **options):
        connection(**({"webhook_base_url": BASE, "webhook_secret": f"{NEW} {OLD}"} if extra is None else extra))
        with OsaiHook().get_conn() as client:
            dataset = client.send(client.calls.create_dataset("digits")).id
        defaults = {"task_id": "task", "dataset_ids": [dataset], "model_name": "m", "deferrable": True}
        with pytest.raises(TaskDeferred) as caught:
            OsaiTrainModelOperator(**defaults | options).execute(context)
        return caught.value

    return run


@pytest.fixture
def urls(sandbox):
    """Return the webhook URLs that were sent to OSAI."""
    return lambda: [job.webhook_url for job in sandbox.state.jobs.all_jobs()]


def arguments(deferral):
    return deferral.trigger.serialize()[1]


def test_job_is_submitted_with_a_webhook_url_signed_for_the_task_instance(run, urls, ti):
    """The first secret of the connection signs; the token includes the task's generation."""
    ti.map_index, ti.max_tries = 4, 2
    run()
    (url,) = urls()
    assert url.startswith(f"{BASE}/osai/webhook/")
    token = WebhookToken.verify(unseal(urlsplit(url).path.rpartition("/")[2], load_deployment().secret), [NEW])
    assert token == WebhookToken("osai_default", TaskKey("dag", "run", "task", 4, 2))


def test_job_with_a_webhook_is_polled_every_ten_minutes(run):
    assert (arguments(run())["shortest_interval"], arguments(run())["poll_interval"]) == (600.0, 600.0)


def test_longer_poll_interval_is_kept_with_a_webhook(run):
    deferral = run(poll_interval=3600)
    assert (arguments(deferral)["shortest_interval"], arguments(deferral)["poll_interval"]) == (600.0, 3600.0)


def test_poll_interval_with_a_webhook_comes_from_the_airflow_configuration(run, monkeypatch):
    monkeypatch.setenv("AIRFLOW__OSAI__WEBHOOK_POLL_INTERVAL", "120")
    assert arguments(run(poll_interval=5))["poll_interval"] == 120.0


@pytest.mark.parametrize(
    ("extra", "options"),
    [
        ({}, {}),
        ({"webhook_secret": NEW}, {}),
        ({"webhook_base_url": BASE}, {}),
        (None, {"use_webhook": False}),
        ({}, {"use_webhook": False}),
    ],
)
def test_job_without_a_webhook_is_polled_at_the_interval_of_the_user(run, urls, extra, options):
    """The connection is not (fully) set up for webhooks, or the user has disabled them."""
    deferral = run(extra, poll_interval=7, **options)
    assert urls() == [None]
    assert (arguments(deferral)["shortest_interval"], arguments(deferral)["poll_interval"]) == (1.0, 7.0)


def test_incomplete_webhook_setup_is_logged(run, logged):
    run({"webhook_base_url": BASE})
    assert "webhook_base_url but no webhook_secret" in logged()


@pytest.mark.parametrize(("extra", "missing"), [({}, "base_url"), ({"webhook_base_url": BASE}, "secret")])
def test_required_webhook_with_incomplete_setup_fails_before_submission(run, urls, extra, missing):
    with pytest.raises(AirflowFailException, match=f"no webhook_{missing}"):
        run(extra, use_webhook=True)
    assert urls() == []


def test_job_of_a_task_that_does_not_defer_has_no_webhook(sandbox, run, urls, context, connection):
    run()  # creates a dataset and a job with a webhook
    sandbox.control.script("training", "immediate")
    context["ti"].task_id = "other"
    context.pop("task_state_store", None)
    dataset = sandbox.state.jobs.all_jobs()[0].request.dataset_ids
    options = {"task_id": "other", "dataset_ids": list(dataset), "model_name": "m", "poll_interval": 0.05}
    OsaiTrainModelOperator(**options, deferrable=False, use_webhook=True).execute(context)
    assert urls()[1:] == [None]


def test_job_of_a_task_that_is_not_durable_has_a_webhook(run, urls):
    run(durable=False)
    assert urls()[0].startswith(BASE)


def test_secrets_and_token_are_not_in_logs_xcoms_or_the_deferral(run, urls, ti, logged):
    deferral = run()
    (url,) = urls()
    token = url.rpartition("/")[2]
    output = logged() + repr(arguments(deferral)) + repr(deferral.kwargs) + repr(ti.xcoms)
    assert not [secret for secret in (NEW, OLD, token) if secret in output]
