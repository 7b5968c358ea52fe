"""Nimbus Train, written in Go: no state words, only flags; numbers stay numbers.

``POST /api/Users/SignIn`` takes the access token as a JSON string and answers a token as text, for the header
``Authorization: Bearer <token>``. Ids are JSON numbers also in bodies: a quoted number is refused with 400. (In an
address, a query or a form they are text, of course.) All times are milliseconds since 1970.

==============  =====================================  ============================================================
POST            /api/dataset/new                       ``{name}`` -> dataset
GET             /api/dataset/all?name=                 ``[dataset]``; the filter is optional
GET             /api/dataset/one/{id}                  dataset
POST            /api/dataset/drop/{id}                 ``{"ok": true}``
POST            /api/category/new                      ``{name, dataset}`` -> ``{id, name, dataset}``
GET             /api/category/all?dataset=             ``[category]``
POST            /api/upload/begin/{dataset}            ``{"upload": 9}``; locks the dataset
POST            /api/upload/put/{upload}               multipart: ``data`` (file), ``category`` (id), ``rects`` (JSON
                                                       text, optional) -> image
POST            /api/upload/end/{upload}               ``{"ok": true}``
GET             /api/image/all?dataset=                ``[image]``
POST            /api/task/{type}                       task; the body is below
GET             /api/task/{type}/one/{taskId}          task
GET             /api/task/{type}/all?mark=             ``[task]``; the filter is optional
POST            /api/task/{type}/kill/{taskId}         ``{"ok": true}``
GET             /api/model/all, /api/model/one/{id}    ``[model]``, model
GET             /api/model/ports/{id}                  ``[{id, board, finished, failed, cancelled, taskId}]``
GET             /api/model/blob/{id}?board=            bytes; without ``board`` the model as trained
==============  =====================================  ============================================================

Types and bodies, each with an optional text ``mark`` of the client:
``train`` ``{datasets: [1], name, boxes: false, knobs: {}}`` (boxes: whether the model detects objects);
``retrain`` ``{model, datasets, name, knobs}``; ``predict`` ``{model, dataset, floor: 0-1, skipLabelled, dropLabels}``,
the last two booleans; ``augment`` ``{dataset, name, ops}``; ``port`` ``{model, board}``; ``rent`` ``{board,
millis}``. An op is ``{"rotate": 90, "copies": 2}``, ``{"brightness": 10, "contrast": 1.2, "copies": 1}`` or
``{"width": 64, "height": 64}``.

A task is ``{taskId, mark, finished, failed, cancelled, percent, queuedAt, startedAt, endedAt, note, modelRef,
datasetRef, portRef, scores, curve}``. ``finished`` is true as soon as the task has ended, however it ended; ``failed``
and ``cancelled`` say how. A rental has ``ready`` also (true while you have the device), ``deviceRef`` and ``dueAt``.
References are 0 and times are 0 if there is none. ``scores`` is a list of ``{name, value}`` (accuracy, precision,
recall; 0 to 1), ``curve`` a list of ``{round, trainLoss, trainAcc, testLoss, testAcc}``. A dataset is ``{id, name,
locked, images, changedAt}``, an image ``{id, name, sum (SHA-256), category (0: none), rects}``, a model ``{id, name,
boxes, scores, bornAt}``.

Errors are text/plain, as ``http.Error`` writes them: 400 value, 401, 404, 409 state or duplicate, 423 locked, 503 busy.
"""

from __future__ import annotations

from datetime import timedelta
from functools import partial

from starlette.applications import Starlette
from starlette.responses import PlainTextResponse

from tests.gallery import world as w
from tests.gallery.servers import _http as h

TYPES = {
    "train": "train",
    "retrain": "retrain",
    "predict": "predict",
    "augment": "manipulate",
    "port": "convert",
    "rent": "rent",
}
CURVE = {
    "epoch": "round",
    "loss": "trainLoss",
    "accuracy": "trainAcc",
    "val_loss": "testLoss",
    "val_accuracy": "testAcc",
}
STATUSES = {w.NotFound: 404, w.Locked: 423, w.Conflict: 409, w.Refused: 400, w.Busy: 503, w.Unauthorized: 401}


