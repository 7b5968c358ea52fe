"""The demo's story: three weeks of retraining by a whole Airflow against a local OSAI, and only better models go on."""

from __future__ import annotations

import json
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import httpx

from airflow_provider_osai.api.client import OsaiClient
from airflow_provider_osai.api.errors import OsaiError
from airflow_provider_osai.api.models import Epoch, Job, JobKind, JobState
from airflow_provider_osai.api.settings import OsaiSettings
from airflow_provider_osai.demo.airflow import WholeAirflow
from airflow_provider_osai.demo.rest import WholeAirflowError
from airflow_provider_osai.demo.weeks import EXPECTED, write_weeks
from airflow_provider_osai.sandbox import Sandbox

__all__ = ["exit_code", "tell"]

DAG: Final = "example_osai_weekly"
CHAMPION: Final = "osai://eu/models/digits"
"""The asset whose events are the Dag's promotions."""
GOOD_ENOUGH: Final = 0.9
"""The least accuracy of the last champion that counts as a success; the digits allow about 0.97."""
PATIENCE: Final = 300.0
"""Seconds that a run may take. It takes about 20 on two cores."""


def tell(*, keep: bool = False) -> int:
    """Tell the story, and return the exit code: 0 if all runs succeeded, the gate judged well and the model is good.

    Prints a line for each change, and at the end a line of JSON: ``dag_run`` (of the last run), ``verdicts`` (of the
    gate, by week), ``model_id``, ``accuracy`` (on the images to compare on) and ``images`` of the last champion, and
    ``seconds``.

    :param keep: leave Airflow running afterwards, and say how to sign in, until Ctrl-C.
    """
    clock = _Clock()
    outcome: dict[str, Any] = {"dag_run": "not started", "verdicts": []}
    try:
        with tempfile.TemporaryDirectory(prefix="osai-digits-") as folder, Sandbox() as sandbox:
            data = write_weeks(Path(folder))
            clock.say("images of handwritten digits written: for three weeks, and to compare models on")
            clock.say(f"local OSAI at {sandbox.base_url}")
            with WholeAirflow(_example_dags(), connections={"osai_default": _connection(sandbox)}) as airflow:
                clock.say(f"Airflow at {airflow.url}" + (_how_to_sign_in(airflow) if keep else ""))
                airflow.wait_for_dag(DAG)
                for number, images in enumerate(data.weeks, start=1):
                    clock.say(f"week {number}")
                    if not _run(airflow, sandbox, {"images": images, "holdout": data.holdout}, clock, outcome):
                        break
                _tell_events(airflow, clock, outcome)
                if keep:
                    clock.say(f"Look around at {airflow.url}{_how_to_sign_in(airflow)}. Ctrl-C ends it.")
                    _wait_for_interrupt()
    except (WholeAirflowError, OsaiError, httpx.HTTPError, LookupError) as error:
        print(error, file=sys.stderr, flush=True)
    finally:
        outcome.setdefault("seconds", clock.elapsed())
        print(json.dumps(outcome), flush=True)
    return exit_code(outcome)


def exit_code(outcome: Mapping[str, Any]) -> int:
    """Return 0 only for runs that succeeded with the right verdicts, and a model that is good enough."""
    is_well = outcome["dag_run"] == "success" and tuple(outcome.get("verdicts", ())) == EXPECTED
    return 0 if is_well and outcome.get("accuracy", 0.0) >= GOOD_ENOUGH else 1


def _run(
    airflow: WholeAirflow, sandbox: Sandbox, folders: Mapping[str, Path], clock: _Clock, outcome: dict[str, Any]
) -> bool:
    """Let a week pass; return whether its run succeeded."""
    run_id = airflow.trigger(DAG, {name: str(folder) for name, folder in folders.items()})
    clock.say(f"{DAG} triggered, run {run_id}")
    settings = OsaiSettings.from_connection(sandbox.access_token, _connection(sandbox)["extra"])
    with OsaiClient(settings, patience=0) as client:
        watch = _Watch(airflow, sandbox, client, run_id, clock)

        def note(state: str) -> None:
            # At every look, so that the last line tells how far a run came that does not end.
            outcome["dag_run"] = state
            watch.look()

        state = airflow.wait(DAG, run_id, PATIENCE, note)
    clock.say(f"run: {state}")
    if state == "success":
        _note_verdict(airflow, run_id, clock, outcome)
    else:
        print(airflow.failures(DAG, run_id), file=sys.stderr, flush=True)
    outcome["seconds"] = clock.elapsed()
    return state == "success"


