"""The contract beside definitions: the sandbox's own, a renamed one, and what is none."""

from __future__ import annotations

import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_osai.api.contract import Contract
from airflow_provider_osai.api.errors import OsaiContractError
from airflow_provider_osai.api.rebinding import rebind
from airflow_provider_osai.conformance.comparison import Verdict, compare, suggestion
from airflow_provider_osai.conformance.definition import read_definition
from airflow_provider_osai.sandbox.app import create_app
from tests.airflow.test_retraining_dag import renamed

WORDS = [
    "paths",
    "/x",
    "get",
    "post",
    "parameters",
    "name",
    "in",
    "schema",
    "$ref",
    "properties",
    "items",
    "responses",
    "200",
    "content",
    "required",
    "allOf",
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=4),
    max_leaves=25,
)
NO_DEFINITIONS = {
    "empty": b"",
    "html": b"<html>",
    "list": b"[]",
    "object": b"{}",
    "paths": b'{"paths": 5}',
    "no paths": b'{"paths": {}}',
    "no operation": b'{"paths": {"/x": {"get": 5}}}',
    "bytes": b"\xff\xfe",
    "yaml": b"{: :}",
    "deep": b"[" * 100_000,
}


def definition_of(contract: Contract) -> bytes:
    """What a sandbox that speaks *contract* says of itself."""
    app = create_app(contract=contract)
    api = next(route.app for route in app.routes if getattr(route, "path", None) == "/api")
    text = json.dumps(api.openapi()).encode()
    app.state.sandbox.close()
    return text


def verdicts(contract, text):
    return {one.name: one.verdict for one in compare(contract, read_definition(text))}


def test_the_sandbox_says_of_itself_what_the_contract_says():
    """All of it, in JSON as in YAML."""
    text = definition_of(Contract())
    assert set(verdicts(Contract(), text).values()) == {Verdict.MATCHES}
    assert set(verdicts(Contract(), yaml.safe_dump(json.loads(text)).encode()).values()) == {Verdict.MATCHES}


def test_a_renamed_api_is_told_apart_and_matches_with_its_bindings():
    """What is documented has kept its names."""
    bound = rebind(Contract(), renamed())
    text = definition_of(bound)
    found = verdicts(Contract(), text)
    assert {name for name, verdict in found.items() if verdict is Verdict.MATCHES} == {
        row.name for row in Contract().endpoints.values() if row.evidence != "assumed"
    }
    assert set(verdicts(bound, text).values()) == {Verdict.MATCHES}


def test_what_is_suggested_for_a_renamed_api_fits_it():
    """Paths and fields; without it, nothing of what is assumed would work."""
    text = definition_of(rebind(Contract(), renamed()))
    findings = compare(Contract(), read_definition(text))
    after = compare(rebind(Contract(), suggestion(findings)), read_definition(text))
    before = sum(one.verdict in (Verdict.MISSING, Verdict.DIFFERS) for one in findings)
    left = [one.name for one in after if one.verdict in (Verdict.MISSING, Verdict.DIFFERS)]
    assert before >= 30
    assert left == []
    bound = {one.name for one in after if one.verdict is Verdict.MATCHES}
    assert {"training.submit", "training.get", "upload.image", "prediction.submit", "conversion.cancel"} <= bound


def test_each_problem_is_told_in_words():
    """A field that it does not take, one that it insists on, one that its answer lacks."""
    document = json.loads(definition_of(Contract()))
    submit = document["paths"]["/Trainings"]["post"]
    schema = submit["requestBody"]["content"]["application/json"]["schema"]
    del schema["properties"]["modelName"]
    schema["required"] = ["budget"]
    del submit["responses"]["200"]["content"]["application/json"]["schema"]["properties"]["id"]
    (finding,) = [
        one
        for one in compare(Contract(), read_definition(json.dumps(document).encode()))
        if one.name == "training.submit"
    ]
    assert finding.verdict is Verdict.DIFFERS
    assert list(finding.problems) == ["takes no modelName", "needs budget", "answers no id"]


def test_an_operation_that_is_missing_has_candidates():
    """The likeliest first; one that is bound to null is not looked for."""
    document = json.loads(definition_of(Contract()))
    document["paths"]["/Training"] = document["paths"].pop("/Trainings")
    contract = rebind(Contract(), {"training.list": None})
    found = {one.name: one for one in compare(contract, read_definition(json.dumps(document).encode()))}
    assert found["training.submit"].verdict is Verdict.MISSING
    assert found["training.submit"].candidates[0].path == "/api/Training"
    assert found["training.list"].verdict is Verdict.UNBOUND


def test_swagger_2_is_understood():
    """Its base path, body and references."""
    document = {
        "swagger": "2.0",
        "basePath": "/api",
        "paths": {
            "/Categories": {
                "post": {
                    "parameters": [{"in": "body", "name": "body", "schema": {"$ref": "#/definitions/New"}}],
                    "responses": {"200": {"schema": {"$ref": "#/definitions/Made"}}},
                }
            }
        },
        "definitions": {
            "New": {"properties": {"datasetId": {}, "name": {}}, "required": ["name"]},
            "Made": {"properties": {"id": {}, "name": {}}},
        },
    }
    assert verdicts(Contract(), json.dumps(document).encode())["category.create"] is Verdict.MATCHES


@pytest.mark.parametrize("text", NO_DEFINITIONS.values(), ids=NO_DEFINITIONS)
def test_what_is_no_definition_is_refused(text):
    """With a word on what is needed."""
    with pytest.raises(OsaiContractError, match="definition"):
        read_definition(text)


def test_one_that_is_too_large_is_refused():
    """Before it is parsed."""
    with pytest.raises(OsaiContractError, match="larger than 32 MiB"):
        read_definition(b" " * (32 * 2**20 + 1))


def test_one_that_refers_to_itself_comes_to_an_end():
    """A category of categories."""
    schema = {"properties": {"id": {}, "inner": {"$ref": "#/components/schemas/A"}}}
    document = {
        "components": {"schemas": {"A": schema, "B": {"$ref": "#/components/schemas/B"}}},
        "paths": {
            "/x": {"get": {"responses": {"200": {"content": {"a": {"schema": {"$ref": "#/components/schemas/A"}}}}}}},
            "/y": {"get": {"responses": {"200": {"content": {"a": {"schema": {"$ref": "#/components/schemas/B"}}}}}}},
        },
    }
    first, second = read_definition(json.dumps(document).encode())
    assert {"id", "inner.id"} <= first.answers
    assert second.answers is None


@given(JSON)
def test_whatever_it_is_it_is_read_or_refused(document):
    """No other error ever."""
    try:
        operations = read_definition(json.dumps(document).encode())
    except OsaiContractError:
        return
    rebind(Contract(), suggestion(compare(Contract(), operations)))
