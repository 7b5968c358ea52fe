"""Vault Models: files are fetched from object storage by signed addresses.

``POST /api/Users/SignIn`` takes the access token as a JSON string and answers a token as text, for the header
``Authorization: Bearer <token>``. Ids are integers, lists are plain arrays, bodies are JSON in camelCase.

To download, list the conversions of the model, and ask for the link of one that is ready:
``GET /api/conversions/{conversionId}/link`` -> ``{"link": {"url": "http://host/storage/31?signature=...", "method":
"GET", "expiresInSeconds": 300}}``. The URL is absolute. Storage takes **no** ``Authorization`` header: with one it
answers 400 (XML); with a wrong signature 403 (XML). A model as it was trained cannot be downloaded.

==============  =========================================  =======================================================
POST, GET       /api/datasets                              ``{datasetName}`` -> 201; ``?search=`` (substring)
GET, DELETE     /api/datasets/{datasetId}                  dataset; 200, ``{"deleted": true}``
POST, GET       /api/datasets/{datasetId}/categories       ``{categoryName}`` -> 201 category; categories
POST            /api/datasets/{datasetId}/lock             201 ``{"lockToken": "lock-9"}``: starts an upload
POST            /api/datasets/{datasetId}/images           multipart: ``imageFile``, ``categoryId``, ``regions`` (JSON
                                                           text, optional); header ``X-Lock-Token`` -> 201 image
DELETE          /api/datasets/{datasetId}/lock             header ``X-Lock-Token``; 204: finishes the upload
GET             /api/datasets/{datasetId}/images           images
POST            /api/train                                 ``{datasetIds, modelName, modelType: "CLS"|"DET", params}``
POST            /api/models/{modelId}/retrain              ``{datasetIds, modelName, params}``
POST            /api/models/{modelId}/predict              ``{datasetId, confidence: 0-1, mode: "A"|"R"|"U"}``: all,
                                                           replace, unlabelled
POST            /api/datasets/{datasetId}/derive           ``{datasetName, recipe}``
POST            /api/conversions                           ``{modelId, platform}``
POST            /api/devices/{platform}/rent               ``?seconds=``; no body
GET             /api/processes/{processId}                 process of any kind
GET             /api/processes                             ``?kind=`` and ``?correlationId=``, both optional
POST            /api/processes/{processId}/abort           200, process
GET             /api/models, /api/models/{modelId}         models, model
GET             /api/conversions?modelId=                  ``[{conversionId, modelId, platform, readiness,
                                                           processId}]``; readiness PREPARING, READY or FAILED
==============  =========================================  =======================================================

What starts a process answers 201 with it. The header ``X-Correlation-Id`` (optional) is stored with it. A process is
``{processId, kind, correlationId, statusCode, progressPercent, times: {created, started, ended}, failure, modelId,
datasetId, conversionId, device, metrics}``; what does not apply is missing. Kinds: TRAIN, RETRAIN, PREDICT, DERIVE,
CONVERT, RENT. Status codes: IN_QUEUE, IN_WORK, OK, NOK, ABORTED. ``device`` is ``{"deviceId": 5, "until": "..."}``.
The recipe: ``{"rotate": {"angle", "copies"}, "brightness": {"contrast", "brightness", "copies"}, "resize": {"width",
"height"}}``, at most one of each, in the order of the keys. A dataset is ``{datasetId, datasetName, locked, imageCount,
updatedAt}``, a category ``{categoryId, categoryName}``, an image ``{imageId, fileName, sha256, categoryId, regions}``,
a model ``{modelId, modelName, modelType, metrics, createdAt}``.

Errors: ``{"fault": {"faultCode": "F404", "faultText": "..."}}``, the number being the status: 400, 401, 404, 409 state
or duplicate, 423 locked, 503 busy.
"""

from __future__ import annotations

import hashlib
import hmac
from datetime import timedelta
from functools import partial

from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response

from tests.gallery import world as w
from tests.gallery.servers import _http as h

