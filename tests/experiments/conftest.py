"""What the tests of many lotteries share: none looks at the plots of a single one, which take most of its time."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from lth_sparse import report


@pytest.fixture(autouse=True, scope="module")
def _without_plots() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "pictures", lambda info, record: [])
        yield


Main = Callable[[list[str]], int]
Called = Callable[..., tuple[int, str, str]]


@pytest.fixture
def called(capsys: pytest.CaptureFixture[str]) -> Called:
    """Calls the `main` of a command; gives its exit status, what it wrote to standard output, and to standard error."""

    def call(main: Main, *arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return status, said.out, said.err

    return call
