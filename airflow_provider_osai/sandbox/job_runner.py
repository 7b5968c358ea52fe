"""Runs jobs of each kind: really where the sandbox can, otherwise simulated and marked as such.

Simulated jobs have no metrics, confusion matrix or sample predictions, since nothing was measured.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from airflow_provider_osai.api.manipulation import ManipulationRequest
from airflow_provider_osai.api.models import JobKind, JobState
from airflow_provider_osai.api.requests import (
    ConversionRequest,
    DeviceRentalRequest,
    JobRequest,
    ModelType,
    PredictionMode,
    PredictionRequest,
    RetrainingRequest,
    TrainingRequest,
)
from airflow_provider_osai.sandbox import image_features, training
from airflow_provider_osai.sandbox.augmentation import Step, Variant, variants
from airflow_provider_osai.sandbox.models import (
    DatasetRecord,
    ImageRecord,
    JobFailed,
    JobOutcome,
    JobRecord,
    Label,
    ModelRecord,
)

if TYPE_CHECKING:
    from airflow_provider_osai.sandbox.state import SandboxState

__all__ = ["MEASURED", "JobRunner"]

MAX_IMAGES = 20_000
"""Maximum number of images that a manipulation may generate, to limit disk use."""
ONNX = "onnx"
"""The only conversion target that is not simulated."""
IGNORED = ("framework", "pretrained_model", "template")
"""Fields of a training request without effect: the sandbox trains with scikit-learn, from scratch."""
MEASURED = frozenset({"metrics", "confusionMatrix", "samples"})
"""Fields of a result that a simulated job does not have."""
SAMPLES = 20
"""Maximum sample predictions of a job."""
UNSUPPORTED = "unsupported"
"""A conversion target that always fails, as some do in OSAI."""


class JobRunner:
    """Runs the jobs of one sandbox. Called on a worker thread, without the state's lock."""

    def __init__(self, state: SandboxState) -> None:
        self._state = state
        self._runners: dict[JobKind, Callable[..., JobOutcome]] = {
            JobKind.TRAINING: self._train,
            JobKind.RETRAINING: self._train,
            JobKind.CONVERSION: self._convert,
            JobKind.PREDICTION: self._predict,
            JobKind.MANIPULATION: self._manipulate,
            JobKind.DEVICE_RENTAL: self._rent,
        }

    def run(self, job: JobRecord) -> JobOutcome:
        """Run the job; really, if the sandbox can.

        :raises JobFailed: if it cannot succeed.
        :raises JobCancelled: if it was cancelled.
        """
        return self._run(job, simulated=self.is_simulated(job.request))

    def simulate(self, job: JobRecord) -> JobOutcome:
        """Return a simulated outcome at once."""
        return self._run(job, simulated=True)

    def is_simulated(self, request: JobRequest) -> bool:
        """Whether the sandbox can only simulate this request."""
        if isinstance(request, TrainingRequest):
            return request.model_type is ModelType.DETECTION
        if isinstance(request, ManipulationRequest):
            return False
        if isinstance(request, DeviceRentalRequest) or (
            isinstance(request, ConversionRequest) and request.target.casefold() != ONNX
        ):
            return True
        model = self._state.models.get(str(getattr(request, "model_id", "")))
        return model is None or model.classifier is None

    def _run(self, job: JobRecord, *, simulated: bool) -> JobOutcome:
        outcome = self._runners[job.kind](job, simulated=simulated)
        if not simulated or not outcome.result:
            return outcome
        return replace(outcome, result={name: each for name, each in outcome.result.items() if name not in MEASURED})

    def _train(self, job: JobRecord, *, simulated: bool) -> JobOutcome:
        request = cast("TrainingRequest | RetrainingRequest", job.request)
        base = self._state.models.get(request.model_id) if isinstance(request, RetrainingRequest) else None
        model_type = request.model_type if isinstance(request, TrainingRequest) else base.model_type if base else ""
        if simulated:
            return self._simulated_training(request.model_name, request.dataset_ids, model_type)
        base_settings = base.classifier.settings if base else None
        settings = training.parse_settings(request.parameters, base=base_settings)
        images = [pair for dataset_id in request.dataset_ids for pair in self._snapshot(dataset_id)]
        # So that the same images give the same model, whatever the order of their upload.
        images.sort(key=lambda pair: (pair[0].digest, pair[0].file_name))
        labelled = [(image.path, name) for image, name in images if name]
        classifier, evaluation = training.train(
            [path for path, _ in labelled],
            [name for _, name in labelled],
            settings,
            lambda epoch, progress: self._on_epoch(job, epoch, progress),
            base=base.classifier if base else None,
        )
        metrics, categories = evaluation.metrics, classifier.categories
        model = ModelRecord(self._state.new_id(), request.model_name, str(model_type), metrics, categories, classifier)
        matrix = evaluation.confusion_matrix
        return self._training_outcome(model, _ignored_message(request, settings.ignored), matrix)

    def _simulated_training(self, name: str, dataset_ids: list[str], model_type: str) -> JobOutcome:
        with self._state.lock:
            datasets = [self._state.datasets.get(dataset_id) for dataset_id in dataset_ids]
            names = sorted({category.name for dataset in datasets for category in dataset.categories.values()})
        model = ModelRecord(self._state.new_id(), name, str(model_type), {}, tuple(names))
        return self._training_outcome(model, "simulated: no model was trained")

    def _training_outcome(
        self, model: ModelRecord, message: str | None, matrix: dict[str, Any] | None = None
    ) -> JobOutcome:
        result = {"modelId": model.id, "metrics": model.metrics}
        if matrix is not None:
            result["confusionMatrix"] = matrix
        return JobOutcome(message=message, result=result, effect=partial(self._state.save_model, model))

    def _on_epoch(self, job: JobRecord, epoch: dict[str, Any], progress: float) -> bool:
        """Record an epoch; return whether to end the training.

        :raises JobCancelled: if the job was cancelled.
        """
        job.raise_if_cancelled()
        if epoch:
            with self._state.lock:
                job.history.append(epoch)
                job.progress = progress
        return job.finishing

    def _convert(self, job: JobRecord, *, simulated: bool) -> JobOutcome:
        request = cast("ConversionRequest", job.request)
        target = request.target.casefold()
        if target == UNSUPPORTED:
            msg = f"UNSUPPORTED: models of this type cannot be converted for {request.target}"
            raise JobFailed(msg)
        model = self._state.model(request.model_id)
        content = b"simulated conversion\n" if simulated else training.to_onnx(model.classifier)
        job.raise_if_cancelled()
        conversion_id = self._state.new_id()
        path = self._state.folder / f"{conversion_id}.{'simulated.txt' if simulated else 'onnx'}"
        path.write_bytes(content)

        def effect() -> None:
            model.files[target] = path
            self._state.save_model(model)

        message = f"simulated: the file for {request.target} contains no model" if simulated else None
        result = {"modelId": model.id, "conversionId": conversion_id, "metrics": {"bytes": len(content)}}
        return JobOutcome(message=message, result=result, effect=effect)

    def _predict(self, job: JobRecord, *, simulated: bool) -> JobOutcome:
        request = cast("PredictionRequest", job.request)
        model = self._state.model(request.model_id)
        images = self._snapshot(request.dataset_id)
        selected = [
            pair for pair in images if not (request.mode is PredictionMode.UNANNOTATED and pair[0].is_annotated)
        ]
        metrics: dict[str, Any] = {"images": len(images)}
        matrix = None
        if simulated:
            names = model.categories or ("simulated",)
            predictions = [(names[index % len(names)], 0.9) for index in range(len(selected))]
        else:
            paths = [image.path for image, _ in selected]
            probabilities = model.classifier.probabilities(paths, job.raise_if_cancelled)
            predictions = model.classifier.most_likely(probabilities)
            # Measured on the user's categories only, not on labels of earlier predictions; and not at all if the model
            # knows none of them, as after an upload without categories.
            annotated = [index for index, (image, _) in enumerate(selected) if image.category_id]
            if {selected[index][1] for index in annotated} & set(model.classifier.categories):
                truth = [str(selected[index][1]) for index in annotated]
                evaluation = training.measure(truth, probabilities[annotated], model.classifier.categories)
                metrics |= evaluation.metrics
                matrix = evaluation.confusion_matrix
        job.raise_if_cancelled()
        labels = [
            (image, name, confidence)
            for (image, _), (name, confidence) in zip(selected, predictions, strict=True)
            if confidence >= request.min_confidence
        ]
        metrics |= {"labelled": len(labels), "skipped": len(images) - len(labels)}
        if predictions:
            metrics["mean_confidence"] = round(sum(confidence for _, confidence in predictions) / len(predictions), 5)
        message = "simulated: the labels are not predictions of a model" if simulated else None
        result: dict[str, Any] = {"datasetId": request.dataset_id, "metrics": metrics}
        if matrix is not None:
            result["confusionMatrix"] = matrix
        if predictions:
            result["samples"] = _samples(selected, predictions)
        return JobOutcome(message=message, result=result, effect=partial(self._write_labels, request, labels))

    def _write_labels(self, request: PredictionRequest, labels: list[tuple[ImageRecord, str, float]]) -> None:
        dataset = self._state.datasets.get(request.dataset_id)
        for image, name, confidence in labels:
            category = self._state.datasets.ensure_category(dataset, name)
            label = Label(category.id, name, round(confidence, 5))
            if request.mode is PredictionMode.REPLACE:
                image.category_id, image.annotations, image.labels = None, None, [label]
                self._state.datasets.mark_updated(dataset)
            else:
                image.labels.append(label)
        self._state.datasets.save(dataset, [image for image, _, _ in labels])

    def _manipulate(self, job: JobRecord, *, simulated: bool) -> JobOutcome:
        request = cast("ManipulationRequest", job.request)
        with self._state.lock:
            dataset = self._state.datasets.get(request.dataset_id)
            source, categories = dataset.snapshot(), list(dataset.categories.values())
        target = self._state.datasets.draft(request.name)
        category_ids = {each.id: self._state.datasets.ensure_category(target, each.name).id for each in categories}
        steps = [] if simulated else request.operations
        metrics = {"images": len(source), "images_made": 0, "images_left_out": 0, "annotations_left_out": 0}
        try:
            for index, (image, category) in enumerate(source):
                self._add_variants(job, target, image, category, steps, category_ids, metrics)
                job.progress = (index + 1) / len(source)
        except BaseException:
            shutil.rmtree(target.folder, ignore_errors=True)
            raise
        count = metrics["annotations_left_out"]
        message = f"{count} rotated images have no annotations: the sandbox does not rotate them" if count else None
        message = "simulated: the images were copied" if simulated else message
        result = {"datasetId": target.id, "metrics": metrics}
        return JobOutcome(message=message, result=result, effect=partial(self._state.datasets.add, target))

    def _add_variants(
        self,
        job: JobRecord,
        target: DatasetRecord,
        image: ImageRecord,
        category: str | None,
        steps: Sequence[Step],
        category_ids: Mapping[str, str],
        metrics: dict[str, int],
    ) -> None:
        rng = random.Random(metrics["images_made"])  # reproducible, not secret
        original = image_features.read(image.path)

        def on_skipped() -> None:
            job.raise_if_cancelled()
            metrics["images_left_out"] += 1

        for variant in variants(Variant(original), steps, rng, on_skipped):
            job.raise_if_cancelled()
            if metrics["images_made"] >= MAX_IMAGES:
                msg = f"The operations generate more than {MAX_IMAGES} images, the sandbox's limit"
                raise JobFailed(msg)
            path = target.folder / self._state.new_id()
            variant.image.save(path, format="PNG")
            annotations = None if variant.is_turned else with_category_ids(image.annotations, category_ids)
            self._state.datasets.add_generated_image(target, path, image, category, annotations)
            metrics["images_made"] += 1
            metrics["annotations_left_out"] += bool(variant.is_turned and image.annotations)

    def _rent(self, job: JobRecord, *, simulated: bool) -> JobOutcome:  # always simulated
        request = cast("DeviceRentalRequest", job.request)
        message = f"simulated: the sandbox has no {request.device}"
        return JobOutcome(message=message, result={"deviceId": self._state.new_id()})

    def _snapshot(self, dataset_id: str) -> list[tuple[ImageRecord, str | None]]:
        with self._state.lock:
            return self._state.datasets.get(dataset_id).snapshot()


