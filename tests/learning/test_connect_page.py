"""What docs/connect.md shows and says of recordings is true."""

from __future__ import annotations

import json
import re
import shlex

import pytest

from airflow_provider_osai.cli.contract import main
from tests.conftest import ROOT
from tests.learning.styles import STYLES, load

PAGE = (ROOT / "docs/connect.md").read_text()
COMMANDS = re.findall(r"```text\n\$ osai-airflow contract (learn .*)\n([^`]*)```", PAGE)
ANSWERS = re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[1]
STYLE = STYLES["aspnet_envelope"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working directory, with the recordings of the page."""
    for story in STYLE.stories:
        (tmp_path / f"{story}.har").write_text(json.dumps(load(STYLE.folder / f"{story}.har")))
    (tmp_path / "answers.yaml").write_text(ANSWERS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("command", "shown"), COMMANDS, ids=["with questions", "with answers"])
def test_shown_output_is_that_of_the_command(command, shown, folder, capfd):
    assert main(shlex.split(command)) == int("Question" in shown)
    assert capfd.readouterr().out == shown
    assert (folder / "osai.yaml").stat().st_mode & 0o777 == 0o600


def learn(folder, change, capfd):
    """Return what the command prints of the success, each of whose entries was changed, or left out by ``None``."""
    recording = load(STYLE.folder / "success.har")
    recording["log"]["entries"] = [entry for entry in map(change, recording["log"]["entries"]) if entry]
    (folder / "success.har").write_text(json.dumps(recording))
    main(["learn", "success.har", "--answers", "answers.yaml", "-o", "osai.yaml"])
    return "".join(capfd.readouterr())


def is_in_troubleshooting(text):
    return text in PAGE.partition("## Troubleshooting")[2]


def test_recording_that_begins_after_the_sign_in_keeps_the_documented_one(folder, capfd):
    told = learn(folder, lambda entry: None if "SignIn" in entry["request"]["url"] else entry, capfd)
    assert "No sign-in was seen" in told
    assert is_in_troubleshooting("No sign-in was seen")
    assert "auth.sign_in" not in (folder / "osai.yaml").read_text()


def test_missing_bodies_are_counted(folder, capfd):
    def change(entry):
        entry["response"]["content"].pop("text", None)
        return entry

    problem = "requests have a body that is not in the recording"
    assert f"41 of 42 {problem}" in learn(folder, change, capfd)
    assert is_in_troubleshooting(problem)


def test_recording_of_the_page_alone_is_refused(folder, capfd):
    told = learn(folder, lambda entry: entry if "/portal" in entry["request"]["url"] else None, capfd)
    assert told.startswith("osai-airflow contract learn: The recording has no request of an API")
    assert is_in_troubleshooting("The recording has no request of an API")
    assert not (folder / "osai.yaml").exists()


def test_sign_in_with_a_password_keeps_the_documented_one(folder, capfd):
    def change(entry):
        if "SignIn" in entry["request"]["url"]:
            body = {"userName": "anna@example.com", "password": "a long password"}
            entry["request"]["postData"] = {"mimeType": "application/json", "text": json.dumps(body)}
        return entry

    problem = "The page signs in with a name and a password"
    assert problem in learn(folder, change, capfd)
    assert is_in_troubleshooting(problem)
    assert "auth.sign_in" not in (folder / "osai.yaml").read_text()
