"""A model on a real device: rent one, use it, give it back whatever happens (docs/devices.md).

Runs against the sandbox as it does against OSAI; only the connection ``osai_default`` differs.
"""

from datetime import timedelta

from airflow.sdk import DAG, Param, task

from airflow_provider_osai.operators.device import rented_device

with DAG(
    "example_osai_device",
    schedule=None,
    catchup=False,
    default_args={"deferrable": True, "poll_interval": 10, "execution_timeout": timedelta(hours=1)},
    params={
        "device": Param("jetson-orin", type="string", description="Which device to rent"),
        "runs": Param(3, type="integer", description="How often the test is run"),
    },
    tags=["osai", "example"],
    doc_md=__doc__,
) as dag:

    @task
    def numbers(params: dict) -> list[int]:
        """Return what to map over; it needs no device."""
        return list(range(params["runs"]))

    @task
    def test_on_device(device_id: str, number: int) -> str:
        """Stand in for your own test: it has the device to itself until the block ends."""
        return f"run {number} on device {device_id}"

    runs = numbers()
    with rented_device("{{ params.device }}", duration=timedelta(hours=1)) as device:
        test_on_device.partial(device_id=device["device_id"]).expand(number=runs)
