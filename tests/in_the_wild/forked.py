"""What becomes of a model in a fork of the process that called it: `python -m tests.in_the_wild.forked`, a JSON object.

A process that has computed with several threads cannot share them with its forks, so each case begins in a fork that
has computed nothing yet. A case is one layer, and what the child does with it; it "works", "fails" or "hangs".
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

import lth_sparse as lth
from lth_sparse.backends import registry
from lth_sparse.backends.auto import remembering
from lth_sparse.backends.choices import Choices
from tests.in_the_wild.side_by_side import draw_masks

PATIENCE = 5.0
"""Seconds that a child has, and ten times what its parent took for the same; it needs milliseconds."""


def convolution() -> nn.Module:
    """PyTorch's own."""
    torch.manual_seed(0)
    return nn.Conv2d(16, 32, 3, padding=1)


def sparse(backend: str) -> nn.Module:
    """The same layer, pruned."""
    layer = convolution()
    return lth.sparsify(layer, draw_masks(layer), backend)


OUTCOMES = ("works", "fails", "hangs")
LAYERS: dict[str, Callable[[], nn.Module]] = {
    "nn.Conv2d": convolution,
    "cpp": lambda: sparse("cpp"),
    "auto": lambda: sparse("auto"),
}


def train(layer: nn.Module, images: Tensor) -> None:
    """A step, all gradients included."""
    output = layer(images.clone().requires_grad_())
    output.square().mean().backward()
    assert output.isfinite().all()


def in_one_thread(layer: nn.Module, images: Tensor) -> None:
    """As the workers of a DataLoader compute."""
    torch.set_num_threads(1)
    train(layer, images)


CASES = {
    "two threads before, two in the child": (2, train),
    "two threads before, one in the child": (2, in_one_thread),
    "one thread before and in the child": (1, train),
}


def begin(work: Callable[[], None]) -> int:
    """A child that does the work and nothing else."""
    process = os.fork()
    if process == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return process


def outcome(process: int, took: float = 0.0) -> str:
    """What becomes of it; `took`: seconds of its parent."""
    deadline = time.monotonic() + PATIENCE + 10 * took
    while time.monotonic() < deadline:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            return "works" if status == 0 else "fails"
        time.sleep(0.01)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return "hangs"


def parent(threads: int, in_child: Callable[[nn.Module, Tensor], None], make: Callable[[], nn.Module]) -> None:
    """Computes, forks, and exits as its child did."""
    torch.set_num_threads(threads)
    layer, images = make(), torch.randn(16, 16, 32, 32)
    began = time.monotonic()
    train(layer, images)
    took = time.monotonic() - began
    os._exit(OUTCOMES.index(outcome(begin(lambda: in_child(layer, images)), took)))


def parent_that_measures() -> None:
    """Its child has to measure for itself, though another thread of the parent was at it when the child was made."""
    torch.set_num_threads(1)
    layer, images = sparse("auto"), torch.randn(16, 16, 32, 32)
    measuring, forked_already = threading.Event(), threading.Event()

    def measure() -> None:
        with registry.get("auto")._measuring:
            measuring.set()
            forked_already.wait()

    thread = threading.Thread(target=measure)
    thread.start()
    measuring.wait()
    with remembering(Choices()):
        child = begin(lambda: train(layer, images))
    forked_already.set()
    thread.join()
    os._exit(OUTCOMES.index(outcome(child)))


WHILE_MEASURING = "a fork while another thread measures"


def main() -> None:
    """All parents at once, for a child that hangs takes its time."""
    parents = {
        case: {
            name: begin(lambda threads=threads, in_child=in_child, make=make: parent(threads, in_child, make))
            for name, make in LAYERS.items()
        }
        for case, (threads, in_child) in CASES.items()
    }
    parents[WHILE_MEASURING] = {"auto": begin(parent_that_measures)}
    found = {
        case: {name: OUTCOMES[os.waitstatus_to_exitcode(os.waitpid(p, 0)[1])] for name, p in by.items()}
        for case, by in parents.items()
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
