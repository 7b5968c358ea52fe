"""``osai-airflow contract check --live`` and ``contract evidence``, as docs/contract.md describes them."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from airflow_provider_osai.api.client import OsaiClient
from airflow_provider_osai.api.errors import OsaiArgumentError
from airflow_provider_osai.api.evidence import read_evidence
from airflow_provider_osai.api.models import JobKind
from airflow_provider_osai.cli import main
from tests.conftest import CANARY, settings_for
from tests.raw_server import ThreadedRawServer, document, http


@pytest.fixture(autouse=True)
def airflow(dagbag):
    """Airflow is initialized, which logs."""


@pytest.fixture
def live(capfd):
    """Run the live check with ``--json``; return its exit code, its rows by operation, and what is on stderr."""

    def run(*options):
        capfd.readouterr()
        code = main(["contract", "check", "--live", "--json", *options])
        output = capfd.readouterr()
        rows = json.loads(output.out)["rows"] if output.out else []
        return code, {row["operation"]: row for row in rows}, output.err

    return run


@pytest.fixture
def filled(sandbox):
    """The sandbox with a dataset, and a training that has ended."""
    sandbox.control.script(timing="reads", reads=1)
    with OsaiClient(settings_for(sandbox.base_url)) as client:
        dataset = client.create_dataset("canary-name-of-a-dataset")
        from airflow_provider_osai.api.requests import TrainingRequest

        request = TrainingRequest(dataset_ids=[dataset.id], model_name="m", model_type="classification")
        job = client.submit_job(request, "key")
        for _ in range(3):
            client.get_job(JobKind.TRAINING, job.id)
    return sandbox


def odd(answers):
    """Return a server that answers the path of each GET with what *answers* has for it, else with 404."""

    def answer(line):
        path = line.split()[1].partition("?")[0].removeprefix("/api")
        found = answers.get(path, document({"message": "no such thing"}, 404))
        return found(line) if callable(found) else [found]

    return ThreadedRawServer(answer)


class TestSandbox:
    """The sandbox speaks the default contract."""

    def test_its_rows_work_and_the_others_say_why_they_are_not_tested(self, filled, connection, live):
        code, rows, _ = live()
        assert code == 0
        works = {name for name, row in rows.items() if row["status"] == "works"}
        assert {"auth.sign_in", "user.me", "dataset.get", "image.list", "training.list", "training.get"} <= works
        assert rows["training.cancel"]["details"] == ["it is not a GET but a POST"]
        assert rows["conversion.get"]["details"] == ["it needs an id, and none was found in conversion.list"]
        assert rows["model.download"]["status"] == "not testable"
        assert rows["conversion.list"]["details"] == ["it is empty, so only its form was compared"]
        assert not [row for row in rows.values() if row["problems"]]

    def test_only_get_requests_and_the_sign_in_are_sent(self, filled, connection, live):
        before = len(filled.control.record()["requests"])
        live()
        sent = [request["method"] + request["path"] for request in filled.control.record()["requests"][before:]]
        assert len(sent) > 10
        assert {line for line in sent if not line.startswith("GET")} == {"POST/api/Users/SignIn"}

    def test_a_table_is_printed_without_the_option(self, filled, connection, capfd):
        assert main(["contract", "check", "--live", "--conn-id", "osai_default"]) == 0
        lines = capfd.readouterr().out.splitlines()
        assert lines[0].split() == ["operation", "endpoint", "status", "details"]
        assert any(line.split() == ["training.get", "GET", "/Trainings/{id}", "works"] for line in lines)

    def test_a_null_is_absent_and_fine(self, connection, live):
        connection(contract='{"model.list": null}')
        code, rows, _ = live()
        assert (code, rows["model.list"]["status"], rows["model.list"]["details"]) == (
            *(0, "absent"),
            ["null in the contract"],
        )

    def test_what_changes_something_is_not_sent_although_it_is_a_get(self, filled, connection, live):
        connection(contract='{"training.cancel": {"method": "GET"}, "dataset.delete": {"method": "GET"}}')
        before = len(filled.control.record()["requests"])
        _, rows, _ = live()
        for name in ("training.cancel", "dataset.delete"):
            assert rows[name]["details"] == ["it may change something, although it is a GET"]
        assert not [r for r in filled.control.record()["requests"][before:] if r["path"].endswith("/Cancel")]

    def test_a_row_that_is_read_with_post_is_not_sent(self, connection, live):
        connection(contract='{"model.list": {"method": "POST", "path": "/Models/Search"}}')
        _, rows, _ = live()
        assert rows["model.list"]["details"] == ["it is not a GET but a POST"]

    def test_evidence_holds_names_types_and_words_and_no_value(self, filled, connection, tmp_path, capfd):
        file = tmp_path / "evidence.json"
        assert main(["contract", "evidence", "--conn-id", "osai_default", "-o", str(file)]) == 0
        evidence = read_evidence(file)
        training = evidence.operations["training.get"]
        assert (training.method, training.path, training.codes) == ("GET", "/Trainings/{id}", {200: 1})
        assert training.fields["id"] == ("string",)
        assert training.words == {"succeeded": 1}
        text = file.read_text()
        assert "canary" not in text
        assert filled.base_url not in text
        assert "without values" in capfd.readouterr().out

    def test_a_file_that_cannot_be_written_is_one_line(self, connection, capfd):
        assert main(["contract", "evidence", "-o", "/nowhere/evidence.json"]) == 2
        assert "/nowhere/evidence.json: No such file or directory" in capfd.readouterr().err


JOB = {"id": "7", "status": "running", "progress": 0.5}


@pytest.mark.parametrize(
    ("answers", "operation", "problem"),
    [
        ({"/Models": document([{"name": "m"}])}, "model.list", ("missing", "id", "")),
        ({"/Models": document([{"model_id": 3}])}, "model.list", ("missing", "id", "model_id")),
        ({"/Models": document([{"id": "1", "model_type": "x"}])}, "model.list", ("missing", "modelType", "model_type")),
        ({"/Models": document([{"id": {"a": 1}}])}, "model.list", ("type", "id", "object")),
        ({"/Models": document([{"id": 1, "name": ["x"]}])}, "model.list", ("type", "name", "array")),
        (
            {"/Models": document([{"id": 1, "metrics": {"accuracy": 93}}])},
            "model.list",
            ("scale", "metrics.accuracy", ""),
        ),
        ({"/Models": document({"models": []})}, "model.list", ("form", "", "")),
        ({"/Models": document([1, [2]])}, "model.list", ("form", "", "")),
        ({"/Models": document({"items": [], "hasMore": True})}, "model.list", ("more-pages", "", "")),
        ({"/Models": http(b"<html>", Content_Type="text/html")}, "model.list", ("not-json", "", "")),
        ({"/Models": http(b"")}, "model.list", ("not-json", "", "")),
        ({"/Models": document({"error": "x"}, 500)}, "model.list", ("status", "", "500")),
        ({"/Models": document({"error": "x"}, 403)}, "model.list", ("status", "", "403")),
        ({"/Models": http(b"", 302, Location="https://login.example.com/")}, "model.list", ("status", "", "302")),
        ({"/Models": http(b"[" * 300_000)}, "model.list", ("too-large", "", "")),
        ({"/Models": http(b"[]", length=10)}, "model.list", ("no-response", "", "")),
        ({"/Trainings": document([{**JOB, "status": "Baking"}])}, "training.list", ("word", "status", "Baking")),
        ({"/Trainings": document([{**JOB, "status": "a@b.c"}])}, "training.list", ("word", "status", "")),
        ({"/Trainings": document([{**JOB, "progress": 50}])}, "training.list", ("scale", "progress", "")),
        ({"/Trainings": document([{**JOB, "progress": "half"}])}, "training.list", ("type", "progress", "string")),
        ({"/Trainings": document([{"id": 1, "state": "running"}])}, "training.list", ("missing", "status", "")),
        (
            {"/Trainings": document([JOB]), "/Trainings/7": document({**JOB, "id": "8"})},
            *("training.get", ("other-id", "id", "")),
        ),
    ],
    ids="-".join,
)
def test_what_differs_is_named(answers, operation, problem, connection, live):
    with odd({"/Users": document({"id": 1}), **answers}) as server:
        connection(base_url=server.base_url)
        code, rows, errors = live("--timeout", "3")
        sent = [line for line in server.requests if "/Users/SignIn" not in line]
    assert code == 1
    assert all(line.startswith("GET ") for line in sent), sent
    assert rows[operation]["status"] == "differs"
    assert problem in [tuple(each.values()) for each in rows[operation]["problems"]]
    assert rows[operation]["details"]
    assert "Traceback" not in errors


@pytest.mark.parametrize("status", [404, 405, 410, 501])
def test_an_operation_that_the_server_does_not_have_is_absent(status, connection, live):
    with odd({"/Users": document({"id": 1}), "/Models": http(b"", status)}) as server:
        connection(base_url=server.base_url)
        code, rows, _ = live()
    assert (code, rows["model.list"]["status"]) == (1, "absent")
    assert rows["model.list"]["details"] == [f"returned {status}: if OSAI lacks it, set model.list: null"]


class TestTime:
    """No server holds the command."""

    @staticmethod
    def drip(line):
        yield b"HTTP/1.1 200 OK\r\n"
        for number in range(1000):
            time.sleep(0.05)
            yield f"X-{number}: x\r\n".encode()

    @staticmethod
    def endless(line):
        yield b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n["
        for _ in range(10_000):
            time.sleep(0.01)
            yield b"1," * 500

    @pytest.mark.parametrize("how", ["drip", "endless"])
    def test_a_response_that_does_not_end_is_a_difference(self, how, connection, live):
        with odd({"/Users": document({"id": 1}), "/Models": getattr(self, how)}) as server:
            connection(base_url=server.base_url)
            code, rows, _ = live("--timeout", "3")
        assert (code, rows["model.list"]["status"]) == (1, "differs")
        assert rows["model.list"]["problems"][0]["kind"] in ("no-response", "too-large")
        assert rows["training.list"]["status"] == "absent"  # asked after it

    def test_rows_without_time_left_are_not_testable_and_not_fine(self, connection, live):
        with odd({"/Users": document({"id": 1}), "/Datasets": self.drip}) as server:
            connection(base_url=server.base_url)
            code, rows, _ = live("--timeout", "60", "--total-timeout", "5")
        assert code == 1
        assert rows["model.list"]["status"] == "not testable"
        assert "--total-timeout" in rows["model.list"]["details"][0]

    def test_a_sign_in_that_hangs_cannot_be_run(self, connection, live):
        with ThreadedRawServer(self.drip, signs_in=False) as server:
            connection(base_url=server.base_url)
            code, rows, errors = live("--timeout", "3")
        assert (code, rows) == (2, {})
        assert "No result within 3 s" in errors


class TestRefusals:
    """What cannot be run has a reason and the exit code 2, and sends nothing."""

    @pytest.mark.parametrize("command", [["check", "--live"], ["evidence", "-o", "evidence.json"]], ids=str)
    def test_a_connection_of_another_type(self, command, sandbox, monkeypatch, capfd, tmp_path):
        monkeypatch.chdir(tmp_path)
        stranger = {"conn_type": "http", "password": CANARY, "extra": {"base_url": sandbox.base_url}}
        monkeypatch.setenv("AIRFLOW_CONN_STRANGER", json.dumps(stranger))
        assert main(["contract", *command, "--conn-id", "stranger"]) == 2
        assert "has the type 'http' instead of 'osai'" in capfd.readouterr().err
        assert sandbox.control.record()["requests"] == []
        assert not list(tmp_path.iterdir())

    def test_a_rejected_token(self, sandbox, monkeypatch, live):
        wrong = {"conn_type": "osai", "password": f"wrong-{CANARY[:9]}", "extra": {"base_url": sandbox.base_url}}
        monkeypatch.setenv("AIRFLOW_CONN_OSAI_DEFAULT", json.dumps(wrong))
        code, rows, errors = live()
        assert (code, rows) == (2, {})
        assert "rejected the access token" in errors
        assert wrong["password"] not in errors

    def test_an_address_where_nothing_listens(self, connection, live):
        connection(base_url="http://127.0.0.1:9/api")
        code, _, errors = live()
        assert code == 2
        assert "got no response" in errors

    @pytest.mark.parametrize("options", [["--json"], ["--live", "--suggest"], ["--live", "--spec", "x"]], ids=str)
    def test_options_that_do_not_go_together(self, options, capfd):
        assert main(["contract", "check", *options]) == 2

    def test_a_client_that_only_reads_refuses_everything_else(self, sandbox):
        with OsaiClient(settings_for(sandbox.base_url), read_only=True) as client:
            assert client.list_datasets() == []
            for change in (lambda: client.create_dataset("x"), lambda: client.cancel_job("training", "7")):
                with pytest.raises(OsaiArgumentError, match="was not sent: this client only reads"):
                    change()
            with pytest.raises(OsaiArgumentError, match="only reads"):
                client.delete_dataset("7")
        methods = {request["method"] for request in sandbox.control.record()["requests"]}
        assert methods == {"GET", "POST"}  # the sign-in
        assert len([r for r in sandbox.control.record()["requests"] if r["method"] == "POST"]) == 1


def test_a_token_that_the_server_repeats_is_shown_nowhere(connection, live, tmp_path, capfd):
    """In a key, a value, a status word or a reason: the fixture ``logged`` looks at all output."""
    answers = {
        "/Users": document({"id": CANARY, CANARY: 1}),
        "/Datasets": document([{"id": CANARY, "name": CANARY, CANARY: {"a": CANARY}}]),
        "/Models": document({"message": f"bad token {CANARY}"}, 403),
        "/Trainings": document([{"id": 7, "status": CANARY, CANARY: CANARY}]),
        "/Conversions": http(f"<html>{CANARY}".encode(), Content_Type="text/html"),
        "/Predictions": document([{"id": 7, "status": "running", CANARY: {CANARY: 1}}]),
    }
    with odd(answers) as server:
        connection(base_url=server.base_url)
        code, rows, errors = live()
        assert code == 1
        assert CANARY not in json.dumps(rows) + errors
        file = tmp_path / "evidence.json"
        assert main(["contract", "evidence", "-o", str(file)]) == 0
        assert CANARY not in file.read_text() + capfd.readouterr().out


def test_evidence_has_the_problems_once(connection, tmp_path):
    """The watch sees the same responses."""
    file = tmp_path / "evidence.json"
    with odd({"/Users": document({"id": 1}), "/Trainings": document([{**JOB, "status": "Baking"}] * 2)}) as server:
        connection(base_url=server.base_url)
        assert main(["contract", "evidence", "-o", str(file)]) == 0
    seen = read_evidence(file).operations["training.list"]
    assert [(problem.kind, problem.seen) for problem in seen.problems] == [("word", "Baking")]
    assert seen.words == {"Baking": 2}
    assert seen.fields["[].progress"] == ("number",)


def test_the_output_of_a_process_of_its_own_is_only_the_document(connection):
    """Airflow logs to the standard output when it is first imported."""
    connection()
    for command in (["check", "--json"], ["contract", "check", "--live", "--json"]):
        script = str(Path(sys.executable).parent / "osai-airflow")
        done = subprocess.run([script, *command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["ok"] is True
