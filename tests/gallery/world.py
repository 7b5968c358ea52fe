"""The business behind all servers of the gallery: datasets, jobs and models in memory.

Nothing happens in the background. A job advances by reads: by default the first read finds it queued, the second
running and the third succeeded. The clock moves one second at each use, so that every run gives the same times.
"""

from __future__ import annotations

import hashlib
import io
import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import PurePath
from typing import Any, TypeVar

from PIL import Image as Pillow
from PIL import ImageEnhance

__all__ = [
    "ENDED",
    "AlreadyEnded",
    "Busy",
    "Category",
    "Conflict",
    "Conversion",
    "Dataset",
    "Duplicate",
    "Image",
    "Job",
    "Locked",
    "Model",
    "NotFound",
    "Refused",
    "Unauthorized",
    "Upload",
    "World",
    "WorldError",
]

ENDED = frozenset({"succeeded", "failed", "cancelled"})
"""The states in which a job stays."""
Row = TypeVar("Row")
ORIGINAL = "original"
"""The target of a model's own file, which needs no conversion."""


class WorldError(Exception):
    """A request that the business does not fulfil; each server has its own answer for it."""


class NotFound(WorldError):
    """There is no object with the id."""


class Conflict(WorldError):
    """The object's state does not allow the request."""


class Locked(Conflict):
    """The dataset is locked by an upload."""


class Duplicate(Conflict):
    """The name is taken."""


class AlreadyEnded(Conflict):
    """The job or upload has ended."""


class Refused(WorldError):
    """A value is missing or invalid."""


class Busy(WorldError):
    """The service takes no jobs at the moment; a repetition may succeed."""


class Unauthorized(WorldError):
    """The token or key is missing or wrong."""


@dataclass
class Dataset:
    """A dataset; its images and categories refer to it."""

    id: int
    name: str
    changed: datetime
    upload_id: int | None = None
    job_id: int | None = None

    @property
    def locked(self) -> bool:
        """Whether an upload is open."""
        return self.upload_id is not None


@dataclass
class Category:
    """A category of a dataset."""

    id: int
    dataset_id: int
    name: str


@dataclass
class Upload:
    """An upload, which locks its dataset while it is open."""

    id: int
    dataset_id: int
    open: bool = True


@dataclass
class Image:
    """An image; ``annotations`` are as the server stored them."""

    id: int
    dataset_id: int
    file_name: str
    data: bytes
    category_id: int | None = None
    annotations: Any = None

    @property
    def sha256(self) -> str:
        """The SHA-256 digest of the bytes, in hexadecimal."""
        return hashlib.sha256(self.data).hexdigest()


@dataclass
class Model:
    """A trained model; metrics are fractions."""

    id: int
    name: str
    model_type: str
    categories: list[str]
    metrics: dict[str, float]
    created: datetime
    job_id: int
    generation: int = 1


@dataclass
class Conversion:
    """A model's conversion for a hardware target; ``data`` is empty until the job has succeeded."""

    id: int
    model_id: int
    target: str
    job_id: int
    data: bytes = b""


@dataclass
class Job:
    """A job of one of the kinds train, retrain, predict, manipulate, convert and rent.

    ``result`` has some of the keys model, dataset, conversion, device (ids), expires (time) and metrics.
    """

    id: int
    kind: str
    created: datetime
    reference: str | None = None
    dataset_ids: tuple[int, ...] = ()
    model_id: int | None = None
    device: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    state: str = "queued"
    reads: int = 0
    started: datetime | None = None
    finished: datetime | None = None
    message: str | None = None
    result: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)

    @property
    def progress(self) -> float:
        """The progress as a fraction."""
        return {"queued": 0.0, "running": 0.5, "succeeded": 1.0}.get(self.state, 0.5 if self.started else 0.0)


