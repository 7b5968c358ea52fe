"""Archives of images, read where they lie: never unpacked to disk, never held in memory, and trusted in nothing.

May live here: what zip and tar files hold, and what is refused of them. May not: images, annotations, Airflow, HTTP.
"""

from __future__ import annotations

from airflow_provider_osai.data.archives.archive import Archive, is_archive
from airflow_provider_osai.data.archives.rules import Entry, Limits

__all__ = ["Archive", "Entry", "Limits", "is_archive"]
