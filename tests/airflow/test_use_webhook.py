"""When a job is submitted with a webhook's address, which one, and how it is polled then."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, TaskDeferred

from airflow_provider_osai.hooks.osai import OsaiHook
from airflow_provider_osai.jobs.reference import Owner
from airflow_provider_osai.jobs.ticket import Ticket
from airflow_provider_osai.operators.training import OsaiTrainModelOperator

NEW, OLD = "canary-webhook-secret-1", "canary-webhook-secret-2"
BASE = "http://127.0.0.1:1/team"


@pytest.fixture
def run(sandbox, connection, context):
    """Run a training whose job does not end, through a connection with these extras; return the deferral."""
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
    """The webhook addresses that OSAI was given."""
    return lambda: [job.webhook_url for job in sandbox.state.jobs.everything()]


def arguments(deferral):
    return deferral.trigger.serialize()[1]


def test_a_connection_that_is_set_up_gives_osai_an_address_signed_for_this_task_instance(run, urls, ti):
    """By the first of its secrets, for this generation."""
    ti.map_index, ti.max_tries = 4, 2
    run()
    (url,) = urls()
    assert url.startswith(f"{BASE}/osai/webhook/")
    ticket = Ticket.read(urlsplit(url).path.rpartition("/")[2], [NEW])
    assert ticket == Ticket("osai_default", Owner("dag", "run", "task", 4, 2))


def test_with_a_webhook_the_poll_is_a_safety_net(run):
    """Every ten minutes, from the first look on."""
    assert (arguments(run())["shortest_interval"], arguments(run())["poll_interval"]) == (600.0, 600.0)


def test_who_polls_even_more_seldom_goes_on_so(run):
    """The user's interval is longer."""
    deferral = run(poll_interval=3600)
    assert (arguments(deferral)["shortest_interval"], arguments(deferral)["poll_interval"]) == (600.0, 3600.0)


def test_the_safety_net_is_airflows_to_set(run, monkeypatch):
    """In its configuration."""
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
def test_otherwise_no_address_is_given_and_the_poll_is_what_the_user_says(run, urls, extra, options):
    """Half a set-up, or a user who does not want it."""
    deferral = run(extra, poll_interval=7, **options)
    assert urls() == [None]
    assert (arguments(deferral)["shortest_interval"], arguments(deferral)["poll_interval"]) == (1.0, 7.0)


def test_half_a_set_up_is_said_in_the_log(run, logged):
    """Somebody wanted webhooks, and has none."""
    run({"webhook_base_url": BASE})
    assert "webhook_base_url but no webhook_secret" in logged()


@pytest.mark.parametrize(("extra", "lacking"), [({}, "base_url"), ({"webhook_base_url": BASE}, "secret")])
def test_who_insists_on_a_webhook_is_told_what_is_missing(run, urls, extra, lacking):
    """Before there is a job."""
    with pytest.raises(AirflowFailException, match=f"no webhook_{lacking}"):
        run(extra, use_webhook=True)
    assert urls() == []


def test_who_does_not_defer_gets_none(sandbox, run, urls, context, connection):
    """Nobody could be woken."""
    run()  # makes a dataset, and a job that waits
    sandbox.control.script("training", "immediate")
    context["ti"].task_id = "other"
    context.pop("task_state_store", None)
    dataset = sandbox.state.jobs.everything()[0].request.dataset_ids
    options = {"task_id": "other", "dataset_ids": list(dataset), "model_name": "m", "poll_interval": 0.05}
    OsaiTrainModelOperator(**options, deferrable=False, use_webhook=True).execute(context)
    assert urls()[1:] == [None]


def test_a_task_that_is_not_durable_has_one_too(run, urls):
    """Its retries submit anew."""
    run(durable=False)
    assert urls()[0].startswith(BASE)


def test_no_secret_and_no_ticket_is_logged_or_deferred_with(run, urls, ti, logged):
    """The address goes to OSAI only."""
    deferral = run()
    (url,) = urls()
    ticket = url.rpartition("/")[2]
    said = logged() + repr(arguments(deferral)) + repr(deferral.kwargs) + repr(ti.xcoms)
    assert not [secret for secret in (NEW, OLD, ticket) if secret in said]
