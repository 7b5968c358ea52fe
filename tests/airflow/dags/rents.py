"""A rented device around a task that fails on request."""

from airflow.sdk import DAG, task

from airflow_provider_osai.operators.device import rented_device

with DAG("rents", schedule=None, params={"fails": "nothing"}):

    @task
    def use(device, params):
        """Use the device."""
        if params["fails"] == "inside":
            raise ValueError(device["device_id"])

    with rented_device("jetson", duration=60, deferrable=False, poll_interval=0.05) as rented:
        use(rented)
