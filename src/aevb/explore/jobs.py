"""One thread that computes, whatever is asked at the same time.

Pyro's handlers and torch's random state belong to the process, so that two computations at once
would disturb each other. Short questions go before jobs, which are cut into steps and can be
stopped between them.
"""

import threading
import traceback
from collections import OrderedDict, deque
from collections.abc import Callable, Generator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Job", "Worker"]

# Jobs that are remembered, and those that may be under way at once.
_KEPT, _UNDER_WAY = 64, 8


@dataclass(eq=False)
class Job:
    """A computation in steps.

    Attributes:
        name: What it computes; another of the same name is the same job while it is under way.
        steps: Its steps; each yields what is known after it, with ``share`` of the work done.
        state: ``"running"``, ``"done"``, ``"cancelled"`` or ``"failed"``.
        result: What the last step yielded.
        error: Why it failed, in a line.
    """

    name: str
    steps: Generator[dict[str, Any], None, None]
    state: str = "running"
    result: dict[str, Any] = field(default_factory=dict)
    error: str | None = None
    stop: bool = False

    def seen(self) -> dict[str, Any]:
        """As JSON-able values."""
        return {"name": self.name, "state": self.state, "error": self.error, **self.result}


class Worker:
    """The thread. It ends with the process, or by :meth:`close`.

    Example:
        >>> worker = Worker()
        >>> worker.call(lambda: 6 * 7).result()
        42
        >>> job = worker.start("count", lambda: ({"share": n / 2} for n in (1, 2)))
        >>> worker.close()
        >>> job.state, job.result
        ('done', {'share': 1.0})
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._calls: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._under_way: list[Job] = []
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="aevb-explore", daemon=True)
        self._thread.start()

    def call(self, function: Callable[[], Any]) -> Future[Any]:
        """Compute something short, before all jobs."""
        answer: Future[Any] = Future()
        with self._changed:
            self._calls.append((function, answer))
            self._changed.notify()
        return answer

    def start(self, name: str, make: Callable[[], Generator[dict[str, Any], None, None]]) -> Job:
        """Begin a job, before those that are under way, unless it is one of them.

        Raises:
            ValueError: If too many are under way.
        """
        with self._changed:
            known = self._jobs.get(name)
            if known in self._under_way and known is not None and not known.stop:
                return known
            if len(self._under_way) >= _UNDER_WAY:
                raise ValueError(f"{_UNDER_WAY} computations are under way: stop one first")
            job = self._jobs[name] = Job(name, make())
            self._jobs.move_to_end(name)
            while len(self._jobs) > _KEPT + _UNDER_WAY:
                self._jobs.popitem(last=False)
            self._under_way.append(job)
            self._changed.notify()
            return job

    def job(self, name: str) -> Job | None:
        """A job by its name."""
        with self._changed:
            return self._jobs.get(name)

    def stop(self, job: Job) -> None:
        """Ask a job to end after the step that it is at."""
        with self._changed:
            job.stop = True
            self._changed.notify()

    def close(self, *, wait: bool = True) -> None:
        """End the thread, once all is done, or at once after the step that it is at."""
        with self._changed:
            self._closing = True
            if not wait:
                for job in self._under_way:
                    job.stop = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not (self._calls or self._under_way or self._closing):
                    self._changed.wait()
                call = self._calls.popleft() if self._calls else None
                job = self._under_way[-1] if self._under_way and call is None else None
            if call is not None:
                _answer(*call)
            elif job is not None:
                if self._step(job):
                    with self._changed:
                        self._under_way.remove(job)
            else:
                return

    def _step(self, job: Job) -> bool:
        """Whether the job is over after one more step."""
        try:
            if job.stop:
                job.state = "cancelled"
                job.steps.close()
            else:
                job.result = next(job.steps)
        except StopIteration:
            job.state = "done"
        except (ValueError, NotImplementedError) as error:  # refusals that name the remedy
            first, *_ = str(error).splitlines() or [type(error).__name__]
            job.state, job.error = "failed", first
        except Exception:
            traceback.print_exc()  # for who started the server, and not for the page
            job.state, job.error = "failed", "failed: the terminal of aevb explore says why"
        return job.state != "running"


def _answer(function: Callable[[], Any], answer: Future[Any]) -> None:
    try:
        answer.set_result(function())
    except BaseException as error:
        answer.set_exception(error)
