"""Evidence: what a file may hold, and what is kept out of it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from airflow_provider_osai.api.errors import OsaiArgumentError
from airflow_provider_osai.api.evidence import (
    Evidence,
    OperationEvidence,
    Problem,
    field_types,
    read_evidence,
    safe_word,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=20), inner, max_size=4),
    max_leaves=20,
)


def written(tmp_path, text):
    file = tmp_path / "evidence.json"
    file.write_text(text)
    return file


def test_a_file_is_read_as_it_was_written(tmp_path):
    seen = OperationEvidence(
        method="GET",
        path="/Trainings/{id}",
        responses=2,
        codes={200: 2},
        fields={"id": ("string",), "result.metrics.*": ("number", "null")},
        words={"Ausgeführt": 1},
        problems=(Problem(kind="word", field="status", seen="Ausgeführt"),),
    )
    evidence = Evidence(operations={"training.get": seen})
    assert read_evidence(written(tmp_path, evidence.to_json())) == evidence
    document = json.loads(evidence.to_json())
    assert (document["format"], document["version"]) == ("osai-evidence", 1)
    assert document["operations"]["training.get"]["codes"] == {"200": 2}


@pytest.mark.parametrize(
    "change",
    [
        {"fields": {"id": ["secret"]}},
        {"fields": {"name with spaces": ["string"]}},
        {"words": {"anna@example.com": 1}},
        {"words": {"a" * 41: 1}},
        {"words": {"running\n": 1}},
        {"codes": {"99": 1}},
        {"problems": [{"kind": "odd"}]},
        {"problems": [{"kind": "type", "seen": "<script>"}]},
        {"method": "TRACE"},
        {"path": "https://example.com/x"},
        {"value": "x"},
    ],
    ids=str,
)
def test_anything_else_is_refused_both_ways(change, tmp_path):
    operation = {"method": "GET", "path": "/x", **change}
    with pytest.raises(ValidationError):
        OperationEvidence.model_validate(operation)
    document = {"format": "osai-evidence", "version": 1, "operations": {"training.get": operation}}
    with pytest.raises(OsaiArgumentError, match="is not a file of evidence"):
        read_evidence(written(tmp_path, json.dumps(document)))


@pytest.mark.parametrize("text", ["", "[]", "{", '{"format": "har"}', '{"format": "osai-evidence", "version": 2}'])
def test_a_file_of_another_kind_is_refused(text, tmp_path):
    with pytest.raises(OsaiArgumentError, match="is not a file of evidence, version 1"):
        read_evidence(written(tmp_path, text))


def test_a_missing_or_huge_file_is_refused(tmp_path):
    with pytest.raises(OsaiArgumentError, match="No such file"):
        read_evidence(tmp_path / "none.json")
    with pytest.raises(OsaiArgumentError, match="longer than 4 MiB"):
        read_evidence(written(tmp_path, " " * (4 * 2**20 + 1)))


@pytest.mark.parametrize(
    ("document", "fields"),
    [
        ({"id": 1, "name": None}, {"@", "id", "name"}),
        ([{"id": 1}, {"id": "x"}], {"@", "[]", "[].id"}),
        ({"items": [{"a": [1]}]}, {"@", "items", "items[]", "items[].a", "items[].a[]"}),
        ({"anna@example.com": 1}, {"@", "*"}),
        ({"7f3a9c1122": {"id": 1}, "id": 2}, {"@", "*", "*.id", "id"}),
        ({"anna": {"id": 1}, "bob": {"id": 2}}, {"@", "*", "*.id"}),
        ({"scratch": 12, "dent": 3}, {"@", "*"}),
        ({"loss": 0.1, "accuracy": 0.9}, {"@", "loss", "accuracy"}),
        ({f"name{n}": "x" for n in range(100)}, {"@", "*"}),
        ("running", {"@"}),
    ],
    ids=lambda value: None if isinstance(value, set) else str(value)[:60],
)
def test_names_that_may_be_values_are_not_kept(document, fields):
    assert set(field_types(document)) == fields


def test_keys_that_the_contract_says_are_values_are_not_kept():
    assert set(field_types({"labels": {"scratch": {"id": 1}}}, keyed={"labels"})) == {
        *("@", "labels", "labels.*", "labels.*.id"),
    }
    assert "m.*.*" in field_types({"m": {"scratch": {"dent": 1}}}, free={"m"})
    assert "*.id" in field_types({"scratch": {"id": 1}}, is_list=True)
    assert "p.done" in field_types({"p": {"done": 1, "of": 2}}, known={"done"})


@given(JSON)
def test_the_fields_of_any_document_are_accepted(document):
    fields = {path: tuple(sorted(types)) for path, types in field_types(document).items()}
    assert OperationEvidence(method="GET", path="/x", fields=fields).fields == fields


@given(st.text(max_size=50))
def test_a_word_that_is_safe_is_accepted(text):
    if (word := safe_word(text)) is not None:
        assert OperationEvidence(method="GET", path="/x", words={word: 1}).words == {text: 1}


@pytest.mark.parametrize(("word", "shown"), [("In Progress", "In Progress"), (3, "3"), (True, "true"), ("a/b", None)])
def test_words(word, shown):
    assert safe_word(word) == shown
