"""docs/reference/cli.md has all commands, options and keys of JSON documents."""

from __future__ import annotations

import re

import pytest

from airflow_provider_osai.cli.parsers import COMMANDS
from tests.cli.reference import PAGE, SECTION, commands, markdown
from tests.data.quality.making import fill

TEXT = PAGE.read_text()


def documented(command):
    """Return the names in the row of a command in the table of JSON documents."""
    row = re.search(rf"^\| .*`{command}`.*? \| (.*) \|$", TEXT.partition("## JSON documents")[2], re.MULTILINE)
    return set(re.findall(r"`([\w-]+)`", row[1]))


def section(title):
    return set(re.findall(r"`([\w-]+)`", re.search(rf"### {title}\n(.*?)\n##", TEXT, re.DOTALL)[1]))


def test_the_options_are_those_of_the_parsers():
    """``python -m tests.cli.reference`` rewrites them."""
    assert SECTION.search(TEXT)[0] == markdown()


def test_every_command_is_there():
    names = [path for path, _, _ in commands()]
    assert {name.split()[0] for name in names} == set(COMMANDS)
    assert [name for name in names if f"### {name}\n" not in TEXT] == []


@pytest.mark.parametrize(
    "words",
    [
        ["jobs", "list"],
        ["jobs", "show", "ID"],
        ["jobs", "watch", "training", "ID"],
        ["jobs", "cancel", "training", "ID", "--yes"],
        ["datasets", "list"],
        ["models", "list"],
        ["version"],
        ["check"],
    ],
    ids=" ".join,
)
def test_each_key_of_a_document_is_documented(cli, submit, words):
    job_id = submit(timing="immediate", metrics={"accuracy": 0.5})
    document = cli(*(job_id if word == "ID" else word for word in words), "--json").json
    keys = documented(words[0] if words[0] in ("version", "check") else " ".join(words[:2]))
    assert set(document) <= keys
    for each in document.get("jobs", []) if words[1:2] == ["cancel"] else document.get("checks", []):
        assert set(each) <= keys
    if words[1:2] == ["list"] and words[0] == "jobs":
        assert set(document["jobs"][0]) | set(document["jobs"][0]["task"]) <= section("A job")
    if "job" in document:
        assert set(document["job"]) <= section("A job")


def test_each_key_of_a_live_check_is_documented(cli, submit):
    """A response that has an unknown status word has a problem."""
    submit(word="Pondering")
    document = cli("contract", "check", "--live", "--json").json
    assert set(document) <= documented("contract check --live")
    assert {key for row in document["rows"] for key in row} <= section("An operation")
    problems = [problem for row in document["rows"] for problem in row["problems"]]
    assert problems
    assert {key for problem in problems for key in problem} <= section("An operation")
    assert {row["status"] for row in document["rows"]} <= set(re.findall(r"`([\w ]+)`", TEXT))


def test_each_key_of_a_data_quality_report_is_documented(cli, tmp_path):
    fill(tmp_path / "data" / "cat")
    fill(tmp_path / "holdout" / "cat", 1)
    document = cli("datasets", "check", str(tmp_path / "data"), "--holdout", str(tmp_path / "holdout"), "--json").json
    assert set(document) <= documented("datasets check")
    for finding in document["findings"]:
        assert set(finding) | {key for item in finding["items"] for key in item} <= section("A finding")
