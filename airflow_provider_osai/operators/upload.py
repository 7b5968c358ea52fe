"""The operator that uploads images into a dataset."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Final

from airflow_provider_osai.api.errors import OsaiArgumentError, OsaiQualityCheckFailed
from airflow_provider_osai.api.requests import EMPTY_TEMPLATE_VALUES, OnInvalidFile, UploadRequest
from airflow_provider_osai.assets.data_changes import DATA_DIGEST, skip_if_unchanged
from airflow_provider_osai.assets.events import create_asset_events
from airflow_provider_osai.data.scan import MIN_TRAINING_IMAGES, ScanResult, scan_source
from airflow_provider_osai.data.sources import Source, open_source
from airflow_provider_osai.operators._outputs import push_outputs
from airflow_provider_osai.operators._paths import parse_path
from airflow_provider_osai.operators._state_store import upload_checkpoint_store
from airflow_provider_osai.operators.base import OsaiOperator, fail_without_retry
from airflow_provider_osai.uploads.uploader import Stopped, Uploader

if TYPE_CHECKING:
    from airflow.sdk import Asset, Context

    from airflow_provider_osai.api.client import OsaiClient
    from airflow_provider_osai.data.quality import QualityOptions, QualitySummary

__all__ = ["OsaiUploadImagesOperator"]

HOLDOUT: Final = "holdout"
"""Key of *validate_options* with the images that the model is evaluated with."""
QUALITY: Final = "quality"
"""Key of the summary of the data quality check in the result, and of its XCom."""


class OsaiUploadImagesOperator(OsaiOperator):
    """Uploads images concurrently into a dataset, with their categories and annotations; creates missing categories.

    Images already in the dataset, or uploaded by an earlier try of the task, are skipped. The dataset is locked during
    the upload and always unlocked at the end. See docs/uploads.md.

    Returns ``dataset_id``, ``images`` (number of the source's images now in the dataset), ``uploaded``, ``skipped``
    (already in the dataset), ``bytes`` (uploaded), ``invalid_files`` (up to 50 skipped files with the reasons),
    ``invalid_count``, ``categories``, ``images_by_category``, ``data_digest`` (SHA-256 of images, categories and
    annotations), and ``quality`` (summary of the data quality check, if *validate* is set). Locking, categories and
    multipart are documented (docs.onestepai.com/how_to_use_api/image_upload, /datasets/bulk_upload); path, fields and
    image list are assumed.

    :param dataset_id: the dataset's id.
    :param source: a folder, a pattern (``data/**/*.png``), a zip or tar archive, or a list of files; on the worker or
        in object storage (``s3://``, ``gs://``, ...). An image's category is its folder's name, with underscores
        instead of spaces, or "Other" outside of any folder.
    :param source_conn_id: the connection of the object storage.
    :param categories: categories by pattern, which take precedence over folder names, for instance
        ``{"ok/*": "good"}``.
    :param annotations: whether to read COCO, YOLO and Pascal VOC files in the source.
    :param min_images_per_category: minimum number of images; OSAI trains on at least 3
        (documented, /pl/model-creation-and-training). 0 accepts any number.
    :param max_concurrency: maximum concurrent uploads, 1 to 64.
    :param on_invalid_file: ``fail`` (default): fail the task, if possible before anything is uploaded; ``skip``: skip
        the file, and log and return its name.
    :param validate: check the images before anything is sent: that each can be decoded, duplicates, wrong labels and
        more, see docs/data-quality.md. ``None`` (default): no check; ``warn``: log the findings; ``fail``: fail the
        task on errors, without retries; ``strict``: on warnings, too. Needs the extra ``quality``.
    :param validate_options: thresholds of the check, as a dict, for instance ``{"max_imbalance": 20, "ignore":
        ["near-duplicate"]}``, and ``holdout``: images to compare with, in the forms of *source*. Default of
        ``min_images``: *min_images_per_category*, at most 3.
    :param skip_if_trained_on: the asset that a training updates (cannot be mapped): skip the task if the asset's last
        event has the same data.
    :param osai_conn_id: the OSAI connection's id.
    :raises AirflowFailException: on an invalid argument or file, or if OSAI rejects a request.
    :raises OsaiQualityCheckFailed: if the images do not pass *validate*; converted to AirflowFailException.
    :raises OsaiUnreachable: if OSAI does not respond or the dataset is locked; a retry continues the upload.
    """

    asset_arguments: ClassVar[Mapping[str, Sequence[str]]] = {"skip_if_trained_on": ("inlets",)}
    template_fields = (
        *(
            "dataset_id",
            "source",
            "source_conn_id",
            "categories",
            "max_concurrency",
            "on_invalid_file",
            "validate",
            "validate_options",
            "skip_if_trained_on",
        ),
        *OsaiOperator.template_fields,
    )

    def __init__(
        self,
        *,
        dataset_id: str,
        source: Any,
        source_conn_id: str | None = None,
        categories: Mapping[str, str] | None = None,
        annotations: bool = True,
        min_images_per_category: int = MIN_TRAINING_IMAGES,
        max_concurrency: int = 10,
        on_invalid_file: str = OnInvalidFile.FAIL.value,
        validate: str | None = None,
        validate_options: Mapping[str, Any] | None = None,
        skip_if_trained_on: Asset | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.skip_if_trained_on = skip_if_trained_on
        self._add_assets()
        self.dataset_id = dataset_id
        self.source = source
        self.source_conn_id = source_conn_id
        self.categories = categories
        self.annotations = annotations
        self.min_images_per_category = min_images_per_category
        self.max_concurrency = max_concurrency
        self.on_invalid_file = on_invalid_file
        self.validate = validate
        self.validate_options = validate_options
        self._quality: Any = None
        self._uploader: Uploader | None = None
        self._is_killed = False

    def execute(self, context: Context) -> dict[str, Any]:
        """Upload the images and return the summary; see the class."""
        with fail_without_retry(), self.hook.get_conn() as client:
            self._must_read_assets(context)
            self._uploader = self.build_uploader(client, context)
            if self._is_killed:
                self._uploader.stop()
            uploaded = self._uploader.run()
            if self._quality is not None:
                uploaded[QUALITY] = self._quality
            if self.skip_if_trained_on is not None:
                skip_if_unchanged(uploaded[DATA_DIGEST], self.skip_if_trained_on, context)
            create_asset_events(self, context, uploaded, client.settings.asset_region)
            return push_outputs(self, context, dict(uploaded), but={QUALITY})

    def on_kill(self) -> None:
        """Stop the upload and unlock the dataset; a retry uploads the remaining images. Signal-safe."""
        self._is_killed = True
        if self._uploader is not None:
            self._uploader.stop()

    def build_uploader(self, client: OsaiClient, context: Context) -> Uploader:
        """Scan the source, check its images if that is wanted, and return the upload, ready to run.

        :raises OsaiArgumentError: on an invalid argument or source, before anything is uploaded.
        :raises OsaiQualityCheckFailed: if the images do not pass the data quality check.
        """
        arguments = ("dataset_id", "max_concurrency", "on_invalid_file", "validate")
        request = UploadRequest(**{name: getattr(self, name) for name in arguments})
        options, holdout = (None, None) if request.validation is None else self._quality_options()
        source = open_source(self.source, partial(parse_path, conn_id=self.source_conn_id))
        # Errors of the scan wait for the check, which shows all findings together.
        minimum = self.min_images_per_category if options is None else 0
        scan = scan_source(source, self.categories, minimum, annotations=self.annotations)
        uploader = Uploader(
            client,
            request,
            source,
            scan,
            store=upload_checkpoint_store(context),
            log=partial(self.log.info, "%s"),
            warn=partial(self.log.warning, "%s"),
        )
        if options is not None:
            uploader.finish_earlier_upload()  # or the dataset would stay locked if the check fails
            self._check_quality(partial(self._validate, source, scan, request, options, holdout), context)
            scan.raise_for_few_images(source.label, self.min_images_per_category)
        if request.on_invalid_file is OnInvalidFile.FAIL:
            scan.raise_for_invalid_files(source.label)
        self.log.info("%s", scan.log_line(source.label))
        for line in scan.warnings():
            self.log.warning("%s", line)
        return uploader

    def _quality_options(self) -> tuple[QualityOptions, Source | None]:
        """Return the thresholds of the check, and the holdout to compare with.

        :raises OsaiArgumentError: on an invalid option, or if there is no such holdout.
        """
        from airflow_provider_osai.data.quality import QualityOptions  # most uploads do not need it
        from airflow_provider_osai.data.quality.check import holdout_error
        from airflow_provider_osai.uploads.validation import SETTINGS

        options = self.validate_options
        if options is None or (isinstance(options, str) and options.strip() in EMPTY_TEMPLATE_VALUES):
            options = {}
        if isinstance(options, Mapping):
            options = {"min_images": min(self.min_images_per_category, MIN_TRAINING_IMAGES), **options}
        holdout = options.pop(HOLDOUT, None) if isinstance(options, dict) else None
        thresholds = QualityOptions.of(options, others=(HOLDOUT,))
        if holdout is None or (isinstance(holdout, str) and holdout.strip() in EMPTY_TEMPLATE_VALUES):
            return thresholds, None
        if not isinstance(holdout, str | list | tuple) and not hasattr(holdout, "is_dir"):
            raise OsaiArgumentError(f"{SETTINGS[HOLDOUT]} = {str(holdout)[:200]}: must be a path or a list of files")
        try:
            return thresholds, open_source(holdout, partial(parse_path, conn_id=self.source_conn_id))
        except OsaiArgumentError as error:
            raise holdout_error(error, SETTINGS) from error

    def _validate(
        self, source: Source, scan: ScanResult, request: UploadRequest, options: QualityOptions, holdout: Source | None
    ) -> QualitySummary:
        from airflow_provider_osai.uploads.validation import validate_images

        return validate_images(
            source,
            scan,
            request,
            options,
            holdout=holdout,
            categories=self.categories,
            annotations=self.annotations,
            log=lambda level, line: self.log.log(level, "%s", line),
            is_stopped=lambda: self._is_killed,
        )

    def _check_quality(self, validate: Callable[[], QualitySummary], context: Context) -> None:
        from airflow_provider_osai.data.quality import CheckStopped

        try:
            self._quality = validate()
        except OsaiQualityCheckFailed as error:
            self._quality = error.summary
            raise
        except CheckStopped as error:
            raise Stopped("The task was killed while its images were checked; nothing was uploaded") from error
        finally:  # also for a task that fails, which has no result
            if self._quality is not None:
                context["ti"].xcom_push(QUALITY, dict(self._quality))
