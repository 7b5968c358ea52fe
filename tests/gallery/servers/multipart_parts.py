"""Orchard ML: batches of pictures in one multipart request, and jobs in the manner of Kubernetes.

``POST /api/Users/SignIn`` takes the access token as a JSON string and answers a token as text, for the header
``Authorization: Bearer <token>``. Ids are integers. All other addresses start with ``/api/v1``.

There are no uploads to start or finish. ``POST /datasets/{id}/pictures`` is multipart with one or more parts ``files``
and one part ``meta``, a JSON text that applies to all of them: ``{"category": 12, "boxes": [...]}``; both keys are
optional, the boxes are any JSON. The answer is always 200 if the dataset exists: ``{"results": [{"file": "a.png",
"status": "ACCEPTED", "pictureId": 31, "checksum": "<SHA-256>"}]}``. A picture that is not taken has ``{"file",
"status": "REJECTED", "reason"}`` instead; the others are stored nevertheless.

==============  =============================  ==================================================================
POST, GET       /datasets                      ``{"dataset": {"name"}}`` -> 201 ``{"dataset": {...}}``;
                                               ``{"datasets": [...]}``, ``?name=`` filters
GET, DELETE     /datasets/{id}                 ``{"dataset": {...}}``; 204
POST, GET       /datasets/{id}/categories      ``{"category": {"name"}}`` -> 201 ``{"category": {...}}``;
                                               ``{"categories": [...]}``
GET             /datasets/{id}/pictures        ``{"pictures": [{id, fileName, checksum, category, boxes}]}``
POST, GET       /jobs                          201 ``{"job": {...}}``; ``{"jobs": [...]}``, ``?kind=`` and
                                               ``?clientKey=`` filter
GET             /jobs/{id}                     ``{"job": {...}}``
POST            /jobs/{id}/stop                200 ``{"job": {...}}``; 409 if the job has ended
GET             /models, /models/{id}          ``{"models": [...]}``, ``{"model": {...}}``
GET             /models/{id}/conversions       ``{"conversions": [{id, accelerator, phase, job}]}``
GET             /models/{id}/binary            bytes; ``?accelerator=``, without it the model as trained
==============  =============================  ==================================================================

The body of a job is ``{"kind": "Training", "clientKey": "...", "spec": {...}}``; the key is optional. Kinds and specs:
Training ``{datasets, modelName, modelType: "Classifier"|"Detector", arguments}``; Retraining ``{model, datasets,
modelName, arguments}``; Prediction ``{model, dataset, minConfidence: 0-1, mode: "Everything"|"Overwrite"|"Missing"}``;
Manipulation ``{dataset, name, operations}``; Conversion ``{model, accelerator}``; Rental ``{accelerator,
durationSeconds}``. Operations: ``{"type": "Rotate", "spec": {"angle", "copies"}}``, ``Brighten`` (contrast,
brightness, copies), ``Resize`` (width, height).

A job is ``{"metadata": {id, kind, clientKey, createdAt, startedAt, finishedAt}, "status": {phase, message, progress
(0-1), output}}``. Phases: Pending, Running, Succeeded, Failed, Stopped. ``output`` has those of model, dataset,
conversion, device, expiresAt, metrics that apply. A dataset is ``{id, name, pictureCount, updatedAt}``, a category
``{id, name}``, a model ``{id, name, modelType, metrics, createdAt}``.

Errors are ``{"status": "Failure", "reason": "NotFound", "message": "...", "code": 404}``: NotFound 404, Conflict 409,
AlreadyExists 409, Invalid 422, TooManyRequests 429, Unauthorized 401.
"""

from __future__ import annotations

from datetime import timedelta

from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response

from tests.gallery import world as w
from tests.gallery.servers import _http as h

KINDS = {
    "Training": "train",
    "Retraining": "retrain",
    "Prediction": "predict",
    "Manipulation": "manipulate",
    "Conversion": "convert",
    "Rental": "rent",
}
MODEL_TYPES = {"Classifier": "classification", "Detector": "detection"}
MODES = {"Everything": "all", "Overwrite": "replace", "Missing": "unannotated"}
STEPS = {"Rotate": "rotate", "Brighten": "brightness", "Resize": "resize"}
PHASES = {"queued": "Pending", "running": "Running", "succeeded": "Succeeded"}
PHASES |= {"failed": "Failed", "cancelled": "Stopped"}
OUTPUT = {key: key for key in ("model", "dataset", "conversion", "device", "metrics")} | {"expires": "expiresAt"}
ERRORS = {
    w.NotFound: ("NotFound", 404),
    w.Duplicate: ("AlreadyExists", 409),
    w.Conflict: ("Conflict", 409),
    w.Refused: ("Invalid", 422),
    w.Busy: ("TooManyRequests", 429),
    w.Unauthorized: ("Unauthorized", 401),
}


