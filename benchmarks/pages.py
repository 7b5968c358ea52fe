"""The time in which the pages in Airflow's UI answer, beside that of Airflow's own page of a task.

``python -m benchmarks.pages`` starts a complete Airflow (scheduler, Dag processor, API server, triggerer; SQLite) and
runs the weekly example once: a training, a gate with an evaluation, a conversion. Then the rows of this run are copied
in the database until there are a thousand finished jobs, and twenty trainings are started that do not end.

Each round requests every page once, in turn: the run page of a running training, which reads the job from the sandbox
once in 3 s, the gate page, the history of the model, and the first page of the list of jobs. Airflow's own page of the
same task is an app in the browser; what is measured is the requests for data that it makes until it is shown, recorded
once in Chromium, and then sent with the browser's six connections at a time. The figures are medians in milliseconds.
The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sqlite3
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import quote

if __name__ == "__main__":  # run as a script: the packages are in the parent folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import httpx
from playwright.sync_api import sync_playwright

from airflow_provider_osai.demo.airflow_instance import WholeAirflow
from airflow_provider_osai.demo.digits import write_digits
from airflow_provider_osai.sandbox import Sandbox
from benchmarks.deferred_jobs import say
from benchmarks.peer_process import SideError, until

__all__ = ["main"]

ROOT = Path(__file__).resolve().parents[1]
WEEKLY = "example_osai_weekly"
RUNNING = "running"
TEXT = """
from airflow.sdk import DAG
from airflow_provider_osai.operators.training import OsaiTrainModelOperator

with DAG("running", schedule=None, default_args={{"deferrable": True}}, max_active_tasks={jobs}):
    OsaiTrainModelOperator.partial(task_id="train", dataset_ids="{dataset}").expand(
        model_name=[f"m{{number}}" for number in range({jobs})]
    )
"""
JOBS_IN_A_RUN = 3
"""Jobs of the weekly example of which Airflow has an XCom: training, evaluation, conversion."""
CONNECTIONS = 6
COPIED = ("task_instance", "xcom", "rendered_task_instance_fields")
"""Tables whose rows of a run are copied with it."""


def copy_run(database: Path, dag_id: str, copies: int) -> None:
    """Copy the rows of the only run of a Dag in Airflow's database, each copy an hour before the previous one."""
    with sqlite3.connect(database, timeout=60) as connection:
        connection.row_factory = sqlite3.Row
        run = dict(connection.execute("select * from dag_run where dag_id = ?", [dag_id]).fetchone())
        rows = {
            table: [
                dict(row)
                for row in connection.execute(
                    f"select * from {table} where dag_id = ? and run_id = ?",
                    [dag_id, run["run_id"]],
                )
            ]
            for table in COPIED
        }
        first = connection.execute("select max(id) from dag_run").fetchone()[0] + 1
        for number in range(copies):
            changes: dict[str, Any] = {"run_id": f"copy-{number}"}
            earlier = {
                name: connection.execute(
                    "select strftime('%Y-%m-%d %H:%M:%f', ?, ?)", [run[name], f"-{number + 1} hours"]
                ).fetchone()[0]
                for name in ("logical_date", "run_after", "queued_at", "start_date", "end_date")
                if run[name]
            }
            _insert(connection, "dag_run", run | changes | earlier | {"id": first + number})
            for table, originals in rows.items():
                for row in originals:
                    more: dict[str, Any] = {"dag_run_id": first + number} if "dag_run_id" in row else {}
                    if table == "task_instance":
                        key = uuid.uuid4()
                        more["id"] = key.hex if len(row["id"]) == len(key.hex) else str(key)
                    if table == "xcom":
                        more["timestamp"] = connection.execute(
                            "select strftime('%Y-%m-%d %H:%M:%f', ?, ?)", [row["timestamp"], f"-{number + 1} hours"]
                        ).fetchone()[0]
                    _insert(connection, table, row | changes | more)


def _insert(connection: sqlite3.Connection, table: str, row: dict[str, Any]) -> None:
    columns = ", ".join(f'"{name}"' for name in row)
    values = ", ".join("?" * len(row))
    connection.execute(f"insert into {table} ({columns}) values ({values})", list(row.values()))


