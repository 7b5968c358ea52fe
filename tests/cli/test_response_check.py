"""Whatever a server responds, the comparison ends, and the evidence of it can be written."""

from __future__ import annotations

import json
from functools import lru_cache

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_osai.api.client import OsaiClient
from airflow_provider_osai.api.evidence import OperationEvidence, Problem
from airflow_provider_osai.cli.live_check import _probes
from airflow_provider_osai.cli.response_check import CheckedResponse, check_response
from tests.conftest import ROOT, settings_for

DOCUMENTS = [None, *sorted((ROOT / "tests/gallery/documents").glob("*.yaml"))]
NAMES = st.sampled_from(
    [
        *("id", "status", "state", "progress", "result", "metrics", "accuracy", "history", "items", "data", "name"),
        *("total", "confusionMatrix", "labels", "rows", "samples"),
    ]
) | st.text(max_size=12)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["running", "7"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=5),
    max_leaves=15,
)


@lru_cache
def client_of(document):
    extra = {} if document is None else {"contract": str(document)}
    return OsaiClient(settings_for("http://127.0.0.1:9/api", **extra))


def compared(document, operation, response) -> CheckedResponse | None:
    """Compare a response to a request for an object with the id 7."""
    client = client_of(document)
    probe = _probes(client.calls)[operation]
    if client.settings.contract.endpoints[operation] is None:
        return None
    sent = {probe.field: "1/7/7"} if probe.ids_of else {}
    return check_response(client, probe.build(*sent.values()), response, sent)


def evidence(checked: CheckedResponse) -> OperationEvidence:
    fields = {path: tuple(sorted(types)) for path, types in checked.fields.items()}
    return OperationEvidence(method="GET", path="/x", fields=fields, words=checked.words, problems=checked.problems)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem if path else "default")
@settings(max_examples=60)
@given(
    content=VALUES,
    operation=st.sampled_from(sorted(_probes(client_of(None).calls))),
    status=st.sampled_from([200, 400]),
)
def test_any_json_is_compared(document, content, operation, status):
    checked = compared(document, operation, httpx.Response(status, content=json.dumps(content).encode()))
    if checked is not None:
        evidence(checked)


@given(content=st.binary(max_size=40), status=st.integers(200, 599))
def test_any_bytes_are_compared(content, status):
    checked = compared(None, "training.list", httpx.Response(status, content=content))
    assert checked is not None
    assert checked.problems or checked.result == []
    evidence(checked)


def test_what_is_not_taken_of_a_result_is_a_problem():
    result = {
        "confusionMatrix": {"labels": ["a", "b"], "rows": [[1, 2]]},
        "samples": [{"fileName": "a.png", "confidence": 93.5}],
    }
    content = json.dumps([{"id": 7, "status": "succeeded", "result": result}])
    checked = compared(None, "training.list", httpx.Response(200, content=content))
    assert checked is not None
    assert Problem(kind="type", field="result.confusionMatrix", seen="object") in checked.problems
    assert Problem(kind="scale", field="result.samples.confidence") in checked.problems
    assert not [problem for problem in checked.problems if problem.kind == "missing" and "result" in problem.field]


def test_many_fields_do_not_take_long():
    """Ten thousand names in each of a hundred objects."""
    content = json.dumps([{f"name{number}": 1 for number in range(1000)}] * 100).encode()
    checked = compared(None, "training.list", httpx.Response(200, content=content))
    assert checked is not None
    assert Problem(kind="missing", field="id") in checked.problems
