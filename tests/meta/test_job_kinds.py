"""Every place that a kind of job needs, as CONTRIBUTING lists them."""

from __future__ import annotations

import inspect
from enum import StrEnum

import pytest

from airflow_provider_osai.api.contract import ENDPOINTS, JOB_REQUESTS, RESOURCES
from airflow_provider_osai.api.models import JobKind
from airflow_provider_osai.lineage.extractor import OUTPUTS
from airflow_provider_osai.operators import conversion, dataset, device, gate, orphans, prediction, training
from airflow_provider_osai.operators.job import OsaiJobOperator
from airflow_provider_osai.sandbox import job_runner
from airflow_provider_osai.sensors import job as job_sensor
from tests.conftest import ROOT

MAKES_NOTHING = {"device_rental"}
"""Kinds whose result is no object with a lineage."""


def job_operators():
    modules = (conversion, dataset, device, gate, prediction, training)
    classes = {cls for module in modules for cls in vars(module).values() if inspect.isclass(cls)}
    return [cls for cls in classes if issubclass(cls, OsaiJobOperator) and "build_request" in vars(cls)]


def missing_places(kind: StrEnum) -> list[str]:
    """Return what a kind of job lacks."""
    request = JOB_REQUESTS.get(kind)
    places = {
        "api/contract.py: RESOURCES": kind in RESOURCES,
        "api/contract.py: JOB_REQUESTS": request is not None,
        "api/contract.py: five endpoints": all(
            f"{kind.value}.{verb}" in ENDPOINTS for verb in ("submit", "get", "list", "cancel", "page")
        ),
        "an operator that builds its request": request is not None
        and any(request.__name__ in inspect.getsource(cls.build_request) for cls in job_operators()),
        "sandbox/job_runner.py: Work._doers": f"JobKind.{kind.name}:" in inspect.getsource(job_runner),
        "lineage/extractor.py: OUTPUTS": kind in OUTPUTS or kind.value in MAKES_NOTHING,
        "sensors/job.py: the docstring's list of kinds": kind.value in inspect.getsource(job_sensor),
        "operators/orphans.py: the docstring's list of kinds": kind.value in inspect.getsource(orphans),
        "docs/contract-reference.md: its endpoints": f"`{kind.value}.submit`"
        in (ROOT / "docs/contract-reference.md").read_text(),
        "docs/reference/operators.md: Returned keys": f"`{kind.value}`"
        in (ROOT / "docs/reference/operators.md").read_text(),
    }
    return [place for place, is_there in places.items() if not is_there]


@pytest.mark.parametrize("kind", JobKind)
def test_a_kind_of_job_is_in_every_place(kind):
    assert missing_places(kind) == []


def test_a_new_kind_of_job_is_missing_in_every_place():
    """The check can fail, and lists what to do."""

    class More(StrEnum):
        AUDIT = "audit"

    assert len(missing_places(More.AUDIT)) == 10
