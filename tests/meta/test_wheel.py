"""What is shipped: the package and its examples, nothing else, and nothing heavy with it."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_string
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from airflow_provider_osai import __version__
from tests.conftest import ROOT

LIGHT = {
    *("apache-airflow", "apache-airflow-providers-common-compat"),
    *("argcomplete", "httpx", "httpx-retries", "itsdangerous", "jmespath", "pydantic", "pyjwt", "pyyaml", "rich"),
}
"""What an installation of the wheel alone asks for; Airflow has most of it."""


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    build(ROOT, folder)
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return wheel, sdist


def build(source: Path, folder: Path, *options: str) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(folder), *options]
    subprocess.run(command, cwd=source, capture_output=True, check=True)


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture(scope="module")
def metadata(built):
    (text,) = [text for name, text in contents(built[0]).items() if name.endswith(".dist-info/METADATA")]
    return message_from_string(text.decode())


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


def test_the_wheel_alone_asks_for_nothing_heavy(metadata):
    """The rest comes with extras."""
    needed = [line for line in metadata.get_all("Requires-Dist") if "extra ==" not in line]
    assert {re.match(r"[\w.-]+", line)[0].lower() for line in needed} == LIGHT


def test_the_sdist_holds_what_it_takes_to_build_and_test(built):
    """As a packager needs it."""
    with tarfile.open(built[1]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "Makefile", "mkdocs.yml"} <= names
    assert {
        "tests/conftest.py",
        ".ci/run",
        ".github/workflows/ci.yml",
        ".pre-commit-config.yaml",
        "RELEASING.md",
    } <= names


def test_the_wheel_of_the_sdist_is_the_wheel(built, tmp_path):
    """So that a packager who starts from the sdist gets the same; both are complete and contain nothing untracked."""
    with tarfile.open(built[1]) as sdist:
        sdist.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    build(source, tmp_path / "again", "-t", "wheel")
    (again,) = (tmp_path / "again").glob("*.whl")
    assert contents(again) == contents(built[0])


def test_each_file_of_the_sdist_is_tracked_by_git(built):
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if tracked.returncode:
        pytest.skip("not a clone")
    with tarfile.open(built[1]) as sdist:
        names = {member.name.partition("/")[2] for member in sdist.getmembers() if member.isfile()}
    assert names - set(tracked.stdout.split("\0")) == {"PKG-INFO"}


def test_what_is_uploaded_is_accepted(built):
    """By the checks of PyPI's own tools: the description renders, and the wheel's layout has no common fault."""
    scripts = Path(sys.executable).parent
    for command in (["twine", "check", "--strict", *built], ["check-wheel-contents", built[0]]):
        done = subprocess.run(
            [scripts / command[0], *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_metadata_say_what_pypi_shows(metadata):
    assert metadata["Name"] == "airflow-provider-osai"
    assert metadata["Version"] == __version__
    assert metadata["License-Expression"] == "Apache-2.0 AND MIT"
    assert {"Homepage", "Documentation", "Changelog", "Source", "Issues"} <= {
        line.partition(",")[0] for line in metadata.get_all("Project-URL")
    }
    assert "dev" not in metadata.get_all("Provides-Extra")  # tools of development are dependency groups


def test_the_description_has_no_relative_link(metadata):
    """PyPI shows the README alone."""
    links = re.findall(r"\]\(([^)]+)\)", metadata.get_payload())
    assert len(links) > 30
    assert [link for link in links if not link.startswith("https://")] == []


@pytest.fixture
def sbom(built):
    """The SBOM in the wheel, where PEP 770 has it."""
    (text,) = [text for name, text in contents(built[0]).items() if re.search(r"\.dist-info/sboms/[^/]+$", name)]
    return text.decode()


def test_the_sbom_is_valid(sbom):
    validator = JsonStrictValidator(SchemaVersion.from_version(json.loads(sbom)["specVersion"]))
    assert validator.validate_str(sbom) is None
    assert validator.validate_str(sbom.replace('"type": "library"', '"type": "bookshop"')) is not None


def test_the_sbom_has_each_file_that_is_not_ours(built, sbom):
    """Such a file is minified, or begins with the notice of its author; its license is a license of the wheel."""
    files = contents(built[0])
    foreign = {
        name
        for name, content in files.items()
        if name.endswith((".js", ".css", ".html", ".woff2", ".LICENSE"))
        and ".dist-info/" not in name
        and (
            not name.endswith((".js", ".css", ".html"))
            or b"/*!" in content
            or max(map(len, content.split(b"\n"))) > 1000
        )
    }
    listed = {
        file["name"]: file["hashes"][0]["content"]
        for component in json.loads(sbom)["components"]
        for file in component["components"]
    }
    assert listed == {name: hashlib.sha256(files[name]).hexdigest() for name in foreign}
    licenses = {name.partition(".dist-info/licenses/")[2] for name in files if ".dist-info/licenses/" in name}
    assert {name for name in foreign if name.endswith(".LICENSE")} <= licenses
    for component in json.loads(sbom)["components"]:
        assert any(component["version"].encode() in files[file["name"]] for file in component["components"])
