"""Operators for datasets: create or reuse one, upload images, augment it into a larger one, delete one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_osai.api.manipulation import BrightnessContrast, ManipulationRequest, Resize, Rotation
from airflow_provider_osai.data.datasets import (
    BUSY_TIMEOUT,
    DeletedDataset,
    EnsuredDataset,
    IfExists,
    IfMissing,
    apply_if_exists,
    delete_dataset,
    ensure_dataset,
)
from airflow_provider_osai.data.log_lines import quoted
from airflow_provider_osai.operators.base import OsaiClientOperator
from airflow_provider_osai.operators.job import OsaiJobOperator
from airflow_provider_osai.operators.upload import OsaiUploadImagesOperator

if TYPE_CHECKING:
    from airflow_provider_osai.api.client import OsaiClient
    from airflow_provider_osai.api.models import Job

__all__ = [
    "BrightnessContrast",
    "OsaiCreateDatasetOperator",
    "OsaiDeleteDatasetOperator",
    "OsaiManipulateDatasetOperator",
    "OsaiUploadImagesOperator",
    "Resize",
    "Rotation",
]


class OsaiCreateDatasetOperator(OsaiClientOperator):
    """Creates a dataset with its categories, or reuses the one with that name.

    Returns ``dataset_id``, ``name``, ``created`` and ``categories`` (ids by name). Creating datasets and categories is
    documented (docs.onestepai.com/how_to_use_api/image_upload); finding one by its name is assumed, and without it
    (``dataset.find`` set to ``null`` in the contract) every run creates a new one.

    :param name: the dataset's name.
    :param categories: names of categories; those that the dataset lacks are created. Default: none.
    :param if_exists: what to do if a dataset has that name: ``reuse`` it (default), ``fail``, ``replace`` it (delete it
        with its images, then create it; rejected if several have the name), or create a ``new`` one with the same name.
    :param osai_conn_id: the connection's id.
    :raises AirflowFailException: on an invalid value, or if the dataset exists and *if_exists* is ``fail``.
    """

    template_fields = ("name", "categories", "if_exists", *OsaiClientOperator.template_fields)

    def __init__(
        self, *, name: str, categories: Sequence[str] = (), if_exists: str = IfExists.REUSE.value, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.name = name
        self.categories = categories
        self.if_exists = if_exists

    def run_with_client(self, client: OsaiClient) -> EnsuredDataset:
        """Create or find the dataset."""
        return ensure_dataset(client, self.name, self.categories, self.if_exists, partial(self.log.info, "%s"))


class OsaiManipulateDatasetOperator(OsaiJobOperator):
    """Creates a new, larger dataset from a dataset (augmentation). Also returns its ``dataset_id``, and ``metrics``.

    The operations and their ranges are documented (docs.onestepai.com/datasets/data_augumentation); the request itself
    is assumed. Further arguments: see ``OsaiJobOperator``.

    :param dataset_id: the source dataset; it is not changed.
    :param name: the new dataset's name.
    :param operations: ``Rotation``, ``BrightnessContrast`` and ``Resize`` in the order in which they are applied, each
        at most once. Also accepted: dicts with a ``type`` (``rotation``, ``brightness_contrast``, ``resize``; assumed
        words), a single operation, and JSON text.
    :param if_exists: what to do if a dataset has that name, before a job is submitted: create a ``new`` one with the
        same name (default), ``fail``, or ``replace`` it (delete it first, even if the job then fails; rejected if
        several have the name, and for the *dataset_id* itself). A retry that reconnects to its job replaces nothing.
    """

    template_fields = ("dataset_id", "name", "operations", "if_exists", *OsaiJobOperator.template_fields)
    template_fields_renderers: ClassVar[dict[str, str]] = {"operations": "json"}

    def __init__(
        self,
        *,
        dataset_id: str,
        name: str,
        operations: Sequence[Mapping[str, Any]] | Mapping[str, Any] | str,
        if_exists: str = IfExists.NEW.value,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.dataset_id = dataset_id
        self.name = name
        self.operations = operations
        self.if_exists = if_exists

    def build_request(self) -> ManipulationRequest:
        """Return the request for the job."""
        return ManipulationRequest(dataset_id=self.dataset_id, name=self.name, operations=self.operations)

    def find_existing_result(self, client: OsaiClient) -> None:
        """Apply *if_exists* to a dataset with the new one's name; a job is submitted in any case."""
        request = self.build_request()
        log = partial(self.log.info, "%s")
        apply_if_exists(client, request.name, self.if_exists, source_id=request.dataset_id, log=log)

    def build_result(self, client: OsaiClient, job: Job) -> dict[str, Any]:
        """Return the result, and log which dataset was created from which."""
        result = super().build_result(client, job)
        request = self.build_request()
        dataset = f"dataset {result['dataset_id']}" if result.get("dataset_id") else "a dataset of unknown id"
        steps = ", ".join(step.type for step in request.operations)
        line = "Created %s %s from dataset %s with %s; metrics: %.500s"
        self.log.info(line, dataset, quoted(request.name), request.dataset_id, steps, json.dumps(result["metrics"]))
        return result


class OsaiDeleteDatasetOperator(OsaiClientOperator):
    """Deletes a dataset with its images; also usable as the teardown of the task that creates it.

    Returns ``dataset_id`` and ``deleted``: whether it existed. That a dataset is locked while an upload is open is
    documented (docs.onestepai.com/how_to_use_api/image_upload); deleting one is assumed.

    :param dataset_id: the dataset. An empty id, because the task that should have created it created none, counts as no
        dataset.
    :param if_missing: ``ignore`` (default): succeed if there is no such dataset; or ``fail``.
    :param timeout: maximum seconds to wait while an upload locks it or a job uses it, default 600. After that the task
        fails, and its ``retries`` apply.
    :param osai_conn_id: the connection's id.
    :raises OsaiUnreachable: if it was in use for longer than *timeout*.
    :raises AirflowFailException: on an invalid value, or if it does not exist and *if_missing* is ``fail``.
    """

    template_fields = ("dataset_id", "if_missing", *OsaiClientOperator.template_fields)

    def __init__(
        self,
        *,
        dataset_id: str | None,
        if_missing: str = IfMissing.IGNORE.value,
        timeout: float = BUSY_TIMEOUT,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.dataset_id = dataset_id
        self.if_missing = if_missing
        self.timeout = timeout

    def run_with_client(self, client: OsaiClient) -> DeletedDataset:
        """Delete the dataset."""
        return delete_dataset(client, self.dataset_id, self.if_missing, self.timeout, partial(self.log.info, "%s"))
