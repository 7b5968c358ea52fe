"""The sandbox's OpenAPI definition."""

from __future__ import annotations

import re

import httpx
import pytest

from airflow_provider_osai.api.contract import ENDPOINTS, Contract
from airflow_provider_osai.api.overrides import apply_overrides
from airflow_provider_osai.sandbox import Sandbox
from airflow_provider_osai.sandbox.openapi import describe

SERVED = {name: row for name, row in ENDPOINTS.items() if name in Contract() and not name.endswith(".page")}


@pytest.fixture(scope="module")
def document():
    with Sandbox() as sandbox:
        return httpx.get(f"{sandbox.base_url}/openapi.json").json()


def operations(document):
    return {
        operation["operationId"]: (method.upper(), path, operation)
        for path, item in document["paths"].items()
        for method, operation in item.items()
    }


def test_definition_has_the_methods_and_paths_of_the_contract(document):
    """Pages of the portal are not part of the API."""
    addresses = {name: (method, path) for name, (method, path, _) in operations(document).items()}
    assert addresses == {name: (row.method, row.path) for name, row in SERVED.items()}
    assert document["servers"] == [{"url": "/api"}]


def test_definition_is_a_complete_openapi_document(document):
    assert re.fullmatch(r"3\.1\.\d+", document["openapi"])
    assert {"title", "version"} <= set(document["info"])
    for method, path, operation in operations(document).values():
        in_path = [
            parameter["name"]
            for parameter in operation.get("parameters", ())
            if parameter["in"] == "path" and parameter["required"]
        ]
        assert sorted(in_path) == sorted(re.findall(r"{(\w+)}", path))
        assert all(response["description"] for response in operation["responses"].values())
        assert "requestBody" not in operation or method != "GET"
    assert "$ref" not in str(document["paths"])


def test_schemas_are_valid_json_schema(document):
    """OpenAPI 3.1 uses JSON Schema 2020-12."""
    import jsonschema

    for _, _, operation in operations(document).values():
        parts = [operation.get("requestBody", {}), *operation["responses"].values()]
        for content in (content for part in parts for content in part.get("content", {}).values()):
            jsonschema.Draft202012Validator.check_schema(content["schema"])


def test_request_schema_has_required_and_optional_fields(document):
    """Those of the request, and the two that every submission accepts."""
    schema = operations(document)["training.submit"][2]["requestBody"]["content"]["application/json"]["schema"]
    assert schema["required"] == ["datasetIds", "modelName"]
    assert {"reference", "webhookUrl", "modelType", "parameters"} <= set(schema["properties"])


def test_responses_validate_against_the_definition(trained):
    import jsonschema

    by_name = operations(trained.get("/openapi.json").json())
    job_id = trained.training["id"]
    prediction = trained.run("Predictions", modelId=trained.model_id, datasetId=trained.dataset_id)
    paths = {"training.get": f"/Trainings/{job_id}", "prediction.get": f"/Predictions/{prediction['id']}"}
    paths |= {"training.list": "/Trainings", "user.me": "/Users"}
    for name, path in paths.items():
        content = by_name[name][2]["responses"]["200"]["content"]["application/json"]
        jsonschema.validate(trained.ok("GET", path), content["schema"])


def test_renamed_fields_appear_under_their_new_names():
    """Dotted names become nested objects in requests and responses, also for the items of a list."""
    contract = apply_overrides(Contract(), {
        "training.submit": {"request": {"datasetIds": "input.datasets", "webhookUrl": "callbackUrl"}},
        "training.list": {"request": {"ids": "of"}, "response": {"items": "data.rows", "status": "info.word"}},
    })  # fmt: skip
    body = describe(contract["training.submit"])["requestBody"]["content"]["application/json"]["schema"]
    listed = describe(contract["training.list"])
    response = listed["responses"]["200"]["content"]["application/json"]["schema"]
    rows = response["properties"]["data"]["properties"]["rows"]
    assert body["properties"]["input"]["required"] == ["datasets"]
    assert set(body["required"]) == {"input", "modelName"}
    assert "callbackUrl" in body["properties"]
    assert "webhookUrl" not in body["properties"]
    assert {parameter["name"] for parameter in listed["parameters"]} == {"of", "reference"}
    assert rows["items"]["properties"]["info"]["properties"]["word"]["type"] == "string"


def test_definition_describes_the_confusion_matrix_and_the_samples(document):
    content = operations(document)["prediction.get"][2]["responses"]["200"]["content"]["application/json"]
    result = next(each for each in content["schema"]["properties"]["result"]["anyOf"] if "properties" in each)
    matrix = next(each for each in result["properties"]["confusionMatrix"]["anyOf"] if "properties" in each)
    samples = next(each for each in result["properties"]["samples"]["anyOf"] if "items" in each)
    assert matrix["required"] == ["labels", "rows"]
    assert "assumed" in matrix["description"]
    assert matrix["properties"]["labels"]["maxItems"] == 100
    assert set(samples["items"]["properties"]) == {"fileName", "predicted", "confidence", "actual"}


def test_docs_page_is_served(sandbox):
    assert httpx.get(f"{sandbox.base_url}/docs").status_code == 200
