"""The documentation site: built strictly, and nothing that is public is missing from it."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import get_type_hints

import pytest

from airflow_provider_osai.api import errors
from airflow_provider_osai.api.calls import OsaiApi
from airflow_provider_osai.api.contract import ENDPOINTS
from airflow_provider_osai.api.models import JobReferences
from airflow_provider_osai.api.settings import EXTRAS
from airflow_provider_osai.data.datasets import DeletedDataset, EnsuredDataset
from airflow_provider_osai.downloads.download import DownloadedModel
from airflow_provider_osai.get_provider_info import get_provider_info
from airflow_provider_osai.hooks.osai import OsaiHook
from airflow_provider_osai.operators.device import ReleasedDevices
from airflow_provider_osai.operators.gate import GateResult
from airflow_provider_osai.uploads.progress import UploadSummary
from tests.conftest import ROOT
from tests.dags import parse

INFO = get_provider_info()
MODULES = [
    name
    for group in ("hooks", "operators", "sensors", "triggers")
    for entry in INFO[group]
    for name in entry["python-modules"]
] + ["airflow_provider_osai.assets", "airflow_provider_osai.links.portal", "airflow_provider_osai.testing.plugin"]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The text of all pages."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pages = {path.relative_to(folder): path.read_text() for path in folder.rglob("*.html")}
    assert len(pages) > 25
    return pages


@pytest.fixture(scope="module")
def text(site):
    return re.sub(r"<[^>]+>", "", "\n".join(site.values()))


@pytest.mark.parametrize("module", MODULES)
def test_each_public_name_is_in_it(text, module):
    """Of what the provider offers, as modules declare it."""
    names = import_module(module).__all__
    assert names
    assert [name for name in names if name not in text] == []


def test_each_connection_extra_endpoint_and_error_is_in_it(text):
    """A user finds what a message names."""
    wanted = [*EXTRAS, *ENDPOINTS, *errors.__all__]
    assert [name for name in wanted if name not in text] == []


def test_each_example_and_its_graph_is_in_it(site, text):
    """With its code."""
    for path in (ROOT / "example_dags").glob("*.py"):
        assert Path("example_dags", path.stem, "index.html") in site
        assert f"graph-{path.stem}.png" in "\n".join(site.values()) or path.stem in text


def test_it_loads_nothing_from_elsewhere(site):
    """Neither scripts nor fonts nor pictures."""
    for page, html in site.items():
        loaded = re.findall(r"""<(?:script|img|iframe)[^>]+src=["']?(https?://[^"'\s>]+)""", html)
        loaded += re.findall(r"""<link[^>]+rel=["']?stylesheet["']?[^>]*href=["']?(https?://[^"'\s>]+)""", html)
        assert not loaded, (page, loaded)


OPERATORS_PAGE = (ROOT / "docs/reference/operators.md").read_text()
ROWS = {line.split("`")[1]: re.split(r" *\| *", line)[1:-1] for line in re.findall(r"^\| \[`.*", OPERATORS_PAGE, re.M)}
SHARED = {"OsaiJobOperator", "OsaiBaseTrainingOperator"}
"""What all jobs, and both trainings, have in common."""
OFFERED = {
    name: getattr(import_module(module), name)
    for module in INFO["operators"][0]["python-modules"]
    for name in import_module(module).__all__
    if (name.endswith("Operator") and name not in SHARED) or name == "rented_device"
}


@pytest.mark.parametrize("name", OFFERED)
def test_each_operator_says_what_it_raises_what_a_retry_does_and_where_it_is_used(name):
    """In a row of its own; the example uses it, and the errors are those of its docstring."""
    _, _, raised, retried, example = ROWS[name]
    assert retried
    link = re.search(r"\(([^)]+)\)", example)[1]
    shown = OPERATORS_PAGE if link.startswith("#") else (ROOT / "docs/reference" / link).read_text()
    assert f"{name}(" in shown or f"{name}.partial(" in shown
    own = set(re.findall(r":raises (Osai\w+)", OFFERED[name].__doc__))
    assert own <= set(re.findall(r"Osai\w+", raised)) <= set(errors.__all__)


def test_the_dags_of_the_operators_page_parse(tmp_path):
    """As Airflow parses them."""
    for number, source in enumerate(re.findall(r"```python\n(.*?)```", OPERATORS_PAGE, re.DOTALL)):
        (tmp_path / f"dag_{number}.py").write_text(source)
    assert set(parse(tmp_path).dags) == {"retrain_further", "device_by_hand"}


@pytest.mark.parametrize(
    ("page", "result"),
    [
        ("reference/operators.md", JobReferences),
        ("uploads.md", UploadSummary),
        ("datasets.md", EnsuredDataset),
        ("datasets.md", DeletedDataset),
        ("models.md", DownloadedModel),
        ("gate.md", GateResult),
        ("devices.md", ReleasedDevices),
    ],
)
def test_each_returned_key_is_in_a_table_of_its_page(page, result):
    lines = (ROOT / "docs" / page).read_text().splitlines()
    documented = {key for line in lines if line.startswith("| `") for key in re.findall(r"`(\w+)`", line.split("|")[1])}
    assert set(get_type_hints(result)) <= documented


def test_each_request_of_the_clients_is_in_the_table_of_the_hooks_page():
    table = (ROOT / "docs/reference/assets-hook.md").read_text()
    documented = dict(re.findall(r"^\| `(\w+)\(.*\| (yes|no) \|$", table, re.MULTILINE))
    verbs = {name for name in vars(OsaiApi) if not name.startswith("_")}
    assert documented == {name: "yes" if hasattr(OsaiHook, name) else "no" for name in verbs}
