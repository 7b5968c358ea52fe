"""Each snippet of README and docs is run: Dags against the sandbox, tests by pytest, commands as far as they parse.

A new snippet needs an entry in SNIPPETS, under its page and heading; the second one under a heading ends in ``(2)``.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from airflow_provider_osai import cli
from airflow_provider_osai.sandbox import Sandbox
from airflow_provider_osai.testing.metadata_db import metadata_db, migrated_db
from tests.conftest import CANARY, ROOT
from tests.dags import parse
from tests.sandbox.client import Api, png, shades

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@dataclass(frozen=True)
class AsDag:
    """How a snippet is run as Dags, whose runs have to succeed.

    :param states: of tasks that do not end as ``success``.
    :param replace: words of the snippet, and what stands for them here, in which ``{images}`` is a folder, ``{folder}``
        an empty one, and ``{dataset}``, ``{holdout}`` and ``{model}`` are ids in the sandbox.
    :param context: the Dag file around the snippet, which is put in for ``# SNIPPET``, indented like it.
    :param first: runs before, by its Dag's id.
    """

    states: dict[str, str] = field(default_factory=dict)
    replace: dict[str, str] = field(default_factory=dict)
    context: str = "# SNIPPET"
    first: str | None = None


@dataclass(frozen=True)
class InPytest:
    """How a snippet is run by pytest.

    :param files: the snippets that it needs beside it, by the names of their files.
    :param before: lines above it.
    """

    files: dict[str, str] = field(default_factory=dict)
    before: str = ""


@dataclass(frozen=True)
class ByItsTest:
    """A snippet that a test of its topic runs.

    :param module: of the test, in which the page is named.
    """

    module: str


IN_A_DAG = """
from airflow.sdk import DAG
from airflow_provider_osai.assets import osai_model
from airflow_provider_osai.operators.batch import *
from airflow_provider_osai.operators.conversion import *
from airflow_provider_osai.operators.dataset import *
from airflow_provider_osai.operators.gate import *
from airflow_provider_osai.operators.orphans import *
from airflow_provider_osai.operators.training import *

with DAG("fragment", schedule=None):
"""
DATA = f"""{IN_A_DAG}
    data = dataset = OsaiCreateDatasetOperator(task_id="data", name="fragment")
"""
UPLOAD = f"""{DATA}
    upload = OsaiUploadImagesOperator(
        task_id="upload", dataset_id=data.output["dataset_id"], source="{{images}}"
    )
"""
TRAIN = f"""{UPLOAD}
    train = OsaiTrainModelOperator(
        task_id="train", dataset_ids=upload.output["dataset_id"], model_name="fragment"
    )
"""
DOWNLOAD = f"""{TRAIN}
    convert = OsaiConvertModelOperator(task_id="convert", model_id=train.output["model_id"], target="onnx")
    download = OsaiDownloadModelOperator(
        task_id="download", model_id=convert.output["model_id"], target="onnx", destination="{{folder}}/"
    )
"""
SNIPPET = "    # SNIPPET\n"
PROMOTED = """# SNIPPET


with DAG("promoted", schedule=None):

    @task(outlets=[champion])
    def promote(outlet_events=None):
        outlet_events[champion].extra["model_id"] = "{model}"

    promote()
"""
ONLY_IF_NEW = """
from airflow.sdk import DAG
from airflow_provider_osai.assets import osai_model

trained = osai_model("defects-candidate")

# SNIPPET

with DAG("only_if_new_data", schedule=None):
    only_if_new("digest")
"""
IN_A_TASK = """
from airflow.sdk import DAG, task

with DAG("in_a_task", schedule=None):

    @task
    def report():
        # SNIPPET

    report()
