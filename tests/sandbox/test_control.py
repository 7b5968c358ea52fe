"""Scripts, faults and the record, over HTTP."""

from __future__ import annotations

import httpx
import pytest

from airflow_provider_osai.api.requests import TrainingRequest
from airflow_provider_osai.sandbox import Sandbox
from airflow_provider_osai.sandbox.models import ApiError
from airflow_provider_osai.sandbox.scenarios import Script
from tests.sandbox.client import Api

RENTAL = {"device": "jetson", "duration": 60}


def submitted(api: Api, **body: object) -> dict[str, object]:
    return api.ok("POST", "/DeviceRentals", json={**RENTAL, **body})


def test_status_fault_skips_and_hits_the_given_number_of_requests(api):
    """``after`` and ``times`` count requests to the endpoints that match the pattern."""
    api.sandbox.control.fault("status", "user.*", status=429, retry_after="7", after=1, times=2)
    api.ok("GET", "/Datasets")
    responses = [api.get("/Users") for _ in range(4)]
    assert [response.status_code for response in responses] == [200, 429, 429, 200]
    assert [response.headers.get("retry-after") for response in responses] == [None, "7", "7", None]


def test_faults_of_the_same_kind_apply_to_successive_requests(api):
    api.sandbox.control.fault("status", "user.me", status=503)
    api.sandbox.control.fault("status", "user.me", status=418, body={"tea": True})
    first, second, third = (api.get("/Users") for _ in range(3))
    assert [first.status_code, second.status_code, third.status_code] == [503, 418, 200]
    assert second.json() == {"tea": True}


def test_reset_drops_the_connection_after_the_request_is_handled(api):
    """The worst case of a submission: the job exists, and the client cannot know."""
    api.sandbox.control.fault("reset", "device_rental.submit")
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
        submitted(api, reference="r")
    (job,) = api.ok("GET", "/DeviceRentals", params={"reference": "r"})
    assert job["reference"] == "r"


def test_reset_before_drops_the_connection_without_handling_the_request(api):
    api.sandbox.control.fault("reset_before", "device_rental.*")
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
        submitted(api)
    assert api.ok("GET", "/DeviceRentals") == []


def test_dropped_connections_are_recorded_without_a_status(api):
    api.sandbox.control.fault("reset", "user.me")
    with pytest.raises(httpx.TransportError):
        api.get("/Users")
    api.get("/Users")
    statuses = [seen["status"] for seen in api.sandbox.control.record()["requests"] if seen["endpoint"] == "user.me"]
    assert statuses == [None, 200]


def test_unknown_state_returns_an_unknown_status_word(api):
    """The job itself is unchanged."""
    api.sandbox.control.script(timing="immediate")
    job = submitted(api)
    api.ended("DeviceRentals", job["id"])
    api.sandbox.control.fault("unknown_state", "device_rental.get", word="Meditating")
    seen = [api.ok("GET", f"/DeviceRentals/{job['id']}")["status"] for _ in range(2)]
    assert seen == ["Meditating", "succeeded"]


def test_expired_token_revokes_all_jwts(api):
    """The request that it hits is the first to get 401."""
    api.sandbox.control.fault("expired_token", "user.me")
    assert [api.get("/Users").status_code for _ in range(2)] == [401, 401]
    api.sign_in()
    assert api.get("/Users").status_code == 200


@pytest.mark.parametrize(("kind", "media"), [("malformed", "application/json"), ("html", "text/html")])
def test_malformed_and_html_responses_have_status_200(api, kind, media):
    """As from some proxies and buggy servers."""
    api.sandbox.control.fault(kind, "dataset.find")
    api.dataset()
    response = api.get("/Datasets")
    assert (response.status_code, response.headers["content-type"].partition(";")[0]) == (200, media)
    with pytest.raises(ValueError, match=r"Expecting|Unterminated|Extra"):
        response.json()


def test_delay_makes_a_client_with_a_shorter_timeout_time_out(api):
    api.sandbox.control.fault("delay", "user.me", seconds=0.3, times=2)
    with pytest.raises(httpx.ReadTimeout):
        api.get("/Users", timeout=0.1)
    assert api.get("/Users").status_code == 200


def test_huge_is_the_real_response_after_64_mib_of_spaces(api):
    """A client without a limit can parse it; one that disconnects does not harm the server."""
    api.sandbox.control.fault("huge", "user.me", times=2)
    response = api.get("/Users")
    assert (len(response.content) > 2**26, response.json()) == (True, api.get("/Users").json())
    api.sandbox.control.fault("huge", "user.me")
    with api.stream("GET", "/Users") as half:
        assert next(half.iter_bytes(1000)) == b" " * 1000
    assert api.get("/Users").status_code == 200


