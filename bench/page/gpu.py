"""The GPU kernels: the files that bench/gpu/ writes, one for each GPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from bench.cases.gpu import LAYERS
from bench.page import words
from bench.page.charts import Chart, Line
from bench.page.cpu import break_even
from bench.page.roofline import Reached, roofline
from bench.page.section import Section

NOT_YET = "**Not yet run on a GPU**: no file of `make gpu` is under `bench/results/`, so no time here is of one."
BYTES = {"bfloat16": 2}
"""Of a number, where it is not 4."""
SWEPT = 3
"""Sparsities from which a layer is a line of a chart."""


@dataclass(frozen=True)
class Ratio:
    """The forward and backward pass of a layer: dense PyTorch's least time over ours, each in its better layout."""

    layer: str
    precision: str
    masks: str
    sparsity: float
    backend: str
    microseconds: float
    dense_microseconds: float
    error: float | None
    """Our largest relative error against float64 over dense PyTorch's own, the worst operation and layout; None where
    it was not measured."""

    @property
    def value(self) -> float:
        """More is better; 1 is break-even."""
        return self.dense_microseconds / self.microseconds


def ratios(found: dict[str, Any]) -> list[Ratio]:
    """One for each layer, precision, kind and sparsity of mask, and backend."""
    dense: dict[tuple[str, str], float] = {}
    ours: dict[tuple[str, str, str, float, str], list[dict[str, Any]]] = {}
    for row in found["layers"]:
        place = row["layer"], row["precision"]
        if row["side"] == "dense":
            dense[place] = min(row["total"], dense.get(place, row["total"]))
        else:
            ours.setdefault((*place, row["masks"], row["sparsity"], row["side"]), []).append(row)
    return [
        Ratio(*place, min(row["total"] for row in rows), dense[place[:2]], _worst_error(rows))
        for place, rows in ours.items()
    ]


def _worst_error(rows: Sequence[dict[str, Any]]) -> float | None:
    known = [row for row in rows if "error" in row]
    return max(
        (error / max(row["dense_error"][name], 1e-30) for row in known for name, error in row["error"].items()),
        default=None,
    )


def sections(files: dict[str, dict[str, Any]]) -> list[Section]:
    """One for each file, or one that says that there is none."""
    if not files:
        made = Section("GPU kernels")
        made.say(NOT_YET)
        return [made]
    return [_section(name, found) for name, found in files.items()]


def _section(name: str, found: dict[str, Any]) -> Section:
    gpu, slug = found["measured_on"]["device"], name.removesuffix(".json")
    made = Section(f"GPU kernels on {gpu}")
    made.say(*words.source(name, found))
    made.say(*checks(found))
    measured = ratios(found)
    made.say(
        "Forward pass and both gradients, each operation captured in a CUDA graph, against dense PyTorch in the same",
        "precision; each in its better layout. Tickets are those of a conv6 trained on digits",
        "(`bench/cases/tickets.py`).",
    )
    made.say(*layers_table(measured))
    for backend, precision in dict.fromkeys((row.backend, row.precision) for row in measured):
        lines = _lines([row for row in measured if (row.backend, row.precision) == (backend, precision)])
        if lines:
            made.show(_chart(f"{slug}-{backend}-{precision}", f"{backend}, {precision}, {gpu}", lines))
        reached = _reached(measured, backend, precision)
        if reached:
            # The ceiling was measured in TF32: it is none for other precisions.
            ceilings = found.get("ceilings") if precision == "tf32" else None
            chart, title = f"{slug}-{backend}-{precision}-roofline", f"{backend}, {precision}, random masks"
            made.show(roofline(chart, title, reached, ceilings))
    made.say(*_ceilings(found))
    made.say(*errors(measured))
    made.say(*steps(found))
    made.say(*auto(found))
    return made


