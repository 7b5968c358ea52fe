"""The documentation site: built strictly, and nothing that is public is missing from it."""

from __future__ import annotations

import ast
import inspect
import json
import re
import tomllib
from importlib import import_module
from pathlib import Path
from typing import get_type_hints

import pytest
from airflow.configuration import conf

from airflow_provider_osai.api import errors
from airflow_provider_osai.api.calls import OsaiApi
from airflow_provider_osai.api.contract import ENDPOINTS
from airflow_provider_osai.api.models import JobReferences
from airflow_provider_osai.api.settings import EXTRAS
from airflow_provider_osai.data.datasets import DeletedDataset, EnsuredDataset
from airflow_provider_osai.data.quality import QualityOptions, QualitySummary
from airflow_provider_osai.data.quality.rules import RULES
from airflow_provider_osai.downloads.download import DownloadedModel
from airflow_provider_osai.get_provider_info import get_provider_info
from airflow_provider_osai.hooks.osai import OsaiHook
from airflow_provider_osai.operators.device import ReleasedDevices
from airflow_provider_osai.operators.gate import GateResult, OsaiModelGateOperator
from airflow_provider_osai.operators.prediction import OsaiPredictOperator
from airflow_provider_osai.operators.training import OsaiTrainModelOperator
from airflow_provider_osai.operators.upload import OsaiUploadImagesOperator
from airflow_provider_osai.promotion.rule import Guardrail, PromotionPolicy
from airflow_provider_osai.uploads.progress import UploadSummary
from tests.conftest import ROOT
from tests.dags import parse
from tests.site import build_site

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
    build_site(folder)
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
        ("data-quality.md", QualitySummary),
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


@pytest.mark.parametrize(
    ("operator", "result"),
    [
        ("OsaiCreateDatasetOperator", EnsuredDataset),
        ("OsaiUploadImagesOperator", UploadSummary),
        ("OsaiDeleteDatasetOperator", DeletedDataset),
        ("OsaiModelGateOperator", GateResult),
        ("OsaiDownloadModelOperator", DownloadedModel),
        ("OsaiReleaseDeviceOperator", ReleasedDevices),
    ],
)
def test_the_operators_page_lists_the_returned_keys_of_each_operator(operator, result):
    cell = re.search(rf"^\| `{operator}` \| .* \| (.*) \|$", OPERATORS_PAGE, re.MULTILINE)[1]
    assert set(re.findall(r"`(\w+)`", cell)) - {"validate"} == set(get_type_hints(result))


@pytest.mark.parametrize(
    ("page", "operator"),
    [
        ("uploads", OsaiUploadImagesOperator),
        ("training", OsaiTrainModelOperator),
        ("predict", OsaiPredictOperator),
        ("gate", OsaiModelGateOperator),
    ],
    ids=["uploads", "training", "predict", "gate"],
)
def test_each_argument_is_in_the_table_of_its_page(page, operator):
    """With its default, where the table gives a value."""
    text = (ROOT / f"docs/{page}.md").read_text()
    table = re.search(r"\| argument \| meaning \| default \|\n(.*?)\n\n", text, re.DOTALL)[1]
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|.*\| (.*?) ?\|$", table, re.MULTILINE)
    defaults = {name: default for names, default in rows for name in re.findall(r"\w+", names)}
    for name, parameter in inspect.signature(operator.__init__).parameters.items():
        if name in ("self", "kwargs"):
            continue
        assert name in defaults
        given = defaults[name].strip("`")
        if parameter.default is inspect.Parameter.empty:
            assert given == ""
        elif parameter.default is not None and given:
            assert given == str(parameter.default)


def test_the_gate_takes_each_form_of_a_guardrail_on_its_page_with_the_keys_and_defaults_there():
    page = (ROOT / "docs/gate.md").read_text().partition("### Guardrails\n")[2].partition("\n## ")[0]
    forms, keys = page.split("| key of a guardrail |")
    documented = [ast.literal_eval(form) for form in re.findall(r"`([\"\[{].*?)`", forms)]
    guardrails = [PromotionPolicy(guardrail_metrics=form).guardrail_metrics for form in documented]
    strict = Guardrail()
    assert guardrails == [
        {"f1": strict},
        {"f1": strict, "recall": strict},
        {"f1": Guardrail(max_drop=0.01)},
        {"loss": Guardrail(higher_is_better=False, max_drop=0.1, threshold=0.5)},
    ]
    defaults = dict(re.findall(r"^\| `(\w+)` \| .* \| `?([\w.]+)`?[^|]* \|$", keys, re.MULTILINE))
    assert defaults == {name: str(field.default) for name, field in Guardrail.model_fields.items()}


