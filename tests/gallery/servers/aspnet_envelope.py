"""Vision Backend, an ASP.NET Core service with one controller a noun and actions in the address.

Every answer of a controller has the status 200 and the body ``{"data": ..., "success": true, "errors": []}``. A
failure has ``"data": null, "success": false`` and ``errors``, a list of ``{"code": "EntityNotFound", "message": ""}``.
The codes: EntityNotFound, EntityLocked, DuplicateName, InvalidState (the job or upload has ended), ValidationError,
ServerBusy, Unauthorized (sign-in only). A request without a valid token never reaches a controller: 401, no body.

Ids are integers. Times are ISO 8601. Enumerations are integers: the state of a job is 0 pending, 1 running,
2 completed, 3 failed, 4 canceled; the type of a model is 0 classification, 1 detection; the scope of a prediction is
0 all images, 1 all after the removal of their labels, 2 images without a label.

========  ==========================================  =========================================================
POST      /api/Users/SignIn                           bare JSON string -> data ``{accessToken, expiresIn}`` (seconds)
POST      /api/Dataset/Create                         ``{name}`` -> dataset
GET       /api/Dataset/Get?id=                        dataset
GET       /api/Dataset/GetAll?nameFilter=             ``{totalCount, items: [dataset]}``; the filter is optional
DELETE    /api/Dataset/Delete?id=                     null
POST      /api/Dataset/BeginUpload?datasetId=         ``{uploadId}``; locks the dataset
POST      /api/Dataset/EndUpload                      ``{uploadId}`` -> null
POST      /api/Category/Create                        ``{datasetId, name}`` -> ``{id, name, datasetId}``
GET       /api/Category/GetAll?datasetId=             ``{totalCount, items}``
POST      /api/Image/Upload                           multipart: file ``image``, ``uploadId``, ``categoryId``,
                                                      ``regions`` (any JSON as text, optional) -> image
GET       /api/Image/GetAll?datasetId=                ``{totalCount, items: [image]}``
POST      /api/{Job}/Start                            job; the fields are below
GET       /api/{Job}/Get?id=                          job
GET       /api/{Job}/GetAll?tag=                      ``{totalCount, items: [job]}``; the filter is optional
POST      /api/{Job}/Abort?id=                        null
GET       /api/Model/Get?id=, /api/Model/GetAll       model; ``{totalCount, items: [model]}``
GET       /api/Model/GetConversions?modelId=          ``{totalCount, items: [{id, platform, state, jobId}]}``
GET       /api/Model/Download?id=&platform=           the bytes (a failure is the usual body); no platform: original
========  ==========================================  =========================================================

Jobs and the fields of their Start, each with an optional ``tag`` of the client:
Training ``{datasetIds, name, modelType, options}``; Retraining ``{modelId, datasetIds, name, options}``;
Prediction ``{modelId, datasetId, confidence (0-1), scope}``; Augmentation ``{datasetId, name, operations}``;
Export ``{modelId, platform}``; DeviceLease ``{deviceType, period}`` with a TimeSpan such as ``"00:30:00"`` or, for a
day and six hours, ``"1.06:00:00"``. An operation is ``{"kind": "Rotate", "angle": 90, "count": 2}``,
``{"kind": "Brightness", "contrast": 1.2, "delta": 10, "count": 1}`` or ``{"kind": "Resize", "width": 64,
"height": 64}``.

A dataset is ``{id, name, isLocked, imagesCount, lastModificationTime}``; an image ``{id, fileName, sha256 (upper
case), categoryId, regions}``; a model ``{id, name, modelType, quality: {accuracy, precision, recall}, creationTime}``;
a job ``{id, state, progress (0-1), tag, creationTime, startTime, endTime, error, outcome, epochs}``. The outcome is
null or has those of ``modelId, datasetId, conversionId, deviceId, expirationTime, quality`` that apply; an epoch is
``{number, trainLoss, trainAccuracy, testLoss, testAccuracy}``.
"""

from __future__ import annotations

import re
from datetime import timedelta
from functools import partial

from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response

