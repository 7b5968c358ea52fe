"""An asset alias in the outlets gets the asset that the task has made, whose id is only known at run time."""

from __future__ import annotations

from urllib.parse import urlsplit

from airflow.models.asset import AssetAliasModel, AssetEvent, AssetModel
from airflow.utils.session import create_session
from sqlalchemy import select


def events():
    """The URI and the extra of all events."""
    with create_session() as session:
        query = select(AssetModel.uri, AssetEvent.extra).join(AssetEvent, AssetEvent.asset_id == AssetModel.id)
        return {row.uri: row.extra for row in session.execute(query.order_by(AssetEvent.id))}


def test_a_training_and_an_upload_add_the_assets_that_they_made(run_dag, connection, sandbox, images):
    """With what the task returns; a conversion makes neither a model nor a dataset."""
    ran = run_dag("alias", images=str(images))
    assert ran.state == "success"
    host = urlsplit(sandbox.base_url).netloc
    model, dataset = ran.result("train", "model_id"), ran.result("data", "dataset_id")
    found = events()
    assert set(found) == {f"osai://{host}/models/{model}", f"osai://{host}/datasets/{dataset}"}
    assert found[f"osai://{host}/models/{model}"]["metrics"] == ran.result("train", "metrics")
    assert found[f"osai://{host}/datasets/{dataset}"]["data_digest"] == ran.result("upload", "data_digest")
    with create_session() as session:
        names = session.execute(select(AssetAliasModel.name).where(AssetAliasModel.assets.any())).scalars().all()
    assert {"trained models", "uploaded datasets"} <= set(names)
    assert "converted models" not in names
