"""Images into a dataset."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow_provider_osai.api.requests import OnBadFile, UploadRequest
from airflow_provider_osai.data.sources import source_of
from airflow_provider_osai.data.survey import survey
from airflow_provider_osai.operators.base import OsaiTransferOperator
from airflow_provider_osai.operators.ledger import upload_memory_of
from airflow_provider_osai.operators.storage import path_at
from airflow_provider_osai.uploads.uploader import Uploader

if TYPE_CHECKING:
    from airflow.sdk import Asset, Context

    from airflow_provider_osai.api.client import OsaiClient

__all__ = ["OsaiUploadImagesOperator"]


class OsaiUploadImagesOperator(OsaiTransferOperator):
    """Sends images into a dataset, many at once, with their categories and annotations; missing categories are made.

    What the dataset has already, or what an earlier try of the task sent, is not sent again. The dataset is locked
    while images are sent, and unlocked again whatever happens. See docs/uploads.md.

    Returns ``dataset_id``, ``images`` (of the source, in the dataset now), ``sent``, ``known`` (there before),
    ``bytes`` (sent), ``bad`` (up to 50 skipped files with reasons), ``bad_count``, ``categories``, and ``digest`` (of
    images, categories and annotations). Locking, categories and multipart are documented
    (docs.onestepai.com/how_to_use_api/image_upload, /datasets/bulk_upload); path, fields and image list are assumed.

    :param dataset_id: the dataset.
    :param source: a folder, a pattern (``data/**/*.png``), a zip or tar archive, or a list of files; on the worker or
        in object storage (``s3://``, ``gs://``, ...). The folder that an image lies in is its category, with spaces as
        underscores; without one it is in "Other".
    :param source_conn_id: the connection to the object storage.
    :param categories: categories by pattern, before the folders' names; for instance ``{"ok/*": "good"}``.
    :param annotations: whether to read COCO, YOLO and Pascal VOC files beside the images.
    :param min_images_per_category: refuse fewer; OSAI trains on at least 3 (/pl/model-creation-and-training). 0: any.
    :param max_concurrency: images on their way at the same time, 1 to 64.
    :param on_bad_file: ``fail`` (default), if possible before anything is sent, or ``skip``: log, return, leave out.
    :param trained: the asset that a training makes (never mapped): if its last event is of this data, the task skips.
    :param osai_conn_id: the connection's id.
    :raises AirflowFailException: on a bad value or file, or if OSAI refuses something.
    :raises OsaiUnreachable: if OSAI does not answer or the dataset is locked; a retry goes on where this try ended.
    """

    template_fields = (
        *("dataset_id", "source", "source_conn_id", "categories", "max_concurrency", "on_bad_file", "trained"),
        *OsaiTransferOperator.template_fields,
    )

    def __init__(
        self,
        *,
        dataset_id: str,
        source: Any,
        source_conn_id: str | None = None,
        categories: Mapping[str, str] | None = None,
        annotations: bool = True,
        min_images_per_category: int = 3,
        max_concurrency: int = 10,
        on_bad_file: str = OnBadFile.FAIL.value,
        trained: Asset | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(trained=trained, **kwargs)
        self.dataset_id = dataset_id
        self.source = source
        self.source_conn_id = source_conn_id
        self.categories = categories
        self.annotations = annotations
        self.min_images_per_category = min_images_per_category
        self.max_concurrency = max_concurrency
        self.on_bad_file = on_bad_file

    def build_transfer(self, client: OsaiClient, context: Context) -> Uploader:
        """Look through the source, and return what sends it."""
        rule, most = self.on_bad_file, self.max_concurrency
        wish = UploadRequest(dataset_id=self.dataset_id, max_concurrency=most, on_bad_file=rule)
        source = source_of(self.source, partial(path_at, conn_id=self.source_conn_id))
        found = survey(source, self.categories, self.min_images_per_category, annotations=self.annotations)
        if wish.on_bad_file is OnBadFile.FAIL:
            found.must_be_good(source.label)
        return Uploader(client, wish, source, found, memory=upload_memory_of(context), tell=self.log.info)
