"""``osai-airflow check``: what it says, and what it never says."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import re
import ssl
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trustme

from airflow_provider_osai.api.client import OsaiClient
from airflow_provider_osai.api.requests import TrainingRequest
from airflow_provider_osai.cli import main
from airflow_provider_osai.cli.check import webhook_check
from airflow_provider_osai.webhooks.app import create_app
from tests.conftest import CANARY, settings_for
from tests.raw_server import ThreadedRawServer
from tests.threaded_server import served

SECRET = "canary-webhook-secret-1"
DEPLOYMENT = "canary-deployment-secret-1"


@pytest.fixture(autouse=True)
def deployment(monkeypatch):
    """The deployment has a secret."""
    monkeypatch.setenv("AIRFLOW_VAR_OSAI_DEPLOYMENT_SECRET", DEPLOYMENT)


def check_of(url):
    return webhook_check(settings_for(url, webhook_base_url=url, webhook_secret=SECRET), "osai_default", DEPLOYMENT)


@pytest.fixture
def mounted(sandbox, connection):
    """An Airflow's receiver below a base path; its address."""
    from starlette.applications import Starlette
    from starlette.routing import Mount

    with served(Starlette(routes=[Mount("/team/osai", app=create_app())])) as url:
        yield f"{url}/team"


def test_a_connection_that_works_and_whose_webhook_is_reached(mounted, connection, logged, dagbag):
    """One screen, and no secret in it."""
    connection(webhook_base_url=mounted, webhook_secret=SECRET)
    assert main(["check", "--webhook"]) == 0
    lines = [line for line in logged().splitlines() if line.startswith(("ok", "FAIL", "--"))]
    lines = [line.replace("--   osai_default responses", "ok   osai_default responses") for line in lines]  # no job
    said = [line.removeprefix("ok   osai_default ").split(" http")[0] for line in lines[:-1]]
    begins = (
        "address: Address",
        "reachable: Responds in",
        "clock: Server and local clocks",
        "sign-in: Signed in to OSAI",
        "token: The sign-in is valid",
        "list: list works",
        "responses: ",
        "cancel: All kinds of job",
        "webhooks: Web",
    )
    assert [words[: len(begin)] for words, begin in zip(said, begins, strict=True)] == list(begins)
    assert all(line.startswith("ok ") for line in lines)
    assert lines[-1].startswith(
        f"ok   osai_default webhook-test: POST {mounted}/osai/webhook/... reached this Airflow in "
    )
    assert SECRET not in "".join(lines)


def test_a_connection_without_webhooks_is_checked_without(connection, logged, dagbag):
    """The flag asks for more."""
    assert main(["check"]) == 0
    assert main(["check", "--webhook"]) == 1
    said = "FAIL osai_default webhook-test: Webhooks are off: the connection has no webhook_base_url; see https://"
    assert said in logged()


def test_a_connection_that_is_not_there(logged, dagbag):
    """One line, no traceback."""
    assert main(["check", "--conn-id", "osai_nowhere"]) == 1
    assert (
        "FAIL osai_nowhere connection: There is no connection 'osai_nowhere'. Set AIRFLOW_CONN_OSAI_NOWHERE" in logged()
    )


@pytest.mark.parametrize("value", ['{"conn_type": "osai", "password": "canary-5f0c', "osai://:canary-5f0c@host:port"])
@pytest.mark.parametrize("words", [["check"], ["jobs", "list"], ["orphans"], ["contract", "show"]], ids=" ".join)
def test_a_malformed_variable_is_not_called_missing(dagbag, capfd, monkeypatch, words, value):
    """And its value is not printed."""
    monkeypatch.setenv("AIRFLOW_CONN_OSAI_BROKEN", value)
    assert main([*words, "--conn-id", "osai_broken"]) != 0
    printed = "".join(capfd.readouterr())
    said = "AIRFLOW_CONN_OSAI_BROKEN is set, but it is neither valid JSON nor a URI. Check its quotes and braces."
    assert said in printed
    assert "canary-5f0c" not in printed


