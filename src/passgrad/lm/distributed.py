"""Several processes as one: what they tell each other, and how all of them end when one fails.

They are started by torchrun (``python -m torch.distributed.run``) and find each other in what it
leaves in the environment. Numbers and messages go over gloo, and vectors on GPUs over NCCL. One
process by itself is the same with nobody to tell.

Every exchange begins with a meeting in which each process says whether it got there. So an error in
one is raised in all, at the same place, and a process that has ended or hangs is named.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, Protocol, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from passgrad.errors import UserError

T = TypeVar("T")

#: how long a process waits for the others
LIMIT: Final = timedelta(minutes=30)

_KEY = "passgrad/error"
# What gloo and NCCL say when the other end is gone.
_GONE = re.compile(r"gloo|nccl|connection (closed|reset|refused)|timed out", re.I)
_NAMED = re.compile(r"ranks? ([\d, ]+?) failed to pass", re.I)
_LAUNCHER = re.compile(
    r"(LOCAL_|GROUP_|ROLE_)?(RANK|WORLD_SIZE)|ROLE_NAME|MASTER_(ADDR|PORT)|TORCHELASTIC_\w+"
)


class RemoteError(UserError, RuntimeError):
    """Another process failed; the message is its own, and so is what more there is to see."""


class _Store(Protocol):
    """The keys that all processes see (``torch.distributed.Store``)."""

    def set(self, key: str, value: str) -> None: ...
    def get(self, key: str) -> bytes: ...
    def check(self, keys: list[str]) -> bool: ...


@dataclass(frozen=True, eq=False)
class Processes:
    """The processes that work together, seen from one of them; by default it is alone.

    :param rank: The number of this one, of ``size``.
    :param device: Where this one computes.
    :param limit: How long it waits for the others.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    limit: timedelta = LIMIT
    control: Any = None
    """The gloo group of numbers and messages."""
    store: _Store | None = None

    @property
    def is_main(self) -> bool:
        """Whether this is the one that writes files and speaks."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> list[T]:
        """Which of these are for this process: every ``size``-th."""
        return list(items)[self.rank :: self.size]

    @contextmanager
    def together(self, limit: timedelta | None = None) -> Iterator[None]:
        """What every process does by itself; behind it all have done it, or all raise.

        :param limit: How long one that is done waits for the others, instead of the usual.
        :raises UserError: Where another process raised one, or has ended.
        :raises RemoteError: Where another process raised something else.
        """
        try:
            yield
        except Exception as error:
            if self.size > 1 and not _told(error):
                # Theirs does not hide one's own.
                with suppress(UserError, RemoteError):
                    self._meet(error, limit)
                error.__dict__[_KEY] = True
            raise
        self._meet(limit=limit)

    @contextmanager
    def in_step(self) -> Iterator[None]:
        """What all processes do call by call, as forward passes of a model that is sharded.

        Nobody can be met in the midst of that, so a process that fails leaves: its connections end,
        and the others find out why.

        :raises UserError, RemoteError: As :meth:`together`.
        """
        try:
            yield
        except Exception as error:
            if self.size == 1 or _told(error):
                raise
            if any(isinstance(e, RuntimeError) and _GONE.search(str(e)) for e in _chain(error)):
                raise _marked(self._heard() or self._lost(error)) from error
            self._tell(error)
            dist.destroy_process_group()
            error.__dict__[_KEY] = True
            raise

    def barrier(self, limit: timedelta | None = None) -> None:
        """Wait until all are here, or have failed.

        :raises UserError, RemoteError: As :meth:`together`.
        """
        self._meet(limit=limit)

    def add(self, tensor: Tensor) -> Tensor:
        """The sum over the processes, in place: one all-reduce."""
        if self.size > 1:
            self._meet()
            group = self.control if tensor.device.type == "cpu" else None
            with self._reached():
                dist.all_reduce(tensor, group=group)
        return tensor

    def gather(self, value: T) -> list[T]:
        """The values of all processes, in the order of their ranks."""
        if self.size == 1:
            return [value]
        self._meet()
        values: list[Any] = [None] * self.size
        with self._reached():
            dist.all_gather_object(values, value, group=self.control)
        return values

    def agree(self, value: float) -> float:
        """The value that the first process has."""
        if self.size == 1:
            return float(value)
        self._meet()
        told = torch.tensor(float(value), dtype=torch.float64)
        with self._reached():
            dist.broadcast(told, 0, group=self.control)
        return float(told)

    def from_main(self, function: Callable[[], T]) -> T:
        """What ``function`` returns in the first process, the only one that calls it."""
        if self.size == 1:
            return function()
        values: list[Any] = [None]
        with self.together():
            if self.is_main:
                values = [function()]
        with self._reached():
            dist.broadcast_object_list(values, 0, group=self.control)
        return values[0]  # type: ignore[no-any-return]

    def _meet(self, error: Exception | None = None, limit: timedelta | None = None) -> None:
        if self.size == 1:
            return
        if not dist.is_initialized():
            raise UserError("this process has left the others after an error: start all again")
        patience = limit or self.limit
        # The others wait for the first one, which may come as late as it may wait for them.
        if not self.is_main:
            patience *= 2
        failed = torch.tensor(int(error is not None))
        told: list[Any] = [None] * self.size
        with self._reached(patience):
            dist.monitored_barrier(self.control, timeout=patience, wait_all_ranks=True)
            dist.all_reduce(failed, dist.ReduceOp.MAX, group=self.control)
            if failed:
                own = None if error is None else _packed(error, self.rank)
                dist.all_gather_object(told, own, group=self.control)
        first = next((one for one in told if one is not None), None)
        if first is not None:
            raise _marked(_unpacked(first))

    @contextmanager
    def _reached(self, patience: timedelta | None = None) -> Iterator[None]:
        """Within it, a failure of the connections is a UserError that names who is gone."""
        begun = time.monotonic()
        try:
            yield
        except RuntimeError as error:
            waited = patience and time.monotonic() - begun > 0.9 * patience.total_seconds()
            # Those who leave the midst of a pass say why before they do.
            heard = self._heard(1 if _NAMED.search(str(error)) else 10)
            raise _marked(heard or self._lost(error, patience if waited else None)) from error

    def _lost(self, error: Exception, waited: timedelta | None = None) -> UserError:
        found = _NAMED.search(str(error))
        blamed = found or re.search(r"from rank (\d+)", str(error))
        if blamed:
            who = f"process {blamed[1]} of {self.size}"
        else:
            who = "another process" if self.size > 2 else f"process {1 - self.rank} of {self.size}"
        what = f"did not answer for {waited.total_seconds():g} s" if waited else "has ended"
        made = UserError(
            f"{who} {what}: see what it said last, then start all again with --resume (resume=True)"
        )
        if found:
            self._tell(made)
        return made

    def _tell(self, error: Exception) -> None:
        if self.store is not None:
            with suppress(RuntimeError):
                self.store.set(_KEY, _packed(error, self.rank))

    def _heard(self, turns: int = 10) -> Exception | None:
        """Why another process left, if it has said so."""
        if self.store is None:
            return None
        with suppress(RuntimeError):
            for turn in range(turns):
                if turn:
                    time.sleep(0.1)
                if self.store.check([_KEY]):
                    return _unpacked(self.store.get(_KEY).decode())
        return None


@contextmanager
def processes(limit: timedelta = LIMIT, device: str | None = None) -> Iterator[Processes]:
    """The processes that torchrun started, or the one that there is.

    Joins them if that has not been done, and leaves them at the end if it has joined. An error in
    one ends the ``with`` block of all.

    :param device: Where they compute: "cuda", a GPU for each, which is the default where there are
        some, "cpu", or "cuda:1", say, for one process alone.
    :raises UserError: If the environment of torchrun is incomplete, the others are not found within
        ``limit``, there are fewer GPUs than processes, or there is no such device.
    """
    several = int(os.environ.get("WORLD_SIZE") or 1) > 1
    together = dist.is_available() and (several or dist.is_initialized())
    place = _device(device, together)
    if not together:
        yield Processes(limit=limit, device=place)
        return
    begun = not dist.is_initialized()
    store = _join(place, limit) if begun else None
    made = Processes(
        rank=dist.get_rank(), size=dist.get_world_size(), device=place, limit=limit,
        control=dist.new_group(backend="gloo", timeout=limit), store=store,
    )  # fmt: skip
    try:
        with made.together():
            yield made
    finally:
        if begun and dist.is_initialized():
            dist.destroy_process_group()


def without_launcher(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment for a program that is to run by itself, on the GPU of this process: without
    what torchrun says of the others.
    """
    made = {k: v for k, v in environment.items() if not _LAUNCHER.fullmatch(k)}
    if "LOCAL_RANK" in environment and torch.cuda.is_available():
        seen = environment.get("CUDA_VISIBLE_DEVICES")
        number = int(environment["LOCAL_RANK"])
        made["CUDA_VISIBLE_DEVICES"] = seen.split(",")[number] if seen else str(number)
    return made


