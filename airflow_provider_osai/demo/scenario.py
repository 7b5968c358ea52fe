"""The demo's scenario: three weeks of retraining in a complete Airflow with the sandbox; only better models pass."""

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
from airflow_provider_osai.demo.airflow_api import WholeAirflowError
from airflow_provider_osai.demo.airflow_instance import WholeAirflow
from airflow_provider_osai.demo.datasets import EXPECTED_DECISIONS, write_weeks
from airflow_provider_osai.sandbox import Sandbox

__all__ = ["exit_code", "run_demo"]

DAG: Final = "example_osai_weekly"
CHAMPION: Final = "osai://eu/models/digits"
"""The asset whose events are the Dag's promotions."""
MIN_ACCURACY: Final = 0.9
"""Minimum accuracy of the last champion for exit code 0; about 0.97 is reachable with the digits."""
RUN_TIMEOUT: Final = 300.0
"""Maximum seconds for a run. It takes about 20 s on two cores."""


def run_demo(*, keep: bool = False) -> int:
    """Run the demo and return its exit code, see :func:`exit_code`.

    Prints a line for each change, and at the end a line of JSON: ``dag_run`` (state of the last run), ``verdicts`` (the
    gate's decisions by week), ``model_id``, ``accuracy`` (on the held-out images) and ``images`` of the last champion,
    and ``seconds``.

    :param keep: keep Airflow running afterwards until Ctrl-C, and print how to sign in.
    """
    console = _Console()
    outcome: dict[str, Any] = {"dag_run": "not started", "verdicts": []}
    try:
        with tempfile.TemporaryDirectory(prefix="osai-digits-") as folder, Sandbox() as sandbox:
            data = write_weeks(Path(folder))
            console.log("images of handwritten digits written: three weeks, and held-out images for the gate")
            console.log(f"local OSAI at {sandbox.base_url}")
            with WholeAirflow(_example_dags(), connections={"osai_default": _connection(sandbox)}) as airflow:
                console.log(f"Airflow at {airflow.url}" + (_credentials(airflow) if keep else ""))
                airflow.wait_for_dag(DAG)
                for number, images in enumerate(data.weeks, start=1):
                    console.log(f"week {number}")
                    if not _run_week(airflow, sandbox, {"images": images, "holdout": data.holdout}, console, outcome):
                        break
                _print_events(airflow, console, outcome)
                if keep:
                    console.log(
                        f"Airflow keeps running at {airflow.url}{_credentials(airflow)}. Press Ctrl-C to stop it."
                    )
                    _wait_for_interrupt()
    except (WholeAirflowError, OsaiError, httpx.HTTPError, LookupError) as error:
        print(error, file=sys.stderr, flush=True)
    finally:
        outcome.setdefault("seconds", console.elapsed())
        print(json.dumps(outcome), flush=True)
    return exit_code(outcome)


def exit_code(outcome: Mapping[str, Any]) -> int:
    """Return 0 if the last run succeeded with the expected decisions of the gate and an accurate champion, else 1."""
    is_expected = outcome["dag_run"] == "success" and tuple(outcome.get("verdicts", ())) == EXPECTED_DECISIONS
    return 0 if is_expected and outcome.get("accuracy", 0.0) >= MIN_ACCURACY else 1


def _run_week(
    airflow: WholeAirflow, sandbox: Sandbox, folders: Mapping[str, Path], console: _Console, outcome: dict[str, Any]
) -> bool:
    """Trigger a run with one week's images, and wait for it; return whether it succeeded."""
    run_id = airflow.trigger(DAG, {name: str(folder) for name, folder in folders.items()})
    console.log(f"{DAG} triggered, run {run_id}")
    settings = OsaiSettings.from_connection(sandbox.access_token, _connection(sandbox)["extra"])
    with OsaiClient(settings, retry_budget=0) as client:
        progress = _ProgressLog(airflow, sandbox, client, run_id, console)

        def on_poll(state: str) -> None:
            # At every poll, so that the last line has the state of a run that times out.
            outcome["dag_run"] = state
            progress.poll()

        state = airflow.wait(DAG, run_id, RUN_TIMEOUT, on_poll)
    console.log(f"run: {state}")
    if state == "success":
        _record_decision(airflow, run_id, console, outcome)
    else:
        print(airflow.failures(DAG, run_id), file=sys.stderr, flush=True)
    outcome["seconds"] = console.elapsed()
    return state == "success"