def _note_verdict(airflow: WholeAirflow, run_id: str, clock: _Clock, outcome: dict[str, Any]) -> None:
    decision = airflow.xcom(DAG, run_id, "gate")
    outcome["verdicts"].append(decision["verdict"])
    clock.say(f"model {decision['model_id']} is {decision['verdict']}: {'; '.join(decision['reasons'])}")
    if decision["verdict"] == "promoted":
        outcome["model_id"] = decision["model_id"]
        outcome["accuracy"] = decision["metrics"]["accuracy"]
        outcome["images"] = airflow.xcom(DAG, run_id, "upload_images")["images"]


def _tell_events(airflow: WholeAirflow, clock: _Clock, outcome: Mapping[str, Any]) -> None:
    """Print what the champion's asset tells; its events are the promotions, and nothing else."""
    events = airflow.asset_events(CHAMPION)
    for told in events:
        accuracy, replaced = told["metrics"]["accuracy"], told["replaces"] or "nobody"
        clock.say(f"event of {CHAMPION}: model {told['model_id']}, accuracy {accuracy}, replaces {replaced}")
    promoted = outcome["verdicts"].count("promoted")
    if len(events) != promoted or (events and events[-1]["model_id"] != outcome["model_id"]):
        raise WholeAirflowError(f"{CHAMPION} has {len(events)} events, but {promoted} models were promoted")


class _Clock:
    """Prints lines with the seconds since the start before them."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def elapsed(self) -> float:
        return round(time.monotonic() - self._start, 1)

    def say(self, line: str) -> None:
        print(f"{self.elapsed():6.1f} s  {line}", flush=True)


class _Watch:
    """Tells what has changed since the last look, in Airflow and in OSAI."""

    def __init__(self, airflow: WholeAirflow, sandbox: Sandbox, client: OsaiClient, run_id: str, clock: _Clock) -> None:
        self._airflow = airflow
        self._sandbox = sandbox
        self._client = client
        self._run_id = run_id
        self._clock = clock
        self._said: dict[str, str] = {}
        self._epochs: dict[str, int] = {}
        self._before = {job["id"] for job in sandbox.control.record()["jobs"]}

    def look(self) -> None:
        """Print a line for each change."""
        for task in self._airflow.task_instances(DAG, self._run_id):
            self._tell(f"task {task['task_id']}", task["state"])
        for known in self._sandbox.control.record()["jobs"]:
            if known["id"] in self._before:
                continue
            who = f"OSAI {known['kind']} {known['id']}"
            # The job's figures come as a user gets them, over the API; a job that has ended needs no more looks.
            if self._said.get(who) != known["state"] or known["state"] == JobState.RUNNING:
                self._tell_job(who, JobKind(known["kind"]), known["id"])

    def _tell_job(self, who: str, kind: JobKind, job_id: str) -> None:
        try:
            job = self._client.send(self._client.calls.get_job(kind, job_id))
        except OsaiError:
            return  # the run does not depend on what we tell of it; the next look may succeed
        self._tell(who, JobState.RUNNING.value if job.history else "")
        self._tell_epochs(who, job)
        self._tell(who, job.state.value)

    def _tell(self, who: str, state: str | None) -> None:
        if state and self._said.get(who) != state:
            self._said[who] = state
            self._clock.say(f"{who}: {state}")

    def _tell_epochs(self, who: str, job: Job) -> None:
        history = job.history or ()
        for epoch in history[self._epochs.get(job.id, 0) :]:
            self._clock.say(f"{who}: {_epoch(epoch, _epochs(job))}")
        self._epochs[job.id] = len(history)


def _epoch(epoch: Epoch, of: int | str) -> str:
    return f"epoch {epoch.epoch}/{of}, loss {epoch.loss}, validation accuracy {epoch.val_accuracy}"


def _epochs(job: Job) -> int | str:
    # OSAI does not say how many epochs there will be, but how far the last one got it.
    last = job.history[-1].epoch if job.history else None
    return round(last / job.progress) if last and job.progress else "?"


def _connection(sandbox: Sandbox) -> dict[str, Any]:
    return {"conn_type": "osai", "password": sandbox.access_token, "extra": {"base_url": sandbox.base_url}}


def _how_to_sign_in(airflow: WholeAirflow) -> str:
    # The login of a throw-away Airflow on this machine: made for this run, and void after it.
    return f" (user {airflow.login.user}, password {airflow.login.password})"


def _example_dags() -> Path:
    package = Path(__file__).resolve().parents[1]
    folders = [package.parent / "example_dags", package / "example_dags"]
    for folder in folders:
        if (folder / f"{DAG}.py").is_file():
            return folder
    raise LookupError(f"{DAG}.py is in none of: {', '.join(map(str, folders))}")


def _wait_for_interrupt() -> None:
    try:
        signal.pause()
    except KeyboardInterrupt:
        print(flush=True)
