"""Models for hardware: convert one, and take its file home."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowSkipException

from airflow_provider_osai.api.errors import OsaiArgumentError, OsaiUnsupported
from airflow_provider_osai.api.requests import ConversionRequest
from airflow_provider_osai.data.downloads import Download, download_model
from airflow_provider_osai.jobs.conversions import existing, explained
from airflow_provider_osai.operators.base import OsaiFlowOperator
from airflow_provider_osai.operators.job import OsaiJobOperator
from airflow_provider_osai.operators.storage import at_hand

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath

    from airflow_provider_osai.api.calls import Calls
    from airflow_provider_osai.api.client import OsaiClient
    from airflow_provider_osai.api.models import Job
    from airflow_provider_osai.jobs.flow import Flow

__all__ = ["OsaiConvertModelOperator", "OsaiDownloadModelOperator"]


class OsaiConvertModelOperator(OsaiJobOperator):
    """Converts a model for a kind of hardware, unless it already is. Returns also ``conversion_id`` and ``reused``.

    OSAI converts every model to three hardware types by itself and to others on request, which may be charged; those
    that are impossible it marks UNSUPPORTED (docs.onestepai.com/model_creation_and_training/hardware_and_conversions).
    The calls are assumed. Further arguments: see ``OsaiJobOperator``, and docs/models.md.

    :param model_id: the model.
    :param target: the hardware. The names that OSAI knows are not described; the sandbox really converts ``onnx``.
    :param if_exists: ``reuse`` (default): take a conversion for this target that has succeeded before, whoever asked
        for it; or ``convert``: ask for one in any case. Without the assumed operation ``model.conversions`` the same.
    :param if_unsupported: ``fail`` (default), at once and for good, or ``skip`` the task.
    :raises OsaiUnsupported: if such a conversion is impossible; nothing is submitted if OSAI has said so before.
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
        """Return the conversion to ask for."""
        for name, choice in {"if_exists": ("reuse", "convert"), "if_unsupported": ("fail", "skip")}.items():
            if getattr(self, name) not in choice:
                raise OsaiArgumentError(f"{name} = {getattr(self, name)!r}: choose {' or '.join(choice)}")
        return ConversionRequest(model_id=self.model_id, target=self.target)

    def instead(self, calls: Calls) -> Flow[Job | None]:
        """Return the job of a conversion that is already there."""
        job = None
        if self.if_exists == "reuse":
            try:
                job = yield from existing(calls, str(self.model_id), self.target, self.log.warning)
            except OsaiUnsupported as error:
                raise self._end((yield from self._explained(calls, error))) from error
        self._reused = job is not None
        return job

    def report(self, client: OsaiClient, job: Job) -> dict[str, Any]:
        """Return the references and whether the conversion was there already."""
        try:
            return {**super().report(client, job), "reused": self._reused}
        except OsaiUnsupported as error:
            raise self._end(self._run(client, self._explained(client.calls, error))) from error

    def _explained(self, calls: Calls, error: OsaiUnsupported) -> Flow[OsaiUnsupported]:
        return explained(calls, error, str(self.model_id), self.target)

    def _end(self, error: OsaiUnsupported) -> Exception:
        return AirflowSkipException(str(error)) if self.if_unsupported == "skip" else error


class OsaiDownloadModelOperator(OsaiFlowOperator):
    """Fetches a model's file to this machine or into a storage: resumed, checked, and never half under its name.

    Returns ``model_id``, ``target``, ``path``, ``bytes`` and ``sha256``. OSAI's documentation (docs.onestepai.com) does
    not describe downloads; the call is assumed. See docs/models.md for what happens when a connection breaks.

    :param model_id: the model.
    :param target: the hardware that it was converted for; ``None``: the model itself.
    :param destination: where to. A path of the worker, or of a storage: an ``ObjectStoragePath`` or its text
        (``s3://my_conn@bucket/models/``). With a slash at the end, or as a folder that exists, it takes the name that
        OSAI gives the file, else ``<model_id>-<target>``. What is there already is replaced when the new file is whole.
    :param sha256: the file's SHA-256, hexadecimal, if it is known beforehand. What OSAI announces is checked anyway.
    :param osai_conn_id: the connection's id.
    :raises OsaiDownloadFailed: if the file did not come whole, or is another than was announced; a retry goes on where
        it can.
    :raises AirflowFailException: on a bad value, a place where nobody may write, or a model or target that is unknown.
    """

    template_fields = ("model_id", "target", "destination", "sha256", *OsaiFlowOperator.template_fields)

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

    def build_flow(self, calls: Calls) -> Flow[dict[str, Any]]:
        """Return the flow that fetches the file."""
        return download_model(
            calls,
            Download(
                model_id=self.model_id,
                target=self.target,
                destination=at_hand(self.destination),
                is_folder=str(self.destination).endswith("/"),
                sha256=self.sha256,
                stopped=lambda: self.is_killed,
                say=self.log.info,
            ),
        )
