"""Device test: rent a device, run tests on it, and always release it (docs/devices.md).

Runs unchanged against the sandbox and OSAI; only the connection ``osai_default`` differs.
"""

from datetime import timedelta

from airflow.sdk import DAG, Param, task

from airflow_provider_osai.operators.device import rented_device

with DAG(
    "example_osai_device",
    schedule=None,
    catchup=False,
    default_args={"retries": 2, "deferrable": True, "poll_interval": 10, "execution_timeout": timedelta(hours=1)},
    params={
        "device": Param("jetson-orin", type="string", description="Device to rent"),
        "runs": Param(3, type="integer", description="Number of test runs"),
    },
    tags=["osai", "example"],
    doc_md=__doc__,
) as dag:

    @task
    def numbers(params: dict) -> list[int]:
        """Return the numbers to map over; needs no device."""
        return list(range(params["runs"]))

    @task
    def test_on_device(device_id: str, number: int) -> str:
        """Placeholder for your test, which has exclusive use of the device until the block ends."""
        return f"run {number} on device {device_id}"

    runs = numbers()
    with rented_device("{{ params.device }}", duration=timedelta(hours=1)) as device:
        test_on_device.partial(device_id=device["device_id"]).expand(number=runs)
