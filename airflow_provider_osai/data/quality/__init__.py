"""Data quality: find what would spoil a training in a folder, archive or bucket of images, before anything is paid for.

Belongs here: decoding images, duplicates, the rules, the report and its forms (text, HTML). Does not: Airflow, HTTP,
reading sources and annotations, which is done by the readers that an upload uses.
"""

from __future__ import annotations

from airflow_provider_osai.data.quality.check import CheckStopped, check_source
from airflow_provider_osai.data.quality.options import QualityOptions
from airflow_provider_osai.data.quality.report import Finding, Item, QualityReport, QualitySummary, Severity

__all__ = [
    "CheckStopped",
    "Finding",
    "Item",
    "QualityOptions",
    "QualityReport",
    "QualitySummary",
    "Severity",
    "check_source",
]
