"""The same computation by other numbers of threads."""

from collections.abc import Callable
from typing import TypeVar

import torch

Result = TypeVar("Result")


def at_threads(compute: Callable[[], Result], *numbers: int) -> list[Result]:
    """What `compute` gives with each of these numbers of threads."""
    before = torch.get_num_threads()
    try:
        results = []
        for number in numbers:
            torch.set_num_threads(number)
            results.append(compute())
    finally:
        torch.set_num_threads(before)
    return results
