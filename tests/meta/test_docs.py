"""The documentation site: built strictly, and nothing that is public is missing from it."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from airflow_provider_osai.api import errors
from airflow_provider_osai.api.contract import ENDPOINTS
from airflow_provider_osai.api.settings import EXTRAS
from airflow_provider_osai.get_provider_info import get_provider_info
from tests.conftest import ROOT

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
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
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