def requests_of_task_page(airflow: WholeAirflow, path: str) -> list[str]:
    """Return the paths that Airflow's page of a task requests until it is shown, without its scripts and styles."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        raise SideError("Chromium is needed: apt-get install chromium")
    requested: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(airflow.url)
        page.fill("input[name=username]", airflow.login.user)
        page.fill("input[name=password]", airflow.login.password)
        page.keyboard.press("Enter")
        page.wait_for_url(f"{airflow.url}/")
        page.on("request", lambda request: requested.append(request.url.removeprefix(airflow.url)))
        page.goto(f"{airflow.url}/{path}")
        page.get_by_role("tab", name="Details").or_(page.get_by_role("link", name="Details")).first.wait_for()
        page.wait_for_load_state("networkidle")
        browser.close()
    return [each for each in dict.fromkeys(requested) if each.startswith(("/api/v2/", "/ui/"))]


def measure(jobs: int, rounds: int) -> dict[str, Any]:
    """Run everything in a new Airflow, and return the figures."""
    with Sandbox() as osai, tempfile.TemporaryDirectory(prefix="osai-bench-") as folder:
        dags, home, images = Path(folder) / "dags", Path(folder) / "home", Path(folder) / "images"
        dags.mkdir()
        home.mkdir()
        write_digits(images, limit=300)
        shutil.copy(ROOT / "example_dags" / f"{WEEKLY}.py", dags)
        connection = {"conn_type": "osai", "password": osai.access_token, "extra": {"base_url": osai.base_url}}
        with WholeAirflow(dags, home=home, connections={"osai_default": connection}) as airflow:
            run_id = airflow.trigger(WEEKLY, {"images": str(images), "holdout": str(images)})
            if airflow.wait(WEEKLY, run_id, timeout=300) != "success":
                raise SideError(str(airflow.failures(WEEKLY, run_id)))
            dataset = airflow.xcom(WEEKLY, run_id, "create_dataset")["dataset_id"]
            copy_run(home / "airflow.db", WEEKLY, jobs // JOBS_IN_A_RUN)
            osai.control.script("training", "reads", reads=10**9)
            (dags / "running.py").write_text(TEXT.format(dataset=dataset, jobs=20))
            running = airflow.trigger(RUNNING)
            states = airflow.task_instances
            until(lambda: [ti["state"] for ti in states(RUNNING, running)] == ["deferred"] * 20, 300, "deferred tasks")
            task = f"dags/{RUNNING}/runs/{quote(running, safe='')}/tasks/train/mapped/0"
            own = requests_of_task_page(airflow, task)
            say(f"Airflow's page of a task makes {len(own)} requests for data: {' '.join(own)}")
            return _rounds(airflow, own, (running, run_id), rounds)


def _rounds(airflow: WholeAirflow, own: list[str], run_ids: tuple[str, str], rounds: int) -> dict[str, Any]:
    running, finished = (quote(run_id, safe="") for run_id in run_ids)
    login = {"username": airflow.login.user, "password": airflow.login.password}
    token = httpx.post(f"{airflow.url}/auth/token", json=login).json()["access_token"]
    limits = httpx.Limits(max_connections=CONNECTIONS)
    headers = {"Authorization": f"Bearer {token}"}
    times: dict[str, list[float]] = {}
    with (
        httpx.Client(base_url=airflow.url, headers=headers, limits=limits, timeout=60) as client,
        ThreadPoolExecutor(CONNECTIONS) as pool,
    ):
        models = client.get("/osai-jobs/models").text
        asset_id = models.partition('href="models/')[2].partition('"')[0]

        def get(path: str, marker: str) -> None:
            response = client.get(path)
            if response.status_code != httpx.codes.OK or marker not in response.text:
                raise SideError(f"{path} returned {response.status_code} without {marker!r}")

        def airflow_page() -> None:
            for response in pool.map(client.get, own):
                if response.status_code >= httpx.codes.INTERNAL_SERVER_ERROR:
                    raise SideError(f"{response.url} returned {response.status_code}")

        pages: dict[str, Callable[[], None]] = {
            "run_page_ms": lambda: get(f"/osai-jobs/task/{RUNNING}/{running}/train/0", "OSAI</span> running"),
            "gate_page_ms": lambda: get(f"/osai-jobs/task/{WEEKLY}/{finished}/gate/-1", "is promoted"),
            "models_page_ms": lambda: get(f"/osai-jobs/models/{asset_id}", "champion"),
            "jobs_page_ms": lambda: get("/osai-jobs/?state=success", 'rel="next"'),
            "airflow_task_page_ms": airflow_page,
        }
        for number in range(rounds + 1):
            for name, request in pages.items():
                began = time.perf_counter()
                request()
                if number:  # the first round loads what is loaded once
                    times.setdefault(name, []).append(1000 * (time.perf_counter() - began))
            time.sleep(0.5)
    return {name: round(median(values), 1) for name, values in times.items()}


def main(arguments: list[str] | None = None) -> int:
    """Measure, and print the line of JSON; always return 0, since a slow machine is not an error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1_000, help="finished jobs in the database")
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args(arguments)
    say(json.dumps(measure(options.jobs, options.rounds)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
