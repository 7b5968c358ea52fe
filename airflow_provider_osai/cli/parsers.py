"""The commands of ``osai-airflow`` and their options.

This module imports neither Airflow nor pydantic nor the commands themselves: it is all that ``--help``, a usage error,
shell completion and the ``airflow`` command need.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, Final, NamedTuple, NoReturn

from airflow_provider_osai.cli.output import positive_seconds, seconds

__all__ = [
    "COMMANDS",
    "KINDS",
    "PROG",
    "QUALITY_OPTIONS",
    "STATES",
    "Command",
    "OneLineParser",
    "parser_for",
]

PROG: Final = "osai-airflow"
CONN_ID: Final = "osai_default"
"""``OsaiHook.default_conn_name``, without its import."""
KINDS: Final = ("training", "retraining", "conversion", "manipulation", "prediction", "device_rental")
"""The values of ``JobKind``, without its import."""
STATES: Final = ("queued", "running", "succeeded", "failed", "cancelled", "unknown")
"""The values of ``JobState``, without its import."""
LIMIT: Final = 50
"""Default maximum of jobs in a list."""
CANCEL_WAIT: Final = 10.0
"""Default seconds to wait for the end of a cancelled job."""
NO_ID: Final = frozenset({"", "None", "null"})
"""``EMPTY_TEMPLATE_VALUES``, without its import."""
MAX_WAIT: Final = 86_400.0
QUALITY_OPTIONS: Final[dict[str, tuple[type, str, float | None, str]]] = {
    "min_side": (int, "PIXELS", 32, "minimum width and height of an image"),
    "max_pixels": (int, "PIXELS", 89_478_485, "maximum pixels of an image; larger ones are not decoded"),
    "min_images": (int, "N", 3, "minimum images of a category"),
    "max_imbalance": (float, "RATIO", 10.0, "maximum ratio of the largest to the smallest category"),
    "max_hash_distance": (int, "BITS", 12, "maximum different bits, of 256, of near-duplicates, 0 to 32"),
    "min_box_side": (float, "PIXELS", 4.0, "minimum width and height of a box"),
    "max_items": (int, "N", 20, "maximum files or groups that a finding names"),
    "workers": (int, "N", None, "threads that decode images; default: the number of CPUs, at most 4"),
}
"""The options of ``QualityOptions`` that have a value: type, placeholder, default and help text, without its import."""


class OneLineParser(argparse.ArgumentParser):
    """Reports an invalid option in one line, with the command that lists the options."""

    def error(self, message: str) -> NoReturn:
        """Print the line on the standard error, and exit with code 2."""
        text = " ".join(message.split())
        self.exit(2, f"{self.prog}: {text}. '{self.prog} --help' lists the options.\n")


class Command(NamedTuple):
    """A command.

    :param help: what it does.
    :param runner: ``module:function``; the function is called with the parsed options, and returns the exit code.
    :param add_options: adds its options and subcommands to a parser.
    :param description: what it does, in its own help. Default: *help*.
    """

    help: str
    runner: str
    add_options: Callable[[argparse.ArgumentParser], None]
    description: str = ""


def parser_for(name: str, parser: argparse.ArgumentParser | None = None) -> argparse.ArgumentParser:
    """Return the parser of a command.

    :param parser: the parser to add the options to. Default: a new one.
    """
    command = COMMANDS[name]
    if parser is None:
        parser = OneLineParser(prog=f"{PROG} {name}", description=command.description or _sentence(command.help))
    command.add_options(parser)
    return parser


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _subcommands(parser: argparse.ArgumentParser) -> Callable[..., argparse.ArgumentParser]:
    """Return a function that adds a subcommand: ``add(name, help)``."""
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", title="commands")

    def add(name: str, text: str, **options: Any) -> argparse.ArgumentParser:
        added: argparse.ArgumentParser = commands.add_parser(
            name, **{"help": text, "description": _sentence(text), **options}
        )
        return added

    return add


def _add_conn_id(parser: argparse.ArgumentParser, **options: Any) -> None:
    parser.add_argument("--conn-id", **{"default": CONN_ID, "help": "connection id, default: %(default)s", **options})


def _add_json(parser: argparse.ArgumentParser, text: str = "print one JSON document; messages go to stderr") -> None:
    parser.add_argument("--json", action="store_true", help=text)


def _add_yes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask; needed where there is no terminal to ask")


def _add_time_limits(parser: argparse.ArgumentParser) -> None:
    # Not at the top: it imports threading and futures.
    from airflow_provider_osai.cli.time_limits import add_options

    add_options(parser)


def _check(parser: argparse.ArgumentParser) -> None:
    _add_conn_id(parser, help="default: %(default)s")
    parser.add_argument(
        "--webhook", action="store_true", help="also send a test webhook to this Airflow, from this machine"
    )
    _add_json(parser, "print the results as JSON; log lines go to stderr")
    _add_time_limits(parser)


def _contract(parser: argparse.ArgumentParser) -> None:
    add = _subcommands(parser)
    show = add("show", "print the endpoints with their evidence")
    show.add_argument("--markdown", action="store_true", help="print the page docs/contract-reference.md")
    show.add_argument(
        "--effective", action="store_true", help="print what a connection's contract, or FILE, makes of the defaults"
    )
    _add_conn_id(show, default=None, help=f"the connection, default {CONN_ID}")
    show.add_argument("--contract", type=Path, metavar="FILE", help="a contract document instead of a connection's")
    _contract_learn(add)
    add("schema", "print the JSON Schema of contract documents, for editors")
    check = add("check", "compare them with the API's OpenAPI or Swagger definition")
    _add_conn_id(check, default=None, help=f"connection of the OSAI to compare with, default {CONN_ID}")
    check.add_argument("--spec", type=Path, help="read a saved definition instead of requesting it")
    check.add_argument(
        "--suggest", action="store_true", help="print a contract extra that fits better; review it before you use it"
    )
    check.add_argument(
        "--live", action="store_true", help="compare them with the responses of the connection's OSAI instead; only GET"
    )
    _add_json(check, "with --live: print the results as JSON")
    _add_time_limits(check)
    evidence = add("evidence", "write what 'check --live' sees, without values, to a file")
    _add_conn_id(evidence, default=None, help=f"the connection, default {CONN_ID}")
    evidence.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="the file to write")
    _add_time_limits(evidence)


def _contract_learn(add: Callable[..., argparse.ArgumentParser]) -> None:
    parser = add(
        "learn",
        "make a contract document from recordings (HAR) of the portal in a browser",
        description=(
            "Make a contract document from recordings of the portal in a browser: of a training that succeeds, and "
            "better also of one that fails and one that is cancelled. Nothing is sent: secrets are taken out first, "
            "and the document is proven against the recording."
        ),
    )
    parser.add_argument("recordings", nargs="+", type=Path, metavar="RECORDING", help="HAR files, saved with content")
    parser.add_argument("--definition", metavar="FILE|URL", help="the API's OpenAPI or Swagger definition")
    parser.add_argument(
        "--notebook", action="append", default=[], type=Path, help="a notebook (.ipynb) or script (.py)"
    )
    parser.add_argument("--answers", type=Path, metavar="FILE", help="YAML: {question: answer}")
    parser.add_argument("--base-url", help="the API's base address, if it is not that of most requests")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write the document here (default: print it)")
    parser.add_argument(
        "--evidence", type=Path, metavar="FILE", help="what 'contract evidence' saw of the live API: adds questions"
    )
    parser.add_argument("--redacted", type=Path, metavar="FILE", help="write the redacted requests that it rests on")


def _datasets(parser: argparse.ArgumentParser) -> None:
    add = _subcommands(parser)
    listed = add("list", "list the datasets of the account")
    listed.add_argument("--name", help="only datasets with this name")
    _add_conn_id(listed)
    _add_json(listed)
    check = add(
        "check",
        "check a folder of images before it is uploaded",
        description="Find what would spoil a training: unreadable images, duplicates, wrong labels, overlap with the "
        "holdout. Nothing is uploaded or changed.",
        epilog="Exit code: 0 without errors (with --strict, without warnings either), 1 with errors, 2 for an invalid "
        "argument.",
    )
    check.add_argument(
        "source",
        metavar="FOLDER",
        help="a folder, a pattern in quotes, a zip or tar archive, or an address such as s3://",
    )
    check.add_argument("--holdout", metavar="FOLDER", help="images that the model is evaluated with, in the same forms")
    check.add_argument("--strict", action="store_true", help="exit with 1 if there are warnings, too")
    _add_json(check, "print the report as JSON")
    check.add_argument(
        "--files", action="store_true", help="print only the images with errors, one path in the source on each line"
    )
    check.add_argument("--html", metavar="FILE", type=Path, help="also write the report, with thumbnails, to this file")
    check.add_argument(
        "--category",
        metavar="PATTERN=NAME",
        type=_category,
        action="append",
        default=[],
        help="category of the images that match a pattern, as the upload's argument categories; may be repeated",
    )
    check.add_argument("--no-annotations", action="store_true", help="do not read COCO, YOLO and Pascal VOC files")
    _add_conn_id(check, default=None, help="Airflow connection of the object storage")
    check.add_argument(
        "--ignore", metavar="CODE", action="append", default=[], help="leave out a finding; may be repeated"
    )
    check.add_argument("--no-near-duplicates", action="store_true", help="do not compare perceptual hashes")
    for name, (kind, metavar, default, text) in QUALITY_OPTIONS.items():
        given = "" if default is None else f", default: {default:,}"
        option = f"--{name.replace('_', '-')}"
        check.add_argument(option, type=kind, metavar=metavar, default=default, help=f"{text}{given}")


def _jobs(parser: argparse.ArgumentParser) -> None:
    add = _subcommands(parser)
    listed = add("list", "list the jobs of the account as OSAI reports them, the latest first")
    listed.add_argument(
        "--kind",
        action="append",
        choices=KINDS,
        metavar="KIND",
        help=f"only jobs of this kind: {', '.join(KINDS)}; can be repeated",
    )
    listed.add_argument(
        "--state",
        action="append",
        choices=STATES,
        metavar="STATE",
        help=f"only jobs in this state: {', '.join(STATES)}; can be repeated",
    )
    listed.add_argument(
        "--limit", type=_count, default=LIMIT, metavar="N", help="maximum number of jobs, default: %(default)s"
    )
    _add_conn_id(listed)
    _add_json(listed)
    show = add("show", "show one job")
    show.add_argument(
        "kind",
        nargs="?",
        choices=KINDS,
        metavar="KIND",
        help=f"{', '.join(KINDS)}; if it is left out, each kind is asked for the id",
    )
    show.add_argument("id", type=_job_id, metavar="ID", help="OSAI's id of the job")
    _add_conn_id(show)
    _add_json(show)
    cancel = add("cancel", "cancel jobs, and report what became of each")
    _add_kind(cancel)
    cancel.add_argument("ids", nargs="+", type=_job_id, metavar="ID", help="OSAI's ids of the jobs")
    _add_yes(cancel)
    cancel.add_argument(
        "--wait",
        type=_wait,
        default=CANCEL_WAIT,
        metavar="SECONDS",
        help="how long to wait for the jobs to end, default: %(default)g",
    )
    _add_conn_id(cancel)
    _add_json(cancel)
    watch = add("watch", "wait for the end of a job; the exit code is 0 only if it succeeded")
    _add_kind(watch)
    watch.add_argument("id", type=_job_id, metavar="ID", help="OSAI's id of the job")
    watch.add_argument(
        "--poll-interval",
        type=positive_seconds,
        default=30.0,
        metavar="SECONDS",
        help="maximum seconds between two polls, default: %(default)g; new and nearly finished jobs are polled more "
        "often",
    )
    watch.add_argument(
        "--timeout", type=_positive_wait, metavar="SECONDS", help="stop watching after this time, default: never"
    )
    watch.add_argument(
        "--unreachable-timeout",
        type=_wait,
        default=3600.0,
        metavar="SECONDS",
        help="give up after this time without a successful poll, default: %(default)g",
    )
    _add_conn_id(watch)
    _add_json(watch)
    _orphans(add("orphans", COMMANDS["orphans"].help, description=COMMANDS["orphans"].description))


def _add_kind(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", choices=KINDS, metavar="KIND", help=", ".join(KINDS))


def _models(parser: argparse.ArgumentParser) -> None:
    add = _subcommands(parser)
    _add_json(add("list", "list the champions of all gates, from Airflow's database"))
    name = "the model's name in osai_model(NAME), or the URI of its asset"
    champion = add("champion", "print the id of the champion")
    champion.add_argument("name", metavar="NAME", help=name)
    _add_json(champion)
    rollback = add("rollback", "make an earlier champion the champion again")
    rollback.add_argument("name", metavar="NAME", help=name)
    rollback.add_argument("--to", metavar="MODEL_ID", help="the earlier champion; default: the one before the current")
    rollback.add_argument("--reason", metavar="TEXT", help="why; kept in the event of the asset")
    _add_yes(rollback)
    _add_conn_id(
        rollback, default=None, help="check first that this connection's OSAI still has the model; default: no check"
    )
    _add_json(rollback)


def _orphans(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--connection", "--conn-id", default=CONN_ID, help="connection id, default: %(default)s")
    parser.add_argument("--action", choices=("report", "cancel"), default="report", help="default: %(default)s")
    parser.add_argument(
        "--grace",
        type=seconds,
        default=600.0,
        help="grace time in seconds; younger jobs are ignored, default: %(default).0f",
    )
    _add_json(parser, "print the result as JSON; messages go to stderr")


def _version(parser: argparse.ArgumentParser) -> None:
    _add_json(parser)


def _from_module(module: str) -> Callable[[argparse.ArgumentParser], None]:
    """Return a function that adds the options which *module* declares in ``add_options``."""
    return lambda parser: import_module(module).add_options(parser)


def _category(text: str) -> tuple[str, str]:
    pattern, separator, name = text.rpartition("=")
    if not separator or not pattern.strip() or not name.strip():
        raise argparse.ArgumentTypeError(f"{text!r}: must be PATTERN=NAME")
    return pattern, name.strip()


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r}: must be a whole number, 1 or more")
    return int(text)


def _job_id(text: str) -> str:
    if text.strip() in NO_ID:
        raise argparse.ArgumentTypeError(f"{text!r}: the id is empty. 'osai-airflow jobs list' lists the jobs")
    return text


def _wait(text: str) -> float:
    if (value := seconds(text)) > MAX_WAIT:
        raise argparse.ArgumentTypeError(f"{text!r}: must be at most {MAX_WAIT:.0f} seconds")
    return value


def _positive_wait(text: str) -> float:
    if (value := _wait(text)) == 0:
        raise argparse.ArgumentTypeError(f"{text!r}: must be a number of seconds, more than 0")
    return value


_CLI: Final = "airflow_provider_osai.cli"
_DEMO: Final = "airflow_provider_osai.demo"
COMMANDS: Final[dict[str, Command]] = {
    "check": Command(
        "check that a connection works and, with --webhook, that webhooks reach this Airflow",
        f"{_CLI}.check:run",
        _check,
        "Check a connection to OSAI.",
    ),
    "contract": Command(
        "show the endpoints that this provider uses, learn them from a recording, or compare them with a live OSAI",
        f"{_CLI}.contract:run",
        _contract,
        "Show, learn or check the OSAI endpoints that this provider uses.",
    ),
    "datasets": Command(
        "list datasets, or check a folder of images before it is uploaded", f"{_CLI}.datasets:run", _datasets
    ),
    "demo": Command(
        "retrain a model end to end, in a complete local Airflow with the sandbox",
        f"{_DEMO}.__main__:run",
        _from_module(f"{_DEMO}.__main__"),
        "Three weeks of retraining on handwritten digits, in a complete local Airflow with the sandbox.",
    ),
    "digits": Command(
        "write sample images of handwritten digits, one folder per digit",
        f"{_DEMO}.digits:run",
        _from_module(f"{_DEMO}.digits"),
        "Write the handwritten digits of scikit-learn as image files: sample data without a download.",
    ),
    "jobs": Command("list, show, cancel or watch jobs, or find orphaned ones", f"{_CLI}.jobs:run", _jobs),
    "models": Command(
        "list the champions, print one, or roll back to an earlier one, as Airflow's database has them",
        f"{_CLI}.models:run",
        _models,
    ),
    "orphans": Command(
        "find orphaned jobs (running, but no Airflow task needs them), and cancel them with --action cancel",
        f"{_CLI}.orphans:run",
        _orphans,
        "Find, and optionally cancel, live OSAI jobs that no task of this Airflow needs any more.",
    ),
    "sandbox": Command(
        "run a local OSAI server that trains small models",
        "airflow_provider_osai.sandbox.__main__:run",
        _from_module("airflow_provider_osai.sandbox.__main__"),
        "Run a local OSAI server that trains small models, until SIGTERM or Ctrl-C.",
    ),
    "version": Command("print the versions of this package and of what it uses", f"{_CLI}.version:run", _version),
}
"""The commands by name."""
