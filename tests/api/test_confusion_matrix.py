"""The confusion matrix and the sample predictions of a job's result, as servers may send them."""

from __future__ import annotations

import json

import pytest

from airflow_provider_osai.api.calls import OsaiApi
from airflow_provider_osai.api.contract import Contract
from airflow_provider_osai.api.errors import OsaiContractError
from airflow_provider_osai.api.models import ConfusionMatrix, Job
from airflow_provider_osai.api.overrides import apply_overrides
from airflow_provider_osai.api.response_watch import ResponseWatch

MARKUP = '<img src=x onerror="alert(1)">'
SAMPLE = {"fileName": "a.png", "predicted": "cat", "confidence": 0.9, "actual": "dog"}
RESULT = {"confusionMatrix": {"labels": ["a"], "rows": [[1]]}, "samples": [SAMPLE]}


def read(result, contract=None, kind="training", **fields) -> Job:
    """Return the job of a response, as the client reads it."""
    calls = OsaiApi(apply_overrides(Contract(), contract), ResponseWatch())
    return calls.get_job(kind, "7").parse({"id": "7", "status": "succeeded", "result": result, **fields})


def matrix(labels, rows):
    return read({"modelId": "m", "confusionMatrix": {"labels": labels, "rows": rows}}).result.confusion_matrix


class TestMatrix:
    def test_square_matrix_is_read_with_its_rows_as_true_categories(self):
        found = matrix(["cat", "dog"], [[5, 1], [0, 4]])
        assert (found.labels, found.rows) == (("cat", "dog"), ((5, 1), (0, 4)))

    def test_labels_may_be_numbers_and_counts_whole_floats(self):
        found = matrix([0, 1], [[5.0, 1.0], [0.0, 4.0]])
        assert (found.labels, found.rows) == (("0", "1"), ((5, 1), (0, 4)))
        assert {type(count) for row in found.rows for count in row} == {int}

    def test_labels_with_markup_are_kept_as_they_are(self):
        """Pages escape them."""
        assert matrix([MARKUP, "]]>&amp;"], [[1, 0], [0, 1]]).labels == (MARKUP, "]]>&amp;")

    def test_matrix_of_zeros_is_read(self):
        assert matrix(["a", "b"], [[0, 0], [0, 0]]).rows == ((0, 0), (0, 0))

    def test_matrix_of_one_hundred_labels_is_read(self):
        labels = [f"c{number}" for number in range(100)]
        assert len(matrix(labels, [[1] * 100] * 100).rows) == 100

    @pytest.mark.parametrize(
        "invalid",
        [
            None,
            5,
            "matrix",
            [],
            [[1, 0], [0, 1]],
            {},
            {"labels": ["a"]},
            {"rows": [[1]]},
            {"labels": [], "rows": []},
            {"labels": ["a", "b"], "rows": [[1, 0]]},
            {"labels": ["a", "b"], "rows": [[1, 0], [1]]},
            {"labels": ["a", "b"], "rows": [[1, 0, 0], [0, 1, 0]]},
            {"labels": ["a"], "rows": [[1, 0], [0, 1]]},
            {"labels": ["a", "b"], "rows": [[1, -1], [0, 1]]},
            {"labels": ["a", "b"], "rows": [["1", "0"], ["0", "1"]]},
            {"labels": ["a", "b"], "rows": ["10", "01"]},
            {"labels": ["a", "b"], "rows": {"a": [1, 0], "b": [0, 1]}},
            {"labels": ["a", "b"], "rows": [[0.9, 0.1], [0.2, 0.8]]},
            {"labels": ["a", "b"], "rows": [[1, None], [0, 1]]},
            {"labels": ["a", "b"], "rows": [[1, True], [False, 1]]},
            {"labels": ["a"], "rows": [[float("nan")]]},
            {"labels": ["a"], "rows": [[float("inf")]]},
            {"labels": ["a"], "rows": [[10**400]]},
            {"labels": ["a"], "rows": [[2**53 + 1]]},
            {"labels": ["a"], "rows": [[[1]]]},
            {"labels": "ab", "rows": [[1, 0], [0, 1]]},
            {"labels": ["a", None], "rows": [[1, 0], [0, 1]]},
            {"labels": ["a", ["b"]], "rows": [[1, 0], [0, 1]]},
            {"labels": ["a", "b"], "rows": [[0] * 90_000, [0] * 9_000]},
        ],
        ids=lambda value: json.dumps(value)[:50],
    )
    def test_invalid_matrix_is_none_and_the_job_is_read(self, invalid):
        result = read({"modelId": "m", "metrics": {"accuracy": 0.5}, "confusionMatrix": invalid}).result
        assert (result.confusion_matrix, result.model_id, result.metrics) == (None, "m", {"accuracy": 0.5})

    def test_matrix_with_more_than_one_hundred_labels_is_dropped_and_logged_once(self, caplog):
        large = {"labels": [f"c{number}" for number in range(101)], "rows": [[1] * 101] * 101}
        for _ in range(2):
            assert read({"confusionMatrix": large}, message="large").result.confusion_matrix is None
        lines = [record.getMessage() for record in caplog.records]
        assert lines == [
            "training.get: 7: the confusion matrix has 101 labels; one with more than 100 is dropped",
        ]


