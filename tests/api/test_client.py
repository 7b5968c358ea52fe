"""The two senders: what is sent again, and what each answer means."""

from __future__ import annotations

import asyncio
import inspect
import io
import subprocess
import sys
from importlib.metadata import version

import httpx
import pytest
import respx

from airflow_provider_osai.api.calls import FilePart, OsaiApi
from airflow_provider_osai.api.client import AsyncOsaiClient, OsaiClient
from airflow_provider_osai.api.contract import ENDPOINTS, UNBOUND, Contract
from airflow_provider_osai.api.errors import (
    OsaiArgumentError,
    OsaiAuthError,
    OsaiContractError,
    OsaiRequestError,
    OsaiUnreachable,
)
from airflow_provider_osai.api.models import JobKind, JobState
from airflow_provider_osai.api.overrides import apply_overrides
from airflow_provider_osai.api.requests import ConversionRequest, TrainingRequest
from tests.conftest import settings_for

BASE = "https://osai.example.com/api"


@pytest.fixture
def osai():
    """An OSAI of which only the answers matter."""
    with respx.mock(base_url=BASE, assert_all_called=False) as router:
        router.post("/Users/SignIn", name="sign_in").respond(text="jwt")
        router.get("/Trainings/7", name="get").respond(json={"id": 7, "status": "Running", "progress": 0.5})
        router.post("/Conversions", name="submit").respond(json={"id": "c", "status": "Queued"})
        yield router


@pytest.fixture(autouse=True)
def slept(mocker):
    """How long retries would have waited, in seconds."""
    waits = []

    async def wait(seconds):
        waits.append(seconds)

    mocker.patch("time.sleep", waits.append)
    mocker.patch("httpx_retries.retry.asyncio.sleep", wait)
    return waits


def get(one):
    return one.send(one.client.calls.get_job(JobKind.TRAINING, "7"))[0]


def submit(one):
    return one.send(one.client.calls.submit_job(ConversionRequest(model_id="m", target="t"), "r"))[0]


def test_an_answer_becomes_a_model(osai, sender):
    """Numbers as ids become text; the status word becomes a state."""
    job = get(sender(settings_for(BASE)))
    assert (job.id, job.state, job.progress, job.kind) == ("7", JobState.RUNNING, 0.5, JobKind.TRAINING)


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_a_read_is_repeated_on_passing_answers(osai, sender, status):
    """GET asks again."""
    osai["get"].side_effect = [httpx.Response(status), httpx.Response(200, json={"id": 7, "status": "running"})]
    assert get(sender(settings_for(BASE))).id == "7"
    assert osai["get"].call_count == 2


@pytest.mark.parametrize("error", [httpx.ConnectError, httpx.ReadTimeout, httpx.RemoteProtocolError, httpx.ReadError])
def test_a_read_is_repeated_on_network_failures(osai, sender, error):
    """GET asks again."""
    osai["get"].side_effect = [error("boom"), httpx.Response(200, json={"id": 7, "status": "running"})]
    assert get(sender(settings_for(BASE))).id == "7"


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
def test_what_can_be_repeated_is_with_every_method_of_a_contract(osai, sender, method):
    """A cancellation has no further effect."""
    answers = [httpx.Response(503), httpx.Response(200)]
    route = osai.request(method, url__regex=r".*/Trainings/7/Cancel").mock(side_effect=answers)
    one = sender(settings_for(BASE, contract={"training.cancel": {"method": method}}))
    one.send(one.client.calls.cancel_job(JobKind.TRAINING, "7"))
    assert route.call_count == 2


@pytest.mark.parametrize("status", [500, 502, 503, 504, 408])
def test_a_submit_is_not_repeated_when_osai_may_have_taken_it(osai, sender, status):
    """A POST that makes something is never repeated blindly."""
    osai["submit"].respond(status)
    with pytest.raises(OsaiUnreachable) as caught:
        submit(sender(settings_for(BASE)))
    assert (osai["submit"].call_count, caught.value.may_have_been_processed) == (1, True)


@pytest.mark.parametrize("error", [httpx.ReadTimeout, httpx.WriteError, httpx.RemoteProtocolError, httpx.ReadError])
def test_a_submit_is_not_repeated_when_the_connection_broke_after_sending(osai, sender, error):
    """The server may have accepted before it fell silent."""
    osai["submit"].side_effect = error("boom")
    with pytest.raises(OsaiUnreachable) as caught:
        submit(sender(settings_for(BASE)))
    assert (osai["submit"].call_count, caught.value.may_have_been_processed) == (1, True)


