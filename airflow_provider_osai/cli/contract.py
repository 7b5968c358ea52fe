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
from airflow_provider_osai.api.contract import ASSUMED, ENDPOINTS, NO_RULES, UNBOUND, Contract
from airflow_provider_osai.api.errors import OsaiArgumentError, OsaiContractError, OsaiError
from airflow_provider_osai.api.overrides import apply_overrides
from airflow_provider_osai.api.settings import OsaiSettings
from airflow_provider_osai.cli import contract_learn
from airflow_provider_osai.cli.check import load_settings
from airflow_provider_osai.cli.contract_schema import json_schema, rule_tables
from airflow_provider_osai.cli.live_check import LiveRow, check_live, evidence_of, is_fine
from airflow_provider_osai.cli.output import USAGE, CommandError, redirect_stdout
from airflow_provider_osai.cli.parsers import parser_for
from airflow_provider_osai.cli.time_limits import TimeLimits
from airflow_provider_osai.hooks.osai import OsaiHook
from airflow_provider_osai.learning.api_definition import MAX_BYTES, ApiOperation, parse_definition
from airflow_provider_osai.learning.definition_diff import Finding, MatchStatus, compare, suggest_overrides

__all__ = ["main", "markdown", "run", "table"]

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

{unbound} are not part of the table, because they are not even assumed: they end a training early and
keep its model, for [early stopping](early-stopping.md#keep-the-model). A document binds them if your OSAI has them.

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
    from airflow_provider_osai.cli import run_command  # it imports this module

    return run_command("contract", parser_for("contract").parse_args(arguments))


def run(options: argparse.Namespace) -> int:
    """Do what :func:`main` does, with parsed options.

    :raises CommandError: for what has the exit code 2.
    """
    if options.command == "learn":
        return contract_learn.main(options)
    if options.command == "check" and options.json and not options.live:
        raise CommandError("--json needs --live. Add --live, or leave out --json.", USAGE)
    if options.command == "check" and options.live and (options.spec or options.suggest):
        raise CommandError("--live goes without --spec and --suggest. Leave out one of them.", USAGE)
    if options.command == "show" and options.markdown and (options.effective or options.contract or options.conn_id):
        raise CommandError(
            "--markdown prints the defaults only. Leave out --effective, --contract and --conn-id.", USAGE
        )
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
        raise CommandError(str(error), USAGE) from error
    except Exception as error:  # Airflow's secrets backends can raise anything
        conn_id = options.conn_id or OsaiHook.default_conn_name
        raise CommandError(
            f"The connection {conn_id} could not be read: {type(error).__name__}. Check the connection id, and run "
            "this where Airflow is configured; --spec FILE needs no connection.",
            USAGE,
        ) from error
    sys.stdout.write(text)
    return code


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
        operations = _read_definition(spec)
    else:
        settings = _load_settings(conn_id or OsaiHook.default_conn_name)
        contract = settings.contract
        base = urlsplit(settings.base_url).path.rstrip("/")
        operations = _read_definition(spec) if spec else _fetch_definition(settings)
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


def _read_definition(spec: Path) -> list[ApiOperation]:
    try:
        with spec.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise OsaiContractError(f"--spec {spec}: {error.strerror}. Check the path") from error
    try:
        return parse_definition(content)
    except OsaiContractError as error:
        raise OsaiContractError(f"--spec {spec}: {error}") from error


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
    unbound = " and ".join(f"`{name}`" for name in ENDPOINTS if name in UNBOUND)
    lines = [PAGE.format(**counts, unbound=unbound)]
    for row in rows:
        sends = ", ".join(f"`{name}`" for name in sorted(row.sent_fields - row.path_fields))
        reads = ", ".join(f"`{name}`" for name in sorted(row.response_fields - {"kind", "state", "items"}))
        optional = "yes" if row.optional else ""
        evidence = row.evidence if row.evidence == ASSUMED else f"[documented](https://{row.evidence})"
        lines.append(f"| `{row.name}` | {row.method} | `{row.path}` | {sends} | {reads} | {optional} | {evidence} |")
    schema = "`osai-airflow contract schema` prints them as JSON Schema, for editors."
    return "\n".join([*lines, "", "## Rules", "", schema, "", rule_tables()])
