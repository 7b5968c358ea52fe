"""Metrics and spans of each process of a whole Airflow: worker, triggerer and API server."""

from __future__ import annotations

import pytest

from airflow_provider_osai.api.client import OsaiClient
from airflow_provider_osai.demo.airflow_instance import WholeAirflow
from tests.conftest import AIRFLOW, CANARY, settings_for
from tests.otlp_server import OtlpServer
from tests.stats import StatsdServer
from tests.waiting import until

pytestmark = pytest.mark.e2e
DAG = """
from airflow.sdk import DAG
from airflow_provider_osai.operators.training import OsaiTrainModelOperator

for dag_id, use_webhook in (("polled", False), ("called", True)):
    with DAG(dag_id, schedule=None, params={"dataset": "none"}):
        OsaiTrainModelOperator(
            task_id="train",
            dataset_ids="{{ params.dataset }}",
            model_name="m",
            deferrable=True,
            poll_interval=1,
            use_webhook=use_webhook,
        )
"""


@pytest.fixture(scope="module")
def statsd():
    with StatsdServer() as server:
        yield server


@pytest.fixture(scope="module")
def collector():
    with OtlpServer() as server:
        yield server


@pytest.fixture(scope="module")
def airflow(osai, tmp_path_factory, statsd, collector):
    dags = tmp_path_factory.mktemp("dags")
    (dags / "dags.py").write_text(DAG)
    extra = {"base_url": osai.base_url, "webhook_secret": "canary-webhook-secret-1"}
    environment = {
        "AIRFLOW__METRICS__STATSD_ON": "True",
        "AIRFLOW__METRICS__STATSD_HOST": "127.0.0.1",
        "AIRFLOW__METRICS__STATSD_PORT": str(statsd.port),
        "AIRFLOW__METRICS__STATSD_INFLUXDB_ENABLED": "True",
        "AIRFLOW__TRACES__OTEL_ON": "True",
        "OTEL_TRACES_EXPORTER": "otlp_proto_http",
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": collector.url,
    }
    connections = {"osai_default": {"conn_type": "osai", "password": CANARY, "extra": extra}}
    home = tmp_path_factory.mktemp("home")
    whole = WholeAirflow(dags, home=home, connections=connections, environment=environment, executable=AIRFLOW, grace=3)
    extra["webhook_base_url"] = whole.url
    with whole:
        whole.wait_for_dag("polled")
        yield whole


@pytest.fixture(scope="module")
def version(airflow):
    """Airflow's version, as (major, minor)."""
    text = airflow._get("/api/v2/version")["version"]
    return tuple(int(part) for part in text.split(".")[:2])


@pytest.fixture
def start(airflow, osai):
    """Run a Dag whose task waits for a job that does not end by itself; return the run's id and the job."""
    osai.control.script("training", "reads", reads=10**9)

    def run(dag_id):
        before = {job.id for job in osai.state.jobs.all_jobs()}
        with OsaiClient(settings_for(osai.base_url)) as client:
            dataset = client.create_dataset("d").id
        run_id = airflow.trigger(dag_id, {"dataset": dataset})
        until(lambda: airflow.task_instances(dag_id, run_id)[0]["state"], "deferred")
        (job,) = [job for job in osai.state.jobs.all_jobs() if job.id not in before]
        until(lambda: job.reads >= 1, True)  # the trigger has polled it
        return run_id, job

    return run


def counted(statsd, name):
    """Return whether a counter was sent, with the kind of these jobs."""
    return any(line.startswith(f"airflow.osai.{name},kind=training") for line in list(statsd.received))


def test_a_job_is_counted_by_the_worker_and_the_triggerer_and_traced_by_both(
    airflow, osai, start, statsd, collector, version
):
    run_id, job = start("polled")
    osai.control.end(job.id)
    until(lambda: airflow.task_instances("polled", run_id)[0]["state"], "success")
    until(lambda: [counted(statsd, f"job.{name}") for name in ("submitted", "succeeded")], [True, True])
    until(lambda: counted(statsd, "poll.requests"), True)
    if version < (3, 2):
        return  # it sets no tracer provider up in tasks and triggers
    parents = {"osai.submit": "worker.train", "osai.wait": "trigger.train", "osai.resume": "worker.train"}
    until(lambda: parents_of(parents, collector.spans), parents)
    assert len({span.trace_id for span in collector.spans if span.name in parents}) == 1


def parents_of(names, received):
    """Return the names of the spans that those of some names are in, as far as both were received."""
    spans = {span.span_id: span for span in list(received)}
    ours = [span for span in spans.values() if span.name in names and span.parent_span_id in spans]
    return {span.name: spans[span.parent_span_id].name for span in ours}


def test_a_kill_while_deferred_is_counted_by_the_triggerer(airflow, start, statsd):
    run_id, _ = start("polled")
    airflow.set_task_state("polled", run_id, "train", "failed")
    until(lambda: counted(statsd, "job.cancelled_by_kill"), True)


def test_a_webhook_that_resumes_a_task_is_counted_by_the_api_server(airflow, osai, start, statsd, version):
    if version == (3, 2):
        pytest.skip("its API server initializes no Stats")
    airflow.wait_for_dag("called")
    run_id, job = start("called")
    osai.control.end(job.id)
    until(lambda: airflow.task_instances("called", run_id)[0]["state"], "success")
    until(lambda: counted(statsd, "webhook.resumed"), True)
