"""Scripts, faults and the record, over HTTP."""

from __future__ import annotations

import httpx
import pytest

from airflow_provider_osai.api.requests import TrainingRequest
from airflow_provider_osai.sandbox import Sandbox
from airflow_provider_osai.sandbox.records import Refused
from airflow_provider_osai.sandbox.scripts import Script
from tests.sandbox.client import Api

RENTAL = {"device": "jetson", "duration": 60}


def submitted(api: Api, **body: object) -> dict[str, object]:
    return api.ok("POST", "/DeviceRentals", json={**RENTAL, **body})


def test_status_fault_hits_so_many_requests_after_sparing_the_first(api):
    """``after`` and ``times`` count requests of the endpoints that the pattern names."""
    api.sandbox.control.fault("status", "user.*", status=429, retry_after="7", after=1, times=2)
    api.ok("GET", "/Datasets")
    answers = [api.get("/Users") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 429, 429, 200]
    assert [answer.headers.get("retry-after") for answer in answers] == [None, "7", "7", None]


def test_status_faults_for_the_same_request_come_one_after_the_other(api):
    """Two of one kind are a sequence, not a sum."""
    api.sandbox.control.fault("status", "user.me", status=503)
    api.sandbox.control.fault("status", "user.me", status=418, body={"tea": True})
    first, second, third = (api.get("/Users") for _ in range(3))
    assert [first.status_code, second.status_code, third.status_code] == [503, 418, 200]
    assert second.json() == {"tea": True}


def test_reset_drops_the_connection_after_the_request_was_handled(api):
    """The worst case of a submission: it was taken, and the client cannot know."""
    api.sandbox.control.fault("reset", "device_rental.submit")
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
        submitted(api, reference="r")
    (job,) = api.ok("GET", "/DeviceRentals", params={"reference": "r"})
    assert job["reference"] == "r"


def test_reset_before_drops_the_connection_with_nothing_done(api):
    """The client sees the same; the server has no job."""
    api.sandbox.control.fault("reset_before", "device_rental.*")
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
        submitted(api)
    assert api.ok("GET", "/DeviceRentals") == []


def test_dropped_connections_are_recorded_without_a_status(api):
    """The record says what the client saw."""
    api.sandbox.control.fault("reset", "user.me")
    with pytest.raises(httpx.TransportError):
        api.get("/Users")
    api.get("/Users")
    statuses = [seen["status"] for seen in api.sandbox.control.record()["requests"] if seen["endpoint"] == "user.me"]
    assert statuses == [None, 200]


def test_unknown_state_shows_a_word_that_no_contract_binds(api):
    """The job itself is as it was."""
    api.sandbox.control.script(timing="immediate")
    job = submitted(api)
    api.ended("DeviceRentals", job["id"])
    api.sandbox.control.fault("unknown_state", "device_rental.get", word="Meditating")
    seen = [api.ok("GET", f"/DeviceRentals/{job['id']}")["status"] for _ in range(2)]
    assert seen == ["Meditating", "succeeded"]


def test_expired_token_ends_all_jwts_until_the_next_sign_in(api):
    """The request that it hits is the first to see 401."""
    api.sandbox.control.fault("expired_token", "user.me")
    assert [api.get("/Users").status_code for _ in range(2)] == [401, 401]
    api.sign_in()
    assert api.get("/Users").status_code == 200


@pytest.mark.parametrize(("kind", "media"), [("malformed", "application/json"), ("html", "text/html")])
def test_answers_that_are_no_json_come_with_status_200(api, kind, media):
    """Proxies and bugs do that."""
    api.sandbox.control.fault(kind, "dataset.find")
    api.dataset()
    answer = api.get("/Datasets")
    assert (answer.status_code, answer.headers["content-type"].partition(";")[0]) == (200, media)
    with pytest.raises(ValueError, match=r"Expecting|Unterminated|Extra"):
        answer.json()


def test_delay_is_longer_than_a_client_waits(api):
    """A client with a shorter timeout gives up; one that waits is answered."""
    api.sandbox.control.fault("delay", "user.me", seconds=0.3, times=2)
    with pytest.raises(httpx.ReadTimeout):
        api.get("/Users", timeout=0.1)
    assert api.get("/Users").status_code == 200


def test_huge_is_the_true_answer_behind_more_than_anybody_should_read(api):
    """A client without a bound gets through, at the price of its memory; one that has seen enough can leave."""
    api.sandbox.control.fault("huge", "user.me", times=2)
    answer = api.get("/Users")
    assert (len(answer.content) > 2**26, answer.json()) == (True, api.get("/Users").json())
    api.sandbox.control.fault("huge", "user.me")
    with api.stream("GET", "/Users") as half:
        assert next(half.iter_bytes(1000)) == b" " * 1000
    assert api.get("/Users").status_code == 200


def test_drip_sends_the_true_answer_byte_by_byte(api):
    """Each byte comes in time for a client that only looks at the next."""
    api.sandbox.control.fault("drip", "user.me", seconds=0.001)
    with api.stream("GET", "/Users") as answer:
        pieces = list(answer.iter_raw())
    assert (len(pieces) > 20, b"".join(pieces)) == (True, api.get("/Users").content)


