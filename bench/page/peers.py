"""Layers beside others' sparse layers: the file that `pytest bench/ -m peers --results` writes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.contests import peer_ratios
from bench.contests.peer_ratios import CASES, Ratio
from bench.page import words
from bench.page.section import Section


def section(name: str, found: dict[str, Any]) -> Section:
    """All of one file, whose name is `name`."""
    made = Section(f"CPU kernels beside their peers on {words.machine(found['measured_on'])}")
    made.say(*words.source(name, found))
    made.say(
        "The time of dense PyTorch in its better layout, and of each peer, over that of `cpp`: below 1 ours is slower.",
        "With the machine to themselves / while another process spins on core 0; median over median, and of three",
        "repeats the median. All sides in turn, with as many threads, on masks of one density. onnxruntime multiplies",
        "by the zeros: its ratio changes with the sparsity because ours does.",
    )
    ratios = peer_ratios.of(found["rows"])
    for trains, title in ((True, "Forward and backward, by the module:"), (False, "Forward pass, without gradients:")):
        chosen = [each for each in ratios if CASES[each.case].trains == trains]
        if chosen:
            made.say(title)
            made.say(*_table(chosen))
    made.say(*_lowest(ratios))
    return made


def _table(ratios: Sequence[Ratio]) -> list[str]:
    names = list(dict.fromkeys(each.name for each in ratios))
    values = {(each.case, each.sparsity, each.name, each.busy): each.value for each in ratios}
    lines = []
    for case, sparsity in dict.fromkeys((each.case, each.sparsity) for each in ratios):
        pairs = [[values.get((case, sparsity, name, busy)) for busy in (False, True)] for name in names]
        cells = [" / ".join("" if value is None else words.ratio(value) for value in pair) for pair in pairs]
        lines.append([_layer(case), words.percent(sparsity), *("" if cell == " / " else cell for cell in cells)])
    return words.table(["layer", "sparsity", *names], lines)


def _layer(name: str) -> str:
    case = CASES[name]
    count = f"{case.input_shape[0]} row{'s' if case.input_shape[0] > 1 else ''}"
    batch = count if case.spec.kind == "linear" else f"batch {case.input_shape[0]}"
    return f"{words.shape(case.spec, case.input_shape)}, {batch}"


def _lowest(ratios: Sequence[Ratio]) -> list[str]:
    lines = []
    for each in peer_ratios.lowest(ratios):
        ratio, goal = each.ratio, each.goal
        where = "core 0 busy" if ratio.busy else "quiet"
        kind = "Training" if each.cases[0].trains else "Inference"
        lines.append(
            f"- {kind} of {len(each.cases)} linear layers, {where}: the fastest peer took at least "
            f"{words.ratio(ratio.value)} of our time ({ratio.name}, {_layer(ratio.case)}, "
            f"{words.percent(ratio.sparsity)}); the floor that was set is {goal.must:g}, the aim {goal.aim:g}."
        )
    return lines


def losing_table(found: dict[str, Any]) -> list[str]:
    """Where ours is slower than a peer, or than dense PyTorch."""
    lines = [
        [_layer(each.case), "training" if CASES[each.case].trains else "inference", words.percent(each.sparsity),
         each.name, "core 0 busy" if each.busy else "quiet", f"{each.value:.3f}"]
        for each in peer_ratios.of(found["rows"])
        if each.value < 1
    ]  # fmt: skip
    titles = ["layer", "", "sparsity", "beside", "", "its time over ours"]
    return words.table(titles, lines) if lines else ["None."]
