"""The files of the Docker Compose quick start: valid, without secrets, and each component with what it needs only."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import yaml

from airflow_provider_osai import __version__
from airflow_provider_osai.hooks.osai import OsaiHook
from tests.conftest import ROOT
from tests.dags import parse
from tests.quickstart.files import COMPOSE, compose, dockerfile, env_file, in_order, interpolate, needs

TEXT = (COMPOSE / "compose.yaml").read_text()
AIRFLOWS = ["init", "api-server", "scheduler", "triggerer", "dag-processor"]
CONNECTED = ["api-server", "scheduler", "triggerer"]
SCHEMA = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]


@pytest.fixture
def folder(tmp_path):
    """A copy of the folder, as a user has it."""
    return shutil.copytree(COMPOSE, tmp_path / "compose", ignore=shutil.ignore_patterns(".env", "*.whl"))


def new_env(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sh", folder / "new-env.sh"], cwd="/", capture_output=True, text=True, check=False)


@pytest.fixture
def variables(folder):
    done = new_env(folder)
    assert done.returncode == 0, done.stderr
    return env_file(folder / ".env")


@pytest.fixture
def services(variables):
    return compose(variables)


def test_the_compose_file_has_the_schema_of_compose_files():
    done = subprocess.run([*SCHEMA, COMPOSE / "compose.yaml"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_schema_finds_a_fault(tmp_path):
    (tmp_path / "compose.yaml").write_text(TEXT.replace("depends_on:", "depend_on:"))
    done = subprocess.run([*SCHEMA, tmp_path / "compose.yaml"], capture_output=True, text=True, check=False)
    assert "depend_on" in done.stdout


def test_new_secrets_are_written_once_for_their_owner_only(folder, variables):
    secrets = [name for name, value in env_file(COMPOSE / ".env.example").items() if value == "<secret>"]
    assert sorted(secrets) == sorted(
        ["ADMIN_PASSWORD", "API_SECRET_KEY", "FERNET_KEY", "JWT_SECRET", "OSAI_ACCESS_TOKEN", "POSTGRES_PASSWORD"]
    )
    assert {len(base64.urlsafe_b64decode(variables[name])) for name in secrets} == {32}
    assert len({variables[name] for name in secrets}) == len(secrets)
    assert (folder / ".env").stat().st_mode & 0o777 == 0o600
    before = (folder / ".env").read_bytes()
    again = new_env(folder)
    assert again.returncode == 1
    assert "exists" in again.stderr
    assert (folder / ".env").read_bytes() == before
    assert sorted(path.name for path in folder.glob(".env*")) == [".env", ".env.example"]


def test_the_fernet_key_is_one(variables):
    from cryptography.fernet import Fernet

    assert Fernet(variables["FERNET_KEY"]).encrypt(b"a")


def test_without_an_env_file_each_missing_secret_is_named():
    """Compose then ends with this message and starts nothing."""
    wanted = set(re.findall(r"\$\{(\w+):\?", TEXT))
    assert wanted == set(env_file(COMPOSE / ".env.example")) - {"COMPOSE_PROFILES"}
    for name in wanted:
        with pytest.raises(KeyError, match=rf"{name}: run new-env\.sh"):
            compose(dict.fromkeys(wanted - {name}, "a"))


def test_no_file_of_the_folder_has_a_secret():
    """And neither Git nor an image gets the file that has them."""
    assert "password: " not in TEXT.lower().replace('"password": ', "").replace("password: ${", "")
    ignored = (COMPOSE / ".gitignore").read_text().splitlines()
    assert ".env" in ignored
    assert (COMPOSE / ".dockerignore").read_text().split() == ["*", "!wheels"]
    tracked = subprocess.run(["git", "ls-files", "--", COMPOSE], cwd=ROOT, capture_output=True, text=True, check=False)
    assert not [name for name in tracked.stdout.split() if name.endswith(("/.env", ".whl"))]


def test_the_sdist_has_the_folder_without_what_its_user_made(tmp_path):
    """Secrets and wheels; hatch reads no .gitignore of a sub-folder."""
    for name in ("pyproject.toml", "README.md", "LICENSE", "airflow_provider_osai/__init__.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    copy = shutil.copytree(COMPOSE, tmp_path / "quickstart/compose")
    for name in (".env", ".env.new", "wheels/constraints.txt", "wheels/a-1-py3-none-any.whl"):
        (copy / name).write_text("secret")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", tmp_path / "dist"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    (archive,) = (tmp_path / "dist").iterdir()
    with tarfile.open(archive) as sdist:
        names = {name.partition("/quickstart/compose/")[2] for name in sdist.getnames()} - {""}
    files = ["Dockerfile", "compose.yaml", "dags/retrain_digits.py", "new-env.sh", "wheels/README.md"]
    assert names == {".dockerignore", ".env.example", ".gitignore", *files}


@pytest.mark.parametrize(
    ("token", "extra"),
    [
        (None, None),
        ("a/token", '{"region": "eu"}'),
        ("a$b{c}-token", '{"region": "us", "timeout": 60}'),
    ],
)
def test_the_connection_is_understood_by_airflow(variables, monkeypatch, token, extra):
    """As it is written for the sandbox, and with another token and extra."""
    changed = {key: value for key, value in {"OSAI_ACCESS_TOKEN": token, "OSAI_EXTRA": extra}.items() if value}
    services = compose(variables | changed)
    value = services["scheduler"]["environment"]["AIRFLOW_CONN_OSAI_DEFAULT"]
    monkeypatch.setenv("AIRFLOW_CONN_OSAI_DEFAULT", value)
    settings = OsaiHook().settings()
    assert settings.access_token.get_secret_value() == (token or variables["OSAI_ACCESS_TOKEN"])
    assert settings.base_url == "http://127.0.0.1:8099/api" if token is None else settings.region in extra


def test_only_what_uses_the_connection_has_it(services):
    with_it = [
        name for name, service in services.items() if "AIRFLOW_CONN_OSAI_DEFAULT" in service.get("environment", {})
    ]
    assert sorted(with_it) == sorted(CONNECTED)
    assert list(services["sandbox"]["environment"]) == ["OSAI_SANDBOX_TOKEN"]
    assert "environment" not in services["pod"]
    with_password = [name for name, each in services.items() if "ADMIN_PASSWORD" in each.get("environment", {})]
    assert with_password == ["api-server"]


def test_the_sandbox_is_reached_by_the_same_address_from_all_that_use_it(services, variables):
    """It listens on 127.0.0.1 only: what uses it shares its network, whose holder publishes the only port, locally."""
    shared = [name for name, service in services.items() if service.get("network_mode") == "service:pod"]
    assert sorted(shared) == sorted([*CONNECTED, "sandbox"])
    assert [name for name, service in services.items() if "ports" in service] == ["pod"]
    assert [port.split(":")[0] for port in services["pod"]["ports"]] == ["127.0.0.1"]
    address = json.loads(variables["OSAI_EXTRA"])["base_url"]
    assert f":{services['sandbox']['command'][1]}/" in address
    server = services["scheduler"]["environment"]["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"]
    assert server.startswith("http://127.0.0.1:8080/")


def test_containers_of_airflow_are_not_root_and_have_no_capabilities(services):
    for name in [*AIRFLOWS, "pod", "sandbox"]:
        assert services[name]["user"] == "50000:0", name
        assert services[name]["cap_drop"] == ["ALL"], name
        assert services[name]["security_opt"] == ["no-new-privileges:true"], name
        assert "privileged" not in services[name], name
    assert services["postgres"]["user"] == "postgres"
    assert [each for each in dockerfile(COMPOSE / "Dockerfile") if each.name == "USER"] == []  # the image's: airflow


def test_each_service_that_stays_has_a_health_check_and_starts_after_what_it_needs(services):
    assert [name for name, service in services.items() if "healthcheck" not in service] == ["pod", "init"]
    order = list(in_order(services))
    for name, service in services.items():
        assert all(order.index(needed) < order.index(name) for needed in needs(service))
    for name in CONNECTED:
        assert services[name]["network_mode"] == "service:pod"
    assert services["init"]["restart"] == "no"
    assert services["api-server"]["depends_on"]["init"]["condition"] == "service_completed_successfully"


def test_the_sandbox_can_be_left_out(variables):
    """No other service needs it."""
    without = compose(variables | {"COMPOSE_PROFILES": ""})
    assert sorted(without) == sorted([*AIRFLOWS, "pod", "postgres"])
    assert list(in_order(without))


def test_each_variable_is_an_option_of_airflow(services):
    """A misspelt one would be ignored."""
    from airflow.configuration import conf

    for name in services["api-server"]["environment"]:
        if match := re.fullmatch(r"AIRFLOW__([A-Z_]+?)__([A-Z_]+)", name):
            section, option = match[1].lower(), match[2].lower()
            known = conf.configuration_description.get(section, {}).get("options", {})
            assert option in known or option in {"simple_auth_manager_passwords_file"}, name


def test_the_image_has_the_airflow_of_our_constraints_and_a_version_with_constraints():
    """The newest release, or the one that is being developed if it is the first with published constraints."""
    (base,) = [each.text for each in dockerfile(COMPOSE / "Dockerfile") if each.name == "FROM"]
    pinned = re.search(r"^apache-airflow==(.*)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)[1]
    assert base == f"apache/airflow:{pinned}-python3.11"
    arguments = dict(each.text.split("=", 1) for each in dockerfile(COMPOSE / "Dockerfile") if each.name == "ARG")
    released = yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"]
    assert arguments["VERSION"] == ("0.2.0" if released == "0.1.0" else released)
    assert __version__.startswith(released) or ".dev" in __version__
    address = interpolate(arguments["CONSTRAINTS"], arguments)
    assert address.endswith(f"/releases/download/v{arguments['VERSION']}/constraints.txt")
    release = (ROOT / ".github/workflows/release.yml").read_text()
    assert "files/constraints*.txt" in release


def test_the_first_dag_parses_and_retries():
    (dag,) = parse(COMPOSE / "dags").dags.values()
    assert dag.dag_id == "retrain_digits"
    assert [task.task_id for task in dag.topological_sort()] == ["dataset", "upload", "train", "convert"]
    assert {task.retries for task in dag.tasks} == {2}
    source = next(each.text for each in dockerfile(COMPOSE / "Dockerfile") if "osai-airflow digits" in each.text)
    assert dag.get_task("upload").source in source.split()


def test_the_readers_of_these_tests_read_as_docker_does(tmp_path):
    """Continued lines, comments between them, defaults, dollar signs."""
    (tmp_path / "Dockerfile").write_text("# a\nFROM x\n\nRUN a \\\n  # b\n  c && \\\n  d\n")
    assert dockerfile(tmp_path / "Dockerfile") == [("FROM", "x"), ("RUN", "a c && d")]
    assert interpolate(["$$A $A ${A} ${B:-b} ${B}", 1], {"A": "a"}) == ["$A a a b ", 1]
