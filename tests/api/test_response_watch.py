"""The watch of responses about jobs: what it notes, once, and what it never keeps."""

from __future__ import annotations

import threading
import time

import pytest

from airflow_provider_osai.api import response_watch
from airflow_provider_osai.api.calls import OsaiApi
from airflow_provider_osai.api.client import OsaiClient
from airflow_provider_osai.api.contract import Contract
from airflow_provider_osai.api.errors import OsaiContractError, OsaiRequestError
from airflow_provider_osai.api.models import JobKind
from airflow_provider_osai.api.overrides import apply_overrides
from airflow_provider_osai.api.response_watch import Difference, ResponseWatch, watch_of
from tests.conftest import settings_for
from tests.raw_server import RawServer, document

RUNNING = {"id": "7", "status": "running", "progress": 0.5, "createdAt": "2026-01-01", "startedAt": "2026-01-01"}
ENDED = {"id": "7", "status": "succeeded", "createdAt": "2026-01-01", "result": {"modelId": "3"}}


@pytest.fixture
def api():
    return OsaiApi()


def get(api, *jobs):
    """Read the responses to requests for a training."""
    for job in jobs:
        api.get_job("training", str(job.get("id", "7"))).parse(job)


def seen(api):
    return {(each.kind, each.field, each.seen): count for each, count in api.watch.differences().items()}


def test_usual_responses_are_counted_and_nothing_is_noted(api, logged):
    get(api, *[RUNNING] * 30, *[ENDED] * 5)
    assert (api.watch.responses, seen(api)) == (35, {})
    assert "differs from the contract" not in logged()


def test_an_unknown_status_word_is_counted_and_warned_of_once_with_the_line_to_add(api, logged):
    get(api, *[{**RUNNING, "status": "Baking"}] * 3)
    assert seen(api) == {("word", "status", "Baking"): 3}
    text = "training.get: unknown status word Baking: add states: {Baking: ...}"
    assert logged().count(text) == 1


@pytest.mark.parametrize("word", ["anna@example.com", "x" * 41, "a/b", '{"token": "t"}'])
def test_a_word_that_may_be_a_value_is_not_kept(api, word, logged):
    get(api, {**RUNNING, "status": word})
    assert seen(api) == {("word", "status", ""): 1}
    assert word not in logged()


def test_a_field_that_responses_about_jobs_in_this_state_had_is_lost(api, logged):
    rest = {name: value for name, value in RUNNING.items() if name != "progress"}
    get(api, *[RUNNING] * 20, *[rest] * 2)
    assert seen(api) == {("lost", "progress", ""): 2}
    assert "progress is no longer in the response" in logged()


def test_a_result_is_lost_when_the_id_in_it_is(api):
    get(api, *[ENDED] * 20, {**ENDED, "result": {"model_id": "3"}})
    assert seen(api) == {("lost", "result.modelId", ""): 1}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([RUNNING] * 5, {**RUNNING, "progress": None}),  # null is there
        ([RUNNING] * 5, {"id": "7", "status": "running"}),  # too few to know
        ([RUNNING] * 30, {"id": "7", "status": "queued"}),  # in another state
        ([RUNNING, {"id": "8", "status": "running"}] * 20, {"id": "7", "status": "running"}),  # it was not always there
        ([{**ENDED, "message": "x"}] * 30, ENDED),  # a message comes and goes
    ],
    ids=["null", "few", "state", "not always", "message"],
)
def test_an_absence_that_means_nothing_is_not_noted(api, before, after):
    get(api, *before, after)
    assert seen(api) == {}


def test_jobs_of_the_portal_in_a_list_have_no_reference(api):
    ours = {**RUNNING, "reference": "key"}
    api.list_all_jobs("training").parse([ours] * 30 + [RUNNING])
    assert seen(api) == {}


@pytest.mark.parametrize(
    ("name", "value", "seen_type"),
    [("progress", "half", "string"), ("result", [1], "array"), ("history", {"a": 1}, "object")],
)
def test_a_type_that_cannot_be_read_is_noted(api, name, value, seen_type):
    get(api, {**RUNNING, name: value})
    assert seen(api) == {("type", name, seen_type): 1}


def test_a_type_that_changes_is_noted(api):
    get(api, *[RUNNING] * 2, {**RUNNING, "createdAt": 1_767_225_600})
    assert seen(api) == {("type", "createdAt", "number"): 1}
    get(api, {**RUNNING, "progress": 1})
    assert len(seen(api)) == 1  # 1 and 0.5 are both numbers


def test_a_response_that_is_an_error_is_noted_too(api):
    with pytest.raises(OsaiContractError):
        get(api, {**RUNNING, "id": {"a": 1}})
    assert ("type", "id", "object") in seen(api)