def check_device(name: str | None) -> None:
    """Whether a device can be meant, on whatever machine: "cpu", "cuda", "cuda:N" or None.

    :raises UserError: For any other.
    """
    if name is None or re.fullmatch(r"cpu|cuda(:\d+)?", name):
        return
    why = "computes nothing in float64" if name == "mps" else "is no device that is known here"
    raise UserError(f"device {name!r} {why}: give cpu, cuda or cuda:N")


def _device(name: str | None, several: bool) -> torch.device:
    check_device(name)
    if name == "cpu" or (name is None and not torch.cuda.is_available()):
        return torch.device("cpu")
    kind, _, number = (name or "cuda").partition(":")
    count = torch.cuda.device_count()
    if not several:
        if int(number or 0) >= count:
            raise UserError(f"device {name!r}, and {count} GPUs are seen here: {_other(count)}")
        return torch.device(kind, int(number or 0))
    if number:
        raise UserError(
            f"device {name!r} with several processes, which take a GPU each: give cuda, and name "
            "the GPUs in CUDA_VISIBLE_DEVICES"
        )
    place = int(os.environ.get("LOCAL_RANK") or 0)
    if place >= count:
        raise UserError(
            f"{count} GPUs for local rank {place}: lower --nproc_per_node to the number of GPUs, "
            "or give the device cpu"
        )
    torch.cuda.set_device(place)
    return torch.device("cuda", place)


