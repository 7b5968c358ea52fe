"""The JSON Schema of contract documents and the reference page: true for each example and the gallery."""

from __future__ import annotations

import json
import re

import jsonschema
import pytest
import yaml

from airflow_provider_osai import cli
from airflow_provider_osai.api.contract import Contract
from airflow_provider_osai.api.overrides import apply_overrides
from airflow_provider_osai.cli.contract_schema import EXAMPLES, TABLES, json_schema
from tests.conftest import ROOT

VALIDATOR = jsonschema.Draft202012Validator(json_schema())
DOCUMENTS = sorted((ROOT / "tests/gallery").rglob("*.yaml"))


def as_json(text):
    """Return a YAML document as an editor sees it: with text as keys."""
    return json.loads(json.dumps(yaml.safe_load(text)))


def test_every_rule_has_an_example():
    rules = {
        f"{model.__name__}.{field.alias or name}" for model in TABLES for name, field in model.model_fields.items()
    }
    assert rules == EXAMPLES.keys()


@pytest.mark.parametrize("rule", EXAMPLES)
def test_an_example_is_a_document(rule):
    apply_overrides(Contract(), EXAMPLES[rule])
    VALIDATOR.validate(as_json(EXAMPLES[rule]))


@pytest.mark.parametrize("page", ["contract.md", "connection.md"])
def test_the_documents_of_the_docs_are_documents(page):
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL)
    assert blocks
    for block in blocks:
        VALIDATOR.validate(as_json(block))
        apply_overrides(Contract(), block)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.stem)
def test_a_document_of_the_gallery_fits_the_schema_and_has_at_most_60_lines(path):
    text = path.read_text()
    VALIDATOR.validate(as_json(text))
    apply_overrides(Contract(), text)
    assert len(text.splitlines()) <= 60


@pytest.mark.parametrize(
    "text", ["training.gt: {}", "training.get: {pth: /x}", "states: {x: done}", "training.get: {pages: {pag: p}}"]
)
def test_a_wrong_document_does_not_fit(text):
    assert not VALIDATOR.is_valid(as_json(text))


def test_the_schema_is_printed(capfd):
    assert cli.main(["contract", "schema"]) == 0
    text = capfd.readouterr().out
    jsonschema.Draft202012Validator.check_schema(json.loads(text[text.index("{") :]))  # Airflow may log before it


def test_the_effective_table_shows_what_a_document_changes(tmp_path, capfd):
    file = tmp_path / "osai.yaml"
    file.write_text(
        "training.get: {path: /x/{id}, response: {status: state}}\ntraining.cancel: null\n".replace(
            "/x/{id}", "'/x/{id}'"
        )
    )
    assert cli.main(["contract", "show", "--effective", "--contract", str(file)]) == 0
    lines = {line.split()[0]: line for line in capfd.readouterr().out.splitlines()}
    assert "/x/{id}" in lines["training.get"]
    assert lines["training.get"].endswith("response: status")
    assert lines["training.cancel"].endswith("the API does not have it")


def test_a_wrong_document_is_refused_with_its_line(tmp_path, capfd):
    file = tmp_path / "osai.yaml"
    file.write_text("training.get:\n  pth: /x\n")
    assert cli.main(["contract", "show", "--contract", str(file)]) == 2
    assert f"line 2 of {file}" in capfd.readouterr().err
