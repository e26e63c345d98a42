"""What the tests of many lotteries share: none looks at the plots of a single one, which take most of its time."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lth_sparse import report


@pytest.fixture(autouse=True, scope="module")
def _without_plots() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "pictures", lambda info, record: [])
        yield
