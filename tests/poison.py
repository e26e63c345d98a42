"""Memory that nobody has written to, made conspicuous."""

from contextlib import contextmanager

import torch


@contextmanager
def poisoned_memory():
    """Fresh tensors are full of NaN, those that C++ allocates too: what is not written cannot pass for a zero."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    assert torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