from tests.gallery import world as w
from tests.gallery.servers import _http as h

JOBS = {
    "Training": "train",
    "Retraining": "retrain",
    "Prediction": "predict",
    "Augmentation": "manipulate",
    "Export": "convert",
    "DeviceLease": "rent",
}
STATES = ("queued", "running", "succeeded", "failed", "cancelled")
TYPES = ("classification", "detection")
SCOPES = dict(enumerate(("all", "replace", "unannotated")))
OPERATIONS = {"Rotate": "rotate", "Brightness": "brightness", "Resize": "resize"}
VALUES = {name: name for name in ("angle", "contrast", "width", "height")} | {"count": "copies", "delta": "brightness"}
OUTCOME = {
    "model": "modelId",
    "dataset": "datasetId",
    "conversion": "conversionId",
    "device": "deviceId",
    "expires": "expirationTime",
    "metrics": "quality",
}
EPOCH = {
    "epoch": "number",
    "loss": "trainLoss",
    "accuracy": "trainAccuracy",
    "val_loss": "testLoss",
    "val_accuracy": "testAccuracy",
}
CODES = {
    w.NotFound: "EntityNotFound",
    w.Locked: "EntityLocked",
    w.Duplicate: "DuplicateName",
    w.AlreadyEnded: "InvalidState",
    w.Refused: "ValidationError",
    w.Busy: "ServerBusy",
    w.Unauthorized: "Unauthorized",
}


def create_app(world: w.World) -> Starlette:
    """Return the server."""

    async def sign_in(request):
        token = world.sign_in(h.json_text((await request.body()).decode()))
        return {"accessToken": token, "expiresIn": 3600}

    def dataset(row):
        return {
            "id": row.id,
            "name": row.name,
            "isLocked": row.locked,
            "imagesCount": world.count(row.id),
            "lastModificationTime": h.iso(row.changed),
        }

    def conversion(row):
        state = STATES.index(world.state_of(row))
        return {"id": row.id, "platform": row.target, "state": state, "jobId": row.job_id}

    async def create_dataset(request):
        return dataset(world.create_dataset((await h.json_body(request))["name"]))

    async def create_category(request):
        body = await h.json_body(request)
        return category(world.create_category(h.number(body["datasetId"]), body["name"]))

    async def end_upload(request):
        world.finish_upload(h.number((await h.json_body(request))["uploadId"]))

    async def upload(request):
        body = await h.fields(request)
        row = world.add_image(
            world.upload(h.number(body["uploadId"])).dataset_id,
            *body["image"],
            category_id=h.number(body["categoryId"]) if body.get("categoryId") else None,
            annotations=h.json_text(body.get("regions")),
        )
        return image(row)

    def get_file(request):
        platform = request.query_params.get("platform") or w.ORIGINAL
        return h.download(world.model_file(h.number(h.query(request)["id"]), platform), f"{platform}.bin")

    async def start(kind, request):
        return job(submit(world, kind, await h.json_body(request)))

    def get(kind, request):
        return job(world.read(world.job(h.number(h.query(request)["id"]), kind)))

    def get_all(kind, request):
        return listed(world.find_jobs(kind, request.query_params.get("tag")), lambda row: job(world.read(row)))

    def abort(kind, request):
        world.cancel(world.job(h.number(h.query(request)["id"]), kind))

    def by(name, function):
        return lambda request: function(h.number(h.query(request)[name]))

    table = {
        "POST /api/Dataset/Create": create_dataset,
        "GET /api/Dataset/Get": by("id", lambda key: dataset(world.dataset(key))),
        "GET /api/Dataset/GetAll": lambda request: listed(
            world.find_datasets(request.query_params.get("nameFilter")), dataset
        ),
        "DELETE /api/Dataset/Delete": by("id", world.delete_dataset),
        "POST /api/Dataset/BeginUpload": by("datasetId", lambda key: {"uploadId": world.start_upload(key).id}),
        "POST /api/Dataset/EndUpload": end_upload,
        "POST /api/Category/Create": create_category,
        "GET /api/Category/GetAll": by("datasetId", lambda key: listed(world.categories_of(key), category)),
        "POST /api/Image/Upload": upload,
        "GET /api/Image/GetAll": by("datasetId", lambda key: listed(world.images_of(key), image)),
        "GET /api/Model/Get": by("id", lambda key: model(world.model(key))),
        "GET /api/Model/GetAll": lambda request: listed(world.models.values(), model),
        "GET /api/Model/GetConversions": by("modelId", lambda key: listed(world.conversions_of(key), conversion)),
        "GET /api/Model/Download": get_file,
    }
    for name, kind in JOBS.items():
        table[f"POST /api/{name}/Start"] = partial(start, kind)
        table[f"GET /api/{name}/Get"] = partial(get, kind)
        table[f"GET /api/{name}/GetAll"] = partial(get_all, kind)
        table[f"POST /api/{name}/Abort"] = partial(abort, kind)
    sign_in_route = h.routes({"POST /api/Users/SignIn": sign_in}, answer=success)
    return Starlette(
        routes=[*sign_in_route, *h.routes(table, h.bearer(world), success)],
        exception_handlers={w.WorldError: failure},
    )


