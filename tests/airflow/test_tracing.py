"""The spans of a job's life: which there are, what they say, and that they are in the task's trace."""

from __future__ import annotations

import asyncio

import pytest
import respx
from airflow.providers.common.compat.sdk import AirflowFailException
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from airflow_provider_osai.api.errors import OsaiJobFailed
from airflow_provider_osai.observability import tracing
from airflow_provider_osai.sensors.job import OsaiJobSensor
from tests.airflow.conftest import FakeStateStore, trigger_of
from tests.conftest import CANARY


@pytest.fixture
def switched_on(monkeypatch):
    monkeypatch.setenv("AIRFLOW__TRACES__OTEL_ON", "True")
    tracing.enabled.cache_clear()
    yield
    tracing.enabled.cache_clear()


@pytest.fixture
def exporter(switched_on, monkeypatch):
    """What is exported, by a tracer provider of this test alone: OpenTelemetry sets that of a process only once."""
    exported = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exported))
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    yield exported
    provider.shutdown()


@pytest.fixture
def spans(exporter):
    """Return the finished spans by name."""
    return lambda: {span.name: span for span in exporter.get_finished_spans() if span.name in tracing.SPANS}


@pytest.fixture
def context(ti):
    return {"ti": ti, "task_state_store": FakeStateStore()}


def test_a_job_that_is_waited_for_on_a_worker(train, context, sandbox, spans):
    sandbox.control.script("training", "reads", reads=2)
    result = train().execute(context)
    about = {"osai.job.kind": "training", "osai.job.id": result["job_id"]}
    assert set(spans()) == {"osai.submit", "osai.wait"}
    assert dict(spans()["osai.submit"].attributes) == {**about, "osai.job.state": "queued"}
    assert dict(spans()["osai.wait"].attributes) == about


def test_a_deferred_job_has_three_spans_in_the_trace_that_airflow_started(train, context, sandbox, exporter, spans):
    sandbox.control.script("training", "reads", reads=2)
    tracer = trace.get_tracer("airflow")
    parents = {}
    with tracer.start_as_current_span("worker.task") as parents["osai.submit"]:
        trigger = trigger_of(train(deferrable=True), context)

    async def run():
        with tracer.start_as_current_span("trigger.task") as parents["osai.wait"]:
            return (await anext(trigger.run())).payload

    event = asyncio.run(run())
    with tracer.start_as_current_span("worker.task") as parents["osai.resume"]:
        result = train(deferrable=True).execute_complete(context, event)
    assert set(spans()) == set(tracing.SPANS)
    for name, parent in parents.items():
        assert spans()[name].parent.span_id == parent.get_span_context().span_id
        assert spans()[name].attributes["osai.job.id"] == result["job_id"]
        assert spans()[name].status.is_unset


def test_two_triggers_on_one_event_loop_keep_their_traces(train, context, sandbox, exporter):
    sandbox.control.script("training", "reads", reads=3)
    tracer = trace.get_tracer("airflow")
    trigger = trigger_of(train(deferrable=True), context)

    async def run(name):
        with tracer.start_as_current_span(name):
            return await anext(trigger.run())

    async def both():
        await asyncio.gather(run("first"), run("second"))

    asyncio.run(both())
    finished = exporter.get_finished_spans()
    parents = {span.context.span_id: span.name for span in finished if span.name in ("first", "second")}
    waits = [span for span in finished if span.name == "osai.wait"]
    assert {parents[span.parent.span_id] for span in waits} == {"first", "second"}


def test_a_failed_job_is_an_error_with_its_type_alone(train, context, sandbox, spans):
    sandbox.control.script("training", "immediate", end="failed", message=f"the password is {CANARY}")
    operator = train(deferrable=True)
    with pytest.raises(OsaiJobFailed):
        operator.execute(context)
    with pytest.raises(OsaiJobFailed):
        operator.execute_complete(
            context, {"kind": "training", "job_id": context["ti"].xcoms["osai_job"]["job_id"], "outcome": "ended"}
        )
    resume = spans()["osai.resume"]
    assert not resume.status.is_ok
    assert resume.status.description == resume.attributes["error.type"] == "OsaiJobFailed"
    assert resume.attributes["osai.job.kind"] == "training"
    assert not resume.events


def test_a_rejected_submission_is_an_error(train, context, connection, spans):
    connection(contract={"training.submit": {"path": "/Elsewhere"}})
    with pytest.raises(AirflowFailException):
        train().execute(context)
    assert spans()["osai.submit"].attributes["error.type"] == "OsaiRequestError"


def test_a_sensor_that_is_resumed(train, context, connection, sandbox, spans):
    sandbox.control.script("training", "immediate")
    job_id = train().execute(context)["job_id"]
    sensor = OsaiJobSensor(task_id="task", kind="training", job_id=job_id, deferrable=True)
    sensor.execute_complete(context, {"kind": "training", "job_id": job_id, "outcome": "ended"})
    assert spans()["osai.resume"].attributes["osai.job.state"] == "succeeded"


def test_requests_carry_the_span_in_the_header_that_the_contract_binds(train, context, connection, spans, sandbox):
    """Of the submission and of single polls."""
    sandbox.control.script("training", "reads", reads=2)
    rules = {"request": {"traceparent": {"in": "header", "name": "traceparent"}}}
    connection(contract={"training.submit": rules, "training.get": rules})
    with respx.mock() as router:
        router.route().pass_through()
        train().execute(context)
        sent = [call.request for call in router.calls]
    headers = [
        (each.method, each.headers["traceparent"].rpartition("-")[0]) for each in sent if "traceparent" in each.headers
    ]
    ids = {name: f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}" for name, span in spans().items()}
    assert headers[0] == ("POST", ids["osai.submit"])
    assert {header for method, header in headers if method == "GET"} == {ids["osai.wait"]}


class TestOff:
    """The default."""

    @pytest.fixture(autouse=True)
    def off(self):
        tracing.enabled.cache_clear()
        yield
        tracing.enabled.cache_clear()

    def test_no_span_is_made(self, train, context, sandbox, monkeypatch):
        monkeypatch.setattr(trace, "get_tracer", None)  # calling it would fail
        sandbox.control.script("training", "reads", reads=2)
        assert train().execute(context)["state"] == "succeeded"
        assert tracing.traceparent() is None

    def test_an_invalid_option_is_off(self, monkeypatch):
        monkeypatch.setenv("AIRFLOW__TRACES__OTEL_ON", "perhaps")
        assert not tracing.enabled()


class BrokenSpan:
    def __getattr__(self, name):
        raise ValueError(CANARY)


class BrokenManager:
    def __enter__(self):
        return BrokenSpan()

    def __exit__(self, *exc):
        raise ValueError(CANARY)


class BrokenTracer:
    def start_as_current_span(self, *args, **kwargs):
        return BrokenManager()


@pytest.mark.parametrize("tracer", [BrokenSpan, BrokenTracer], ids=["starting fails", "everything else fails"])
@pytest.mark.parametrize("end", ["succeeded", "failed"])
def test_a_failing_tracer_changes_no_result(train, context, sandbox, switched_on, monkeypatch, tracer, end):
    monkeypatch.setattr(trace, "get_tracer", lambda _name: tracer())
    sandbox.control.script("training", "immediate", end=end)
    if end == "succeeded":
        assert train().execute(context)["state"] == "succeeded"
        return
    with pytest.raises(OsaiJobFailed) as caught:
        train().execute(context)
    assert CANARY not in str(caught.value)
