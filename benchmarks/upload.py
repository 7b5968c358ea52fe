"""The cost of an upload: this provider beside the documented loop, which sends one image after the other.

``python -m benchmarks.upload`` sends 2,000 images of 100 kB to a server that responds 20 ms after each request. Each
side runs in a separate process, one after the other, once per round:

- ``loop``: the vendor's sequence in its simplest form: start, one POST for each image, finish, with ``requests``;
- ``session``: the same with a ``requests.Session``, which keeps its connection open;
- ``ours``: ``Uploader`` as ``OsaiUploadImagesOperator`` runs it, with its default of 10 concurrent images, and with 8;
- ``flood``: connections that send the same, precomputed bytes: the maximum of the server and the machine.

The server only counts, and opening a connection has no delay, which favours the loop. The comparison with ``flood``, at
8 and at 32 connections, uses more images, since a second is too short for it. One zip archive of 4 GB is sent as well.
The last line is JSON: seconds are medians; memory is the maximum resident size of a side's process, in MB of 1,000,000
bytes, and ``archive_mb_above_idle`` is that of the archive less the size of the same process just before.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

if __name__ == "__main__":  # run as a script: the packages are in the parent folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import requests

from airflow_provider_osai.api.client import OsaiClient
from airflow_provider_osai.api.requests import UploadRequest
from airflow_provider_osai.api.settings import OsaiSettings
from airflow_provider_osai.data.scan import scan_source
from airflow_provider_osai.data.sources import open_source
from airflow_provider_osai.uploads.uploader import Uploader
from benchmarks.upload_sink import Taker

__all__ = ["main"]

PNG = b"\x89PNG\r\n\x1a\n"
FOLDERS = 10
DEFAULT = 10
"""The default number of concurrent images of ``OsaiUploadImagesOperator``."""

Figure = Callable[..., float]


def make_images(folder: Path, count: int, size: int) -> None:
    """Write files with a PNG signature and random content, all different."""
    for n in range(count):
        path = folder / f"category {n % FOLDERS}" / f"{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(PNG + os.urandom(size - len(PNG)))


def make_archive(path: Path, size: int, each: int) -> int:
    """Write a zip archive of *size* bytes with such images; return their number."""
    content = PNG + os.urandom(each - len(PNG) - 8)
    with zipfile.ZipFile(path, "w") as archive:
        for n in range(size // each):
            archive.writestr(f"category {n % FOLDERS}/{n}.png", content + n.to_bytes(8, "big"))
    return size // each


def loop(url: str, source: str, _at_once: int) -> int:
    """Send one image after the other, each on a new connection, as the vendor documents it."""
    return _one_by_one(requests, url, source)


def session(url: str, source: str, _at_once: int) -> int:
    """Send one image after the other on one connection."""
    with requests.Session() as kept:
        return _one_by_one(kept, url, source)


def _one_by_one(http: Any, url: str, source: str) -> int:
    def post(path: str, **content: Any) -> Any:
        answer = http.post(url + path, headers=headers, timeout=30, **content)
        answer.raise_for_status()
        return answer.json()

    headers: dict[str, str] = {}
    headers["Authorization"] = f"Bearer {post('/Users/SignIn', json='token')}"
    folders = [folder.name for folder in Path(source).iterdir()]
    categories = {name: post("/Categories", json={"datasetId": "1", "name": name})["id"] for name in folders}
    upload = post("/Datasets/1/StartUploading")["id"]
    images = sorted(Path(source).glob("*/*.png"))
    for image in images:
        fields = {"datasetUploadId": upload, "categoryId": categories[image.parent.name]}
        with image.open("rb") as file:
            post("/Datasets/1/Images", data=fields, files={"file": file})
    post("/Datasets/1/FinishUploading", params={"datasetUploadId": upload})
    return len(images)


def ours(url: str, source: str, at_once: int) -> int:
    """Send the images as the operator does."""
    settings = OsaiSettings.from_connection("token", {"base_url": url})
    with OsaiClient(settings) as client:
        place = open_source(source)
        wish = UploadRequest(dataset_id="1", max_concurrency=at_once)
        return int(Uploader(client, wish, place, scan_source(place)).run()["uploaded"])


def flood(url: str, source: str, at_once: int) -> int:
    """Send precomputed requests on *at_once* connections."""
    images = [path.read_bytes() for path in sorted(Path(source).glob("*/*.png"))]
    port = int(url.rpartition(":")[2].partition("/")[0])
    head = b"POST /api/Datasets/1/Images HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"

    async def sender() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while images:
            image = images.pop()
            writer.write(head % len(image) + image)
            await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(len(b'{"id": "1"}'))
        writer.close()

    async def all_senders() -> None:
        await asyncio.gather(*[sender() for _ in range(at_once)])

    count = len(images)
    asyncio.run(all_senders())
    return count


SIDES = {"loop": loop, "session": session, "ours": ours, "flood": flood}


def side(name: str, url: str, source: str, at_once: int) -> None:
    """Run in one side's process: send the images, and print time, CPU and memory."""
    idle = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    begin = time.perf_counter()
    images = SIDES[name](url, source, at_once)
    seconds = time.perf_counter() - begin
    used = resource.getrusage(resource.RUSAGE_SELF)
    figures = {"images": images, "s": seconds, "cpu_s": used.ru_utime + used.ru_stime, "idle": idle / 1e6}
    sys.stdout.write(json.dumps({**figures, "peak": used.ru_maxrss * 1024 / 1e6}) + "\n")