def _samples(
    images: Sequence[tuple[ImageRecord, str | None]], predictions: Sequence[tuple[str, float]]
) -> list[dict[str, Any]]:
    """Return the predictions for the first images by name; the actual category is the user's, if there is one."""
    pairs = sorted(zip(images, predictions, strict=True), key=lambda pair: (pair[0][0].file_name, pair[0][0].digest))
    return [
        {
            "fileName": image.file_name,
            "predicted": name,
            "confidence": round(confidence, 5),
            "actual": category if image.category_id else None,
        }
        for (image, category), (name, confidence) in pairs[:SAMPLES]
    ]


def with_category_ids(annotations: Any, category_ids: Mapping[str, str]) -> Any:
    """Return a copy of an image's annotations with each category id replaced by its value in *category_ids*."""
    if isinstance(annotations, list):
        return [with_category_ids(item, category_ids) for item in annotations]
    if not isinstance(annotations, dict):
        return annotations
    return {
        name: category_ids.get(str(value), value) if name == "categoryId" else with_category_ids(value, category_ids)
        for name, value in annotations.items()
    }


def _ignored_message(request: TrainingRequest | RetrainingRequest, parameters: Sequence[str]) -> str | None:
    """Return a message that lists the requested settings without effect; ``None`` if there are none."""
    ignored = [name for name in IGNORED if getattr(request, name, None) is not None]
    if parameters:
        ignored.append(f"unknown parameters: {', '.join(parameters)}")
    return f"ignored by the sandbox: {', '.join(ignored)}" if ignored else None


def forced_outcome(job: JobRecord, state: JobState) -> JobOutcome:
    """Return the outcome that a script forces on a job."""
    message = job.script.message or f"simulated: a script ends this job as {state}"
    return JobOutcome(state, message, invalid_data=job.script.invalid_data)
