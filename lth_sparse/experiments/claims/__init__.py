"""Published claims that `python -m lth_sparse.reproduce` tests."""

from lth_sparse.experiments.claims.claim import STEPS, Barrier, Claim, Column, Size, Statement, Transfer
from lth_sparse.experiments.claims.published import CLAIMS

__all__ = ["CLAIMS", "STEPS", "Barrier", "Claim", "Column", "Size", "Statement", "Transfer"]
