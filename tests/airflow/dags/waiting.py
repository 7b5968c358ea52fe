"""A Dag whose task instances the webhook's tests turn into deferred ones."""

from __future__ import annotations

from airflow.sdk import DAG, task

with DAG("waiting", schedule=None):

    @task
    def wait(number: int) -> int:
        return number

    wait.expand(number=[0, 1, 2])
