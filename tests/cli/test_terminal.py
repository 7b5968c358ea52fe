"""What a person sees in a terminal, and what a script gets from a pipe."""

from __future__ import annotations

import os
import re
import signal
import subprocess

import pytest

from tests.cli.conftest import QUIET, SCRIPT, take_sigint

ESCAPE = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")
COLOR = re.compile(r"\x1b\[[0-9;]*3[0-9]")


def plain(text):
    """Return the text without what controls the terminal."""
    return ESCAPE.sub("", text)


def test_a_terminal_gets_colors_and_a_pipe_none(terminal, submit):
    job_id = submit(timing="immediate")
    shown = terminal("jobs", "list")
    assert shown.end() == 0
    assert COLOR.search(shown.shown)
    assert job_id in plain(shown.shown)
    env = {**os.environ, **QUIET, "FORCE_COLOR": "1"}
    piped = subprocess.run([SCRIPT, "jobs", "list"], capture_output=True, text=True, check=True, env=env)
    assert (ESCAPE.search(piped.stdout), piped.stderr) == (None, "")
    assert piped.stdout.splitlines()[1].split()[:3] == ["training", job_id, "succeeded"]


def test_no_color_is_obeyed(terminal, submit):
    submit(timing="immediate")
    shown = terminal("jobs", "list", NO_COLOR="1")
    assert shown.end() == 0
    assert not COLOR.search(shown.shown)
    assert "succeeded" in plain(shown.shown)


@pytest.mark.parametrize("columns", [40, 80, 100])
def test_no_terminal_breaks_a_value(terminal, submit, columns):
    """Each is in a line of its own if there is no room for a table."""
    job_id = submit(timing="immediate")
    shown = terminal("jobs", "list", columns=columns)
    assert shown.end() == 0
    lines = plain(shown.shown).replace("\r", "").splitlines()
    assert max(map(len, lines)) <= columns
    found = next(line for line in lines if job_id in line)
    assert found.split() == ["id", job_id] if columns < 100 else found.split()[:2] == ["training", job_id]
    if columns < 100:
        assert ["task", "retrain.train[0]"] in [line.split() for line in lines]
    assert re.search(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\s|$)", "\n".join(lines))


def test_json_in_a_terminal_is_the_same_document(terminal, submit):
    submit()
    shown = terminal("jobs", "list", "--json")
    assert shown.end() == 0
    assert not ESCAPE.search(shown.shown)


@pytest.mark.parametrize(
    ("answer", "code", "state"), [("y\n", 0, "cancelled"), ("\n", 1, "running"), ("\x04", 1, "running")]
)
def test_a_cancellation_is_asked_for(terminal, submit, cli, answer, code, state):
    """Return and the end of the input are no."""
    job_id = submit()
    shown = terminal("jobs", "cancel", "training", job_id).until("[y/N] ").type(answer)
    assert shown.end() == code
    assert f"Cancel training job {job_id} of connection osai_default?" in shown.shown
    assert ("Nothing was cancelled." in shown.shown) == (code == 1)
    assert cli("jobs", "show", job_id, "--json").json["job"]["state"] == state


def test_ctrl_c_at_the_question_cancels_nothing(terminal, submit, cli):
    job_id = submit()
    shown = terminal("jobs", "cancel", "training", job_id).until("[y/N] ").interrupt()
    assert shown.end() == 130
    assert "Traceback" not in shown.shown
    assert cli("jobs", "show", job_id, "--json").json["job"]["state"] != "cancelled"


def test_a_watch_shows_progress_and_ends_with_the_job(terminal, submit, osai_sandbox):
    job_id = submit(progress=0.4)
    shown = terminal("jobs", "watch", "training", job_id).until(f"training {job_id} running").until("40%")
    osai_sandbox.control.end(job_id)
    assert shown.end() == 0
    assert ["state", "succeeded"] in [line.split()[:2] for line in plain(shown.shown).splitlines()]


def test_ctrl_c_ends_a_watch_and_not_the_job(submit, cli):
    job_id = submit()
    command = [SCRIPT, "jobs", "watch", "training", job_id, "--json"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": {**os.environ, **QUIET}}
    with subprocess.Popen(command, preexec_fn=take_sigint, **pipes) as watch:  # noqa: PLW1509 - one call, no lock
        try:
            assert job_id in watch.stderr.readline()
            watch.send_signal(signal.SIGINT)
            out, err = watch.communicate(timeout=60)
        finally:
            watch.kill()
    assert (watch.returncode, out) == (130, "")
    assert err.splitlines()[-1] == f"Stopped watching training job {job_id}; it goes on."
    assert "Traceback" not in err
    assert cli("jobs", "show", job_id, "--json").json["job"]["state"] != "cancelled"


def test_a_reader_that_has_read_enough_is_no_traceback(submit):
    submit()
    done = subprocess.run(
        f"{SCRIPT} jobs list --json | true",
        shell=True,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **QUIET},
    )
    assert done.stderr == ""
