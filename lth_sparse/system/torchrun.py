"""torchrun, which starts a command in several processes: what it tells them, how they meet, and how they end."""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import NoReturn, TypeVar

import torch
from torch import distributed

from lth_sparse.system import messages, processes
from lth_sparse.system.errors import GO_ON, InputError, ProcessesError, reason

NEEDED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What torchrun sets, and others that start processes as it does."""
LONGEST_WAIT = timedelta(minutes=30)
"""For the others: as long as the first process may take for what it does alone. One whose process or connection ends
is noticed at once."""
TO_SAY_WHY = 2.0
"""Seconds that are waited for what a process that has ended said last."""

_Given = TypeVar("_Given")
_meetings = itertools.count()


def count() -> int:
    """How many processes the command was started in together: 1 where there was nobody to start others."""
    return _number("WORLD_SIZE", 1) if all(os.environ.get(name) for name in NEEDED) else 1


def local_rank() -> int:
    """The number of this process among those of its machine, from 0."""
    return _number("LOCAL_RANK", 0)


def on_this_machine() -> int:
    """How many processes of the command there are on this machine."""
    return _number("LOCAL_WORLD_SIZE", 1) if count() > 1 else 1


def is_restart() -> bool:
    """Whether torchrun has started the command again, after a process of it had ended."""
    return _number("TORCHELASTIC_RESTART_COUNT", 0) > 0


def restarts() -> bool:
    """Whether torchrun would start the command again."""
    return _number("TORCHELASTIC_MAX_RESTARTS", 0) > 0


def command(alone: str) -> str:
    """`alone`, the command line of one process, as it was started."""
    if count() == 1:
        return alone
    machines = f"--nnodes {nodes} " if (nodes := count() // on_this_machine()) > 1 else ""
    module = (
        alone.removeprefix("python ") if alone.startswith("python ") else f"-m lth_sparse {alone.removeprefix('lth ')}"
    )
    return f"torchrun {machines}--nproc-per-node {on_this_machine()} {module}"


def refuse_several(what: str, instead: str) -> None:
    """Raises InputError where there are several processes, for `what` plays its runs in one; `instead`: what to do."""
    if count() > 1:
        raise InputError(f"torchrun: {what} is for one process, and was started in {count()}; {instead}")


def own_device(device: torch.device) -> torch.device:
    """The device of this process where the command says `device`: of the GPUs of a machine, the one of its number.

    Raises InputError where there is none left for it.
    """
    if device.type != "cuda" or count() == 1:
        return device
    here, gpus = on_this_machine(), torch.cuda.device_count()
    if here > 1 and device.index is not None:
        raise InputError(f"--device {device}: the {here} processes on this machine need a GPU each; give --device cuda")
    if here > gpus:
        raise InputError(
            f"--nproc-per-node {here}: this machine shows PyTorch {gpus} GPUs; start as many processes, or give "
            "--device cpu"
        )
    own = torch.device("cuda", local_rank() if device.index is None else device.index)
    torch.cuda.set_device(own)
    return own


def one_before_others(function: Callable[[], _Given]) -> _Given:
    """What `function` gives, which one process of each machine calls before the others do: it may fetch files."""
    given = function() if local_rank() == 0 or processes.count() == 1 else None
    processes.summed(torch.zeros(()))
    return function() if given is None else given


@contextmanager
def together() -> Iterator[None]:
    """Inside, the processes are a group, of which the first alone speaks; where there is one, nothing happens.

    An exception in one of them ends all: what another says last is what the ProcessesError of this one says.
    """
    if count() == 1:
        yield
        return
    before = signal.signal(signal.SIGTERM, _stop)
    with _said_in_a_sentence(_store()) as store:
        _open(store)
        rank = _number("RANK", 0)
        with processes.being(processes.Together(rank, count())), messages.silent(rank > 0):
            yield
        distributed.destroy_process_group()
    signal.signal(signal.SIGTERM, before)


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, "")
    return int(text) if text.isdecimal() else default


class _Stopped(BaseException):
    """SIGTERM, by which torchrun ends the processes that are left. Nothing but `together` may catch it."""


def _stop(*_: object) -> NoReturn:
    raise _Stopped


def _store() -> distributed.Store:
    """Where the processes meet: under torchrun it is in a process of torchrun's, and outlives them. So what those wrote
    that were started before has other names: addresses that are nobody's any more, what they said last."""
    try:
        store, *_ = next(distributed.rendezvous("env://", timeout=LONGEST_WAIT))
    except (ValueError, RuntimeError) as error:
        where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise ProcessesError(f"the processes cannot meet at {where} (MASTER_ADDR, MASTER_PORT): {error}") from error
    attempt = _number("TORCHELASTIC_RESTART_COUNT", 0)
    return distributed.PrefixStore(f"lth_sparse/{attempt}/{count()}/{next(_meetings)}", store)


def _open(store: distributed.Store) -> None:
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    distributed.init_process_group(
        backend, store=store, rank=_number("RANK", 0), world_size=count(), timeout=LONGEST_WAIT
    )


@contextmanager
def _said_in_a_sentence(store: distributed.Store) -> Iterator[distributed.Store]:
    """Tells the others of an exception here; raises ProcessesError for one that is only what theirs led to."""
    try:
        yield store
    except BaseException as error:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # For good: there is a sentence still to be said.
        _leave()
        if not isinstance(error, _Stopped) and not _is_lost_connection(error):
            said = reason(error) if isinstance(error, Exception) else "interrupted"
            _tell(store, said)
            raise
        raise ProcessesError(f"{_why(store, error)}; {GO_ON}") from error


def _leave() -> None:
    """Ends the group. NCCL would wait for what hangs: there the end of the process has to do."""
    if distributed.is_initialized() and not torch.cuda.is_available():
        distributed.destroy_process_group()


def _is_lost_connection(error: BaseException) -> bool:
    """Gloo has no exception of its own."""
    return isinstance(error, distributed.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))


def _tell(store: distributed.Store, said: str) -> None:
    try:
        store.set(f"ended/{_number('RANK', 0)}", said)
    except RuntimeError:  # Its process has ended, too.
        return


def _why(store: distributed.Store, error: BaseException) -> str:
    """What another process said before it ended, or that it said nothing."""
    others = {rank: f"ended/{rank}" for rank in range(count()) if rank != _number("RANK", 0)}
    until = time.monotonic() + TO_SAY_WHY
    try:
        while time.monotonic() < until:
            for rank, key in others.items():
                if store.check([key]):
                    said = store.get(key).decode(errors="replace")
                    return f"process {rank} of {count()} has ended ({said}), so this one cannot go on"
            time.sleep(0.05)
    except RuntimeError:
        pass
    if isinstance(error, _Stopped):
        return (
            "this process was told to stop (SIGTERM), as torchrun tells those that are left when one was killed, or "
            "when it is stopped itself"
        )
    return f"another of the {count()} processes has ended without a word: killed, or its machine or network is gone"