SIGNING_KEY = b"gallery"
KINDS = {
    "TRAIN": "train",
    "RETRAIN": "retrain",
    "PREDICT": "predict",
    "DERIVE": "manipulate",
    "CONVERT": "convert",
    "RENT": "rent",
}
MODEL_TYPES = {"CLS": "classification", "DET": "detection"}
MODES = {"A": "all", "R": "replace", "U": "unannotated"}
CODES = {"queued": "IN_QUEUE", "running": "IN_WORK", "succeeded": "OK", "failed": "NOK", "cancelled": "ABORTED"}
READINESS = {"succeeded": "READY", "failed": "FAILED", "cancelled": "FAILED"}
RESULT = {"model": "modelId", "dataset": "datasetId", "conversion": "conversionId", "metrics": "metrics"}
STATUSES = {w.NotFound: 404, w.Locked: 423, w.Conflict: 409, w.Refused: 400, w.Busy: 503, w.Unauthorized: 401}


def create_app(world: w.World) -> Starlette:
    """Return the server."""

    def dataset(row):
        shown = {"datasetId": row.id, "datasetName": row.name, "locked": row.locked}
        return {**shown, "imageCount": world.count(row.id), "updatedAt": h.iso(row.changed)}

    def conversion(row):
        readiness = READINESS.get(world.state_of(row), "PREPARING")
        shown = {"conversionId": row.id, "modelId": row.model_id, "platform": row.target}
        return {**shown, "readiness": readiness, "processId": row.job_id}

    async def create_dataset(request):
        return JSONResponse(dataset(world.create_dataset((await h.json_body(request))["datasetName"])), 201)

    def get_datasets(request):
        text = request.query_params.get("search", "")
        return [dataset(row) for row in world.find_datasets() if text.lower() in row.name.lower()]

    def delete_dataset(request):
        world.delete_dataset(key(request))
        return {"deleted": True}

    async def create_category(request):
        name = (await h.json_body(request))["categoryName"]
        return JSONResponse(category(world.create_category(key(request), name)), 201)

    def lock(request):
        return JSONResponse({"lockToken": f"lock-{world.start_upload(key(request)).id}"}, 201)

    def locked(request):
        """The upload of the token in the header, which must be one of the dataset."""
        upload = world.upload(h.number(request.headers.get("X-Lock-Token"), "lock-"))
        if upload.dataset_id != key(request):
            raise w.Refused("The lock token is for another dataset.")
        return upload

    async def add_image(request):
        body = await h.fields(request)
        row = world.add_image(
            locked(request).dataset_id,
            *body["imageFile"],
            category_id=h.number(body["categoryId"]) if body.get("categoryId") else None,
            annotations=h.json_text(body.get("regions")),
        )
        return JSONResponse(image(row), 201)

    def unlock(request):
        world.finish_upload(locked(request).id)
        return Response(status_code=204)

    async def start(kind, request):
        body = await h.json_body(request)
        more = {"reference": request.headers.get("X-Correlation-Id"), "options": body.get("params")}
        return JSONResponse(process(submit(world, kind, request, body, more)), 201)

    def get_processes(request):
        kind = request.query_params.get("kind")
        jobs = world.find_jobs(kind and h.chosen(kind, KINDS), request.query_params.get("correlationId"))
        return [process(world.read(job)) for job in jobs]

    def get_conversions(request):
        return [conversion(row) for row in world.conversions_of(h.number(h.query(request)["modelId"]))]

    def link(request):
        row = world.conversion(key(request))
        if not row.data:
            raise w.Conflict("The conversion is not ready.")
        url = request.url.replace(path=f"/storage/{row.id}", query=f"signature={signature(row.id)}")
        return {"link": {"url": str(url), "method": "GET", "expiresInSeconds": 300}}

    def storage(request):
        if "Authorization" in request.headers:
            return xml(400, "InvalidArgument", "Only one authentication mechanism is allowed.")
        if not hmac.compare_digest(request.query_params.get("signature", ""), signature(key(request))):
            return xml(403, "SignatureDoesNotMatch", "The signature does not match.")
        row = world.conversion(key(request))
        return h.download(row.data, f"{row.target}.bin")

    def by(function):
        return lambda request: function(key(request))

    table = {
        "POST /api/datasets": create_dataset,
        "GET /api/datasets": get_datasets,
        "GET /api/datasets/{id:int}": by(lambda key: dataset(world.dataset(key))),
        "DELETE /api/datasets/{id:int}": delete_dataset,
        "POST /api/datasets/{id:int}/categories": create_category,
        "GET /api/datasets/{id:int}/categories": by(lambda key: [*map(category, world.categories_of(key))]),
        "POST /api/datasets/{id:int}/lock": lock,
        "DELETE /api/datasets/{id:int}/lock": unlock,
        "POST /api/datasets/{id:int}/images": add_image,
        "GET /api/datasets/{id:int}/images": by(lambda key: [*map(image, world.images_of(key))]),
        "POST /api/train": partial(start, "train"),
        "POST /api/models/{id:int}/retrain": partial(start, "retrain"),
        "POST /api/models/{id:int}/predict": partial(start, "predict"),
        "POST /api/datasets/{id:int}/derive": partial(start, "manipulate"),
        "POST /api/conversions": partial(start, "convert"),
        "POST /api/devices/{platform}/rent": partial(start, "rent"),
        "GET /api/processes": get_processes,
        "GET /api/processes/{id:int}": by(lambda key: process(world.read(world.job(key)))),
        "POST /api/processes/{id:int}/abort": by(lambda key: process(world.cancel(world.job(key)))),
        "GET /api/models": lambda request: [*map(model, world.models.values())],
        "GET /api/models/{id:int}": by(lambda key: model(world.model(key))),
        "GET /api/conversions": get_conversions,
        "GET /api/conversions/{id:int}/link": link,
    }
    files = h.routes({"GET /storage/{id:int}": storage})
    return Starlette(
        routes=[*h.account(world), *h.routes(table, h.bearer(world)), *files],
        exception_handlers={w.WorldError: on_error},
    )


