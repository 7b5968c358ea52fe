"""Quarry, a service for shell scripts: forms in, bare words out.

``POST /api/Users/SignIn`` takes the access token as a JSON string and answers a token as text, for the header
``Authorization: Bearer <token>``. Requests are forms (``application/x-www-form-urlencoded``); what makes something is
answered with its bare number, ``text/plain``, what changes something with ``OK``. Only objects and lists of them are
JSON; there, too, ids are numbers.

A task makes one thing, which has the number of the task: the model of a training or re-training, the dataset of a
manipulation, the file of a conversion, the device of a rental.

==============  ==================================  ===============================================================
POST, GET       /api/sets                           form ``name`` -> number; JSON list, ``?name=`` filters
GET             /api/sets/{set}                     JSON ``{number, name, locked, images, changed}``
POST            /api/sets/{set}/drop                ``OK``
POST, GET       /api/sets/{set}/classes             form ``name`` -> number; JSON ``[{number, name}]``
POST            /api/sets/{set}/begin               number of the upload; locks the set
POST            /api/uploads/{upload}/add           multipart: ``picture`` (file), ``class`` (number), ``notes`` (JSON
                                                    text, optional) -> number of the image
POST            /api/uploads/{upload}/end           ``OK``
GET             /api/sets/{set}/images              JSON ``[{number, file, sha256, class, notes}]``
POST            /api/tasks/train                    form ``set`` (repeat it for several), ``name``, ``type`` (``C``
                                                    or ``D``), ``config`` (JSON text, optional)
POST            /api/tasks/retrain                  form ``model``, ``set`` (repeat), ``name``, ``config``
POST            /api/tasks/predict                  form ``model``, ``set``, ``confidence`` (0-1), ``only_new``
                                                    (yes | no), ``wipe`` (yes | no)
POST            /api/tasks/manipulate               form ``set``, ``name``, ``ops`` (JSON text: ``[{"op": "rotate",
                                                    "angle", "copies"}]``; brightness: contrast, brightness, copies;
                                                    resize: width, height)
POST            /api/tasks/convert                  form ``model``, ``board``
POST            /api/tasks/rent                     form ``board``, ``time`` (``45m``, ``2h``, ``30s``)
GET             /api/tasks/{type}/{task}            the word of the state
GET             /api/tasks/{type}/{task}/why        text: why a task is Faulted; empty otherwise
POST            /api/tasks/{type}/{task}/abort      ``OK``
GET             /api/tasks/{type}?memo=             text: the numbers of the tasks, one a line
GET             /api/models, /api/models/{model}    JSON list, JSON ``{number, name, type, quality, made}``
GET             /api/models/{model}/builds          JSON ``[{number, board, state}]``
GET             /api/models/{model}/load?board=     bytes; without ``board`` the model as trained
==============  ==================================  ===============================================================

The form of a task may have a ``memo``. States: Waiting, Working, Completed, Faulted, Aborted.

Errors are one line of text with 400 value, 401, 404, 409 state or duplicate, 423 locked, 503 busy.
"""

from __future__ import annotations

import re
from datetime import timedelta
from functools import partial

from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse

from tests.gallery import world as w
from tests.gallery.servers import _http as h

KINDS = ("train", "retrain", "predict", "manipulate", "convert", "rent")
MODEL_TYPES = {"C": "classification", "D": "detection"}
STEPS = {name: name for name in ("rotate", "brightness", "resize")}
STATES = {"queued": "Waiting", "running": "Working", "succeeded": "Completed"}
STATES |= {"failed": "Faulted", "cancelled": "Aborted"}
UNITS = {"s": "seconds", "m": "minutes", "h": "hours"}
STATUSES = {w.NotFound: 404, w.Locked: 423, w.Conflict: 409, w.Refused: 400, w.Busy: 503, w.Unauthorized: 401}


