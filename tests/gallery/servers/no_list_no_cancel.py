"""Kestrel Lab, the smallest API that works: submit, then ask for the one job until it ends.

There is no sign-in: every request has the header ``X-Api-Key``. Jobs cannot be listed or cancelled, and they carry no
key of the client, so keep the id that a submit answers. Ids are strings of digits. Bodies and answers are JSON.

==============  =======================================  ==========================================================
POST, GET       /api/lab/datasets                        ``{"name"}`` -> ``{id, name, in_use, n_images, modified}``;
                                                         ``?name=`` filters, answers a list
GET             /api/lab/datasets/{id}                   dataset
POST            /api/lab/datasets/{id}/delete            ``{}``
POST, GET       /api/lab/datasets/{id}/categories        ``{"name"}`` -> ``{id, name}``; list
POST            /api/lab/datasets/{id}/upload            ``{"upload_id"}``; sets the dataset in use
POST            /api/lab/uploads/{upload_id}/image       multipart: ``image`` (file), ``category_id``, ``annotation``
                                                         (JSON text, optional) -> image
POST            /api/lab/uploads/{upload_id}/done        ``{}``
GET             /api/lab/datasets/{id}/images            ``[{id, name, sha256, category_id, annotation}]``
POST            /api/lab/train                           ``{dataset_ids, name, detector: true|false, settings}``
POST            /api/lab/retrain                         ``{model_id, dataset_ids, name, settings}``
POST            /api/lab/predict                         ``{model_id, dataset_id, confidence: 0-1, mode: 0|1|2}``: all,
                                                         replace, unlabelled
POST            /api/lab/manipulate                      ``{dataset_id, name, operations: [["rotate", {...}]]}``
POST            /api/lab/convert                         ``{model_id, hardware}``
POST            /api/lab/devices/rent                    ``{hardware, seconds}``
POST            /api/lab/devices/return                  ``{"rental": id}`` -> ``{}``: ends a rental, queued or not
GET             /api/lab/jobs/{id}                       job of any kind
GET             /api/lab/models, /api/lab/models/{id}    list, model
GET             /api/lab/models/{id}/conversions         ``[{id, hardware, status}]``
GET             /api/lab/models/{id}/files/{hardware}    bytes; ``original`` is the model as trained
==============  =======================================  ==========================================================

A submit answers ``{"id": "12", "status": "created"}``. An operation is a pair of name and values: rotate (angle,
copies), brightness (contrast, brightness, copies), resize (width, height). A job is ``{id, status, error, result}``;
statuses are created, processing, complete, error and, for a rental that was returned, returned; a rental is processing
while you have the device. ``result`` has those of model_id, dataset_id, conversion_id, device_id, until, metrics that
apply. A model is ``{id, name, detector, metrics, created}``.

Errors: ``{"detail": "..."}`` with 401, 404, 409 state or duplicate, 422 value, 423 in use, 503 busy.
"""

from __future__ import annotations

from datetime import timedelta
from functools import partial

from starlette.applications import Starlette
from starlette.responses import JSONResponse

from tests.gallery import world as w
from tests.gallery.servers import _http as h

MODES = dict(enumerate(("all", "replace", "unannotated")))
STATUS_WORDS = {"queued": "created", "running": "processing", "succeeded": "complete"}
STATUS_WORDS |= {"failed": "error", "cancelled": "returned"}
RESULT = {"model": "model_id", "dataset": "dataset_id", "conversion": "conversion_id", "device": "device_id"}
STATUSES = {w.NotFound: 404, w.Locked: 423, w.Conflict: 409, w.Refused: 422, w.Busy: 503, w.Unauthorized: 401}