@pytest.mark.parametrize("error", [httpx.ConnectError, httpx.ConnectTimeout])
def test_a_submit_is_repeated_when_nothing_was_sent(osai, sender, error):
    """No connection, no job."""
    osai["submit"].side_effect = [error("boom"), httpx.Response(200, json={"id": "c", "status": "queued"})]
    assert submit(sender(settings_for(BASE))).id == "c"


def test_a_submit_is_repeated_when_osai_says_too_many(osai, sender, slept):
    """429 says that the request was not taken; ``Retry-After`` says when to come back."""
    osai["submit"].side_effect = [
        httpx.Response(429, headers={"Retry-After": "7"}),
        httpx.Response(200, json={"id": "c", "status": "queued"}),
    ]
    assert submit(sender(settings_for(BASE))).id == "c"
    assert 7.0 in slept


@pytest.mark.parametrize("value", ["99999", "Wed, 21 Oct 2099 07:28:00 GMT"])
def test_a_long_retry_after_is_capped(osai, sender, slept, value):
    """In both its forms; a server cannot park a worker for hours."""
    osai["get"].side_effect = [
        httpx.Response(503, headers={"Retry-After": value}),
        httpx.Response(200, json={"id": 7, "status": "running"}),
    ]
    get(sender(settings_for(BASE)))
    assert max(slept) == 60.0


def test_retries_end_within_the_time_budget(osai, sender, slept):
    """Each request may wait a minute in all."""
    osai["get"].respond(503, headers={"Retry-After": "25"})
    with pytest.raises(OsaiUnreachable) as caught:
        get(sender(settings_for(BASE)))
    assert (sum(slept), caught.value.retry_after) == (60.0, 25.0)


def test_without_patience_nothing_is_repeated(osai, sender):
    """For a diagnosis and for kills."""
    osai["get"].respond(503)
    with pytest.raises(OsaiUnreachable):
        get(sender(settings_for(BASE), retry_budget=0))
    assert osai["get"].call_count == 1


def test_a_refusal_says_what_was_refused_and_why(osai, sender):
    """Status, verb, path and the server's words, cut at 2,000 characters."""
    osai["submit"].respond(400, text="x" * 5000)
    with pytest.raises(OsaiRequestError, match="POST /Conversions with 400: xxx") as caught:
        submit(sender(settings_for(BASE)))
    assert (caught.value.status, len(caught.value.text), caught.value.retryable) == (400, 2000, False)


@pytest.mark.parametrize("answer", [{"html": "<h1>Hi</h1>"}, {"text": '{"id": 7, "sta'}, {"text": ""}])
def test_an_answer_that_is_no_json_means_try_later(osai, sender, answer):
    """A proxy's page in the way is not the job's end."""
    osai["get"].respond(**answer)
    with pytest.raises(OsaiUnreachable, match="instead of JSON"):
        get(sender(settings_for(BASE)))


def test_json_that_does_not_fit_names_the_operation(osai, sender):
    """The user learns which binding to mend, and what the answer holds."""
    osai["get"].respond(json={"jobId": 7, "status": "running"})
    with pytest.raises(OsaiContractError, match=r"training\.get.*id.*jobId"):
        get(sender(settings_for(BASE)))


def test_decorations_that_do_not_parse_do_no_harm(osai, sender):
    """Only the id must be there."""
    odd = {"id": 7, "status": "running", "progress": "half", "history": "none", "result": 5, "createdAt": {}}
    osai["get"].respond(json=odd | {"surprise": [1]})
    job = get(sender(settings_for(BASE)))
    assert (job.progress, job.history, job.result, job.created_at) == (None, None, None, None)


def test_a_redirect_points_to_the_address(osai, sender):
    """We do not follow it with a token in hand."""
    osai["get"].respond(302, headers={"Location": "https://login.example.com/?next=x"})
    with pytest.raises(OsaiContractError, match=r"redirected to login\.example\.com; check base_url"):
        get(sender(settings_for(BASE)))


def test_a_403_is_a_refusal_and_no_auth_loop(osai, sender):
    """Signed in, but not allowed."""
    osai["get"].respond(403, text="not yours")
    with pytest.raises(OsaiRequestError, match="not yours"):
        get(sender(settings_for(BASE)))
    assert osai["sign_in"].call_count == 1


def test_an_auth_error_is_not_retryable_and_an_outage_is():
    """What Airflow's retries can mend is said by the class."""
    assert (OsaiAuthError.retryable, OsaiRequestError.retryable, OsaiContractError.retryable) == (False,) * 3
    assert OsaiUnreachable.retryable


