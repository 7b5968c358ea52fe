"""Each rule of a contract document, with the wire seen from outside; and the errors of wrong documents."""

from __future__ import annotations

import subprocess
import sys

import pytest

from airflow_provider_osai.api.calls import OsaiApi, Received
from airflow_provider_osai.api.contract import NO_RULES, Contract
from airflow_provider_osai.api.contract_rules import OperationRules
from airflow_provider_osai.api.errors import OsaiArgumentError, OsaiContractError
from airflow_provider_osai.api.models import JobState
from airflow_provider_osai.api.overrides import apply_overrides
from airflow_provider_osai.api.requests import (
    ConversionRequest,
    DeviceRentalRequest,
    PredictionRequest,
    TrainingRequest,
)

TRAINING = TrainingRequest(dataset_ids=["12"], model_name="m", model_type="detection")


def api(document):
    return OsaiApi(apply_overrides(Contract(), document))


def submit(rules, request=TRAINING):
    return api({f"{request.kind}.submit": rules}).submit_job(request, "key", "https://airflow/x")


def test_an_operation_without_rules_has_what_empty_rules_have():
    assert {name: getattr(NO_RULES, name) for name in OperationRules.model_fields} == dict(OperationRules())


def test_nothing_of_contracts_is_imported_without_a_document():
    """The rules are many pydantic classes, and each task is a process that would build them."""
    code = (
        "import sys; from airflow_provider_osai.api.settings import OsaiSettings; "
        "import airflow_provider_osai.api.client; OsaiSettings.from_connection('t' * 20, {}); "
        "print('airflow_provider_osai.api.contract_rules' in sys.modules, 'jmespath' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_a_document_over_a_contract_in_use_is_not_read_by_the_old_rules():
    first = apply_overrides(Contract(), {"training.get": {"response": {"status": "a"}}})
    answer = Received({"id": 7, "a": "running", "b": "failed"}, {})
    assert OsaiApi(first).get_job("training", "7").parse(answer).state is JobState.RUNNING
    second = apply_overrides(first, {"training.get": {"response": {"status": "b"}}})
    assert OsaiApi(second).get_job("training", "7").parse(answer).state is JobState.FAILED


HEADER = {"request": {"traceparent": {"in": "header"}}}
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class TestTraceparent:
    """The trace context is sent only where a contract gives it a place, and only if there is one."""

    def calls(self, document, traceparent=TRACE):
        return OsaiApi(apply_overrides(Contract(), document), traceparent=lambda: traceparent)

    @pytest.mark.parametrize(
        ("operation", "make"),
        [
            ("training.submit", lambda calls: calls.submit_job(TRAINING, "key")),
            ("training.get", lambda calls: calls.get_job("training", "7")),
            ("training.list", lambda calls: calls.find_jobs("training", "key")),
            ("training.cancel", lambda calls: calls.cancel_job("training", "7")),
        ],
    )
    def test_a_header_of_one_operation(self, operation, make):
        assert make(self.calls({operation: HEADER})).headers == {"traceparent": TRACE}

    @pytest.mark.parametrize("document", [{}, {"training.submit": {"path": "/Jobs"}}], ids=["default", "other rules"])
    def test_without_a_place_it_is_not_sent(self, document):
        call = self.calls(document).submit_job(TRAINING, "key")
        assert (call.headers, "traceparent" in call.body) == ({}, False)

    def test_without_a_trace_nothing_is_sent(self):
        assert self.calls({"training.submit": HEADER}, None).submit_job(TRAINING, "key").headers == {}

    def test_a_general_rule_is_for_all_requests_for_jobs_and_for_no_other(self):
        calls = self.calls({"*": HEADER})
        assert calls.submit_job(TRAINING, "key").headers == calls.get_job("training", "7").headers != {}
        assert calls.create_dataset("digits").headers == calls.get_user().headers == {}

    def test_a_field_of_the_body(self):
        rules = {"request": {"traceparent": "meta.trace"}}
        assert self.calls({"training.submit": rules}).submit_job(TRAINING, "key").body["meta"] == {"trace": TRACE}

    def test_an_operation_without_jobs_has_no_such_field(self):
        with pytest.raises(OsaiContractError, match=r"dataset\.get.*traceparent"):
            self.calls({"dataset.get": HEADER})


class TestRequests:
    def test_a_field_in_several_places(self):
        places = [{"in": "path"}, {"in": "body", "name": "jobId"}, {"in": "query", "name": "q"}]
        call = api({"training.cancel": {"request": {"id": places}}}).cancel_job("training", "a/b")
        assert (call.path, call.body, call.query) == ("/Trainings/a%2Fb/Cancel", {"jobId": "a/b"}, {"q": "a/b"})

    def test_a_field_in_a_header_and_one_left_out(self):
        call = submit({"request": {"reference": {"in": "header", "name": "X-Key"}, "webhookUrl": None}})
        assert call.headers == {"X-Key": "key"}
        assert not {"reference", "webhookUrl"} & call.body.keys()

    def test_a_choice_of_the_user_is_not_left_out_in_silence(self):
        rules = {"request": {"parameters": None, "modelType": None}}
        assert "modelType" not in submit(rules).body
        request = TrainingRequest(dataset_ids=["1"], model_name="m", parameters={"epochs": 3})
        with pytest.raises(OsaiArgumentError, match="parameters is given, and the contract does not send it"):
            submit(rules, request)

    def test_a_value_that_no_header_can_hold_is_an_error(self):
        request = DeviceRentalRequest(device="größe", duration=60)
        with pytest.raises(OsaiArgumentError, match="device = 'größe' cannot be sent in a header"):
            submit({"request": {"device": {"in": "header"}}}, request)

    def test_constants(self):
        call = submit(
            {"headers": {"api-version": "2"}, "query": {"v": 3, "dry": False}, "body": {"meta.source": "api"}}
        )
        assert (call.headers, call.query, call.body["meta"]) == (
            {"api-version": "2"},
            {"v": "3", "dry": "false"},
            {"source": "api"},
        )

    @pytest.mark.parametrize(
        ("rule", "sent"),
        [
            ({"unit": "minutes"}, 20),
            ({"unit": "hours"}, 0.333333333333),
            ({"unit": "milliseconds"}, 1_200_000),
            ({"unit": "timespan"}, "00:20:00"),
            ({"unit": "iso8601"}, "PT1200S"),
            ({"type": "text"}, "1200"),
            ({"shape": "list"}, [1200]),
        ],
    )
    def test_a_duration_of_20_minutes(self, rule, sent):
        request = DeviceRentalRequest(device="x", duration=1200)
        assert submit({"request": {"duration": rule}}, request).body["duration"] == sent

    def test_a_fraction_in_percent_and_words_as_numbers(self):
        request = PredictionRequest(model_id="1", dataset_id="2", min_confidence=0.57, mode="replace")
        rules = {
            "minConfidence": {"name": "threshold.percent", "scale": 100},
            "mode": {"values": {"all": 0, "replace": 1, "unannotated": 2}},
            "modelId": {"type": "number"},
        }
        body = submit({"request": rules}, request).body
        assert (body["threshold"], body["mode"], body["modelId"]) == ({"percent": 57}, 1, 1)

    def test_a_value_that_the_contract_does_not_have_is_named(self):
        with pytest.raises(
            OsaiArgumentError, match="modelType = 'detection': .*not among.*classification.*request.modelType"
        ):
            submit({"request": {"modelType": {"values": {"classification": 1}}}})

    def test_one_of_a_list(self):
        assert submit({"request": {"datasetIds": {"name": "dataset.id", "shape": "one"}}}).body["dataset"] == {
            "id": "12"
        }
        with pytest.raises(OsaiArgumentError, match="has 2 values, and the contract sends one"):
            submit(
                {"request": {"datasetIds": {"shape": "one"}}},
                TrainingRequest(dataset_ids=["1", "2"], model_name="m"),
            )

    def test_repeated_query_keys_and_comma_separated_ones(self):
        rules = {"request": {"ids": {"name": "id", "shape": "repeat"}}}
        assert api({"job.list": rules}).list_jobs("training", ["1", "2"]).query == {"id": ["1", "2"]}
        assert api({}).list_jobs("training", ["1", "2"]).query == {"ids": "1,2"}

    def test_parts_of_an_id_in_the_path(self):
        calls = api({"training.get": {"path": "/p/{id.1}/t/{id.2}"}})
        assert calls.get_job("training", "a b/7").path == "/p/a%20b/t/7"
        with pytest.raises(OsaiArgumentError, match="id = '7' has 1 parts, and the contract's path needs part 2"):
            calls.get_job("training", "7")


class TestResponses:
    def read(self, rules, document, *, headers=(), job_id="7", kind="training"):
        call = api({f"{kind}.get": rules}).get_job(kind, job_id)
        return call.parse(Received(document, dict(headers)))

    def test_a_status_of_two_flags(self):
        rules = {
            "response": {"status": ["done", "failed"]},
            "states": {"false/false": "running", "true/false": "succeeded", "true/true": "failed"},
        }
        assert self.read(rules, {"id": 7, "done": True, "failed": False}).state is JobState.SUCCEEDED
        assert self.read(rules, {"id": 7, "done": True, "failed": True}).state is JobState.FAILED

    def test_a_word_means_another_state_for_another_kind(self):
        calls = api(
            {
                "training.*": {"states": {"Completed": "succeeded"}},
                "device_rental.*": {"states": {"Completed": "running"}},
            }
        )
        answer = {"id": 7, "status": "COMPLETED"}
        assert calls.get_job("training", "7").parse(Received(answer, {})).state is JobState.SUCCEEDED
        assert calls.get_job("device_rental", "7").parse(Received(answer, {})).state is JobState.RUNNING

    def test_an_id_in_the_header_location(self):
        call = api({"training.submit": {"response": {"id": {"in": "header", "name": "Location"}}}}).submit_job(
            TRAINING, "k"
        )
        for location in ("/api/Trainings/7", "https://osai.example.com/x/7/", "/x/7?y=z"):
            assert call.parse(Received({}, {"location": location})).id == "7"

    def test_a_joined_id_has_parts_of_the_request(self):
        rules = {
            "training.submit": {"response": {"id": ["$datasetIds", "id"]}},
            "conversion.submit": {"response": {"id": ["$modelId", "platform"]}},
        }
        calls = api(rules)
        assert calls.submit_job(TRAINING, "k").parse(Received({"id": 7}, {})).id == "12/7"
        request = ConversionRequest(model_id="p/i", target="onnx")
        assert calls.submit_job(request, "k").parse(Received({"platform": "ONNX"}, {})).id == "p/i/ONNX"

    def test_an_id_that_is_not_in_the_response_is_the_one_that_was_asked_for(self):
        assert self.read({"response": {"id": None}}, {"status": "running"}, job_id="p/7").id == "p/7"

    def test_metrics_as_a_list_of_pairs_and_by_expression(self):
        pairs = {"response": {"result.metrics": {"name": "scores", "shape": {"key": "n", "value": "v"}}}}
        document = {"id": 7, "status": "success", "scores": [{"n": "accuracy", "v": 0.9}]}
        assert self.read(pairs, document).result.metrics == {"accuracy": 0.9}
        expression = {"response": {"result.metrics.accuracy": {"name": "scores[?n=='accuracy'].v | [0]", "write": {}}}}
        assert self.read(expression, document).result.metrics == {"accuracy": 0.9}

    @pytest.mark.parametrize("field", ["result.metrics", "result.metrics.accuracy", "progress"])
    def test_a_field_that_is_null_is_not_read(self, field):
        document = {"id": 7, "status": "x", "progress": 0.5, "result": {"modelId": "m", "metrics": {"accuracy": 0.9}}}
        kept = {**document["result"], "metrics": dict(document["result"]["metrics"])}
        job = self.read({"response": {field: None}}, document)
        assert (job.progress is None) == (field == "progress")
        assert bool(job.result.metrics) == (field == "progress")
        assert job.result.model_id == "m"
        assert document["result"] == kept

    def test_a_nested_field_that_is_null_may_be_missing_with_all_around_it(self):
        for result in ({}, {"result": None}, {"result": 5}, {"result": {"modelId": "m"}}):
            job = self.read({"response": {"result.metrics": None}}, {"id": 7, "status": "running", **result})
            assert job.result is None or job.result.metrics is None

    def test_times(self):
        rules = {"response": {"createdAt": {"name": "at", "unit": "epoch_milliseconds"}}}
        assert self.read(rules, {"id": 7, "status": "x", "at": 1769860800123}).created_at == "2026-01-31T12:00:00.123Z"

    def test_a_value_that_does_not_fit_is_warned_of(self, caplog):
        rules = {"response": {"createdAt": {"name": "at", "unit": "epoch"}}}
        job = self.read(rules, {"id": 7, "status": "running", "at": "yesterday"})
        assert job.created_at is None
        assert "training.get: response field 'createdAt' at 'at' does not fit" in caplog.text

    def test_an_object_picked_from_a_list(self):
        rules = {"path": "/Trainings", "pick": True, "response": {"items": "found"}}
        document = {"found": [{"id": 6, "status": "failed"}, {"id": 7, "status": "running"}]}
        assert self.read(rules, document).state is JobState.RUNNING
        with pytest.raises(Exception, match="none of the 2 items") as caught:
            self.read(rules, document, job_id="8")
        assert caught.value.is_not_found

    def test_fields_of_the_items_of_a_list(self):
        rules = {"response": {"history": {"name": "curve", "items": {"valLoss": "test.loss", "epoch": "n"}}}}
        job = self.read(rules, {"id": 7, "status": "running", "curve": [{"n": 1, "test": {"loss": 0.5}}]})
        assert (job.history[0].epoch, job.history[0].val_loss) == (1, 0.5)

    def test_existing_key_with_the_new_name_is_dropped(self):
        """If the API calls our id ``modelId``, its own ``id`` is another field."""
        assert self.read({"response": {"id": "modelId"}}, {"modelId": "7", "id": "not ours", "status": "x"}).id == "7"


class TestKeys:
    def test_a_more_special_key_counts_more(self):
        document = {
            "training.get": {"headers": {"c": "exact"}},
            "*": {"headers": {"a": "all", "b": "all", "c": "all"}},
            "job.*": {"headers": {"b": "job"}},
        }
        assert api(document).get_job("training", "7").headers == {"a": "all", "b": "job", "c": "exact"}

    def test_a_whole_kind_can_be_missing(self):
        calls = api({"device_rental.*": None})
        assert not any(f"device_rental.{each}" in calls.contract for each in ("submit", "get", "list", "cancel"))

    def test_general_rules_do_not_bring_an_operation_back(self):
        general = {"headers": {"a": "b"}}
        document = {"job.list": None, "training.*": general, "retraining.*": general, "retraining.list": {"path": "/r"}}
        calls = api(document)
        assert "training.list" not in calls.contract
        call = calls.list_all_jobs("retraining")
        assert (call.path, call.headers) == ("/r", {"a": "b"})

    def test_a_part_of_a_joined_id_is_still_read_under_our_name(self):
        rules = {"model.conversions": {"response": {"jobId": ["$id", "id"]}}}
        call = api(rules).list_conversions("m")
        found = call.parse(Received([{"id": "c", "status": "success"}], {}))[0]
        assert (found.id, found.job_id) == ("c", "m/c")

    def test_fields_of_a_general_key_apply_where_they_exist(self):
        calls = api({"*": {"request": {"datasetId": "dataset"}, "response": {"status": "state"}}})
        assert calls.list_categories("3").query == {"dataset": "3"}
        assert (
            calls.get_job("training", "7").parse(Received({"id": 7, "state": "running"}, {})).state is JobState.RUNNING
        )

    def test_general_key_counts_where_a_special_one_moves_the_field_out_of_the_path(self):
        """Aborting may take the id in the query, or below another name in the body."""
        moved = {"training.cancel": {"path": "/Training/Abort"}}
        query = {"job.cancel": {"request": {"id": {"in": "query"}}}}
        renamed = {"job.cancel": {"request": {"id": "jobId"}}}
        assert api({**query, **moved}).cancel_job("training", "7").query == {"id": "7"}
        assert api({**renamed, **moved}).cancel_job("training", "7").body == {"jobId": "7"}
        assert api(renamed).cancel_job("training", "7").path == "/Trainings/7/Cancel"


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("training.gt: {}", "no such operation; did you mean training.get.*line 1"),
        ("jobs.get: {}", "no such operation; did you mean job.get"),
        (
            "\ntraining.get:\n  pahts: {}\n",
            "unknown key 'pahts' in training.get; allowed: method, path, .*did you mean path.*line 3",
        ),
        ("job.get: {response: {statsu: x}}", "unknown field 'statsu'.*did you mean status"),
        ("training.submit: {request: {duration: {unit: minuets}}}", "'minuets'|unknown field 'duration'"),
        ("device_rental.submit:\n  request:\n    duration: {unit: minuets}\n", "minuets.*minutes.*line 3"),
        ("device_rental.submit: {request: {duration: {scale: 0}}}", "scale.*greater than 0"),
        ("training.submit: {request: {modelType: {values: {a: 1, b: '1'}}}}", "one value of the API twice"),
        ("training.get: {response: {status: 'a[?'}}", "neither a path nor a JMESPath expression"),
        ("training.list: {pages: {page: p}}", "page needs size, total or more"),
        ("training.list: {pages: {page: p, offset: o, size: s}}", "exactly one of page, offset, cursor and next"),
        ("training.get: {statuses: {404: gone}}", "gone"),
        ("training.get: {error: {message: x}}", "when"),
        ("training.get: {states: {x: done}}", "'done' is not a state"),
        ("auth: {heder: X}", "auth.*heder"),
        ("auth: {header: 'X Y'}", "auth"),
        ("training.submit: null", "required and cannot be null"),
        ("training.get: {path: '/x/{id.0}'}", "brace"),
        ("training.get: {path: '/x/{nothing}'}", "unknown field 'nothing'"),
        ("training.get: {envelope: 'a | b'}", "plain path"),
        ("training.submit: {request: {modelName: x, modelType: x}}", "modelType and modelName are both sent as 'x'"),
        ("training.submit: {body: {x: 1}, request: {modelName: x}}", "modelName and body are both sent as 'x'"),
        ("training.submit: {request: {reference: {in: path}}}", "in the path, which has no {reference}"),
        ("training.submit: {request: {reference: {in: header, name: Authorization}}}", "which the client itself sets"),
        ("training.submit: {headers: {Host: evil}}", "the client itself sets the header Host"),
        ("auth: {header: Content-Length}", "the client itself sets the header"),
        ("training.submit: {request: {modelType: {values: {clasification: 1}}}}", "did you mean classification"),
        ("training.get: {response: {status: {values: {succeded: 2}}}}", "'succeded'.*no state.*did you mean succeeded"),
        ("auth: null", "auth.*must be an object"),
        ("'*': null", "without any operation"),
        ("training.get: {path: /../x}", "no '.' and '..'"),
        ("training.get: {path: //evil.example/x}", "path"),
        ("training.get: {response: {id: no}}", "response.id must be a name.*YAML reads no"),
        ("training.get: {response: {id: []}}", "response.id"),
        ("training.get: {response: {status: {values: {}}}}", "values"),
        ("training.get: {error: {when: 'a && foo(x)'}}", "there is no function 'foo'"),
        ("job.get: {response: {history: {items: {valLos: x}}}}", "'valLos' in the items of 'history'.*valLoss"),
        (
            "manipulation.submit:\n  request:\n    operations: {items: {angel: a}}\n",
            "'angel'.*did you mean angle.*line 3",
        ),
    ],
)
def test_a_wrong_document_is_refused_with_the_place_and_the_remedy(document, message):
    with pytest.raises(OsaiContractError, match=f"(?s){message}"):
        apply_overrides(Contract(), document)