def checks(found: dict[str, Any]) -> list[str]:
    """What passed and what failed, in a list."""
    lines = [f"- Note: {found['note']}"] if found.get("note") else []
    lines += [f"- Tests of {suite}: {said}" for suite, said in found["tests"].items()]
    lines += [f"- `python -m lth_sparse.verify`: {found['verify']}"] if "verify" in found else []
    lines += [f"- compute-sanitizer, {tool}: {found[tool]}" for tool in ("memcheck", "racecheck") if tool in found]
    lines += [f"- Not measured: {backend}, {reason}" for backend, reason in found["unusable"].items()]
    lines += [f"- Failed: {failure}" for failure in [*found["build_failed"], *found["failed"]]]
    lines += ["- The time was up before all was measured."] if found.get("cut_short") else []
    return lines


def layers_table(measured: Sequence[Ratio]) -> list[str]:
    """Every ratio: a line for each layer, precision, kind of mask and backend."""
    sparsities = sorted({row.sparsity for row in measured})
    keys = dict.fromkeys((row.layer, row.precision, row.masks, row.backend) for row in measured)
    lines = []
    for key in keys:
        here = {
            row.sparsity: row.value for row in measured if (row.layer, row.precision, row.masks, row.backend) == key
        }
        cells = [words.ratio(here[each]) if each in here else "" for each in sparsities]
        lines.append([_layer(key[0]), *key[1:], *cells, break_even(list(here.items()))])
    return words.table(["layer", "precision", "masks", "backend", *map(words.percent, sparsities), "break-even"], lines)


def best_table(measured: Sequence[Ratio]) -> list[str]:
    """The faster of our backends, on masks of tickets, or random ones where a layer has no ticket."""
    ticket = {(row.layer, row.precision) for row in measured if row.masks == "ticket"}
    chosen = [row for row in measured if (row.masks == "ticket") == ((row.layer, row.precision) in ticket)]
    sparsities = sorted({row.sparsity for row in chosen})
    lines = []
    for layer, precision in dict.fromkeys((row.layer, row.precision) for row in chosen):
        line = [_layer(layer), precision]
        for sparsity in sparsities:
            key = layer, precision, sparsity
            here = [row for row in chosen if (row.layer, row.precision, row.sparsity) == key]
            best = max(here, key=lambda row: row.value, default=None)
            line.append(f"{words.ratio(best.value)} {best.backend}" if best else "")
        lines.append(line)
    return words.table(["forward + backward", "precision", *map(words.percent, sparsities)], lines)


def losing_table(found: dict[str, Any]) -> list[str]:
    """What is slower than dense PyTorch: a line a layer, precision, kind of mask and backend."""
    losing = [row for row in ratios(found) if row.value < 1]
    slow_auto = [
        [_layer(row["layer"]), "tf32", "random", "auto", f"{words.percent(row['sparsity'])}: {value:.2f}"]
        for row in found["auto"]
        if (value := row["microseconds"]["dense"] / row["microseconds"]["auto"]) < 1
    ]
    slow_steps = [
        [f"a step of {step['network']}", "tf32", "random", side, f"{words.percent(step['sparsity'])}: {value:.2f}"]
        for step in found["steps"]
        for side, value in step_ratios(step).items()
        if value < 1
    ]
    keys = dict.fromkeys((row.layer, row.precision, row.masks, row.backend) for row in losing)
    lines = [
        [_layer(key[0]), *key[1:], ", ".join(f"{words.percent(row.sparsity)}: {row.value:.2f}" for row in losing
         if (row.layer, row.precision, row.masks, row.backend) == key)]
        for key in keys
    ]  # fmt: skip
    if not lines + slow_auto + slow_steps:
        return ["None."]
    titles = ["layer", "precision", "masks", "backend", "sparsity: ratio"]
    return words.table(titles, lines + slow_auto + slow_steps)