def _record_decision(airflow: WholeAirflow, run_id: str, console: _Console, outcome: dict[str, Any]) -> None:
    decision = airflow.xcom(DAG, run_id, "gate")
    outcome["verdicts"].append(decision["decision"])
    console.log(f"model {decision['model_id']} is {decision['decision']}: {'; '.join(decision['reasons'])}")
    if decision["decision"] == "promoted":
        outcome["model_id"] = decision["model_id"]
        outcome["accuracy"] = decision["metrics"]["accuracy"]
        outcome["images"] = airflow.xcom(DAG, run_id, "upload_images")["images"]


def _print_events(airflow: WholeAirflow, console: _Console, outcome: Mapping[str, Any]) -> None:
    """Print the events of the champion's asset; raise if they are not exactly the promotions."""
    events = airflow.asset_events(CHAMPION)
    for event in events:
        accuracy = event["metrics"]["accuracy"]
        replaced = event["replaces"] or "none"
        console.log(f"event of {CHAMPION}: model {event['model_id']}, accuracy {accuracy}, replaces {replaced}")
    promoted = outcome["verdicts"].count("promoted")
    if len(events) != promoted or (events and events[-1]["model_id"] != outcome["model_id"]):
        raise WholeAirflowError(f"{CHAMPION} has {len(events)} events, but {promoted} models were promoted")


class _Console:
    """Prints lines, each after the seconds since the start."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def elapsed(self) -> float:
        return round(time.monotonic() - self._start, 1)

    def log(self, line: str) -> None:
        print(f"{self.elapsed():6.1f} s  {line}", flush=True)


class _ProgressLog:
    """Prints the state changes of a run's tasks and jobs, and each epoch of a training."""

    def __init__(
        self, airflow: WholeAirflow, sandbox: Sandbox, client: OsaiClient, run_id: str, console: _Console
    ) -> None:
        self._airflow = airflow
        self._sandbox = sandbox
        self._client = client
        self._run_id = run_id
        self._console = console
        self._states: dict[str, str] = {}
        self._epochs: dict[str, int] = {}
        self._earlier_jobs = {job["id"] for job in sandbox.control.record()["jobs"]}

    def poll(self) -> None:
        """Print a line for each change since the last poll."""
        for task in self._airflow.task_instances(DAG, self._run_id):
            self._log_state(f"task {task['task_id']}", task["state"])
        for record in self._sandbox.control.record()["jobs"]:
            if record["id"] in self._earlier_jobs:
                continue
            name = f"OSAI {record['kind']} {record['id']}"
            # The epochs are read over the API, as a user would; a job that has ended is not read again.
            if self._states.get(name) != record["state"] or record["state"] == JobState.RUNNING:
                self._log_job(name, JobKind(record["kind"]), record["id"])

    def _log_job(self, name: str, kind: JobKind, job_id: str) -> None:
        try:
            job = self._client.send(self._client.calls.get_job(kind, job_id))
        except OsaiError:
            return  # the run does not depend on this log; the next poll may succeed
        self._log_state(name, JobState.RUNNING.value if job.history else "")
        self._log_epochs(name, job)
        self._log_state(name, job.state.value)

    def _log_state(self, name: str, state: str | None) -> None:
        if state and self._states.get(name) != state:
            self._states[name] = state
            self._console.log(f"{name}: {state}")

    def _log_epochs(self, name: str, job: Job) -> None:
        history = job.history or ()
        for epoch in history[self._epochs.get(job.id, 0) :]:
            self._console.log(f"{name}: {_epoch_text(epoch, _total_epochs(job))}")
        self._epochs[job.id] = len(history)


def _epoch_text(epoch: Epoch, total: int | str) -> str:
    return f"epoch {epoch.epoch}/{total}, loss {epoch.loss}, validation accuracy {epoch.val_accuracy}"


def _total_epochs(job: Job) -> int | str:
    # OSAI does not return the number of epochs, but the progress after the last one.
    last = job.history[-1].epoch if job.history else None
    return round(last / job.progress) if last and job.progress else "?"


def _connection(sandbox: Sandbox) -> dict[str, Any]:
    return {"conn_type": "osai", "password": sandbox.access_token, "extra": {"base_url": sandbox.base_url}}


def _credentials(airflow: WholeAirflow) -> str:
    # The password is generated for this run's temporary Airflow, and invalid afterwards.
    return f" (user {airflow.login.user}, password {airflow.login.password})"


def _example_dags() -> Path:
    package = Path(__file__).resolve().parents[1]
    folders = [package.parent / "example_dags", package / "example_dags"]
    for folder in folders:
        if (folder / f"{DAG}.py").is_file():
            return folder
    raise LookupError(f"{DAG}.py was not found in: {', '.join(map(str, folders))}")


def _wait_for_interrupt() -> None:
    try:
        signal.pause()
    except KeyboardInterrupt:
        print(flush=True)
