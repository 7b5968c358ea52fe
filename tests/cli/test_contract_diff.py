"""Compare the contract with API definitions: the sandbox's own, a renamed one, and malformed ones."""

from __future__ import annotations

import json
import re

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_osai.api.contract import ENDPOINTS, Contract
from airflow_provider_osai.api.errors import OsaiContractError
from airflow_provider_osai.api.overrides import apply_overrides
from airflow_provider_osai.learning.api_definition import parse_definition
from airflow_provider_osai.learning.definition_diff import MatchStatus, compare, suggest_overrides
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
NOT_DEFINITIONS = {
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
    """Return the OpenAPI document of a sandbox with *contract*."""
    app = create_app(contract=contract)
    api = next(route.app for route in app.routes if getattr(route, "path", None) == "/api")
    text = json.dumps(api.openapi()).encode()
    app.state.sandbox.close()
    return text


def statuses(contract, text):
    findings = compare(contract, parse_definition(text))
    return {finding.name: finding.status for finding in findings if finding.name in contract}


def test_sandbox_definition_matches_the_contract_in_json_and_yaml():
    text = definition_of(Contract())
    assert set(statuses(Contract(), text).values()) == {MatchStatus.MATCHES}
    assert set(statuses(Contract(), yaml.safe_dump(json.loads(text)).encode()).values()) == {MatchStatus.MATCHES}


def test_renamed_api_differs_until_it_is_overridden():
    """Only assumed endpoints are renamed, so the documented ones match without overrides."""
    overridden = apply_overrides(Contract(), renamed())
    text = definition_of(overridden)
    matching = {name for name, status in statuses(Contract(), text).items() if status is MatchStatus.MATCHES}
    assert matching == {row.name for row in ENDPOINTS.values() if row.evidence != "assumed"}
    assert set(statuses(overridden, text).values()) == {MatchStatus.MATCHES}


def test_suggested_overrides_match_a_renamed_api():
    """Paths and fields; without the overrides, no assumed endpoint would work."""
    text = definition_of(apply_overrides(Contract(), renamed()))
    findings = compare(Contract(), parse_definition(text))
    after = compare(apply_overrides(Contract(), suggest_overrides(findings)), parse_definition(text))
    before = sum(finding.status in (MatchStatus.MISSING, MatchStatus.DIFFERS) for finding in findings)
    remaining = [finding.name for finding in after if finding.status in (MatchStatus.MISSING, MatchStatus.DIFFERS)]
    assert before >= 30
    assert remaining == []
    matching = {finding.name for finding in after if finding.status is MatchStatus.MATCHES}
    assert {"training.submit", "training.get", "upload.image", "prediction.submit", "conversion.cancel"} <= matching


def test_finding_lists_unknown_required_and_missing_fields():
    document = json.loads(definition_of(Contract()))
    submit = document["paths"]["/Trainings"]["post"]
    schema = submit["requestBody"]["content"]["application/json"]["schema"]
    del schema["properties"]["modelName"]
    schema["required"] = ["budget"]
    del submit["responses"]["200"]["content"]["application/json"]["schema"]["properties"]["id"]
    findings = compare(Contract(), parse_definition(json.dumps(document).encode()))
    finding = next(finding for finding in findings if finding.name == "training.submit")
    assert finding.status is MatchStatus.DIFFERS
    assert list(finding.problems) == ["does not accept modelName", "requires budget", "does not return id"]


def test_fields_that_the_contract_does_not_send_are_not_compared():
    contract = apply_overrides(Contract(), {"training.submit": {"request": {"reference": None}}})
    document = json.loads(definition_of(contract))
    findings = {one.name: one for one in compare(contract, parse_definition(json.dumps(document).encode()))}
    assert findings["training.submit"].problems == ()


def test_missing_operation_has_candidates_unless_it_is_null():
    document = json.loads(definition_of(Contract()))
    document["paths"]["/Training"] = document["paths"].pop("/Trainings")
    contract = apply_overrides(Contract(), {"training.list": None})
    findings = {one.name: one for one in compare(contract, parse_definition(json.dumps(document).encode()))}
    assert findings["training.submit"].status is MatchStatus.MISSING
    assert findings["training.submit"].candidates[0].path == "/api/Training"
    assert findings["training.list"].status is MatchStatus.UNBOUND


def test_swagger_2_base_path_body_and_references_are_parsed():
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
    assert statuses(Contract(), json.dumps(document).encode())["category.create"] is MatchStatus.MATCHES


@pytest.mark.parametrize("text", NOT_DEFINITIONS.values(), ids=NOT_DEFINITIONS)
def test_invalid_definition_raises(text):
    with pytest.raises(OsaiContractError, match="API definition"):
        parse_definition(text)


@pytest.mark.parametrize("path", ["get", "https://osai.example/Users", "/Users?me=1", "/a b", ""])
def test_path_that_no_request_can_have_is_named(path):
    definition = {"openapi": "3.0.0", "paths": {path: {"get": {"responses": {}}}}}
    with pytest.raises(OsaiContractError, match=re.escape(f"Invalid path {path!r}")):
        parse_definition(json.dumps(definition).encode())


def test_extension_among_the_paths_is_ignored():
    definition = {"paths": {"x-internal": {"get": {}}, "/Users": {"get": {"responses": {}}}}}
    assert [one.path for one in parse_definition(json.dumps(definition).encode())] == ["/Users"]


def test_oversized_definition_raises_before_it_is_parsed():
    with pytest.raises(OsaiContractError, match="larger than 32 MiB"):
        parse_definition(b" " * (32 * 2**20 + 1))


def test_recursive_schema_terminates():
    schema = {"properties": {"id": {}, "inner": {"$ref": "#/components/schemas/A"}}}
    document = {
        "components": {"schemas": {"A": schema, "B": {"$ref": "#/components/schemas/B"}}},
        "paths": {
            "/x": {"get": {"responses": {"200": {"content": {"a": {"schema": {"$ref": "#/components/schemas/A"}}}}}}},
            "/y": {"get": {"responses": {"200": {"content": {"a": {"schema": {"$ref": "#/components/schemas/B"}}}}}}},
        },
    }
    first, second = parse_definition(json.dumps(document).encode())
    assert {"id", "inner.id"} <= first.returns
    assert second.returns is None


@given(JSON)
def test_any_json_is_parsed_or_raises_a_contract_error(document):
    try:
        operations = parse_definition(json.dumps(document).encode())
    except OsaiContractError:
        return
    apply_overrides(Contract(), suggest_overrides(compare(Contract(), operations)))


def definition(path, method, response, *, parameters=()):
    """Return a definition with one operation."""
    content = {"content": {"application/json": {"schema": response}}}
    operation = {"parameters": list(parameters), "responses": {"200": content}}
    return json.dumps({"openapi": "3.0.0", "paths": {path: {method: operation}}}).encode()


def obj(**properties):
    return {"type": "object", "properties": properties}


JOB = obj(id={}, status={}, datasetId={}, progress={})


def test_an_enveloped_response_differs_until_the_contract_has_the_envelope():
    text = definition("/api/Trainings/{id}", "get", obj(data=JOB, success={}))
    finding = next(one for one in compare(Contract(), parse_definition(text)) if one.name == "training.get")
    assert finding.status is MatchStatus.DIFFERS
    assert list(finding.problems) == ["returns id below 'data' (envelope of the contract)"]
    contract = apply_overrides(Contract(), {"training.get": {"envelope": "data"}})
    assert statuses(contract, text)["training.get"] is MatchStatus.MATCHES


def test_a_paged_list_is_suggested_with_the_place_of_its_items():
    text = definition("/api/Trainings", "get", obj(results={"type": "array", "items": JOB}, total={}))
    suggested = suggest_overrides(compare(Contract(), parse_definition(text)))["training.list"]
    assert suggested["response"] == {"items": "results"}
    overridden = apply_overrides(Contract(), {"training.list": suggested})["training.list"]
    assert overridden.read({"results": [{"id": 7, "status": "x"}], "total": 1})[0]["id"] == 7


def test_the_id_of_another_thing_is_not_suggested_as_the_jobs_id():
    text = definition("/api/Trainings/{id}", "get", obj(datasetId={}, modelId={}, status={}))
    suggested = suggest_overrides(compare(Contract(), parse_definition(text))).get("training.get", {})
    assert "id" not in suggested.get("response", {})


def test_no_row_is_suggested_for_an_operation_that_has_nothing_in_common():
    text = definition("/api/Invoices", "get", obj(items={"type": "array", "items": obj(id={}, amount={})}))
    suggested = suggest_overrides(compare(Contract(), parse_definition(text)))
    assert not any(suggested.values()), suggested
