"""Cartograph: everything is an object that refers to other objects, and never a plain value where an object can be.

``POST /api/Users/SignIn`` takes the access token as a JSON string and answers a token as text, for the header
``Authorization: Bearer <token>``. A reference is ``{"id": 101}``; ids are integers. A list is ``{"datasets": {"nodes":
[...], "count": 2}}``. What is sent and answered is below a key with the name of its kind.

==============  ==================================  ===============================================================
POST, GET       /api/datasets                       ``{"dataset": {"name"}}`` -> 201 the same with all; ``?name=``
GET, DELETE     /api/datasets/{id}                  ``{"dataset": {...}}``; 200 ``{"dataset": {"id"}}``
POST, GET       /api/datasets/{id}/categories       ``{"category": {"name"}}`` -> 201; **an object keyed by name**:
                                                    ``{"categories": {"cat": {"id": 5}, "dog": {"id": 6}}}``
POST            /api/datasets/{id}/sessions         201 ``{"session": {"id", "dataset": {"id"}}}``; locks the dataset
POST            /api/sessions/{session}/photos      multipart: ``photo`` (file), ``category`` (its **name**, optional),
                                                    ``coco`` (text, optional) -> 201 ``{"photo": {...}}``
POST            /api/sessions/{session}/actions     ``{"action": {"name": "close"}}`` -> ``{"session": {"id"}}``
GET             /api/datasets/{id}/photos           photos
POST, GET       /api/trainings                      ``{"training": {"datasets": [{"id"}], "model": {"name", "type":
                                                    {"name": "classification" | "detection"}}, "settings": {}}}``
POST, GET       /api/retrainings                    ``{"retraining": {"base": {"id"}, "datasets": [{"id"}], "model":
                                                    {"name"}, "settings": {}}}``
POST, GET       /api/predictions                    ``{"prediction": {"model": {"id"}, "dataset": {"id"}, "filter":
                                                    {"confidence": {"min": 0.5}, "photos": {"name": "all" | "relabel" |
                                                    "unlabelled"}}}}``
POST, GET       /api/manipulations                  ``{"manipulation": {"dataset": {"id"}, "result": {"name"},
                                                    "operations": {...}}}``
POST, GET       /api/conversions                    ``{"conversion": {"model": {"id"}, "hardware": {"name"}}}``
POST, GET       /api/rentals                        ``{"rental": {"device": {"name"}, "duration": {"seconds"}}}``
GET             /api/{jobs}/{id}                    ``{"training": {...}}``, by the name of the kind
POST            /api/{jobs}/{id}/actions            ``{"action": {"name": "stop"}}`` -> the job; 409 if it has ended
GET             /api/models, /api/models/{id}       models; ``{"model": {...}}``
GET             /api/models/{id}/conversions        ``{"conversions": {"nodes": [{id, hardware: {name}, status: {text},
                                                    job: {id}}], "count"}}``
GET             /api/models/{id}/files              ``?hardware=``, without it the model as trained: bytes
==============  ==================================  ===============================================================

A POST that starts a job answers 201 with it; any may have ``"client": {"key": "..."}``, and ``GET /api/{jobs}`` takes
``?client.key=``. The operations are **an object keyed by name**, applied in the order of the keys:
``{"rotation": {"angle": {"degrees": 90}, "copies": 2}, "light": {"contrast": 1.2, "brightness": 10, "copies": 1},
"size": {"width": 64, "height": 64}}``.

A job is ``{id, client: {key}, status: {text, progress: {done, of: 100}}, times: {created, started, ended}, problem,
model: {id}, dataset: {id}, conversion: {id}, device: {id, until}, evaluation: {validation: {scores: {accuracy: {value:
0.84}, ...}}}}``; what does not apply is null, as is ``problem`` unless it is ``{"text": "..."}``. The words of the
status are the kind's own:

=================  ===========  ===========  =============  ========  =========
trainings          Accepted     Learning     Completed      Crashed   Stopped
retrainings        Accepted     Learning     Completed      Crashed   Stopped
predictions        Accepted     Labelling    Labelled       Crashed   Stopped
manipulations      Accepted     Generating   Generated      Crashed   Stopped
conversions        Accepted     Compiling    Compiled       Crashed   Stopped
rentals            Preparing    Completed    Expired        Crashed   Returned
=================  ===========  ===========  =============  ========  =========

Mind the rentals: **Completed** says that the preparation is complete and the device yours until it is Expired or
Returned.

``coco`` is the text of a COCO document with the one image: ``{"images": [{"id": 1, "file_name", "width", "height"}],
"annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [x, y, width, height]}], "categories": [{"id": 1,
"name": "cat"}]}``; boxes in pixels; ids are the document's own, and the names must be categories of the dataset. A
photo is ``{id, file: {name, sha256}, category: {name} or null, coco: the text or null}``, a dataset ``{id, name,
photos: {count}, session: {id} or null, changed}`` (a session locks it), a model ``{id, name, type: {name},
evaluation, created}``.

Errors: ``{"problem": {"text": "...", "status": 404}}``: 400 value, 401, 404, 409 state or duplicate, 423 locked, 503
busy.
"""

