"""Helios Vision API v2: PUT creates, PATCH changes, DELETE deletes.

All addresses start with ``/api/v2`` except those of the account: ``POST /api/Users/SignIn`` takes the access token as a
JSON string and answers a token as text, for the header ``Authorization: Bearer <token>``. Ids are strings with a prefix
of their kind (``ds-``, ``cl-``, ``us-``, ``im-``, ``md-``, ``cv-``, ``dv-``, and ``job-`` for jobs), which the server
assigns. Shares are in per cent everywhere: progress, metrics, thresholds. Rentals are in minutes.

=============  ======================================  ============================================================
PUT            /datasets                               ``{name}`` -> 201 dataset
GET            /datasets, /datasets?name=              ``{"datasets": [dataset]}``
GET, DELETE    /datasets/{id}                          dataset; 204
PUT, GET       /datasets/{id}/classes                  ``{name}`` -> 201 class; ``{"classes": [class]}``
PUT            /datasets/{id}/upload_sessions          201 ``{"session_id": "us-1"}``; locks the dataset
PUT            /upload_sessions/{session_id}/images    multipart: ``image_file``, ``class_id``, ``boxes`` (JSON text,
                                                       optional) -> 201 image
PATCH          /upload_sessions/{session_id}           ``{"status": "finished"}`` -> 200 ``{session_id, status}``
GET            /datasets/{id}/images                   ``{"images": [image]}``
PUT            /trainings                              ``{dataset_ids, model_name, task: "classify"|"detect",
                                                       hyperparameters}``
PUT            /retrainings                            ``{model_id, dataset_ids, model_name, hyperparameters}``
PUT            /predictions                            ``{model_id, dataset_id, threshold_percent, overwrite: "none" |
                                                       "add" | "all"}``: images without a class; all; all after the
                                                       removal of their classes
PUT            /manipulations                          ``{dataset_id, new_name, operations}``
PUT            /conversions                            ``{model_id, hardware}``
PUT            /device_rentals                         ``{device_type, minutes}``
GET, PATCH     /{jobs}/{id}                            job; ``{"status": "cancelled"}`` -> 200 job
GET            /{jobs}, /{jobs}?external_id=           ``{"jobs": [job]}``
GET            /models, /models/{id}                   ``{"models": [model]}``, model
GET            /models/{id}/conversions                ``{"conversions": [{id, hardware, status, job_id}]}``
GET            /models/{id}/file?hardware=             bytes; without ``hardware`` the model as trained
=============  ======================================  ============================================================

``{jobs}`` are the six collections; a PUT answers 201 with the job, and its body may have an ``external_id``. A job is
``{id, status, external_id, percent, created, started, finished, error, result, curve}``, the status one of waiting,
working, done, failed, cancelled. ``result`` is null or has those of ``model_id, dataset_id, conversion_id, device_id,
rented_until, metrics`` that apply. ``curve`` is a list of ``{epoch, loss, accuracy, val_loss, val_accuracy}``; a loss
is no share. Operations: ``{"name": "rotate", "degrees": 90, "copies": 2}``, ``{"name": "brightness", "contrast": 1.2,
"brightness": 10, "copies": 1}``, ``{"name": "resize", "width": 64, "height": 64}``.
A dataset is ``{id, name, locked, size, changed}``, a class ``{id, name, dataset_id}``, an image ``{id, file_name,
sha256, class_id, boxes}``, a model ``{id, name, task, metrics, created}``.

Errors: ``{"error": {"type": "not_found", "message": "..."}}``: not_found 404, locked 423, duplicate 409, already_ended
409, invalid 422, overloaded 429 (with ``Retry-After``), unauthorized 401.
"""

from __future__ import annotations

from datetime import timedelta
from functools import partial

from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response

from tests.gallery import world as w
from tests.gallery.servers import _http as h

