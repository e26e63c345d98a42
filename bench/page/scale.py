"""Training at scale, on paper: the file that `python -m bench.scale` writes."""

from __future__ import annotations

from itertools import groupby
from typing import Any

from bench.page import words

Found = dict[str, Any]
_MEGA, _GIGA = 1e6, 1e9


def _density(row: Found) -> str:
    return "dense" if row["density"] is None else words.percent(row["density"])


def _mega(count: float) -> str:
    return f"{count / _MEGA:,.1f}"


def _long(seconds: float) -> str:
    """Rounded, as what it was measured on asks for."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"


def memory(found: Found) -> list[str]:
    """What a network holds in training, by density, in MB."""
    kinds = ("values", "gradients", "momentum", "moments", "masks", "plans")
    lines = []
    for row in found["densities"]:
        counts = [row[kind] for kind in kinds]
        whole = sum(counts) + row["statistics"]
        sums = [whole - row["moments"], whole - row["momentum"]]
        lines.append([_density(row), *map(_mega, (*counts, *sums, row["activations"]))])
    titles = ["weights left", "values", "gradients", "SGD's momentum", "Adam's moments", "masks", "plans",
              "together, SGD", "together, Adam", "activations of an image"]  # fmt: skip
    return words.table(titles, lines)


def all_reduce(found: Found) -> list[str]:
    """Bytes and least times of an all-reduce, by density and number of GPUs."""
    made: list[str] = []
    for cluster in found["clusters"]:
        lines = []
        for row in found["densities"]:
            times = row["allreduce"][cluster["name"]]
            cells = [f"{1000 * took:.2f} ({words.percent(took / (took + found['step_seconds']))})" for took in times]
            lines.append([_density(row), _mega(row["gradients"]), *cells])
        titles = ["weights left", "gradients, MB", *(f"{gpus} GPUs: ms (share)" for gpus in found["gpus"])]
        made += [f"{cluster['name']}:", "", *words.table(titles, lines), ""]
    return made[:-1]


def sweep(found: Found) -> list[str]:
    """What the runs of a sweep cost beside their training."""
    about, tiny = found["sweep"], found["sweep"]["tiny"]
    runs, overviews = about["runs"], found["overviews"]
    last = overviews[-1]
    processes = about["process_seconds"]
    each = last["page"] + last["table"]
    # Written after every run, of as many runs as are over: the sum of 1 to N.
    every_time = each / last["runs"] * runs * (runs + 1) / 2
    lines = [
        ["a process that imports ours, without a run", f"{processes['import lth_sparse.run']:.0f} s", "once"],
        ["a run of next to no steps, on one seed: a process", f"{processes['a tiny run']:.0f} s",
         _long(runs * processes["a tiny run"])],
        ["of that, what is not importing: the beginning, the end, the pages", f"{tiny['seconds']:.0f} s",
         _long(runs * tiny["seconds"])],
        ["to go over a finished run, with `--resume`", f"{tiny['resumed_seconds']:.0f} s",
         _long(runs * tiny["resumed_seconds"])],
        *([f"table and page of {row['runs']:,} runs", f"{row['table'] + row['page']:.1f} s", ""] for row in overviews),
        [f"table and page of {runs:,} runs, in proportion to {last['runs']:,}", _long(each / last["runs"] * runs),
         "at most 2 % of the sweep"],
        ["had they been written after every run", "", _long(every_time)],
        ["files of a run on one seed", str(tiny["files"]), f"{runs * tiny['files']:,}"],
        ["bytes of it, tickets left out", f"{(tiny['bytes'] - tiny['tickets']) / _MEGA:.1f} MB",
         f"{runs * (tiny['bytes'] - tiny['tickets']) / _GIGA:,.0f} GB"],
        [f"tickets of {about['rounds']} rounds of {found['network']}", f"{about['lottery_bytes'] / _MEGA:,.0f} MB",
         f"{runs * about['lottery_bytes'] / 1e12:.1f} TB"],
    ]  # fmt: skip
    return words.table(["", "one", f"{runs:,}"], lines)


def checks(found: Found) -> list[str]:
    """How far what was counted is from the formulas."""
    lines = []
    for kind, rows in groupby(sorted(found["checks"], key=lambda row: str(row["kind"])), lambda row: row["kind"]):
        of_kind = list(rows)
        worst = max(of_kind, key=lambda row: abs(row["off"]))
        lines.append(
            [kind, "; ".join(dict.fromkeys(row["what"] for row in of_kind)), _mega(worst["formula"]),
             _mega(worst["measured"]), f"{100 * worst['off']:+.1f} %", words.percent(found["most_off"][kind])]
        )  # fmt: skip
    titles = ["what", "of", "furthest off: formula, MB", "counted, MB", "off", "may be"]
    return words.table(titles, lines)
