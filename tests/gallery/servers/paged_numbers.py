"""Pixelworks: everything comes in numbered pages, and nothing can be searched for.

``POST /api/Users/SignIn`` takes the access token as a JSON string and answers a token as text, for the header
``Authorization: Bearer <token>``. Ids are integers.

Every list takes ``page`` (from 1) and ``pageSize`` (default 2, at most 5; more is cut) and answers ``{"items": [...],
"page": 1, "pageSize": 2, "total": 7}``. No list has a filter; a page behind the last is empty.

==============  ===================================  ==============================================================
POST, GET       /api/albums                          ``{label}`` -> 201 album; page of albums
GET, DELETE     /api/albums/{id}                     album; 204
POST, GET       /api/albums/{id}/tags                ``{label}`` -> 201 tag; page of tags
POST            /api/albums/{id}/open                200 ``{"ticket": 9}``; locks the album
POST            /api/albums/{id}/photos              multipart: ``photo`` (file), ``ticket``, ``tagId``, ``marks`` (JSON
                                                     text, optional) -> 201 photo
POST            /api/albums/{id}/close?ticket=       204
GET             /api/albums/{id}/photos              page of photos
POST, GET       /api/runs/{run}                      run; page of runs, the oldest first
GET             /api/runs/{run}/{id}                 run
POST            /api/runs/{run}/{id}/halt            200, run
GET             /api/networks, /api/networks/{id}    page of networks; network
GET             /api/networks/{id}/builds            page of ``{id, chip, phase, runId}``
GET             /api/networks/{id}/weights?chip=     bytes; without ``chip`` the network as trained
==============  ===================================  ==============================================================

Runs and their bodies, each with an optional ``externalRef``, which the run shows:
``learn`` ``{albumIds, label, purpose: "CLASSIFY"|"DETECT", tuning}``; ``relearn`` ``{networkId, albumIds, label,
tuning}``; ``guess`` ``{networkId, albumId, atLeast: 0-1, which: "ALL"|"REDO"|"UNTAGGED"}``; ``remix`` ``{albumId,
label, effects}``; ``build`` ``{networkId, chip}``; ``borrow`` ``{board, hours}`` (a decimal number of hours).
Effects: ``{"effect": "TURN", "angle", "times"}``, ``{"effect": "LIGHT", "contrast", "brightness", "times"}``,
``{"effect": "SCALE", "width", "height"}``.

A run is ``{id, phase, externalRef, done (0-1), queued, began, over, complaint, networkId, albumId, buildId, boardId,
boardUntil, marks}``; what does not apply is null; ``marks`` are ``{accuracy, precision, recall}``. Phases: Waiting,
InProgress, Finished, Broken, Halted. An album is ``{id, label, open, photos, touched}``, a tag ``{id, label}``, a photo
``{id, file, sha256, tagId, marks}``, a network ``{id, label, purpose, marks, born}``.

Errors: ``{"errorCode": 404, "errorText": "..."}`` with the same status: 400 value, 401, 404, 409 state or duplicate,
423 locked, 503 busy.
"""

from __future__ import annotations

from datetime import timedelta
from functools import partial

from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response

from tests.gallery import world as w
from tests.gallery.servers import _http as h

RUNS = {
    "learn": "train",
    "relearn": "retrain",
    "guess": "predict",
    "remix": "manipulate",
    "build": "convert",
    "borrow": "rent",
}
PURPOSES = {"CLASSIFY": "classification", "DETECT": "detection"}
WHICH = {"ALL": "all", "REDO": "replace", "UNTAGGED": "unannotated"}
EFFECTS = {"TURN": "rotate", "LIGHT": "brightness", "SCALE": "resize"}
VALUES = {"times": "copies"} | {key: key for key in ("angle", "contrast", "brightness", "width", "height")}
PHASES = {"queued": "Waiting", "running": "InProgress", "succeeded": "Finished"}
PHASES |= {"failed": "Broken", "cancelled": "Halted"}
STATUSES = {w.NotFound: 404, w.Locked: 423, w.Conflict: 409, w.Refused: 400, w.Busy: 503, w.Unauthorized: 401}