class World:
    """Everything that a vendor's backend stores.

    ``submits`` and ``cancels`` record kind and id of each submitted and each cancelled job. Set ``queued_reads``,
    ``running_reads`` or ``busy_submits`` (the number of submits to reject as busy) to change what happens next.
    """

    access_token = "gallery-access-token"  # not a secret: the servers live in tests
    api_key = "gallery-api-key"
    targets = ("jetson-nano", "openvino", "raspberry-pi")
    devices = ("jetson-nano", "raspberry-pi")

    def __init__(self) -> None:
        self.queued_reads = 1
        self.running_reads = 1
        self.busy_submits = 0
        self.submits: list[tuple[str, int]] = []
        self.cancels: list[tuple[str, int]] = []
        self.datasets: dict[int, Dataset] = {}
        self.categories: dict[int, Category] = {}
        self.uploads: dict[int, Upload] = {}
        self.images: dict[int, Image] = {}
        self.jobs: dict[int, Job] = {}
        self.models: dict[int, Model] = {}
        self.conversions: dict[int, Conversion] = {}
        self._ids = itertools.count(101)
        self._sessions: set[str] = set()
        self._failures: dict[str, list[str]] = {}
        self._now = datetime(2026, 1, 1, 8, tzinfo=UTC)

    # Hooks for tests

    def fail_next(self, message: str, kind: str = "train") -> None:
        """Let the next job of a kind that would succeed fail with a message."""
        self._failures.setdefault(kind, []).append(message)

    def pass_time(self, time: timedelta) -> None:
        """Move the clock."""
        self._now += time

    def end_sessions(self) -> None:
        """Invalidate all tokens, so that clients have to sign in again."""
        self._sessions.clear()

    # Access

    def sign_in(self, access_token: object) -> str:
        """Return a token for an access token."""
        if access_token != self.access_token:
            raise Unauthorized("The access token is invalid.")
        token = f"session-{next(self._ids)}"
        self._sessions.add(token)
        return token

    def check_token(self, token: str | None) -> None:
        """Raise Unauthorized unless the token is valid."""
        if token not in self._sessions:
            raise Unauthorized("The token is missing, wrong or expired.")

    def check_key(self, key: str | None) -> None:
        """Raise Unauthorized unless the API key is valid."""
        if key != self.api_key:
            raise Unauthorized("The API key is missing or wrong.")

    # Datasets

    def create_dataset(self, name: object) -> Dataset:
        """Create an empty dataset; names need not be unique."""
        dataset = Dataset(next(self._ids), _name(name), self._tick())
        self.datasets[dataset.id] = dataset
        return dataset

    def dataset(self, dataset_id: int) -> Dataset:
        """Return a dataset."""
        return _find(self.datasets, dataset_id, "dataset")

    def find_datasets(self, name: str | None = None) -> list[Dataset]:
        """Return the datasets, or those with exactly the name."""
        return [dataset for dataset in self.datasets.values() if name in {None, dataset.name}]

    def delete_dataset(self, dataset_id: int) -> None:
        """Delete a dataset with its categories and images."""
        self._unlocked(dataset_id)
        del self.datasets[dataset_id]
        for table in (self.categories, self.images):
            for row in [row for row in table.values() if row.dataset_id == dataset_id]:
                del table[row.id]

    def create_category(self, dataset_id: int, name: object) -> Category:
        """Create a category; its name must be new in the dataset."""
        self.dataset(dataset_id)
        category = Category(next(self._ids), dataset_id, _name(name))
        if category.name in [other.name for other in self.categories_of(dataset_id)]:
            raise Duplicate(f"The dataset has a category '{category.name}' already.")
        self.categories[category.id] = category
        return category

    def categories_of(self, dataset_id: int) -> list[Category]:
        """Return the categories of a dataset."""
        self.dataset(dataset_id)
        return [category for category in self.categories.values() if category.dataset_id == dataset_id]

    def category_named(self, dataset_id: int, name: str) -> Category:
        """Return a category of a dataset by its name."""
        for category in self.categories_of(dataset_id):
            if category.name == name:
                return category
        raise Refused(f"The dataset has no category '{name}'.")

    def images_of(self, dataset_id: int) -> list[Image]:
        """Return the images of a dataset."""
        self.dataset(dataset_id)
        return [image for image in self.images.values() if image.dataset_id == dataset_id]

    def count(self, dataset_id: int) -> int:
        """Return the number of images of a dataset."""
        return len(self.images_of(dataset_id))

    # Uploads

    def start_upload(self, dataset_id: int) -> Upload:
        """Open an upload and lock the dataset."""
        dataset = self._unlocked(dataset_id)
        upload = Upload(next(self._ids), dataset_id)
        self.uploads[upload.id] = upload
        dataset.upload_id = upload.id
        return upload

    def upload(self, upload_id: int) -> Upload:
        """Return an open upload."""
        upload = _find(self.uploads, upload_id, "upload")
        if not upload.open:
            raise AlreadyEnded(f"The upload {upload_id} is finished.")
        return upload

    def finish_upload(self, upload_id: int) -> Upload:
        """Close an upload and unlock the dataset."""
        upload = self.upload(upload_id)
        upload.open = False
        self.dataset(upload.dataset_id).upload_id = None
        return upload

    def add_image(
        self, dataset_id: int, file_name: str, data: bytes, *, category_id: int | None, annotations: Any = None
    ) -> Image:
        """Store an image in a dataset."""
        dataset = self.dataset(dataset_id)
        if category_id is not None and category_id not in [row.id for row in self.categories_of(dataset_id)]:
            raise Refused(f"The dataset {dataset_id} has no category {category_id}.")
        _decode(data)
        image = Image(next(self._ids), dataset_id, file_name, data, category_id, annotations)
        self.images[image.id] = image
        dataset.changed = self._tick()
        return image

    # Jobs

    def train(self, dataset_ids: Iterable[int], name: object, model_type: str, **more: Any) -> Job:
        """Submit the training of a model of the type classification or detection."""
        if model_type not in {"classification", "detection"}:
            raise Refused("The model type is unknown.")
        ids = self._with_images(dataset_ids)
        return self._submit("train", dataset_ids=ids, settings={"name": _name(name), "type": model_type}, **more)

    def retrain(self, model_id: int, dataset_ids: Iterable[int], name: object, **more: Any) -> Job:
        """Submit the re-training of a model; the result is another model."""
        model = self.model(model_id)
        ids = self._with_images(dataset_ids)
        settings = {"name": _name(name), "type": model.model_type}
        return self._submit("retrain", model_id=model_id, dataset_ids=ids, settings=settings, **more)

    def predict(self, model_id: int, dataset_id: int, *, min_confidence: float, mode: str, **more: Any) -> Job:
        """Submit the labelling of images: all, all after removing their labels (replace), or those unannotated."""
        self.model(model_id)
        if mode not in {"all", "replace", "unannotated"} or not 0 <= min_confidence <= 1:
            raise Refused("The mode or the confidence is invalid.")
        settings = {"min_confidence": min_confidence, "mode": mode}
        ids = self._with_images([dataset_id])
        return self._submit("predict", model_id=model_id, dataset_ids=ids, settings=settings, **more)

    def manipulate(self, dataset_id: int, name: object, steps: list[tuple[str, dict[str, Any]]], **more: Any) -> Job:
        """Submit the manipulation of a dataset's images into another dataset.

        The steps are ``rotate`` (angle, copies), ``brightness`` (contrast, brightness, copies) and ``resize`` (width,
        height); each applies to the images of the step before.
        """
        ids = self._with_images([dataset_id])
        if not steps:
            raise Refused("There are no operations.")
        try:
            for step, values in steps:
                _manipulated(Pillow.new("RGB", (2, 2)), step, values)
        except (KeyError, TypeError, ValueError) as error:
            raise Refused("An operation is unknown or has an invalid value.") from error
        settings = {"name": _name(name), "steps": steps}
        return self._submit("manipulate", dataset_ids=ids, settings=settings, **more)

    def convert(self, model_id: int, target: object, **more: Any) -> Job:
        """Submit the conversion of a model for a hardware target."""
        self.model(model_id)
        if target not in self.targets:
            raise Refused("The target is unknown.")
        job = self._submit("convert", model_id=model_id, settings={"target": target}, **more)
        conversion = Conversion(next(self._ids), model_id, str(target), job.id)
        self.conversions[conversion.id] = conversion
        return job

    def rent(self, device: object, duration: timedelta, **more: Any) -> Job:
        """Submit the rental of a device; its time starts when the device is assigned."""
        if device not in self.devices or duration <= timedelta(0):
            raise Refused("The device is unknown or the duration is not positive.")
        return self._submit("rent", device=str(device), settings={"duration": duration}, **more)

    def job(self, job_id: int, kind: str | None = None) -> Job:
        """Return a job without moving it on."""
        job = _find(self.jobs, job_id, "job")
        if kind not in {None, job.kind}:
            raise NotFound(f"There is no job {job_id} of this kind.")
        return job

    def read(self, job: Job) -> Job:
        """Move a job on, as every read of it does, and return it."""
        job.reads += 1
        if job.state == "queued" and job.reads > self.queued_reads:
            self._start(job)
        elif job.state == "running" and self._is_over(job):
            self._end(job)
        return job

    def find_jobs(self, kind: str | None = None, reference: str | None = None) -> list[Job]:
        """Return the jobs of a kind and with a reference, the oldest first, without moving them on."""
        return [job for job in self.jobs.values() if kind in {None, job.kind} and reference in {None, job.reference}]

    def cancel(self, job: Job) -> Job:
        """Cancel a job; a rental is ended by it."""
        if job.state in ENDED:
            raise AlreadyEnded(f"The job {job.id} has ended.")
        job.state = "cancelled"
        job.finished = self._tick()
        self.cancels.append((job.kind, job.id))
        return job

    # Models

    def model(self, model_id: int) -> Model:
        """Return a model."""
        return _find(self.models, model_id, "model")

    def conversion(self, conversion_id: int) -> Conversion:
        """Return a conversion."""
        return _find(self.conversions, conversion_id, "conversion")

    def conversions_of(self, model_id: int) -> list[Conversion]:
        """Return the conversions of a model, whatever the state of their jobs."""
        self.model(model_id)
        return [conversion for conversion in self.conversions.values() if conversion.model_id == model_id]

    def conversion_of(self, job: Job) -> Conversion:
        """Return the conversion that a job makes."""
        return next(conversion for conversion in self.conversions.values() if conversion.job_id == job.id)

    def state_of(self, conversion: Conversion) -> str:
        """Return the state of a conversion's job."""
        return self.job(conversion.job_id).state

    def model_file(self, model_id: int, target: str = ORIGINAL) -> bytes:
        """Return the file of a model for a target, or the model as it was trained."""
        model = self.model(model_id)
        if target == ORIGINAL:
            return _file(model.name, target)
        for conversion in self.conversions_of(model_id):
            if conversion.target == target and conversion.data:
                return conversion.data
        raise NotFound(f"The model {model_id} is not converted for this target.")

    # Inner workings

    def _tick(self) -> datetime:
        self._now += timedelta(seconds=1)
        return self._now

    def _unlocked(self, dataset_id: int) -> Dataset:
        dataset = self.dataset(dataset_id)
        if dataset.locked:
            raise Locked(f"The dataset {dataset_id} is locked by an upload.")
        return dataset

    def _with_images(self, dataset_ids: Iterable[int]) -> tuple[int, ...]:
        ids = tuple(dataset_ids)
        for dataset_id in ids:
            self._unlocked(dataset_id)
        if not any(self.images_of(dataset_id) for dataset_id in ids):
            raise Refused("There are no images.")
        return ids

    def _submit(self, kind: str, *, settings: dict[str, Any], options: Any = None, **more: Any) -> Job:
        if self.busy_submits:
            self.busy_submits -= 1
            raise Busy("Too many jobs are queued.")
        job = Job(next(self._ids), kind, self._tick(), settings={**settings, "options": options}, **more)
        self.jobs[job.id] = job
        self.submits.append((kind, job.id))
        return job

    def _is_over(self, job: Job) -> bool:
        if job.kind == "rent":
            return self._tick() >= job.result["expires"]
        return job.reads > self.queued_reads + self.running_reads

    def _start(self, job: Job) -> None:
        job.state = "running"
        job.started = self._tick()
        if job.kind == "rent":
            job.result = {"device": next(self._ids), "expires": job.started + job.settings["duration"]}
        elif job.kind in {"train", "retrain"}:
            job.history = [_epoch(1)]

    def _end(self, job: Job) -> None:
        failures = self._failures.get(job.kind)
        if failures:
            job.state, job.message = "failed", failures.pop(0)
        else:
            job.state = "succeeded"
            {
                "train": self._make_model,
                "retrain": self._make_model,
                "predict": self._label,
                "manipulate": self._make_dataset,
                "convert": self._make_file,
                "rent": lambda job: None,
            }[job.kind](job)
        job.finished = self._tick()

    def _make_model(self, job: Job) -> None:
        generation = 1 if job.model_id is None else self.model(job.model_id).generation + 1
        accuracy = round(1 - 0.16 / generation, 4)
        metrics = {"accuracy": accuracy, "precision": round(accuracy - 0.02, 4), "recall": round(accuracy - 0.04, 4)}
        names = {row.name for row in self.categories.values() if row.dataset_id in job.dataset_ids}
        model = Model(
            id=next(self._ids),
            name=job.settings["name"],
            model_type=job.settings["type"],
            categories=sorted(names),
            metrics=metrics,
            created=self._tick(),
            job_id=job.id,
            generation=generation,
        )
        self.models[model.id] = model
        job.history = [_epoch(number) for number in (1, 2, 3)]
        job.result = {"model": model.id, "metrics": dict(metrics)}

    def _label(self, job: Job) -> None:
        (dataset_id,) = job.dataset_ids
        names = self.model(job.model_id or 0).categories
        labelled = 0
        for image in self.images_of(dataset_id):
            if job.settings["mode"] == "unannotated" and image.category_id is not None:
                continue
            if job.settings["mode"] == "replace":
                image.category_id = image.annotations = None
            digest = int(image.sha256, 16)
            if names and 0.6 + digest % 40 / 100 >= job.settings["min_confidence"]:
                name = names[digest % len(names)]
                known = [row for row in self.categories_of(dataset_id) if row.name == name]
                image.category_id = (known or [self.create_category(dataset_id, name)])[0].id
                labelled += 1
        self.dataset(dataset_id).changed = self._tick()
        job.result = {"dataset": dataset_id, "labelled": labelled}

    def _make_dataset(self, job: Job) -> None:
        dataset = self.create_dataset(job.settings["name"])
        dataset.job_id = job.id
        categories = {
            row.id: self.create_category(dataset.id, row.name) for row in self.categories_of(job.dataset_ids[0])
        }
        for image in self.images_of(job.dataset_ids[0]):
            pictures = [_decode(image.data)]
            for step, values in job.settings["steps"]:
                pictures = [copy for picture in pictures for copy in _manipulated(picture, step, values)]
            for number, picture in enumerate(pictures, 1):
                category = categories.get(image.category_id or 0)
                self.add_image(
                    dataset.id,
                    f"{PurePath(image.file_name).stem}-{number}.png",
                    _encode(picture),
                    category_id=category and category.id,
                )
        job.result = {"dataset": dataset.id}

    def _make_file(self, job: Job) -> None:
        conversion = self.conversion_of(job)
        conversion.data = _file(self.model(conversion.model_id).name, conversion.target)
        job.result = {"conversion": conversion.id, "model": conversion.model_id}


