"""Retraining on new data: train a model whenever a dataset changes in OSAI.

Set DATASET to the id of your dataset; the trigger polls OSAI for changes.
"""

from datetime import timedelta

from airflow.sdk import DAG, AssetWatcher

from airflow_provider_osai.assets import osai_dataset
from airflow_provider_osai.operators.training import OsaiTrainModelOperator
from airflow_provider_osai.triggers.events import OsaiDatasetChangedTrigger

DATASET = "the-id-of-a-dataset"

defects = osai_dataset(
    DATASET,
    name="osai_defects",
    watchers=[AssetWatcher(name="osai_defects_changed", trigger=OsaiDatasetChangedTrigger(DATASET, poll_interval=60))],
)

with DAG(
    "example_osai_on_new_data",
    schedule=[defects],
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 2, "deferrable": True, "execution_timeout": timedelta(hours=2)},
    tags=["osai", "example"],
    doc_md=__doc__,
) as dag:
    OsaiTrainModelOperator(task_id="train_model", dataset_ids=DATASET, model_name="defects")
