"""Contract documents: JSON and YAML, inline and in files, and the errors of invalid ones."""

from __future__ import annotations

import json
import os

import pytest

from airflow_provider_osai.api.contract import Contract
from airflow_provider_osai.api.contract_document import MAX_BYTES, read_document
from airflow_provider_osai.api.errors import OsaiContractError
from airflow_provider_osai.api.overrides import apply_overrides
from tests.conftest import settings_for

YAML = """\
# what our OSAI calls things
training.submit:
  path: /Models/Train
  request: {datasetIds: datasets}
training.list: null
states:
  Fertig: succeeded
  1: running
"""
CONTENT = {
    "training.submit": {"path": "/Models/Train", "request": {"datasetIds": "datasets"}},
    "training.list": None,
    "states": {"Fertig": "succeeded", "1": "running"},
}


@pytest.mark.parametrize(
    "text", [YAML, json.dumps(CONTENT), json.dumps(CONTENT, indent="\t")], ids=["yaml", "json", "tabs"]
)
@pytest.mark.parametrize("form", ["inline", "file"])
def test_json_and_yaml_are_read_inline_and_from_a_file(tmp_path, text, form):
    path = tmp_path / "osai.yaml"
    path.write_text(text)
    assert read_document(text if form == "inline" else f" {path}\n").content == CONTENT


@pytest.mark.parametrize("empty", [None, {}, "", " \n", "{}", "# nothing"])
def test_an_empty_document_is_the_default_contract(empty):
    assert apply_overrides(Contract(), empty) == Contract()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("training.get:\n  pth: /x\n", r"'training.get': .*pth.*Fix it in line 2 of {path}"),
        ("# a\n\ntrainig.get: null\n", r"did you mean training.get or .*Fix it in line 3 of {path}"),
        ("training.get:\n  path: /x\n  response:\n    result.modelID: m\n", r"modelId. Fix it in line 4 of {path}"),
        ("states:\n  Fertig: done\n", r"states.Fertig.*Fix it in line 2 of {path}"),
        ("a: 1\nb: 2\na: 3\n", "duplicate key 'a' in line 3 of {path}"),
        ('{{"a": 1, "a": 2}}', "duplicate key 'a' in {path}"),
        ('{{"a": 1,\n "b": }}', "not valid JSON.*line 2 of {path}"),
        ("a: [1\nb: 2", "not valid YAML in line 2 of {path}"),
        ("a: &x 1\nb: *x\n", "an alias is not allowed in line 2 of {path}"),
        ("a: !!python/object/apply:os.system [ls]\n", "tag.*is not allowed in line 1 of {path}"),
        ("a: !secret b\n", "tag '!secret' is not allowed"),
        ("? [1, 2]\n: 3\n", "a key is not text in line 1"),
        ("- training.get\n", "must be a JSON object or a YAML mapping"),
        ("just text", "must be a JSON object or a YAML mapping"),
        ("[1]", "must be a JSON object or a YAML mapping"),
        ("{{" * 5000, "not valid JSON|nested too deeply"),
        ("a: " + "[" * 2000 + "]" * 2000, "nested too deeply|cannot be read"),
        ("states:\n  2026-13-45: done\n", r"'states.2026-13-45'.*line 2"),
    ],
)
def test_an_invalid_document_is_an_error_with_its_line(tmp_path, text, message):
    path = tmp_path / "osai.yaml"
    path.write_text(text.replace("{{", "{").replace("}}", "}"))
    with pytest.raises(OsaiContractError, match=message.replace("{path}", str(path))):
        apply_overrides(Contract(), str(path))


def test_a_missing_file_is_named():
    with pytest.raises(OsaiContractError, match="'/no/such/osai.yaml': No such file"):
        read_document("/no/such/osai.yaml")


@pytest.mark.parametrize("kind", ["folder", "pipe", "device", "nul"])
def test_what_is_not_a_file_is_rejected_without_waiting(tmp_path, kind):
    path = {"folder": tmp_path, "pipe": tmp_path / "pipe", "device": "/dev/zero", "nul": "/x\0y"}[kind]
    if kind == "pipe":
        os.mkfifo(path)
    with pytest.raises(OsaiContractError, match="not a file|Is a directory|not a valid path"):
        read_document(str(path))


def test_a_large_or_binary_file_is_rejected(tmp_path):
    (tmp_path / "large").write_bytes(b"#" * (MAX_BYTES + 1))
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(OsaiContractError, match="larger than 1 MiB"):
        read_document(str(tmp_path / "large"))
    with pytest.raises(OsaiContractError, match="not UTF-8"):
        read_document(str(tmp_path / "binary"))


def test_the_content_of_another_file_is_not_quoted(tmp_path):
    """A user who may edit connections could name any file that the worker can read."""
    path = tmp_path / "shadow"
    path.write_text("root:$6$s3cr3t:19000:0:99999:7:::\nuser: s3cr3t\nother: [s3cr3t\n")
    with pytest.raises(OsaiContractError) as caught:
        read_document(str(path))
    assert "s3cr3t" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(("path", "is_ok"), [("/Models/Train", True), ("/api/Models/Train", False), ("/apis", True)])
def test_a_path_that_repeats_the_base_url_is_rejected(path, is_ok):
    contract = {"training.submit": {"path": path}}
    if is_ok:
        assert settings_for("https://osai.example.com/api", contract=contract).contract["training.submit"].path == path
        return
    with pytest.raises(OsaiContractError, match="repeats '/api' of the base URL.*Set it to '/Models/Train'"):
        settings_for("https://osai.example.com/api", contract=contract)
    assert settings_for("https://osai.example.com", contract=contract)
