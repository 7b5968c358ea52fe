"""Datasets: make or reuse one, fill it with images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_osai.data.datasets import IfExists, ensure_dataset, upload_images
from airflow_provider_osai.data.images import scan_folder
from airflow_provider_osai.operators.base import OsaiFlowOperator

if TYPE_CHECKING:
    from airflow_provider_osai.api.calls import Calls
    from airflow_provider_osai.jobs.flow import Flow

__all__ = ["OsaiCreateDatasetOperator", "OsaiUploadImagesOperator"]

PROGRESS_EVERY = 500
"""Images between two lines of progress."""


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


class OsaiUploadImagesOperator(OsaiFlowOperator):
    """Sends the images of a folder into a dataset; the sub-folders are the categories, and missing ones are made.

    The dataset is locked meanwhile, and unlocked again whatever happens. Returns ``dataset_id``, ``images`` (how many)
    and ``categories``. Locking, categories and multipart are documented
    (docs.onestepai.com/how_to_use_api/image_upload, /datasets/bulk_upload); the image's path and fields are assumed.

    :param dataset_id: the dataset.
    :param source: a folder on the worker. Spaces in the sub-folders' names become underscores; images beside the
        sub-folders are in "Other".
    :param min_images_per_category: refuse a folder with fewer images of a category; OSAI trains on at least 3
        (/pl/model-creation-and-training). 0 takes any number.
    :param osai_conn_id: the connection's id.
    :raises AirflowFailException: if the folder is missing or empty, holds a file that is no image, or too few images of
        a category; nothing is sent then.
    """

    template_fields = ("dataset_id", "source", *OsaiFlowOperator.template_fields)

    def __init__(self, *, dataset_id: str, source: str, min_images_per_category: int = 3, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dataset_id = dataset_id
        self.source = source
        self.min_images_per_category = min_images_per_category

    def build_flow(self, calls: Calls) -> Flow[dict[str, Any]]:
        """Return the flow that sends the images."""
        images = scan_folder(self.source, min_images_per_category=self.min_images_per_category)
        return upload_images(calls, self.dataset_id, images, self._report)

    def _report(self, sent: int, of: int) -> None:
        if sent == of or sent % PROGRESS_EVERY == 0:
            self.log.info("Sent %s of %s images", sent, of)
