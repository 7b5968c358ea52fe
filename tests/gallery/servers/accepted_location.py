"""Meridian Imaging, in the manner of a cloud's management API: long-running operations behind a ``Location``.

``POST /api/Users/SignIn`` takes the access token as a JSON string and answers a token as text, for the header
``Authorization: Bearer <token>``. Ids are UUIDs. Lists are ``{"value": [...]}``.

A request that starts an operation is answered with **202, no body**, and ``Location: /api/operations/{operationId}``.
Its header ``Client-Request-Id`` (optional) is stored with the operation.

==============  =========================================  =======================================================
POST, GET       /api/collections                           ``{displayName}`` -> 201 collection; ``?displayName=``
GET, DELETE     /api/collections/{id}                      collection; 204
POST, GET       /api/collections/{id}/classes              ``{displayName}`` -> 201 class; classes
POST            /api/collections/{id}/ingestions           201 ``{ingestionId}``; locks the collection
POST            /api/ingestions/{ingestionId}/items        multipart: ``item`` (file), ``classId``, ``tagging``
                                                           (JSON text, optional) -> 201 item
POST            /api/ingestions/{ingestionId}:complete     200, ``{}``
GET             /api/collections/{id}/items                items
POST            /api/models:train                          ``{collectionIds, displayName, modelKind, options}``
POST            /api/models/{modelId}:refine               ``{collectionIds, displayName, options}``
POST            /api/models/{modelId}:classify             ``{collectionId, confidenceThreshold: 0-1, selection}``
POST            /api/models/{modelId}:export               ``{platform}``
POST            /api/collections/{id}:augment              ``{displayName, augmentations}``
POST            /api/devices:lease                         ``{deviceKind, duration: "PT1800S"}`` (seconds only)
GET, DELETE     /api/operations/{operationId}              operation; **202**, no body: cancelled (409 if ended)
GET             /api/operations                            ``?type=`` and ``?clientRequestId=``, both optional
GET             /api/models, /api/models/{modelId}         models, model
GET             /api/models/{modelId}/exports              ``[{exportId, platform, status, operationId}]`` in a list
GET             /api/models/{modelId}/content?platform=    bytes; without ``platform`` the model as trained
==============  =========================================  =======================================================

``modelKind`` is ImageClassification or ObjectDetection; ``selection`` is All, Overwrite (labels are removed first) or
Unlabeled. ``augmentations`` are ``{"rotation": {"maxDegrees", "copies"}}``, ``{"brightness": {"contrast", "level",
"copies"}}`` or ``{"size": {"width", "height"}}``, one key each.

An operation is ``{operationId, type, status, clientRequestId, percentComplete, createdDateTime, startedDateTime,
endedDateTime, error, output}``. Types: Train, Refine, Classify, Augment, Export, Lease. Statuses: NotStarted, Running,
Succeeded, Failed, Canceled. ``error`` is null or ``{"code": "OperationFailed", "message": "..."}``; ``output`` is
null or has those of ``modelId, collectionId, exportId, deviceId, leasedUntil, evaluation`` that apply.
A collection is ``{id, displayName, itemCount, ingesting, modifiedDateTime}``, a class ``{id, displayName}``, an item
``{id, fileName, sha256, classId, tagging}``, a model ``{id, displayName, modelKind, evaluation, createdDateTime}``.

Errors are ``application/problem+json`` (RFC 7807): ``{type, title, status, detail}``, the type one of
``https://meridian.example/problems/`` plus not-found (404), locked (423), duplicate (409), already-ended (409), invalid
(400), too-busy (503, with ``Retry-After``), unauthorized (401).
"""

from __future__ import annotations

import re
from datetime import timedelta
from functools import partial
from uuid import UUID

from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response

from tests.gallery import world as w
from tests.gallery.servers import _http as h

