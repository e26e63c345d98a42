"""The CPU kernels: the file that `python -m pytest bench/ --benchmark-only --results` writes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from bench.cases.networks import NETWORKS
from bench.page import words
from bench.page.charts import Chart, Line, crossing
from bench.page.roofline import reached_on_a_cpu, roofline
from bench.page.section import Section
from lth_sparse.backends import winograd

Row = dict[str, Any]
SWEPT = 3
"""Sparsities from which a case is a line of the charts, and a line of the first table."""
LEGEND = "minimum over minimum, in brackets median over median"
MISSED = "\\* below the floor that was set for it (`bench/cases/`)"


def section(name: str, found: dict[str, Any]) -> Section:
    """All of one file, whose name is `name`."""
    slug = name.removesuffix(".json")
    here = found["measured_on"]
    made = Section(f"CPU kernels on {words.machine(here)}")
    made.say(*words.source(name, found))
    made.say(
        "Forward pass and both gradients against the better of dense PyTorch's two layouts, all sides in turn in one",
        f"process. {LEGEND[0].upper()}{LEGEND[1:]}, then the quartiles of the turns. More is better; 1 is break-even.",
        f"{MISSED[0]}{MISSED[1]} {MISSED[3:]}.",
    )
    made.say(
        "Where little is pruned the kernels are Winograd's (`cpp/winograd`, by the rule of `cpp`), whose float32 is up",
        f"to {winograd.ERROR['4x4']:.0e} of the largest result off; elsewhere they multiply live weights only",
        "(`cpp/sparse`). The file says for each row which ones it was.",
    )
    made.say(*layers_table(found, spread=True))
    if cases(_by(found, "auto"), lambda count: count >= SWEPT):
        made.say("The same by what `auto` chose, in the layout that dense PyTorch is faster in:")
        made.say(*layers_table(found, spread=True, by="auto"))
    for kind, title in _KINDS.items():
        lines = _lines(found, kind)
        if lines:
            made.show(_chart(f"{slug}-speedup-{kind}", f"{title}, {here['processor']}", lines))
    if cases(of_layers(found), lambda count: count < SWEPT):
        made.say("Other layers, at one sparsity, by the kernels and by what `auto` chose:")
        made.say(*single_table(found))
    reached, title = reached_on_a_cpu(found), f"{here['processor']}, forward and backward"
    made.show(roofline(f"{slug}-roofline", title, reached, found.get("ceilings")))
    made.say(*_ceilings(found), *_errors(found))
    if of_networks(found):
        made.say("Whole training steps:")
        made.say(*steps_table(found, spread=True))
    made.say(*memory(found))
    if fused := _fused(found):
        made.say("What lies between convolutions, fused by `lth.fuse`, against PyTorch's modules one by one:")
        made.say(*fused_table(fused))
    return made


_KINDS = {"batch-128": "Layers at batch 128", "batch-1": "Layers at batch 1", "avx2": "AVX2 on both sides"}


def _kind(case: str) -> str:
    return next((kind for kind in ("batch-1", "avx2") if case.endswith(kind)), "batch-128")


def of_layers(found: dict[str, Any]) -> list[Row]:
    """The rows that compare a layer with dense PyTorch."""
    networks = {str(network) for network in NETWORKS}
    return [row for row in found["rows"] if " at " in row["ours"] and row["case"] not in networks]


def _fused(found: dict[str, Any]) -> list[Row]:
    return [row for row in found["rows"] if row["ours"].startswith("fused, ")]


def fused_table(rows: Sequence[Row]) -> list[str]:
    """The fused operators, a line for what each computes."""
    by_case: dict[str, list[str]] = {}
    for row in rows:
        by_case.setdefault(row["case"].rpartition(", ")[0], []).append(cell(row, spread=True))
    return words.table(["channels_last", "forward", "backward"], [[case, *cells] for case, cells in by_case.items()])


def backend(row: Row) -> str:
    """Which of ours a row is about."""
    return str(row["ours"].split(" at ")[0])


def cases(rows: Sequence[Row], chosen: Callable[[int], bool]) -> list[str]:
    """The cases, in their order, of which `chosen` takes the number of sparsities."""
    names = dict.fromkeys(row["case"] for row in rows)
    return [name for name in names if chosen(len({row["sparsity"] for row in rows if row["case"] == name}))]


def cell(row: Row, spread: bool) -> str:
    """The ratios of a row."""
    inside = words.ratio(row["by_median"])
    if spread and row["quartiles"]:
        inside += "; " + " to ".join(map(words.ratio, row["quartiles"]))
    star = "\\*" if row["verdict"] == "MISSED" else ""
    return f"{words.ratio(row['by_minimum'])} ({inside}){star}"


def _by(found: dict[str, Any], name: str) -> list[Row]:
    return [row for row in of_layers(found) if backend(row) == name]


def layers_table(found: dict[str, Any], spread: bool = False, by: str = "cpp") -> list[str]:
    """The layers that were timed at several sparsities, by the backend called `by`."""
    rows = _by(found, by)
    names = cases(rows, lambda count: count >= SWEPT)
    sparsities = sorted({row["sparsity"] for row in rows if row["case"] in names})
    by_place = {(row["case"], row["sparsity"]): row for row in rows}
    titles = ["forward + backward", *(words.percent(sparsity) for sparsity in sparsities)]
    titles += ["break-even"] if spread else []
    lines = []
    for name in names:
        places = [by_place.get((name, sparsity)) for sparsity in sparsities]
        lines.append([words.layer(name), *(cell(row, spread) if row else "" for row in places)])
        if spread:
            lines[-1].append(break_even([(row["sparsity"], row["by_minimum"]) for row in places if row]))
    return words.table(titles, lines)


def break_even(points: Sequence[tuple[float, float]]) -> str:
    """Where a line of (sparsity, ratio) reaches 1, in words."""
    sparsities, ratios = zip(*sorted(points), strict=True)
    place = crossing(sparsities, ratios)
    if place is None:
        return f"not up to {words.percent(sparsities[-1])}"
    return f"below {words.percent(place)}" if place == sparsities[0] else f"about {words.percent(place, 0)}"


def single_table(found: dict[str, Any]) -> list[str]:
    """The layers that were timed at one sparsity, by each of ours."""
    rows = of_layers(found)
    names = cases(rows, lambda count: count < SWEPT)
    backends = list(dict.fromkeys(backend(row) for row in rows if row["case"] in names))
    lines = []
    for name in names:
        of_case = {backend(row): row for row in rows if row["case"] == name}
        cells = [cell(of_case[each], spread=True) if each in of_case else "" for each in backends]
        sparsity = next(iter(of_case.values()))["sparsity"]
        lines.append([words.layer(name), words.percent(sparsity), *cells])
    return words.table(["layer", "sparsity", *backends], lines)


def _lines(found: dict[str, Any], kind: str) -> tuple[Line, ...]:
    rows = [row for row in _by(found, "cpp") if _kind(row["case"]) == kind]
    made = []
    for number, name in enumerate(cases(rows, lambda count: count >= SWEPT)):
        points = sorted((row["sparsity"], row["by_minimum"]) for row in rows if row["case"] == name)
        made.append(Line.through(words.layer(name).split(", batch")[0], points, color=number))
    return tuple(made)


def _chart(name: str, title: str, lines: tuple[Line, ...]) -> Chart:
    return Chart(
        name, title, "sparsity (%)", "speedup over dense", lines, x_axis="sparsity", y_log=True, break_even=True
    )


def _ceilings(found: dict[str, Any]) -> list[str]:
    if "ceilings" not in found:
        return ["The machine's ceilings were not measured in this file, so the roofline has no roof."]
    ceilings = found["ceilings"]
    return [
        f"Ceilings, measured in the same run: {ceilings['fma_gflops']:.0f} GFLOP/s, "
        f"{ceilings['bandwidth_gbs']:.0f} GB/s."
    ]


def _errors(found: dict[str, Any]) -> list[str]:
    """The worst of each side's operations, where they were measured."""
    worst: dict[str, dict[str, Any]] = {}
    for operation in found.get("operations", []):
        name = operation["side"]
        if operation["error"] is not None and operation["error"] >= worst.get(name, {"error": 0.0})["error"]:
            worst[name] = operation
    said = ", ".join(
        f"{name} {each['error']:.1e} ({each['operation']} of {each['case']})" for name, each in worst.items()
    )
    return [f"Largest difference from float64 over the largest entry: {said}."] if said else []