def create_app(world: w.World) -> Starlette:
    """Return the server."""

    def dataset(row):
        shown = {"id": str(row.id), "name": row.name, "in_use": row.locked}
        return {**shown, "n_images": world.count(row.id), "modified": h.iso(row.changed)}

    def conversion(row):
        return {"id": str(row.id), "hardware": row.target, "status": STATUS_WORDS[world.state_of(row)]}

    async def create_dataset(request):
        return dataset(world.create_dataset((await h.json_body(request))["name"]))

    def get_datasets(request):
        return [dataset(row) for row in world.find_datasets(request.query_params.get("name"))]

    async def create_category(request):
        return category(world.create_category(key(request), (await h.json_body(request))["name"]))

    async def add_image(request):
        body = await h.fields(request)
        row = world.add_image(
            world.upload(key(request)).dataset_id,
            *body["image"],
            category_id=h.number(body["category_id"]) if body.get("category_id") else None,
            annotations=h.json_text(body.get("annotation")),
        )
        return image(row)

    async def create_job(kind, request):
        new = submit(world, kind, await h.json_body(request))
        return {"id": str(new.id), "status": STATUS_WORDS[new.state]}

    async def return_device(request):
        world.cancel(world.job(h.number((await h.json_body(request))["rental"]), "rent"))
        return {}

    def file(request):
        hardware = request.path_params["hardware"]
        return h.download(world.model_file(key(request), hardware), f"{hardware}.bin")

    def by(function):
        return lambda request: function(key(request))

    def done(function):
        def handler(request):
            function(key(request))
            return {}

        return handler

    table = {
        "POST /api/lab/datasets": create_dataset,
        "GET /api/lab/datasets": get_datasets,
        "GET /api/lab/datasets/{id:int}": by(lambda key: dataset(world.dataset(key))),
        "POST /api/lab/datasets/{id:int}/delete": done(world.delete_dataset),
        "POST /api/lab/datasets/{id:int}/categories": create_category,
        "GET /api/lab/datasets/{id:int}/categories": by(lambda key: [*map(category, world.categories_of(key))]),
        "POST /api/lab/datasets/{id:int}/upload": by(lambda key: {"upload_id": str(world.start_upload(key).id)}),
        "POST /api/lab/uploads/{id:int}/image": add_image,
        "POST /api/lab/uploads/{id:int}/done": done(world.finish_upload),
        "GET /api/lab/datasets/{id:int}/images": by(lambda key: [*map(image, world.images_of(key))]),
        "POST /api/lab/train": partial(create_job, "train"),
        "POST /api/lab/retrain": partial(create_job, "retrain"),
        "POST /api/lab/predict": partial(create_job, "predict"),
        "POST /api/lab/manipulate": partial(create_job, "manipulate"),
        "POST /api/lab/convert": partial(create_job, "convert"),
        "POST /api/lab/devices/rent": partial(create_job, "rent"),
        "POST /api/lab/devices/return": return_device,
        "GET /api/lab/jobs/{id:int}": by(lambda key: job(world.read(world.job(key)))),
        "GET /api/lab/models": lambda request: [*map(model, world.models.values())],
        "GET /api/lab/models/{id:int}": by(lambda key: model(world.model(key))),
        "GET /api/lab/models/{id:int}/conversions": by(lambda key: [*map(conversion, world.conversions_of(key))]),
        "GET /api/lab/models/{id:int}/files/{hardware}": file,
    }

    def check(request):
        world.check_key(request.headers.get("X-Api-Key"))

    return Starlette(routes=h.routes(table, check), exception_handlers={w.WorldError: on_error})


def submit(world, kind, body):
    options = {"options": body.get("settings")}
    if kind == "train":
        model_type = "detection" if body["detector"] is True else "classification"
        return world.train(h.numbers(body["dataset_ids"]), body["name"], model_type, **options)
    if kind == "retrain":
        return world.retrain(h.number(body["model_id"]), h.numbers(body["dataset_ids"]), body["name"], **options)
    if kind == "predict":
        inputs = (h.number(body["model_id"]), h.number(body["dataset_id"]))
        return world.predict(*inputs, min_confidence=body["confidence"], mode=h.chosen(body["mode"], MODES))
    if kind == "manipulate":
        return world.manipulate(h.number(body["dataset_id"]), body["name"], [*map(tuple, body["operations"])])
    if kind == "convert":
        return world.convert(h.number(body["model_id"]), body["hardware"])
    return world.rent(body["hardware"], timedelta(seconds=body["seconds"]))


def on_error(request, error):
    status = next(status for cls, status in STATUSES.items() if isinstance(error, cls))
    return JSONResponse({"detail": str(error)}, status)


def key(request):
    return request.path_params["id"]


def category(row):
    return {"id": str(row.id), "name": row.name}


def image(row):
    category_id = row.category_id and str(row.category_id)
    shown = {"id": str(row.id), "name": row.file_name, "sha256": row.sha256}
    return {**shown, "category_id": category_id, "annotation": row.annotations}


def model(row):
    shown = {"id": str(row.id), "name": row.name, "detector": row.model_type == "detection"}
    return {**shown, "metrics": row.metrics, "created": h.iso(row.created)}


def job(row):
    result = {RESULT[name]: str(value) for name, value in row.result.items() if name in RESULT}
    result |= h.renamed(row.result, {"expires": "until", "metrics": "metrics"})
    return {"id": str(row.id), "status": STATUS_WORDS[row.state], "error": row.message, "result": result}
