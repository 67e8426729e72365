"""Training runs in the background: one thread each, so many at once, in order of their worth.

Run: ``setsid python -m aevb.experiments.reproduction.queue --data_root FOLDER --workers 2``. A
second call goes on where the first ended; ``RUNS/queue.log`` says what ran when, and for how long.
"""

import argparse
import os
import threading
import time
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from aevb.experiments.reproduction.catalog import experiments
from aevb.experiments.reproduction.experiment import BUDGETS, BudgetName, Training
from aevb.experiments.reproduction.trainings import InterruptedTrainingError, state, train

__all__ = ["main", "pending"]


def main() -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "names", nargs="*", help="experiments or training runs, the most valuable first"
    )
    parser.add_argument("--budget", default="full", choices=BUDGETS)
    parser.add_argument("--data_root", type=Path)
    parser.add_argument("--runs", type=Path, default=Path("runs/reproduce"))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--nice", type=int, default=19)
    settings = parser.parse_args()
    runs = (settings.runs / settings.budget).resolve()
    runs.mkdir(parents=True, exist_ok=True)
    if os.getsid(0) == os.getpid():  # started by setsid: a group of its own for the scheduler,
        with suppress(OSError):  # which compares groups first and `nice` within each
            Path("/proc/self/autogroup").write_text(str(settings.nice))
    left = pending(settings.names, settings.budget, runs)
    lock = threading.Lock()

    def work() -> None:
        while True:
            with lock:
                if not left:
                    return
                training = left.pop(0)
            began = time.monotonic()
            try:
                train(training, runs, settings.data_root, threads=1, nice=settings.nice)
                outcome = "done"
            except InterruptedTrainingError as error:
                outcome = str(error)
            _log(runs / "queue.log", training, time.monotonic() - began, outcome)

    workers = [threading.Thread(target=work) for _ in range(settings.workers)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


def pending(names: list[str], budget: BudgetName, runs: Path) -> list[Training]:
    """Trainings that are not done, each once, in the order of experiments and of their lists.

    Args:
        names: Of experiments or of single trainings; all experiments where there are none.
        budget: Whose trainings.
        runs: Where run folders are.

    Raises:
        KeyError: If a name is neither.
    """
    groups = {name: each.budgets[budget].trainings for name, each in experiments().items()}
    single = {training.name: (training,) for group in groups.values() for training in group}
    found: dict[str, Training] = {}
    for name in names or groups:
        for training in groups[name] if name in groups else single[name]:
            found.setdefault(training.name, training)
    return [training for training in found.values() if not state(training, runs).is_done]


def _log(path: Path, training: Training, seconds: float, outcome: str) -> None:
    with path.open("a") as file:
        file.write(
            f"{datetime.now():%Y-%m-%d %H:%M:%S} {training.name} {seconds:.0f} s {outcome}\n"
        )


if __name__ == "__main__":
    main()
