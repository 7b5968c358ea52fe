"""Leases: waited for until they run, and ended for good."""

from __future__ import annotations

import pytest

from airflow_provider_osai.api.calls import Calls
from airflow_provider_osai.api.contract import Contract
from airflow_provider_osai.api.errors import (
    OsaiContractError,
    OsaiJobFailed,
    OsaiJobLost,
    OsaiRequestError,
    OsaiUnreachable,
)
from airflow_provider_osai.api.models import Job, JobKind
from airflow_provider_osai.api.rebinding import rebind
from airflow_provider_osai.jobs.lease import PAUSES, release
from airflow_provider_osai.jobs.lifecycle import Watch, outcome, wait

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

    def watch(self, play):
        return Watch(since=play.now, clock=play.clock, until_ready=True)

    def test_a_wait_ends_when_the_lease_runs_and_names_a_device(self, play, calls):
        """Queued is not enough, nor is running without a device."""
        play.answers = {GET: [lease("queued"), lease("running"), ACTIVE]}
        assert play.run(wait(calls, KIND, "7", self.watch(play))) == ACTIVE
        assert len(play.sent) == 3

    def test_a_wait_ends_when_the_lease_is_over(self, play, calls):
        """There is no device to come."""
        play.answers = {GET: [lease("succeeded", result={"deviceId": "d"})]}
        job = play.run(wait(calls, KIND, "7", self.watch(play)))
        with pytest.raises(OsaiJobFailed, match="over before"):
            outcome(job, until_ready=True)

    def test_success_is_a_lease_that_runs(self):
        """And nothing less."""
        assert outcome(ACTIVE, until_ready=True) is ACTIVE
        with pytest.raises(OsaiJobLost):
            outcome(lease("running"), until_ready=True)
        with pytest.raises(OsaiJobLost):
            outcome(ACTIVE)

    def test_what_is_handed_on_says_until_when(self):
        """If OSAI says so."""
        assert ACTIVE.references() | {"device_id": "d", "expires_at": "at noon"} == ACTIVE.references()


class TestRelease:
    """Whatever there is to end."""

    def released(self, play, calls, job_id="7", reference="r"):
        self.notes = []
        return play.run(release(calls, job_id, reference, self.notes.append))

    def test_a_lease_is_ended_and_seen_to_be_over(self, play, calls):
        """By its id and by its reference it is one."""
        play.answers = {LIST: [[ACTIVE]], GET: [ACTIVE, ACTIVE, lease("cancelled")], CANCEL: [None]}
        assert self.released(play, calls) == ["7"]
        assert play.sent == [LIST, GET, CANCEL, GET, CANCEL, GET]

    def test_all_leases_under_the_reference_are_ended(self, play, calls):
        """Also one that nobody knew of."""
        over = lease("cancelled")
        play.answers = {LIST: [[lease("queued", id="8"), ACTIVE]], GET: [ACTIVE, over, ACTIVE, over], CANCEL: [None]}
        assert self.released(play, calls, job_id=None) == ["8", "7"]

    @pytest.mark.parametrize("word", ["succeeded", "cancelled", "failed"])
    def test_one_that_is_over_is_left_alone(self, play, calls, word):
        """Twice is harmless."""
        play.answers = {LIST: [[lease(word)]], GET: [lease(word)]}
        assert self.released(play, calls) == []
        assert "over already" in self.notes[0]

    def test_never_rented_is_nothing_to_release(self, play, calls):
        """The setup may not have got that far; OSAI is not even asked."""
        assert self.released(play, calls, None, None) == []
        assert "No device was rented" in self.notes[0]

    def test_one_that_osai_does_not_know_is_looked_for_again_first(self, play, calls):
        """It may be slow to show what was rented a moment ago."""
        play.answers = {LIST: [[]], GET: [GONE, GONE, ACTIVE, lease("cancelled")], CANCEL: [None]}
        assert self.released(play, calls) == ["7"]

    def test_one_that_stays_unknown_is_nothing_to_release(self, play, calls):
        """Ten seconds later."""
        play.answers = {LIST: [[]], GET: [GONE]}
        assert self.released(play, calls) == []
        assert sum(play.slept) == 10.0

    def test_one_that_is_listed_is_ended_even_if_osai_does_not_know_its_id(self, play, calls):
        """Two answers that cannot both be true: better ended twice than not at all."""
        play.answers = {LIST: [[ACTIVE]], GET: [GONE], CANCEL: [None]}
        assert self.released(play, calls) == ["7"]

    def test_a_list_may_lag_when_nothing_else_is_known(self, play, calls):
        """Ten seconds, as for a retry of the rent."""
        play.answers = {LIST: [[], [], [ACTIVE]], GET: [ACTIVE, lease("cancelled")], CANCEL: [None]}
        assert self.released(play, calls, job_id=None) == ["7"]

    def test_one_that_goes_on_is_an_error(self, play, calls):
        """After a minute in which it was told again and again."""
        play.answers = {LIST: [[ACTIVE]], GET: [ACTIVE], CANCEL: [None]}
        with pytest.raises(OsaiJobLost, match="told to end and is still running"):
            self.released(play, calls)
        assert play.slept == list(PAUSES)

    def test_an_outage_is_an_error(self, play, calls):
        """Which a retry of the task mends."""
        play.answers = {LIST: [[ACTIVE]], GET: [ACTIVE], CANCEL: [OsaiUnreachable("down")]}
        with pytest.raises(OsaiUnreachable):
            self.released(play, calls)

    def test_an_osai_that_cannot_end_a_lease_says_when_it_ends_by_itself(self, play):
        """In the error that the user reads."""
        calls = Calls(rebind(Contract(), {CANCEL: None}))
        play.answers = {LIST: [[ACTIVE]], GET: [ACTIVE]}
        with pytest.raises(OsaiContractError, match="ends by itself at at noon"):
            self.released(play, calls)

    def test_an_osai_that_lists_nothing_releases_by_id(self, play):
        """And by nothing else: who has only a reference must look into the portal."""
        calls = Calls(rebind(Contract(), {LIST: None}))
        play.answers = {GET: [ACTIVE, lease("cancelled")], CANCEL: [None]}
        assert self.released(play, calls) == ["7"]
        with pytest.raises(OsaiContractError, match="cannot be told"):
            self.released(play, calls, job_id=None)
