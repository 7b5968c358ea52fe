"""Airflow's command line and our own."""

from __future__ import annotations

import json
import os
import pty
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from airflow_provider_osai.cli import main

BIN = Path(sys.executable).parent


@pytest.fixture
def airflow(dagbag, connection, monkeypatch):
    """Run a command of Airflow's, with the connection in the environment."""
    monkeypatch.setenv("AIRFLOW__CORE__TEST_CONNECTION", "Enabled")
    monkeypatch.setenv("COLUMNS", "1000")

    def run(*arguments):
        command = [str(BIN / "airflow"), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout

    return run


def test_airflow_lists_the_provider(airflow):
    """With its version."""
    assert "airflow-provider-osai" in airflow("providers", "get", "airflow-provider-osai")


def test_airflow_tests_the_connection(airflow, connection):
    """Well, and with a diagnosis."""
    assert "Connection success" in airflow("connections", "test", "osai_default")
    connection(base_url="http://127.0.0.1:9/api")
    assert "OSAI is unreachable" in airflow("connections", "test", "osai_default")


def test_our_command_line_says_what_it_can(capfd):
    """And refuses what it cannot."""
    assert main(["--help"]) == 0
    assert "sandbox" in capfd.readouterr().out
    assert main(["brew"]) == main([]) + 2 == 2


@pytest.mark.parametrize(
    ("command", "near"),
    [("sandbx", "sandbox"), ("SANDBOX", "sandbox"), ("orphan", "orphans"), ("xyzzy", None), ("", None), ("--x", None)],
)
def test_an_unknown_command_is_named_and_the_nearest_suggested(capfd, command, near):
    """In one line, which names the command that lists them."""
    assert main([command]) == 2
    hint = f"; did you mean {near}?" if near else "."
    said = f"osai-airflow: unknown command {command!r}{hint} 'osai-airflow --help' lists the commands.\n"
    assert capfd.readouterr().err == said


def test_without_arguments_it_prints_what_it_can(capfd):
    assert main([]) == 0
    assert "orphans" in capfd.readouterr().out


ODD = {
    "sandbox": [
        *(["--port", port] for port in ("99999", "-1", "text", "1.5", "", "0x10")),
        *(["--workers", count] for count in ("0", "-3", "many", "1000000")),
        *(["--folder", folder] for folder in ("", "/dev/null", "/dev/null/x", "/proc/x/y", "x" * 300)),
        *(["--base-path", path] for path in ("foo", "", "/a b", "/{x}", "//", "/a?b")),
        *(["--ready-file", file] for file in ("/dev/null/x", "/nowhere/at/all", "/", ".")),
        ["extra"],
    ],
    "digits": [[], [""], ["/dev/null"], ["/proc/x"], *(["x", "--limit", limit] for limit in ("-5", "0", "x", "²", ""))],
    "demo": [["extra"], ["--keep=3"]],
    "contract": [
        *([], ["brew"], ["show", "extra"]),
        *(["check", "--spec", file] for file in ("/nowhere", "/", "/dev/null", sys.executable)),
        *(["check", "--conn-id", conn_id] for conn_id in ("nowhere", "a=b c", "../x")),
    ],
    "check": [["--conn-id", "nowhere"], ["--conn-id", ""], ["--conn-id", "a=b", "--webhook"], ["extra"]],
    "orphans": [*(["--grace", grace] for grace in ("nan", "x", "-1", "inf")), ["--connection", ""], ["--action", "x"]],
}


@pytest.mark.parametrize(("command", "given"), [(name, given) for name, several in ODD.items() for given in several])
def test_odd_arguments_end_in_a_line_and_not_in_a_traceback(dagbag, capfd, tmp_path, monkeypatch, command, given):
    """Which says what was wrong; and the exit code says that something was."""
    monkeypatch.chdir(tmp_path)
    try:
        code = main([command, *given])
    except SystemExit as ended:  # argparse's
        code = ended.code
    told = capfd.readouterr()
    assert code in (1, 2)
    assert "Traceback" not in told.out + told.err
    lines = [line for line in (told.err or told.out).splitlines() if not line.startswith((" ", "usage"))]
    assert lines[-1].strip()
    assert list(tmp_path.iterdir()) == []


def test_a_base_path_without_a_slash_is_a_usage_error(capfd):
    with pytest.raises(SystemExit) as ended:
        main(["sandbox", "--base-path", "foo"])
    assert ended.value.code == 2
    assert "argument --base-path: 'foo': must begin with a slash, such as /v1, or be only /" in capfd.readouterr().err


def test_a_file_as_the_sandboxs_folder_is_said(capfd, tmp_path):
    (tmp_path / "notes.txt").touch()
    assert main(["sandbox", "--folder", str(tmp_path / "notes.txt")]) == 1
    said = f"osai-airflow sandbox: {tmp_path}/notes.txt is a file; choose a folder, or a new name\n"
    assert capfd.readouterr().err == said


def test_a_taken_port_is_said_in_one_line(capfd):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["sandbox", "--port", str(port)]) == 1
    told = capfd.readouterr()
    said = "the port is in use; choose another one, or 0 for any free port"
    assert (told.out, told.err) == ("", f"osai-airflow sandbox: Cannot listen on port {port}: {said}\n")


def test_a_reader_that_has_read_enough_is_no_traceback():
    """As ``head`` does."""
    command = f"{shlex.quote(str(BIN / 'osai-airflow'))} contract show --markdown | true"
    env = {**os.environ, "AIRFLOW__CORE__UNIT_TEST_MODE": "False"}  # Airflow logs that to the standard output
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False, env=env)
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


def test_our_command_line_runs_a_sandbox(tmp_path):
    """Until it gets a signal; the address and token are one line of JSON."""
    command = [str(BIN / "osai-airflow"), "sandbox", "--access-token", "t"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as sandbox:
        line = json.loads(sandbox.stdout.readline())
        sandbox.terminate()
        assert sandbox.wait(30) == 0
    assert line["base_url"].startswith("http://127.0.0.1:")
    assert "access_token" not in line


def test_our_command_line_writes_images(tmp_path, capfd):
    """A folder for each digit."""
    assert main(["digits", str(tmp_path / "images"), "--limit", "30"]) == 0
    assert "30 images" in capfd.readouterr().out
    assert len(list((tmp_path / "images").glob("*/*.png"))) == 30
    assert {path.name for path in (tmp_path / "images").iterdir()} == set("0123456789")


def test_in_a_terminal_the_sandbox_prints_the_connection_to_paste():
    """What is printed makes a connection that works; elsewhere than in a terminal, nothing but the line of JSON."""
    ours, theirs = pty.openpty()
    command = [str(BIN / "osai-airflow"), "sandbox", "--access-token", "t"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs, text=True) as sandbox:
        os.close(theirs)
        line = json.loads(sandbox.stdout.readline())
        with os.fdopen(ours) as terminal:
            name, _, value = terminal.readline().strip().removeprefix("export ").partition("=")
            portal = terminal.readline().strip()
            sandbox.terminate()
        assert sandbox.wait(30) == 0
    assert name == "AIRFLOW_CONN_OSAI_DEFAULT"
    assert portal.startswith("Portal: http://127.0.0.1:")
    assert portal.endswith("/portal")
    (value,) = shlex.split(value)
    assert json.loads(value) == {"conn_type": "osai", "password": "t", "extra": {"base_url": line["base_url"]}}
