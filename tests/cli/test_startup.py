"""What the command line imports before it does anything, shell completion, and ``airflow osai``."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from importlib.metadata import version

import airflow
import pytest

from airflow_provider_osai import __version__
from airflow_provider_osai.get_provider_info import get_provider_info
from tests.cli.conftest import QUIET, SCRIPT

HEAVY = ("airflow", "pydantic", "httpx", "rich", "yaml", "fastapi", "sqlalchemy")
READS_CLI = not airflow.__version__.startswith("3.1.")
"""Whether this Airflow reads the commands of providers."""


def imported(*words, **env):
    """Return the heavy packages that a command imports."""
    code = (
        "import atexit, os, sys\n"
        f"def tell(code=0): sys.stderr.write(' '.join(m for m in {HEAVY!r} if m in sys.modules) + '\\n')\n"
        "atexit.register(tell)\n"
        "leave = os._exit\n"
        "def end(code): tell(); sys.stderr.flush(); leave(code)\n"
        "os._exit = end\n"
        "from airflow_provider_osai.cli import main\n"
        "sys.exit(main())"
    )
    command = [sys.executable, "-c", code, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **env})
    return done.stderr.splitlines()[-1].split()


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["version", "--json"],
        ["jobs", "--help"],
        ["sandbox", "--help"],
        ["jobs", "list", "--kind", "x"],
        ["contract", "learn", "--help"],
        ["brew"],
    ],
    ids=" ".join,
)
def test_help_version_and_usage_errors_import_nothing_heavy(words):
    assert imported(*words) == []


def complete(line, stream):
    """Return the completions of a command line, as the shell's function asks for them."""
    command = f"{SCRIPT} 8>{stream} 9>/dev/null >/dev/null"
    env = {**os.environ, "_ARGCOMPLETE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line)), "_ARGCOMPLETE_IFS": "\n"}
    subprocess.run(command, shell=True, check=True, env=env)
    return [each.strip() for each in stream.read_text().splitlines()]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("osai-airflow mod", ["models"]),
        ("osai-airflow jobs wa", ["watch"]),
        ("osai-airflow jobs list --state ca", ["cancelled"]),
        ("osai-airflow jobs list --kind re", ["retraining"]),
        ("osai-airflow jobs cancel dev", ["device_rental"]),
        ("osai-airflow jobs cancel training ", ["--help", "--yes", "--wait", "--conn-id", "--json"]),
        ("osai-airflow orphans --action ca", ["cancel"]),
        ("osai-airflow sandbox --ba", ["--base-path"]),
        ("osai-airflow models rollback defects --re", ["--reason"]),
    ],
)
def test_completion_knows_commands_options_and_values_but_no_ids(tmp_path, line, expected):
    assert complete(line, tmp_path / "completions") == expected


def test_completion_imports_nothing_heavy(tmp_path):
    line = "osai-airflow sandbox --"
    env = {"_ARGCOMPLETE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line))}
    assert imported(**env, _ARGCOMPLETE_STDOUT_FILENAME=str(tmp_path / "completions")) == []


def test_version_names_what_is_installed(cli):
    document = cli("version", "--json").json
    assert document["airflow-provider-osai"] == document["contract_document"] == __version__
    assert document["apache-airflow"] == version("apache-airflow")
    assert cli("--version").out == cli("version").out


@pytest.mark.parametrize(
    "words",
    [["jobs"], ["jobs", "brew"], ["models", "champion"], ["jobs", "show"], ["datasets", "check", "x", "y"], ["--x"]],
)
def test_a_usage_error_is_one_line_with_the_help_to_read(cli, words):
    result = cli(*words)
    assert (result.code, result.out) == (2, "")
    assert "--help' lists the" in result.error


@pytest.mark.parametrize("words", [["version"], ["--help"], ["contract", "show"], ["brew"]])
@pytest.mark.parametrize("streams", [">&-", "2>&-", ">&- 2>&-"])
def test_a_closed_stream_discards_what_is_written_to_it(words, streams):
    command = ["sh", "-c", f'"$@" {streams}', "sh", SCRIPT, *words]
    done = subprocess.run(command, env=os.environ | QUIET, capture_output=True, text=True, check=False)
    assert done.returncode == (2 if words == ["brew"] else 0)
    assert "Error" not in done.stderr


def test_an_unexpected_error_is_one_line_unless_the_traceback_is_wanted(cli, monkeypatch, osai_sandbox):
    monkeypatch.setattr("airflow_provider_osai.cli.version._installed", lambda name: {}[name])
    error = cli("version").error
    assert error.startswith("osai-airflow version: Unexpected error: KeyError: 'apache-airflow'.")
    monkeypatch.setenv("OSAI_AIRFLOW_TRACEBACK", "1")
    with pytest.raises(KeyError):
        cli("version")


class TestAirflowCommand:
    @pytest.fixture
    def parser(self):
        from airflow.cli.cli_parser import get_parser

        return get_parser()

    def test_the_metadata_names_the_function(self):
        assert get_provider_info()["cli"] == ["airflow_provider_osai.cli.airflow_commands.get_osai_cli_commands"]

    @pytest.mark.skipif(not READS_CLI, reason="Airflow 3.1 does not read the commands of providers")
    @pytest.mark.parametrize(
        ("words", "code"),
        [
            (["jobs", "list", "--state", "running", "--state", "queued", "--json"], 0),
            (["jobs", "show", "0"], 1),
            (["jobs", "cancel", "training", "1", "2", "--yes"], 1),
            (["jobs", "cancel", "training", "1"], 2),
            (["datasets", "list"], 0),
            (["models", "list", "--json"], 0),
            (["check"], 0),
            (["version"], 0),
            (["jobs", "orphans", "--grace", "0"], 0),
        ],
        ids=str,
    )
    def test_does_the_same(self, osai_sandbox, cli, parser, capfd, words, code):
        options = parser.parse_args(["osai", *words])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            options.func(options)
        by_airflow = capfd.readouterr()
        ours = cli(*words)
        assert ended.value.code == ours.code == code
        if words != ["check"]:  # it has response times
            assert (by_airflow.out, by_airflow.err) == (ours.out, ours.err)

    @pytest.mark.skipif(not READS_CLI, reason="Airflow 3.1 does not read the commands of providers")
    def test_has_every_option(self, parser):
        from tests.cli.reference import commands

        for path, ours, _ in commands():
            theirs = parser
            for word in ("osai", *path.split()):
                theirs = next(a for a in theirs._actions if isinstance(a, argparse._SubParsersAction)).choices[word]
            assert {s for a in theirs._actions for s in a.option_strings} == {
                s for a in ours._actions for s in a.option_strings
            }

    def test_costs_the_airflow_command_only_the_options(self):
        """What it loads of this package does not load its clients, models or commands."""
        code = (
            "import sys, json, airflow.cli.cli_config\n"
            "before = set(sys.modules)\n"
            "from airflow_provider_osai.cli.airflow_commands import get_osai_cli_commands as get\n"
            "get()\n"
            "print(json.dumps(sorted(m for m in set(sys.modules) - before)))"
        )
        env = {**os.environ, **QUIET}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
        modules = json.loads(done.stdout.splitlines()[-1])
        assert len(modules) < 20
        assert not [m for m in modules if m.startswith("airflow_provider_osai.api")]
