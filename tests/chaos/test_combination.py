"""The judge of the combination matrix, and its random plans; ``make chaos`` runs the matrix itself."""

from __future__ import annotations

import pytest

from tests.chaos.combination import KINDS, Facts, JobFacts, global_part, judge, planned

DONE = JobFacts("a", "key-1", "succeeded", created=10.0, finished=30.0)
CANCELLED = JobFacts("b", "key-2", "cancelled", created=40.0, finished=50.0)
LIVING = JobFacts("c", "key-3", "running", created=60.0, finished=None)
GOOD = {"state": "success", "try_number": 1, "max_tries": 4, "result": "a"}


def test_a_task_with_one_job_that_succeeded_is_right():
    assert not judge(Facts(**GOOD), [DONE])


@pytest.mark.parametrize(
    ("facts", "jobs", "wrong"),
    [
        ({}, [LIVING], "left_running"),
        ({}, [CANCELLED], "cancelled_wrongly"),
        ({"cancel_from": 55.0}, [CANCELLED], "cancelled_wrongly"),
        ({}, [JobFacts("d", "key-1", "succeeded", 20.0, 35.0)], "doubled"),
        ({"state": "failed", "result": None}, [], "lost"),
        ({"ended": False, "state": "deferred", "result": None}, [], "lost"),
        ({"fresh_after": 35.0, "renewals": 1}, [], "wrong_result"),
        ({"result": "gone"}, [], "wrong_result"),
    ],
)
def test_what_must_not_be_is_counted(facts, jobs, wrong):
    assert judge(Facts(**{**GOOD, **facts}), [DONE, *jobs]) == {wrong: 1}


@pytest.mark.parametrize(
    ("facts", "jobs"),
    [
        ({"cancel_from": 45.0}, [CANCELLED]),
        ({"settled": 45.0}, [CANCELLED]),
        ({}, [JobFacts("d", "key-1", "cancelled", 11.0, 12.0)]),
        ({"renewals": 1}, [JobFacts("d", "key-2", "succeeded", 31.0, 45.0)]),
        ({"against": True, "state": "failed", "result": None}, []),
        ({"state": "failed", "try_number": 5, "result": None}, []),
    ],
)
def test_what_a_user_asked_for_is_not_counted(facts, jobs):
    assert not judge(Facts(**{**GOOD, **facts}), [DONE, *jobs])


def test_the_same_seed_draws_the_same():
    assert planned(1, 3) == planned(1, 3)
    assert planned(1, 3) != planned(2, 3)


def test_everything_is_drawn_and_few_of_what_befalls_all():
    batches = [planned(1, batch)[1] for batch in range(50)]
    assert {step.kind for plans in batches for plan in plans for step in plan.steps} == set(KINDS)
    assert {len(plan.steps) for plans in batches for plan in plans} == {2, 3}
    assert all(sum(len(global_part(plan).steps) for plan in plans) <= 4 for plans in batches)
