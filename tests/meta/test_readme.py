"""What the README and the pages it points to show is true."""

from __future__ import annotations

import re
import subprocess
import tomllib
from urllib.parse import unquote

import pytest
import yaml

from airflow_provider_osai.api import errors
from airflow_provider_osai.api.contract import Contract
from airflow_provider_osai.api.overrides import apply_overrides
from airflow_provider_osai.api.settings import EXTRAS
from tests.conftest import ROOT
from tests.dags import parse

README = (ROOT / "README.md").read_text()
CONSTRAINTS = sorted(ROOT.glob("constraints*.txt"))


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_its_make_commands_are_targets_of_the_makefile():
    commands = re.findall(r"^make (\w+)", "\n".join(blocks("sh")), re.MULTILINE)
    assert commands == ["demo", "test"]
    for command in commands:
        subprocess.run(["make", "--dry-run", command], cwd=ROOT, check=True, capture_output=True)


def test_its_dag_is_short_and_parses(dagbag_of):
    (source,) = blocks("python")
    assert len([line for line in source.splitlines() if line.strip()]) <= 15
    assert list(dagbag_of(source).dags) == ["retrain_defects"]


@pytest.fixture
def dagbag_of(tmp_path):
    def dagbag(source: str):
        (tmp_path / "dag.py").write_text(source)
        return parse(tmp_path)

    return dagbag


def test_the_contract_example_of_the_connection_page_is_a_contract():
    (example,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/connection.md").read_text(), re.DOTALL)
    contract = apply_overrides(Contract(), yaml.safe_load(example))
    assert contract["training.submit"].path == "/Models/Train"


BASES = (
    "https://github.com/airflow-provider-osai/airflow-provider-osai/blob/main/",
    "https://raw.githubusercontent.com/airflow-provider-osai/airflow-provider-osai/main/",
)
"""Of links to pages, and of pictures: PyPI has no other files than the README."""
LINKS = re.findall(r"(!?)\[[^\]]*\]\(([^)\s]+)\)", README)
ELSEWHERE = ("https://docs.onestepai.com/", "https://img.shields.io/badge/")


def anchors(page: str) -> set[str]:
    """The anchors of a Markdown file's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ +(.*)$", (ROOT / page).read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize(("mark", "url"), LINKS)
def test_each_link_of_the_readme_works_on_pypi_too(mark, url):
    """It is absolute; what it names of this repository exists, and pictures are raw files."""
    if url.startswith(ELSEWHERE):
        return
    base = BASES[1] if mark else BASES[0]
    assert url.startswith(base)
    path, _, anchor = url.removeprefix(base).partition("#")
    assert (ROOT / path).is_file()
    assert not anchor or anchor in anchors(path)


def test_each_page_for_users_of_the_readme_is_linked_once_or_more():
    assert len([url for mark, url in LINKS if url.startswith(BASES[0])]) > 20


def test_the_badges_are_what_the_package_declares():
    """Static pictures, so nothing but this test keeps them true."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    badges = " ".join(unquote(url) for mark, url in LINKS if mark and "img.shields.io" in url)
    pythons = sorted(line.rpartition(" ")[2] for line in project["classifiers"] if "Python :: 3." in line)
    assert f"Python-{pythons[0]} to {pythons[-1]}-" in badges
    assert project["requires-python"] == ">=3.11,<3.14"
    constrained = [re.search(r"apache-airflow==(\d+\.\d+)", path.read_text())[1] for path in CONSTRAINTS]
    assert f"Airflow-{min(constrained)} to {max(constrained)}-" in badges
    assert "license-Apache--2.0-" in badges
    assert project["license"].startswith("Apache-2.0 AND ")  # and that of the included uPlot


def test_it_is_short_and_says_what_is_assumed():
    assert len(README.splitlines()) <= 110
    for word in ("documented", "assumed", "learned", "simulated"):
        assert f"| {word} |" in README


@pytest.mark.parametrize("name", EXTRAS)
def test_each_connection_extra_is_in_the_connection_page(name):
    assert f"`{name}`" in (ROOT / "docs/connection.md").read_text()


@pytest.mark.parametrize("name", [name for name in errors.__all__ if name not in ("OsaiError", "OsaiJobError")])
def test_each_error_that_may_be_raised_is_in_the_table_of_errors(name):
    assert f"`{name}`" in (ROOT / "docs/reference/errors.md").read_text()
