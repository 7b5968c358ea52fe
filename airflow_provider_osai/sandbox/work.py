"""What each kind of job does: for real where the sandbox can, else simulated, and then the job says so."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from airflow_provider_osai.api.manipulation import ManipulationRequest
from airflow_provider_osai.api.models import JobKind, JobState
from airflow_provider_osai.api.requests import (
    ConversionRequest,
    DeviceRentalRequest,
    ModelType,
    PredictionMode,
    PredictionRequest,
    RetrainingRequest,
    TrainingRequest,
)
from airflow_provider_osai.sandbox import learning
from airflow_provider_osai.sandbox.changes import Step, Variant, variants
from airflow_provider_osai.sandbox.records import (
    DatasetRecord,
    ImageRecord,
    JobProblem,
    JobRecord,
    Label,
    ModelRecord,
    Outcome,
)

if TYPE_CHECKING:
    from airflow_provider_osai.sandbox.state import SandboxState

__all__ = ["Work"]

MAX_IMAGES = 20_000
"""Images that a manipulation may make; a guard for the disk."""
UNSUPPORTED = "unsupported"
"""The conversion target that is always impossible, as some are in OSAI."""


class Work:
    """Does jobs on the things of one sandbox. Called on a worker's thread, without the state's lock."""

    def __init__(self, state: SandboxState) -> None:
        self._state = state
        self._doers: dict[JobKind, Callable[..., Outcome]] = {
            JobKind.TRAINING: self._train,
            JobKind.RETRAINING: self._train,
            JobKind.CONVERSION: self._convert,
            JobKind.PREDICTION: self._predict,
            JobKind.MANIPULATION: self._manipulate,
            JobKind.DEVICE_RENTAL: self._rent,
        }

    def perform(self, job: JobRecord) -> Outcome:
        """Do the job for real.

        :raises JobProblem: if it cannot succeed.
        :raises JobStopped: if it was cancelled.
        """
        return self._doers[job.kind](job, simulated=False)

    def simulate(self, job: JobRecord) -> Outcome:
        """Make up a result at once."""
        return self._doers[job.kind](job, simulated=True)

    def _train(self, job: JobRecord, *, simulated: bool) -> Outcome:
        request = cast("TrainingRequest | RetrainingRequest", job.request)
        base = self._state.models.get(request.model_id) if isinstance(request, RetrainingRequest) else None
        model_type = request.model_type if isinstance(request, TrainingRequest) else base.model_type if base else ""
        simulated = simulated or model_type == ModelType.DETECTION or (base is not None and base.classifier is None)
        if simulated:
            return self._simulated_training(request.model_name, request.dataset_ids, model_type)
        like = base.classifier.settings if base else None
        settings = learning.settings_from(request.parameters, like=like)
        images = [pair for dataset_id in request.dataset_ids for pair in self._snapshot(dataset_id)]
        # The same data give the same model, in whatever order they came.
        images.sort(key=lambda pair: (pair[0].digest, pair[0].file_name))
        known = [(image.path, name) for image, name in images if name]
        classifier, metrics = learning.train(
            [path for path, _ in known],
            [name for _, name in known],
            settings,
            lambda line, progress: self._each_epoch(job, line, progress),
            base=base.classifier if base else None,
        )
        model = ModelRecord(
            self._state.new_id(), request.model_name, str(model_type), metrics, classifier.categories, classifier
        )
        ignored = f"parameters that mean nothing here: {', '.join(settings.ignored)}" if settings.ignored else None
        return self._trained(model, ignored)

    def _simulated_training(self, name: str, dataset_ids: list[str], model_type: str) -> Outcome:
        with self._state.lock:
            datasets = [self._state.datasets.get(dataset_id) for dataset_id in dataset_ids]
            names = sorted({category.name for dataset in datasets for category in dataset.categories.values()})
            count = sum(len(dataset.images) for dataset in datasets)
        metrics = {"accuracy": 0.9, "f1": 0.9, "loss": 0.3, "images": count, "categories": len(names)}
        model = ModelRecord(self._state.new_id(), name, str(model_type), metrics, tuple(names))
        return self._trained(model, "simulated: nothing was learned")

    def _trained(self, model: ModelRecord, message: str | None) -> Outcome:
        result = {"modelId": model.id, "metrics": model.metrics}
        return Outcome(message=message, result=result, effect=partial(self._state.add_model, model))

    def _each_epoch(self, job: JobRecord, line: dict[str, Any], progress: float) -> None:
        job.checkpoint()
        if line:
            with self._state.lock:
                job.history.append(line)
                job.progress = progress

    def _convert(self, job: JobRecord, *, simulated: bool) -> Outcome:
        request = cast("ConversionRequest", job.request)
        target = request.target.casefold()
        if target == UNSUPPORTED:
            msg = f"UNSUPPORTED: models of this type cannot be converted for {request.target}"
            raise JobProblem(msg)
        model = self._state.model(request.model_id)
        simulated = simulated or target != "onnx" or model.classifier is None
        content = b"simulated conversion\n" if simulated else learning.to_onnx(model.classifier)
        job.checkpoint()
        conversion_id = self._state.new_id()
        path = self._state.folder / f"{conversion_id}.{'bin' if simulated else 'onnx'}"
        path.write_bytes(content)

        def effect() -> None:
            model.files[target] = path
            self._state.add_model(model)

        message = f"simulated: the file for {request.target} holds no model" if simulated else None
        result = {"modelId": model.id, "conversionId": conversion_id, "metrics": {"bytes": len(content)}}
        return Outcome(message=message, result=result, effect=effect)

    def _predict(self, job: JobRecord, *, simulated: bool) -> Outcome:
        request = cast("PredictionRequest", job.request)
        model = self._state.model(request.model_id)
        images = self._snapshot(request.dataset_id)
        chosen = [pair for pair in images if not (request.mode is PredictionMode.UNANNOTATED and pair[0].is_annotated)]
        simulated = simulated or model.classifier is None
        if simulated:
            names = model.categories or ("simulated",)
            said = [(names[index % len(names)], 0.9) for index in range(len(chosen))]
        else:
            said = model.classifier.classify([image.path for image, _ in chosen], job.checkpoint)
        job.checkpoint()
        pairs = zip(chosen, said, strict=True)
        sure = [(image, *saying) for (image, _), saying in pairs if saying[1] >= request.min_confidence]
        metrics = _prediction_metrics(len(images), len(sure), chosen, said)
        message = "simulated: the labels are made up" if simulated else None
        result = {"datasetId": request.dataset_id, "metrics": metrics}
        return Outcome(message=message, result=result, effect=partial(self._write_labels, request, sure))

    def _write_labels(self, request: PredictionRequest, sure: list[tuple[ImageRecord, str, float]]) -> None:
        dataset = self._state.datasets.get(request.dataset_id)
        for image, name, confidence in sure:
            category = self._state.datasets.ensure_category(dataset, name)
            label = Label(category.id, name, round(confidence, 5))
            if request.mode is PredictionMode.REPLACE:
                image.category_id, image.annotations, image.labels = None, None, [label]
                self._state.datasets.changed(dataset)
            else:
                image.labels.append(label)
        self._state.datasets.keep(dataset, [image for image, _, _ in sure])

    def _manipulate(self, job: JobRecord, *, simulated: bool) -> Outcome:
        request = cast("ManipulationRequest", job.request)
        with self._state.lock:
            dataset = self._state.datasets.get(request.dataset_id)
            source, categories = dataset.snapshot(), list(dataset.categories.values())
        target = self._state.datasets.draft(request.name)
        ids = {one.id: self._state.datasets.ensure_category(target, one.name).id for one in categories}
        steps = [] if simulated else request.operations
        metrics = {"images": len(source), "images_made": 0, "images_left_out": 0, "annotations_left_out": 0}
        try:
            for index, (image, category) in enumerate(source):
                self._vary(job, target, image, category, steps, ids, metrics)
                job.progress = (index + 1) / len(source)
        except BaseException:
            shutil.rmtree(target.folder, ignore_errors=True)
            raise
        lost = metrics["annotations_left_out"]
        message = f"{lost} turned images have no annotations: the sandbox does not turn them" if lost else None
        message = "simulated: the images were copied" if simulated else message
        result = {"datasetId": target.id, "metrics": metrics}
        return Outcome(message=message, result=result, effect=partial(self._state.datasets.add, target))

    def _vary(
        self,
        job: JobRecord,
        target: DatasetRecord,
        image: ImageRecord,
        category: str | None,
        steps: Sequence[Step],
        ids: Mapping[str, str],
        metrics: dict[str, int],
    ) -> None:
        from PIL import Image  # noqa: PLC0415 - heavy

        chance = random.Random(metrics["images_made"])  # noqa: S311 - repeatable, not secret
        with Image.open(image.path) as opened:
            original = opened.convert("RGB") if opened.mode not in ("L", "RGB") else opened.copy()

        def left_out() -> None:
            job.checkpoint()
            metrics["images_left_out"] += 1

        for made in variants(Variant(original), steps, chance, left_out):
            job.checkpoint()
            if metrics["images_made"] >= MAX_IMAGES:
                msg = f"the operations make more than {MAX_IMAGES} images"
                raise JobProblem(msg)
            path = target.folder / self._state.new_id()
            made.image.save(path, format="PNG")
            annotations = None if made.is_turned else with_ids(image.annotations, ids)
            self._state.datasets.adopt_image(target, path, image, category, annotations)
            metrics["images_made"] += 1
            metrics["annotations_left_out"] += bool(made.is_turned and image.annotations)

    def _rent(self, job: JobRecord, *, simulated: bool) -> Outcome:  # noqa: ARG002 - it always is
        request = cast("DeviceRentalRequest", job.request)
        message = f"simulated: there is no {request.device} here"
        metrics = {"duration": request.duration}
        return Outcome(message=message, result={"deviceId": self._state.new_id(), "metrics": metrics})

    def _snapshot(self, dataset_id: str) -> list[tuple[ImageRecord, str | None]]:
        with self._state.lock:
            return self._state.datasets.get(dataset_id).snapshot()


def with_ids(annotations: Any, ids: Mapping[str, str]) -> Any:
    """Return annotations of an image for its copy in another dataset, whose categories have other *ids*."""
    if isinstance(annotations, list):
        return [with_ids(one, ids) for one in annotations]
    if not isinstance(annotations, dict):
        return annotations
    return {
        name: ids.get(str(value), value) if name == "categoryId" else with_ids(value, ids)
        for name, value in annotations.items()
    }


def forced(job: JobRecord, state: JobState) -> Outcome:
    """Return the end that a script forces on a job."""
    return Outcome(state, job.script.message or f"simulated: the sandbox was told that this job ends as {state}")


def _prediction_metrics(
    images: int, labelled: int, chosen: list[tuple[ImageRecord, str | None]], said: list[tuple[str, float]]
) -> dict[str, Any]:
    metrics: dict[str, Any] = {"images": images, "labelled": labelled, "skipped": images - labelled}
    if said:
        metrics["mean_confidence"] = round(sum(confidence for _, confidence in said) / len(said), 5)
    known = [known == name for (_, known), (name, _) in zip(chosen, said, strict=True) if known]
    if known:
        metrics["accuracy"] = round(sum(known) / len(known), 5)
    return metrics
