"""``osai-airflow contract``: what we take OSAI's API to be, and whether its own definition agrees."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import httpx

from airflow_provider_osai.api.contract import ASSUMED, Contract
from airflow_provider_osai.api.errors import OsaiContractError, OsaiError
from airflow_provider_osai.api.settings import OsaiSettings
from airflow_provider_osai.check import settings_of
from airflow_provider_osai.conformance.comparison import Finding, Verdict, compare, suggestion
from airflow_provider_osai.conformance.definition import LARGEST, Operation, read_definition
from airflow_provider_osai.hooks.osai import OsaiHook

__all__ = ["main", "markdown", "table"]

PLACES: Final = (
    *("openapi.json", "swagger/v1/swagger.json", "swagger.json", "v3/api-docs", "v2/api-docs", "api-docs"),
    *("docs/openapi.json", "swagger/docs/v1", "openapi.yaml", "openapi.yml"),
)
"""Where servers have their definition, below the API's base address or the server's root."""
TIMEOUT: Final = 15.0
PAGE: Final = """\
<!-- made by `osai-airflow contract show --markdown`; do not edit -->
# The contract

What we take OSAI's API to be: {rows} rows, of which {documented} are documented by the vendor and {assumed} are
assumed. Each can be rebound in the connection's extra `contract`, as the README shows; rows that may be missing can be
bound to `null`.

`osai-airflow contract check --conn-id osai_default` (or `--spec FILE`) compares it with the definition that your OSAI
gives of itself: matches, differs, or missing, with candidates. `--suggest` prints a `contract` extra that fits better;
read it before you use it. Status words are no part of definitions: bind them by hand.

| operation | verb | path | sends | reads | may be missing | known from |
|---|---|---|---|---|---|---|"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Show or check; a check returns 0 if every binding matches, 1 if not, 2 if there is no definition."""
    parser = argparse.ArgumentParser(prog="osai-airflow contract", description="what we take OSAI's API to be")
    commands = parser.add_subparsers(dest="command", required=True)
    show = commands.add_parser("show", help="print the table with its evidence")
    show.add_argument("--markdown", action="store_true", help="as the page docs/contract.md")
    check = commands.add_parser("check", help="compare it with the API's own definition")
    check.add_argument("--conn-id", help=f"the connection whose OSAI is asked, default {OsaiHook.default_conn_name}")
    check.add_argument("--spec", type=Path, help="a saved definition, instead of asking")
    check.add_argument(
        "--suggest", action="store_true", help="print a contract extra that fits better, to be read first"
    )
    options = parser.parse_args(arguments)
    if options.command == "show":
        sys.stdout.write(markdown(Contract()) if options.markdown else table(_shown(Contract())))
        return 0
    try:
        return _check(options.conn_id, options.spec, suggest=options.suggest)
    except OsaiError as error:
        sys.stderr.write(f"{error}\n")
        return 2


def _check(conn_id: str | None, spec: Path | None, *, suggest: bool) -> int:
    if spec is not None and conn_id is None:
        contract, base, operations = Contract(), "/api", read_definition(_content(spec))
    else:
        settings = settings_of(conn_id or OsaiHook.default_conn_name)
        contract, base = settings.contract, urlsplit(settings.base_url).path.rstrip("/")
        operations = read_definition(_content(spec)) if spec else _fetched(settings)
    findings = compare(contract, operations, base)
    if suggest:
        sys.stdout.write(json.dumps(suggestion(findings, base), indent=2) + "\n")
    else:
        sys.stdout.write(table(_told(findings, base)))
    return 0 if all(one.verdict in (Verdict.MATCHES, Verdict.UNBOUND) for one in findings) else 1


def _content(spec: Path) -> bytes:
    try:
        with spec.open("rb") as file:
            return file.read(LARGEST + 1)
    except OSError as error:
        raise OsaiContractError(f"{spec}: {error.strerror}") from error


def _fetched(settings: OsaiSettings) -> list[Operation]:
    """Ask the API for its definition where servers have it, without a sign-in."""
    parts = urlsplit(settings.base_url)
    root = f"{parts.scheme}://{parts.netloc}"
    tried: dict[str, str] = {}
    with httpx.Client(timeout=TIMEOUT) as client:
        for base in dict.fromkeys((settings.base_url, root)):
            for place in PLACES:
                url = f"{base}/{place}"
                try:
                    return read_definition(_got(client, url))
                except (httpx.HTTPError, OsaiContractError) as error:
                    tried[url] = str(error) or type(error).__name__
    first, why = next(iter(tried.items()))
    raise OsaiContractError(
        f"no API definition at {len(tried)} common addresses, for instance {first} ({why}). Save it from the "
        "interactive API page, and use --spec FILE"
    )


def _got(client: httpx.Client, url: str) -> bytes:
    with client.stream("GET", url, headers={"Accept": "application/json, application/yaml"}) as answer:
        answer.raise_for_status()
        content = b""
        for piece in answer.iter_bytes():
            content += piece
            if len(content) > LARGEST:
                break
    return content


def _shown(contract: Contract) -> list[tuple[str, ...]]:
    rows = [(row.name, row.method, row.path, row.evidence) for row in contract.endpoints.values() if row is not None]
    return [("operation", "verb", "path", "known from"), *rows]


def _told(findings: Iterable[Finding], base: str) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("operation", "binding", "", "what differs", "candidates")]
    for one in findings:
        binding = f"{one.row.method} {one.row.path}" if one.row else "null"
        offered = [f"{near.method} {near.path.removeprefix(base)}" for near in one.candidates]
        near = ", ".join(offered) if one.verdict is Verdict.MISSING else ""
        rows.append((one.name, binding, one.verdict.value, "; ".join(one.problems), near))
    return rows


def table(rows: Sequence[tuple[str, ...]]) -> str:
    """Return rows as lines of text, the columns below each other."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "".join("  ".join(map(str.ljust, row, widths)).rstrip() + "\n" for row in rows)


def markdown(contract: Contract) -> str:
    """Return the page of the docs."""
    rows = [row for row in contract.endpoints.values() if row is not None]
    documented = sum(row.evidence != ASSUMED for row in rows)
    counts = {"rows": len(rows), "documented": documented, "assumed": len(rows) - documented}
    lines = [PAGE.format(**counts)]
    for row in rows:
        sends = ", ".join(f"`{name}`" for name in sorted(row.sent_fields - set(row.placeholders)))
        reads = ", ".join(f"`{name}`" for name in sorted(row.answered_fields - {"kind", "state", "items"}))
        may = "yes" if row.optional else ""
        known = row.evidence if row.evidence == ASSUMED else f"[documented](https://{row.evidence})"
        lines.append(f"| `{row.name}` | {row.method} | `{row.path}` | {sends} | {reads} | {may} | {known} |")
    return "\n".join(lines) + "\n"
