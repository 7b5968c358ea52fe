"""Atelier, a REST service in which every object lives below its parents.

All addresses start with ``/api/projects/7``; 7 is the number of your only project. Sign in with
``POST /api/Users/SignIn`` (the access token as a JSON string; the answer is the token as text), then send
``Authorization: Bearer <token>``. Bodies and answers are JSON objects, lists are plain arrays, ids are integers.

============  =====================================================  ==============================================
POST, GET     /datasets                                              ``{title}`` -> 201 dataset; ``?title=`` filters
GET, DELETE   /datasets/{datasetId}                                  dataset; 204
POST, GET     /datasets/{datasetId}/labels                           ``{title}`` -> 201 ``{id, title, datasetId}``
POST          /datasets/{datasetId}/uploads                          201 ``{id, datasetId}``; locks the dataset
POST          /datasets/{datasetId}/uploads/{uploadId}/images        multipart: ``content`` (file), ``labelId``,
                                                                     ``shapes`` (JSON text, optional) -> 201 image
POST          /datasets/{datasetId}/uploads/{uploadId}/close         204
GET           /datasets/{datasetId}/images                           images
GET           /models, /models/{modelId}                             models, model
GET           /models/{modelId}/files/{hardware}                     bytes; ``original`` is the model as trained
============  =====================================================  ==============================================

Jobs are created by POST on a collection (201), listed by GET on it (``?key=`` filters), read by GET on
``{collection}/{id}`` and stopped by POST on ``{collection}/{id}/stop`` (204; 409 if the job has ended). There is no way
to read a job without the ids of its parents: with other parents it does not exist. Every body may have a ``key``, that
of a training ``options`` (an object) also.

==================================================  ==================================================================
/datasets/{datasetId}/trainings                     ``{modelTitle, task: "classify"|"detect", moreDatasets: [id]?}``
/models/{modelId}/trainings                         ``{modelTitle, datasets: [id]}``; continues the model as another
/models/{modelId}/datasets/{datasetId}/predictions  ``{certainty: 0-1, images: "every"|"fresh"|"unlabelled"}``; fresh
                                                    removes the labels first
/datasets/{datasetId}/variants                      ``{title, steps}``
/models/{modelId}/exports                           ``{hardware}``; the list is also the model's list of conversions
/devices/{deviceType}/reservations                  ``{seconds}``
==================================================  ==================================================================

A step is ``{"rotate": {"degrees", "copies"}}``, ``{"light": {"contrast", "shift", "copies"}}`` or
``{"scale": {"width", "height"}}``. A job is ``{id, projectId, phase, key, created, started, ended, reason, made}`` and
those of ``datasetId``, ``modelId`` and ``deviceType`` that are its parents; an export has ``hardware`` also. Phases:
PENDING, ACTIVE, DONE, ERROR, STOPPED. ``made`` has those of ``model, dataset, device, until, scores`` that apply.
A dataset is ``{id, title, busy, images, changed}``, an image ``{id, name, hash (SHA-256), labelId, shapes}``, a model
``{id, title, task, scores: {accuracy, precision, recall}, created}``.

Errors are ``{"message": "..."}`` with 401, 404, 409 (state, duplicate), 422 (value), 423 (locked) or 503 (busy).
"""

from __future__ import annotations

from datetime import timedelta
from functools import partial

from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response

from tests.gallery import world as w
from tests.gallery.servers import _http as h

BASE = "/api/projects/7"
COLLECTIONS = {
    "train": "/datasets/{datasetId:int}/trainings",
    "retrain": "/models/{modelId:int}/trainings",
    "predict": "/models/{modelId:int}/datasets/{datasetId:int}/predictions",
    "manipulate": "/datasets/{datasetId:int}/variants",
    "convert": "/models/{modelId:int}/exports",
    "rent": "/devices/{deviceType}/reservations",
}
TASKS = {"classify": "classification", "detect": "detection"}
MODES = {"every": "all", "fresh": "replace", "unlabelled": "unannotated"}
STEPS = {"rotate": "rotate", "light": "brightness", "scale": "resize"}
VALUES = {"degrees": "angle", "shift": "brightness"} | {key: key for key in ("contrast", "copies", "width", "height")}
PHASES = {"queued": "PENDING", "running": "ACTIVE", "succeeded": "DONE", "failed": "ERROR", "cancelled": "STOPPED"}
MADE = {"model": "model", "dataset": "dataset", "device": "device", "expires": "until", "metrics": "scores"}
STATUSES = {w.NotFound: 404, w.Locked: 423, w.Conflict: 409, w.Refused: 422, w.Busy: 503, w.Unauthorized: 401}


