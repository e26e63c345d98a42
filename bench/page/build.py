"""The page, its charts and the documents with figures of it, as they have to be: path from the root -> content."""

from __future__ import annotations

from pathlib import Path

from bench.page import (
    accuracy,
    blocks,
    busy,
    claims,
    cpu,
    engines,
    experiments,
    front,
    gpu,
    losing,
    lotteries,
    peers,
    runs,
)
from bench.page.charts import Chart
from bench.page.section import Section
from bench.page.sources import PAGE, ROOT, Sources

PAGE_TEXT = PAGE / "README.md"

_OPENING = """<!-- Made by `make results` of bench/results/*.json and the folders beside this file. Do not edit. -->

# Results

`make results` makes this page, its charts and the figures of [README.md](../../README.md) and of the pages beside it of
the files that it names; nothing is typed by hand but the comments on the lottery runs (`about.md` in their folders).
[CONTRIBUTING.md](../../CONTRIBUTING.md) says how to measure again.
"""


def sections(sources: Sources) -> list[Section]:
    """The page, in reading order."""
    made = [front.section(sources, blocks.processor(sources)), *lotteries.sections(sources.lotteries)]
    made += [cpu.section(name, found) for name, found in sources.cpu.items()]
    made += [peers.section(name, found) for name, found in sources.peers.items()]
    made += [engines.section(name, found) for name, found in sources.engines.items()]
    made += [busy.section(name, found) for name, found in sources.busy.items()]
    made += [accuracy.section(name, found) for name, found in sources.accuracies.items()]
    made += gpu.sections(sources.gpu)
    kept = Section("Lottery runs")
    kept.say(
        "The test set selects nothing. `speedup` is the time of a masked dense step over that of the run's own, timed",
        "in turn after each round. Training state is counted, 4 bytes a number: parameters, gradients and moments of",
        "the optimizer, in sparse layers; a round that masked dense trains holds all of it.",
    )
    made += [kept, *(runs.section(run) for run in sources.runs)]
    if sources.experiments:
        several = Section("Experiments on several seeds")
        several.say(
            "Means over seeds with half their 95 % interval (Student's t); differences are taken within a seed, in",
            "points of test accuracy. [Several seeds](../several-seeds.md) says what each verdict means.",
        )
        made += [several, *(experiments.section(each) for each in sources.experiments)]
    made += claims.sections(sources.claims)
    throughput = Section("Training throughput of the dense backend")
    throughput.say("Over a plain hand-written PyTorch loop, a step of each in turn (`make bench-full`); 1 is equal.")
    throughput.say("```text", *sources.throughput, "```")
    return [*made, throughput, losing.section(sources)]


def text(parts: list[Section]) -> str:
    """The page of these sections."""
    contents = [f"- [{part.heading}](#{_anchor(part.heading)})" for part in parts if part.level == 2]
    return "\n".join([_OPENING, *contents, "", *(line for part in parts for line in part.text())]).rstrip() + "\n"


def charts(parts: list[Section]) -> list[Chart]:
    """All that the page shows."""
    return [chart for part in parts for chart in part.charts]


def documents(sources: Sources, root: Path = ROOT) -> dict[Path, str]:
    """Each document that has figures, with them as they were measured."""
    written = {path.relative_to(root): path.read_text() for path in (root / "README.md", *(root / "docs").glob("*.md"))}
    return {path: blocks.filled(text, sources) for path, text in sorted(written.items()) if blocks.names(text)}


def _anchor(heading: str) -> str:
    """As GitHub makes it."""
    kept = "".join(letter for letter in heading.lower() if letter.isalnum() or letter in " -_")
    return kept.replace(" ", "-")
