"""Edge model: convert a model for a hardware target, and download the file (docs/models.md).

Runs unchanged against the sandbox and OSAI; only the connection ``osai_default`` differs. If OSAI cannot convert the
model for the target, both tasks are skipped.
"""

from datetime import timedelta

from airflow.sdk import DAG, Param

from airflow_provider_osai.operators.conversion import OsaiConvertModelOperator, OsaiDownloadModelOperator

with DAG(
    "example_osai_edge_model",
    schedule=None,
    catchup=False,
    default_args={"retries": 2, "execution_timeout": timedelta(hours=1)},
    params={
        "model_id": Param("", type="string", description="Model id"),
        "target": Param("onnx", type="string", description="Hardware target"),
        "destination": Param("/tmp/models/", type="string", description="Folder, or object storage: s3://conn@bucket/"),  # noqa: S108
    },
    tags=["osai", "example"],
    doc_md=__doc__,
) as dag:
    convert = OsaiConvertModelOperator(
        task_id="convert_model",
        model_id="{{ params.model_id }}",
        target="{{ params.target }}",
        if_unsupported="skip",
        deferrable=True,
        poll_interval=10,
    )
    OsaiDownloadModelOperator(
        task_id="download_model",
        model_id=convert.output["model_id"],
        target="{{ params.target }}",
        destination="{{ params.destination }}",
        retries=3,
    )