def submit(world, kind, body):
    more = {"reference": body.get("tag")}
    if kind == "train":
        model_type = h.chosen(body["modelType"], dict(enumerate(TYPES)))
        inputs = (h.numbers(body["datasetIds"]), body["name"], model_type)
        new = world.train(*inputs, options=body.get("options"), **more)
    elif kind == "retrain":
        inputs = (h.number(body["modelId"]), h.numbers(body["datasetIds"]))
        new = world.retrain(*inputs, body["name"], options=body.get("options"), **more)
    elif kind == "predict":
        inputs = (h.number(body["modelId"]), h.number(body["datasetId"]))
        mode = h.chosen(body["scope"], SCOPES)
        new = world.predict(*inputs, min_confidence=body["confidence"], mode=mode, **more)
    elif kind == "manipulate":
        steps = [(h.chosen(step.get("kind"), OPERATIONS), h.renamed(step, VALUES)) for step in body["operations"]]
        new = world.manipulate(h.number(body["datasetId"]), body["name"], steps, **more)
    elif kind == "convert":
        new = world.convert(h.number(body["modelId"]), body["platform"], **more)
    else:
        new = world.rent(body["deviceType"], time_span(body["period"]), **more)
    return new


def success(data):
    return JSONResponse({"data": data, "success": True, "errors": []})


def failure(request, error):
    if isinstance(error, w.Unauthorized) and not request.url.path.endswith("/SignIn"):
        return Response(status_code=401, headers={"WWW-Authenticate": "Bearer"})
    errors = [{"code": CODES[type(error)], "message": str(error)}]
    return JSONResponse({"data": None, "success": False, "errors": errors})


def listed(rows, show):
    items = [show(row) for row in rows]
    return {"totalCount": len(items), "items": items}


def time_span(text):
    match = re.fullmatch(r"(?:(\d+)\.)?([01]\d|2[0-3]):([0-5]\d):([0-5]\d)", str(text))
    if not match:
        raise w.Refused("The period is not a TimeSpan.")
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)


def category(row):
    return {"id": row.id, "name": row.name, "datasetId": row.dataset_id}


def image(row):
    return {
        "id": row.id,
        "fileName": row.file_name,
        "sha256": row.sha256.upper(),
        "categoryId": row.category_id,
        "regions": row.annotations,
    }


def model(row):
    return {
        "id": row.id,
        "name": row.name,
        "modelType": TYPES.index(row.model_type),
        "quality": row.metrics,
        "creationTime": h.iso(row.created),
    }


def job(row):
    return {
        "id": row.id,
        "state": STATES.index(row.state),
        "progress": row.progress,
        "tag": row.reference,
        "creationTime": h.iso(row.created),
        "startTime": h.iso(row.started),
        "endTime": h.iso(row.finished),
        "error": row.message,
        "outcome": h.renamed(row.result, OUTCOME) or None,
        "epochs": [h.renamed(epoch, EPOCH) for epoch in row.history],
    }
