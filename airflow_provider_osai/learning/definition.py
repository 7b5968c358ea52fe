"""Compare what was learned with the API's definition (OpenAPI 3 or Swagger 2), and take from it what was not seen."""

from __future__ import annotations

import json
from collections.abc import Sequence

from airflow_provider_osai.api.contract import ASSUMED, ENDPOINTS, Contract
from airflow_provider_osai.api.overrides import apply_overrides
from airflow_provider_osai.learning.api_definition import ApiOperation
from airflow_provider_osai.learning.definition_diff import MatchStatus, compare, suggest_overrides
from airflow_provider_osai.learning.learner import Learned, Row

__all__ = ["add_definition"]

ONLY_DEFINED = "from the definition only, by the similarity of names: no recording shows it"


def add_definition(learned: Learned, operations: Sequence[ApiOperation]) -> None:
    """Note where the definition says something else, and add rows for operations that no recording shows.

    :param operations: of the definition.
    """
    contract = apply_overrides(Contract(), json.loads(json.dumps(learned.document)))
    base = learned.recording.base
    findings = compare(contract, operations, base)
    known: set[tuple[str, str]] = set()
    for finding in findings:
        row = learned.rows.get(finding.name)
        if row is None or not row.entries:
            continue
        if finding.status is MatchStatus.MISSING:
            row.doubts.append("the definition does not have this method and path")
        else:
            known |= {(operation.method, operation.path) for operation in finding.candidates}
            row.doubts += [f"the definition says: {problem}" for problem in finding.problems]
    open_names = {name for name in ENDPOINTS if not (name in learned.rows and learned.rows[name].entries)}
    rest = [operation for operation in operations if (operation.method, operation.path) not in known]
    default = [finding for finding in compare(Contract(), rest, base) if finding.name in open_names]
    for name, rules in suggest_overrides(default, base).items():
        if rules is not None and ENDPOINTS[name].evidence == ASSUMED:
            learned.rows[name] = Row(name, rules, [], [ONLY_DEFINED])
            learned.not_seen = [each for each in learned.not_seen if each not in (name, f"{name.partition('.')[0]}.*")]
