"""Basalt, remote procedures over HTTP: GET reads, POST changes, and no status but 200, 400 and 401.

``POST /api/Users/SignIn`` takes the access token as a JSON string and answers a token as text, for the header
``Authorization: Bearer <token>``. Ids are a letter and a number: D101 a dataset, C a category, U an upload, I an
image, J a job, M a model, V a conversion, X a device.

A failure is 400 with ``{"code": "...", "detail": "..."}``: NOT_FOUND (also for an address that does not exist),
ALREADY_ENDED, LOCKED, DUPLICATE, BUSY (try again later), BAD_REQUEST. A missing or wrong token is 401 with
``{"code": "UNAUTHORIZED", "detail"}``. Success is 200 with a JSON object; where there is nothing to say, it is ``{}``.
Arguments are in the query of a GET and in the JSON object of a POST.

====  ========================  ===================================================================================
POST  /api/dataset.create       name -> ``{"dataset": {...}}``
GET   /api/dataset.get          id -> ``{"dataset": {...}}``
GET   /api/dataset.find         name (optional) -> ``{"datasets": [...]}``
POST  /api/dataset.remove       id
POST  /api/category.create      dataset, name -> ``{"category": {id, name, dataset}}``
GET   /api/category.list        dataset -> ``{"categories": [...]}``
POST  /api/upload.start         dataset -> ``{"upload": "U9"}``; locks the dataset
POST  /api/upload.image         multipart: bytes (file), upload, category, annotations (JSON text, optional) ->
                                ``{"image": {...}}``
POST  /api/upload.finish        upload
GET   /api/image.list           dataset -> ``{"images": [{id, file_name, digest (SHA-256), category, annotations}]}``
POST  /api/job.train            datasets, model_name, model_type (CLASSIFICATION | DETECTION), parameters
POST  /api/job.retrain          model, datasets, model_name, parameters
POST  /api/job.predict          model, dataset, min_confidence_permille (0-1000), scope (ALL | RELABEL | NEW)
POST  /api/job.manipulate       dataset, name, rotate, brightness, resize (each an object or absent, in this order):
                                ``{angle, copies}``, ``{contrast, brightness, copies}``, ``{width, height}``
POST  /api/job.convert          model, target
POST  /api/job.rent             device, duration_s
GET   /api/job.get              id -> ``{"job": {...}}``
GET   /api/job.list             kind, ref, ids (``J1,J2``), all optional -> ``{"jobs": [...]}``
POST  /api/job.cancel           id
GET   /api/model.get            id -> ``{"model": {id, name, model_type, metrics, created_at}}``
GET   /api/model.list           ``{"models": [...]}``
GET   /api/model.conversions    id -> ``{"conversions": [{id, target, state, job}]}``
GET   /api/model.download       id, target (optional) -> bytes
====  ========================  ===================================================================================

Each job.* that starts a job answers ``{"job": {...}}`` and takes an optional ``ref``. A job is ``{id, kind, ref,
state, progress_permille, created_at, started_at, finished_at, detail, model, dataset, conversion, device,
device_until, metrics_permille}``; what does not apply is null. Kinds: train, retrain, predict, manipulate, convert,
rent. States: new, active, ok, error, cancelled. Metrics in a job are integers per thousand, those of a model
fractions. A dataset is ``{id, name, locked, image_count, changed_at}``.
"""

from __future__ import annotations

from datetime import timedelta
from functools import partial

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from tests.gallery import world as w
from tests.gallery.servers import _http as h

MODEL_TYPES = {"CLASSIFICATION": "classification", "DETECTION": "detection"}
SCOPES = {"ALL": "all", "RELABEL": "replace", "NEW": "unannotated"}
STATES = {"queued": "new", "running": "active", "succeeded": "ok", "failed": "error", "cancelled": "cancelled"}
CODES = {
    w.NotFound: "NOT_FOUND",
    w.AlreadyEnded: "ALREADY_ENDED",
    w.Locked: "LOCKED",
    w.Duplicate: "DUPLICATE",
    w.Busy: "BUSY",
    w.Refused: "BAD_REQUEST",
    w.Unauthorized: "UNAUTHORIZED",
}