def create_app(world: w.World) -> Starlette:
    """Return the server."""

    def set_id(number):
        """The world's id of a dataset, which may have the number of the task that made it."""
        return next((row.id for row in world.datasets.values() if row.job_id == number), number)

    def model_id(number):
        """The world's id of a model; vendors of this style number models by their tasks."""
        for row in world.models.values():
            if row.job_id == number:
                return row.id
        raise w.NotFound(f"There is no model {number}.")

    def show_set(row):
        shown = {"number": row.job_id or row.id, "name": row.name, "locked": row.locked}
        return {**shown, "images": world.count(row.id), "changed": h.iso(row.changed)}

    def build(row):
        return {"number": row.job_id, "board": row.target, "state": STATES[world.state_of(row)]}

    async def create_set(request):
        return text(world.create_dataset((await h.fields(request))["name"]).id)

    def get_sets(request):
        return [show_set(row) for row in world.find_datasets(request.query_params.get("name"))]

    def drop(request):
        world.delete_dataset(of_set(request))
        return text("OK")

    async def create_class(request):
        return text(world.create_category(of_set(request), (await h.fields(request))["name"]).id)

    async def add(request):
        body = await h.fields(request)
        row = world.add_image(
            world.upload(key(request)).dataset_id,
            *body["picture"],
            category_id=h.number(body["class"]) if body.get("class") else None,
            annotations=h.json_text(body.get("notes")),
        )
        return text(row.id)

    def end(request):
        world.finish_upload(key(request))
        return text("OK")

    async def create_task(kind, request):
        pairs = await h.form(request)
        body = h.Body(pairs)
        if "model" in body:
            body["model"] = model_id(h.number(body["model"]))
        sets = [set_id(h.number(value)) for name, value in pairs if name == "set"]
        return text(submit(world, kind, body, sets).id)

    def get_tasks(kind, request):
        jobs = world.find_jobs(kind, request.query_params.get("memo"))
        return text("".join(f"{job.id}\n" for job in jobs))

    def get_state(kind, request):
        return text(STATES[world.read(world.job(key(request), kind)).state])

    def why(kind, request):
        return text(world.job(key(request), kind).message or "")

    def abort(kind, request):
        world.cancel(world.job(key(request), kind))
        return text("OK")

    def load(request):
        board = request.query_params.get("board", w.ORIGINAL)
        return h.download(world.model_file(model_id(key(request)), board), f"{board}.bin")

    def of_set(request):
        return set_id(key(request))

    table = {
        "POST /api/sets": create_set,
        "GET /api/sets": get_sets,
        "GET /api/sets/{id:int}": lambda request: show_set(world.dataset(of_set(request))),
        "POST /api/sets/{id:int}/drop": drop,
        "POST /api/sets/{id:int}/classes": create_class,
        "GET /api/sets/{id:int}/classes": lambda request: [*map(category, world.categories_of(of_set(request)))],
        "POST /api/sets/{id:int}/begin": lambda request: text(world.start_upload(of_set(request)).id),
        "POST /api/uploads/{id:int}/add": add,
        "POST /api/uploads/{id:int}/end": end,
        "GET /api/sets/{id:int}/images": lambda request: [*map(image, world.images_of(of_set(request)))],
        "GET /api/models": lambda request: [*map(model, world.models.values())],
        "GET /api/models/{id:int}": lambda request: model(world.model(model_id(key(request)))),
        "GET /api/models/{id:int}/builds": lambda request: [
            build(row) for row in world.conversions_of(model_id(key(request)))
        ],
        "GET /api/models/{id:int}/load": load,
    }
    for kind in KINDS:
        path = f"/api/tasks/{kind}"
        table[f"POST {path}"] = partial(create_task, kind)
        table[f"GET {path}"] = partial(get_tasks, kind)
        table[f"GET {path}/{{id:int}}"] = partial(get_state, kind)
        table[f"GET {path}/{{id:int}}/why"] = partial(why, kind)
        table[f"POST {path}/{{id:int}}/abort"] = partial(abort, kind)
    return Starlette(
        routes=[*h.account(world), *h.routes(table, h.bearer(world), JSONResponse)],
        exception_handlers={w.WorldError: on_error},
    )


def submit(world, kind, body, sets):
    more = {"reference": body.get("memo"), "options": h.json_text(body.get("config"))}
    if kind == "train":
        return world.train(sets, body["name"], h.chosen(body["type"], MODEL_TYPES), **more)
    if kind == "retrain":
        return world.retrain(body["model"], sets, body["name"], **more)
    if kind in {"predict", "manipulate"} and len(sets) != 1:
        raise w.Refused("One set is needed.")
    if kind == "predict":
        mode = "replace" if body.get("wipe") == "yes" else "unannotated" if body.get("only_new") == "yes" else "all"
        return world.predict(body["model"], *sets, min_confidence=decimal(body["confidence"]), mode=mode, **more)
    if kind == "manipulate":
        steps = [(h.chosen(op.pop("op", None), STEPS), op) for op in h.json_text(body["ops"])]
        return world.manipulate(*sets, body["name"], steps, **more)
    if kind == "convert":
        return world.convert(body["model"], body["board"], **more)
    time = re.fullmatch(r"(\d+)([smh])", body["time"])
    if not time:
        raise w.Refused("The time is not like 45m.")
    return world.rent(body["board"], timedelta(**{UNITS[time[2]]: int(time[1])}), **more)


def on_error(request, error):
    status = next(status for cls, status in STATUSES.items() if isinstance(error, cls))
    return PlainTextResponse(f"{error}\n", status)


def key(request):
    return request.path_params["id"]


def text(content):
    return PlainTextResponse(str(content))


def decimal(value):
    try:
        return float(value)
    except ValueError as error:
        raise w.Refused("A number is invalid.") from error


def category(row):
    return {"number": row.id, "name": row.name}


def image(row):
    shown = {"number": row.id, "file": row.file_name, "sha256": row.sha256}
    return {**shown, "class": row.category_id, "notes": row.annotations}


def model(row):
    model_type = next(word for word, name in MODEL_TYPES.items() if name == row.model_type)
    shown = {"number": row.job_id, "name": row.name, "type": model_type}
    return {**shown, "quality": row.metrics, "made": h.iso(row.created)}
