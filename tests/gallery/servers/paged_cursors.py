"""Lumen, grown over the years: each generation of its lists is paged in its own way.

``POST /api/Users/SignIn`` takes the access token as a JSON string and answers a token as text, for the header
``Authorization: Bearer <token>``. Ids are strings such as ``dst_101``, one prefix a kind.

- Datasets and images: ``?offset=0&limit=2``, answered with ``{"results": [...], "count": 7}``; count is the total.
- Jobs: ``?cursor=``, an opaque text; ``{"jobs": [...], "next_cursor": "..."}``, which is null on the last page.
- Models and conversions: ``{"data": [...], "links": {"self": "...", "next": "..."}}`` with absolute URLs; next is
  missing on the last page.
- Categories: a plain array with the header ``Link: <...>; rel="next"`` unless it is the last page.

A page has 2 entries, with ``limit`` up to 4 (offset lists only).

==============  ===============================================  ====================================================
POST, GET       /api/datasets                                    ``{"dataset_name"}`` -> 201; ``?dataset_name=``
GET, DELETE     /api/datasets/{dataset_id}                       dataset; 204
POST, GET       /api/datasets/{dataset_id}/categories            ``{"category_name"}`` -> 201 category
POST            /api/datasets/{dataset_id}/batches               201 ``{"batch_id"}``; locks the dataset
POST            /api/datasets/{dataset_id}/images                multipart: ``upload`` (file), ``batch_id``,
                                                                 ``category_id``, ``annotation_json`` -> 201 image
POST            /api/datasets/{dataset_id}/batches/{batch_id}/commit   200 ``{"committed": true}``
GET             /api/datasets/{dataset_id}/images                images
POST, GET       /api/jobs                                        202 job; jobs, ``?job_type=`` filters
GET             /api/jobs/{job_id}                               job
POST            /api/jobs/{job_id}/cancel                        202, job
GET             /api/models, /api/models/{model_id}              models, model
GET             /api/models/{model_id}/conversions               ``{conversion_id, hardware, job_status, job_id}``
GET             /api/models/{model_id}/artifact?hardware=        bytes; without ``hardware`` the model as trained
==============  ===============================================  ====================================================

The body of a job is ``{"job_type", "label", ...}``; ``label`` is the client's own (optional), shown by the job. Types
and further fields: ``TRAIN`` dataset_ids, model_name, model_type (``classifier`` | ``detector``), hyper_params;
``FINE_TUNE`` the same without model_type, and base_model_id; ``PREDICT`` model_id, dataset_id, min_score (0-1), policy
(``label_all`` | ``relabel_all`` | ``label_missing``); ``TRANSFORM`` dataset_id, output_name, pipeline; ``CONVERT``
model_id, hardware; ``RESERVE`` hardware, seconds. The pipeline is a list of ``{"fn": "rotate", "args": {"angle",
"copies"}}``, fn ``brightness`` (contrast, brightness, copies) or ``resize`` (width, height).

A job is ``{job_id, job_type, label, status, progress (0-1), created_at, started_at, ended_at, failure_reason,
outputs, epochs}``; times are Unix seconds. Statuses: SUBMITTED, RUNNING, SUCCEEDED, FAILED, CANCELLED. ``outputs`` is
an object with those of model_id, dataset_id, conversion_id, device_id, reserved_until, metrics that apply. A dataset
is ``{dataset_id, dataset_name, is_locked, image_count, updated_at}``, a category ``{category_id, category_name}``, an
image ``{image_id, file_name, checksum: "sha256:<hex>", category_id, annotation_json}``, a model ``{model_id,
model_name, model_type, metrics, created_at}``.

Errors: ``{"errors": [{"status": "404", "detail": "..."}]}`` with 400 value, 401, 404, 409 state or duplicate, 423
locked, 429 busy.
"""

from __future__ import annotations

import base64
from datetime import timedelta
from functools import partial

from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response

from tests.gallery import world as w
from tests.gallery.servers import _http as h

SIZE = 2
TYPES = {
    "TRAIN": "train",
    "FINE_TUNE": "retrain",
    "PREDICT": "predict",
    "TRANSFORM": "manipulate",
    "CONVERT": "convert",
    "RESERVE": "rent",
}
MODEL_TYPES = {"classifier": "classification", "detector": "detection"}
POLICIES = {"label_all": "all", "relabel_all": "replace", "label_missing": "unannotated"}
STEPS = {"rotate": "rotate", "brightness": "brightness", "resize": "resize"}
STATUSES = {"queued": "SUBMITTED", "running": "RUNNING", "succeeded": "SUCCEEDED"}
STATUSES |= {"failed": "FAILED", "cancelled": "CANCELLED"}
OUTPUTS = {"model": ("model_id", "mdl_"), "dataset": ("dataset_id", "dst_")}
OUTPUTS |= {"conversion": ("conversion_id", "cnv_"), "device": ("device_id", "dev_")}
ERRORS = {w.NotFound: 404, w.Locked: 423, w.Conflict: 409, w.Refused: 400, w.Busy: 429, w.Unauthorized: 401}