def create_app(world: w.World) -> Starlette:
    """Return the server."""

    def dataset(row):
        images = world.count(row.id)
        return {"id": row.id, "name": row.name, "locked": row.locked, "images": images, "changedAt": ms(row.changed)}

    def port(row):
        return {"id": row.id, "board": row.target, **flags(world.state_of(row)), "taskId": row.job_id}

    async def new_dataset(request):
        return dataset(world.create_dataset((await h.json_body(request))["name"]))

    async def new_category(request):
        body = await h.json_body(request)
        return category(world.create_category(integer(body["dataset"]), body["name"]))

    async def put(request):
        body = await h.fields(request)
        row = world.add_image(
            world.upload(request.path_params["id"]).dataset_id,
            *body["data"],
            category_id=h.number(body.get("category", 0)) or None,
            annotations=h.json_text(body.get("rects")),
        )
        return image(row)

    async def new_task(kind, request):
        return task(submit(world, kind, await h.json_body(request)))

    def all_tasks(kind, request):
        return [task(world.read(job)) for job in world.find_jobs(kind, request.query_params.get("mark"))]

    def blob(request):
        board = request.query_params.get("board", w.ORIGINAL)
        return h.download(world.model_file(request.path_params["id"], board), f"{board}.bin")

    def by(function):
        return lambda request: function(request.path_params["id"])

    def done(function):
        def handler(request):
            function(request.path_params["id"])
            return {"ok": True}

        return handler

    def of_dataset(show, rows_of):
        return lambda request: [show(row) for row in rows_of(h.number(h.query(request)["dataset"]))]

    table = {
        "POST /api/dataset/new": new_dataset,
        "GET /api/dataset/all": lambda request: [*map(dataset, world.find_datasets(request.query_params.get("name")))],
        "GET /api/dataset/one/{id:int}": by(lambda key: dataset(world.dataset(key))),
        "POST /api/dataset/drop/{id:int}": done(world.delete_dataset),
        "POST /api/category/new": new_category,
        "GET /api/category/all": of_dataset(category, world.categories_of),
        "POST /api/upload/begin/{id:int}": by(lambda key: {"upload": world.start_upload(key).id}),
        "POST /api/upload/put/{id:int}": put,
        "POST /api/upload/end/{id:int}": done(world.finish_upload),
        "GET /api/image/all": of_dataset(image, world.images_of),
        "GET /api/model/all": lambda request: [*map(model, world.models.values())],
        "GET /api/model/one/{id:int}": by(lambda key: model(world.model(key))),
        "GET /api/model/ports/{id:int}": by(lambda key: [*map(port, world.conversions_of(key))]),
        "GET /api/model/blob/{id:int}": blob,
    }
    for name, kind in TYPES.items():
        path = f"/api/task/{name}"
        table[f"POST {path}"] = partial(new_task, kind)
        table[f"GET {path}/all"] = partial(all_tasks, kind)
        table[f"GET {path}/one/{{id:int}}"] = by(lambda key, kind=kind: task(world.read(world.job(key, kind))))
        table[f"POST {path}/kill/{{id:int}}"] = done(lambda key, kind=kind: world.cancel(world.job(key, kind)))
    return Starlette(
        routes=[*h.account(world), *h.routes(table, h.bearer(world))],
        exception_handlers={w.WorldError: on_error},
    )


def submit(world, kind, body):
    more = {"reference": body.get("mark"), "options": body.get("knobs")}
    if kind == "train":
        model_type = "detection" if body["boxes"] is True else "classification"
        return world.train([*map(integer, body["datasets"])], body["name"], model_type, **more)
    if kind == "retrain":
        return world.retrain(integer(body["model"]), [*map(integer, body["datasets"])], body["name"], **more)
    if kind == "predict":
        mode = "replace" if body.get("dropLabels") else "unannotated" if body.get("skipLabelled") else "all"
        inputs = (integer(body["model"]), integer(body["dataset"]))
        return world.predict(*inputs, min_confidence=body["floor"], mode=mode, **more)
    if kind == "manipulate":
        return world.manipulate(integer(body["dataset"]), body["name"], [*map(step, body["ops"])], **more)
    if kind == "convert":
        return world.convert(integer(body["model"]), body["board"], **more)
    return world.rent(body["board"], timedelta(milliseconds=integer(body["millis"])), **more)


def step(op):
    """Return an operation, which its keys tell, in the words of the world."""
    if "rotate" in op:
        return "rotate", {**op, "angle": op["rotate"]}
    return ("resize" if "width" in op else "brightness"), op


def on_error(request, error):
    status = next(status for cls, status in STATUSES.items() if isinstance(error, cls))
    return PlainTextResponse(f"{error}\n", status)


def integer(value):
    """Return a JSON number, as a Go decoder does; it takes no text for one."""
    if type(value) is not int:
        raise w.Refused("json: cannot unmarshal the value into Go value of type int64")
    return value


def ms(time):
    return int(time.timestamp() * 1000) if time else 0


def flags(state):
    return {"finished": state in w.ENDED, "failed": state == "failed", "cancelled": state == "cancelled"}


def scores(metrics):
    return [{"name": name, "value": value} for name, value in metrics.items()]


def category(row):
    return {"id": row.id, "name": row.name, "dataset": row.dataset_id}


def image(row):
    shown = {"id": row.id, "name": row.file_name, "sum": row.sha256}
    return {**shown, "category": row.category_id or 0, "rects": row.annotations or []}


def model(row):
    shown = {"id": row.id, "name": row.name, "boxes": row.model_type == "detection"}
    return {**shown, "scores": scores(row.metrics), "bornAt": ms(row.created)}


def task(job):
    rental = {}
    if job.kind == "rent":
        device = job.result.get("device", 0)
        rental = {"ready": job.state == "running", "deviceRef": device, "dueAt": ms(job.result.get("expires"))}
    return {
        "taskId": job.id,
        "mark": job.reference or "",
        **flags(job.state),
        "percent": round(100 * job.progress),
        "queuedAt": ms(job.created),
        "startedAt": ms(job.started),
        "endedAt": ms(job.finished),
        "note": job.message or "",
        "modelRef": job.result.get("model", 0),
        "datasetRef": job.result.get("dataset", 0),
        "portRef": job.result.get("conversion", 0),
        "scores": scores(job.result.get("metrics", {})),
        "curve": [h.renamed(row, CURVE) for row in job.history],
        **rental,
    }