JOBS = {
    "trainings": "train",
    "retrainings": "retrain",
    "predictions": "predict",
    "manipulations": "manipulate",
    "conversions": "convert",
    "device_rentals": "rent",
}
TASKS = {"classify": "classification", "detect": "detection"}
MODES = {"none": "unannotated", "add": "all", "all": "replace"}
STEPS = {"rotate": "rotate", "brightness": "brightness", "resize": "resize"}
VALUES = {"degrees": "angle"} | {key: key for key in ("contrast", "brightness", "copies", "width", "height")}
STATES = {"queued": "waiting", "running": "working", "succeeded": "done", "failed": "failed", "cancelled": "cancelled"}
RESULT = {"model": ("model_id", "md-"), "dataset": ("dataset_id", "ds-")}
RESULT |= {"conversion": ("conversion_id", "cv-"), "device": ("device_id", "dv-")}
ERRORS = {
    w.NotFound: ("not_found", 404),
    w.Locked: ("locked", 423),
    w.Duplicate: ("duplicate", 409),
    w.AlreadyEnded: ("already_ended", 409),
    w.Refused: ("invalid", 422),
    w.Busy: ("overloaded", 429),
    w.Unauthorized: ("unauthorized", 401),
}


def create_app(world: w.World) -> Starlette:
    """Return the server."""

    def dataset(row):
        size = world.count(row.id)
        shown = {"id": f"ds-{row.id}", "name": row.name, "locked": row.locked}
        return {**shown, "size": size, "changed": h.iso(row.changed)}

    def conversion(row):
        status = STATES[world.state_of(row)]
        return {"id": f"cv-{row.id}", "hardware": row.target, "status": status, "job_id": f"job-{row.job_id}"}

    async def put_dataset(request):
        return created(dataset(world.create_dataset((await h.json_body(request))["name"])))

    def delete_dataset(request):
        world.delete_dataset(key(request, "ds-"))
        return Response(status_code=204)

    async def put_class(request):
        name = (await h.json_body(request))["name"]
        return created(category(world.create_category(key(request, "ds-"), name)))

    def put_session(request):
        return created({"session_id": f"us-{world.start_upload(key(request, 'ds-')).id}"})

    async def put_image(request):
        body = await h.fields(request)
        row = world.add_image(
            world.upload(key(request, "us-")).dataset_id,
            *body["image_file"],
            category_id=h.number(body["class_id"], "cl-") if body.get("class_id") else None,
            annotations=h.json_text(body.get("boxes")),
        )
        return created(image(row))

    async def patch_session(request):
        if (await h.json_body(request))["status"] != "finished":
            raise w.Refused("A session can only be finished.")
        upload = world.finish_upload(key(request, "us-"))
        return {"session_id": f"us-{upload.id}", "status": "finished"}

    async def put_job(kind, request):
        return created(show(submit(world, kind, await h.json_body(request))))

    def get_jobs(kind, request):
        jobs = world.find_jobs(kind, request.query_params.get("external_id"))
        return {"jobs": [show(world.read(job)) for job in jobs]}

    async def patch_job(kind, request):
        if (await h.json_body(request))["status"] != "cancelled":
            raise w.Refused("A job can only be cancelled.")
        return show(world.cancel(world.job(key(request, "job-"), kind)))

    def get_file(request):
        hardware = request.query_params.get("hardware", w.ORIGINAL)
        return h.download(world.model_file(key(request, "md-"), hardware), f"{hardware}.bin")

    table = {
        "PUT /api/v2/datasets": put_dataset,
        "GET /api/v2/datasets": lambda request: {
            "datasets": [*map(dataset, world.find_datasets(request.query_params.get("name")))]
        },
        "GET /api/v2/datasets/{id}": lambda request: dataset(world.dataset(key(request, "ds-"))),
        "DELETE /api/v2/datasets/{id}": delete_dataset,
        "PUT /api/v2/datasets/{id}/classes": put_class,
        "GET /api/v2/datasets/{id}/classes": lambda request: {
            "classes": [*map(category, world.categories_of(key(request, "ds-")))]
        },
        "PUT /api/v2/datasets/{id}/upload_sessions": put_session,
        "PUT /api/v2/upload_sessions/{id}/images": put_image,
        "PATCH /api/v2/upload_sessions/{id}": patch_session,
        "GET /api/v2/datasets/{id}/images": lambda request: {
            "images": [*map(image, world.images_of(key(request, "ds-")))]
        },
        "GET /api/v2/models": lambda request: {"models": [*map(model, world.models.values())]},
        "GET /api/v2/models/{id}": lambda request: model(world.model(key(request, "md-"))),
        "GET /api/v2/models/{id}/conversions": lambda request: {
            "conversions": [*map(conversion, world.conversions_of(key(request, "md-")))]
        },
        "GET /api/v2/models/{id}/file": get_file,
    }
    for name, kind in JOBS.items():
        table[f"PUT /api/v2/{name}"] = partial(put_job, kind)
        table[f"GET /api/v2/{name}"] = partial(get_jobs, kind)
        table[f"PATCH /api/v2/{name}/{{id}}"] = partial(patch_job, kind)
        table[f"GET /api/v2/{name}/{{id}}"] = lambda request, kind=kind: show(
            world.read(world.job(key(request, "job-"), kind))
        )
    return Starlette(
        routes=[*h.account(world), *h.routes(table, h.bearer(world))],
        exception_handlers={w.WorldError: on_error},
    )