def create_app(world: w.World) -> Starlette:
    """Return the server."""

    def dataset(row):
        shown = {"dataset_id": f"dst_{row.id}", "dataset_name": row.name, "is_locked": row.locked}
        return {**shown, "image_count": world.count(row.id), "updated_at": unix(row.changed)}

    def conversion(row):
        shown = {"conversion_id": f"cnv_{row.id}", "hardware": row.target}
        return {**shown, "job_status": STATUSES[world.state_of(row)], "job_id": f"job_{row.job_id}"}

    async def create_dataset(request):
        return JSONResponse(dataset(world.create_dataset((await h.json_body(request))["dataset_name"])), 201)

    def delete_dataset(request):
        world.delete_dataset(key(request, "dst_"))
        return Response(status_code=204)

    async def create_category(request):
        name = (await h.json_body(request))["category_name"]
        return JSONResponse(category(world.create_category(key(request, "dst_"), name)), 201)

    def create_batch(request):
        return JSONResponse({"batch_id": f"bat_{world.start_upload(key(request, 'dst_')).id}"}, 201)

    def batch(request, text):
        upload = world.upload(h.number(text, "bat_"))
        if upload.dataset_id != key(request, "dst_"):
            raise w.NotFound("The dataset has no such batch.")
        return upload

    async def add_image(request):
        body = await h.fields(request)
        row = world.add_image(
            batch(request, body["batch_id"]).dataset_id,
            *body["upload"],
            category_id=h.number(body["category_id"], "cat_") if body.get("category_id") else None,
            annotations=h.json_text(body.get("annotation_json")),
        )
        return JSONResponse(image(row), 201)

    def commit(request):
        world.finish_upload(batch(request, request.path_params["batch_id"]).id)
        return {"committed": True}

    async def create_job(request):
        return JSONResponse(job(submit(world, await h.json_body(request))), 202)

    def get_jobs(request):
        kind = request.query_params.get("job_type")
        return by_cursor(request, world.find_jobs(kind and h.chosen(kind, TYPES)), lambda row: job(world.read(row)))

    def cancel(request):
        return JSONResponse(job(world.cancel(world.job(key(request, "job_")))), 202)

    def artifact(request):
        hardware = request.query_params.get("hardware", w.ORIGINAL)
        return h.download(world.model_file(key(request, "mdl_"), hardware), f"{hardware}.bin")

    table = {
        "POST /api/datasets": create_dataset,
        "GET /api/datasets": lambda request: by_offset(
            request, world.find_datasets(request.query_params.get("dataset_name")), dataset
        ),
        "GET /api/datasets/{id}": lambda request: dataset(world.dataset(key(request, "dst_"))),
        "DELETE /api/datasets/{id}": delete_dataset,
        "POST /api/datasets/{id}/categories": create_category,
        "GET /api/datasets/{id}/categories": lambda request: by_link_header(
            request, world.categories_of(key(request, "dst_")), category
        ),
        "POST /api/datasets/{id}/batches": create_batch,
        "POST /api/datasets/{id}/batches/{batch_id}/commit": commit,
        "POST /api/datasets/{id}/images": add_image,
        "GET /api/datasets/{id}/images": lambda request: by_offset(
            request, world.images_of(key(request, "dst_")), image
        ),
        "POST /api/jobs": create_job,
        "GET /api/jobs": get_jobs,
        "GET /api/jobs/{id}": lambda request: job(world.read(world.job(key(request, "job_")))),
        "POST /api/jobs/{id}/cancel": cancel,
        "GET /api/models": lambda request: by_next_link(request, [*world.models.values()], model),
        "GET /api/models/{id}": lambda request: model(world.model(key(request, "mdl_"))),
        "GET /api/models/{id}/conversions": lambda request: by_next_link(
            request, world.conversions_of(key(request, "mdl_")), conversion
        ),
        "GET /api/models/{id}/artifact": artifact,
    }
    return Starlette(
        routes=[*h.account(world), *h.routes(table, h.bearer(world))],
        exception_handlers={w.WorldError: on_error},
    )