def test_the_environments_proxy_is_used(monkeypatch):
    """Also although the client has a transport of its own."""
    from airflow_provider_osai.api.client import OsaiClient

    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    with OsaiClient(settings_for(BASE), retry_budget=0) as client:
        assert client._transport_options(verify=False)["proxy"] == "http://127.0.0.1:9"
        monkeypatch.setenv("NO_PROXY", "osai.example.com")
        assert client._transport_options(verify=False)["proxy"] is None


class TestVerbs:
    """Each operation of the contract is a method of both clients."""

    @pytest.fixture
    def client(self, osai):
        with OsaiClient(settings_for(BASE), retry_budget=0) as client:
            yield client

    @staticmethod
    def names(client):
        return {name for name in vars(OsaiApi) if not name.startswith("_") and callable(getattr(client, name, None))}

    def test_every_call_is_a_method_of_the_blocking_client(self):
        assert self.names(OsaiClient) == {name for name in vars(OsaiApi) if not name.startswith("_")}

    def test_the_awaiting_client_has_all_but_those_that_move_files(self):
        assert self.names(OsaiClient) - self.names(AsyncOsaiClient) == {"upload_image", "download_model"}

    def test_every_operation_of_the_contract_has_a_call(self):
        """But the sign-in, which happens by itself, and the page, which is a link for people."""
        request = TrainingRequest(dataset_ids=["1"], model_name="m")
        values = {"kind": "training", "request": request, "job_ids": ["7"]}
        values |= {"image": FilePart("a.png", io.BytesIO), "headers": {}, "consumer": bytes}
        api, called = OsaiApi(apply_overrides(Contract(), {name: {} for name in UNBOUND})), set()
        for name in self.names(OsaiClient):
            call = getattr(api, name)
            needed = [one for one in inspect.signature(call).parameters.values() if one.default is one.empty]
            called.add(call(**{one.name: values.get(one.name, "1") for one in needed}).name)
        kinds = {f"{kind}." for kind in JobKind if kind is not JobKind.TRAINING}
        rows = {name for name in ENDPOINTS if not name.startswith(tuple(kinds))}
        assert called == rows - {"auth.sign_in", "training.page"}

    @pytest.mark.parametrize("kind", [JobKind.TRAINING, "training", " Training "])
    def test_a_job_is_read_by_its_kind_and_id(self, client, kind):
        job = client.get_job(kind, "7")
        assert (job.kind, job.id, job.state) == (JobKind.TRAINING, "7", JobState.RUNNING)

    def test_an_unknown_kind_is_refused_with_the_kinds_there_are(self, client, osai):
        with pytest.raises(OsaiArgumentError, match="kind = 'trainings': must be one of training"):
            client.get_job("trainings", "7")
        assert osai.calls.call_count == 0

    def test_the_awaiting_client_answers_the_same(self, client, osai):
        async def read():
            async with await AsyncOsaiClient.open(settings_for(BASE), retry_budget=0) as awaiting:
                return await awaiting.get_job("training", "7")

        assert asyncio.run(read()) == client.get_job("training", "7")

    def test_a_verb_is_documented_as_its_call(self):
        assert OsaiClient.list_models.__doc__ == AsyncOsaiClient.list_models.__doc__ == OsaiApi.list_models.__doc__

    def test_an_operation_that_the_api_lacks_names_it(self, osai):
        settings = settings_for(BASE, contract={"model.list": None})
        with OsaiClient(settings) as client, pytest.raises(OsaiContractError, match=r"model\.list"):
            client.list_models()


def test_every_request_names_the_package_and_its_version(osai):
    with OsaiClient(settings_for(BASE), retry_budget=0) as client:
        client.get_job("training", "7")
    agents = {call.request.url.path: call.request.headers["user-agent"] for call in osai.calls}
    assert set(agents) == {"/api/Users/SignIn", "/api/Trainings/7"}
    ours = f"airflow-provider-osai/{version('airflow-provider-osai')} python-httpx/"
    assert all(agent.startswith(ours) for agent in agents.values())


def test_httpx_logs_the_requests_of_others_and_none_of_ours(osai, caplog):
    """A line for each of thousands of polls would hide all others, and the URL of a signed download is a secret."""
    caplog.set_level("DEBUG", logger="httpx")
    osai.get("/other").respond(text="")
    with OsaiClient(settings_for(BASE), retry_budget=0) as client:
        client.get_job("training", "7")
        httpx.get(f"{BASE}/other")
        client.get_job("training", "7")
    assert [record.getMessage() for record in caplog.records if record.name == "httpx"] == [
        f'HTTP Request: GET {BASE}/other "HTTP/1.1 200 OK"'
    ]


def test_an_import_changes_no_logger():
    code = "import logging, airflow_provider_osai.api.client; print(logging.getLogger('httpx').level)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout == "0\n"
