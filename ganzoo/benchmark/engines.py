"""Where a sweep's tasks run: in this process, in several of this machine, or on a Ray cluster."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context

from ..errors import PluginError, RunFailed, did_you_mean
from .work import Done, Task, perform

Engine = Callable[[Sequence[Task], int], Iterator[tuple[Task, Done]]]
RETRIES = 3  # how often a task whose worker died is done again


def local(tasks: Sequence[Task], workers: int) -> Iterator[tuple[Task, Done]]:
    """Do the tasks here, one after the other, or in so many processes; those of a process that dies are done again."""
    if workers <= 1:
        for task in tasks:
            yield task, perform(task)
        return
    left = dict(enumerate(tasks))
    for _ in range(RETRIES + 1):
        with ProcessPoolExecutor(min(workers, len(left) or 1), mp_context=get_context("spawn")) as pool:
            running = {pool.submit(perform, task): number for number, task in left.items()}
            try:
                for future in as_completed(running):
                    done = future.result()
                    yield left.pop(running[future]), done
            except BrokenProcessPool:
                continue
        if not left:
            return
    for task in left.values():
        yield (
            task,
            Done(task.label, 0.0, error=f"{task.label} killed its process {RETRIES + 1} times; look for lack of memory"),
        )


def ray(tasks: Sequence[Task], workers: int) -> Iterator[tuple[Task, Done]]:
    """Do the tasks on the Ray cluster that is there, or on one of this machine; Ray repeats those of a worker that dies.

    All workers must see the folder of the board under the same path.
    """
    if importlib.util.find_spec("ray") is None:
        raise PluginError("the engine 'ray' needs Ray; run: pip install 'ganzoo-toolkit[ray]'")
    import ray as cluster

    mine = not cluster.is_initialized()
    if mine:
        cluster.init(num_cpus=workers or None, log_to_driver=False, include_dashboard=False, ignore_reinit_error=True)
    try:
        remote = cluster.remote(num_cpus=1, max_retries=RETRIES)(perform)
        running = {remote.remote(task): task for task in tasks}
        while running:
            ready, _ = cluster.wait(list(running), num_returns=1)
            task = running.pop(ready[0])
            try:
                yield task, cluster.get(ready[0])
            except cluster.exceptions.RayError as error:
                reason = str(error).splitlines()[0]
                yield task, Done(task.label, 0.0, error=f"{task.label} failed on the cluster ({reason})")
    finally:
        if mine:
            cluster.shutdown()


ENGINES: Mapping[str, Engine] = {"local": local, "ray": ray}


def engine(name: str) -> Engine:
    """Return an engine by name; RunFailed's sentence suggests the closest."""
    if name not in ENGINES:
        raise RunFailed(f"there is no engine {name!r}{did_you_mean(name, ENGINES)} (there are: {', '.join(ENGINES)})")
    return ENGINES[name]