def test_getting_started_installs_the_version_of_the_install_page():
    versions = [
        re.search(r"VERSION=(\S+)\n", (ROOT / f"docs/{page}.md").read_text())[1]
        for page in ("install", "getting-started")
    ]
    assert versions[0] == versions[1]


def test_each_finding_and_threshold_of_the_data_quality_check_is_in_a_table_of_its_page():
    """With its severity or its default."""
    page = (ROOT / "docs/data-quality.md").read_text()
    documented = re.findall(r"^\| `([a-z-]+)` \| (error|warning) \|", page, re.MULTILINE)
    assert documented == [(code, rule.severity.value) for code, rule in RULES.items()]
    defaults = dict(re.findall(r"^\| `(\w+)` \| `--[\w-]+`[^|]* \| ([^|]+) \|", page, re.MULTILINE))
    assert set(defaults) == set(QualityOptions.model_fields)
    for name, field in QualityOptions.model_fields.items():
        if isinstance(field.default, int | float) and not isinstance(field.default, bool):
            assert float(defaults[name].replace(",", "")) == field.default, name


def test_each_request_of_the_clients_is_in_the_table_of_the_hooks_page():
    table = (ROOT / "docs/reference/assets-hook.md").read_text()
    documented = dict(re.findall(r"^\| `(\w+)\(.*\| (yes|no) \|$", table, re.MULTILINE))
    verbs = {name for name in vars(OsaiApi) if not name.startswith("_")}
    assert documented == {name: "yes" if hasattr(OsaiHook, name) else "no" for name in verbs}


SOURCES = {path: path.read_text() for path in sorted((ROOT / "airflow_provider_osai").rglob("*.py"))}
TROUBLESHOOTING = (ROOT / "docs/troubleshooting.md").read_text()
CONFIGURATION = (ROOT / "docs/reference/configuration.md").read_text()
FAILURES = (ROOT / "docs/failures.md").read_text()
VALUES = {"VARIABLE": "osai_deployment_secret"}
"""Constants of messages that users see as a value."""


def text_of(node: ast.AST) -> str:
    """The text of a string in the code, with ``~`` in place of what differs from time to time."""
    if isinstance(node, ast.JoinedStr):
        return "".join(map(text_of, node.values))
    if isinstance(node, ast.FormattedValue):
        return VALUES.get(ast.unparse(node.value), "~")
    return re.sub(r"%[\d.]*[srdf]", "~", node.value) if isinstance(getattr(node, "value", None), str) else ""


def test_each_message_of_the_troubleshooting_page_is_one_of_the_package():
    """Word for word, but for the values that ``...`` stands for."""
    nodes = [node for source in SOURCES.values() for node in ast.walk(ast.parse(source))]
    known = "\n".join(text_of(node) for node in nodes if isinstance(node, (ast.JoinedStr, ast.Constant)))
    tables = TROUBLESHOOTING.partition("## Rejected token")[2].partition("\n## Errors")[0]
    rows = re.findall(r"^\| (.*?) \| ", tables, re.MULTILINE)
    messages = [message for row in rows for message in re.findall(r"`([^`]+)`", row) if " " in message]
    assert len(messages) > 60
    parts = [(message, part.strip()) for message in messages for part in message.split("...")]
    assert [message for message, part in parts if len(part) > 3 and part not in known] == []


def test_each_error_is_in_the_table_of_errors_of_the_troubleshooting_page():
    raised = set(errors.__all__) - {"OsaiError", "OsaiJobError"}
    table = TROUBLESHOOTING.partition("\n## Errors\n")[2]
    documented = {name for row in re.findall(r"^\| (`Osai.*?) \|", table, re.MULTILINE) for name in row.split(", ")}
    assert {name.strip("`") for name in documented} == raised


def test_all_configuration_is_on_its_page():
    """Connection extras, options, variables, and XComs and state that the code names."""
    options = [name for section in INFO["config"].values() for name in section["options"]]
    code = "\n".join(SOURCES.values())
    keys = re.findall(r'^[A-Z_]+(?:: Final)? = "(osai_(?!conn_id)\w+|mlflow_run_id)"$', code, re.MULTILINE)
    environment = re.findall(r'environ\.get\("((?!COMP_)[A-Z_]+)"', code) + re.findall(r'= "(OSAI_[A-Z_]+)"', code)
    assert {"osai_job", "osai_progress", "osai_deployment_secret"} <= set(keys)
    assert {"OSAI_SANDBOX_TOKEN", "MLFLOW_EXPERIMENT_ID"} <= set(environment)
    assert sorted(name for name in {*EXTRAS, *options, *keys, *environment} if f"`{name}" not in CONFIGURATION) == []
    assert [name for name in options if f"`AIRFLOW__OSAI__{name.upper()}`" not in CONFIGURATION] == []


