"""``osai-airflow models``: the champions that gates promoted, and rollbacks that gates and tasks obey."""

from __future__ import annotations

import json
import os
import subprocess

import pytest
from airflow.models.asset import AssetEvent
from airflow.models.log import Log
from airflow.utils.session import create_session
from sqlalchemy import select

from airflow_provider_osai.cli.promotions import PromotionLog
from airflow_provider_osai.plugins.pages.models import history
from airflow_provider_osai.plugins.pages.queries import EventRecord, model_events
from tests.cli.conftest import QUIET, SCRIPT
from tests.conftest import DAGS
from tests.dags import parse

DAG = """
from airflow.sdk import DAG, task
from airflow_provider_osai.assets import champion_model_id, osai_model
from airflow_provider_osai.operators.gate import OsaiModelGateOperator

champion = osai_model("defects")

with DAG("champions", schedule=None, params={"candidate": {}}, render_template_as_native_obj=True):
    gate = OsaiModelGateOperator(
        task_id="gate", candidate="{{ params.candidate }}", champion=champion, allow_different_data=True
    )

    @task(inlets=[champion], trigger_rule="all_done")
    def current():
        return champion_model_id(champion)

    gate >> current()
"""


@pytest.fixture
def promote(osai_sandbox, logged):
    """Let the gate decide on a model with an accuracy; return the champion as a task of the Dag sees it then."""
    from tests.airflow.conftest import Ran

    DAGS.mkdir(parents=True, exist_ok=True)
    path = DAGS / "champions_of_cli.py"
    path.write_text(DAG)
    dag = parse(path).dags["champions"]

    def run(model_id, accuracy):
        ran = Ran(dag.test(run_conf={"candidate": {"model_id": model_id, "metrics": {"accuracy": accuracy}}}))
        assert ran.state == "success", ran.tasks
        return ran.xcom("current")

    yield run
    path.unlink()


@pytest.fixture
def three(promote):
    """The champions a, b and c, one after the other."""
    for model_id, accuracy in (("a", 0.7), ("b", 0.8), ("c", 0.9)):
        assert promote(model_id, accuracy) == model_id


class TestChampion:
    def test_is_that_of_the_gate_and_of_tasks(self, cli, promote):
        assert promote("a", 0.8) == "a"
        assert promote("b", 0.7) == "a"
        result = cli("models", "champion", "defects")
        assert (result.code, result.out, result.err) == (0, "a\n", "")
        assert cli("models", "champion", "osai://eu/models/defects").out == "a\n"
        champion = cli("models", "champion", "defects", "--json").json["champion"]
        assert (champion["model_id"], champion["metrics"], champion["outcome"]) == ("a", {"accuracy": 0.8}, "promoted")
        assert (champion["task"]["dag_id"], champion["task"]["task_id"]) == ("champions", "gate")

    def test_is_listed(self, cli, promote):
        promote("a", 0.8)
        result = cli("models", "list")
        assert result.rows[0] == ["NAME", "CHAMPION", "SINCE", "METRICS", "DAGS", "ASSET"]
        (row,) = [row for row in result.rows[1:] if row[0] == "defects"]
        assert (*row[:2], *row[3:]) == ("defects", "a", "accuracy", "0.8", "champions", "osai://eu/models/defects")
        (model,) = [each for each in cli("models", "list", "--json").json["models"] if each["name"] == "defects"]
        assert (model["name"], model["champion"]["model_id"], model["dag_ids"]) == ("defects", "a", ["champions"])

    def test_an_unknown_name_is_an_error_with_the_nearest(self, cli, promote):
        promote("a", 0.8)
        assert "Did you mean 'defects'?" in cli("models", "champion", "defect").error
        assert "osai-airflow models list" in cli("models", "champion", "xyzzy").error

    def test_without_models_the_list_is_empty(self, cli, osai_sandbox):
        assert cli("models", "list", "--json").json == {"models": []}
        assert len(cli("models", "list").rows) == 1
        result = cli("models", "champion", "defects")
        assert (result.code, result.out) == (1, "")

    def test_a_database_that_cannot_be_read_is_one_line(self, cli, osai_sandbox):
        from airflow import settings

        engine = settings.engine
        with pytest.MonkeyPatch.context() as patch:  # which ends before osai_sandbox restores Airflow's database
            patch.setattr(settings, "SQL_ALCHEMY_CONN", "sqlite:////nowhere/at/all.db")
            patch.setattr(settings, "SQL_ALCHEMY_CONN_ASYNC", "sqlite+aiosqlite:////nowhere/at/all.db")
            settings.configure_orm()
            result = cli("models", "list", "--json")
        assert (result.code, result.out) == (1, "")
        assert "airflow db check" in result.err.splitlines()[-1]
        assert engine is not settings.engine

    @pytest.mark.parametrize(("words", "code"), [("models list", 1), ("orphans", 2), ("jobs orphans", 2)])
    def test_a_database_that_was_never_migrated_is_one_line_with_the_command(
        self, osai_sandbox, tmp_path, monkeypatch, words, code
    ):
        monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", f"sqlite:///{tmp_path}/new.db")
        done = subprocess.run(
            [SCRIPT, *words.split()], env=os.environ | QUIET, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout) == (code, "")
        error = done.stderr.splitlines()[-1]
        assert error.startswith(f"osai-airflow {words}: Airflow's database cannot be used: ")
        assert "If it is new, or Airflow was upgraded, run 'airflow db migrate'" in error