def create_app(world: w.World) -> Starlette:
    """Return the server."""

    def dataset(row):
        shown = {"id": f"D{row.id}", "name": row.name, "locked": row.locked}
        return {**shown, "image_count": world.count(row.id), "changed_at": h.iso(row.changed)}

    def conversion(row):
        state = STATES[world.state_of(row)]
        return {"id": f"V{row.id}", "target": row.target, "state": state, "job": f"J{row.job_id}"}

    async def create_dataset(request):
        return {"dataset": dataset(world.create_dataset((await h.json_body(request))["name"]))}

    def find_datasets(request):
        return {"datasets": [dataset(row) for row in world.find_datasets(request.query_params.get("name"))]}

    async def create_category(request):
        body = await h.json_body(request)
        return {"category": category(world.create_category(h.number(body["dataset"], "D"), body["name"]))}

    async def start_upload(request):
        dataset_id = h.number((await h.json_body(request))["dataset"], "D")
        return {"upload": f"U{world.start_upload(dataset_id).id}"}

    async def upload_image(request):
        body = await h.fields(request)
        row = world.add_image(
            world.upload(h.number(body["upload"], "U")).dataset_id,
            *body["bytes"],
            category_id=h.number(body["category"], "C") if body.get("category") else None,
            annotations=h.json_text(body.get("annotations")),
        )
        return {"image": image(row)}

    def post(prefix, name, function):
        """Return a handler that calls the function with an id from the body and answers an empty object."""

        async def handler(request):
            function(h.number((await h.json_body(request))[name], prefix))
            return {}

        return handler

    def get(prefix, name, function):
        """Return a handler that answers with the function of an id from the query."""
        return lambda request: function(h.number(h.query(request)[name], prefix))

    async def submit_job(kind, request):
        return {"job": job(submit(world, kind, await h.json_body(request)))}

    def list_jobs(request):
        jobs = world.find_jobs(request.query_params.get("kind"), request.query_params.get("ref"))
        ids = request.query_params.get("ids")
        return {"jobs": [job(world.read(row)) for row in jobs if not ids or f"J{row.id}" in ids.split(",")]}

    def download(request):
        target = request.query_params.get("target", w.ORIGINAL)
        return h.download(world.model_file(h.number(h.query(request)["id"], "M"), target), f"{target}.bin")

    table = {
        "POST /api/dataset.create": create_dataset,
        "GET /api/dataset.get": get("D", "id", lambda key: {"dataset": dataset(world.dataset(key))}),
        "GET /api/dataset.find": find_datasets,
        "POST /api/dataset.remove": post("D", "id", world.delete_dataset),
        "POST /api/category.create": create_category,
        "GET /api/category.list": get(
            "D", "dataset", lambda key: {"categories": [*map(category, world.categories_of(key))]}
        ),
        "POST /api/upload.start": start_upload,
        "POST /api/upload.image": upload_image,
        "POST /api/upload.finish": post("U", "upload", world.finish_upload),
        "GET /api/image.list": get("D", "dataset", lambda key: {"images": [*map(image, world.images_of(key))]}),
        "GET /api/job.get": get("J", "id", lambda key: {"job": job(world.read(world.job(key)))}),
        "GET /api/job.list": list_jobs,
        "POST /api/job.cancel": post("J", "id", lambda key: world.cancel(world.job(key))),
        "GET /api/model.get": get("M", "id", lambda key: {"model": model(world.model(key))}),
        "GET /api/model.list": lambda request: {"models": [*map(model, world.models.values())]},
        "GET /api/model.conversions": get(
            "M", "id", lambda key: {"conversions": [*map(conversion, world.conversions_of(key))]}
        ),
        "GET /api/model.download": download,
    }
    for kind in ("train", "retrain", "predict", "manipulate", "convert", "rent"):
        table[f"POST /api/job.{kind}"] = partial(submit_job, kind)
    return Starlette(
        routes=[*h.account(world), *h.routes(table, h.bearer(world))],
        exception_handlers={w.WorldError: on_error, HTTPException: no_such_procedure},
    )


def submit(world, kind, body):
    more = {"reference": body.get("ref"), "options": body.get("parameters")}
    datasets = partial(h.numbers, prefix="D")
    if kind == "train":
        model_type = h.chosen(body["model_type"], MODEL_TYPES)
        return world.train(datasets(body["datasets"]), body["model_name"], model_type, **more)
    if kind == "retrain":
        inputs = (h.number(body["model"], "M"), datasets(body["datasets"]))
        return world.retrain(*inputs, body["model_name"], **more)
    if kind == "predict":
        inputs = (h.number(body["model"], "M"), h.number(body["dataset"], "D"))
        confidence = body["min_confidence_permille"] / 1000
        return world.predict(*inputs, min_confidence=confidence, mode=h.chosen(body["scope"], SCOPES), **more)
    if kind == "manipulate":
        steps = [(name, body[name]) for name in ("rotate", "brightness", "resize") if body.get(name)]
        return world.manipulate(h.number(body["dataset"], "D"), body["name"], steps, **more)
    if kind == "convert":
        return world.convert(h.number(body["model"], "M"), body["target"], **more)
    return world.rent(body["device"], timedelta(seconds=body["duration_s"]), **more)


def on_error(request, error):
    status = 401 if isinstance(error, w.Unauthorized) else 400
    return JSONResponse({"code": CODES.get(type(error), "BAD_REQUEST"), "detail": str(error)}, status)


def no_such_procedure(request, error):
    return JSONResponse({"code": "NOT_FOUND", "detail": "There is no such procedure."}, 400)


def category(row):
    return {"id": f"C{row.id}", "name": row.name, "dataset": f"D{row.dataset_id}"}


def image(row):
    shown = {"id": f"I{row.id}", "file_name": row.file_name, "digest": row.sha256}
    return {**shown, "category": row.category_id and f"C{row.category_id}", "annotations": row.annotations}


def model(row):
    shown = {"id": f"M{row.id}", "name": row.name, "model_type": row.model_type.upper()}
    return {**shown, "metrics": row.metrics, "created_at": h.iso(row.created)}


def job(row):
    made = {"model": "M", "dataset": "D", "conversion": "V", "device": "X"}
    metrics = row.result.get("metrics")
    return {
        "id": f"J{row.id}",
        "kind": row.kind,
        "ref": row.reference,
        "state": STATES[row.state],
        "progress_permille": round(1000 * row.progress),
        "created_at": h.iso(row.created),
        "started_at": h.iso(row.started),
        "finished_at": h.iso(row.finished),
        "detail": row.message,
        **{name: f"{prefix}{row.result[name]}" if name in row.result else None for name, prefix in made.items()},
        "device_until": h.iso(row.result.get("expires")),
        "metrics_permille": metrics and {name: round(1000 * value) for name, value in metrics.items()},
    }