def _find(table: dict[int, Row], row_id: int, noun: str) -> Row:
    if row_id not in table:
        raise NotFound(f"There is no {noun} {row_id}.")
    return table[row_id]


def _name(name: object) -> str:
    if not isinstance(name, str) or not name.strip():
        raise Refused("A name is missing.")
    return name


def _epoch(number: int) -> dict[str, float]:
    return {
        "epoch": number,
        "loss": round(0.9 / number, 4),
        "accuracy": round(1 - 0.4 / number, 4),
        "val_loss": round(1.0 / number, 4),
        "val_accuracy": round(1 - 0.5 / number, 4),
    }


def _file(name: str, target: str) -> bytes:
    return f"model {name} for {target}\n".encode() * 100


def _decode(data: bytes) -> Pillow.Image:
    try:
        return Pillow.open(io.BytesIO(data)).convert("RGB")
    except (OSError, SyntaxError, ValueError) as error:
        raise Refused("The file is not an image.") from error


def _encode(picture: Pillow.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def _manipulated(picture: Pillow.Image, step: str, values: dict[str, Any]) -> list[Pillow.Image]:
    """Return the pictures that a step makes of one."""
    copies = range(1, int(values.get("copies", 1)) + 1)
    if step == "resize":
        return [picture.resize((int(values["width"]), int(values["height"])))]
    if step == "rotate":
        angle = float(values["angle"])
        return [picture.rotate(angle * copy / len(copies)) for copy in copies]
    if step == "brightness":
        contrasted = ImageEnhance.Contrast(picture).enhance(float(values["contrast"]))
        level = float(values["brightness"])
        shares = [level * copy / len(copies) for copy in copies]
        return [contrasted.point(lambda value, share=share: value + share) for share in shares]
    raise ValueError(step)
