"""Facets of our own; their schemas are in docs/lineage.md."""

from __future__ import annotations

from typing import Any

import attr
from openlineage.client.facet_v2 import DatasetFacet, RunFacet

__all__ = ["OsaiJobRunFacet", "OsaiMetricsDatasetFacet"]

SCHEMAS = "urn:airflow-provider-osai:lineage:1"
"""Names the schemas; nothing has to be fetched."""


@attr.define
class OsaiJobRunFacet(RunFacet):
    """The OSAI job that a task run stands for; fields that are not known are ``None``."""

    kind: str
    job_id: str | None = None
    state: str | None = None
    portal_url: str | None = None

    @staticmethod
    def _get_schema() -> str:
        return f"{SCHEMAS}#OsaiJobRunFacet"


@attr.define
class OsaiMetricsDatasetFacet(DatasetFacet):
    """The metrics that OSAI gave for what a job made, by name."""

    metrics: dict[str, Any]

    @staticmethod
    def _get_schema() -> str:
        return f"{SCHEMAS}#OsaiMetricsDatasetFacet"
