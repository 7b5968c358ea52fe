"""The cost of the data quality check: time and memory by number of images.

``python -m benchmarks.data_quality`` writes 10,000 JPEG files of 640 x 480 pixels, all different, in ten folders, and
checks them in a process of their own: once without near-duplicates, and once with them. The last line is JSON: seconds
are of the whole check; CPU time is that of all threads; memory is the maximum resident size of the process in MB of
1,000,000 bytes.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from PIL import Image

from airflow_provider_osai.data.quality import QualityOptions, check_source
from airflow_provider_osai.data.sources import open_source

__all__ = ["main"]

SIZE = 640, 480
FOLDERS = 10


def write_images(folder: Path, count: int) -> None:
    """Write *count* different images: soft blobs with some grain."""
    source = random.Random(0)
    grain = Image.effect_noise(SIZE, 40).convert("RGB")
    for number in range(count):
        blobs = Image.frombytes("RGB", (16, 12), source.randbytes(16 * 12 * 3)).resize(SIZE, Image.Resampling.BICUBIC)
        path = folder / f"category {number % FOLDERS}" / f"{number}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.blend(blobs, grain, 0.2).save(path, quality=85)


def measure(folder: str, *, near_duplicates: bool) -> dict[str, Any]:
    """Check a folder in this process."""
    start, cpu = time.perf_counter(), time.process_time()
    report = check_source(open_source(folder), QualityOptions(near_duplicates=near_duplicates))
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    return {
        "images": report.images,
        "image_mb": round(report.bytes / 1e6),
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu_seconds, 1),
        "cpu_ms_per_image": round(cpu_seconds / report.images * 1e3, 1),
        "memory_mb": round(memory),
        "findings": report.summary()["findings"],
    }


def main() -> None:
    """Measure both, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--check", help=argparse.SUPPRESS)
    parser.add_argument("--near", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.check:
        print(json.dumps(measure(options.check, near_duplicates=options.near)))
        return
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder), options.images)
        for name, arguments in {"decoded": [], "with_near_duplicates": ["--near"]}.items():
            command = [sys.executable, "-m", "benchmarks.data_quality", "--check", folder, *arguments]
            figures[name] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