@pytest.mark.parametrize(
    ("status", "noted"), [(403, True), (400, True), (302, True), (404, False), (503, False), (429, False)]
)
def test_an_unexpected_http_status_is_noted(status, noted):
    with (
        RawServer(lambda line: [document({}, status)]) as server,
        OsaiClient(settings_for(server.base_url), retry_budget=0) as client,
    ):
        for _ in range(2):
            with pytest.raises(Exception, match=r"."):
                client.get_job("training", "7")
        expected = {Difference("training.get", "status", "", str(status)): 2} if noted else {}
        assert client.calls.watch.differences() == expected


def test_a_status_with_a_meaning_in_the_contract_is_expected():
    with (
        RawServer(lambda line: [document({}, 403)]) as server,
        OsaiClient(
            settings_for(server.base_url, contract='{"training.get": {"statuses": {"403": "absent"}}}')
        ) as client,
    ):
        with pytest.raises(OsaiRequestError):
            client.get_job("training", "7")
        assert client.calls.watch.differences() == {}


def test_clients_of_one_osai_and_contract_share_a_watch():
    document = '{"states": {"Baking": "running"}}'
    changed = apply_overrides(Contract(), document)
    assert watch_of("https://a.example.com", Contract()) is watch_of("https://a.example.com", Contract())
    assert watch_of("https://a.example.com", changed) is watch_of("https://a.example.com", changed)
    assert watch_of("https://a.example.com", changed) is not watch_of("https://a.example.com", Contract())
    assert watch_of("https://a.example.com", Contract()) is not watch_of("https://b.example.com", Contract())


class TestBounds:
    """A server that sends something else each time costs neither memory nor log lines."""

    def test_forms_and_differences(self, api, logged):
        for number in range(2000):
            get(api, {**RUNNING, "status": f"word {number}", f"field{number}": 1})
        watch = api.watch
        assert watch.responses == 2000
        assert len(watch.differences()) == response_watch.MAX_DIFFERENCES
        assert logged().count("differs from the contract") == response_watch.MAX_DIFFERENCES
        assert len(watch._forms) <= response_watch.MAX_FORMS

    def test_numbers_outlast_the_forms(self, api):
        get(api, *[{**RUNNING, "status": "Baking"}] * 3)
        for number in range(2 * response_watch.MAX_FORMS):
            get(api, {**RUNNING, f"field{number}": 1})
        get(api, *[{**RUNNING, "status": "Baking"}] * 2)
        assert seen(api)[("word", "status", "Baking")] == 5

    def test_threads(self, api):
        def poll(number):
            for count in range(200):
                get(api, {**RUNNING, f"field{count % 3}": 1, "status": ("running", "Baking")[count % 2]})

        threads = [threading.Thread(target=poll, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert api.watch.responses == 800
        assert seen(api) == {("word", "status", "Baking"): 400}

    def test_a_signal_handler_that_interrupts_the_watch_is_not_blocked(self, api):
        """A kill cancels the job from a signal handler, in the thread that may hold the locks."""
        with api.watch._lock, response_watch._watches_lock:
            get(api, RUNNING)
            api.watch.saw_status("training.get", 403, {})
            watch_of("https://a.example.com", Contract())
        assert api.watch.responses == 0
        get(api, RUNNING)
        assert api.watch.responses == 1

    def test_a_known_form_costs_a_few_microseconds(self):
        """A loose limit, for a busy machine; it is about one microsecond."""
        watch = ResponseWatch()
        contract = Contract()
        state = contract.state("running")
        watch.saw_job("training.list", RUNNING, "running", state)
        start = time.process_time()
        for _ in range(20_000):
            watch.saw_job("training.list", RUNNING, "running", state)
        assert (time.process_time() - start) / 20_000 < 20e-6


@pytest.mark.parametrize("kind", JobKind)
def test_each_kind_of_job_is_watched(api, kind):
    api.list_jobs(kind, ["7"]).parse([{**RUNNING, "status": "Baking"}])
    assert [each.operation for each in api.watch.differences()] == [f"{kind}.list"]


def test_the_sandbox_is_as_the_contract_says(sandbox):
    """A whole training, polled to its end by list and get."""
    from airflow_provider_osai.api.requests import TrainingRequest

    sandbox.control.script(timing="reads", reads=30)
    with OsaiClient(settings_for(sandbox.base_url)) as client:
        dataset = client.create_dataset("x").id
        request = TrainingRequest(dataset_ids=[dataset], model_name="m", model_type="classification")
        job = client.submit_job(request, "key")
        for _ in range(40):
            client.get_job("training", job.id)
            client.list_jobs("training", [job.id])
        assert client.get_job("training", job.id).is_terminal
        assert client.calls.watch.responses == 82
        assert client.calls.watch.differences() == {}
