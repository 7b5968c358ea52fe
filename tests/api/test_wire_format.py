"""Requests and responses in the form of a contract document, and back, as the client and the sandbox convert them."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from airflow_provider_osai.api.contract import Contract, Endpoint
from airflow_provider_osai.api.errors import OsaiArgumentError
from airflow_provider_osai.api.overrides import apply_overrides
from airflow_provider_osai.api.wire_format import decode_request, decode_response, encode_request, encode_response

OPERATIONS = [{"type": "resize", "width": 64}, {"type": "rotation", "angle": 90}]
MODE = {"name": ["only_new", "wipe"], "values": {"all": "no/no", "replace": "no/yes", "unannotated": "yes/no"}}
FLAGS = {"name": ["new", "wipe"], "values": {"all": "false/false", "replace": "false/true"}}


def endpoint(name: str, **rules) -> Endpoint:
    return apply_overrides(Contract(), {name: rules})[name]


@pytest.mark.parametrize(
    ("operation", "rules", "fields", "body"),
    [
        (
            "manipulation.submit",
            {"request": {"operations": {"name": "@", "keyed_by": "type"}, "datasetId": "source.id"}},
            {"datasetId": "D1", "name": "more", "operations": OPERATIONS},
            {"source": {"id": "D1"}, "name": "more", "resize": {"width": 64}, "rotation": {"angle": 90}},
        ),
        ("prediction.submit", {"request": {"mode": MODE}}, {"mode": "replace"}, {"only_new": "no", "wipe": "yes"}),
        ("prediction.submit", {"request": {"mode": FLAGS}}, {"mode": "all"}, {"new": False, "wipe": False}),
        (
            "device_rental.submit",
            {"request": {"duration": {"match": "{value}s"}}},
            {"duration": "90"},
            {"duration": "90s"},
        ),
        (
            "upload.image",
            {"request": {"annotations": {"name": "meta.boxes", "type": "parsed"}}, "body": {"meta": {}}},
            {"annotations": '[{"x": 1}]'},
            {"meta": {"boxes": [{"x": 1}]}},
        ),
        ("upload.image", {"body": {"meta": {"by": "us"}}}, {}, {"meta": {"by": "us"}}),
        (
            "training.submit",
            {"request": {"datasetIds": "job.datasets[*].id"}},
            {"datasetIds": ["1", "2"]},
            {"job": {"datasets": [{"id": "1"}, {"id": "2"}]}},
        ),
        ("training.submit", {"request": {"framework": {"default": "auto"}}}, {}, {"framework": "auto"}),
    ],
)
def test_request_is_written_and_read_again(operation, rules, fields, body):
    row = endpoint(operation, path="/x", **rules)
    assert encode_request(row, fields, quote).fields == body
    assert decode_request(row, {}, {}, {}, body) == (fields, set())


def test_placeholder_without_a_value_has_its_default():
    row = endpoint("model.download", path="/models/{id}/files/{target}", request={"target": {"default": "original"}})
    assert encode_request(row, {"id": "7", "target": None}, quote).path == "/models/7/files/original"
    assert decode_request(row, {"id": "7", "target": "original"}, {}, {}, None) == ({"id": "7"}, set())
    assert decode_request(row, {"id": "7", "target": "onnx"}, {}, {}, None) == ({"id": "7", "target": "onnx"}, set())


def test_value_with_another_number_of_parts_is_not_sent():
    row = endpoint("prediction.submit", request={"mode": {"name": ["a", "b"], "values": {"all": "no"}}})
    with pytest.raises(OsaiArgumentError, match="has 1 parts, and the contract sends 2"):
        encode_request(row, {"mode": "all"}, quote)


def test_field_of_the_response_may_be_that_of_the_request():
    row = endpoint("training.get", answer="text", response={"id": None, "status": "@", "result.modelId": "$id"})
    assert decode_response(row, "Done", {}, {"id": "7"}) == {"id": "7", "status": "Done", "result": {"modelId": "7"}}


def test_list_may_be_an_object_keyed_by_a_field():
    row = endpoint("category.list", response={"items": {"name": "categories", "keyed_by": "name"}})
    items = [{"name": "cat", "id": 5}, {"name": "dog", "id": 6}]
    document = {"categories": {"cat": {"id": 5}, "dog": {"id": 6}}}
    assert decode_response(row, document, {}, {}) == items
    assert encode_response(row, items).document == document


def test_default_in_a_response_counts_as_none():
    row = endpoint("training.get", response={"result.modelId": {"name": "modelRef", "default": 0}})
    done = {"id": "7", "status": "succeeded", "result": {"modelId": "3"}}
    for ours, theirs in ((done, "3"), ({"id": "7", "status": "running"}, 0)):
        document = {"id": "7", "status": ours["status"], "modelRef": theirs}
        assert encode_response(row, ours).document == document
        assert decode_response(row, document, {}, {"id": "7"}) == ours


def test_answer_of_text_is_the_bare_field():
    made = endpoint("training.submit", answer="text")
    assert encode_response(made, {"id": "7", "status": "queued"}).document == "7"
    got = endpoint("training.get", answer="text", response={"id": None, "status": "@"})
    assert encode_response(got, {"id": "7", "status": "queued"}).document == "queued"


def test_key_of_another_field_is_not_read_as_ours():
    row = endpoint("upload.image", path="/x", request={"categoryId": {"name": "category", "type": "number"}})
    assert decode_request(row, {}, {}, {}, {"category": 12}) == ({"categoryId": "12"}, set())
