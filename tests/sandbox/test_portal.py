"""The portal: its page, the templates of its requests and responses, and its hub."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from airflow_provider_osai.api.contract import Contract
from airflow_provider_osai.api.overrides import apply_overrides
from airflow_provider_osai.api.wire_format import decode_request
from airflow_provider_osai.sandbox.portal_templates import MARKS, OPERATIONS, marked_fields, portal_templates
from tests.api.test_contract_round_trip import equal
from tests.conftest import CANARY

DOCUMENTS = sorted((Path(__file__).parents[1] / "gallery" / "documents").glob("*.yaml"))


@pytest.fixture(params=[None, *DOCUMENTS], ids=lambda path: path.stem if path else "default")
def contract(request):
    return Contract() if request.param is None else apply_overrides(Contract(), str(request.param))


def listed(query):
    return {name: value if isinstance(value, list) else [value] for name, value in query.items()}


def in_path(endpoint, path):
    """Return the values of the placeholders in a path."""
    names = endpoint.placeholders
    pattern = re.sub(r"\\{[^{}]*\\}", "([^/]+)", re.escape(endpoint.path))
    return dict(zip(names, re.fullmatch(pattern, path).groups(), strict=True))


def test_template_of_each_request_is_read_back_as_its_fields(contract):
    templates = portal_templates(contract, "/api")["operations"]
    assert set(templates) == set(OPERATIONS)
    for operation, template in templates.items():
        endpoint = contract.endpoints[operation]
        if endpoint is None:
            assert template is None
            continue
        headers = {name.lower(): value for name, value in template["headers"].items()}
        path = in_path(endpoint, template["path"])
        fields, unknown = decode_request(endpoint, path, listed(template["query"]), headers, template["body"])
        assert equal(fields, marked_fields(endpoint)), operation
        assert not unknown, operation


def test_template_of_a_job_tells_the_states_apart(contract):
    """But for a queued and a running one, which have the same word in some contracts."""
    job = portal_templates(contract, "/api")["operations"]["training.get"]["reads"]["job"]
    states = {state: json.dumps(values) for state, values in job["states"].items() if state != "queued"}
    assert len(set(states.values())) == len(states) == 4


def test_template_of_the_sign_in_has_the_token_as_a_mark(contract):
    template = portal_templates(contract, "/api")["signIn"]
    if contract.endpoints["auth.sign_in"] is None:
        assert template is None
        return
    assert [name for mark, (name, _) in MARKS.items() if mark in json.dumps(template)] == ["accessToken"]


def test_page_has_templates_and_a_policy_but_no_token(sandbox):
    page = httpx.get(f"{sandbox.portal_url}/portal")
    templates = json.loads(re.search(r'<script type="application/json" id="templates">(.*?)</script>', page.text)[1])
    assert templates == json.loads(json.dumps(portal_templates(Contract(), "/api")))
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert "set-cookie" not in page.headers
    assert CANARY not in page.text


def test_session_needs_the_anti_forgery_token_of_the_page(sandbox):
    with httpx.Client(base_url=sandbox.portal_url) as client:
        client.get("/portal?cookies=1")
        assert client.post("/portal/session", json={"email": "a@b.invalid"}).status_code == 403
        headers = {"X-XSRF-TOKEN": client.cookies["XSRF-TOKEN"]}
        response = client.post("/portal/session", json={"email": "a@b.invalid"}, headers=headers)
        assert "HttpOnly" in response.headers["set-cookie"]


def socket_of(sandbox, token):
    quiet = logging.getLogger("tests.quiet")
    quiet.setLevel(logging.CRITICAL)  # the client would log the token
    return connect(f"{sandbox.portal_url.replace('http', 'ws')}/portal/jobs?access_token={token}", logger=quiet)


def message(**fields):
    return f"{json.dumps(fields)}\x1e"


def test_hub_sends_each_change_of_a_watched_job(api):
    api.sandbox.control.script(timing="reads", reads=1)
    job = api.ok("POST", "/DeviceRentals", json={"device": "jetson", "duration": 1})
    with socket_of(api.sandbox, api.headers["Authorization"].removeprefix("Bearer ")) as socket:
        socket.send(message(protocol="json", version=1))
        assert socket.recv(5) == "{}\x1e"
        socket.send(message(type=1, target="WatchJob", arguments=["device_rental", job["id"]]))
        first = json.loads(socket.recv(5).rstrip("\x1e"))
        assert (first["type"], first["target"]) == (1, "jobProgress")
        assert first["arguments"][0]["status"] == "queued"
        api.sandbox.control.end(job["id"])
        assert json.loads(socket.recv(5).rstrip("\x1e"))["arguments"][0]["status"] == "succeeded"


def test_hub_ignores_what_it_does_not_understand(api):
    with socket_of(api.sandbox, api.headers["Authorization"].removeprefix("Bearer ")) as socket:
        socket.send("[]\x1e{\x1e" + message(type=1, target="WatchJob", arguments=["training", "x"]) + message(type=6))
        socket.send(message(protocol="json", version=1))
        assert socket.recv(5) == "{}\x1e"


def test_hub_rejects_a_wrong_token(sandbox):
    with pytest.raises(InvalidStatus, match="403"):
        socket_of(sandbox, "wrong")
