"""``osai-airflow contract``: show the contract, learn it, or compare it with OSAI's OpenAPI definition."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import httpx

from airflow_provider_osai.api.client import OsaiClient
from airflow_provider_osai.api.contract import ASSUMED, NO_RULES, Contract
from airflow_provider_osai.api.errors import OsaiArgumentError, OsaiContractError, OsaiError
from airflow_provider_osai.api.overrides import apply_overrides
from airflow_provider_osai.api.settings import OsaiSettings
from airflow_provider_osai.cli import contract_learn
from airflow_provider_osai.cli.check import load_settings
from airflow_provider_osai.cli.contract_schema import json_schema, rule_tables
from airflow_provider_osai.cli.live_check import LiveRow, check_live, evidence_of, is_fine
from airflow_provider_osai.cli.output import redirect_stdout
from airflow_provider_osai.cli.time_limits import TimeLimits, add_options
from airflow_provider_osai.hooks.osai import OsaiHook
from airflow_provider_osai.learning.api_definition import MAX_BYTES, ApiOperation, parse_definition
from airflow_provider_osai.learning.definition_diff import Finding, MatchStatus, compare, suggest_overrides

__all__ = ["main", "markdown", "table"]

DEFINITION_PATHS: Final = (
    *("openapi.json", "swagger/v1/swagger.json", "swagger.json", "v3/api-docs", "v2/api-docs", "api-docs"),
    *("docs/openapi.json", "swagger/docs/v1", "openapi.yaml", "openapi.yml"),
)
"""Common paths of an API definition, below the API's base address or the server's root."""
TIMEOUT: Final = 15.0
PAGE: Final = """\
<!-- made by `osai-airflow contract show --markdown`; do not edit -->
# Contract reference

