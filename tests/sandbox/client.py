"""A plain httpx client of the sandbox for its tests, with the default contract's names. Uses no code of the package."""

from __future__ import annotations

import http.server
import io
import json
import queue
from collections.abc import Iterable
from typing import Any, Self

import httpx
from PIL import Image

from airflow_provider_osai.sandbox import Sandbox
from tests.waiting import until


def png(colour: Any = 128, size: tuple[int, int] = (8, 8), mode: str = "L") -> bytes:
    """Return a PNG of one colour."""
    return encoded(Image.new(mode, size, colour))


def encoded(image: Image.Image) -> bytes:
    """Return an image as PNG."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def shades(count: int = 12) -> dict[str, list[bytes]]:
    """Return images of two categories that are easy to distinguish."""
    return {
        "dark": [png(10 + 5 * i) for i in range(count)],
        "light": [png(170 + 5 * i) for i in range(count)],
    }


class Api(httpx.Client):
    """A client of one sandbox, signed in."""

    def __init__(self, sandbox: Sandbox, *, signed_in: bool = True) -> None:
        super().__init__(base_url=sandbox.base_url, timeout=20.0)
        self.sandbox, self._signed_in = sandbox, signed_in

    def __enter__(self) -> Self:
        super().__enter__()
        if self._signed_in:
            self.sign_in()
        return self

    def sign_in(self) -> str:
        response = self.post("/Users/SignIn", json=self.sandbox.access_token)
        token = response.raise_for_status().text.strip('"')
        self.headers["Authorization"] = f"Bearer {token}"
        return token

    def dataset(self, images: dict[str, Iterable[bytes]] | None = None, name: str = "data") -> str:
        """Create a dataset with images by category (``""``: without a category); return its id."""
        dataset_id = self.ok("POST", "/Datasets", json={"name": name})["id"]
        if images:
            upload_id = self.ok("POST", f"/Datasets/{dataset_id}/StartUploading")["id"]
            for category, files in images.items():
                body = {"datasetId": dataset_id, "name": category}
                made = self.ok("POST", "/Categories", json=body) if category else {}
                for content in files:
                    assert self.image(dataset_id, upload_id, content, categoryId=made.get("id")).is_success
            finish = f"/Datasets/{dataset_id}/FinishUploading"
            self.ok("POST", finish, params={"datasetUploadId": upload_id})
        return dataset_id

    def image(self, dataset_id: str, upload_id: str, content: bytes, **fields: Any) -> httpx.Response:
        data = {"datasetUploadId": upload_id, **{k: v for k, v in fields.items() if v is not None}}
        return self.post(f"/Datasets/{dataset_id}/Images", data=data, files={"file": ("image.png", content)})

    def ok(self, method: str, path: str, **options: Any) -> Any:
        response = self.request(method, path, **options)
        assert response.status_code == 200, response.text
        return response.json()

    def run(self, resource: str, **body: Any) -> dict[str, Any]:
        """Submit a job and return it when it has ended."""
        return self.ended(resource, self.ok("POST", f"/{resource}", json=body)["id"])

    def ended(self, resource: str, job_id: str) -> dict[str, Any]:
        def job() -> dict[str, Any] | None:
            seen: dict[str, Any] = self.ok("GET", f"/{resource}/{job_id}")
            return seen if seen["status"] in ("succeeded", "failed", "cancelled") else None

        ended: dict[str, Any] = until(job, what=f"the end of {resource} {job_id}", pause=0.02)
        return ended

    def train(self, dataset_id: str, **parameters: Any) -> dict[str, Any]:
        return self.run("Trainings", datasetIds=[dataset_id], modelName="m", parameters=parameters)


class Receiver(http.server.ThreadingHTTPServer):
    """Receives webhooks; responds with ``statuses``, one after the other, then with 200."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.taken: queue.Queue[dict[str, Any]] = queue.Queue()
        self.statuses: list[int] = []
        self.url = f"http://127.0.0.1:{self.server_port}/hook?token=t"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        self.server.taken.put(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        self.send_response(self.server.statuses.pop(0) if self.server.statuses else 200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        """Log nothing."""
