"""``osai-airflow jobs``: list, show, cancel and watch the jobs of an account, as OSAI reports them."""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from typing import Any, Final

from airflow_provider_osai.api.client import RETRY_BUDGET as WAIT_RETRY_BUDGET
from airflow_provider_osai.api.client import OsaiClient
from airflow_provider_osai.api.errors import (
    OsaiContractError,
    OsaiJobTimeout,
    OsaiRequestError,
)
from airflow_provider_osai.api.models import Job, JobKind, JobState
from airflow_provider_osai.api.text import parse_time
from airflow_provider_osai.cli import orphans
from airflow_provider_osai.cli.cancellation import Cancellation
from airflow_provider_osai.cli.output import CommandError, confirm, redirect_stdout, write_json, write_note
from airflow_provider_osai.cli.progress import poll_display
from airflow_provider_osai.cli.session import connected, with_remedy
from airflow_provider_osai.cli.tables import write_facts, write_table
from airflow_provider_osai.jobs.flow import run as run_flow
from airflow_provider_osai.jobs.idempotency import JobKey, TaskKey
from airflow_provider_osai.jobs.lifecycle import WaitOptions, get_job, wait
from airflow_provider_osai.jobs.polling import PollSchedule

__all__ = ["job_fields", "run"]

REJECTED: Final = frozenset({400, 404, 405, 410, 422})
"""HTTP statuses with which OSAI answers that a kind has no job with an id (400, 405 and 422 are assumed)."""
HEADER: Final = ("KIND", "ID", "STATE", "PROGRESS", "CREATED", "TASK", "NOTE")


def run(options: argparse.Namespace) -> int:
    """Run a subcommand; return the exit code."""
    commands: dict[str, Callable[[argparse.Namespace], int]] = {
        "cancel": _cancel,
        "list": _list,
        "orphans": orphans.run,
        "show": _show,
        "watch": _watch,
    }
    return commands[options.command](options)


def job_fields(job: Job, *, complete: bool = False) -> dict[str, Any]:
    """Return a job as plain JSON.

    :param complete: with its idempotency key, its result and its history.
    """
    names = {"kind", "id", "state", "status", "progress", "created_at", "started_at", "finished_at", "message"}
    fields: dict[str, Any] = job.model_dump(mode="json", include=names)
    owner = _owner(job)
    fields["simulated"] = job.simulated
    fields["task"] = owner and {
        "dag_id": owner.dag_id,
        "run_id": owner.run_id,
        "task_id": owner.task_id,
        "map_index": owner.map_index,
    }
    if complete:
        fields |= job.model_dump(mode="json", include={"invalid_data", "reference", "result", "history"})
    return fields


def _owner(job: Job) -> TaskKey | None:
    """Return the task that the job's idempotency key names; the key may be of another Airflow."""
    key = JobKey.parse(job.reference)
    return key.owner if key else None


def _task_name(owner: TaskKey | None) -> str | None:
    if owner is None:
        return None
    index = "" if owner.map_index < 0 else f"[{owner.map_index}]"
    return f"{owner.dag_id}.{owner.task_id}{index}"


def _list(options: argparse.Namespace) -> int:
    kinds = [kind for kind in JobKind if not options.kind or kind.value in options.kind]
    jobs: list[Job] = []
    absent: dict[str, str] = {}
    failed: dict[str, str] = {}
    with redirect_stdout(enabled=True), connected(options.conn_id) as client:
        for kind in kinds:
            if f"{kind}.list" not in client.settings.contract:
                absent[kind.value] = f"the contract sets {kind}.list to null"
                continue
            try:
                listed: list[Job] = client.send(client.calls.list_all_jobs(kind))
                jobs += listed
            except (OsaiContractError, OsaiRequestError) as error:
                failed[kind.value] = with_remedy(error, options.conn_id)
    wanted = [job for job in jobs if not options.state or job.state.value in options.state]
    wanted.sort(key=_created, reverse=True)
    shown = wanted[: options.limit]
    for kind_name, reason in {**absent, **failed}.items():
        write_note(f"osai-airflow jobs list: the {kind_name} jobs cannot be listed: {reason}")
    if options.json:
        document = {"conn_id": options.conn_id, "total": len(wanted), "jobs": [job_fields(job) for job in shown]}
        write_json({**document, "not_listed": {**absent, **failed}})
    else:
        write_table(HEADER, [_row(job) for job in shown])
        if len(wanted) > len(shown):
            write_note(f"The latest {len(shown)} of {len(wanted)} jobs are listed; --limit {len(wanted)} lists all.")
    return 1 if failed else 0


def _created(job: Job) -> float:
    created = parse_time(job.created_at)
    return -math.inf if created is None else created


def _row(job: Job) -> tuple[Any, ...]:
    progress = None if job.progress is None else f"{job.progress:.0%}"
    state = job.state.value if job.state is not JobState.UNKNOWN else f"unknown:{job.status}"
    note = "simulated" if job.simulated else None
    return (job.kind.value, job.id, state, progress, job.created_at, _task_name(_owner(job)), note)


