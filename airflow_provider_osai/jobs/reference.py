"""Under which reference a task submits its job, so that a retry finds it again and nothing else does."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from airflow_provider_osai.api.requests import JobRequest

__all__ = ["Owner"]


@dataclass(frozen=True, slots=True)
class Owner:
    """The task instance that a job belongs to.

    ``generation`` is Airflow's ``max_tries``: a clear raises it and a retry does not, so a retry adopts what an earlier
    try left running, and a cleared task starts anew.
    """

    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    generation: int

    def reference(self, request: JobRequest, failed: int = 0) -> str:
        """Return the reference of this owner's job for *request*, after *failed* jobs that ended badly."""
        task = [self.dag_id, self.run_id, self.task_id, self.map_index, self.generation]
        parts = [*task, request.kind, request.wire(), failed]
        return "airflow-" + hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:40]