"""
SNIPPETS: dict[str, AsDag | InPytest | ByItsTest] = {
    "README.md#A Dag": AsDag(replace={"/data/defects": "{images}"}),
    "docs/capacity.md#Capacity: pools, quotas, credit": AsDag(
        replace={"4711": "{dataset}", "4712": "{dataset}", "4713": "{dataset}"}
    ),
    "docs/connect.md#5. Use it": AsDag(replace={"/data/defects": "{images}"}),
    "docs/data-quality.md#In a Dag": AsDag(context=DATA + SNIPPET, replace={"/data/defects": "{images}"}),
    "docs/datasets.md#Create a dataset": AsDag(context=IN_A_DAG + SNIPPET),
    "docs/datasets.md#Augment a dataset": AsDag(context=UPLOAD + SNIPPET),
    "docs/datasets.md#Delete a dataset": AsDag(context=TRAIN + SNIPPET),
    "docs/devices.md#Edge devices": AsDag(),
    "docs/early-stopping.md#Early stopping": AsDag(replace={"4711": "{dataset}"}),
    "docs/events.md#Events: start a Dag when a dataset changes": AsDag(replace={"7f3a": "{dataset}"}),
    "docs/gate.md#Model gate: promote only a better model": AsDag(
        replace={"/data/defects": "{images}", "4711": "{holdout}"}
    ),
    "docs/getting-started.md#In five minutes, against the sandbox": AsDag(replace={"/tmp/defects": "{images}"}),
    "docs/index.md#A Dag": AsDag(replace={"/data/defects": "{images}"}),
    "docs/gate.md#Assets": AsDag(replace={"4711": "{dataset}"}),
    "docs/gate.md#Skip unchanged data": AsDag(context=ONLY_IF_NEW),
    "docs/gate.md#Tell people": ByItsTest("tests/airflow/test_gate_alerts.py"),
    "docs/gate.md#Tell people (2)": ByItsTest("tests/airflow/test_gate_alerts.py"),
    "docs/batch.md#Batches: many jobs in one task": AsDag(
        replace={'"42"': '"{model}"', "4711": "{dataset}", "4712": "{holdout}"}
    ),
    "docs/batch.md#Returned list": AsDag(context=IN_A_DAG + SNIPPET, replace={"4711": "{dataset}"}),
    "docs/mlflow.md#MLflow": ByItsTest("tests/airflow/test_mlflow.py"),
    "docs/models.md#Convert, download and use a model": AsDag(
        context=TRAIN + SNIPPET, replace={"s3://my_conn@bucket/models/": "{folder}/"}
    ),
    "docs/models.md#In a Dag": AsDag(context=DOWNLOAD + SNIPPET, replace={"/data/new": "{images}"}),
    "docs/models.md#Use the ONNX file": ByItsTest("tests/sandbox/test_whole_run.py"),
    "docs/predict.md#Label images with a model": AsDag(replace={'"42"': '"{model}"', "/data/new": "{images}"}),
    "docs/training.md#Retrain a model": AsDag(replace={'"42"': '"{model}"', "4711": "{dataset}"}),
    "docs/training.md#Train a model": AsDag(replace={"4711": "{dataset}"}),
    "docs/orphans.md#Orphaned jobs": AsDag(context=IN_A_DAG + SNIPPET),
    "docs/orphans.md#The operator": AsDag(context=IN_A_DAG + SNIPPET),
    "docs/reference/assets-hook.md#Hook, assets, links, fixture": AsDag(context=IN_A_TASK, replace={"4711": "{model}"}),
    "docs/reference/operators.md#Retrain the champion": AsDag(
        context=PROMOTED, first="promoted", replace={"4711": "{dataset}"}
    ),
    "docs/reference/operators.md#Rent and release a device in separate tasks": AsDag(),
    "docs/reliability.md#Reliability: retries, cancellation, outages": AsDag(replace={"4711": "{dataset}"}),
    "docs/retries.md#Retry policy": AsDag(replace={"4711": "{dataset}"}),
    "docs/testing.md#Test a Dag": AsDag(),
    "docs/testing.md#Test a Dag (2)": InPytest(files={"mine.py": "docs/testing.md#Test a Dag"}),
    "docs/testing.md#Control the sandbox": InPytest(),
    "docs/uploads.md#Upload images": AsDag(
        context=DATA + SNIPPET,
        replace={
            "s3://bucket/line-3/**/*.png": "{images}/**/*.png",
            '    source_conn_id="aws_default",\n': "",  # there is no storage here
            '"ok/*"': '"*dark/*"',
            '"nok*"': '"*light*"',
        },
    ),
}


FENCE = re.compile(r"( *)(`{3,}|~{3,}) *(\w*)")


def blocks(text: str) -> Iterator[tuple[str, str, str]]:
    """Heading, language and content of each fenced block, however it is fenced and indented."""
    heading, opened, lines = "", None, []
    for line in text.splitlines():
        fence = FENCE.match(line)
        if opened is not None:
            if fence and fence[2].startswith(opened[2]) and not fence[3]:
                yield heading, opened[3].lower(), textwrap.dedent("\n".join(lines)) + "\n"
                opened = None
            else:
                lines.append(line)
        elif fence:
            opened, lines = fence, []
        elif title := re.match(r"#+ +(.*)", line):
            heading = title[1].strip()
    assert opened is None, f"a block below {heading!r} does not end"


def snippets(*languages: str) -> dict[str, str]:
    """The snippets of all pages, by page and heading."""
    found: dict[str, str] = {}
    for page in PAGES:
        for heading, language, source in blocks(page.read_text()):
            if language in languages:
                key, number = f"{page.relative_to(ROOT)}#{heading}", 1
                while (name := key if number == 1 else f"{key} ({number})") in found:
                    number += 1
                found[name] = source
    return found


FOUND = snippets("python", "py", "python3", "pycon")
DAGS = {name: how for name, how in SNIPPETS.items() if isinstance(how, AsDag)}
TESTS = {name: how for name, how in SNIPPETS.items() if isinstance(how, InPytest)}


def test_each_snippet_has_an_entry_that_says_how_it_is_run():
    """None is skipped in silence, and no entry is left over."""
    assert sorted(FOUND) == sorted(SNIPPETS)


def test_each_snippet_of_a_dag_retries():
    """That is what the product promises most of, and Airflow's default is none."""
    shown = {name: source for name, source in FOUND.items() if "with DAG(" in source}
    assert shown
    assert [name for name, source in shown.items() if '"retries": 2' not in source] == []
    examples = (ROOT / "example_dags").glob("*.py")
    assert [path.name for path in examples if '"retries": 2' not in path.read_text()] == []


