"""Learning from recordings: what is right, that nothing is guessed, and that no secret gets out."""

from __future__ import annotations

import json
import re
import socket
import stat

import httpx
import pytest
import yaml

from airflow_provider_osai.api.contract import Contract
from airflow_provider_osai.api.errors import OsaiContractError
from airflow_provider_osai.api.models import JobKind, JobState
from airflow_provider_osai.api.overrides import apply_overrides
from airflow_provider_osai.cli.contract import main
from airflow_provider_osai.learning.learner import learn
from airflow_provider_osai.learning.recording import read_recording
from airflow_provider_osai.sandbox import Sandbox
from tests.conftest import ROOT
from tests.learning.other_tools import FOLDER, FORMATS
from tests.learning.scoring import ANSWERS, read, recordings_of, score, table
from tests.learning.styles import STYLES

every_style = pytest.mark.parametrize("style", STYLES.values(), ids=lambda style: style.name)


@pytest.fixture
def run(tmp_path, capfd):
    """Run ``contract learn``; return the exit code, the document, the redacted requests and what was printed."""

    def run_command(*arguments, answers=None):
        document, redacted = tmp_path / "osai.yaml", tmp_path / "redacted.json"
        options = ["-o", document, "--redacted", redacted]
        if answers:
            file = tmp_path / "answers.yaml"
            file.write_text(yaml.safe_dump(answers))
            options += ["--answers", file]
        code = main(["learn", *map(str, [*arguments, *options])])
        texts = [path.read_text() if path.exists() else "" for path in (document, redacted)]
        printed = capfd.readouterr()
        return code, *texts, printed.out + printed.err

    return run_command


@every_style
def test_rows_are_right_or_called_doubtful(style):
    found = score(style)
    assert not found.wrong
    assert not found.states
    assert len(found.questions) <= 5
    assert len(found.right) >= 0.9 * found.shown
    assert {name: row.proof for name, row in found.learned.rows.items() if row.proof} == {}


@pytest.mark.slow
def test_the_table_in_the_docs_is_current():
    assert table() in (ROOT / "docs" / "contract.md").read_text()


@every_style
def test_no_secret_is_in_any_output(style, run):
    secrets = json.loads((style.folder / "secrets.json").read_text())
    code, document, redacted, printed = run(*recordings_of(style), answers=ANSWERS)
    assert code == 0
    assert apply_overrides(Contract(), yaml.safe_load(document))
    for text in (document, redacted, printed):
        assert not [name for name, values in secrets.items() for value in values if value in text]
    recording, redactor = read(recordings_of(style))
    for value in (value for values in secrets.values() for value in values):
        assert value not in repr(recording)
        assert value not in repr(redactor)


@pytest.mark.parametrize("name", FORMATS)
def test_formats_of_other_tools_are_learned_without_their_secrets(name, run):
    secrets = json.loads((FOLDER / f"secrets{name[6:] if name == 'chrome_push' else ''}.json").read_text())
    code, document, redacted, printed = run(FOLDER / f"{name}.har", answers=ANSWERS)
    assert code in (0, 1)
    learned = yaml.safe_load(document)
    for text in (document, redacted, printed):
        assert not [each for each, values in secrets.items() for value in values if value in text]
    if name != "without_bodies":
        assert {"training.submit", "training.get", "dataset.get", "conversion.submit"} <= learned.keys()


def test_no_socket_is_opened(monkeypatch, run):
    def refuse(*_):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert run(*recordings_of(STYLES["paged_numbers"]), answers=ANSWERS)[0] == 0


def test_files_are_readable_by_their_owner_only(run, tmp_path):
    run(*recordings_of(STYLES["default"]))
    assert {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("osai.yaml", "redacted.json")} == {0o600}


def test_success_alone_tells_no_failure_and_asks_nothing_about_it(run):
    """The words of the other ends are not in the document: a job with one of them is unknown, and waited for."""
    style = STYLES["aspnet_envelope"]
    _, document, _, _ = run(style.folder / "success.har", answers=ANSWERS)
    contract = apply_overrides(Contract(), yaml.safe_load(document))
    assert contract.state("2") is JobState.SUCCEEDED
    assert contract.state("3") is JobState.UNKNOWN


def test_an_end_without_a_result_is_asked_for_and_never_taken_for_a_success():
    """Only the failed job was recorded."""
    style = STYLES["paged_numbers"]
    recording, _ = read([style.folder / "failure.har"])
    learned = learn(recording, {"documented": "recording"})
    asked = [question for question in learned.questions if question.id.startswith("state:")]
    assert asked
    assert "succeeded" not in learned.states.words.values()
    word = asked[0].id.partition(":")[2]
    answered = learn(recording, {"documented": "recording", asked[0].id: "failed"})
    assert answered.states.words[word] == "failed"


def test_documented_rows_stay_until_the_user_says_otherwise(run):
    style = STYLES["paged_numbers"]
    code, document, _, printed = run(*recordings_of(style))
    assert code == 1
    assert "dataset.create" not in yaml.safe_load(document)
    assert "documented" in printed
    code, document, _, _ = run(*recordings_of(style), answers={"documented": "documentation"})
    assert code == 0
    assert "dataset.create" not in yaml.safe_load(document)


WITH_PATHS = [style for style in STYLES.values() if not style.query]
ONE_ADDRESS = {"multipart_parts", "paged_cursors"}
"""Styles whose jobs of all kinds have one address: the sandbox's definition states the body of one kind only."""


