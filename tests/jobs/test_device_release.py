"""Leases: waited for until they run, and ended for good."""

from __future__ import annotations

import pytest

from airflow_provider_osai.api.calls import OsaiApi
from airflow_provider_osai.api.contract import Contract
from airflow_provider_osai.api.errors import (
    OsaiContractError,
    OsaiJobFailed,
    OsaiJobLost,
    OsaiRequestError,
    OsaiUnreachable,
)
from airflow_provider_osai.api.models import Job, JobKind
from airflow_provider_osai.api.overrides import apply_overrides
from airflow_provider_osai.jobs.device_release import CANCEL_DELAYS, release
from airflow_provider_osai.jobs.lifecycle import WaitOptions, raise_for_state, wait

KIND = JobKind.DEVICE_RENTAL
GET, LIST, CANCEL = (f"{KIND}.{name}" for name in ("get", "list", "cancel"))
GONE = OsaiRequestError(404, "GET", "/DeviceRentals/7", "")


def lease(word: str, **fields) -> Job:
    """Rental 7, taken under r."""
    state = Contract().state(word)
    document = {"id": "7", "reference": "r", "kind": KIND, "state": state, "status": word, **fields}
    return Job.model_validate(document)


ACTIVE = lease("running", result={"deviceId": "d", "expiresAt": "at noon"})


class TestWaiting:
    """Until the device is ready."""

    def watch(self, client):
        return WaitOptions(since=client.now, clock=client.clock, wait_for_ready=True)

    def test_a_wait_ends_when_the_lease_runs_and_names_a_device(self, client, calls):
        """Queued is not enough, nor is running without a device."""
        client.answers = {GET: [lease("queued"), lease("running"), ACTIVE]}
        assert client.run(wait(calls, KIND, "7", self.watch(client))) == ACTIVE
        assert len(client.sent) == 3

    def test_a_wait_ends_when_the_lease_is_over(self, client, calls):
        """There is no device to come."""
        client.answers = {GET: [lease("succeeded", result={"deviceId": "d"})]}
        job = client.run(wait(calls, KIND, "7", self.watch(client)))
        with pytest.raises(OsaiJobFailed, match="ended before the device was used"):
            raise_for_state(job, wait_for_ready=True)

    def test_success_is_a_lease_that_runs(self):
        """And nothing less."""
        assert raise_for_state(ACTIVE, wait_for_ready=True) is ACTIVE
        with pytest.raises(OsaiJobLost):
            raise_for_state(lease("running"), wait_for_ready=True)
        with pytest.raises(OsaiJobLost):
            raise_for_state(ACTIVE)

    def test_what_is_handed_on_says_until_when(self):
        """If OSAI says so."""
        assert ACTIVE.references() | {"device_id": "d", "expires_at": "at noon"} == ACTIVE.references()


class TestRelease:
    """Whatever there is to end."""

    def released(self, client, job_id="7", reference="r"):
        self.notes = []
        return release(client, job_id, reference, self.notes.append)

    def test_a_lease_is_ended_and_seen_to_be_over(self, client):
        """By its id and by its reference it is one."""
        client.answers = {LIST: [[ACTIVE]], GET: [ACTIVE, ACTIVE, lease("cancelled")], CANCEL: [None]}
        assert self.released(client) == ["7"]
        assert client.sent == [LIST, GET, CANCEL, GET, CANCEL, GET]

    def test_all_leases_under_the_reference_are_ended(self, client):
        """Also one that nobody knew of."""
        over = lease("cancelled")
        client.answers = {LIST: [[lease("queued", id="8"), ACTIVE]], GET: [ACTIVE, over, ACTIVE, over], CANCEL: [None]}
        assert self.released(client, job_id=None) == ["8", "7"]

    @pytest.mark.parametrize("word", ["succeeded", "cancelled", "failed"])
    def test_one_that_is_over_is_left_alone(self, client, word):
        """Twice is harmless."""
        client.answers = {LIST: [[lease(word)]], GET: [lease(word)]}
        assert self.released(client) == []
        assert "has already ended" in self.notes[0]

    def test_never_rented_is_nothing_to_release(self, client):
        """The setup may not have got that far; OSAI is not even asked."""
        assert self.released(client, None, None) == []
        assert "No device was rented" in self.notes[0]

    def test_one_that_osai_does_not_know_is_looked_for_again_first(self, client):
        """It may be slow to show what was rented a moment ago."""
        client.answers = {LIST: [[]], GET: [GONE, GONE, ACTIVE, lease("cancelled")], CANCEL: [None]}
        assert self.released(client) == ["7"]

    def test_one_that_stays_unknown_is_nothing_to_release(self, client):
        """Ten seconds later."""
        client.answers = {LIST: [[]], GET: [GONE]}
        assert self.released(client) == []
        assert sum(client.slept) == 10.0

    def test_one_that_is_listed_is_ended_even_if_osai_does_not_know_its_id(self, client):
        """Two answers that cannot both be true: better ended twice than not at all."""
        client.answers = {LIST: [[ACTIVE]], GET: [GONE], CANCEL: [None]}
        assert self.released(client) == ["7"]

    def test_a_list_may_lag_when_nothing_else_is_known(self, client):
        """Ten seconds, as for a retry of the rent."""
        client.answers = {LIST: [[], [], [ACTIVE]], GET: [ACTIVE, lease("cancelled")], CANCEL: [None]}
        assert self.released(client, job_id=None) == ["7"]

    def test_one_that_goes_on_is_an_error(self, client):
        """After a minute in which it was told again and again."""
        client.answers = {LIST: [[ACTIVE]], GET: [ACTIVE], CANCEL: [None]}
        with pytest.raises(OsaiJobLost, match="cancelled, but still running"):
            self.released(client)
        assert client.slept == list(CANCEL_DELAYS)

    def test_an_outage_is_an_error(self, client):
        """Which a retry of the task mends."""
        client.answers = {LIST: [[ACTIVE]], GET: [ACTIVE], CANCEL: [OsaiUnreachable("down")]}
        with pytest.raises(OsaiUnreachable):
            self.released(client)

    def test_an_osai_that_cannot_end_a_lease_says_when_it_ends_by_itself(self, client):
        """In the error that the user reads."""
        client.calls = OsaiApi(apply_overrides(Contract(), {CANCEL: None}))
        client.answers = {LIST: [[ACTIVE]], GET: [ACTIVE]}
        with pytest.raises(OsaiContractError, match="ends by itself at at noon"):
            self.released(client)

    def test_an_osai_that_lists_nothing_releases_by_id(self, client):
        """And by nothing else: who has only a reference must look into the portal."""
        client.calls = OsaiApi(apply_overrides(Contract(), {LIST: None}))
        client.answers = {GET: [ACTIVE, lease("cancelled")], CANCEL: [None]}
        assert self.released(client) == ["7"]
        with pytest.raises(OsaiContractError, match="It is unknown whether"):
            self.released(client, job_id=None)
