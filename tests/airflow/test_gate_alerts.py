"""A gate tells people: whole Dags that send real mail, post to a webhook, and are stored without their secrets."""

from __future__ import annotations

import functools
import json
import re
import textwrap

import pytest
from airflow.providers.smtp.notifications.smtp import SmtpNotifier
from airflow.sdk import DAG, BaseNotifier
from airflow.serialization import serialized_objects
from fastapi import FastAPI, Request

from airflow_provider_osai.api.errors import OsaiArgumentError
from airflow_provider_osai.assets import osai_model
from airflow_provider_osai.operators.gate import OsaiModelGateOperator
from tests.airflow.conftest import Ran, forget_asset_events
from tests.airflow.test_mapped_operators import candidate
from tests.conftest import CANARY, ROOT
from tests.dags import parse
from tests.mail_server import MailServer, body
from tests.threaded_server import served

ARGUMENTS = ("on_promoted", "on_rejected")


@pytest.fixture
def mail_server(monkeypatch):
    """A mail server with its connection ``smtp_default``. The password is the canary, so it must not be logged."""
    with MailServer(CANARY).running() as server:
        monkeypatch.setenv("AIRFLOW_CONN_SMTP_DEFAULT", json.dumps(server.connection))
        yield server


@pytest.fixture
def chat(monkeypatch):
    """A server in place of Slack's; the requests that it received, as path and document."""
    app, received = FastAPI(), []

    @app.post("/{path:path}")
    async def post(path: str, request: Request):
        received.append((path, await request.json()))
        return "ok"

    with served(app) as address:
        document = {"conn_type": "slackwebhook", "host": address, "password": CANARY}
        monkeypatch.setenv("AIRFLOW_CONN_SLACK_DEFAULT", json.dumps(document))
        yield received


class TestWholeDags:
    def test_example_mails_a_promotion_and_then_a_rejection(self, run_dag, connection, images, mail_server):
        runs = [run_dag("example_osai_alerts", images=str(images), mail_to="ann@example.com") for _ in range(2)]
        assert [(ran.state, ran.tasks["gate"]) for ran in runs] == [("success", "success"), ("success", "skipped")]
        gates = [ran.xcom("gate") for ran in runs]
        subjects = [f"Model {gate['model_id']} is {gate['decision']}" for gate in gates]
        assert [gate["decision"] for gate in gates] == ["promoted", "rejected"]
        assert [mail["Subject"] for mail in mail_server.received] == subjects
        assert {mail["To"] for mail in mail_server.received} == {"ann@example.com"}
        promoted, rejected = map(body, mail_server.received)
        assert "there was no champion" in promoted
        assert "(champion " not in promoted
        assert f"(champion {gates[0]['metrics']['accuracy']})" in rejected

    def test_each_instance_of_a_mapped_gate_sends_its_own_text(self, run_dag, connection, tmp_path, logged):
        """Also in one process, where Airflow's notifiers keep the text of their first rendering."""
        candidates = [candidate("a", 0.5), candidate("b", 0.9), candidate("c", 0.1)]
        ran = run_dag("alerts_mapped", candidates=candidates, file=str(tmp_path / "notes"))
        decided = {f"{name} {ran.result('gate', 'decision', index)} by gate" for index, name in enumerate("abc")}
        assert ran.state == "success", ran.tasks
        assert set((tmp_path / "notes").read_text().splitlines()) == decided
        assert "Callback 1 of 2, broken, failed and is ignored: RuntimeError: nobody hears of b" in logged()

    @pytest.mark.parametrize(("accuracy", "decision"), [(0.9, "promoted"), (None, "rejected")])
    def test_branch_is_the_decision_after_a_failed_callback(self, run_dag, connection, tmp_path, accuracy, decision):
        ran = run_dag("alerts_branch", candidates=[candidate("a", accuracy)], file=str(tmp_path / "notes"))
        other = {"promoted": "rejected", "rejected": "promoted"}[decision]
        assert (ran.tasks["gate"], ran.tasks[decision], ran.tasks[other]) == ("success", "success", "skipped")
        assert (tmp_path / "notes").read_text() == f"a {decision} by gate\n"

    def test_mail_that_cannot_be_sent_is_logged_and_the_next_callback_runs(
        self, run_dag, connection, tmp_path, monkeypatch, logged
    ):
        document = {"conn_type": "smtp", "host": "127.0.0.1", "port": 1, "login": "airflow", "password": CANARY}
        document["extra"] = {"disable_ssl": True, "retry_limit": 1}
        monkeypatch.setenv("AIRFLOW_CONN_SMTP_DEFAULT", json.dumps(document))
        ran = run_dag("alerts_mail", candidates=[candidate("a", 0.9)], file=str(tmp_path / "notes"))
        assert ran.tasks["gate"] == "success"
        assert (tmp_path / "notes").read_text() == "a promoted by gate\n"
        assert re.search("Callback 1 of 2, SmtpNotifier, failed and is ignored: .*Connection refused", logged())

    def test_mail_with_a_rejected_password_changes_nothing(
        self, run_dag, connection, tmp_path, mail_server, monkeypatch
    ):
        document = json.dumps(mail_server.connection | {"password": f"not {CANARY}"})
        monkeypatch.setenv("AIRFLOW_CONN_SMTP_DEFAULT", document)
        ran = run_dag("alerts_mail", candidates=[candidate("a", 0.9)], file=str(tmp_path / "notes"))
        assert ran.tasks["gate"] == "success"
        assert mail_server.received == []