def of_networks(found: dict[str, Any]) -> list[Row]:
    """The rows of whole training steps."""
    networks = {str(network) for network in NETWORKS}
    return [row for row in found["rows"] if row["case"] in networks]


def steps_table(found: dict[str, Any], spread: bool = False) -> list[str]:
    """Whole training steps against masked dense PyTorch in its better layout."""
    rows = of_networks(found)
    sparsities = sorted({row["sparsity"] for row in rows})
    lines = []
    for name in dict.fromkeys(row["case"] for row in rows):
        line = [name]
        for sparsity in sparsities:
            here = [row for row in rows if (row["case"], row["sparsity"]) == (name, sparsity)]
            line.append("; ".join(f"{cell(row, spread)} {backend(row)}" for row in here))
        lines.append(line)
    titles = ["training step, of batch 128 where not said, against masked dense in its better format"]
    titles += [words.percent(each) for each in sparsities]
    return words.table(titles, lines)


def memory(found: dict[str, Any]) -> list[str]:
    """Peak memory of training steps, in sentences of a list."""
    peaks: dict[str, dict[str, dict[str, float]]] = {}
    for side in found["sides"]:
        if "peak_mib" in side:
            peaks.setdefault(side["case"].removesuffix(", memory"), {})[side["side"]] = side["peak_mib"]
    sparsity = {row["case"].removesuffix(", memory"): row["sparsity"] for row in found["rows"]}
    return [
        f"- Peak memory of training steps of {name} at {words.percent(sparsity[name])}: "
        + "; ".join(f"{kind} {of['dense'][kind]:.0f} MiB dense, {of['cpp'][kind]:.0f} MiB ours" for kind in of["cpp"])
        for name, of in peaks.items()
    ]
