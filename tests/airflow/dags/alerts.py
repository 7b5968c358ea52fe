"""Gates that call functions and notifiers, as somebody would write them by the documentation."""

from __future__ import annotations

from pathlib import Path

from airflow.providers.smtp.notifications.smtp import SmtpNotifier
from airflow.sdk import DAG, BaseNotifier, task

from airflow_provider_osai.assets import osai_model
from airflow_provider_osai.operators.gate import OsaiModelGateOperator

PARAMS = {"candidates": [], "file": "none"}


class Note(BaseNotifier):
    """Appends its text to a file."""

    template_fields = ("file", "text")

    def __init__(self, file, text):
        super().__init__()
        self.file = file
        self.text = text

    def notify(self, context):
        """Append the rendered text."""
        with Path(self.file).open("a") as file:
            file.write(f"{self.text}\n")


@task
def candidates(params):
    """Return what trainings would."""
    return params["candidates"]


@task
def first(params):
    """Return what a training would."""
    return params["candidates"][0]


@task
def follows():
    """Follow a gate."""


def broken(context):
    """Fail, and skip nothing."""
    raise RuntimeError(f"nobody hears of {context['osai_gate']['model_id']}")


note = Note("{{ params.file }}", "{{ osai_gate.model_id }} {{ osai_gate.decision }} by {{ ti.task_id }}")
told = {"on_promoted": [broken, note], "on_rejected": [note, broken]}

with DAG("alerts_mapped", schedule=None, params=PARAMS):
    OsaiModelGateOperator.partial(task_id="gate", champion=osai_model("alerts-mapped"), **told).expand(
        candidate=candidates()
    )

with DAG("alerts_branch", schedule=None, params=PARAMS):
    gate = OsaiModelGateOperator(
        task_id="gate",
        candidate=first(),
        champion=osai_model("alerts-branch"),
        rejected_task_ids="rejected",
        **told,
    )
    gate >> [follows.override(task_id="promoted")(), follows.override(task_id="rejected")()]

with DAG("alerts_mail", schedule=None, params=PARAMS):
    mail = SmtpNotifier(from_email="a@example.com", to="b@example.com", subject="{{ osai_gate.decision }}")
    OsaiModelGateOperator(
        task_id="gate", candidate=first(), champion=osai_model("alerts-mail"), on_promoted=[mail, note]
    )