from __future__ import annotations

from datetime import timedelta
from functools import partial

from starlette.applications import Starlette
from starlette.responses import JSONResponse

from tests.gallery import world as w
from tests.gallery.servers import _http as h

KINDS = {
    "training": "train",
    "retraining": "retrain",
    "prediction": "predict",
    "manipulation": "manipulate",
    "conversion": "convert",
    "rental": "rent",
}
TEXTS = {
    "train": ("Accepted", "Learning", "Completed", "Crashed", "Stopped"),
    "retrain": ("Accepted", "Learning", "Completed", "Crashed", "Stopped"),
    "predict": ("Accepted", "Labelling", "Labelled", "Crashed", "Stopped"),
    "manipulate": ("Accepted", "Generating", "Generated", "Crashed", "Stopped"),
    "convert": ("Accepted", "Compiling", "Compiled", "Crashed", "Stopped"),
    "rent": ("Preparing", "Completed", "Expired", "Crashed", "Returned"),
}
STATES = ("queued", "running", "succeeded", "failed", "cancelled")
MODEL_TYPES = {name: name for name in ("classification", "detection")}
PHOTOS = {"all": "all", "relabel": "replace", "unlabelled": "unannotated"}
STATUSES = {w.NotFound: 404, w.Locked: 423, w.Conflict: 409, w.Refused: 400, w.Busy: 503, w.Unauthorized: 401}


def create_app(world: w.World) -> Starlette:
    """Return the server."""

    def dataset(row):
        shown = {"id": row.id, "name": row.name, "photos": {"count": world.count(row.id)}}
        return {**shown, "session": ref(row.upload_id), "changed": h.iso(row.changed)}

    def photo(row):
        category = row.category_id and {"name": world.categories[row.category_id].name}
        file = {"name": row.file_name, "sha256": row.sha256}
        return {"id": row.id, "file": file, "category": category, "coco": row.annotations}

    def conversion(row):
        status = {"text": text_of("convert", world.state_of(row))}
        return {"id": row.id, "hardware": {"name": row.target}, "status": status, "job": ref(row.job_id)}

    async def create_dataset(request):
        body = await h.json_body(request)
        return created({"dataset": dataset(world.create_dataset(find(body, "dataset", "name")))})

    def delete_dataset(request):
        world.delete_dataset(key(request))
        return {"dataset": ref(key(request))}

    async def create_category(request):
        row = world.create_category(key(request), find(await h.json_body(request), "category", "name"))
        return created({"category": {"id": row.id, "name": row.name}})

    def get_categories(request):
        return {"categories": {row.name: ref(row.id) for row in world.categories_of(key(request))}}

    def create_session(request):
        return created({"session": {"id": world.start_upload(key(request)).id, "dataset": ref(key(request))}})

    async def add_photo(request):
        body = await h.fields(request)
        dataset_id = world.upload(key(request)).dataset_id
        category = world.category_named(dataset_id, body["category"]) if body.get("category") else None
        check_coco(world, dataset_id, body.get("coco"))
        row = world.add_image(
            dataset_id,
            *body["photo"],
            category_id=category and category.id,
            annotations=body.get("coco"),
        )
        return created({"photo": photo(row)})

    async def act_on_session(request):
        if find(await h.json_body(request), "action", "name") != "close":
            raise w.Refused("A session can only be closed.")
        return {"session": ref(world.finish_upload(key(request)).id)}

    async def create_job(name, request):
        return created({name: job(submit(world, KINDS[name], h.Body(find(await h.json_body(request), name))))})

    def get_jobs(name, request):
        jobs = world.find_jobs(KINDS[name], request.query_params.get("client.key"))
        return nodes(f"{name}s", [job(world.read(row)) for row in jobs])

    def get_job(name, request):
        return {name: job(world.read(world.job(key(request), KINDS[name])))}

    async def act_on_job(name, request):
        if find(await h.json_body(request), "action", "name") != "stop":
            raise w.Refused("A job can only be stopped.")
        return {name: job(world.cancel(world.job(key(request), KINDS[name])))}

    def get_file(request):
        hardware = request.query_params.get("hardware", w.ORIGINAL)
        return h.download(world.model_file(key(request), hardware), f"{hardware}.bin")

    table = {
        "POST /api/datasets": create_dataset,
        "GET /api/datasets": lambda request: nodes(
            "datasets", map(dataset, world.find_datasets(request.query_params.get("name")))
        ),
        "GET /api/datasets/{id:int}": lambda request: {"dataset": dataset(world.dataset(key(request)))},
        "DELETE /api/datasets/{id:int}": delete_dataset,
        "POST /api/datasets/{id:int}/categories": create_category,
        "GET /api/datasets/{id:int}/categories": get_categories,
        "POST /api/datasets/{id:int}/sessions": create_session,
        "POST /api/sessions/{id:int}/photos": add_photo,
        "POST /api/sessions/{id:int}/actions": act_on_session,
        "GET /api/datasets/{id:int}/photos": lambda request: nodes("photos", map(photo, world.images_of(key(request)))),
        "GET /api/models": lambda request: nodes("models", map(model, world.models.values())),
        "GET /api/models/{id:int}": lambda request: {"model": model(world.model(key(request)))},
        "GET /api/models/{id:int}/conversions": lambda request: nodes(
            "conversions", map(conversion, world.conversions_of(key(request)))
        ),
        "GET /api/models/{id:int}/files": get_file,
    }
    for name in KINDS:
        table[f"POST /api/{name}s"] = partial(create_job, name)
        table[f"GET /api/{name}s"] = partial(get_jobs, name)
        table[f"GET /api/{name}s/{{id:int}}"] = partial(get_job, name)
        table[f"POST /api/{name}s/{{id:int}}/actions"] = partial(act_on_job, name)
    return Starlette(
        routes=[*h.account(world), *h.routes(table, h.bearer(world))],
        exception_handlers={w.WorldError: on_error},
    )