@pytest.mark.parametrize("style", WITH_PATHS, ids=lambda style: style.name)
def test_a_definition_confirms_rows_and_adds_those_that_were_not_seen(style, run, tmp_path):
    written = apply_overrides(Contract(), str(style.contract)) if style.contract else Contract()
    definition = tmp_path / "openapi.json"
    with Sandbox(contract=written) as sandbox:
        definition.write_bytes(httpx.get(f"{sandbox.base_url}/openapi.json").content)
    _, document, _, _ = run(*recordings_of(style), "--definition", definition, answers=ANSWERS)
    contract = apply_overrides(Contract(), yaml.safe_load(document))
    assert "the definition does not have" not in document
    seen = {"training", "conversion", "prediction"}
    kinds = seen if style.name in ONE_ADDRESS else set(JobKind)
    for name in (f"{kind}.{verb}" for kind in kinds for verb in ("submit", "get")):
        first, second = written[name], contract[name]
        assert (first.method, shape(first.path)) == (second.method, shape(second.path)), name
    for name in set(yaml.safe_load(document)) & {"retraining.submit", "manipulation.get"}:
        assert "from the definition only" in document.partition(f"\n{name}:")[0].rpartition("\n")[2]


def shape(path):
    """Return a path without the names of its placeholders."""
    return re.sub(r"{[^}]*}", "{}", path)


def test_a_notebook_adds_what_was_not_recorded(run):
    notebook = ROOT / "tests" / "learning" / "notebooks" / "vision_portal.ipynb"
    recording = STYLES["default"].folder / "success.har"
    alone = run(recording, answers=ANSWERS)[1]
    code, document, _, printed = run(recording, "--notebook", notebook, answers=ANSWERS)
    assert code in (0, 1)
    assert "vision_portal.ipynb" in document.splitlines()[0]
    assert yaml.safe_load(document)["training.get"] == yaml.safe_load(alone)["training.get"] or "ipynb" in document
    assert "canary" not in printed


def test_evidence_of_the_living_api_adds_questions(run, tmp_path):
    evidence = tmp_path / "evidence.json"
    seen = {"method": "GET", "path": "/Trainings/{id}", "responses": 3, "words": {"Paused": 1, "running": 2}}
    evidence.write_text(json.dumps({"format": "osai-evidence", "version": 1, "operations": {"training.get": seen}}))
    recordings = recordings_of(STYLES["default"])
    code, _, _, printed = run(*recordings, "--evidence", evidence)
    assert code == 1
    assert "state:Paused" in printed
    code, document, _, _ = run(*recordings, "--evidence", evidence, answers={"state:Paused": "running"})
    assert code == 0
    assert yaml.safe_load(document)["states"] == {"Paused": "running"}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"not json", "not valid JSON"),
        (b"[]", "is not a recording"),
        (b'{"log": {"entries": []}}', "no request of an API"),
        (b"[" * 10_000 + b"]" * 10_000, "nested"),
        (b'{"log": {"entries": ' + b"[" * 100 + b"]" * 100 + b"}}", "nested more than"),
    ],
)
def test_what_is_no_recording_is_refused_in_one_line(content, reason, tmp_path, run):
    path = tmp_path / "odd.har"
    path.write_bytes(content)
    code, document, _, printed = run(path)
    assert (code, document) == (2, "")
    assert reason in printed
    assert printed.count("\n") == 1


def entry(**changes):
    """One entry of a recording: a GET of a list."""
    request = {"method": "GET", "url": "https://api.example/api/things", "headers": [], **changes.pop("request", {})}
    content = {"mimeType": "application/json", "text": "[]", "size": 2}
    response = {"status": 200, "headers": [], "content": content, **changes.pop("response", {})}
    return {"startedDateTime": "2026-01-01T00:00:00Z", "request": request, "response": response, **changes}


HOSTILE = {
    "path tricks": entry(request={"url": "https://api.example/api/../../etc/passwd/%2e%2e%2f%00"}),
    "control characters": entry(request={"url": "https://api.example/api/\x1b[31m/\u202e/x", "headers": [{}]}),
    "names": entry(response={"content": {"text": '{"__proto__": {"a": 1}, "\\u0000": 1, "a.b[0]": "c"}'}}),
    "numbers": entry(response={"content": {"text": '{"id": 1e400, "n": -0.0, "big": ' + "9" * 400 + "}"}}),
    "types": entry(request={"method": 5, "postData": {"text": 7, "params": [{"name": {}}]}}),
    "no response": {"request": {"url": "https://api.example/api/x", "method": "GET"}},
    "not an object": 5,
    "messages": entry(_webSocketMessages=[{"type": "receive", "data": "\x1e".join(["{"] * 1000)}, 5]),
    "base64": entry(response={"content": {"text": "%%%", "encoding": "base64", "mimeType": "application/json"}}),
    "cyclic references": entry(response={"content": {"text": '{"$ref": "#/a", "a": {"$ref": "#/a"}}'}}),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_entries_are_left_out_or_read_as_data(name, tmp_path):
    path = tmp_path / "hostile.har"
    path.write_text(json.dumps({"log": {"entries": [entry(), HOSTILE[name], HOSTILE[name]]}}))
    recording = read_recording([path])
    learned = learn(recording)
    assert apply_overrides(Contract(), json.loads(json.dumps(learned.document)))
    assert not {part for row in learned.rows.values() if row.rules for part in row.rules.get("path", "").split("/")} & {
        "..",
        ".",
    }


def test_too_many_entries_are_refused(tmp_path):
    path = tmp_path / "long.har"
    path.write_text(json.dumps({"log": {"entries": [entry()] * 100_001}}))
    with pytest.raises(OsaiContractError, match="100001 entries"):
        read_recording([path])