def _other(count: int) -> str:
    """What device to give instead of one that is not there."""
    return "give cpu" if not count else f"give cpu, or cuda:0 to cuda:{count - 1}"


#: counts the groups that this process has joined, alike in all processes of a launcher
_GROUPS = itertools.count()


def _join(device: torch.device, limit: timedelta) -> _Store:
    needed = ("RANK", "MASTER_ADDR", "MASTER_PORT")
    missing = [name for name in needed if name not in os.environ]
    if missing:
        raise UserError(
            f"WORLD_SIZE is {os.environ['WORLD_SIZE']} and {missing[0]} is not set: "
            "start with torchrun, or unset WORLD_SIZE"
        )
    backend = "gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl"
    from torch.distributed.rendezvous import rendezvous

    try:
        store, rank, size = next(iter(rendezvous("env://", timeout=limit)))
        # A process that joins once more must not read the addresses of the group that it left.
        store = dist.PrefixStore(f"passgrad-{next(_GROUPS)}", store)
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=limit)
    except (RuntimeError, ValueError) as error:
        line = " ".join(str(error).split())[:160]
        raise UserError(f"the processes did not find each other: {line}") from error
    return store  # type: ignore[no-any-return]


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what it was made from."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _told(error: BaseException) -> bool:
    """Whether the others know of it."""
    return any(_KEY in one.__dict__ for one in _chain(error))


def _marked(error: Exception) -> Exception:
    error.__dict__[_KEY] = True
    return error


def _packed(error: Exception, rank: int) -> str:
    """A UserError keeps its line; anything else says where it was."""
    line = " ".join(str(error).split())
    mistake = isinstance(error, UserError)
    return json.dumps(
        [mistake, line if mistake else f"process {rank}: {type(error).__name__}: {line}"]
    )


def _unpacked(content: str) -> Exception:
    mistake, line = json.loads(content)
    return UserError(line) if mistake else RemoteError(line)