class TestRollback:
    def test_goes_to_the_champion_before_and_further_back_the_next_time(self, cli, promote, three):
        for before, after in (("c", "b"), ("b", "a")):
            result = cli("models", "rollback", "defects", "--yes", "--json")
            assert result.json == {
                "name": "defects",
                "uri": "osai://eu/models/defects",
                "from": before,
                "to": after,
                "changed": True,
            }
            assert cli("models", "champion", "defects").out == f"{after}\n"
        result = cli("models", "rollback", "defects", "--yes")
        assert (result.code, result.out) == (1, "")
        assert "there is no champion before model a" in result.error

    def test_gates_and_tasks_obey_it(self, cli, promote, three):
        assert cli("models", "rollback", "defects", "--to", "a", "--yes").code == 0
        assert promote("d", 0.6) == "a"
        assert promote("e", 0.75) == "e"

    def test_is_in_the_history_with_its_user_and_reason_and_in_the_audit_log(self, cli, three):
        assert cli("models", "rollback", "defects", "--yes", "--reason", "c fails on <b>glass</b>").code == 0
        with create_session() as session:
            extra = session.scalars(select(AssetEvent.extra).order_by(AssetEvent.id.desc())).first()
            owner, details = session.execute(
                select(Log.owner, Log.extra).where(Log.event == "osai_models_rollback")
            ).one()
        assert (extra["model_id"], extra["metrics"]) == ("b", {"accuracy": 0.8})
        assert extra["rollback"]["replaces"] == "c"
        assert extra["rollback"]["reason"] == json.loads(details)["reason"] == "c fails on <b>glass</b>"
        assert extra["rollback"]["by"] == owner != ""
        models = cli("models", "list", "--json").json["models"]
        (asset_id,) = {model["asset_id"] for model in models if model["name"] == "defects"}
        entry = history(model_events([asset_id])[asset_id], ())[-1]
        assert (entry.outcome, entry.model_id, entry.is_champion) == ("rolled back", "b", True)

    def test_to_the_champion_changes_nothing(self, cli, three):
        result = cli("models", "rollback", "defects", "--to", "c", "--json")
        assert (result.code, result.json["changed"]) == (0, False)
        with create_session() as session:
            assert len(session.scalars(select(AssetEvent.id)).all()) == 3

    def test_to_a_model_that_was_never_champion_is_refused(self, cli, three):
        error = cli("models", "rollback", "defects", "--to", "x", "--yes").error
        assert error.endswith("model 'x' was never its champion. Choose one of these: c, b, a.")

    def test_without_a_terminal_it_needs_yes(self, cli, three):
        assert cli("models", "rollback", "defects").code == 2
        assert cli("models", "champion", "defects").out == "c\n"

    def test_with_a_connection_a_model_that_osai_lacks_is_refused(self, cli, three):
        result = cli("models", "rollback", "defects", "--yes", "--conn-id", "osai_default")
        assert result.code == 1
        assert "OSAI has no model b (404)" in result.error
        assert cli("models", "champion", "defects").out == "c\n"

    def test_a_champion_that_changes_at_the_question_is_not_overridden(self, cli, promote, three, monkeypatch):
        """The user who confirms has seen another champion."""
        monkeypatch.setattr("airflow_provider_osai.cli.models.confirm", lambda *_, **__: bool(promote("d", 0.95)))
        error = cli("models", "rollback", "defects", "--yes").err.splitlines()[-1]
        assert error.endswith("the champion has changed in the meantime, to d. Run the command again.")
        assert cli("models", "champion", "defects").out == "d\n"


@pytest.mark.parametrize(
    ("log", "before"),
    [
        ("", None),
        ("A", None),
        ("ABC", "B"),
        ("ABCb", "A"),
        ("ABCa", None),
        ("ABa", None),
        ("ABA", "B"),
        ("ABCbD", "B"),
        ("ABCbDb", "A"),
        ("Abb", "A"),
        ("ABAb", "A"),
    ],
)
def test_the_champion_before_is_never_one_that_was_rolled_back(log, before):
    """A capital letter is a promotion by a gate, a small one an event by hand."""
    events, champion = [], None
    for number, letter in enumerate(log):
        model_id = letter.upper()
        decided = {"decision": {}, "replaces": champion} if letter.isupper() else {}
        events.append(EventRecord(number, {"model_id": model_id, "metrics": {"n": number}, **decided}, None))
        champion = model_id
    entry = PromotionLog(1, "osai://eu/models/x", "x", (), history(events, ())).previous()
    assert (entry and entry.model_id) == before