def create_app(world: w.World) -> Starlette:
    """Return the server."""

    def dataset(row):
        count = world.count(row.id)
        return {"id": row.id, "title": row.name, "busy": row.locked, "images": count, "changed": h.iso(row.changed)}

    async def create_dataset(request):
        return created(dataset(world.create_dataset((await h.json_body(request))["title"])))

    def delete_dataset(request):
        world.delete_dataset(request.path_params["datasetId"])
        return Response(status_code=204)

    async def create_label(request):
        title = (await h.json_body(request))["title"]
        return created(label(world.create_category(request.path_params["datasetId"], title)))

    def open_upload(request):
        upload = world.upload(request.path_params["uploadId"])
        if upload.dataset_id != request.path_params["datasetId"]:
            raise w.NotFound("The dataset has no such upload.")
        return upload

    def start_upload(request):
        upload = world.start_upload(request.path_params["datasetId"])
        return created({"id": upload.id, "datasetId": upload.dataset_id})

    async def add_image(request):
        body = await h.fields(request)
        label_id = h.number(body["labelId"]) if body.get("labelId") else None
        shapes = h.json_text(body.get("shapes"))
        dataset_id = open_upload(request).dataset_id
        return created(image(world.add_image(dataset_id, *body["content"], category_id=label_id, annotations=shapes)))

    def close_upload(request):
        world.finish_upload(open_upload(request).id)
        return Response(status_code=204)

    async def create_job(kind, request):
        return created(show(submit(world, kind, await h.json_body(request), request.path_params)))

    def children(kind, request):
        """The jobs of a kind below the parents of the address."""
        parents = {name: value for name, value in request.path_params.items() if name != "id"}
        jobs = world.find_jobs(kind, request.query_params.get("key"))
        return [job for job in jobs if parents_of(job) == parents]

    def child(kind, request):
        for job in children(kind, request):
            if job.id == request.path_params["id"]:
                return job
        raise w.NotFound("There is no such job below these parents.")

    def stop(kind, request):
        world.cancel(child(kind, request))
        return Response(status_code=204)

    def file(request):
        hardware = request.path_params["hardware"]
        return h.download(world.model_file(request.path_params["modelId"], hardware), f"{hardware}.bin")

    def by(name, function):
        return lambda request: function(request.path_params[name])

    table = {
        "POST /datasets": create_dataset,
        "GET /datasets": lambda request: [
            dataset(row) for row in world.find_datasets(request.query_params.get("title"))
        ],
        "GET /datasets/{datasetId:int}": by("datasetId", lambda key: dataset(world.dataset(key))),
        "DELETE /datasets/{datasetId:int}": delete_dataset,
        "POST /datasets/{datasetId:int}/labels": create_label,
        "GET /datasets/{datasetId:int}/labels": by("datasetId", lambda key: [*map(label, world.categories_of(key))]),
        "POST /datasets/{datasetId:int}/uploads": start_upload,
        "POST /datasets/{datasetId:int}/uploads/{uploadId:int}/images": add_image,
        "POST /datasets/{datasetId:int}/uploads/{uploadId:int}/close": close_upload,
        "GET /datasets/{datasetId:int}/images": by("datasetId", lambda key: [*map(image, world.images_of(key))]),
        "GET /models": lambda request: [*map(model, world.models.values())],
        "GET /models/{modelId:int}": by("modelId", lambda key: model(world.model(key))),
        "GET /models/{modelId:int}/files/{hardware}": file,
    }
    for kind, path in COLLECTIONS.items():
        table[f"POST {path}"] = partial(create_job, kind)
        table[f"GET {path}"] = lambda request, kind=kind: [show(world.read(job)) for job in children(kind, request)]
        table[f"GET {path}/{{id:int}}"] = lambda request, kind=kind: show(world.read(child(kind, request)))
        table[f"POST {path}/{{id:int}}/stop"] = partial(stop, kind)
    table = {address.replace(" ", f" {BASE}"): handler for address, handler in table.items()}
    return Starlette(
        routes=[*h.account(world), *h.routes(table, h.bearer(world))],
        exception_handlers={w.WorldError: on_error},
    )


def submit(world, kind, body, parents):
    more = {"reference": body.get("key"), "options": body.get("options")}
    if kind == "train":
        ids = [parents["datasetId"], *h.numbers(body.get("moreDatasets", []))]
        job = world.train(ids, body["modelTitle"], h.chosen(body["task"], TASKS), **more)
    elif kind == "retrain":
        job = world.retrain(parents["modelId"], h.numbers(body["datasets"]), body["modelTitle"], **more)
    elif kind == "predict":
        ids = (parents["modelId"], parents["datasetId"])
        mode = h.chosen(body["images"], MODES)
        job = world.predict(*ids, min_confidence=body["certainty"], mode=mode, **more)
    elif kind == "manipulate":
        steps = [
            (h.chosen(name, STEPS), h.renamed(values, VALUES))
            for step in body["steps"]
            for name, values in step.items()
        ]
        job = world.manipulate(parents["datasetId"], body["title"], steps, **more)
    elif kind == "convert":
        job = world.convert(parents["modelId"], body["hardware"], **more)
    else:
        job = world.rent(parents["deviceType"], timedelta(seconds=body["seconds"]), **more)
    return job


def on_error(request, error):
    status = next(status for cls, status in STATUSES.items() if isinstance(error, cls))
    return JSONResponse({"message": str(error)}, status)


def created(content):
    return JSONResponse(content, 201)


def parents_of(job):
    """Return the names and values of the parents in a job's address."""
    values = {"modelId": job.model_id, "deviceType": job.device, "datasetId": next(iter(job.dataset_ids), None)}
    return {name: value for name, value in values.items() if f"{{{name}" in COLLECTIONS[job.kind]}


def label(row):
    return {"id": row.id, "title": row.name, "datasetId": row.dataset_id}


def image(row):
    return {
        "id": row.id,
        "name": row.file_name,
        "hash": row.sha256,
        "labelId": row.category_id,
        "shapes": row.annotations,
    }


def model(row):
    task = next(word for word, name in TASKS.items() if name == row.model_type)
    return {"id": row.id, "title": row.name, "task": task, "scores": row.metrics, "created": h.iso(row.created)}


def show(job):
    hardware = {"hardware": job.settings["target"]} if job.kind == "convert" else {}
    return {
        "id": job.id,
        "projectId": 7,
        **parents_of(job),
        **hardware,
        "phase": PHASES[job.state],
        "key": job.reference,
        "created": h.iso(job.created),
        "started": h.iso(job.started),
        "ended": h.iso(job.finished),
        "reason": job.message,
        "made": h.renamed(job.result, MADE),
    }
