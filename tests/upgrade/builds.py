"""Virtual environments with an Airflow and a version of this package, installed from its wheel."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

__all__ = ["NOW", "OLD", "describe", "python_with", "wheel_of"]

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".wheel" / "upgrade"
OLD = "0.1.0"
"""The version to upgrade from, and to go back to."""
NOW = "now"
"""The version of the working tree."""
TAG = f"v{OLD}"
COMMIT = "783b52ec5dbd0d31fca3332fba57efc5bf8ac20a"
"""The state that version 0.1.0 is tagged at, as long as the tag does not exist."""
CONSTRAINTS = {"3.2": "constraints-airflow3.2.txt", "3.3": "constraints.txt"}
EXTRAS = ("apache-airflow", "apache-airflow-providers-standard", "asyncpg", "psycopg2-binary")


def run(*command: object, cwd: Path = ROOT) -> str:
    """Run a command; return its output."""
    done = subprocess.run([*map(str, command)], cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}: {done.stderr.strip()}")
    return done.stdout.strip()


@cache
def commit_of(version: str) -> str:
    """Return the commit of a version; for the working tree its last one."""
    if version == NOW:
        name = os.environ.get("OSAI_UPGRADE_TO", "HEAD")
    else:
        name = os.environ.get("OSAI_UPGRADE_FROM") or (TAG if run("git", "tag", "--list", TAG) else COMMIT)
    return run("git", "rev-parse", f"{name}^{{commit}}")


def describe(version: str) -> str:
    """Return a version with its commit, for the report."""
    return f"{version} ({commit_of(version)[:7]})"


@cache
def wheel_of(version: str) -> Path:
    """Build the wheel of a version."""
    folder = FOLDER / f"wheel-{version}"
    shutil.rmtree(folder, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="osai-upgrade-") as name:
        source = ROOT
        if version != NOW or "OSAI_UPGRADE_TO" in os.environ:
            source = Path(name)
            archive = source / "archive.tar"
            run("git", "archive", "--output", archive, commit_of(version))
            run("tar", "xf", archive, cwd=source)
            archive.unlink()
        run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=source)
    return next(folder.glob("*.whl"))


@cache
def python_with(version: str, airflow: str) -> str:
    """Return the Python of a new virtual environment with *version* of the package, and an *airflow* such as 3.3."""
    wheel = wheel_of(version)
    environment = FOLDER / f"{version}-airflow{airflow}"
    python = environment / "bin" / "python"
    uv = Path(sys.executable).with_name("uv")
    run(uv, "venv", "--quiet", "--clear", "--python", sys.executable, environment)
    constraint = ROOT / CONSTRAINTS[airflow]
    run(uv, "pip", "install", "--quiet", "--python", python, "--constraint", constraint, *EXTRAS, wheel)
    return str(python)