def test_each_extra_of_the_package_is_in_the_table_of_the_configuration_page():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    table = CONFIGURATION.partition("## Extras of the package\n")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == set(extras)


def test_each_environment_variable_of_the_command_line_page_is_on_the_configuration_page():
    page = (ROOT / "docs/reference/cli.md").read_text().partition("## Commands and options")[0]
    named = set(re.findall(r"`([A-Z]+_[A-Z_]+)(?:=\w+)?`", page))
    assert {"NO_COLOR", "OSAI_AIRFLOW_TRACEBACK"} <= named
    assert sorted(name for name in named if f"`{name}`" not in CONFIGURATION) == []


def test_options_of_airflow_on_the_configuration_page_have_the_defaults_that_it_shows():
    """On the Airflow of these tests; some are new in 3.3."""
    rows = re.findall(r"^\| `\[(\w+)\] (\w+)` \| .* \| (.*) \|$", CONFIGURATION, re.MULTILINE)
    shown = {row[:2]: row[2].strip("`").lower() for row in rows}
    assert len(shown) > 8
    known = {row: conf.get_default_value(*row) for row in shown}
    defaults = {row: str(value).lower() for row, value in known.items() if value is not None and shown[row]}
    assert {row: shown[row] for row in defaults} == defaults
    assert {row for row, value in known.items() if value is None} <= {
        ("core", "fernet_key"),
        ("state_store", "default_retention_days"),
        ("triggerer", "on_kill_timeout"),
    }


def test_each_failure_names_a_test_or_scenario_that_exists():
    """In its last column: a test module, or a matrix and its scenarios."""
    modules = {path.stem for path in (ROOT / "tests").rglob("test_*.py")}
    rows = [re.split(r" *\| *", row)[1:-1] for row in re.findall(r"^\| .* \|$", FAILURES, re.MULTILINE)]
    cells = [row[-1] for row in rows if row[-1] not in ("tested in", "the same", "not as a whole")]
    assert len(cells) > 25
    for cell in cells:
        named = re.findall(r"`(\w+?)(?:\.py)?`((?:,? [a-z-]+)*)", cell)
        assert named, cell
        for name, scenarios in named:
            source = "" if name.startswith("test_") else (ROOT / "tests/chaos" / f"{name}.py").read_text()
            assert name in modules or source, cell
            for scenario in re.findall(r"[a-z-]+", scenarios):
                assert f"def {scenario.replace('-', '_')}(" in source, cell


@pytest.mark.parametrize("page", ["connection.md", "getting-started.md"])
def test_each_way_to_store_a_connection_is_understood_by_airflow(page, monkeypatch):
    """JSON, URI and the file to import: a token and valid settings."""
    text = (ROOT / "docs" / page).read_text()
    stored = re.findall(r"AIRFLOW_CONN_OSAI_DEFAULT='(.*?)'", text, re.DOTALL)
    files = [json.loads(each) for each in re.findall(r"```json\n(.*?)```", text, re.DOTALL) if '"checks"' not in each]
    for value in stored + [json.dumps(each["osai_default"]) for each in files]:
        token = "a%2Ftoken" if value.startswith("osai:") else "a/token"
        monkeypatch.setenv("AIRFLOW_CONN_OSAI_DEFAULT", value.replace("<access token>", token))
        settings = OsaiHook().settings()
        assert settings.access_token.get_secret_value() in ("a/token", "try-it")
        assert settings.region == "eu" or settings.base_url == "http://127.0.0.1:8099/api"
    assert len(stored) == 2


def test_each_page_that_code_and_contributors_name_exists():
    """In docstrings, errors, logs and example Dags."""
    names = ("CONTRIBUTING.md", "CHANGELOG.md", "pyproject.toml")
    texts = [*SOURCES.values(), *(path.read_text() for path in (ROOT / "example_dags").glob("*.py"))]
    texts += [(ROOT / name).read_text() for name in names]
    named = {name for text in texts for name in re.findall(r"\bdocs/[\w/-]+\.md", text)}
    assert len(named) > 15
    assert sorted(name for name in named if not (ROOT / name).is_file()) == []


def test_each_page_is_in_the_navigation():
    nav = (ROOT / "mkdocs.yml").read_text().partition("nav:")[2]
    pages = [path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")]
    assert [page for page in pages if not re.search(rf"^ +- (?:\w+: )?{re.escape(page)}$", nav, re.MULTILINE)] == []