def test_drip_sends_the_real_response_byte_by_byte(api):
    api.sandbox.control.fault("drip", "user.me", seconds=0.001)
    with api.stream("GET", "/Users") as response:
        chunks = list(response.iter_raw())
    assert (len(chunks) > 20, b"".join(chunks)) == (True, api.get("/Users").content)


def test_drip_ends_when_the_client_disconnects(api):
    api.sandbox.control.fault("drip", "user.me", seconds=30)
    with pytest.raises(httpx.ReadTimeout):
        api.get("/Users", timeout=0.2)
    assert api.get("/Users").status_code == 200


def test_script_for_a_kind_overrides_the_script_for_all_kinds(api):
    """A new script for all kinds replaces both."""
    control = api.sandbox.control
    control.script(timing="immediate")
    control.script("device_rental", "reads", reads=1)
    assert submitted(api)["status"] == "queued"
    control.script(timing="immediate", end="failed")
    assert submitted(api)["status"] == "failed"


def test_script_word_is_returned_for_a_number_of_reads(api):
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
def test_control_rejects_unknown_names_and_values(api, path, body):
    """A misspelt fault would make a test pass for the wrong reason."""
    response = httpx.post(f"{api.sandbox.portal_url}/sandbox/{path}", json=body)
    assert response.status_code == 400
    assert response.json()["message"]


def test_control_routes_need_no_sign_in(api):
    """So that another process can use them."""
    with httpx.Client(base_url=f"{api.sandbox.portal_url}/sandbox") as control:
        control.post("/scripts", json={"kind": "device_rental", "timing": "immediate"}).raise_for_status()
        control.post("/faults", json={"kind": "status", "endpoint": "user.me", "times": 3}).raise_for_status()
        assert [fault["times"] for fault in control.get("/faults").json()] == [3]
        assert api.get("/Users").status_code == 503
        control.delete("/faults").raise_for_status()
        assert api.get("/Users").status_code == 200
        assert submitted(api)["status"] == "succeeded"
        assert control.get("/record").json()["counts"] == {"auth.sign_in": 1, "user.me": 2, "device_rental.submit": 1}


def test_control_ends_a_job_with_its_scripted_outcome(api):
    api.sandbox.control.script("device_rental", "reads", reads=10**9, end="failed", message="no power")
    job = submitted(api)
    assert api.ok("GET", f"/DeviceRentals/{job['id']}")["status"] == "running"
    httpx.post(f"{api.sandbox.portal_url}/sandbox/jobs/{job['id']}/end").raise_for_status()
    ended = api.ok("GET", f"/DeviceRentals/{job['id']}")
    assert (ended["status"], ended["message"]) == ("failed", "no power")


def test_control_cannot_end_an_unknown_job_or_one_run_by_a_worker(api):
    assert httpx.post(f"{api.sandbox.portal_url}/sandbox/jobs/none/end").status_code == 404
    request = TrainingRequest(dataset_ids=api.dataset(), model_name="m")
    with api.sandbox.state.lock:  # no worker gets to it meanwhile
        job = api.sandbox.state.submit(request, Script())
        with pytest.raises(ApiError, match="run by a worker"):
            api.sandbox.control.end(job.id)


def test_record_contains_paths_and_jobs_but_no_secrets():
    """Neither queries, bodies, headers nor tokens are recorded, not even a token in a path."""
    with Sandbox(access_token="secret-in-a-path") as sandbox, Api(sandbox) as api:
        job = submitted(api, reference="r-1")
        api.get("/Datasets", params={"name": "hidden"})
        api.get(f"/Users/SignIn/{sandbox.access_token}")
        record = sandbox.control.record()
        secrets = ("hidden", sandbox.access_token, api.headers["Authorization"].removeprefix("Bearer "))
    assert not [secret for secret in secrets if secret in str(record)]
    assert {"endpoint", "method", "path", "status", "at"} == set(record["requests"][0])
    assert record["jobs"][0] | {"id": job["id"], "kind": "device_rental", "reference": "r-1"} == record["jobs"][0]


def test_reset_deletes_everything_but_keeps_jwts_valid(api):
    api.dataset()
    submitted(api)
    api.sandbox.control.fault("status", "user.me")
    httpx.post(f"{api.sandbox.portal_url}/sandbox/reset").raise_for_status()
    assert api.sandbox.control.record() == {"requests": [], "counts": {}, "jobs": []}
    assert api.ok("GET", "/Datasets") == []
    assert api.get("/Users").status_code == 200


def test_control_returns_404_for_images_of_an_unknown_dataset(sandbox: Sandbox):
    response = httpx.get(f"{sandbox.portal_url}/sandbox/datasets/nothing/images")
    assert (response.status_code, "nothing" in response.json()["message"]) == (404, True)
