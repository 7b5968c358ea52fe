"""Operators for models on hardware: convert a model, and download its file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowSkipException

from airflow_provider_osai.api.errors import OsaiArgumentError, OsaiUnsupported
from airflow_provider_osai.api.requests import ConversionRequest
from airflow_provider_osai.downloads.download import Download, DownloadedModel, download_model
from airflow_provider_osai.jobs.conversions import explain_unsupported, find_conversion
from airflow_provider_osai.operators._paths import as_path
from airflow_provider_osai.operators.base import OsaiClientOperator
from airflow_provider_osai.operators.job import OsaiJobOperator

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath

    from airflow_provider_osai.api.client import OsaiClient
    from airflow_provider_osai.api.models import Job

__all__ = ["OsaiConvertModelOperator", "OsaiDownloadModelOperator"]


class OsaiConvertModelOperator(OsaiJobOperator):
    """Converts a model for a hardware target, unless it is converted already.

    Also returns ``model_id``, ``conversion_id`` and ``reused``: whether an earlier conversion was used.

    OSAI converts every model to three hardware types by itself and to others on request, which may be charged; it marks
    impossible ones UNSUPPORTED (docs.onestepai.com/model_creation_and_training/hardware_and_conversions). The requests
    are assumed. Further arguments: see ``OsaiJobOperator``, and docs/models.md.

    :param model_id: the model.
    :param target: the hardware. OSAI's names for it are not documented; the sandbox really converts to ``onnx``.
    :param if_exists: ``reuse`` (default): use an earlier successful conversion for this target, by any client;
        or ``convert``: request a conversion in any case, as also happens without the assumed ``model.conversions``.
    :param if_unsupported: ``fail`` (default), without retries, or ``skip`` the task.
    :raises OsaiUnsupported: if the conversion is impossible; nothing is submitted if OSAI has already marked it so.
    """

    template_fields = ("model_id", "target", "if_exists", "if_unsupported", *OsaiJobOperator.template_fields)

    def __init__(
        self, *, model_id: str, target: str, if_exists: str = "reuse", if_unsupported: str = "fail", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.model_id = model_id
        self.target = target
        self.if_exists = if_exists
        self.if_unsupported = if_unsupported
        self._reused = False

    def build_request(self) -> ConversionRequest:
        """Return the request for the job."""
        for name, choice in {"if_exists": ("reuse", "convert"), "if_unsupported": ("fail", "skip")}.items():
            if getattr(self, name) not in choice:
                raise OsaiArgumentError(f"{name} = {getattr(self, name)!r}: choose {' or '.join(choice)}")
        return ConversionRequest(model_id=self.model_id, target=self.target)

    def find_existing_result(self, client: OsaiClient) -> Job | None:
        """Return the job of an earlier successful conversion."""
        job = None
        if self.if_exists == "reuse":
            try:
                job = find_conversion(client, str(self.model_id), self.target, self.log.warning)
            except OsaiUnsupported as error:
                raise self._explain(client, error) from error
        self._reused = job is not None
        return job

    def build_result(self, client: OsaiClient, job: Job) -> dict[str, Any]:
        """Return the result, and whether an earlier conversion was reused."""
        try:
            # The API need not report the model that the conversion is of.
            return {"model_id": str(self.model_id), **super().build_result(client, job), "reused": self._reused}
        except OsaiUnsupported as error:
            raise self._explain(client, error) from error

    def _explain(self, client: OsaiClient, error: OsaiUnsupported) -> Exception:
        explained = explain_unsupported(client, error, str(self.model_id), self.target)
        return AirflowSkipException(str(explained)) if self.if_unsupported == "skip" else explained


class OsaiDownloadModelOperator(OsaiClientOperator):
    """Downloads a model's file to the worker or to object storage. Resumes, verifies, and replaces the file atomically.

    Returns ``model_id``, ``target``, ``path``, ``bytes`` and ``sha256``. OSAI's documentation (docs.onestepai.com) does
    not describe downloads; the request is assumed. See docs/models.md for what happens when a connection breaks.

    :param model_id: the model.
    :param target: the hardware that the model was converted for; ``None`` (default): the model itself.
    :param destination: a path on the worker or in object storage: an ``ObjectStoragePath`` or its text
        (``s3://my_conn@bucket/models/``). If it ends with a slash or is an existing folder, the file gets the name that
        OSAI sends, else ``<model_id>-<target>``. An existing file is replaced once the new one is complete.
    :param sha256: the expected SHA-256 of the file, hexadecimal, if known. Digests that OSAI sends are always checked.
    :param osai_conn_id: the connection's id.
    :raises OsaiDownloadFailed: if the download is incomplete or does not match its digest; a retry resumes it if it
        can.
    :raises AirflowFailException: on an invalid value, a destination without write permission, or an unknown model or
        target.
    """

    template_fields = ("model_id", "target", "destination", "sha256", *OsaiClientOperator.template_fields)

    def __init__(
        self,
        *,
        model_id: str,
        destination: str | ObjectStoragePath,
        target: str | None = None,
        sha256: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.model_id = model_id
        self.target = target
        self.destination = destination
        self.sha256 = sha256

    def run_with_client(self, client: OsaiClient) -> DownloadedModel:
        """Download the file."""
        return download_model(
            client,
            Download(
                model_id=self.model_id,
                target=self.target,
                destination=as_path(self.destination),
                is_folder=str(self.destination).endswith("/"),
                sha256=self.sha256,
                stopped=lambda: self.is_killed,
                log=self.log.info,
            ),
        )