FIRST_ID = 0x5EED_0000_4000_8000_0000_0000_0000 << 16
TYPES = {
    "Train": "train",
    "Refine": "retrain",
    "Classify": "predict",
    "Augment": "manipulate",
    "Export": "convert",
    "Lease": "rent",
}
KINDS = {"ImageClassification": "classification", "ObjectDetection": "detection"}
SELECTIONS = {"All": "all", "Overwrite": "replace", "Unlabeled": "unannotated"}
STEPS = {"rotation": "rotate", "brightness": "brightness", "size": "resize"}
VALUES = {"maxDegrees": "angle", "level": "brightness"}
VALUES |= {key: key for key in ("contrast", "copies", "width", "height")}
STATUSES = {"queued": "NotStarted", "running": "Running", "succeeded": "Succeeded"}
STATUSES |= {"failed": "Failed", "cancelled": "Canceled"}
OUTPUT = {"model": "modelId", "dataset": "collectionId", "conversion": "exportId", "device": "deviceId"}
PROBLEMS = {
    w.NotFound: ("not-found", 404),
    w.Locked: ("locked", 423),
    w.Duplicate: ("duplicate", 409),
    w.AlreadyEnded: ("already-ended", 409),
    w.Refused: ("invalid", 400),
    w.Busy: ("too-busy", 503),
    w.Unauthorized: ("unauthorized", 401),
}


def create_app(world: w.World) -> Starlette:
    """Return the server."""

    def collection(row):
        shown = {"id": uuid(row.id), "displayName": row.name, "itemCount": world.count(row.id)}
        return {**shown, "ingesting": row.locked, "modifiedDateTime": h.iso(row.changed)}

    def export(row):
        status = STATUSES[world.state_of(row)]
        return {"exportId": uuid(row.id), "platform": row.target, "status": status, "operationId": uuid(row.job_id)}

    async def create_collection(request):
        return created(collection(world.create_dataset((await h.json_body(request))["displayName"])))

    def delete_collection(request):
        world.delete_dataset(key(request))
        return Response(status_code=204)

    async def create_class(request):
        return created(category(world.create_category(key(request), (await h.json_body(request))["displayName"])))

    async def add_item(request):
        body = await h.fields(request)
        row = world.add_image(
            world.upload(key(request)).dataset_id,
            *body["item"],
            category_id=plain(body["classId"]) if body.get("classId") else None,
            annotations=h.json_text(body.get("tagging")),
        )
        return created(item(row))

    def complete(request):
        world.finish_upload(key(request))
        return {}

    async def start(kind, request):
        key_of_client = {"reference": request.headers.get("Client-Request-Id")}
        of = key(request) if "id" in request.path_params else 0
        job = submit(world, kind, of, await h.json_body(request), key_of_client)
        return Response(status_code=202, headers={"Location": f"/api/operations/{uuid(job.id)}"})

    def get_operations(request):
        kind = request.query_params.get("type")
        jobs = world.find_jobs(kind and h.chosen(kind, TYPES), request.query_params.get("clientRequestId"))
        return listed(operation, map(world.read, jobs))

    def cancel(request):
        world.cancel(world.job(key(request)))
        return Response(status_code=202)

    def content(request):
        platform = request.query_params.get("platform", w.ORIGINAL)
        return h.download(world.model_file(key(request), platform), f"{platform}.bin")

    table = {
        "POST /api/collections": create_collection,
        "GET /api/collections": lambda request: listed(
            collection, world.find_datasets(request.query_params.get("displayName"))
        ),
        "GET /api/collections/{id}": lambda request: collection(world.dataset(key(request))),
        "DELETE /api/collections/{id}": delete_collection,
        "POST /api/collections/{id}/classes": create_class,
        "GET /api/collections/{id}/classes": lambda request: listed(category, world.categories_of(key(request))),
        "POST /api/collections/{id}/ingestions": lambda request: created(
            {"ingestionId": uuid(world.start_upload(key(request)).id)}
        ),
        "POST /api/ingestions/{id}/items": add_item,
        "POST /api/ingestions/{id}:complete": complete,
        "GET /api/collections/{id}/items": lambda request: listed(item, world.images_of(key(request))),
        "POST /api/models:train": partial(start, "train"),
        "POST /api/models/{id}:refine": partial(start, "retrain"),
        "POST /api/models/{id}:classify": partial(start, "predict"),
        "POST /api/models/{id}:export": partial(start, "convert"),
        "POST /api/collections/{id}:augment": partial(start, "manipulate"),
        "POST /api/devices:lease": partial(start, "rent"),
        "GET /api/operations": get_operations,
        "GET /api/operations/{id}": lambda request: operation(world.read(world.job(key(request)))),
        "DELETE /api/operations/{id}": cancel,
        "GET /api/models": lambda request: listed(model, world.models.values()),
        "GET /api/models/{id}": lambda request: model(world.model(key(request))),
        "GET /api/models/{id}/exports": lambda request: listed(export, world.conversions_of(key(request))),
        "GET /api/models/{id}/content": content,
    }
    return Starlette(
        routes=[*h.account(world), *h.routes(table, h.bearer(world))],
        exception_handlers={w.WorldError: on_error},
    )