@pytest.fixture(scope="module")
def osai():
    with Sandbox(access_token=CANARY) as running:
        yield running


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    return migrated_db(tmp_path_factory.mktemp("database"))


@pytest.fixture(scope="module")
def places(osai, tmp_path_factory):
    """What stands for the folders and ids of the snippets."""
    images = tmp_path_factory.mktemp("images")
    for name, files in shades(6).items():
        (images / name).mkdir()
        for number, content in enumerate(files):
            (images / name / f"{number}.png").write_bytes(content)
    with Api(osai) as api:
        dataset = api.dataset(shades(6))
        holdout = api.dataset({"dark": [png(13)] * 3, "light": [png(173)] * 3}, name="holdout")
        model = api.train(dataset, epochs=3)["result"]["modelId"]
    return {"images": str(images), "dataset": dataset, "holdout": holdout, "model": model}


def filled(text, places):
    return re.sub(r"\{(\w+)\}", lambda word: places.get(word[1], word[0]), text)


def dag_file(how, source, places):
    """The snippet with what stands around it."""
    for word, other in how.replace.items():
        assert word in source, f"{word!r} is not in the snippet any more"
        source = source.replace(word, filled(other, places))

    def indented(place):
        return "\n".join(place[1] + line for line in source.rstrip().split("\n")) + "\n"

    return re.sub(r"^( *)# SNIPPET\n?", indented, filled(how.context, places), count=1, flags=re.M)


@pytest.fixture
def run_file(database, osai, tmp_path, monkeypatch):
    """Write a Dag file into a Dag folder of its own, and run a Dag of it."""
    from airflow import settings

    folder = tmp_path / "dags"
    folder.mkdir()
    monkeypatch.setattr(settings, "DAGS_FOLDER", str(folder))
    monkeypatch.setenv("AIRFLOW__CORE__DAGS_FOLDER", str(folder))
    for name in ("OSAI_DEFAULT", "OSAI_EU", "OSAI_US"):
        document = f'{{"conn_type": "osai", "password": "{CANARY}", "extra": {{"base_url": "{osai.base_url}"}}}}'
        monkeypatch.setenv(f"AIRFLOW_CONN_{name}", document)

    def run(source, first=None):
        (folder / "snippet.py").write_text(source)
        dags = dict(parse(folder).dags)
        if first is not None:
            assert dags.pop(first).test().state == "success"
        ran = {}
        for dag in dags.values():
            run = dag.test()
            ran |= {ti.task_id: str(ti.state) for ti in run.get_task_instances()}
        return ran

    with metadata_db(tmp_path / "airflow.db", database):
        yield run


