"""What lies between sparse layers, fused in a run or not."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import lth_sparse as lth
from lth_sparse.nn import beginnings
from lth_sparse.settings import config
from tests.commands.test_run import interrupted
from tests.conftest import rows

Lottery = Callable[..., tuple[int, str]]
SHORT: tuple[object, ...] = (
    "--dataset", "digits", "--model", "resnet20", "--rounds", "2", "--iterations", "20", "--evaluate-every", "10",
    "--backend", "cpp", "--device", "cpu",
)  # fmt: skip

pytestmark = pytest.mark.skipif(bool(lth.backends()["cpp"]), reason=f"cpp backend: {lth.backends()['cpp']}")


@pytest.fixture
def fused(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """An entry for each call of the fused BatchNorm: whether a residual was added."""
    calls: list[bool] = []
    operator = beginnings.batch_norm

    def call(*arguments: object) -> object:
        calls.append(arguments[1] is not None)
        return operator(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(beginnings, "batch_norm", call)
    return calls


def test_a_run_fuses_and_ends_with_the_same_bits_when_resumed(
    tmp_path: Path, lottery: Lottery, monkeypatch: pytest.MonkeyPatch, fused: list[bool]
) -> None:
    status, error = lottery(*SHORT, "--out", tmp_path / "run")
    assert status == 0, error
    assert fused.count(True) > 100
    assert fused.count(False) > 100
    assert json.loads((tmp_path / "run" / "config.json").read_text())["config"]["fuse"] is True
    with monkeypatch.context() as patch:
        interrupted(tmp_path / "again", lottery, patch, 5, SHORT)
    assert lottery("--out", tmp_path / "again", "--resume")[0] == 0
    assert rows(tmp_path / "again", without_times=True) == rows(tmp_path / "run", without_times=True)


def test_no_fuse_leaves_pytorchs_modules_and_is_kept(tmp_path: Path, lottery: Lottery, fused: list[bool]) -> None:
    status, error = lottery(*SHORT, "--no-fuse", "--out", tmp_path / "plain")
    assert status == 0, error
    assert fused == []
    assert json.loads((tmp_path / "plain" / "config.json").read_text())["config"]["fuse"] is False
    status, error = lottery("--out", tmp_path / "plain", "--resume", "--fuse")
    assert status == 2
    assert "fuse" in error


def test_masked_dense_is_plain_pytorch(tmp_path: Path, lottery: Lottery, fused: list[bool]) -> None:
    status, error = lottery(*SHORT, "--backend", "dense", "--out", tmp_path / "dense")
    assert status == 0, error
    assert fused == []


def test_what_is_timed_is_what_trains(tmp_path: Path, lottery: Lottery, fused: list[bool]) -> None:
    settings = ("--rounds", "0", "--iterations", "1")
    status, error = lottery(*SHORT, *settings, "--out", tmp_path / "run")
    assert status == 0, error
    # ResNet-20 has 21 of them: a step, and its evaluations; the formats of a round are timed in many steps.
    assert len(fused) > 21 * 10


def test_a_run_from_before_there_was_the_setting_goes_on_as_it_began() -> None:
    settings = config.build({}).to_json()
    assert config.Config.from_json(settings).fuse
    del settings["fuse"]
    assert not config.Config.from_json(settings).fuse