def submit(world, kind, body):
    more = {"reference": body.get("external_id"), "options": body.get("hyperparameters")}
    if kind == "train":
        inputs = (h.numbers(body["dataset_ids"], "ds-"), body["model_name"], h.chosen(body["task"], TASKS))
        job = world.train(*inputs, **more)
    elif kind == "retrain":
        inputs = (h.number(body["model_id"], "md-"), h.numbers(body["dataset_ids"], "ds-"), body["model_name"])
        job = world.retrain(*inputs, **more)
    elif kind == "predict":
        inputs = (h.number(body["model_id"], "md-"), h.number(body["dataset_id"], "ds-"))
        share = body["threshold_percent"] / 100
        job = world.predict(*inputs, min_confidence=share, mode=h.chosen(body["overwrite"], MODES), **more)
    elif kind == "manipulate":
        steps = [(h.chosen(step.get("name"), STEPS), h.renamed(step, VALUES)) for step in body["operations"]]
        job = world.manipulate(h.number(body["dataset_id"], "ds-"), body["new_name"], steps, **more)
    elif kind == "convert":
        job = world.convert(h.number(body["model_id"], "md-"), body["hardware"], **more)
    else:
        job = world.rent(body["device_type"], timedelta(minutes=body["minutes"]), **more)
    return job


def on_error(request, error):
    kind, status = ERRORS[type(error)]
    headers = {"Retry-After": "1"} if status == 429 else None
    return JSONResponse({"error": {"type": kind, "message": str(error)}}, status, headers)


def key(request, prefix):
    return h.number(request.path_params["id"], prefix)


def created(content):
    return JSONResponse(content, 201)


def percent(values):
    return {name: value if "loss" in name else round(100 * value, 2) for name, value in values.items()}


def category(row):
    return {"id": f"cl-{row.id}", "name": row.name, "dataset_id": f"ds-{row.dataset_id}"}


def image(row):
    class_id = row.category_id and f"cl-{row.category_id}"
    shown = {"id": f"im-{row.id}", "file_name": row.file_name, "sha256": row.sha256}
    return {**shown, "class_id": class_id, "boxes": row.annotations}


def model(row):
    task = next(word for word, name in TASKS.items() if name == row.model_type)
    shown = {"id": f"md-{row.id}", "name": row.name, "task": task}
    return {**shown, "metrics": percent(row.metrics), "created": h.iso(row.created)}


def show(job):
    result = {}
    for name, value in job.result.items():
        if name in RESULT:
            field, prefix = RESULT[name]
            result[field] = f"{prefix}{value}"
    if "expires" in job.result:
        result["rented_until"] = h.iso(job.result["expires"])
    if "metrics" in job.result:
        result["metrics"] = percent(job.result["metrics"])
    return {
        "id": f"job-{job.id}",
        "status": STATES[job.state],
        "external_id": job.reference,
        "percent": round(100 * job.progress),
        "created": h.iso(job.created),
        "started": h.iso(job.started),
        "finished": h.iso(job.finished),
        "error": job.message,
        "result": result or None,
        "curve": [{**percent(row), "epoch": row["epoch"]} for row in job.history],
    }
