"""Confusion matrices and sample predictions in recordings: where they are is learned, and nothing else is disturbed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_osai.api.calls import OsaiApi, Received
from airflow_provider_osai.api.contract import Contract
from airflow_provider_osai.api.json_paths import json_path
from airflow_provider_osai.api.overrides import apply_overrides
from airflow_provider_osai.api.response_watch import ResponseWatch
from airflow_provider_osai.api.wire_format import unwrapped
from airflow_provider_osai.learning.learner import learn
from airflow_provider_osai.learning.recording import Recording
from tests.learning import scoring
from tests.learning.scoring import ANSWERS, read, recordings_of, score
from tests.learning.styles import STYLES

MATRIX = {"labels": ["cat", "dog"], "rows": [[3, 0], [1, 2]]}
SAMPLES = [{"fileName": f"{n}.png", "predicted": "cat", "confidence": 0.91, "actual": "dog"} for n in range(5)]
OPERATIONS = ("training.get", "retraining.get", "prediction.get")


def with_results(style, recording: Recording, added: Mapping[str, Any]) -> Recording:
    """Return the recording with more in the results of its succeeded jobs, by paths below the result."""
    contract = apply_overrides(Contract(), str(style.contract)) if style.contract else Contract()
    roles = learn(recording, ANSWERS).roles.operations
    changed = {}
    for name in OPERATIONS:
        endpoint = contract.endpoints[name]
        for call in roles[name].calls if name in roles else ():
            response = call.exchange.response
            word = endpoint.read(response).get("status")
            if contract.state(str(word), name) != "succeeded":
                continue
            inner = unwrapped(endpoint, response)
            for path, value in added.items():
                inner = json_path(f"{endpoint.response_names.get('result', 'result')}.{path}").put(inner, value)
            envelope = endpoint.rules.envelope
            changed[call.exchange.source] = json_path(envelope).put(response, inner) if envelope else inner
    assert len(changed) >= 2
    exchanges = [replace(each, response=changed.get(each.source, each.response)) for each in recording.exchanges]
    return replace(recording, exchanges=exchanges)


@pytest.mark.parametrize("name", ["default", "aspnet_envelope", "graph_objects", "plain_statuses", "signed_downloads"])
def test_they_change_no_other_row_and_ask_no_question(name, monkeypatch):
    """They are where the sandbox writes them in each style."""
    style = STYLES[name]
    before = score(style)

    def read_more(paths):
        recording, redactor = read(paths)
        return with_results(style, recording, {"confusionMatrix": MATRIX, "samples": SAMPLES}), redactor

    monkeypatch.setattr(scoring, "read", read_more)
    after = score(style)
    assert (after.right, after.doubtful, after.wrong) == (before.right, before.doubtful, before.wrong)
    assert (after.questions, after.states) == (before.questions, before.states)


def learned_job(added: Mapping[str, Any], **fields):
    """Learn the default style with more in its results; return the document, and a training read with it."""
    recording, _ = read(recordings_of(STYLES["default"]))
    document = learn(with_results(STYLES["default"], recording, added), ANSWERS).document
    calls = OsaiApi(apply_overrides(Contract(), document), ResponseWatch())
    result = {"modelId": "m"}
    for path, value in added.items():
        result = json_path(path).put(result, value)
    response = {"id": "7", "status": "succeeded", "result": result, **fields}
    return document, calls.get_job("training", "7").parse(Received(response, {}))


def test_default_places_need_no_rule():
    document, job = learned_job({"confusionMatrix": MATRIX, "samples": SAMPLES})
    assert "confusion" not in str(document)
    assert "samples" not in str(document)
    assert (job.result.confusion_matrix.labels, len(job.result.samples)) == (("cat", "dog"), 5)


def test_other_names_and_percent_are_learned():
    document, job = learned_job(
        {
            "report.confusion": {"classes": ["cat", "dog", "fish"], "counts": [[3, 0, 0], [1, 2, 0], [0, 0, 1]]},
            "examples": [{"image": "a.png", "label": "cat", "probability": 93.5, "truth": "dog"}],
        }
    )
    assert (
        document["training.get"]["response"]
        | {
            "result.confusionMatrix": {
                "name": "result.report.confusion",
                "items": {"labels": "classes", "rows": "counts"},
            },
            "result.samples": {
                "name": "result.examples",
                "items": {
                    "fileName": "image",
                    "predicted": "label",
                    "confidence": {"name": "probability", "scale": 100},
                    "actual": "truth",
                },
            },
        }
        == document["training.get"]["response"]
    )
    (sample,) = job.result.samples
    assert job.result.confusion_matrix.rows == ((3, 0, 0), (1, 2, 0), (0, 0, 1))
    assert (sample.file_name, sample.predicted, sample.confidence, sample.actual) == ("a.png", "cat", 0.935, "dog")


@pytest.mark.parametrize(
    "odd",
    [
        {"labels": ["a", "b"], "rows": [[1, 2], [3]]},
        {"labels": ["a", "b"], "rows": [[0.5, 0.5], [0.1, 0.9]]},
        {"labels": ["a", "b"], "rows": [[1, -2], [3, 4]]},
        {"labels": ["a", "b", "c"], "rows": [[1, 2], [3, 4]]},
        {"labels": ["a", None], "rows": [[1, float("nan")], [float("inf"), 10**400]]},
        {"labels": [["a"], ["b"]], "rows": [["1", "2"], [True, False]]},
        [[1, 2], [3, 4]],
        [{"fileName": 5}, 7, None],
        [{"image": "a.png"}, {"picture": "b.png"}],
        "confusion",
        {},
    ],
)
def test_what_only_has_the_name_is_not_learned(odd):
    recording, _ = read(recordings_of(STYLES["default"]))
    before = learn(recording, ANSWERS)
    after = learn(with_results(STYLES["default"], recording, {"confusion": odd, "examples": odd}), ANSWERS)
    assert (after.document, after.questions) == (before.document, before.questions)
