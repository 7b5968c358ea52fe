"""The recordings are what the tests of learning take them for."""

from __future__ import annotations

import json
import re
from urllib.parse import urlsplit

import pytest

from airflow_provider_osai.api.contract import Contract
from airflow_provider_osai.api.models import TERMINAL_STATES
from airflow_provider_osai.api.overrides import apply_overrides
from tests.learning.other_tools import FOLDER, FORMATS
from tests.learning.styles import STYLES, load

JWT = re.compile(r"eyJ[\w-]{8,}\.eyJ[\w-]+\.[\w-]+")


def exchanges(recording):
    """Return method, path, status and request body of each exchange with the API but uploads."""
    found = []
    for entry in recording["log"]["entries"]:
        request, response = entry["request"], entry["response"]
        if "/api/" in request["url"] and not is_upload(entry):
            path = request["url"].partition("/api/")[2]
            body = request.get("postData", {}).get("text") or None
            found.append((request["method"], path, response["status"], body))
    return found


@pytest.mark.parametrize("style", STYLES.values(), ids=lambda style: style.name)
def test_recordings_of_a_style_have_its_secrets_and_no_other_tokens(style):
    texts = [json.dumps(load(style.folder / f"{story}.har")) for story in style.stories]
    secrets = json.loads((style.folder / "secrets.json").read_text())
    for name, values in secrets.items():
        assert all(any(value in text for text in texts) for value in values), name
    known = {value for values in secrets.values() for value in values}
    assert {token for text in texts for token in JWT.findall(text)} <= known


@pytest.mark.parametrize("style", STYLES.values(), ids=lambda style: style.name)
def test_success_has_forms_with_their_files_and_the_model(style):
    entries = load(style.folder / "success.har")["log"]["entries"]
    forms = [entry["request"]["postData"]["text"] for entry in entries if is_upload(entry)]
    assert len(forms) == 6
    assert all(re.search(r'filename="\w+-\d.png"', form) for form in forms)
    assert entries[-1]["response"]["content"]["encoding"] == "base64"
    assert entries[-1]["response"]["content"]["size"] > 10_000


@pytest.mark.parametrize(
    "style", [each for each in STYLES.values() if "push" not in each.query], ids=lambda style: style.name
)
def test_polls_of_a_training_show_its_progress_and_end(style):
    """Read by the contract that the sandbox spoke."""
    contract = apply_overrides(Contract(), str(style.contract)) if style.contract else Contract()
    endpoint = contract["training.get"]
    for story, end in (("success", "succeeded"), ("failure", "failed"), ("cancel", "cancelled")):
        if story not in style.stories:
            continue
        states, progress = [], set()
        for entry in polls(endpoint, load(style.folder / f"{story}.har")):
            fields = endpoint.read(entry, sent={"id": "1"})
            states.append(contract.state(str(fields["status"]), "training.get"))
            progress.add(fields.get("progress"))
            if states[-1] in TERMINAL_STATES:
                break
        assert "running" in states
        assert states[-1] == end
        assert len([each for each in progress if each and 0 < each < 1]) >= 2 or style.name == "text_answers"


def polls(endpoint, recording):
    """Yield the documents of the responses to a poll."""
    path = re.compile(re.sub(r"\\{[^{}]*\\}", "[^/]+", re.escape(f"/api{endpoint.path}")))
    for entry in recording["log"]["entries"]:
        if entry["request"]["method"] == "GET" and path.fullmatch(urlsplit(entry["request"]["url"]).path):
            text = entry["response"]["content"]["text"]
            yield text if endpoint.rules.answer == "text" else json.loads(text)


def is_upload(entry):
    headers = {header["name"].lower(): header["value"] for header in entry["request"]["headers"]}
    return headers.get("content-type", "").startswith("multipart/")


@pytest.mark.parametrize("name", FORMATS)
def test_format_has_the_exchanges_of_its_recording(name):
    convert, style = FORMATS[name]
    source = load(style.folder / "success.har")
    written = load(FOLDER / f"{name}.har")
    assert json.loads(json.dumps(convert(source))) == written
    assert exchanges(written) == exchanges(source)


def test_sanitized_format_has_no_tokens_in_headers():
    """But in bodies and addresses, as Chrome."""
    secrets = json.loads((FOLDER / "secrets.json").read_text())
    texts = [(FOLDER / f"{name}.har").read_text() for name in ("chrome", "chrome_push")]
    assert not [value for value in secrets["cookie portal.session"] for text in texts if value in text]
    assert "Bearer eyJ" not in "".join(texts)
    assert all(any(value in text for value in secrets["access_token"]) for text in texts)