def create_app(world: w.World) -> Starlette:
    """Return the server."""

    def dataset(row):
        count = world.count(row.id)
        return {"id": row.id, "name": row.name, "pictureCount": count, "updatedAt": h.iso(row.changed)}

    def conversion(row):
        return {"id": row.id, "accelerator": row.target, "phase": PHASES[world.state_of(row)], "job": row.job_id}

    async def create_dataset(request):
        name = inner(await h.json_body(request), "dataset")["name"]
        return JSONResponse({"dataset": dataset(world.create_dataset(name))}, 201)

    def delete_dataset(request):
        world.delete_dataset(key(request))
        return Response(status_code=204)

    async def create_category(request):
        name = inner(await h.json_body(request), "category")["name"]
        return JSONResponse({"category": category(world.create_category(key(request), name))}, 201)

    async def add_pictures(request):
        parts = await h.form(request)
        meta = h.json_text(h.Body(parts)["meta"]) or {}
        world.dataset(key(request))
        return {"results": [add_picture(key(request), part, meta) for name, part in parts if name == "files"]}

    def add_picture(dataset_id, file, meta):
        category_id = meta.get("category")
        try:
            row = world.add_image(
                dataset_id,
                *file,
                category_id=None if category_id is None else h.number(category_id),
                annotations=meta.get("boxes"),
            )
        except w.WorldError as error:
            return {"file": file.name, "status": "REJECTED", "reason": str(error)}
        return {"file": file.name, "status": "ACCEPTED", "pictureId": row.id, "checksum": row.sha256}

    async def create_job(request):
        return JSONResponse({"job": job(submit(world, await h.json_body(request)))}, 201)

    def get_jobs(request):
        kind = request.query_params.get("kind")
        jobs = world.find_jobs(kind and h.chosen(kind, KINDS), request.query_params.get("clientKey"))
        return {"jobs": [job(world.read(row)) for row in jobs]}

    def binary(request):
        accelerator = request.query_params.get("accelerator", w.ORIGINAL)
        return h.download(world.model_file(key(request), accelerator), f"{accelerator}.bin")

    table = {
        "POST /api/v1/datasets": create_dataset,
        "GET /api/v1/datasets": lambda request: {
            "datasets": [*map(dataset, world.find_datasets(request.query_params.get("name")))]
        },
        "GET /api/v1/datasets/{id:int}": lambda request: {"dataset": dataset(world.dataset(key(request)))},
        "DELETE /api/v1/datasets/{id:int}": delete_dataset,
        "POST /api/v1/datasets/{id:int}/categories": create_category,
        "GET /api/v1/datasets/{id:int}/categories": lambda request: {
            "categories": [*map(category, world.categories_of(key(request)))]
        },
        "POST /api/v1/datasets/{id:int}/pictures": add_pictures,
        "GET /api/v1/datasets/{id:int}/pictures": lambda request: {
            "pictures": [*map(picture, world.images_of(key(request)))]
        },
        "POST /api/v1/jobs": create_job,
        "GET /api/v1/jobs": get_jobs,
        "GET /api/v1/jobs/{id:int}": lambda request: {"job": job(world.read(world.job(key(request))))},
        "POST /api/v1/jobs/{id:int}/stop": lambda request: {"job": job(world.cancel(world.job(key(request))))},
        "GET /api/v1/models": lambda request: {"models": [*map(model, world.models.values())]},
        "GET /api/v1/models/{id:int}": lambda request: {"model": model(world.model(key(request)))},
        "GET /api/v1/models/{id:int}/conversions": lambda request: {
            "conversions": [*map(conversion, world.conversions_of(key(request)))]
        },
        "GET /api/v1/models/{id:int}/binary": binary,
    }
    return Starlette(
        routes=[*h.account(world), *h.routes(table, h.bearer(world))],
        exception_handlers={w.WorldError: on_error},
    )


def submit(world, body):
    kind, spec = h.chosen(body["kind"], KINDS), inner(body, "spec")
    more = {"reference": body.get("clientKey"), "options": spec.get("arguments")}
    if kind == "train":
        model_type = h.chosen(spec["modelType"], MODEL_TYPES)
        return world.train(h.numbers(spec["datasets"]), spec["modelName"], model_type, **more)
    if kind == "retrain":
        return world.retrain(h.number(spec["model"]), h.numbers(spec["datasets"]), spec["modelName"], **more)
    if kind == "predict":
        inputs = (h.number(spec["model"]), h.number(spec["dataset"]))
        mode = h.chosen(spec["mode"], MODES)
        return world.predict(*inputs, min_confidence=spec["minConfidence"], mode=mode, **more)
    if kind == "manipulate":
        steps = [(h.chosen(step.get("type"), STEPS), step.get("spec", {})) for step in spec["operations"]]
        return world.manipulate(h.number(spec["dataset"]), spec["name"], steps, **more)
    if kind == "convert":
        return world.convert(h.number(spec["model"]), spec["accelerator"], **more)
    return world.rent(spec["accelerator"], timedelta(seconds=spec["durationSeconds"]), **more)


def on_error(request, error):
    reason, status = next(row for cls, row in ERRORS.items() if isinstance(error, cls))
    return JSONResponse({"status": "Failure", "reason": reason, "message": str(error), "code": status}, status)


def key(request):
    return request.path_params["id"]


def inner(body, name):
    """Return the object below a key."""
    if not isinstance(body[name], dict):
        raise w.Refused(f"The field '{name}' is not an object.")
    return h.Body(body[name])


def category(row):
    return {"id": row.id, "name": row.name}


def picture(row):
    shown = {"id": row.id, "fileName": row.file_name, "checksum": row.sha256}
    return {**shown, "category": row.category_id, "boxes": row.annotations}


def model(row):
    model_type = next(word for word, name in MODEL_TYPES.items() if name == row.model_type)
    shown = {"id": row.id, "name": row.name, "modelType": model_type}
    return {**shown, "metrics": row.metrics, "createdAt": h.iso(row.created)}


def job(row):
    metadata = {
        "id": row.id,
        "kind": next(word for word, kind in KINDS.items() if kind == row.kind),
        "clientKey": row.reference,
        "createdAt": h.iso(row.created),
        "startedAt": h.iso(row.started),
        "finishedAt": h.iso(row.finished),
    }
    status = {"phase": PHASES[row.state], "message": row.message, "progress": row.progress}
    return {"metadata": metadata, "status": {**status, "output": h.renamed(row.result, OUTPUT)}}
