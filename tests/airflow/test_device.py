"""Devices: rented once, adopted, given back whatever happens, and wired around a block of tasks."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, TaskDeferred
from airflow.sdk import DAG, TaskGroup, TriggerRule, task
from airflow.sdk.bases.operator import BaseOperator

from airflow_provider_osai.api.errors import OsaiJobCancelled, OsaiJobFailed, OsaiJobTimeout
from airflow_provider_osai.jobs import submission
from airflow_provider_osai.operators.device import (
    OsaiReleaseDeviceOperator,
    OsaiRentDeviceOperator,
    rented_device,
)
from airflow_provider_osai.triggers.event import JobEvent, Outcome


@pytest.fixture(autouse=True)
def quickly(monkeypatch):
    """Let OSAI show at once what was rented; ten seconds in earnest."""
    monkeypatch.setattr(submission, "VISIBILITY_TIMEOUT", 0.1)


@pytest.fixture
def rent(connection):
    """Make a rent."""

    def made(**options):
        defaults = {"task_id": "task", "device": "jetson", "duration": 60, "poll_interval": 0.05, "deferrable": False}
        return OsaiRentDeviceOperator(**defaults | options)

    return made


@pytest.fixture
def rentals(sandbox):
    """The states of all rentals."""
    return lambda: [rental["state"] for rental in sandbox.control.rentals()]


class TestRent:
    """Up to a device that is ready."""

    def test_it_comes_back_when_the_device_is_ready_and_not_when_the_lease_is_over(self, rent, context, rentals):
        """With all that is needed to use it, and to give it back."""
        told = rent().execute(context)
        assert told["state"] == "running"
        assert {"device_id", "job_id", "reference", "expires_at"} <= set(told)
        assert rentals() == ["running"]

    def test_deferred_it_is_woken_when_the_device_is_ready(self, rent, context, sandbox):
        """The trigger's event is a reason to look."""
        sandbox.control.devices(0)
        operator = rent(deferrable=True)
        with pytest.raises(TaskDeferred) as deferred:
            operator.execute(context)
        sandbox.control.devices(1)
        event = asyncio.run(anext(deferred.value.trigger.run())).payload
        assert JobEvent.parse(event).outcome is Outcome.READY
        told = rent(deferrable=True).execute_complete(context, event)
        assert told["device_id"]
        assert told["reference"] == sandbox.control.rentals()[0]["reference"]

    def test_the_reference_is_pushed_before_osai_is_asked(self, rent, context, ti, sandbox, rentals):
        """So that a release finds a lease whose id never came back."""
        sandbox.control.fault("status", "device_rental.submit", status=400)
        with pytest.raises(AirflowFailException):
            rent().execute(context)
        assert set(ti.xcoms) == {"reference"}
        assert rentals() == []

    def test_a_retry_adopts_the_lease_that_runs(self, rent, context, rentals):
        """Its worker was killed after the device was ready."""
        assert rent().execute(context)["device_id"] == rent().execute(context)["device_id"]
        assert rentals() == ["running"]

    def test_a_retry_whose_lease_is_over_rents_anew(self, rent, context, sandbox, rentals):
        """An old device is of no use."""
        first = rent().execute(context)
        sandbox.control.end(first["job_id"])
        assert rent().execute(context)["device_id"] != first["device_id"]
        assert rentals() == ["succeeded", "running"]

    def test_a_cleared_task_ends_the_older_lease_first(self, rent, context, ti, rentals):
        """One device is paid for, not two."""
        rent().execute(context)
        ti.max_tries += 1
        rent().execute(context)
        assert rentals() == ["cancelled", "running"]

    def test_a_lease_that_was_over_while_the_task_slept_is_an_error(self, rent, context, sandbox):
        """No triggerer ran, for instance."""
        told = rent().execute(context)
        sandbox.control.end(told["job_id"])
        event = JobEvent(kind="device_rental", job_id=told["job_id"], outcome=Outcome.READY).payload()
        with pytest.raises(OsaiJobFailed, match="ended before the device was used"):
            rent().execute_complete(context, event)

    def test_at_its_deadline_it_gives_back_what_it_waits_for(self, rent, context, sandbox, rentals):
        """A device that comes later would be nobody's."""
        sandbox.control.devices(0)
        with pytest.raises(OsaiJobTimeout):
            rent(execution_timeout=timedelta(seconds=0.2)).execute(context)
        assert rentals() == ["cancelled"]

    @pytest.mark.parametrize("found_by", ["id", "reference"])
    def test_whatever_makes_it_fail_it_gives_back_the_device(self, rent, context, ti, rentals, monkeypatch, found_by):
        """Here Airflow takes no XCom; the lease is found by its id, or by its reference if that never came back."""
        push, operator = ti.xcom_push, rent()

        def broken(key, value):
            if key == "osai_job":
                if found_by == "reference":
                    operator._job = None
                raise ConnectionError
            push(key, value)

        monkeypatch.setattr(ti, "xcom_push", broken)
        with pytest.raises(ConnectionError):
            operator.execute(context)
        assert rentals() == ["cancelled"]

    def test_an_event_that_says_nothing_is_a_reason_to_look_at_the_device(self, rent, context, rentals):
        """A newer version may have written it; the device is there, and is handed on."""
        told = rent().execute(context)
        assert rent().execute_complete(context, {"nonsense": True})["device_id"] == told["device_id"]
        assert rentals() == ["running"]

    def test_killed_while_it_waits_it_gives_back_the_device(self, rent, context, sandbox, rentals, monkeypatch):
        """And does not succeed."""
        sandbox.control.devices(0)
        operator = rent()
        sleep = operator._sleep
        monkeypatch.setattr(operator, "_sleep", lambda seconds: (operator.on_kill(), sleep(seconds)))
        with pytest.raises(OsaiJobCancelled, match="killed"):
            operator.execute(context)
        assert rentals() == ["cancelled"]

    def test_killed_at_the_last_moment_it_does_not_succeed(self, rent, context, rentals, monkeypatch):
        """The kill has ended the lease, after the task saw it run."""
        operator = rent()
        conclude = operator._wait_or_defer
        monkeypatch.setattr(operator, "_wait_or_defer", lambda *args: (conclude(*args), operator.on_kill())[0])
        with pytest.raises(OsaiJobCancelled, match="killed"):
            operator.execute(context)
        assert rentals() == ["cancelled"]

    @pytest.mark.parametrize("name", ["wait_for_completion", "use_webhook", "cancel_on_kill"])
    def test_what_means_nothing_for_a_lease_is_refused(self, rent, name):
        """Rather than ignored."""
        with pytest.raises(TypeError, match=name):
            rent(**{name: False})

    @pytest.mark.parametrize(
        ("duration", "seconds"), [(timedelta(minutes=1.5), 90), (0.5, 1), ("90", 90), (timedelta(milliseconds=1), 1)]
    )
    def test_duration_is_sent_as_whole_seconds(self, rent, duration, seconds):
        """Rounded up."""
        assert rent(duration=duration).build_request().duration == seconds

    @pytest.mark.parametrize("duration", [0, -1, "soon", None, float("nan"), float("inf"), timedelta(0)])
    def test_a_duration_that_is_none_rents_nothing(self, rent, context, rentals, duration):
        """It is found before OSAI is asked."""
        with pytest.raises(AirflowFailException, match="duration"):
            rent(duration=duration).execute(context)
        assert rentals() == []


