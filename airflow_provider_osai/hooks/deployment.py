"""The secret that identifies an Airflow deployment: random, in an Airflow variable, created at the first job."""

from __future__ import annotations

import secrets
import sys
import time
from typing import Final

from airflow.providers.common.compat.sdk import Variable, mask_secret

from airflow_provider_osai.api.errors import OsaiArgumentError, OsaiUnreachable
from airflow_provider_osai.jobs.idempotency import Deployment

__all__ = ["VARIABLE", "deployment_in_database", "load_deployment"]

VARIABLE: Final = "osai_deployment_secret"
"""The variable's key; Airflow masks the values of keys that contain "secret"."""
DESCRIPTION: Final = (
    "Signs the idempotency keys of OSAI jobs, so that this Airflow can tell its own jobs from those of others. Created "
    "by airflow-provider-osai. Do not change or delete it while jobs are running."
)
WRITE_RACE_PAUSE: Final = 1.0
"""Minimum seconds before the new secret is read back, because several tasks may write one at the same time."""
WRITE_RACE_FACTOR: Final = 10.0
"""The pause as a multiple of the time from reading to writing: as slow as it is here, it may be for the others."""
MAX_WRITE_RACE_PAUSE: Final = 30.0
"""Maximum seconds."""


def load_deployment(name: str | None = None) -> Deployment:
    """Return this deployment, and create its secret if there is none.

    The secret belongs to the metadata database and survives restarts and upgrades.

    :param name: the connection's extra ``deployment``.
    :raises OsaiUnreachable: if the variable cannot be read or written now.
    """
    try:
        started = time.monotonic()
        secret = Variable.get(VARIABLE, None)
        if not secret:
            Variable.set(VARIABLE, secrets.token_hex(16), DESCRIPTION)
            # Who has read before this write, and writes after the secret is read back, would replace it: a retry would
            # not find the jobs that were submitted with it. Airflow cannot write a variable only if there is none.
            pause = max(WRITE_RACE_PAUSE, WRITE_RACE_FACTOR * (time.monotonic() - started))
            time.sleep(min(pause, MAX_WRITE_RACE_PAUSE))
            secret = Variable.get(VARIABLE, None)
    except Exception as error:
        if not _runs_in_airflow():
            return Deployment("", name or "")
        msg = (
            f"Cannot read or write Airflow's variable {VARIABLE} ({type(error).__name__}); no job is submitted "
            "without it"
        )
        raise OsaiUnreachable(msg, may_have_been_processed=False) from error
    mask_secret(secret)
    return Deployment(str(secret or ""), name or "")


def deployment_in_database(name: str | None = None, *, create: bool = False) -> Deployment | None:
    """Return this Airflow's deployment; ``None`` if it has no secret yet because it has submitted no job.

    :param name: the connection's extra ``deployment``.
    :param create: create the secret if there is none, as the first job would.
    :raises sqlalchemy.exc.SQLAlchemyError: if the database cannot be read.
    :raises OsaiArgumentError: if the variable's value cannot be decrypted.
    """
    # Imported here because only the API server and the command line can access the database.
    from airflow.models.variable import Variable
    from airflow.utils.session import create_session
    from sqlalchemy import select

    # get_variable_from_secrets() does not distinguish an unreachable database from a missing variable.
    with create_session() as session:
        exists = session.execute(select(Variable.id).where(Variable.key == VARIABLE)).first() is not None
    secret = Variable.get_variable_from_secrets(VARIABLE)
    if exists and not secret:
        msg = f"Cannot decrypt Airflow's variable {VARIABLE}. Use the same [core] fernet_key as the other components"
        raise OsaiArgumentError(msg)
    if not secret and create:
        Variable.set(VARIABLE, secrets.token_hex(16), DESCRIPTION)
        secret = Variable.get_variable_from_secrets(VARIABLE)
    return Deployment(secret, name or "") if secret else None


def _runs_in_airflow() -> bool:
    """Return whether this process has a supervisor, as every task process of Airflow has."""
    # Not a public API. In Airflow 3.1 to 3.3, the task runner has its channel to the supervisor here.
    runner = sys.modules.get("airflow.sdk.execution_time.task_runner")
    return getattr(runner, "SUPERVISOR_COMMS", None) is not None