HEAD = """
from airflow.sdk import DAG
from airflow_provider_osai.assets import osai_model
from airflow_provider_osai.operators.gate import OsaiModelGateOperator

champion = osai_model("told")
result = {"model_id": MODEL, "metrics": {"accuracy": ACCURACY}, "data_digest": "data 1"}

with DAG("told", schedule=None):
"""


@pytest.fixture
def run_snippet(dagbag, tmp_path, monkeypatch):
    """Run a snippet of docs/gate.md with a candidate; return the state of its gate."""
    from airflow import settings

    forget_asset_events()
    page = (ROOT / "docs/gate.md").read_text()
    section = page.partition("## Tell people")[2].partition("\n## ")[0]
    snippets = re.findall(r"```python\n(.*?)```", section, re.DOTALL)

    def run(word, model, accuracy):
        (snippet,) = (snippet for snippet in snippets if word in snippet)
        assert "candidate=train.output" in snippet
        source = textwrap.indent(snippet.replace("train.output", "result"), "    ")
        head = HEAD.replace("MODEL", repr(model)).replace("ACCURACY", repr(accuracy))
        (tmp_path / "told.py").write_text(head + source)
        monkeypatch.setattr(settings, "DAGS_FOLDER", str(tmp_path))
        monkeypatch.setenv("AIRFLOW__CORE__DAGS_FOLDER", str(tmp_path))
        return Ran(parse(tmp_path).dags["told"].test()).tasks["gate"]

    return run


class TestSnippets:
    """Those of docs/gate.md, against servers on this machine."""

    def test_slack_gets_a_message_after_each_decision(self, run_snippet, connection, chat):
        assert run_snippet("Slack", "good", 0.95) == "success"
        assert run_snippet("Slack", "poor", 0.1) == "skipped"
        (path, promoted), (_, rejected) = chat
        assert path == CANARY
        assert promoted["text"] == "Model good is promoted: there was no champion"
        assert rejected["text"].startswith("Model poor is rejected: accuracy is 0.1, required: at least 0.9 and better")

    def test_mail_is_sent_after_a_rejection_only(self, run_snippet, connection, mail_server):
        assert run_snippet("SmtpNotifier", "good", 0.95) == "success"
        assert mail_server.received == []
        assert run_snippet("SmtpNotifier", "poor", "<b>high</b>") == "skipped"
        (mail,) = mail_server.received
        assert (mail["To"], mail["Subject"]) == ("vision@example.com", "Model poor is not promoted")
        assert "accuracy is &#39;&lt;b&gt;high&lt;/b&gt;&#39; for the candidate, not a number" in body(mail)


class Secretive(BaseNotifier):
    """Shows its secret, as a dataclass would."""

    def __init__(self, secret):
        super().__init__()
        self.secret = secret

    def __repr__(self):
        return f"Secretive({self.secret!r})"

    def notify(self, context):
        raise AssertionError


def post(context, url):
    raise AssertionError


def secret_callbacks():
    """One of each sort; each has a secret in its ``repr`` or its source, but the first, which has no source."""
    made = {}
    exec("def sourceless(context): return 'hidden-0'", made)
    return [
        made["sourceless"],
        Secretive("hidden-1"),
        lambda context: "hidden-2",
        functools.partial(post, url="https://user:hidden-3@host"),
        SmtpNotifier(to="hidden-4@example.com", html_content="{{ var.value.hidden_5 }}"),
    ]


def serialized(**options):
    """The stored text of a Dag with a gate by itself and a mapped one."""
    given = {"champion": osai_model("stored"), **options}
    with DAG("stored", schedule=None) as dag:
        OsaiModelGateOperator(task_id="alone", candidate="a", **given)
        OsaiModelGateOperator.partial(task_id="mapped", **given).expand(candidate=["a", "b"])
    serialization = getattr(serialized_objects, "DagSerialization", None) or serialized_objects.SerializedDAG
    stored = serialization.to_dict(dag)
    assert set(serialization.from_dict(stored).task_dict) == {"alone", "mapped"}
    return json.dumps(stored, sort_keys=True)


class TestSerialization:
    @pytest.mark.parametrize("several", [True, False])
    def test_stored_dag_holds_no_secret_and_is_the_same_in_each_parse(self, several):
        def stored():
            values = [secret_callbacks()] if several else secret_callbacks()
            return [serialized(**dict.fromkeys(ARGUMENTS, value)) for value in values]

        first, again = stored(), stored()
        assert first == again
        assert not re.search("hidden|0x[0-9a-f]{6}", "\n".join(first))

    def test_stored_dag_without_callbacks_does_not_name_them(self):
        assert not re.search("on_promoted|on_rejected", serialized())
        assert serialized() == serialized(on_promoted=None, on_rejected=None)

    @pytest.mark.parametrize("name", ARGUMENTS)
    def test_mapping_over_callbacks_is_refused(self, name):
        """Airflow would store what is mapped over."""
        partial = OsaiModelGateOperator.partial(task_id="gate", champion=osai_model("stored"))
        with pytest.raises(OsaiArgumentError, match=rf"mapped over {name}: .*partial\(\)"):
            partial.expand(candidate=["a"], **{name: [post]})
        with pytest.raises(OsaiArgumentError, match=rf"mapped over {name}: .*partial\(\)"):
            partial.expand_kwargs([{"candidate": "a", name: post}])