def by_offset(request, rows, show):
    offset = h.number(request.query_params.get("offset", 0))
    limit = min(4, h.number(request.query_params.get("limit", SIZE)))
    return {"results": [show(row) for row in rows[offset : offset + limit]], "count": len(rows)}


def by_cursor(request, rows, show):
    """Return the page behind the row of which the cursor has the id."""
    cursor = request.query_params.get("cursor")
    try:
        last = int(base64.urlsafe_b64decode(cursor).decode().removeprefix("after:")) if cursor else 0
    except ValueError as error:
        raise w.Refused("The cursor is invalid.") from error
    rows = [row for row in rows if row.id > last]
    more = base64.urlsafe_b64encode(f"after:{rows[SIZE - 1].id}".encode()).decode() if len(rows) > SIZE else None
    return {"jobs": [show(row) for row in rows[:SIZE]], "next_cursor": more}


def by_next_link(request, rows, show):
    page, following = after(request, rows)
    links = {"self": str(request.url)} | ({"next": following} if following else {})
    return {"data": [show(row) for row in page], "links": links}


def by_link_header(request, rows, show):
    page, following = after(request, rows)
    headers = {"Link": f'<{following}>; rel="next"'} if following else None
    return JSONResponse([show(row) for row in page], headers=headers)


def after(request, rows):
    """Return the page behind the row whose id is in the query, and the address of the following page."""
    rows = [row for row in rows if row.id > h.number(request.query_params.get("after", 0))]
    more = len(rows) > SIZE
    return rows[:SIZE], str(request.url.include_query_params(after=rows[SIZE - 1].id)) if more else None


def submit(world, body):
    kind = h.chosen(body["job_type"], TYPES)
    more = {"reference": body.get("label"), "options": body.get("hyper_params")}
    ids = partial(h.numbers, prefix="dst_")
    if kind == "train":
        model_type = h.chosen(body["model_type"], MODEL_TYPES)
        return world.train(ids(body["dataset_ids"]), body["model_name"], model_type, **more)
    if kind == "retrain":
        base = h.number(body["base_model_id"], "mdl_")
        return world.retrain(base, ids(body["dataset_ids"]), body["model_name"], **more)
    if kind == "predict":
        inputs = (h.number(body["model_id"], "mdl_"), h.number(body["dataset_id"], "dst_"))
        policy = h.chosen(body["policy"], POLICIES)
        return world.predict(*inputs, min_confidence=body["min_score"], mode=policy, **more)
    if kind == "manipulate":
        steps = [(h.chosen(step.get("fn"), STEPS), step.get("args", {})) for step in body["pipeline"]]
        return world.manipulate(h.number(body["dataset_id"], "dst_"), body["output_name"], steps, **more)
    if kind == "convert":
        return world.convert(h.number(body["model_id"], "mdl_"), body["hardware"], **more)
    return world.rent(body["hardware"], timedelta(seconds=body["seconds"]), **more)


def on_error(request, error):
    status = next(status for cls, status in ERRORS.items() if isinstance(error, cls))
    return JSONResponse({"errors": [{"status": str(status), "detail": str(error)}]}, status)


def key(request, prefix):
    return h.number(request.path_params["id"], prefix)


def unix(time):
    return time and int(time.timestamp())


def category(row):
    return {"category_id": f"cat_{row.id}", "category_name": row.name}


def image(row):
    category_id = row.category_id and f"cat_{row.category_id}"
    shown = {"image_id": f"img_{row.id}", "file_name": row.file_name, "checksum": f"sha256:{row.sha256}"}
    return {**shown, "category_id": category_id, "annotation_json": row.annotations}


def model(row):
    model_type = next(word for word, name in MODEL_TYPES.items() if name == row.model_type)
    shown = {"model_id": f"mdl_{row.id}", "model_name": row.name, "model_type": model_type}
    return {**shown, "metrics": row.metrics, "created_at": unix(row.created)}


def job(row):
    outputs = {OUTPUTS[name][0]: f"{OUTPUTS[name][1]}{value}" for name, value in row.result.items() if name in OUTPUTS}
    outputs |= h.renamed(row.result, {"expires": "reserved_until", "metrics": "metrics"}, unix)
    return {
        "job_id": f"job_{row.id}",
        "job_type": next(word for word, kind in TYPES.items() if kind == row.kind),
        "label": row.reference,
        "status": STATUSES[row.state],
        "progress": row.progress,
        "created_at": unix(row.created),
        "started_at": unix(row.started),
        "ended_at": unix(row.finished),
        "failure_reason": row.message,
        "outputs": outputs,
        "epochs": row.history,
    }