def run(name: str, server: Taker, source: Path, at_once: int) -> dict[str, Any]:
    """Run one side in a new process, and return its figures."""
    command = [sys.executable, "-m", "benchmarks.upload", "--side", name, server.url, str(source), str(at_once)]
    root = Path(__file__).parents[1]
    done = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True)
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    say(f"{name} at {at_once}: " + json.dumps({key: round(value, 2) for key, value in figures.items()}))
    return figures


def say(text: str) -> None:
    """Print a line and flush it."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def measured(server: Taker, images: Path, plan: list[tuple[str, int]], rounds: int) -> Figure:
    """Run each side of *plan* once per round, alternating their order; return a function that returns medians."""
    found: dict[tuple[str, int], list[dict[str, Any]]] = {one: [] for one in plan}
    for number in range(rounds):
        for one in plan if number % 2 == 0 else reversed(plan):
            found[one].append(run(one[0], server, images, one[1]))
    return lambda name, at_once, what="s": median(result[what] for result in found[name, at_once])


def main(arguments: list[str] | None = None) -> int:
    """Measure with the command line's options; always return 0, since a slow machine is not an error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--many", type=int, default=8000, help="number of images for the comparison with flood")
    parser.add_argument("--size", type=int, default=100_000, help="bytes per image")
    parser.add_argument("--pause", type=float, default=0.02, help="seconds until the server responds")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--archive", type=float, default=4.0, help="GB of the archive to send as well; 0: none")
    parser.add_argument("--side", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.side:
        name, url, source, at_once = options.side
        side(name, url, source, int(at_once))
        return 0
    with tempfile.TemporaryDirectory(prefix="osai-bench-") as folder, Taker(options.pause) as server:
        few, many = Path(folder, "few"), Path(folder, "many")
        make_images(few, options.images, options.size)
        make_images(many, options.many, options.size)
        figure = measured(server, few, [("loop", 1), ("session", 1), ("ours", 8), ("ours", DEFAULT)], options.rounds)
        line: dict[str, Any] = {
            "images": options.images,
            "loop_s": figure("loop", 1),
            "ours_s": figure("ours", DEFAULT),
            "speedup": figure("loop", 1) / figure("ours", DEFAULT),
            "peak_rss_mb": figure("ours", DEFAULT, "peak"),
            "loop_rss_mb": figure("loop", 1, "peak"),
            "speedup_over_session": figure("session", 1) / figure("ours", DEFAULT),
            "speedup_at_8": figure("loop", 1) / figure("ours", 8),
        }
        for at_once in (8, 32):
            figure = measured(server, many, [("ours", at_once), ("flood", at_once)], options.rounds)
            line[f"share_of_server_at_{at_once}"] = figure("flood", at_once) / figure("ours", at_once)
        if options.archive:
            archive = Path(folder, "images.zip")
            line["archive_images"] = make_archive(archive, int(options.archive * 1e9), options.size)
            sent = run("ours", server, archive, DEFAULT)
            line |= {"archive_s": sent["s"], "archive_mb_above_idle": sent["peak"] - sent["idle"]}
    say(json.dumps({key: round(value, 3) if isinstance(value, float) else value for key, value in line.items()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
