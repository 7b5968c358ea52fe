"""Datasets: make or reuse one, fill it with images, make a larger one out of it, delete one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_osai.api.manipulation import BrightnessContrast, ManipulationRequest, Resize, Rotation
from airflow_provider_osai.data.datasets import ensure_dataset
from airflow_provider_osai.data.existing import PATIENCE, IfExists, IfMissing, delete_dataset, make_way
from airflow_provider_osai.operators.base import OsaiFlowOperator
from airflow_provider_osai.operators.job import OsaiJobOperator
from airflow_provider_osai.operators.upload import OsaiUploadImagesOperator

if TYPE_CHECKING:
    from airflow_provider_osai.api.calls import Calls
    from airflow_provider_osai.jobs.flow import Flow

__all__ = [
    "BrightnessContrast",
    "OsaiCreateDatasetOperator",
    "OsaiDeleteDatasetOperator",
    "OsaiManipulateDatasetOperator",
    "OsaiUploadImagesOperator",
    "Resize",
    "Rotation",
]


class OsaiCreateDatasetOperator(OsaiFlowOperator):
    """Makes a dataset with its categories, or takes the one of that name.

    Returns ``dataset_id``, ``name``, ``created`` and ``categories`` (id by name). Making datasets and categories is
    documented (docs.onestepai.com/how_to_use_api/image_upload); finding one by its name is assumed, and without it
    (``dataset.find`` bound to ``null``) every run makes a new one.

    :param name: the dataset's name.
    :param categories: names of the categories to have; those that are missing are made.
    :param if_exists: what to do if there is one of that name: ``reuse`` it (default), ``fail``, ``replace`` it (delete
        it with its images, then make it anew; refused if several have the name), or make a ``new`` one beside it.
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


class OsaiManipulateDatasetOperator(OsaiJobOperator):
    """Makes a new, larger dataset out of one. Returns also ``dataset_id``, that of the new one, and ``metrics``.

    The operations and their ranges are documented (docs.onestepai.com/datasets/data_augumentation); the call itself is
    assumed. Further arguments: see ``OsaiJobOperator``.

    :param dataset_id: the dataset; it stays as it is.
    :param name: the new dataset's name.
    :param operations: ``Rotation``, ``BrightnessContrast`` and ``Resize`` in the order in which they are done, each at
        most once. Dicts with a ``type`` (``rotation``, ``brightness_contrast``, ``resize``; assumed words), one
        operation alone, and JSON text are taken too.
    :param if_exists: what to do if a dataset has that name, before a job is submitted: make a ``new`` one beside it
        (default), ``fail``, or ``replace`` it (delete it first, even if the job fails then; refused if several have
        the name, and for the *dataset_id* itself). A retry that adopts its job leaves the job's result alone.
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
        """Return the manipulation to ask for."""
        return ManipulationRequest(dataset_id=self.dataset_id, name=self.name, operations=self.operations)

    def instead(self, calls: Calls) -> Flow[None]:
        """Do with a dataset of the new one's name what *if_exists* says; a new job is submitted in any case."""
        request = self.build_request()
        return make_way(calls, request.name, self.if_exists, source_id=request.dataset_id)


class OsaiDeleteDatasetOperator(OsaiFlowOperator):
    """Deletes a dataset with its images; also as the teardown of the task that makes it.

    Returns ``dataset_id`` and ``deleted``: whether it was there. That a dataset is locked while an upload is open is
    documented (docs.onestepai.com/how_to_use_api/image_upload); deleting one is assumed.

    :param dataset_id: the dataset. An id that is missing, since the task that should have made it made none, counts as
        no dataset.
    :param if_missing: ``ignore`` (default): succeed if there is no such dataset; ``fail``.
    :param patience: seconds to wait while an upload locks it or a job works on it, default 600. Then the task fails,
        and its ``retries`` go on.
    :param osai_conn_id: the connection's id.
    :raises OsaiUnreachable: if it was in use for longer than *patience*.
    :raises AirflowFailException: on a bad value, or if it is not there and *if_missing* is ``fail``.
    """

    template_fields = ("dataset_id", "if_missing", *OsaiFlowOperator.template_fields)

    def __init__(
        self,
        *,
        dataset_id: str | None,
        if_missing: str = IfMissing.IGNORE.value,
        patience: float = PATIENCE,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.dataset_id = dataset_id
        self.if_missing = if_missing
        self.patience = patience

    def build_flow(self, calls: Calls) -> Flow[dict[str, Any]]:
        """Return the flow that deletes the dataset."""
        return delete_dataset(calls, self.dataset_id, self.if_missing, self.patience, self.log.info)