def submit(world, kind, of, body, more):
    """Submit a job of the model or dataset *of*."""
    more["options"] = body.get("options")
    if kind == "train":
        inputs = ([*map(plain, body["collectionIds"])], body["displayName"], h.chosen(body["modelKind"], KINDS))
        return world.train(*inputs, **more)
    if kind == "retrain":
        return world.retrain(of, [*map(plain, body["collectionIds"])], body["displayName"], **more)
    if kind == "predict":
        mode = h.chosen(body["selection"], SELECTIONS)
        threshold = body["confidenceThreshold"]
        return world.predict(of, plain(body["collectionId"]), min_confidence=threshold, mode=mode, **more)
    if kind == "manipulate":
        steps = [
            (h.chosen(name, STEPS), h.renamed(values, VALUES))
            for step in body["augmentations"]
            for name, values in step.items()
        ]
        return world.manipulate(of, body["displayName"], steps, **more)
    if kind == "convert":
        return world.convert(of, body["platform"], **more)
    seconds = re.fullmatch(r"PT(\d+)S", str(body["duration"]))
    if not seconds:
        raise w.Refused("The duration is not like PT1800S.")
    return world.rent(body["deviceKind"], timedelta(seconds=int(seconds[1])), **more)


def on_error(request, error):
    name, status = PROBLEMS[type(error)]
    problem = {"type": f"https://meridian.example/problems/{name}", "title": name.replace("-", " ").capitalize()}
    return JSONResponse(
        {**problem, "status": status, "detail": str(error)},
        status,
        {"Retry-After": "1"} if status == 503 else None,
        "application/problem+json",
    )


def uuid(number):
    return str(UUID(int=FIRST_ID + number))


def plain(text):
    """Return the world's id of a UUID."""
    try:
        return UUID(str(text)).int - FIRST_ID
    except ValueError as error:
        raise w.NotFound("The id is not a UUID.") from error


def key(request):
    return plain(request.path_params["id"])


def created(content):
    return JSONResponse(content, 201)


def listed(show, rows):
    return {"value": [show(row) for row in rows]}


def category(row):
    return {"id": uuid(row.id), "displayName": row.name}


def item(row):
    class_id = row.category_id and uuid(row.category_id)
    shown = {"id": uuid(row.id), "fileName": row.file_name, "sha256": row.sha256}
    return {**shown, "classId": class_id, "tagging": row.annotations}


def model(row):
    kind = next(word for word, name in KINDS.items() if name == row.model_type)
    shown = {"id": uuid(row.id), "displayName": row.name, "modelKind": kind}
    return {**shown, "evaluation": row.metrics, "createdDateTime": h.iso(row.created)}


def operation(job):
    output = {OUTPUT[name]: uuid(value) for name, value in job.result.items() if name in OUTPUT}
    output |= h.renamed(job.result, {"expires": "leasedUntil", "metrics": "evaluation"})
    return {
        "operationId": uuid(job.id),
        "type": next(name for name, kind in TYPES.items() if kind == job.kind),
        "status": STATUSES[job.state],
        "clientRequestId": job.reference,
        "percentComplete": round(100 * job.progress),
        "createdDateTime": h.iso(job.created),
        "startedDateTime": h.iso(job.started),
        "endedDateTime": h.iso(job.finished),
        "error": job.message and {"code": "OperationFailed", "message": job.message},
        "output": output or None,
    }