The table of OSAI's endpoints that this provider uses: {rows} rows, of which {documented} are documented by the vendor
and {assumed} are assumed. Override any of them with a [contract document](contract.md); optional ones can be set to
`null`. All [rules of documents](#rules) are listed below.

`osai-airflow contract check --conn-id osai_default` (or `--spec FILE`) compares it with the API definition that your
OSAI publishes: matches, differs, or missing, with candidates. `--suggest` prints a `contract` extra that fits better;
review it before you use it. API definitions do not include status words; `osai-airflow contract check --live` compares
the table with [the responses](contract.md#compare-the-document-with-your-osai) instead.

| operation | method | path | sends | reads | optional | evidence |
|---|---|---|---|---|---|---|"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Show the contract, or check it.

    :return: 0 if every endpoint matches (or for ``show``), 1 if one does not, 2 if there is no definition or the
        connection cannot be read.
    """
    parser = argparse.ArgumentParser(
        prog="osai-airflow contract", description="Show, learn or check the OSAI endpoints that this provider uses."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    show = commands.add_parser("show", help="print the endpoints with their evidence")
    show.add_argument("--markdown", action="store_true", help="print the page docs/contract-reference.md")
    show.add_argument(
        "--effective", action="store_true", help="print what a connection's contract, or FILE, makes of the defaults"
    )
    show.add_argument("--conn-id", help=f"the connection, default {OsaiHook.default_conn_name}")
    show.add_argument("--contract", type=Path, metavar="FILE", help="a contract document instead of a connection's")
    contract_learn.add_parser(commands)
    commands.add_parser("schema", help="print the JSON Schema of contract documents, for editors")
    check = commands.add_parser("check", help="compare them with the API's OpenAPI or Swagger definition")
    check.add_argument(
        "--conn-id", help=f"connection of the OSAI to compare with, default {OsaiHook.default_conn_name}"
    )
    check.add_argument("--spec", type=Path, help="read a saved definition instead of requesting it")
    check.add_argument(
        "--suggest", action="store_true", help="print a contract extra that fits better; review it before you use it"
    )
    check.add_argument(
        "--live", action="store_true", help="compare them with the responses of the connection's OSAI instead; only GET"
    )
    check.add_argument("--json", action="store_true", help="with --live: print the results as JSON")
    add_options(check)
    evidence = commands.add_parser("evidence", help="write what 'check --live' sees, without values, to a file")
    evidence.add_argument("--conn-id", help=f"the connection, default {OsaiHook.default_conn_name}")
    evidence.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="the file to write")
    add_options(evidence)
    options = parser.parse_args(arguments)
    if options.command == "learn":
        return contract_learn.main(options)
    if options.command == "check" and (
        options.json > options.live or (options.live and (options.spec or options.suggest))
    ):
        check.error("--json needs --live, which goes without --spec and --suggest")
    if options.command == "check" and options.json and not options.live:
        check.error("--json needs --live")
    if options.command == "check" and options.live and (options.spec or options.suggest):
        check.error("--live goes without --spec and --suggest")
    if options.command == "schema":
        sys.stdout.write(json.dumps(json_schema(), indent=2) + "\n")
        return 0
    try:
        if options.command == "show":
            code, text = 0, _shown(options)
        elif options.command == "evidence":
            code, text = _write_evidence(options)
        elif options.live:
            code, text = _checked_live(options)
        else:
            code, text = _checked(options.conn_id, options.spec, suggest=options.suggest)
    except OsaiError as error:
        sys.stderr.write(f"{error}\n")
    except Exception as error:  # Airflow's secrets backends can raise anything
        conn_id = options.conn_id or OsaiHook.default_conn_name
        sys.stderr.write(
            f"The connection {conn_id} could not be read: {type(error).__name__}. Check the connection id, and run "
            "this where Airflow is configured; --spec FILE needs no connection.\n"
        )
    else:
        sys.stdout.write(text)
        return code
    return 2


def _shown(options: argparse.Namespace) -> str:
    if options.markdown:
        return markdown(Contract())
    if not (options.effective or options.contract or options.conn_id):
        return table(_endpoint_rows(Contract()))
    if options.contract:
        return _effective(apply_overrides(Contract(), str(options.contract.resolve())))
    return _effective(_load_settings(options.conn_id or OsaiHook.default_conn_name).contract)


def _load_settings(conn_id: str) -> OsaiSettings:
    """Read the connection, with the lines that Airflow logs to the standard output on the standard error."""
    with contextlib.redirect_stdout(sys.stderr):
        return load_settings(conn_id)


def _effective(contract: Contract) -> str:
    """Return the table of a contract, with what it changes."""
    default = Contract()
    rows: list[tuple[str, ...]] = [("operation", "method", "path", "evidence", "changed by the contract")]
    for name, row in contract.endpoints.items():
        if row is None:
            rows.append((name, "", "null", "", "the API does not have it"))
            continue
        skipped = {"method", "path"}
        rules = {} if row.rules is NO_RULES else row.rules.model_dump(exclude_unset=True, exclude=skipped)
        source = rules.pop("evidence", None) or "the contract"
        changes = [
            f"{part}: {', '.join(map(str, value))}" if isinstance(value, dict) else part
            for part, value in rules.items()
            if value not in ({}, None)
        ]
        before = default.endpoints[name]
        evidence = row.evidence if before is not None and (row.method, row.path) == (before.method, before.path) else ""
        rows.append((name, row.method, row.path, evidence or source, "; ".join(changes)))
    return table(rows)


def _checked(conn_id: str | None, spec: Path | None, *, suggest: bool) -> tuple[int, str]:
    """Return the exit code and the text of a comparison with an API definition."""
    if spec is not None and conn_id is None:
        contract = Contract()
        base = "/api"
        operations = parse_definition(_read_file(spec))
    else:
        settings = _load_settings(conn_id or OsaiHook.default_conn_name)
        contract = settings.contract
        base = urlsplit(settings.base_url).path.rstrip("/")
        operations = parse_definition(_read_file(spec)) if spec else _fetch_definition(settings)
    findings = compare(contract, operations, base)
    if suggest:
        text = json.dumps(suggest_overrides(findings, base), indent=2) + "\n"
    else:
        text = table(_finding_rows(findings, base))
    is_match = all(finding.status in (MatchStatus.MATCHES, MatchStatus.UNBOUND) for finding in findings)
    return (0 if is_match else 1), text


def _live_rows(options: argparse.Namespace) -> tuple[str, list[LiveRow], OsaiClient]:
    conn_id = options.conn_id or OsaiHook.default_conn_name
    with redirect_stdout(enabled=True):
        settings = load_settings(conn_id)
        rows, client = check_live(settings, TimeLimits(options.timeout, options.total_timeout))
    return conn_id, rows, client


def _checked_live(options: argparse.Namespace) -> tuple[int, str]:
    """Return the exit code and the text of a comparison with the responses of a live OSAI."""
    conn_id, rows, _ = _live_rows(options)
    if options.json:
        document = {"conn_id": conn_id, "ok": is_fine(rows), "rows": [row.to_dict() for row in rows]}
        text = json.dumps(document, indent=2) + "\n"
    else:
        text = table([("operation", "endpoint", "status", "details"), *(row.cells() for row in rows)])
    return (0 if is_fine(rows) else 1), text


def _write_evidence(options: argparse.Namespace) -> tuple[int, str]:
    """Write what a live OSAI responds, without values; return the exit code and a summary."""
    _, rows, client = _live_rows(options)
    evidence = evidence_of(rows, client.calls.watch)
    text = evidence.to_json()
    if client.auth.redact(text.encode()) != text.encode():
        raise OsaiContractError("The evidence would contain a token of the connection, so it was not written")
    try:
        options.output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OsaiArgumentError(f"{options.output}: {error.strerror}") from error
    return 0, f"{options.output}: what {len(evidence.operations)} operations returned, without values.\n"


def _read_file(spec: Path) -> bytes:
    try:
        with spec.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        raise OsaiContractError(f"{spec}: {error.strerror}") from error


def _fetch_definition(settings: OsaiSettings) -> list[ApiOperation]:
    """Fetch the API definition from the common paths, without signing in."""
    parts = urlsplit(settings.base_url)
    root = f"{parts.scheme}://{parts.netloc}"
    failures: dict[str, str] = {}
    with httpx.Client(timeout=TIMEOUT) as client:
        for base in dict.fromkeys((settings.base_url, root)):
            for path in DEFINITION_PATHS:
                url = f"{base}/{path}"
                try:
                    return parse_definition(_fetch(client, url))
                except (httpx.HTTPError, OsaiContractError) as error:
                    failures[url] = str(error) or type(error).__name__
    url, reason = next(iter(failures.items()))
    raise OsaiContractError(
        f"Found no API definition at {len(failures)} common addresses, for example {url} ({reason}). Save it from the "
        "interactive API page, and use --spec FILE"
    )


def _fetch(client: httpx.Client, url: str) -> bytes:
    with client.stream("GET", url, headers={"Accept": "application/json, application/yaml"}) as response:
        response.raise_for_status()
        content = b""
        for chunk in response.iter_bytes():
            content += chunk
            if len(content) > MAX_BYTES:
                break
    return content


def _endpoint_rows(contract: Contract) -> list[tuple[str, ...]]:
    rows = [(row.name, row.method, row.path, row.evidence) for row in contract.endpoints.values() if row is not None]
    return [("operation", "method", "path", "evidence"), *rows]


def _finding_rows(findings: Iterable[Finding], base: str) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("operation", "endpoint", "status", "differences", "candidates")]
    for finding in findings:
        endpoint = f"{finding.row.method} {finding.row.path}" if finding.row else "null"
        candidates = [f"{candidate.method} {candidate.path.removeprefix(base)}" for candidate in finding.candidates]
        shown = ", ".join(candidates) if finding.status is MatchStatus.MISSING else ""
        rows.append((finding.name, endpoint, finding.status.value, "; ".join(finding.problems), shown))
    return rows


def table(rows: Sequence[tuple[str, ...]]) -> str:
    """Return rows as lines of text with aligned columns."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "".join("  ".join(map(str.ljust, row, widths)).rstrip() + "\n" for row in rows)


def markdown(contract: Contract) -> str:
    """Return the page docs/contract-reference.md."""
    rows = [row for row in contract.endpoints.values() if row is not None]
    documented = sum(row.evidence != ASSUMED for row in rows)
    counts = {"rows": len(rows), "documented": documented, "assumed": len(rows) - documented}
    lines = [PAGE.format(**counts)]
    for row in rows:
        sends = ", ".join(f"`{name}`" for name in sorted(row.sent_fields - row.path_fields))
        reads = ", ".join(f"`{name}`" for name in sorted(row.response_fields - {"kind", "state", "items"}))
        optional = "yes" if row.optional else ""
        evidence = row.evidence if row.evidence == ASSUMED else f"[documented](https://{row.evidence})"
        lines.append(f"| `{row.name}` | {row.method} | `{row.path}` | {sends} | {reads} | {optional} | {evidence} |")
    schema = "`osai-airflow contract schema` prints them as JSON Schema, for editors."
    return "\n".join([*lines, "", "## Rules", "", schema, "", rule_tables()])
