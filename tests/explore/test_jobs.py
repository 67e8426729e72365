"""One thread for everything: order, stopping, failures."""

import threading
import time
from collections.abc import Generator
from typing import Any

import pytest

from aevb.explore.jobs import Job, Worker

Steps = Generator[dict[str, Any], None, None]


def until(job: Job, state: str) -> Job:
    end = time.monotonic() + 10
    while job.state != state and time.monotonic() < end:
        time.sleep(0.005)
    assert job.state == state
    return job


@pytest.fixture(name="worker")
def fixture_worker() -> Any:
    worker = Worker()
    yield worker
    worker.close(wait=False)


def test_calls_never_overlap_and_come_between_the_steps_of_a_job(worker: Worker) -> None:
    inside, most, order = 0, 0, []

    def work(name: str) -> None:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        time.sleep(0.002)
        order.append(name)
        inside -= 1

    def steps() -> Steps:
        for number in range(10):
            work("step")
            yield {"share": number / 10}

    job = worker.start("job", steps)
    answers = []
    askers = [
        threading.Thread(target=lambda: answers.append(worker.call(lambda: work("call"))))
        for _ in range(8)
    ]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    for answer in answers:
        answer.result(timeout=10)
    until(job, "done")
    assert most == 1
    assert order.count("call") == 8
    assert order.count("step") == 10
    assert "step" in order[order.index("call") + 1 :]  # they did not wait for the job


def test_a_job_is_stopped_between_two_steps_and_cleans_up(worker: Worker) -> None:
    closed = threading.Event()

    def endless() -> Steps:
        try:
            while True:
                yield {"share": 0.5}
        finally:
            closed.set()

    job = worker.start("endless", endless)
    assert worker.start("endless", endless) is job
    while not job.result:  # what has not begun has nothing to clean up
        time.sleep(0.001)
    worker.stop(job)
    until(job, "cancelled")
    assert closed.wait(5)
    assert worker.start("endless", endless) is not job
    worker.stop(worker.job("endless"))  # type: ignore[arg-type]


def test_the_newest_job_goes_first(worker: Worker) -> None:
    def endless() -> Steps:
        while True:
            time.sleep(0.001)
            yield {"share": 0.5}

    old = worker.start("old", endless)
    new = worker.start("new", lambda: ({"share": n / 3} for n in (1, 2, 3)))
    until(new, "done")
    assert old.state == "running"
    worker.stop(old)
    until(old, "cancelled")


def test_refusals_are_told_and_other_errors_are_not(
    worker: Worker, capfd: pytest.CaptureFixture[str]
) -> None:
    def failing(error: Exception) -> Steps:
        yield {"share": 0.0}
        raise error

    told = worker.start("a", lambda: failing(ValueError("chains: too few\nsecond line")))
    until(told, "failed")
    assert told.error == "chains: too few"
    hidden = worker.start("b", lambda: failing(RuntimeError("/home/secret")))
    until(hidden, "failed")
    assert "secret" not in str(hidden.seen())
    assert "/home/secret" in capfd.readouterr().err
    with pytest.raises(KeyError):
        worker.call(lambda: {}["no"]).result(5)
    assert worker.call(lambda: 1).result(5) == 1


def test_too_many_jobs_at_once_are_refused(worker: Worker) -> None:
    def endless() -> Steps:
        while True:
            time.sleep(0.001)
            yield {}

    jobs = [worker.start(str(number), endless) for number in range(8)]
    with pytest.raises(ValueError, match="stop one first"):
        worker.start("9", endless)
    for job in jobs:
        worker.stop(job)
    for job in jobs:
        until(job, "cancelled")
