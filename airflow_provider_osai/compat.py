"""What differs between the Airflow versions that we support, and that `common.compat` does not bridge."""

from __future__ import annotations

try:
    from airflow.sdk.exceptions import TaskDeferralError, TaskDeferralTimeout
except ImportError:  # Airflow 3.1
    from airflow.exceptions import TaskDeferralError, TaskDeferralTimeout  # type: ignore[no-redef]  # the same two

__all__ = ["TaskDeferralError", "TaskDeferralTimeout"]