def test_drip_ends_when_the_client_has_gone(api):
    """Headers come at once; whoever waits for the rest may give up, and the server goes on."""
    api.sandbox.control.fault("drip", "user.me", seconds=30)
    with pytest.raises(httpx.ReadTimeout):
        api.get("/Users", timeout=0.2)
    assert api.get("/Users").status_code == 200


def test_script_for_a_kind_goes_before_the_one_for_all(api):
    """Setting one for all kinds starts afresh."""
    control = api.sandbox.control
    control.script(timing="immediate")
    control.script("device_rental", "reads", reads=1)
    assert submitted(api)["status"] == "queued"
    control.script(timing="immediate", end="failed")
    assert submitted(api)["status"] == "failed"


def test_script_word_is_shown_for_so_many_reads(api):
    """A word that no contract binds, and then the true one."""
    api.sandbox.control.script("device_rental", "immediate", word="Pondering", word_reads=2)
    job = submitted(api)
    seen = [api.ok("GET", f"/DeviceRentals/{job['id']}")["status"] for _ in range(3)]
    assert [job["status"], *seen] == ["Pondering", "Pondering", "Pondering", "succeeded"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("faults", {"kind": "volcano"}),
        ("faults", {"kind": "status", "tiems": 3}),
        ("scripts", {"timing": "never"}),
        ("scripts", {"end": "running"}),
        ("scripts", {"kind": "cooking"}),
    ],
)
def test_control_refuses_what_it_does_not_know(api, path, body):
    """A misspelt fault would make a test pass for the wrong reason."""
    answer = httpx.post(f"{api.sandbox.portal_url}/sandbox/{path}", json=body)
    assert answer.status_code == 400
    assert answer.json()["message"]


def test_control_can_be_used_by_http_without_signing_in(api):
    """Another process drives the sandbox by the same means."""
    with httpx.Client(base_url=f"{api.sandbox.portal_url}/sandbox") as control:
        control.post("/scripts", json={"kind": "device_rental", "timing": "immediate"}).raise_for_status()
        control.post("/faults", json={"kind": "status", "endpoint": "user.me", "times": 3}).raise_for_status()
        assert [fault["times"] for fault in control.get("/faults").json()] == [3]
        assert api.get("/Users").status_code == 503
        control.delete("/faults").raise_for_status()
        assert api.get("/Users").status_code == 200
        assert submitted(api)["status"] == "succeeded"
        assert control.get("/record").json()["counts"] == {"auth.sign_in": 1, "user.me": 2, "device_rental.submit": 1}


def test_a_job_ends_when_control_says_so(api):
    """As its script says; a test need not wait for it."""
    api.sandbox.control.script("device_rental", "reads", reads=10**9, end="failed", message="no power")
    job = submitted(api)
    assert api.ok("GET", f"/DeviceRentals/{job['id']}")["status"] == "running"
    httpx.post(f"{api.sandbox.portal_url}/sandbox/jobs/{job['id']}/end").raise_for_status()
    ended = api.ok("GET", f"/DeviceRentals/{job['id']}")
    assert (ended["status"], ended["message"]) == ("failed", "no power")


def test_control_ends_no_job_that_is_not_there_or_really_worked_on(api):
    """A worker's job ends by itself."""
    assert httpx.post(f"{api.sandbox.portal_url}/sandbox/jobs/none/end").status_code == 404
    request = TrainingRequest(dataset_ids=api.dataset(), model_name="m")
    with api.sandbox.state.lock:  # no worker gets to it meanwhile
        job = api.sandbox.state.submit(request, Script())
        with pytest.raises(Refused, match="ends by itself"):
            api.sandbox.control.end(job.id)


def test_record_holds_paths_and_jobs_but_no_secret():
    """Neither queries nor bodies, headers or tokens are kept, not even where a client puts one into a path."""
    with Sandbox(access_token="secret-in-a-path") as sandbox, Api(sandbox) as api:
        job = submitted(api, reference="r-1")
        api.get("/Datasets", params={"name": "hidden"})
        api.get(f"/Users/SignIn/{sandbox.access_token}")
        record = sandbox.control.record()
        secrets = ("hidden", sandbox.access_token, api.headers["Authorization"].removeprefix("Bearer "))
    assert not [secret for secret in secrets if secret in str(record)]
    assert {"endpoint", "method", "path", "status", "at"} == set(record["requests"][0])
    assert record["jobs"][0] | {"id": job["id"], "kind": "device_rental", "reference": "r-1"} == record["jobs"][0]


def test_reset_forgets_everything_but_who_is_signed_in(api):
    """A shared sandbox is as good as new for the next test."""
    api.dataset()
    submitted(api)
    api.sandbox.control.fault("status", "user.me")
    httpx.post(f"{api.sandbox.portal_url}/sandbox/reset").raise_for_status()
    assert api.sandbox.control.record() == {"requests": [], "counts": {}, "jobs": []}
    assert api.ok("GET", "/Datasets") == []
    assert api.get("/Users").status_code == 200


def test_images_of_an_unknown_dataset_are_not_found(sandbox: Sandbox):
    """Control speaks of errors as the API does."""
    answer = httpx.get(f"{sandbox.portal_url}/sandbox/datasets/nothing/images")
    assert (answer.status_code, "nothing" in answer.json()["message"]) == (404, True)
