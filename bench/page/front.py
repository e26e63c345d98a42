"""What the front page shows: two charts against the weights left, and a few numbers, one of them lost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.page import cpu, engines, gpu, runs, words
from bench.page.charts import Chart, Line
from bench.page.section import Section
from bench.page.sources import Run, Sources
from lth_sparse.storage.record import Record


def section(sources: Sources, processor: dict[str, Any]) -> Section:
    """The charts of README.md, and where their points are from."""
    made = Section("At a glance")
    made.show(accuracy(_controlled(sources)))
    made.show(steps(sources, processor))
    made.say(
        "First: one lottery, each ticket beside a random mask of as many weights in each layer. Second: masked dense",
        "PyTorch's time over that of `auto`; tickets round by round, random masks as the benchmarks have them.",
        "Commands and spreads are below.",
    )
    return made


def _controlled(sources: Sources) -> Run:
    """The first run whose tickets have a control."""
    return next(run for run in sources.runs if run.rounds[-1].accuracy_random is not None)


def accuracy(run: Run) -> Chart:
    """Tickets and random masks of a run, round by round."""
    ticket = [(row.density, 100 * row.accuracy_retrained) for row in run.rounds]
    control = [(row.density, 100 * row.accuracy_random) for row in run.rounds if row.accuracy_random is not None]
    lines = (Line.through("ticket", ticket), Line.through("random mask", control, "s--", color=1))
    title = f"{run.info['network']['name']} on CIFAR-10 (JPEG copy)"
    return _chart("front-accuracy", title, "test accuracy (%)", lines)


def steps(sources: Sources, processor: dict[str, Any]) -> Chart:
    """The time of masked dense PyTorch's training step over that of ours, by `auto`."""
    lines = []
    rows = [row for row in cpu.of_networks(processor) if cpu.backend(row) == "auto"]
    for name in sorted({row["case"] for row in rows} - {found["network"]["name"] for found in _worked_out(sources)}):
        points = sorted((1 - row["sparsity"], row["by_minimum"]) for row in rows if row["case"] == name)
        if len(points) > 1:
            lines.append(Line.through(f"{name}, random masks", points, "^", color=3))
    for found in _worked_out(sources):
        points = [(row["density"], row["dense_step_ms"] / row["step_ms"]) for row in found["rounds"]]
        lines.append(Line.through(f"{found['network']['name']}, tickets", points))
    for run in sources.runs:
        if run.info["backend"] == "auto":
            points = [(row.density, row.speedup) for row in run.rounds]
            lines.append(Line.through(f"{run.info['network']['name']}, tickets", points, "s-", color=2))
    here = processor["measured_on"]
    title = f"training step, {here['threads']} cores of an {here['processor']}"
    return _chart("front-steps", title, "times as fast as masked dense", tuple(lines), break_even=True)


def _worked_out(sources: Sources) -> list[dict[str, Any]]:
    """The lotteries whose every round has a measured step, on images of full size."""
    return [found for found in sources.lotteries.values() if found["extrapolated"]]


def _chart(name: str, title: str, y_label: str, lines: tuple[Line, ...], break_even: bool = False) -> Chart:
    return Chart(
        name, title, "weights left (%)", y_label, lines, x_axis="weights left", break_even=break_even, narrow=True
    )


def numbers(sources: Sources, processor: dict[str, Any]) -> list[str]:
    """A gain, an accuracy, inference, and the GPU, where a dense library is hard to beat."""
    beside = [line for found in sources.engines.values() for line in engines.headline(found)]
    return [_fastest(processor), _best(_controlled(sources)), *beside, _on_a_gpu(sources)]


def _fastest(processor: dict[str, Any]) -> str:
    rows = [row for row in cpu.of_networks(processor) if cpu.backend(row) == "cpp"]
    ranked = sorted(rows, key=lambda row: -row["by_minimum"])
    first, *others = [row for row in ranked if row["sparsity"] == ranked[0]["sparsity"]]
    whole = [row for row in rows if row["sparsity"] == 0]
    here = processor["measured_on"]
    return (
        f"- **{words.ratio(first['by_minimum'])} times faster** than masked dense PyTorch in its better memory format: "
        f"a training step of {first['case']} with {words.percent(1 - first['sparsity'])} of its weights, on "
        f"{here['threads']} cores of an {here['processor']}"
        + (f" ({_gains(others)})" if others else "")
        + (f"; with all of them, by Winograd's algorithm: {_gains(whole)}" if whole else "")
    )


def _gains(rows: Sequence[dict[str, Any]]) -> str:
    return ", ".join(f"{row['case']} {words.ratio(row['by_minimum'])}" for row in rows)


def _best(run: Run) -> str:
    best, dense = Record(rounds=run.rounds).best_ticket(), run.rounds[0]
    return (
        f"- **{runs.points(best.accuracy_retrained)}** of CIFAR-10's test images (JPEG copy) with "
        f"{words.percent(best.density)} of the weights of `{run.info['network']['name']}`; the dense network "
        f"{runs.points(dense.accuracy_retrained)}, a random mask of the same size {runs.points(best.accuracy_random)}"
    )


def _on_a_gpu(sources: Sources) -> str:
    best = max(
        ((value, side, step, found) for found in sources.gpu.values() for step in found["steps"]
         for side, value in gpu.step_ratios(step).items()), key=lambda one: one[0], default=None
    )  # fmt: skip
    if best is None:
        return f"- {gpu.NOT_YET}"
    value, side, step, found = best
    return (
        f"- **{words.ratio(value)} times cuDNN's speed**{', so slower' if value < 1 else ''}: a training step of "
        f"{step['network']} with {words.percent(1 - step['sparsity'])} of its weights by the `{side}` kernels, on an "
        f"{found['measured_on']['device']}"
    )
