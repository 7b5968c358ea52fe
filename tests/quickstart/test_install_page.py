"""The snippets of docs/install.md that are not of the Compose folder: pip, Astro, Helm."""

from __future__ import annotations

import json
import re

import pytest
import yaml
from packaging.requirements import Requirement

from airflow_provider_osai.hooks.osai import OsaiHook
from tests.conftest import ROOT
from tests.quickstart.files import COMPOSE, PAGE, blocks, dockerfile, env_file

TEXT = PAGE.read_text()
VERSION = re.search(r"^VERSION=(\S+)$", TEXT, re.MULTILINE)[1]


def test_all_versions_of_the_page_are_those_of_the_dockerfile():
    image, version = (next(e.text for e in dockerfile(COMPOSE / "Dockerfile") if e.name == n) for n in ("FROM", "ARG"))
    assert version == f"VERSION={VERSION}"
    assert f"--branch v{VERSION} " in TEXT
    assert set(re.findall(r"^ *FROM (\S+)$", TEXT, re.MULTILINE)) == {image}
    assert set(re.findall(r"airflow-provider-osai==([\d.]+)", TEXT)) == {VERSION}
    assert set(re.findall(r"apache-airflow==([\d.]+)", TEXT)) == {re.search(r":([\d.]+)-", image)[1]}


def test_the_table_of_constraints_has_each_file():
    rows = dict(re.findall(r"^\| (3\.\d) \| `([^`]+)` \|$", TEXT, re.MULTILINE))
    files = {
        re.search(r"^apache-airflow==(\d+\.\d+)", path.read_text(), re.MULTILINE)[1]: path.name
        for path in ROOT.glob("constraints*.txt")
    }
    assert rows == files


def test_the_constraints_pin_what_only_this_package_needs():
    """As the comparison with Airflow's says."""
    text = (ROOT / "constraints.txt").read_text()
    for name in ("httpx-retries", "skl2onnx"):
        assert f"`{name}`" in TEXT
        assert f"\n{name}==" in text


def test_the_files_of_the_table_are_in_the_folder():
    rows = re.findall(r"^\| ((?:`[^`]+`(?:, )?)+) \| ", TEXT.partition("## Docker Compose")[2], re.MULTILINE)
    names = [name for row in rows for name in re.findall(r"`([^`]+)`", row)]
    assert {"Dockerfile", "compose.yaml", ".env.example", "new-env.sh"} < set(names)
    assert [name for name in names if "." in name or "/" in name if not (COMPOSE / name).exists()] == []


def test_the_settings_for_an_account_are_those_of_the_env_file(tmp_path):
    (text,) = re.findall(r"```text\n(.*?)```", TEXT.partition("### With your OSAI account")[2], re.DOTALL)[:1]
    (tmp_path / "env").write_text(re.sub(r"^ +", "", text, flags=re.MULTILINE))
    changed = env_file(tmp_path / "env")
    assert set(changed) <= set(env_file(COMPOSE / ".env.example"))
    assert json.loads(changed["OSAI_EXTRA"]) == {"region": "eu"}


def test_the_requirement_for_astro_is_one():
    requirements, _ = blocks("text", "Astro CLI")
    requirement = Requirement(requirements.strip())
    assert requirement.name == "airflow-provider-osai"
    assert VERSION in requirement.specifier


def test_the_connection_for_astro_is_understood_by_airflow(monkeypatch):
    _, line = blocks("text", "Astro CLI")
    name, value = line.strip().split("=", 1)
    monkeypatch.setenv(name, value.replace("<access token>", "a/token"))
    settings = OsaiHook().settings()
    assert settings.access_token.get_secret_value() == "a/token"
    assert settings.region == "eu"


@pytest.fixture
def values():
    (block,) = re.findall(r"```yaml\n(.*?)```", TEXT.partition("## Helm")[2], re.DOTALL)
    return yaml.safe_load(block)


def test_the_values_for_helm_name_the_image_and_the_secret_of_the_commands(values):
    """Built from the same Airflow, with the version as its tag."""
    section = TEXT.partition("## Helm")[2]
    assert f"apache/airflow:{values['airflowVersion']}-" in section
    assert values["images"]["airflow"]["tag"] == VERSION
    (secret,) = values["secret"]
    assert secret["envName"] == "AIRFLOW_CONN_OSAI_DEFAULT"
    command = re.search(r"kubectl create secret generic (\S+) .*--from-file=(\w+)=", section)
    assert (secret["secretName"], secret["secretKey"]) == command.groups()


def test_the_image_for_helm_is_installed_as_that_of_compose(tmp_path):
    """The same line of pip, but for the sandbox and local wheels."""
    (block,) = re.findall(r"```dockerfile\n(.*?)```", TEXT, re.DOTALL)
    (tmp_path / "Dockerfile").write_text(re.sub(r"^ {4}", "", block, flags=re.MULTILINE))
    of_helm = {each.name: each.text for each in dockerfile(tmp_path / "Dockerfile")}
    of_compose = [each.text for each in dockerfile(COMPOSE / "Dockerfile")]
    constraints = next(text for text in of_compose if text.startswith("CONSTRAINTS=")).partition("=")[2]
    assert f'--constraint "{constraints}"' in of_helm["RUN"]
    for package in ('"apache-airflow==${AIRFLOW_VERSION}"', '"airflow-provider-osai==${VERSION}"'):
        assert package in of_helm["RUN"]
        assert package in next(text for text in of_compose if text.startswith("pip")).replace("[sandbox]", "")