def errors(measured: Sequence[Ratio]) -> list[str]:
    """The worst error of each backend and precision, in a list."""
    lines = []
    for backend, precision in dict.fromkeys((row.backend, row.precision) for row in measured):
        rows = [row for row in measured if (row.backend, row.precision) == (backend, precision)]
        error, worst = max(
            ((row.error, row) for row in rows if row.error is not None), key=itemgetter(0), default=(0, None)
        )
        if worst is not None:
            lines.append(
                f"- Largest error against float64 of {backend} in {precision}: {error:.2f} of dense PyTorch's own "
                f"({_layer(worst.layer)} at {words.percent(worst.sparsity)})"
            )
    return lines


def step_ratios(step: dict[str, Any]) -> dict[str, float]:
    """Backend -> masked dense PyTorch's time of a whole step over ours, each in its better layout."""
    best: dict[str, float] = {}
    for name, value in step["microseconds"].items():
        side = name.split(",")[0]
        best[side] = min(value, best.get(side, value))
    return {side: best["dense"] / value for side, value in best.items() if side != "dense"}


def steps(found: dict[str, Any]) -> list[str]:
    """Whole training steps, in a list."""
    return [
        f"- A training step of {step['network']} at {words.percent(step['sparsity'])}, tf32, random masks, as a CUDA "
        f"graph: {side} {words.ratio(value)} of masked dense PyTorch's speed"
        for step in found["steps"]
        for side, value in step_ratios(step).items()
    ]


def auto(found: dict[str, Any]) -> list[str]:
    """The auto backend at its best and at its worst, in a list."""
    if not found["auto"]:
        return []
    values = {
        (row["layer"], row["sparsity"]): row["microseconds"]["dense"] / row["microseconds"]["auto"]
        for row in found["auto"]
    }
    (low, slowest), (high, fastest) = min((v, k) for k, v in values.items()), max((v, k) for k, v in values.items())
    return [
        f"- `auto` on one layer in tf32: from {words.ratio(low)} of dense PyTorch's speed ({_layer(slowest[0])} at "
        f"{words.percent(slowest[1])}) to {words.ratio(high)} ({_layer(fastest[0])} at {words.percent(fastest[1])})"
    ]


def _lines(measured: Sequence[Ratio]) -> tuple[Line, ...]:
    lines = []
    for number, layer in enumerate(dict.fromkeys(row.layer for row in measured)):
        for masks, style in (("random", "o-"), ("ticket", "^--")):
            rows = [row for row in measured if (row.layer, row.masks) == (layer, masks)]
            points = sorted((row.sparsity, row.value) for row in rows)
            if len(points) >= SWEPT:
                lines.append(Line.through(f"{_layer(layer)}, {masks}", points, style=style, color=number))
    return tuple(lines)


def _reached(measured: Sequence[Ratio], backend: str, precision: str) -> list[Reached]:
    made = []
    for layer in LAYERS:
        key = (layer.name, backend, precision, "random")
        rows = [row for row in measured if (row.layer, row.backend, row.precision, row.masks) == key]
        ours = sorted((1 - row.sparsity, row.microseconds / 1000) for row in rows)
        if ours:
            dense = rows[0].dense_microseconds / 1000
            made.append(Reached(layer.spec, layer.input_shape, ours, dense, BYTES.get(precision, 4)))
    return made


def _ceilings(found: dict[str, Any]) -> list[str]:
    if "ceilings" not in found:
        return ["The GPU's ceilings were not measured in this file, so its rooflines have no roof."]
    peak, bandwidth = found["ceilings"]["fma_gflops"], found["ceilings"]["bandwidth_gbs"]
    return [f"Ceilings, measured in the same run: {peak:.0f} GFLOP/s by torch.mm in TF32, {bandwidth:.0f} GB/s."]


def _chart(name: str, title: str, lines: tuple[Line, ...]) -> Chart:
    return Chart(
        name, title, "sparsity (%)", "speedup over dense", lines, x_axis="sparsity", y_log=True, break_even=True
    )


def _layer(name: str) -> str:
    layers = {layer.name: layer for layer in LAYERS}
    return words.shape(layers[name].spec, layers[name].input_shape) if name in layers else name
