"""What a sandbox with a random contract document writes, the client reads back; and the reverse, for every field."""

from __future__ import annotations

import json

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_osai.api.contract import ENDPOINTS, Contract
from airflow_provider_osai.api.joined_ids import join_parts, split_parts
from airflow_provider_osai.api.overrides import apply_overrides
from airflow_provider_osai.api.wire_format import decode_request, encode_response

PLACES = ("{0}", "wrap.{0}", "deep.er.{0}", "list_{0}[0]", "list_{0}[1].inner", '"dotted.{0}"')
OPERATIONS = [
    name for name, row in ENDPOINTS.items() if name != "auth.sign_in" and not name.endswith((".page", ".download"))
]
TIMES = ("2026-01-31T12:00:00.000Z", "1999-12-31T23:59:59.000Z", "2038-01-19T03:14:08.000Z")
IDS = st.integers(1, 10**9).map(str)
WORDS = st.text("abcXYZ ü-_0", min_size=1, max_size=12).filter(str.strip)
FRACTIONS = st.integers(0, 1000).map(lambda number: number / 1000)

RESPONSES = {
    "id": IDS,
    "status": WORDS,
    "progress": FRACTIONS,
    "createdAt": st.sampled_from(TIMES),
    "message": WORDS,
    "reference": WORDS,
    "result": st.fixed_dictionaries(
        {
            "modelId": IDS,
            "metrics": st.dictionaries(st.sampled_from(["accuracy", "f1", "loss"]), FRACTIONS, min_size=1),
            "confusionMatrix": st.just({"labels": ["a", "b"], "rows": [[3, 1], [0, 4]]}),
            "samples": st.lists(
                st.fixed_dictionaries({"fileName": WORDS, "predicted": WORDS, "confidence": FRACTIONS}),
                min_size=1,
            ),
        }
    ),
    "history": st.lists(
        st.fixed_dictionaries({"epoch": st.integers(1, 99), "valLoss": FRACTIONS, "valAccuracy": FRACTIONS}), min_size=1
    ),
    "name": WORDS,
    "locked": st.booleans(),
    "imageCount": st.integers(0, 10**6),
    "datasetId": IDS,
    "categoryId": IDS,
    "fileName": WORDS,
}
REQUESTS = {
    "datasetIds": st.lists(IDS, min_size=1, max_size=1),
    "modelName": WORDS,
    "modelType": st.sampled_from(["classification", "detection"]),
    "parameters": st.dictionaries(st.sampled_from(["epochs", "seed"]), st.integers(1, 9), min_size=1),
    "reference": st.text("abc0-:/", min_size=1, max_size=20),
    "webhookUrl": st.just("http://127.0.0.1/x?y=z"),
    "modelId": IDS,
    "datasetId": IDS,
    "minConfidence": FRACTIONS,
    "mode": st.sampled_from(["all", "replace", "unannotated"]),
    "duration": st.integers(1, 10**6),
    "device": WORDS,
    "target": WORDS,
    "name": WORDS,
    "operations": st.lists(
        st.sampled_from([{"type": "rotation", "angle": 5.0}, {"type": "resize", "width": 8, "height": 8}]),
        min_size=1,
        max_size=2,
        unique_by=lambda item: item["type"],
    ),
}


def forms(field):
    """Return the rules besides the place that make sense for a field."""
    by_field = {
        "id": [{}, {"type": "number"}, {"match": "/things/{value}"}, {"shape": "list"}],
        "datasetIds": [{}, {"shape": "one"}, {"shape": "csv"}, {"type": "number"}],
        "progress": [{}, {"scale": 100}, {"type": "text"}],
        "minConfidence": [{}, {"scale": 100}, {"scale": 1000}],
        "createdAt": [{}, {"unit": "epoch"}, {"unit": "epoch_milliseconds"}, {"unit": "ticks"}],
        "duration": [
            *({"unit": unit} for unit in ("milliseconds", "minutes", "hours", "days", "iso8601", "timespan")),
            {"type": "text"},
        ],
        "modelType": [{}, {"values": {"classification": 1, "detection": 2}}],
        "mode": [{}, {"values": {"all": "A", "replace": True, "unannotated": "n"}}],
        "history": [{}, {"items": {"valLoss": "test.loss", "valAccuracy": {"name": "acc", "scale": 100}}}],
        "operations": [{}, {"keyed_by": "type"}, {"items": {"type": "kind"}}, {"shape": "json"}],
        "parameters": [{}, {"shape": {"key": "name", "value": "value"}}, {"shape": "json"}],
    }
    return st.sampled_from(by_field.get(field, [{}, {"shape": "list"}]))


