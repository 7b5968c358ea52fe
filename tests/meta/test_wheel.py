"""What is shipped: the package and its examples, nothing else, and nothing heavy with it."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import zipfile

import pytest

from tests.conftest import ROOT

LIGHT = {
    *("apache-airflow", "apache-airflow-providers-common-compat"),
    *("httpx", "httpx-retries", "itsdangerous", "jmespath", "pydantic", "pyjwt", "pyyaml"),
}
"""What an installation of the wheel alone asks for; Airflow has most of it."""


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return wheel, sdist


def test_the_wheel_holds_the_package_and_nothing_else(built):
    """No tests, no benchmarks; the examples lie inside the package, and its types are marked."""
    with zipfile.ZipFile(built[0]) as wheel:
        names = wheel.namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"airflow_provider_osai"}
    assert "airflow_provider_osai/py.typed" in names
    examples = {path.name for path in (ROOT / "example_dags").glob("*.py")}
    assert {name.rpartition("/")[2] for name in names if "/example_dags/" in name} == examples
    assert not [name for name in names if re.search(r"test_|conftest|__pycache__", name)]


def test_the_wheel_alone_asks_for_nothing_heavy(built):
    """The rest comes with extras."""
    with zipfile.ZipFile(built[0]) as wheel:
        (metadata,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
        text = wheel.read(metadata).decode()
    needed = re.findall(r"^Requires-Dist: ([\w.-]+)(?!.*extra ==).*$", text, re.MULTILINE)
    assert {name.lower() for name in needed} == LIGHT


def test_the_sdist_holds_what_it_takes_to_build_and_test(built):
    """As a packager needs it."""
    with tarfile.open(built[1]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "Makefile", "mkdocs.yml"} <= names
    assert "tests/conftest.py" in names
