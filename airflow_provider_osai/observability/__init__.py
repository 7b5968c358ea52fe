"""Metrics and traces of this package, through what Airflow is configured with. See docs/metrics.md."""

from __future__ import annotations