def submit(world, kind, request, body, more):
    """Submit a job; the address has some of its inputs."""
    if kind == "train":
        model_type = h.chosen(body["modelType"], MODEL_TYPES)
        return world.train(h.numbers(body["datasetIds"]), body["modelName"], model_type, **more)
    if kind == "retrain":
        return world.retrain(key(request), h.numbers(body["datasetIds"]), body["modelName"], **more)
    if kind == "predict":
        inputs = (key(request), h.number(body["datasetId"]))
        return world.predict(*inputs, min_confidence=body["confidence"], mode=h.chosen(body["mode"], MODES), **more)
    if kind == "manipulate":
        return world.manipulate(key(request), body["datasetName"], [*body["recipe"].items()], **more)
    if kind == "convert":
        return world.convert(h.number(body["modelId"]), body["platform"], **more)
    seconds = h.number(h.query(request)["seconds"])
    return world.rent(request.path_params["platform"], timedelta(seconds=seconds), **more)


def on_error(request, error):
    status = next(status for cls, status in STATUSES.items() if isinstance(error, cls))
    return JSONResponse({"fault": {"faultCode": f"F{status}", "faultText": str(error)}}, status)


def xml(status, code, message):
    content = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>{message}</Message></Error>'
    return Response(content, status, media_type="application/xml")


def signature(number):
    return hmac.new(SIGNING_KEY, str(number).encode(), hashlib.sha256).hexdigest()


def key(request):
    return request.path_params["id"]


def category(row):
    return {"categoryId": row.id, "categoryName": row.name}


def image(row):
    shown = {"imageId": row.id, "fileName": row.file_name, "sha256": row.sha256}
    return {**shown, "categoryId": row.category_id, "regions": row.annotations}


def model(row):
    model_type = next(word for word, name in MODEL_TYPES.items() if name == row.model_type)
    shown = {"modelId": row.id, "modelName": row.name, "modelType": model_type}
    return {**shown, "metrics": row.metrics, "createdAt": h.iso(row.created)}


def process(job):
    device = {}
    if "device" in job.result:
        device = {"device": {"deviceId": job.result["device"], "until": h.iso(job.result["expires"])}}
    times = {"created": h.iso(job.created), "started": h.iso(job.started), "ended": h.iso(job.finished)}
    optional = {"correlationId": job.reference, "failure": job.message}
    return {
        "processId": job.id,
        "kind": next(word for word, kind in KINDS.items() if kind == job.kind),
        "statusCode": CODES[job.state],
        "progressPercent": round(100 * job.progress),
        "times": {name: time for name, time in times.items() if time},
        **{name: text for name, text in optional.items() if text},
        **h.renamed(job.result, RESULT),
        **device,
    }