@pytest.mark.parametrize("name", DAGS)
def test_a_snippet_of_a_dag_runs(name, run_file, osai, places, tmp_path):
    """To its end, against the sandbox, and each task does what it is there for."""
    how = DAGS[name]
    ran = run_file(dag_file(how, FOUND[name], places | {"folder": str(tmp_path)}), how.first)
    assert ran == dict.fromkeys(ran, "success") | how.states
    assert ran


def test_a_snippet_that_fails_is_noticed(run_file, places):
    """The test above can fail: a name that is not there, and a task that does not succeed."""
    with pytest.raises(AssertionError, match="NameError"):
        run_file(dag_file(AsDag(context=IN_A_DAG + SNIPPET), "missing >> gone\n", places))
    skipped = "from airflow.sdk import task\n\n\n@task.short_circuit\ndef ends():\n    return False\n\n\n"
    skipped += "@task\ndef next():\n    pass\n\n\nends() >> next()\n"
    assert run_file(dag_file(AsDag(context=IN_A_DAG + SNIPPET), skipped, places))["next"] == "skipped"


def test_snippets_of_tests_pass(tmp_path):
    """In one pytest of their own, as users run it."""
    for number, (name, how) in enumerate(TESTS.items()):
        (tmp_path / f"test_{number}.py").write_text(how.before + FOUND[name])
        for file, snippet in how.files.items():
            (tmp_path / file).write_text(FOUND[snippet])
    environment = os.environ | {
        "AIRFLOW_HOME": str(tmp_path / "home"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(tmp_path),
        "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
        "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)]),
    }
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-rs"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    count = sum(len(re.findall(r"^def test_", FOUND[name], re.M)) for name in TESTS)
    assert f"{count} passed" in done.stdout
    assert "skipped" not in done.stdout


def test_a_snippet_with_a_test_of_its_own_is_run_there():
    """The test's module reads it from its page."""
    for name, how in SNIPPETS.items():
        if isinstance(how, ByItsTest):
            assert name.partition("#")[0].rpartition("/")[2] in (ROOT / how.module).read_text()


COMMANDS = sorted(
    {
        line.strip()
        for block in snippets("sh", "bash", "shell", "console").values()
        for line in block.replace("\\\n", " ").splitlines()
        if line.split()[:1] in (["osai-airflow"], ["airflow"], ["pip"])
    }
)


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_is_there_with_its_options(line, logged):
    """Of ours, of Airflow's, and the extras that pip is asked for."""
    command, *words = shlex.split(line.partition("#")[0].rstrip(" &"), comments=True)
    options = [word.partition("=")[0] for word in words if word.startswith("--")]
    if command == "pip":
        known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        assert set(re.findall(r"airflow-provider-osai\[(\w+)\]", line)) <= set(known)
    elif command == "osai-airflow":
        assert words[0] in cli.COMMANDS
        subcommand = words[:2] if words[0] in ("contract", "datasets", "jobs", "models") else words[:1]
        with pytest.raises(SystemExit) as ended:
            cli.main([*subcommand, "--help"])
        assert ended.value.code == 0
        assert set(options) <= set(re.findall(r"--[\w-]+", logged()))
    else:
        from airflow.cli.cli_parser import get_parser

        assert isinstance(get_parser().parse_args(words), argparse.Namespace)


def test_blocks_are_found_however_they_are_written():
    """In a list, with tildes, with a shorter word; and the commands of the README are."""
    text = "# A\n\n- x\n\n  ```py\n  # no heading\n  a = 1\n  ```\n\n## B\n~~~ python\n```\n~~~\n"
    assert list(blocks(text)) == [("A", "py", "# no heading\na = 1\n"), ("B", "python", "```\n")]
    assert {line.split()[0] for line in COMMANDS} == {"airflow", "osai-airflow", "pip"}
