"""Runs handed to submitit: processes of this machine, or jobs of a Slurm cluster."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from passgrad.errors import UserError
from passgrad_book.build.sweep.file import Executor
from passgrad_book.build.sweep.job import Job, execute

# Seconds between two looks at the jobs.
_PAUSE = 0.2


def check(executor: Executor, name: str) -> None:
    """Whether runs can be handed over at all; ``name`` of the sweep file, for the message.

    :raises UserError: Slurm where there is no ``sbatch``.
    """
    if executor.kind == "slurm" and shutil.which("sbatch") is None:
        raise UserError(
            f"{name}: executor.kind: slurm needs sbatch, which is not on this machine; "
            "run this on a login node of the cluster, or use local (--executor local)"
        )


def run_jobs(
    jobs: Sequence[Job], executor: Executor, logs: Path, name: str
) -> Iterator[tuple[Job, str | None]]:
    """Each job when it has ended, with the reason where it failed.

    At most ``executor.jobs`` run at a time. Jobs of this machine are stopped when the caller is;
    those of Slurm go on, and a later call finds what they have done.
    """
    backend = _backend(executor, logs, name)
    local = executor.kind == "local"
    waiting, running = deque(jobs), dict[Job, Any]()
    if not local:
        with backend.batch():
            submitted = [(job, backend.submit(execute, job)) for job in waiting]
        waiting.clear()
        running = dict(submitted)
    try:
        while waiting or running:
            while waiting and len(running) < executor.jobs:
                job = waiting.popleft()
                with _stderr_in(logs / "controllers.txt") if local else nullcontext():
                    running[job] = backend.submit(execute, job)
            ended = [job for job, handle in running.items() if handle.done()]
            for job in ended:
                yield job, _outcome(running.pop(job), local)
            if not ended:
                time.sleep(_PAUSE if local else 5.0)
    finally:
        if local:
            for handle in running.values():
                handle.cancel(check=False)


@contextmanager
def _stderr_in(file: Path) -> Iterator[None]:
    """Processes that are started here write their errors to a file: an interrupt goes to those of
    submitit as well, and each would show a traceback.
    """
    before = os.dup(2)
    try:
        with file.open("ab") as log:
            os.dup2(log.fileno(), 2)
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)


def threads_for(executor: Executor) -> int | None:
    """Threads of one run where several share this machine; None leaves it to the libraries."""
    if executor.cpus is not None:
        return executor.cpus
    if executor.kind == "slurm" or executor.jobs == 1:
        return None
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    return max(1, cores // executor.jobs)


def slurm_parameters(executor: Executor, name: str) -> dict[str, Any]:
    """The options of a Slurm job in the words of submitit's ``AutoExecutor``."""
    extra = {"account": executor.account, "qos": executor.qos, **executor.options}
    asked = {
        "name": name,
        "timeout_min": executor.minutes,
        "nodes": executor.nodes,
        "tasks_per_node": 1,
        "cpus_per_task": executor.cpus,
        "gpus_per_node": executor.gpus or None,
        "mem_gb": executor.memory_gb,
        "slurm_partition": executor.partition,
        "slurm_array_parallelism": executor.jobs,
        "slurm_setup": executor.setup or None,
        "slurm_additional_parameters": {k: v for k, v in extra.items() if v is not None} or None,
    }
    return {key: value for key, value in asked.items() if value is not None}


def _backend(executor: Executor, logs: Path, name: str) -> Any:
    try:
        import submitit
    except ImportError:
        raise UserError("submitit is not installed in this environment; run make env") from None
    logging.getLogger("submitit").setLevel(logging.WARNING)
    logs.mkdir(parents=True, exist_ok=True)
    made = submitit.AutoExecutor(folder=logs, cluster=executor.kind)
    if executor.kind == "slurm":
        made.update_parameters(**slurm_parameters(executor, name))
    else:
        made.update_parameters(timeout_min=executor.minutes, gpus_per_node=executor.gpus)
    return made


def _outcome(handle: Any, local: bool) -> str | None:
    """What a job that ended returned, or why it returned nothing."""
    lost = "the process ended without a result: killed, or out of memory or time"
    # Without this, submitit waits a while for the file of a job that cannot write it any more.
    if local and not handle.paths.result_pickle.exists():
        return lost
    error = handle.exception()
    if error is None:
        return handle.result()
    if type(error).__name__ == "UncompletedJobError":
        return lost
    lines = [line.strip() for line in str(error).splitlines()]
    # The last line of the traceback, which submitit puts between rules.
    rules = [place for place, line in enumerate(lines) if line and not line.strip("-")]
    inside = [line for line in lines[rules[0] : rules[-1]] if line.strip("-")] if rules else lines
    return inside[-1] if inside else lost