def submit(world, kind, body):
    more = {"options": body.get("settings")}
    if "client" in body:
        more["reference"] = find(body, "client", "key")
    if kind in {"train", "retrain"}:
        datasets = [h.number(find(dataset, "id")) for dataset in body["datasets"]]
        name = find(body, "model", "name")
        if kind == "retrain":
            return world.retrain(h.number(find(body, "base", "id")), datasets, name, **more)
        return world.train(datasets, name, h.chosen(find(body, "model", "type", "name"), MODEL_TYPES), **more)
    if kind == "predict":
        inputs = (h.number(find(body, "model", "id")), h.number(find(body, "dataset", "id")))
        mode = h.chosen(find(body, "filter", "photos", "name"), PHOTOS)
        return world.predict(*inputs, min_confidence=find(body, "filter", "confidence", "min"), mode=mode, **more)
    if kind == "manipulate":
        steps = [step(*item) for item in find(body, "operations").items()]
        return world.manipulate(h.number(find(body, "dataset", "id")), find(body, "result", "name"), steps, **more)
    if kind == "convert":
        return world.convert(h.number(find(body, "model", "id")), find(body, "hardware", "name"), **more)
    return world.rent(find(body, "device", "name"), timedelta(seconds=find(body, "duration", "seconds")), **more)


def step(name, values):
    """Return an operation in the words of the world."""
    if name == "rotation":
        return "rotate", {**values, "angle": find(values, "angle", "degrees")}
    return h.chosen(name, {"light": "brightness", "size": "resize"}), values


def check_coco(world, dataset_id, text):
    """Refuse a COCO document that is invalid or names a category that the dataset does not have."""
    document = h.json_text(text)
    if document is None:
        return
    names = {row["id"]: row["name"] for row in find(document, "categories")}
    (image,) = find(document, "images")  # exactly one
    for annotation in find(document, "annotations"):
        world.category_named(dataset_id, names.get(annotation["category_id"], ""))
        left, top, width, height = annotation["bbox"]
        inside = left >= 0 and top >= 0 and left + width <= image["width"] and top + height <= image["height"]
        if annotation["image_id"] != image["id"] or not inside:
            raise w.Refused("An annotation lies outside its image.")


def on_error(request, error):
    status = next(status for cls, status in STATUSES.items() if isinstance(error, cls))
    return JSONResponse({"problem": {"text": str(error), "status": status}}, status)


def find(content, *path):
    """Return the value at a path of keys."""
    for name in path:
        if not isinstance(content, dict) or name not in content:
            raise w.Refused(f"'{'.'.join(path)}' is missing.")
        content = content[name]
    return content


def key(request):
    return request.path_params["id"]


def created(content):
    return JSONResponse(content, 201)


def ref(number):
    return None if number is None else {"id": number}


def nodes(name, rows):
    rows = list(rows)
    return {name: {"nodes": rows, "count": len(rows)}}


def text_of(kind, state):
    return TEXTS[kind][STATES.index(state)]


def evaluation(metrics):
    return {"validation": {"scores": {name: {"value": value} for name, value in metrics.items()}}}


def model(row):
    shown = {"id": row.id, "name": row.name, "type": {"name": row.model_type}}
    return {**shown, "evaluation": evaluation(row.metrics), "created": h.iso(row.created)}


def job(row):
    device = ref(row.result.get("device"))
    metrics = row.result.get("metrics")
    return {
        "id": row.id,
        "client": {"key": row.reference},
        "status": {"text": text_of(row.kind, row.state), "progress": {"done": round(100 * row.progress), "of": 100}},
        "times": {"created": h.iso(row.created), "started": h.iso(row.started), "ended": h.iso(row.finished)},
        "problem": row.message and {"text": row.message},
        "model": ref(row.result.get("model")),
        "dataset": ref(row.result.get("dataset")),
        "conversion": ref(row.result.get("conversion")),
        "device": device and {**device, "until": h.iso(row.result["expires"])},
        "evaluation": metrics and evaluation(metrics),
    }