@pytest.mark.parametrize("command", ["check", "orphans"])
def test_airflows_log_lines_go_to_the_standard_error(dagbag, connection, deployment, command):
    """In a process of its own, since Airflow sets up its log when it is imported."""
    connection(regoin="eu")
    script = str(Path(sys.executable).parent / "osai-airflow")
    done = subprocess.run([script, command], capture_output=True, text=True, check=False)
    assert "unknown extra fields ['regoin']" in done.stderr
    beginnings = {"check": ("ok", "--"), "orphans": ("0 live OSAI jobs",)}[command]
    lines = done.stdout.splitlines()
    assert lines
    assert [line for line in lines if not line.startswith(beginnings)] == []


class Answering(http.server.BaseHTTPRequestHandler):
    """Answers every POST alike."""

    status, body = 200, b""

    def do_POST(self):
        self.rfile.read(int(self.headers.get("content-length") or 0))
        self.send_response(self.status)
        self.send_header("content-length", str(len(self.body)))
        self.send_header("location", "https://login.example.com/")
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *args):
        """Say nothing."""


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (200, "the response is not from this Airflow"),
        (302, "requires a login"),
        (401, "requires a login"),
        (404, "no webhook handler, or one with another secret"),
        (502, "check the logs"),
    ],
)
def test_whatever_else_answers_there_has_its_remedy(status, said):
    """And is not taken for us."""
    handler = type("Handler", (Answering,), {"status": status, "body": b"osai"})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    good, text = webhook_check(
        settings_for(url, webhook_base_url=url, webhook_secret=SECRET), "osai_default", DEPLOYMENT
    )
    server.shutdown()
    server.server_close()
    assert not good
    assert said in text
    assert f"POST {url}/osai/webhook/... returned {status}" in text


def test_an_address_where_nobody_listens():
    """With the reason."""
    url = "http://127.0.0.1:1"
    good, text = webhook_check(
        settings_for(url, webhook_base_url=url, webhook_secret=SECRET), "osai_default", DEPLOYMENT
    )
    assert not good
    assert "got no response" in text


def test_a_receiver_with_another_secret_does_not_pass(mounted, connection):
    """It answers as if it were not there."""
    connection(webhook_base_url=mounted, webhook_secret="canary-of-somebody-else")
    settings = settings_for(mounted, webhook_base_url=mounted, webhook_secret=SECRET)
    good, text = webhook_check(settings, "osai_default", DEPLOYMENT)
    assert not good
    assert "another secret" in text


class TestDiagnosis:
    """Each finding has a remedy."""

    def lines(self, logged):
        return [line for line in logged().splitlines() if line[:4] in ("ok  ", "FAIL", "--  ")]

    def test_an_osai_that_cannot_be_reached(self, connection, logged, dagbag):
        """What to look at is said once for the way there, and once for the sign-in."""
        connection(base_url="http://127.0.0.1:9/api")
        assert main(["check"]) == 1
        failed = [line for line in self.lines(logged) if line.startswith("FAIL")]
        assert len(failed) == 2
        assert "Check the address, DNS, the proxy, and the firewall." in failed[0]

    def test_a_clock_that_is_wrong(self, connection, logged, dagbag, mocker):
        """By how much, and which way."""
        long_ago = datetime(2020, 1, 1, tzinfo=UTC)
        mocker.patch("airflow_provider_osai.cli.diagnostics.parsedate_to_datetime", return_value=long_ago)
        assert main(["check"]) == 1
        assert re.search(
            r"FAIL osai_default clock: The server clock is \d+ s behind the local clock; synchronize them by NTP",
            logged(),
        )

    def test_a_list_that_does_not_work(self, connection, sandbox, logged, dagbag):
        """It is assumed, so the contract is to be mended."""
        sandbox.control.fault("status", "training.list", status=404, times=100)
        assert main(["check"]) == 1
        assert "or set them to null; 'osai-airflow contract check' compares them" in logged()

    def test_what_the_contract_leaves_out_is_told_and_is_no_failure(self, connection, logged, dagbag):
        """The user has said so."""
        connection(contract='{"training.list": null, "device_rental.cancel": null}')
        assert main(["check"]) == 0
        text = logged()
        assert "list: list is bound to null, so jobs of these kinds are polled separately: training. A retry" in text
        assert "keep running after their task is killed: device_rental" in text
        assert "--   osai_default webhooks: Webhooks are off" in text

    def test_jobs_without_a_reference_are_told(self, connection, logged, dagbag):
        """A retry cannot find them in the list."""
        connection(contract='{"training.submit": {"request": {"reference": null}}}')
        assert main(["check"]) == 0
        assert "--   osai_default list: list works" in logged()
        assert "A retry reconnects to jobs of these kinds by its checkpoint only: training." in logged()

    def test_a_certificate_that_is_not_good(self, connection, logged, dagbag):
        """Not taken for a server that is down."""
        ca = trustme.CA()
        with served_over_tls(ca) as url:
            connection(base_url=f"{url}/api")
            assert main(["check"]) == 1
        assert "that this machine trusts the certificate (SSL_CERT_FILE)" in logged()