class TestRelease:
    """By what the rent left."""

    def release(self, context, **options):
        return OsaiReleaseDeviceOperator(task_id="release", **options).execute(context)

    def test_by_id_by_reference_and_twice(self, rent, context, rentals):
        """The second time there is nothing left to do."""
        told = rent().execute(context)
        assert self.release(context, job_id=told["job_id"]) == {"released": [told["job_id"]]}
        assert self.release(context, reference=told["reference"]) == {"released": []}
        told = rent().execute(context)
        assert self.release(context, reference=told["reference"]) == {"released": [told["job_id"]]}
        assert rentals() == ["cancelled", "cancelled"]

    @pytest.mark.parametrize("missing", [None, "", "None"])
    def test_of_nothing(self, connection, context, missing):
        """What a rent that never ran leaves."""
        assert self.release(context, job_id=missing, reference=missing) == {"released": []}

    @pytest.mark.parametrize("several", [["1", "2"], "['1', '2']"])
    @pytest.mark.parametrize("name", ["job_id", "reference"])
    def test_of_several_rentals_at_once_is_refused(self, connection, context, name, several):
        """It would find none under such an id, and leave them rented: they are the XComs of a mapped rent."""
        with pytest.raises(AirflowFailException, match=f"{name} = .*map the release like the renting"):
            self.release(context, **{name: several})

    def test_it_is_retried_more_than_others(self):
        """Whatever the Dag's defaults; the user's own word counts."""
        with DAG("d", schedule=None, default_args={"retries": 0}):
            assert OsaiReleaseDeviceOperator(task_id="a").retries == 10
            assert OsaiReleaseDeviceOperator(task_id="b", retries=2).retries == 2


