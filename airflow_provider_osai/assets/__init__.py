"""OSAI's things as Airflow assets.

May live here: what names and announces them. No requests, no waiting.
"""

from airflow_provider_osai.assets.freshness import is_new, skip_unless_new
from airflow_provider_osai.assets.standing import standing_model
from airflow_provider_osai.assets.uris import osai_dataset, osai_model

__all__ = ["is_new", "osai_dataset", "osai_model", "skip_unless_new", "standing_model"]
