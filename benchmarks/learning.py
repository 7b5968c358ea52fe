"""What it costs to learn from a large recording, compared with parsing the same file.

``python -m benchmarks.learning`` makes recordings of about 50 MB from one of the tests' recordings: one with many polls
and one with large images and models. For each, one process runs ``osai-airflow contract learn`` and another one parses
the file with ``json.load``. The last line is JSON: seconds, peak memory in MB, and the ratio of the times.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # run as a script: the packages are in the parent folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

__all__ = ["main", "make_recording"]

SOURCE = Path(__file__).parents[1] / "tests" / "learning" / "recordings" / "paged_cursors" / "success.har"
PARSE = "import json, sys; json.load(open(sys.argv[1]))"
LEARN = "import sys; from airflow_provider_osai.cli.contract import main; sys.exit(main(sys.argv[1:]))"


def make_recording(path: Path, size: int, kind: str) -> None:
    """Write a recording of about *size* bytes.

    :param kind: ``polls``: with the responses to polls repeated; ``files``: with large contents of files.
    """
    document = json.loads(SOURCE.read_text())
    entries = document["log"]["entries"]
    if kind == "files":
        binary = [entry for entry in entries if entry["response"]["content"].get("encoding") == "base64"]
        for entry in binary:
            entry["response"]["content"]["text"] = "QUJD" * (size // (4 * len(binary)))
    else:
        polls = [
            entry for entry in entries if entry["request"]["method"] == "GET" and "/jobs/" in entry["request"]["url"]
        ]
        assert polls, "the recording has no polls"
        each = sum(len(json.dumps(entry)) for entry in polls)
        place = entries.index(polls[-1])
        entries[place:place] = polls[:-1] * (size // each)
    path.write_text(json.dumps(document))


def _measured(arguments: list[str]) -> dict[str, float]:
    """Run a process; return its seconds and its peak memory in MB."""
    start = time.monotonic()
    with subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.stderr is not None
        error = process.stderr.read().decode()
    if process.returncode not in (0, 1):
        raise RuntimeError(error[-2000:])
    return {"seconds": time.monotonic() - start, "mb": _peak(usage)}


def _peak(usage: Any) -> float:
    scale = 1024 if sys.platform != "darwin" else 1
    return float(usage.ru_maxrss) * scale / 1e6


def main() -> None:
    """Print the figures of both recordings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=50)
    options = parser.parse_args()
    line: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="osai-bench-") as folder:
        for kind in ("polls", "files"):
            path = Path(folder, f"{kind}.har")
            make_recording(path, options.megabytes * 10**6, kind)
            parsed = _measured(["-c", PARSE, str(path)])
            learned = _measured(["-c", LEARN, "learn", str(path), "-o", str(Path(folder, "osai.yaml"))])
            ratio = learned["seconds"] / parsed["seconds"]
            line[kind] = {"mb_file": path.stat().st_size / 1e6, **learned, "ratio": ratio}
            sys.stdout.write(
                f"{kind}: {path.stat().st_size / 1e6:.0f} MB learned in {learned['seconds']:.1f} s with "
                f"{learned['mb']:.0f} MB; json.load takes {parsed['seconds']:.1f} s and {parsed['mb']:.0f} MB\n"
            )
    rounded = {kind: {name: round(value, 2) for name, value in each.items()} for kind, each in line.items()}
    sys.stdout.write(json.dumps(rounded) + "\n")


if __name__ == "__main__":
    main()