def _show(options: argparse.Namespace) -> int:
    with redirect_stdout(enabled=True), connected(options.conn_id) as client:
        job = (
            run_flow(get_job(client.calls, JobKind(options.kind), options.id), client.send)
            if options.kind
            else _find(client, options.id, options.conn_id)
        )
    _write_job(job, options)
    return 0


def _find(client: OsaiClient, job_id: str, osai_conn_id: str) -> Job:
    """Return the job with an id whose kind is not known.

    :raises CommandError: if no kind or several kinds have such a job, or if a kind gives no clear answer.
    """
    found: list[Job] = []
    unclear: list[str] = []
    for kind in JobKind:
        if f"{kind}.get" not in client.settings.contract:
            continue
        try:
            found.append(client.get_job(kind, job_id))
        except OsaiRequestError as error:
            if error.status not in REJECTED:
                unclear.append(f"{kind}: {error}")
        except OsaiContractError as error:
            unclear.append(f"{kind}: {error}")
    if unclear:
        raise CommandError(
            f"The kind of job {job_id!r} is unknown, since not every kind gave a clear answer: {'; '.join(unclear)}. "
            "Name the kind: jobs show KIND ID."
        )
    if len(found) > 1:
        kinds = ", ".join(job.kind.value for job in found)
        raise CommandError(f"{len(found)} kinds have a job {job_id!r}: {kinds}. Name the kind: jobs show KIND ID.")
    if not found:
        raise CommandError(
            f"No kind has a job {job_id!r}. 'osai-airflow jobs list --conn-id {osai_conn_id}' lists the jobs."
        )
    return found[0]


def _write_job(job: Job, options: argparse.Namespace) -> None:
    if options.json:
        write_json({"conn_id": options.conn_id, "job": job_fields(job, complete=True)})
        return
    owner = _owner(job)
    result = job.result.model_dump(exclude={"metrics", "confusion_matrix", "samples"}) if job.result else {}
    metrics = (job.result.metrics if job.result else None) or {}
    write_facts(
        {
            "kind": job.kind.value,
            "id": job.id,
            "state": job.state.value,
            "status": job.status,
            "progress": None if job.progress is None else f"{job.progress:.0%}",
            "created": job.created_at,
            "started": job.started_at,
            "finished": job.finished_at,
            "message": job.message,
            "task": _task_name(owner),
            "run": owner.run_id if owner else None,
            **result,
            "metrics": ", ".join(f"{name} {value}" for name, value in metrics.items()),
            "epochs": len(job.history or ()) or None,
            "simulated": "yes: the result is made up" if job.simulated else None,
        }
    )


def _cancel(options: argparse.Namespace) -> int:
    kind = JobKind(options.kind)
    ids = list(dict.fromkeys(options.ids))
    names = f"{kind} job {ids[0]}" if len(ids) == 1 else f"{len(ids)} {kind} jobs ({', '.join(ids)})"
    if not confirm(f"Cancel {names} of connection {options.conn_id}?", yes=options.yes):
        raise CommandError("Nothing was cancelled.")
    with redirect_stdout(enabled=True), connected(options.conn_id) as client:
        work = Cancellation(client, kind, ids)
        try:
            work.request()
            work.wait(options.wait)
            interrupted = False
        except KeyboardInterrupt:  # what was done is reported nevertheless
            interrupted = True
    results = work.results()
    if options.json:
        fields = [result._asdict() for result in results]
        write_json({"conn_id": options.conn_id, "kind": kind.value, "ok": work.is_done, "jobs": fields})
    else:
        write_table(("KIND", "ID", "OUTCOME", "DETAILS"), [(kind.value, *result) for result in results])
    if interrupted:
        raise KeyboardInterrupt
    return 0 if work.is_done else 1


def _watch(options: argparse.Namespace) -> int:
    kind = JobKind(options.kind)
    try:
        with redirect_stdout(enabled=True):
            job = _watched(kind, options)
    except KeyboardInterrupt:
        write_note(f"Stopped watching {kind} job {options.id}; it goes on.")
        raise
    _write_job(job, options)
    if job.state is JobState.SUCCEEDED:
        return 0
    reason = f": {job.message}" if job.message else ""
    write_note(f"osai-airflow jobs watch: {kind} job {job.id} ended as {job.state}{reason}")
    return 1


def _watched(kind: JobKind, options: argparse.Namespace) -> Job:
    """Return the job when it has ended."""
    with connected(options.conn_id, WAIT_RETRY_BUDGET) as client:
        now = time.time()
        job = run_flow(get_job(client.calls, kind, options.id), client.send)
        if job.is_terminal:
            return job
        with poll_display(job, now) as show:
            watch = WaitOptions(
                since=min(parse_time(job.created_at) or now, now),
                deadline=None if options.timeout is None else now + options.timeout,
                schedule=PollSchedule(options.poll_interval),
                unreachable_timeout=options.unreachable_timeout,
                on_poll=show,
            )
            try:
                return run_flow(wait(client.calls, kind, options.id, watch), client.send)
            except OsaiJobTimeout:
                raise CommandError(
                    f"{kind} job {options.id} has not ended within {options.timeout:g} s, and goes on. Watch it again, "
                    f"or cancel it: osai-airflow jobs cancel {kind} {options.id}"
                ) from None
