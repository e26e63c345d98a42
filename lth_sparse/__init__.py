"""Finds lottery tickets, and trains and runs them without paying for the weights that were pruned."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from lth_sparse.system import stopping

__version__ = "0.1.0"

# What follows takes seconds. A program that imports the library hears Ctrl-C as ever.
if stopping.is_one_of_our_commands():
    stopping.end_quietly_while_importing()

# The kernels live in kernels/ at the root of the repository and are installed as lth_sparse.kernels. A bare checkout
# has no installer to map them, so there the root joins the search path of this package.
if importlib.util.find_spec("lth_sparse.kernels") is None:
    __path__.append(str(Path(__file__).resolve().parent.parent))

from lth_sparse.backends.registry import backends
from lth_sparse.backends.winograd import set_winograd
from lth_sparse.inference import for_inference
from lth_sparse.lottery.events import EvaluationEvent, RoundEvent, StepEvent
from lth_sparse.lottery.lottery import Lottery
from lth_sparse.lottery.own_loop import prove_training, prune, rewind, snapshot
from lth_sparse.lottery.proof import Snapshot
from lth_sparse.nn import (
    SparseConv2d,
    SparseLinear,
    densify,
    fuse,
    get_masks,
    parameter_groups,
    set_masks,
    sparsify,
)
from lth_sparse.storage.open_lth import read_open_lth
from lth_sparse.storage.ticket import Ticket, load_ticket, read_ticket, save_ticket

__all__ = [
    "EvaluationEvent",
    "Lottery",
    "RoundEvent",
    "Snapshot",
    "SparseConv2d",
    "SparseLinear",
    "StepEvent",
    "Ticket",
    "__version__",
    "backends",
    "densify",
    "for_inference",
    "fuse",
    "get_masks",
    "load_ticket",
    "parameter_groups",
    "prove_training",
    "prune",
    "read_open_lth",
    "read_ticket",
    "rewind",
    "save_ticket",
    "set_masks",
    "set_winograd",
    "snapshot",
    "sparsify",
]
