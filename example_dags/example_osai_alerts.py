"""Alerts: a mail after each decision of a gate. It needs a connection ``smtp_default`` to a mail server."""

from datetime import timedelta

from airflow.providers.smtp.notifications.smtp import SmtpNotifier
from airflow.sdk import DAG, Param

from airflow_provider_osai.assets import osai_model
from airflow_provider_osai.operators.dataset import OsaiCreateDatasetOperator, OsaiUploadImagesOperator
from airflow_provider_osai.operators.gate import OsaiModelGateOperator
from airflow_provider_osai.operators.training import OsaiTrainModelOperator

# Metric names and ids are OSAI's text, so they are escaped in HTML.
mail = SmtpNotifier(
    from_email="airflow@example.com",
    to="{{ params.mail_to }}",
    subject="Model {{ osai_gate.model_id }} is {{ osai_gate.decision }}",
    html_content="""
        <p>{{ osai_gate.reasons | join("; ") | e }}</p>
        <p>accuracy {{ osai_gate.metrics.accuracy }}
        {% if osai_gate.champion %}(champion {{ osai_gate.champion.metrics.accuracy }}){% endif %}</p>
        <p><a href="{{ ti.log_url }}">Log of the gate</a></p>
    """,
)

with DAG(
    "example_osai_alerts",
    schedule=None,
    catchup=False,
    default_args={"retries": 2, "execution_timeout": timedelta(hours=2)},
    params={
        "images": Param("images", type="string", description="Folder on the worker; sub-folders are categories"),
        "mail_to": Param("vision@example.com", type="string", description="Address, or several with commas"),
    },
    tags=["osai", "example"],
    doc_md=__doc__,
) as dag:
    data = OsaiCreateDatasetOperator(task_id="create_dataset", name="alerts {{ run_id }}")
    upload = OsaiUploadImagesOperator(
        task_id="upload_images", dataset_id=data.output["dataset_id"], source="{{ params.images }}"
    )
    train = OsaiTrainModelOperator(
        task_id="train_model",
        dataset_ids=upload.output["dataset_id"],
        data_digest=upload.output["data_digest"],
        model_name="alerts",
        deferrable=True,
        poll_interval=10,
    )
    OsaiModelGateOperator(
        task_id="gate",
        candidate=train.output,
        champion=osai_model("alerts"),
        threshold=0.8,
        on_promoted=mail,
        on_rejected=mail,
    )
