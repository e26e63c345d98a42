"""The pages are tests too: what they show runs, block by block. `tests/docs/pages.py` says how."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.File | None:
    """A page's blocks and commands, in the order in which they stand; for pytest."""
    if not (file_path.suffix == ".md" or file_path.parent.name in ("examples", "notebooks")):
        return None
    # This file is read wherever pytest runs, and a GPU machine may lack what only the pages need; where `make test`
    # runs, tests/docs/test_pages.py fails without it.
    if importlib.util.find_spec("sybil") is None:
        return None
    from tests.docs.pages import collect

    return collect(file_path, parent)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Commands that measure are for `make test-long`; before pytest chooses by marks."""
    if importlib.util.find_spec("sybil") is None:
        return
    from tests.docs.pages import takes_long

    for item in filter(takes_long, items):
        item.add_marker("long")
