"""Each example as a user runs it, at its quick size: it ends well, and the facts that it prints hold."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def numbers(output: str, row: str) -> list[float]:
    """The numbers in the row of the printed table that begins with `row`, percent as they stand."""
    (line,) = [line for line in output.splitlines() if line.startswith(row)]
    return [float(number.replace(",", "")) for number in re.findall(r"[\d.,]+(?:e[+-]\d+)?", line.removeprefix(row))]


def own_training_loop(output: str) -> None:
    accuracy, parameters, state, step = numbers(output, "masked dense")
    sparse_accuracy, live, live_state, sparse_step = numbers(output, "sparse")
    assert 0.04 < live / parameters < 0.06
    assert 0.04 < live_state / state < 0.06
    assert accuracy > 60
    assert abs(sparse_accuracy - accuracy) < 2  # They are one training, but for rounding.
    assert min(step, sparse_step) > 0


def torchvision_resnet18(output: str) -> None:
    (error,) = numbers(output, "outputs differ by at most")
    assert 0 < error < 1e-4
    parameters, *times = numbers(output, "masked dense")
    live, *sparse_times = numbers(output, "sparse")
    # All but the 513,000 of the classifier and 9,600 of BatchNorm is pruned to 5 %.
    assert parameters == 11_689_512
    assert live == pytest.approx(0.05 * (parameters - 522_600) + 522_600, abs=50)
    assert min(times + sparse_times) > 0


def transformer_feed_forward(output: str) -> None:
    for row in ("forward and backward", "eval, without gradients"):
        error, *times = numbers(output, row)
        assert error < 1e-5, row
        assert min(times) > 0, row
    (line,) = [line for line in output.splitlines() if line.endswith("feed-forward weights are live")]
    live, weights = numbers(line, "")
    assert live / weights == pytest.approx(0.1, abs=1e-4)


def run_a_ticket(output: str) -> None:
    accuracy, images, size = numbers(output, "dense")
    sparse_accuracy, sparse_images, sparse_size = numbers(output, "sparse")
    assert accuracy > 60
    assert sparse_accuracy == pytest.approx(accuracy, abs=1)
    assert sparse_size < size / 2
    assert min(images, sparse_images) > 0
    (same, _) = numbers(output, "The same answer on")
    assert same > 99


def serve_a_ticket(output: str) -> None:
    for row, largest in (("up to 16", 16), ("one by one", 1)):
        answers, p50, p95, p99, batch, refused, errors = numbers(output, row)
        assert answers > 0, row
        assert 0 < p50 <= p95 <= p99, row
        assert 1 <= batch <= largest, row
        assert (refused, errors) == (0, 0), row


FACTS: dict[str, Callable[[str], None]] = {
    check.__name__: check
    for check in (own_training_loop, torchvision_resnet18, transformer_feed_forward, run_a_ticket, serve_a_ticket)
}


@pytest.mark.parametrize("name", sorted(path.stem for path in EXAMPLES.glob("*.py")))
def test_the_example_runs_and_its_facts_hold(name: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLES / f"{name}.py", "--quick"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, f"examples/{name}.py failed:\n{done.stdout}{done.stderr}"
    FACTS[name](done.stdout)
    assert list(tmp_path.iterdir()) == [], "an example leaves nothing where it was called"
