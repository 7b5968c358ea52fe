"""``osai-airflow contract``: shown, and checked against what an OSAI says of itself."""

from __future__ import annotations

import json

import pytest

from airflow_provider_osai import cli
from airflow_provider_osai.api.contract import ENDPOINTS, UNBOUND, Contract
from airflow_provider_osai.api.overrides import apply_overrides
from airflow_provider_osai.sandbox import Sandbox
from tests.airflow.test_retraining_dag import renamed
from tests.cli.test_contract_diff import definition_of
from tests.conftest import CANARY, ROOT


def test_the_table_is_shown_with_its_evidence(capfd):
    """A line for each row."""
    assert cli.main(["contract", "show"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert len(lines) == len(ENDPOINTS.keys() - UNBOUND) + 1
    assert any(line.split()[0] == "training.submit" and line.endswith("assumed") for line in lines)


def test_the_docs_page_is_the_table(capfd):
    """The page names the command that generates it."""
    assert cli.main(["contract", "show", "--markdown"]) == 0
    assert capfd.readouterr().out == (ROOT / "docs/contract-reference.md").read_text()


def test_a_connections_osai_is_asked_for_its_definition(connection, capfd):
    """The sandbox's fits."""
    assert cli.main(["contract", "check", "--conn-id", "osai_default"]) == 0
    out = capfd.readouterr().out
    assert out.count(" matches") == len([name for name in ENDPOINTS.keys() - UNBOUND if not name.endswith(".page")])


def test_a_renamed_osai_is_told_and_a_contract_suggested(monkeypatch, capfd):
    """With the suggestion in the connection, all fits."""
    with Sandbox(access_token=CANARY, contract=apply_overrides(Contract(), renamed())) as other:
        document = {"conn_type": "osai", "password": CANARY, "extra": {"base_url": other.base_url}}
        monkeypatch.setenv("AIRFLOW_CONN_OSAI_DEFAULT", json.dumps(document))
        assert cli.main(["contract", "check"]) == 1
        assert " missing " in capfd.readouterr().out
        assert cli.main(["contract", "check", "--suggest"]) == 1
        document["extra"]["contract"] = capfd.readouterr().out
        monkeypatch.setenv("AIRFLOW_CONN_OSAI_DEFAULT", json.dumps(document))
        assert cli.main(["contract", "check"]) == 0


def test_a_saved_definition_will_do(tmp_path, capfd):
    """Without any connection."""
    file = tmp_path / "openapi.json"
    file.write_bytes(definition_of(Contract()))
    assert cli.main(["contract", "check", "--spec", str(file)]) == 0
    file.write_text("<html>")
    assert cli.main(["contract", "check", "--spec", str(file)]) == 2
    said = f"osai-airflow contract check: --spec {file}: Not an API definition: "
    assert capfd.readouterr().err.startswith(said)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["learn", "missing.har"], "'missing.har': No such file or directory. Check the path"),
        (["check", "--spec", "missing.yaml"], "--spec missing.yaml: No such file or directory. Check the path"),
    ],
)
def test_a_missing_file_is_one_line_with_the_command(arguments, said, monkeypatch, tmp_path, capfd):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["contract", *arguments]) == 2
    assert capfd.readouterr() == ("", f"osai-airflow contract {arguments[0]}: {said}\n")


@pytest.mark.parametrize("options", [["--effective"], ["--conn-id", "osai_default"], ["--contract", "contract.yaml"]])
def test_the_page_of_the_defaults_takes_no_contract(options, capfd):
    assert cli.main(["contract", "show", "--markdown", *options]) == 2
    said = "--markdown prints the defaults only. Leave out --effective, --contract and --conn-id."
    assert capfd.readouterr() == ("", f"osai-airflow contract show: {said}\n")


@pytest.mark.parametrize("arguments", [["--spec", "/nowhere/openapi.json"], ["--conn-id", "osai_default"]])
def test_without_a_definition_it_says_what_to_do(arguments, monkeypatch, capfd):
    """No traceback, and no secret."""
    document = {"conn_type": "osai", "password": CANARY, "extra": {"base_url": "http://127.0.0.1:9/api"}}
    monkeypatch.setenv("AIRFLOW_CONN_OSAI_DEFAULT", json.dumps(document))
    assert cli.main(["contract", "check", *arguments]) == 2
    said = capfd.readouterr().err
    assert "nowhere" in said or "--spec FILE" in said
    assert CANARY not in said