@st.composite
def rules(draw, fields, *, places=(None,)):
    """Return rules for some of *fields*, each at a place of its own."""
    chosen = {}
    for number, field in enumerate(fields):
        if draw(st.booleans()):
            place = draw(st.sampled_from(places))
            pattern = "{0}" if place in ("query", "header") else draw(st.sampled_from(PLACES))
            form = dict(draw(forms(field)))
            if place in ("query", "header"):
                form = {key: value for key, value in form.items() if key in ("scale", "unit", "values")}
                form |= {"shape": "one"} if field == "datasetIds" else {}
                form |= {"shape": "json"} if field in ("parameters", "operations") else {}
            chosen[field] = {"name": pattern.format(f"x{number}"), **form, **({"in": place} if place else {})}
    return chosen


def equal(one, other):
    """Return whether two values are the same but for numbers as text, as the models read them."""
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(equal(one[k], other[k]) for k in one)
    if isinstance(one, list):
        return isinstance(other, list) and len(one) == len(other) and all(map(equal, one, other))
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    try:
        return abs(float(one) - float(other)) < 1e-9
    except (TypeError, ValueError):
        return one == other


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_a_response_that_the_sandbox_writes_is_read_back(data):
    operation = data.draw(st.sampled_from([name for name in OPERATIONS if ENDPOINTS[name].response_model]))
    known = sorted(ENDPOINTS[operation].response_fields & RESPONSES.keys())
    override = {"response": data.draw(rules(known))}
    override |= data.draw(st.sampled_from([{}, {"envelope": "data"}, {"envelope": "a.b"}]))
    override |= data.draw(st.sampled_from([{}, {"constants": {"success": True}}]))
    endpoint = apply_overrides(Contract(), {operation: override})[operation]
    one = {field: data.draw(RESPONSES[field]) for field in known}
    result = [one] if endpoint.is_list else one
    if endpoint.is_list and override.get("constants") and not override.get("envelope"):
        override.pop("constants")  # there is no object to put a constant into
        endpoint = apply_overrides(Contract(), {operation: override})[operation]
    wire = json.loads(json.dumps(encode_response(endpoint, result).document))
    read = endpoint.read(wire)
    read = read[0] if endpoint.is_list else read
    assert equal({field: read.get(field) for field in known}, one), wire


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_a_request_that_the_client_sends_is_read_by_the_sandbox(data):
    operation = data.draw(st.sampled_from([name for name in OPERATIONS if name.endswith(".submit")]))
    known = sorted(ENDPOINTS[operation].sent_fields & REQUESTS.keys())
    places = (None, "body", "query")
    override = {"request": data.draw(rules(known, places=places)), "body": {"source": "api"}, "query": {"v": 2}}
    endpoint = apply_overrides(Contract(), {operation: override})[operation]
    sent = {field: data.draw(REQUESTS[field]) for field in known}
    wire = endpoint.to_wire(sent)
    query = {name: value if isinstance(value, list) else [value] for name, value in wire.query.items()}
    read, unknown = decode_request(endpoint, {}, query, wire.headers, json.loads(json.dumps(wire.fields)))
    assert not unknown
    assert equal(read, sent), (wire, override)


@given(st.lists(st.text("ab/%2F5 ü", min_size=1, max_size=6), min_size=1, max_size=4))
def test_the_parts_of_a_joined_id_are_found_again(parts):
    assert split_parts(join_parts(parts)) == parts
