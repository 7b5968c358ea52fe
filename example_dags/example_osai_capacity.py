"""Capacity: trainings in parallel, at most as many at a time as the pool ``osai`` has slots; the urgent one goes first.

Create the pool with as many slots as OSAI runs jobs for your account at the same time::

    airflow pools set osai 2 "Jobs that OSAI runs at the same time" --include-deferred
"""

from datetime import timedelta

from airflow.sdk import DAG, Param, WeightRule

from airflow_provider_osai.operators.dataset import OsaiCreateDatasetOperator, OsaiUploadImagesOperator
from airflow_provider_osai.operators.training import OsaiTrainModelOperator

with DAG(
    "example_osai_capacity",
    schedule=None,
    catchup=False,
    default_args={"retries": 2, "execution_timeout": timedelta(hours=2)},
    params={"images": Param("images", type="string", description="Folder on the worker; sub-folders are categories")},
    tags=["osai", "example"],
    doc_md=__doc__,
) as dag:
    jobs = {"pool": "osai", "deferrable": True, "poll_interval": 10, "weight_rule": WeightRule.ABSOLUTE}
    data = OsaiCreateDatasetOperator(task_id="create_dataset", name="capacity {{ run_id }}")
    upload = OsaiUploadImagesOperator(
        task_id="upload_images", dataset_id=data.output["dataset_id"], source="{{ params.images }}"
    )
    # Four jobs for two slots: two wait as scheduled tasks, and occupy neither a worker nor OSAI.
    OsaiTrainModelOperator.partial(
        task_id="train_variants", dataset_ids=upload.output["dataset_id"], model_name="variant", **jobs
    ).expand(parameters=[{"epochs": epochs} for epochs in (2, 5, 10, 20)])
    # Ready at the same time as the variants, and started before them.
    OsaiTrainModelOperator(
        task_id="train_urgent",
        dataset_ids=upload.output["dataset_id"],
        model_name="urgent",
        priority_weight=10,
        **jobs,
    )