def create_app(world: w.World) -> Starlette:
    """Return the server."""

    def album(row):
        photos = world.count(row.id)
        return {"id": row.id, "label": row.name, "open": row.locked, "photos": photos, "touched": h.iso(row.changed)}

    def build(row):
        phase = PHASES[world.state_of(row)]
        return {"id": row.id, "chip": row.target, "phase": phase, "runId": row.job_id}

    async def create_album(request):
        return JSONResponse(album(world.create_dataset((await h.json_body(request))["label"])), 201)

    def delete_album(request):
        world.delete_dataset(request.path_params["id"])
        return Response(status_code=204)

    async def create_tag(request):
        label = (await h.json_body(request))["label"]
        return JSONResponse(tag(world.create_category(request.path_params["id"], label)), 201)

    def ticket(request, text):
        upload = world.upload(h.number(text))
        if upload.dataset_id != request.path_params["id"]:
            raise w.Refused("The ticket is for another album.")
        return upload

    async def add_photo(request):
        body = await h.fields(request)
        row = world.add_image(
            ticket(request, body["ticket"]).dataset_id,
            *body["photo"],
            category_id=h.number(body["tagId"]) if body.get("tagId") else None,
            annotations=h.json_text(body.get("marks")),
        )
        return JSONResponse(photo(row), 201)

    def close(request):
        world.finish_upload(ticket(request, h.query(request)["ticket"]).id)
        return Response(status_code=204)

    async def create_run(kind, request):
        return JSONResponse(run(submit(world, kind, await h.json_body(request))), 201)

    def get_run(kind, request):
        return run(world.read(world.job(request.path_params["id"], kind)))

    def halt(kind, request):
        return run(world.cancel(world.job(request.path_params["id"], kind)))

    def weights(request):
        chip = request.query_params.get("chip", w.ORIGINAL)
        return h.download(world.model_file(request.path_params["id"], chip), f"{chip}.bin")

    def pages(show, rows_of):
        """Return a handler that answers a page of the rows, which may depend on the id in the address."""
        return lambda request: page(request, show, rows_of(request.path_params.get("id")))

    def by(function):
        return lambda request: function(request.path_params["id"])

    table = {
        "POST /api/albums": create_album,
        "GET /api/albums": pages(album, lambda _: world.find_datasets()),
        "GET /api/albums/{id:int}": by(lambda key: album(world.dataset(key))),
        "DELETE /api/albums/{id:int}": delete_album,
        "POST /api/albums/{id:int}/tags": create_tag,
        "GET /api/albums/{id:int}/tags": pages(tag, world.categories_of),
        "POST /api/albums/{id:int}/open": by(lambda key: {"ticket": world.start_upload(key).id}),
        "POST /api/albums/{id:int}/photos": add_photo,
        "POST /api/albums/{id:int}/close": close,
        "GET /api/albums/{id:int}/photos": pages(photo, world.images_of),
        "GET /api/networks": pages(network, lambda _: [*world.models.values()]),
        "GET /api/networks/{id:int}": by(lambda key: network(world.model(key))),
        "GET /api/networks/{id:int}/builds": pages(build, world.conversions_of),
        "GET /api/networks/{id:int}/weights": weights,
    }
    for name, kind in RUNS.items():
        table[f"POST /api/runs/{name}"] = partial(create_run, kind)
        table[f"GET /api/runs/{name}"] = pages(lambda job: run(world.read(job)), lambda _, k=kind: world.find_jobs(k))
        table[f"GET /api/runs/{name}/{{id:int}}"] = partial(get_run, kind)
        table[f"POST /api/runs/{name}/{{id:int}}/halt"] = partial(halt, kind)
    return Starlette(
        routes=[*h.account(world), *h.routes(table, h.bearer(world))],
        exception_handlers={w.WorldError: on_error},
    )


def page(request, show, rows):
    """Return a page; only its rows are read."""
    number = max(1, h.number(request.query_params.get("page", 1)))
    size = min(5, max(1, h.number(request.query_params.get("pageSize", 2))))
    items = [show(row) for row in rows[(number - 1) * size : number * size]]
    return {"items": items, "page": number, "pageSize": size, "total": len(rows)}


def submit(world, kind, body):
    more = {"reference": body.get("externalRef"), "options": body.get("tuning")}
    if kind == "train":
        purpose = h.chosen(body["purpose"], PURPOSES)
        return world.train(h.numbers(body["albumIds"]), body["label"], purpose, **more)
    if kind == "retrain":
        return world.retrain(h.number(body["networkId"]), h.numbers(body["albumIds"]), body["label"], **more)
    if kind == "predict":
        inputs = (h.number(body["networkId"]), h.number(body["albumId"]))
        which = h.chosen(body["which"], WHICH)
        return world.predict(*inputs, min_confidence=body["atLeast"], mode=which, **more)
    if kind == "manipulate":
        steps = [(h.chosen(effect.get("effect"), EFFECTS), h.renamed(effect, VALUES)) for effect in body["effects"]]
        return world.manipulate(h.number(body["albumId"]), body["label"], steps, **more)
    if kind == "convert":
        return world.convert(h.number(body["networkId"]), body["chip"], **more)
    return world.rent(body["board"], timedelta(hours=body["hours"]), **more)


def on_error(request, error):
    status = next(status for cls, status in STATUSES.items() if isinstance(error, cls))
    return JSONResponse({"errorCode": status, "errorText": str(error)}, status)


def tag(row):
    return {"id": row.id, "label": row.name}


def photo(row):
    shown = {"id": row.id, "file": row.file_name, "sha256": row.sha256}
    return {**shown, "tagId": row.category_id, "marks": row.annotations}


def network(row):
    purpose = next(word for word, name in PURPOSES.items() if name == row.model_type)
    shown = {"id": row.id, "label": row.name, "purpose": purpose}
    return {**shown, "marks": row.metrics, "born": h.iso(row.created)}


def run(job):
    return {
        "id": job.id,
        "phase": PHASES[job.state],
        "externalRef": job.reference,
        "done": job.progress,
        "queued": h.iso(job.created),
        "began": h.iso(job.started),
        "over": h.iso(job.finished),
        "complaint": job.message,
        "networkId": job.result.get("model"),
        "albumId": job.result.get("dataset"),
        "buildId": job.result.get("conversion"),
        "boardId": job.result.get("device"),
        "boardUntil": h.iso(job.result.get("expires")),
        "marks": job.result.get("metrics"),
    }
