"""A few rows of the crash, fault and lease matrices; ``make chaos`` runs all of them."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.conftest import ROOT


def run(matrix: str, *arguments: str) -> dict:
    """Run a matrix in a separate process, since it forks and kills, and return its last line."""
    command = [sys.executable, "-m", f"tests.chaos.{matrix}", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    line = json.loads(done.stdout.splitlines()[-1])
    assert (done.returncode == 0) is not any(line[n] for n in line if n not in ("cases", "seconds")), done.stderr[
        -3000:
    ]
    return line


def test_a_killed_task_leaves_exactly_one_job_and_its_retry_the_right_result():
    """At the critical points, blocking and deferrable, with and without state or list, retried and cleared."""
    counts = run("crash", "after training.submit", "before kept", "after defer")
    assert counts.pop("cases") == 22
    counts.pop("seconds")
    assert not any(counts.values()), counts


def test_the_matrix_notices_operators_that_forget():
    """Proves that the matrix can fail."""
    assert (
        run("crash", "forget", "after training.submit")["doubled"]
        + run("crash", "forget", "after kept")["left_running"]
        > 0
    )


def test_a_killed_batch_leaves_exactly_its_jobs_and_its_retry_all_results():
    """At a few steps of each mode."""
    counts = run("batch", "40")
    assert counts.pop("cases") >= 12
    counts.pop("seconds")
    assert not any(counts.values()), counts


def test_the_matrix_notices_batches_that_forget():
    """Proves that the matrix can fail."""
    counts = run("batch", "forget", "20")
    assert counts["doubled"] + counts["left_running"] > 0


def test_a_task_that_meets_a_fault_ends_by_name_and_its_retry_with_one_job():
    """The connection breaks after OSAI has handled the request, in every mode: the typical cause of duplicate jobs."""
    counts = run("faults", "reset")
    assert counts.pop("cases") == 32
    counts.pop("seconds")
    assert not any(counts.values()), counts


def test_the_matrix_notices_a_fault_that_nobody_meets():
    """A sensor submits nothing, so this cell would always pass."""
    code = """if True:
        import json, pathlib, tempfile
        from tests.chaos import faults
        with faults.sandbox() as osai, tempfile.TemporaryDirectory() as home:
            case = faults.Case("reset", "sensor poke", "training.submit", 1)
            print(json.dumps(faults.check(osai, case, pathlib.Path(home))))
    """
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found.pop("not_met") == 1
    assert not any(found.values()), found


def test_a_device_is_given_back_wherever_its_tasks_are_killed_or_failed():
    """A fixed sample of the cells."""
    counts = run("leases", "kills", "40")
    counts |= {"cases": counts["cases"] + run("leases", "faults", "10")["cases"]}
    assert counts.pop("cases") == 50
    counts.pop("seconds")
    assert not any(counts.values()), counts


def test_the_matrix_notices_a_device_that_nobody_gives_back():
    """Proves that the matrix can fail."""
    assert run("leases", "kills", "8", "forget")["left_running"] > 0