@task
def use(device):
    """Use a device."""


class TestBlock:
    """``rented_device`` in a Dag."""

    def test_all_tasks_of_the_block_lie_between_rent_and_release(self):
        """Mapped ones, groups, and those that hang on tasks outside of it."""
        with DAG("d", schedule=None) as dag:
            before = BaseOperator(task_id="before")
            with rented_device("jetson", duration=60) as device:
                inside = BaseOperator(task_id="inside")
                use.expand(device=[1, 2])
                with TaskGroup("group"):
                    use(device["device_id"])
            before >> inside >> BaseOperator(task_id="after")
        taking, giving = dag.task_dict["rent_device"], dag.task_dict["release_device"]
        assert (taking.is_setup, giving.is_teardown, giving.trigger_rule) == (True, True, TriggerRule.ALL_DONE)
        assert taking.downstream_task_ids == {"inside", "use", "group.use", "release_device"}
        assert giving.upstream_task_ids == {"inside", "use", "group.use", "rent_device"}
        assert not giving.downstream_task_ids

    def test_twice_in_a_dag_in_groups_and_one_in_the_other(self):
        """Each with a name of its own."""
        with DAG("d", schedule=None) as dag:
            with (
                rented_device("jetson", duration=60, name="outer") as outer,
                rented_device("coral", duration=60, name="inner", osai_conn_id="other", retries=2) as inner,
            ):
                use(outer)
                use(inner)
            with TaskGroup("group"), rented_device("jetson", duration=60):
                BaseOperator(task_id="inside")
        assert dag.task_dict["rent_outer"].downstream_task_ids >= {"rent_inner", "use"}
        assert dag.task_dict["release_inner"].downstream_task_ids == {"release_outer"}
        assert dag.task_dict["rent_inner"].retries == 2
        assert dag.task_dict["release_inner"].osai_conn_id == "other"
        assert dag.task_dict["group.rent_device"].downstream_task_ids == {"group.inside", "group.release_device"}

    def test_the_example_rents_uses_and_gives_back(self, run_dag, connection, rentals):
        """As many tests as are asked for, on one device."""
        ran = run_dag("example_osai_device", runs=2)
        assert ran.state == "success", ran.tasks
        device = ran.result("rent_device", "device_id")
        assert ran.xcom("test_on_device", map_index=1) == f"run 1 on device {device}"
        assert ran.xcom("release_device")["released"] == [ran.result("rent_device", "job_id")]
        assert rentals() == ["cancelled"]

    def test_a_block_that_fails_fails_the_run_and_gives_back_the_device(self, run_dag, connection, rentals):
        """The release does not paint it green."""
        ran = run_dag("rents", fails="inside")
        assert (ran.state, ran.tasks["release_device"], rentals()) == ("failed", "success", ["cancelled"])

    def test_a_rent_that_fails_is_released_all_the_same(self, run_dag, connection, sandbox, rentals):
        """Its worker may have been killed with a lease in its hands."""
        sandbox.control.fault("status", "device_rental.submit", status=400)
        ran = run_dag("rents", fails="rent")
        assert (ran.state, ran.tasks["release_device"], rentals()) == ("failed", "success", [])