class TestSamples:
    def test_samples_are_read(self):
        (sample,) = read({"samples": [SAMPLE]}).result.samples
        assert (sample.file_name, sample.predicted, sample.confidence, sample.actual) == ("a.png", "cat", 0.9, "dog")

    def test_sample_without_a_true_category_is_read(self):
        (sample,) = read({"samples": [{"fileName": MARKUP, "predicted": 3}]}).result.samples
        assert (sample.file_name, sample.predicted, sample.confidence, sample.actual) == (MARKUP, "3", None, None)

    @pytest.mark.parametrize("confidence", ["high", -0.1, 1.1, 10**400, float("nan"), float("-inf"), None, [], {}])
    def test_invalid_confidence_is_none_and_the_sample_is_kept(self, confidence):
        (sample,) = read({"samples": [{**SAMPLE, "confidence": confidence}]}).result.samples
        assert (sample.predicted, sample.confidence) == ("cat", None)

    @pytest.mark.parametrize("invalid", [None, 5, "samples", {}, {"a": SAMPLE}, [SAMPLE, 5], [[SAMPLE]], [None]])
    def test_invalid_samples_are_none_and_the_job_is_read(self, invalid):
        result = read({"modelId": "m", "samples": invalid}).result
        assert (result.samples, result.model_id) == (None, "m")

    def test_first_fifty_samples_are_kept_and_the_others_logged(self, caplog):
        samples = [{**SAMPLE, "fileName": str(number)} for number in range(60)]
        kept = read({"samples": samples}).result.samples
        assert [sample.file_name for sample in kept] == [str(number) for number in range(50)]
        assert "training.get: 7: there are 60 sample predictions; only the first 50 are kept" in caplog.text

    def test_long_texts_are_truncated(self):
        (sample,) = read({"samples": [{**SAMPLE, "fileName": "x" * 100_000}]}).result.samples
        assert len(sample.file_name) == 10_000

    def test_confidence_in_percent_is_warned_of_with_the_rule_to_add(self, caplog):
        result = {"samples": [{**SAMPLE, "confidence": 93.5}]}
        for _ in range(2):
            assert read(result, kind="prediction").result.samples[0].confidence is None
        rule = "prediction.get: {response: {result.samples: {items: {confidence: {scale: 100}}}}}"
        assert caplog.text.count(rule) == 1
        scaled = {"prediction.get": {"response": {"result.samples": {"items": {"confidence": {"scale": 100}}}}}}
        assert read(result, scaled, "prediction").result.samples[0].confidence == 0.935


class TestContract:
    def test_both_have_other_names_and_places(self):
        document = {
            "job.get": {
                "response": {
                    "result.confusionMatrix": {"name": "report.confusion", "items": {"labels": "classes", "rows": "n"}},
                    "result.samples": {"name": "report.examples", "items": {"fileName": "image", "actual": "truth"}},
                }
            }
        }
        report = {
            "confusion": {"classes": ["a", "b"], "n": [[1, 2], [3, 4]]},
            "examples": [{"image": "a.png", "predicted": "b", "confidence": 0.5, "truth": "a"}],
        }
        result = read({"modelId": "m"}, document, report=report).result
        assert result.confusion_matrix == ConfusionMatrix(labels=("a", "b"), rows=((1, 2), (3, 4)))
        assert (result.samples[0].file_name, result.samples[0].actual, result.model_id) == ("a.png", "a", "m")

    def test_parts_of_the_matrix_have_places_of_their_own(self):
        document = {
            "training.get": {
                "response": {"result.confusionMatrix.labels": "classes", "result.confusionMatrix.rows": "counts"}
            }
        }
        result = read({"modelId": "m"}, document, classes=["a"], counts=[[3]]).result
        assert result.confusion_matrix == ConfusionMatrix(labels=("a",), rows=((3,),))

    @pytest.mark.parametrize("field", ["result.confusionMatrix", "result.samples"])
    def test_field_that_is_null_in_the_document_is_not_read(self, field):
        found = read(RESULT, {"training.get": {"response": {field: None}}}).result
        assert (found.confusion_matrix is None) == (field == "result.confusionMatrix")
        assert (found.samples is None) == (field == "result.samples")

    @pytest.mark.parametrize(
        ("rules", "message"),
        [
            ({"result.confusionMatrx": "m"}, "did you mean confusionMatrix"),
            ({"result.confusionMatrix.label": "m"}, "did you mean labels"),
            ({"result.samples.actual": "m"}, "'result.samples' is not an object"),
            ({"result.samples": {"items": {"filename": "m"}}}, "did you mean fileName"),
        ],
    )
    def test_misspelt_name_is_an_error_with_the_nearest_name(self, rules, message):
        with pytest.raises(OsaiContractError, match=message):
            apply_overrides(Contract(), {"training.get": {"response": rules}})

    def test_job_without_them_is_no_difference(self, caplog):
        """Also after many jobs that had them."""
        calls = OsaiApi()
        body = {"id": "7", "status": "succeeded"}
        for result in [{"modelId": "m", **RESULT}] * 30 + [{"modelId": "m"}] * 3:
            calls.get_job("training", "7").parse({**body, "result": result})
        assert calls.watch.differences() == {}
        assert caplog.text == ""


def test_references_of_a_job_have_neither():
    """They are a task's XCom."""
    references = read({"modelId": "m", "metrics": {"f1": 0.5}, **RESULT}).references()
    assert references == {
        "kind": "training",
        "job_id": "7",
        "state": "succeeded",
        "metrics": {"f1": 0.5},
        "model_id": "m",
    }
