"""What a user edits in Dag files for an upgrade from version 0.1.0. docs/upgrades.md has the same table."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["RENAMED", "edited"]

RENAMED: Final = {
    "max_unreachable": "unreachable_timeout",
    "min_value": "threshold",
    "guard_metrics": "guardrail_metrics",
    "any_data": "allow_different_data",
    "trained": "skip_if_trained_on",
    "on_bad_file": "on_invalid_file",
    "patience": "timeout",
    "standing_model": "champion_model_id",
    "is_new": "has_new_data",
    "skip_unless_new": "skip_if_unchanged",
    "verdict": "decision",
    "digest": "data_digest",
    "sent": "uploaded",
    "known": "skipped",
    "bad": "invalid_files",
    "bad_count": "invalid_count",
}
"""Names of version 0.1.0, arguments and keys of results, and their present ones.

Not here, since a name is not enough: ``same_holdout`` with ``holdout_dataset_id`` is ``evaluation_dataset_id``, and the
task ids in ``on_reject`` are ``rejected_task_ids``.
"""


def edited(dag: str) -> str:
    """Return the text of a Dag file of version 0.1.0 with the present names."""
    for old, new in RENAMED.items():
        dag = re.sub(rf'(?<=[( ]){old}(?==)|(?<="){old}(?=")', new, dag)
    return dag
