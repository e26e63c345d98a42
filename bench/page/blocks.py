"""The figures in README.md and docs/*.md: blocks between `<!-- results: NAME -->` and `<!-- end -->`."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from bench.page import coursework, cpu, engines, front, gpu, losing, lotteries, runs, scale, words
from bench.page.sources import Run, Sources
from lth_sparse.report.words import duration

PROCESSOR = "cpu-amd-epyc-family-26-model-2-threads-2.json"
"""The file of the machine that the documents are about; the page shows all."""
_BLOCK = re.compile(r"(<!-- results: (?P<name>[a-z-]+) -->\n)(?P<body>.*?)(<!-- end -->)", re.DOTALL)


def filled(text: str, sources: Sources) -> str:
    """`text`, with every block as `sources` have it. Raises KeyError for a block that nothing makes."""
    return _BLOCK.sub(lambda found: found[1] + "\n".join(BLOCKS[found["name"]](sources)) + "\n" + found[4], text)


def names(text: str) -> list[str]:
    """The blocks of `text`."""
    return [found["name"] for found in _BLOCK.finditer(text)]


def without_blocks(text: str) -> str:
    """What a person wrote of it."""
    return _BLOCK.sub("", text)


def processor(sources: Sources) -> dict[str, Any]:
    """The file of PROCESSOR."""
    return sources.cpu[PROCESSOR]


def _measured_on(sources: Sources) -> list[str]:
    return words.provenance(processor(sources))


def _cpu_steps(sources: Sources) -> list[str]:
    found = processor(sources)
    return [*cpu.steps_table(found), "", *cpu.memory(found)]


def _cpu_losing(sources: Sources) -> list[str]:
    found = processor(sources)
    return ["Short of the floor:", "", *losing.missed_table(found), "", "Slower than dense, or larger:", "",
            *losing.slower_table(found)]  # fmt: skip


def _lottery(sources: Sources) -> list[str]:
    """The lottery with a control, and beside it the same run by another backend."""
    reference, *others = sorted(sources.runs, key=lambda run: run.info["backend"] != "dense")
    lines = [_about(reference), "", *runs.accuracy_table(reference), "", *runs.choice(reference)]
    for run in others:
        last, saved = run.rounds[-1], duration(runs.seconds(run))
        lines.append(
            f"- The same with `--backend {run.info['backend']}`: {saved} of training; a step at "
            f"{words.percent(last.density)} of the weights was {words.ratio(last.speedup)} times faster than masked "
            "dense beside it."
        )
    return lines


def _about(run: Run) -> str:
    training, pruning = run.info["config"]["training"], run.info["config"]["pruning"]
    network = run.info["network"]
    return (
        f"`{network['name']}` ({network['weights']:,} weights), {training['epochs']} epochs a round, "
        f"{pruning['rounds']} rounds, each with its random control (`docs/results/{run.name}/`):"
    )


def _whole_lottery(sources: Sources) -> list[str]:
    return lotteries.summary(sources.lotteries) if sources.lotteries else [lotteries.NOT_YET]


def _throughput(sources: Sources) -> list[str]:
    """Of `--backend dense` over a plain loop, from the lines that bench/test_training_throughput.py prints."""
    machine, *lines = sources.throughput
    rows = [
        [f"`{at['name']}`", f"{float(at['ratio']):.2f} ({float(at['low']):.2f} to {float(at['high']):.2f})"]
        for line in lines
        if (at := re.match(r"(?P<name>\S+) .* ratio (?P<ratio>\S+) \(quartiles (?P<low>\S+) to (?P<high>\S+)\)", line))
    ]
    return [f"{machine}:", "", *words.table(["network", "ratio (quartiles of the pairs)"], rows)]


def _engines(sources: Sources) -> list[str]:
    """Of each machine that other engines were measured on, losing rows in."""
    lines: list[str] = []
    for found in sources.engines.values():
        lines += ["", *words.provenance(found), "", *engines.table(found)]
    return lines[1:]


def _scale(sources: Sources, made: Callable[[dict[str, Any]], list[str]]) -> list[str]:
    """Of the one network that docs/scale.md is about."""
    return made(sources.scales["scale-resnet50.json"])


def _gpu(sources: Sources) -> list[str]:
    if not sources.gpu:
        return [gpu.NOT_YET]
    lines: list[str] = []
    for found in sources.gpu.values():
        lines += ["", *words.provenance(found), *gpu.checks(found), "", *gpu.best_table(gpu.ratios(found)), ""]
        lines += [*gpu.steps(found), *gpu.auto(found)]
    return lines[1:]


BLOCKS = {
    "numbers": lambda sources: front.numbers(sources, processor(sources)),
    "measured-on": _measured_on,
    "lottery": _whole_lottery,
    "lottery-run": _lottery,
    "cpu-layers": lambda sources: cpu.layers_table(processor(sources)),
    "cpu-steps": _cpu_steps,
    "cpu-losing": _cpu_losing,
    "throughput": _throughput,
    "engines": _engines,
    "gpu": _gpu,
    "coursework": lambda sources: coursework.table(sources.coursework),
    "scale-about": lambda sources: _scale(sources, words.provenance),
    "scale-memory": lambda sources: _scale(sources, scale.memory),
    "scale-all-reduce": lambda sources: _scale(sources, scale.all_reduce),
    "scale-sweep": lambda sources: _scale(sources, scale.sweep),
    "scale-checks": lambda sources: _scale(sources, scale.checks),
}
"""Name -> what makes its lines."""
