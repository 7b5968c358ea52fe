"""Datasets: make or reuse one, fill it with images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_osai.data.datasets import IfExists, ensure_dataset
from airflow_provider_osai.operators.base import OsaiFlowOperator
from airflow_provider_osai.operators.upload import OsaiUploadImagesOperator

if TYPE_CHECKING:
    from airflow_provider_osai.api.calls import Calls
    from airflow_provider_osai.jobs.flow import Flow

__all__ = ["OsaiCreateDatasetOperator", "OsaiUploadImagesOperator"]


class OsaiCreateDatasetOperator(OsaiFlowOperator):
    """Makes a dataset with its categories, or takes the one of that name.

    Returns ``dataset_id``, ``name``, ``created`` and ``categories`` (id by name). Making datasets and categories is
    documented (docs.onestepai.com/how_to_use_api/image_upload); finding one by its name is assumed, and without it
    (``dataset.find`` bound to ``null``) every run makes a new one.

    :param name: the dataset's name.
    :param categories: names of the categories to have; those that are missing are made.
    :param if_exists: ``reuse`` (default) or ``fail``.
    :param osai_conn_id: the connection's id.
    :raises AirflowFailException: on a bad value, or if the dataset is there and *if_exists* is ``fail``.
    """

    template_fields = ("name", "categories", "if_exists", *OsaiFlowOperator.template_fields)

    def __init__(
        self, *, name: str, categories: Sequence[str] = (), if_exists: str = IfExists.REUSE.value, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.name = name
        self.categories = categories
        self.if_exists = if_exists

    def build_flow(self, calls: Calls) -> Flow[dict[str, Any]]:
        """Return the flow that makes or finds the dataset."""
        return ensure_dataset(calls, self.name, self.categories, self.if_exists)
