"""Orphan cleanup: every 15 minutes, cancel running OSAI jobs that no task of this Airflow needs (docs/orphans.md).

Operators cancel their own jobs; this is for jobs whose task was killed or deleted while no process was left to cancel
them.
"""

from datetime import datetime, timedelta

from airflow.sdk import DAG, Param

from airflow_provider_osai.operators.orphans import OsaiCancelOrphanedJobsOperator

with DAG(
    "example_osai_cancel_orphans",
    schedule="*/15 * * * *",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(minutes=1)},
    params={"grace": Param(600, type="number", minimum=0, description="Seconds; younger jobs are left alone")},
    tags=["osai", "example"],
    doc_md=__doc__,
) as dag:
    OsaiCancelOrphanedJobsOperator(task_id="cancel_orphans", action="cancel", grace="{{ params.grace }}")