@contextlib.contextmanager
def served_over_tls(ca):
    server = http.server.HTTPServer(("127.0.0.1", 0), Answering)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1").configure_cert(context)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"https://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def test_where_the_deployments_secret_cannot_be_read_that_is_said(mounted):
    """A machine without Airflow's database: what OSAI would send cannot be made there."""
    settings = settings_for(mounted, webhook_base_url=mounted, webhook_secret=SECRET)
    good, text = webhook_check(settings, "osai_default", None)
    assert (good, "osai_deployment_secret cannot be read" in text) == (False, True)


def test_a_fresh_airflow_is_given_the_secret_that_it_needs(mounted, connection, logged, dagbag, monkeypatch):
    """Before its first job there is none."""
    from airflow.models.variable import Variable

    monkeypatch.delenv("AIRFLOW_VAR_OSAI_DEPLOYMENT_SECRET")
    Variable.delete("osai_deployment_secret")
    connection(webhook_base_url=mounted, webhook_secret=SECRET)
    assert main(["check", "--webhook"]) == 0
    made = Variable.get("osai_deployment_secret")
    assert len(made) == 32
    assert main(["check", "--webhook"]) == 0
    assert Variable.get("osai_deployment_secret") == made
    assert made not in logged()


@pytest.mark.parametrize("command", [["check"], ["orphans"], ["contract", "check"]], ids=" ".join)
def test_a_connection_of_another_type_is_refused_and_its_password_sent_nowhere(sandbox, monkeypatch, logged, command):
    document = {"conn_type": "postgres", "password": CANARY, "extra": {"base_url": sandbox.base_url}}
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps(document))
    assert main([*command, "--conn-id", "warehouse"]) != 0
    output = logged()
    assert "'warehouse' has the type 'postgres' instead of 'osai'" in output
    assert sandbox.control.record()["requests"] == []


def test_a_command_leaves_the_environment_as_it_was(connection, monkeypatch):
    """A token in it would be inherited by every process that is started later."""
    before = dict(os.environ)
    assert main(["check"]) == 0
    assert dict(os.environ) == before


CHECKS = ["address", "reachable", "clock", "sign-in", "token", "list", "responses", "cancel", "webhooks"]
"""The ids of the checks, which do not change."""


def checked(capfd, *options):
    """Run the command with ``--json``; return its exit code and the document."""
    capfd.readouterr()
    code = main(["check", "--json", *options])
    return code, json.loads(capfd.readouterr().out)


def test_the_document_has_a_stable_id_a_status_and_a_text_for_each_check(connection, capfd, dagbag):
    code, document = checked(capfd)
    assert (code, document["conn_id"], document["ok"]) == (0, "osai_default", True)
    assert [check["id"] for check in document["checks"]] == CHECKS
    assert {check["status"] for check in document["checks"]} == {"ok", "note"}
    assert all(set(check) == {"id", "status", "text"} for check in document["checks"])


