"""Retraining by itself: each time the dataset has changed in OSAI, a model is trained with it.

Put the id of a dataset of yours into DATASET; nothing else has to tell Airflow of new images.
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
    default_args={"deferrable": True, "execution_timeout": timedelta(hours=2)},
    tags=["osai", "example"],
    doc_md=__doc__,
) as dag:
    OsaiTrainModelOperator(task_id="train_model", dataset_ids=DATASET, model_name="defects")
