"""Streaming readers for untrusted zip and tar archives: never extracted to disk, never held in memory as a whole.

Belongs here: reading and validating zip and tar files. Does not: images, annotations, Airflow, HTTP.
"""

from __future__ import annotations

from airflow_provider_osai.data.archives.archive import Archive, is_archive
from airflow_provider_osai.data.archives.limits import ArchiveEntry, Limits

__all__ = ["Archive", "ArchiveEntry", "Limits", "is_archive"]
