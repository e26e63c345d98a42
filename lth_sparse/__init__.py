"""Finds lottery tickets, and trains and runs them without paying for the weights that were pruned."""

from __future__ import annotations

import importlib.util
from pathlib import Path

# The kernels live in kernels/ at the root of the repository and are installed as lth_sparse.kernels. A bare checkout
# has no installer to map them, so there the root joins the search path of this package.
if importlib.util.find_spec("lth_sparse.kernels") is None:
    __path__.append(str(Path(__file__).resolve().parent.parent))

from lth_sparse.backends.registry import backends
from lth_sparse.backends.winograd import set_winograd
from lth_sparse.nn import SparseConv2d, SparseLinear, densify, fuse, parameter_groups, sparsify
from lth_sparse.storage.ticket import Ticket, load_ticket, read_ticket, save_ticket

__version__ = "0.1.0"

__all__ = [
    "SparseConv2d",
    "SparseLinear",
    "Ticket",
    "__version__",
    "backends",
    "densify",
    "fuse",
    "load_ticket",
    "parameter_groups",
    "read_ticket",
    "save_ticket",
    "set_winograd",
    "sparsify",
]
