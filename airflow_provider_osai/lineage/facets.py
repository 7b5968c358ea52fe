"""Custom OpenLineage facets of this provider; their fields are documented in docs/lineage.md."""

from __future__ import annotations

from typing import Any

import attr
from openlineage.client.facet_v2 import DatasetFacet, RunFacet

__all__ = ["OsaiJobRunFacet", "OsaiMetricsDatasetFacet"]

SCHEMAS = "urn:airflow-provider-osai:lineage:1"
"""Base of the schema URIs. They are identifiers only; nothing is fetched from them."""


@attr.define
class OsaiJobRunFacet(RunFacet):
    """The OSAI job of a task run; unknown fields are ``None``."""

    kind: str
    job_id: str | None = None
    state: str | None = None
    portal_url: str | None = None

    @staticmethod
    def _get_schema() -> str:
        return f"{SCHEMAS}#OsaiJobRunFacet"


@attr.define
class OsaiMetricsDatasetFacet(DatasetFacet):
    """The metrics of a job's output by name, as OSAI returned them."""

    metrics: dict[str, Any]

    @staticmethod
    def _get_schema() -> str:
        return f"{SCHEMAS}#OsaiMetricsDatasetFacet"
