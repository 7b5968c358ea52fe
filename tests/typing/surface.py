"""The public surface as a user's type checker sees it. Checked by mypy, never run."""

from __future__ import annotations

from typing import assert_type

from airflow.sdk import BaseNotifier, Context

from airflow_provider_osai.api.calls import Call
from airflow_provider_osai.api.client import AsyncOsaiClient, OsaiClient
from airflow_provider_osai.api.models import Conversion, Dataset, Job, JobKind, JobReferences, JobState, User
from airflow_provider_osai.assets import osai_model
from airflow_provider_osai.hooks.osai import OsaiHook
from airflow_provider_osai.jobs.flow import arun, run
from airflow_provider_osai.jobs.lifecycle import WaitOptions, wait
from airflow_provider_osai.operators.conversion import OsaiConvertModelOperator, OsaiDownloadModelOperator
from airflow_provider_osai.operators.dataset import OsaiUploadImagesOperator
from airflow_provider_osai.operators.gate import OsaiModelGateOperator
from airflow_provider_osai.operators.orphans import OsaiCancelOrphanedJobsOperator
from airflow_provider_osai.operators.training import OsaiTrainModelOperator


def blocking(hook: OsaiHook) -> None:
    assert_type(hook.test_connection(), tuple[bool, str])
    assert_type(hook.get_job("training", "7"), Job)
    with hook.get_conn() as client:
        assert_type(client, OsaiClient)
        assert_type(client.calls.get_user(), Call[User])
        assert_type(client.get_user(), User)
        assert_type(client.list_conversions("1"), list[Conversion])
        assert_type(client.list_datasets("digits"), list[Dataset])
        assert_type(client.get_job(kind="training", job_id="7"), Job)
        assert_type(client.download_model("1", "onnx", lambda stream: b"".join(stream.chunks)), bytes)
        job = run(wait(client.calls, JobKind.TRAINING, "7", WaitOptions(since=0.0)), client.send)
        assert_type(job, Job)
        assert_type(job.state, JobState)
        assert_type(job.references(), JobReferences)


async def awaiting(hook: OsaiHook) -> None:
    async with await hook.get_async_conn() as client:
        assert_type(client, AsyncOsaiClient)
        assert_type(await client.get_user(), User)
        assert_type(await client.list_jobs(JobKind.TRAINING, ["7", "8"]), list[Job])
        assert_type(await arun(wait(client.calls, JobKind.TRAINING, "7", WaitOptions(since=0.0)), client.send), Job)


def operator() -> None:
    OsaiTrainModelOperator(task_id="t", dataset_ids=["1"], model_name="m", deferrable=True, poll_interval=10)
    OsaiConvertModelOperator(task_id="t", model_id="1", target="onnx", if_unsupported="skip")
    OsaiDownloadModelOperator(task_id="t", model_id="1", target="onnx", destination="/models/")
    OsaiTrainModelOperator(task_id="t", dataset_ids="1", model_name="m", parameters={"epochs": 3})
    OsaiUploadImagesOperator(
        task_id="t", dataset_id="1", source="/data", validate="fail", validate_options={"min_side": 64}
    )
    OsaiCancelOrphanedJobsOperator(task_id="t", action="cancel", grace=600, kinds=["training"], dag_ids="a, b")


def alerts(notifier: BaseNotifier, champion: str) -> None:
    def tell(context: Context) -> str:
        return context["run_id"]

    def tell_nobody() -> None: ...

    asset = osai_model(champion)
    OsaiModelGateOperator(task_id="t", candidate="1", champion=asset, on_promoted=notifier, on_rejected=tell)
    OsaiModelGateOperator(task_id="t", candidate="1", champion=asset, on_promoted=[notifier, tell, print])
    OsaiModelGateOperator(task_id="t", candidate="1", champion=asset, on_promoted=tell_nobody)  # type: ignore[arg-type]  # has to take the context