def test_the_document_of_a_failure_has_the_same_ids(connection, capfd, dagbag):
    connection(base_url="http://127.0.0.1:9/api")
    code, document = checked(capfd)
    assert (code, document["ok"]) == (1, False)
    found = {check["id"]: check["status"] for check in document["checks"]}
    assert list(found) == CHECKS
    assert [found[name] for name in CHECKS[1:7]] == ["fail", "not-run", "fail", "not-run", "not-run", "not-run"]


def test_a_connection_that_cannot_be_read_is_one_failed_check(capfd, dagbag):
    code, document = checked(capfd, "--conn-id", "osai_nowhere")
    assert (code, document["ok"], [check["id"] for check in document["checks"]]) == (1, False, ["connection"])


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "soon", "3601"])
@pytest.mark.parametrize("option", ["--timeout", "--total-timeout"])
def test_an_invalid_time_limit_is_refused(option, value, capfd):
    with pytest.raises(SystemExit) as ended:
        main(["check", f"{option}={value}"])
    assert ended.value.code == 2
    assert "must be a number of seconds" in capfd.readouterr().err


def dripping(line):
    """Send headers that never end."""
    yield b"HTTP/1.1 200 OK\r\n"
    for number in range(10_000):
        time.sleep(0.05)
        yield f"X-Header-{number}: x\r\n".encode()


def endless(line):
    """Send a body that never ends."""
    yield b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n["
    for _ in range(10_000):
        time.sleep(0.01)
        yield b"[" * 1000


def silent(line):
    """Send nothing."""
    time.sleep(20)
    yield b""


@pytest.mark.parametrize("answer", [dripping, endless, silent])
def test_a_server_that_never_ends_its_response_does_not_hold_the_command(answer, connection, capfd, dagbag):
    with ThreadedRawServer(answer) as server:
        connection(base_url=server.base_url)
        code, document = checked(capfd, "--timeout", "0.5", "--total-timeout", "5")
    assert (code, document["ok"]) == (1, False)
    found = {check["id"]: check["status"] for check in document["checks"]}
    assert list(found) == CHECKS
    assert (found["sign-in"], found["list"]) == ("fail", "not-run")


def test_checks_without_time_left_are_reported_as_not_run(connection, capfd, dagbag):
    with ThreadedRawServer(dripping, signs_in=False) as server:
        connection(base_url=server.base_url)
        code, document = checked(capfd, "--timeout", "5", "--total-timeout", "2")
    found = {check["id"]: check for check in document["checks"]}
    assert (code, list(found)) == (1, CHECKS)
    left = re.fullmatch(r"No result within ([\d.]+) s\.", found["reachable"]["text"])
    assert left is not None
    assert 0 < float(left[1]) <= 2  # what was left of the total time
    assert found["sign-in"]["status"] == "not-run"
    assert "--total-timeout" in found["sign-in"]["text"]


def test_what_the_jobs_of_the_list_have_otherwise_is_told(connection, sandbox, logged, dagbag):
    """It is no failure: the task log has the same, and the connection works."""
    settings = settings_for(sandbox.base_url, contract='{"training.get": {"query": {"of": "another contract"}}}')
    with OsaiClient(settings) as client:  # so that the command has a watch of its own, as in a process of its own
        dataset = client.create_dataset("x").id
        request = TrainingRequest(dataset_ids=[dataset], model_name="m", model_type="classification")
        client.submit_job(request, "key")
    assert main(["check"]) == 0
    assert "ok   osai_default responses: All trainings of the list (1) are as the contract says." in logged()
    connection(contract='{"training.list": {"response": {"progress": "reference", "status": "createdAt"}}}')
    assert main(["check"]) == 0
    text = logged()
    assert "--   osai_default responses: 2 differences from the contract: training.list: progress is now of" in text
    assert "Response differs from the contract: training.list: unknown status word" in text
