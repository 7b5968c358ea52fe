"""OSAI datasets and models as Airflow assets.

Allowed here: asset URIs and asset events. Not allowed: requests, waiting.
"""

from airflow_provider_osai.assets.champion import champion_model_id
from airflow_provider_osai.assets.data_changes import has_new_data, skip_if_unchanged
from airflow_provider_osai.assets.uris import osai_dataset, osai_model

__all__ = ["champion_model_id", "has_new_data", "osai_dataset", "osai_model", "skip_if_unchanged"]
