"""``osai-airflow datasets check``: find what would spoil a training in a folder, archive or bucket of images."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_osai.api.errors import OsaiArgumentError
from airflow_provider_osai.cli.output import USAGE, CommandError, redirect_stdout
from airflow_provider_osai.cli.parsers import QUALITY_OPTIONS
from airflow_provider_osai.data.quality import QualityOptions, QualityReport, check_source
from airflow_provider_osai.data.quality.check import holdout_error
from airflow_provider_osai.data.quality.report import printable
from airflow_provider_osai.data.quality.text_report import Line, text_lines
from airflow_provider_osai.data.sources import open_source

if TYPE_CHECKING:
    from airflow_provider_osai.data.sources import Source

__all__ = ["run"]

PASSED: Final = 0
FOUND: Final = 1
STYLES: Final = {"error": "bold red", "warning": "bold yellow", "passed": "bold green", "dim": "dim"}
"""Rich's styles of the lines of the report."""
SETTINGS: Final = {
    **{name: f"--{name.replace('_', '-')}" for name in ("holdout", *QUALITY_OPTIONS)},
    "categories": "--category (the upload's categories)",
    "near_duplicates": "--no-near-duplicates",
}
"""What the command calls the settings that messages name."""


def run(options: argparse.Namespace) -> int:
    """Check a source and print the report.

    :return: 0 without errors (with ``--strict``, without warnings either), 1 with errors.
    :raises CommandError: if an argument is invalid or the source does not exist, with the exit code 2.
    """
    if options.json and options.files:
        raise CommandError("argument --files: not allowed with argument --json", USAGE)
    try:
        with redirect_stdout(enabled=True):  # importing Airflow for object storage may log
            thresholds = QualityOptions(**_thresholds(options))
            source = _open(options.source, options.conn_id)
            holdout = None if options.holdout is None else _open_holdout(options.holdout, options.conn_id)
            page = None if options.html is None else _page(options.html, options.source)
            report = check_source(
                source,
                thresholds,
                holdout=holdout,
                categories=dict(options.category),
                annotations=not options.no_annotations,
                settings=SETTINGS,
                progress=_log if sys.stderr.isatty() else lambda _: None,
            )
            if page is not None:
                _write_page(page, report, source, holdout)
                _log(f"Wrote {printable(str(page))}")
    except OsaiArgumentError as error:
        raise CommandError(re.sub(r"^source = ", "FOLDER = ", str(error)), USAGE) from error
    if options.json:
        sys.stdout.write(json.dumps(report.as_dict(), indent=2) + "\n")
    elif options.files:
        _print([Line(printable(name)) for name in report.affected])
    else:
        _print(list(text_lines(report)))
    return PASSED if report.is_ok(strict=options.strict) else FOUND


def _thresholds(options: argparse.Namespace) -> dict[str, Any]:
    given = {name: value for name in QUALITY_OPTIONS if (value := getattr(options, name)) is not None}
    return {**given, "ignore": ",".join(options.ignore), "near_duplicates": not options.no_near_duplicates}


def _open(source: str, conn_id: str | None) -> Source:
    if "://" not in source and conn_id is None:
        return open_source(source)
    from airflow_provider_osai.operators._paths import parse_path  # imports Airflow

    return open_source(source, partial(parse_path, conn_id=conn_id))


def _open_holdout(source: str, conn_id: str | None) -> Source:
    try:
        return _open(source, conn_id)
    except OsaiArgumentError as error:
        raise holdout_error(error, SETTINGS) from error


def _page(path: Path, source: str) -> Path:
    """Return the path of the HTML page, checked before the work begins.

    :raises OsaiArgumentError: if it cannot be written, or would be a file of the source.
    """
    folder = path.absolute().parent
    if not folder.is_dir() or path.is_dir():
        raise OsaiArgumentError(f"--html {str(path)!r}: must be a file in an existing folder")
    root = Path(source)
    if root.is_dir() and folder.resolve().is_relative_to(root.resolve()):
        raise OsaiArgumentError(f"--html {str(path)!r}: is inside the source, where it would be an invalid file")
    return path


def _write_page(path: Path, report: QualityReport, source: Source, holdout: Source | None) -> None:
    from airflow_provider_osai.data.quality.html_report import html_report

    try:
        path.write_text(html_report(report, source, holdout, datetime.now().astimezone()), encoding="utf-8")
    except OSError as error:
        raise OsaiArgumentError(f"--html {str(path)!r}: {error.strerror}") from error


def _log(message: str) -> None:
    sys.stderr.write(f"{message}\n")


def _print(lines: Sequence[Line]) -> None:
    """Print the report, in colours on a terminal."""
    if not sys.stdout.isatty():
        encoding = sys.stdout.encoding or "utf-8"
        text = "".join(f"{line.text}\n" for line in lines)
        sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
        return
    from rich.console import Console
    from rich.text import Text

    console = Console()
    for line in lines:
        console.print(Text(line.text, STYLES.get(line.style, "")), soft_wrap=True)
