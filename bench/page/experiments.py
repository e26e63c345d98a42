"""Experiments on several seeds that are kept: a folder each, as `--replicates` or a transfer left it."""

from __future__ import annotations

from typing import Any

from bench.page import words
from bench.page.section import Section
from bench.page.sources import Experiment
from lth_sparse.report.replicates import headline, times_of_training
from lth_sparse.report.words import plus_minus
from lth_sparse.storage.arms import CONTROLS, TICKET
from lth_sparse.storage.summary import StabilityRow, SummaryRow


def section(experiment: Experiment) -> Section:
    """What the folder holds, in figures, and then in its own words."""
    info = experiment.info
    made = Section(f"{experiment.name}/", level=3)
    network, data, training = info["network"], info["dataset"], info["config"]["training"]
    length = f"{training['epochs']} epochs" if training["epochs"] else f"{training['iterations']:,} steps"
    made.say(
        f"`{network['name']}` ({network['weights']:,} weights) on {data['train']:,} images of `{data['name']}`, "
        f"{data['test']:,} test images, {length} a training, backend `{info['backend']}`, seeds "
        f"{', '.join(map(str, info['seeds']))}."
    )
    if ticket := info.get("ticket"):
        made.say(
            f"The ticket is of `{ticket['network']}` on `{ticket['dataset']}`, {words.percent(ticket['density'])} of "
            "its weights left."
        )
    made.say(*provenance(info))
    made.say(headline(experiment.rows) if not ticket else "", *filter(None, [times_of_training(info)]))
    made.say(*table(experiment.rows))
    if experiment.stabilities:
        made.say(*barriers(experiment.stabilities))
    made.say(experiment.about)
    made.say(*(f"![{plot.removesuffix('.png')}]({experiment.name}/plots/{plot})" for plot in experiment.plots))
    return made


def provenance(info: dict[str, Any]) -> list[str]:
    """Where it was measured, with what, by which command. `info`: the content of a `replicates.json`."""
    here = info["environment"]
    return [
        f"- Machine: {here['processor']}, {here['threads']} threads, {here['device']}; {here['platform']}",
        f"- Versions: torch {here['torch']}, Python {here['python']}, lth_sparse {here['lth_sparse']}",
        f"- Commit: `{here['commit']}`",
        f"- Command: `{words.command(info['command'])}`",
    ]


def barriers(rows: list[StabilityRow]) -> list[str]:
    """A line a pair of copies, which [Instability](../instability.md) explains."""
    lines = [
        [
            "dense network" if row.round == 0 else f"ticket, {words.percent(row.density)} left",
            str(row.step),
            plus_minus(row.barrier, row.barrier_half),
            row.verdict,
        ]
        for row in rows
    ]
    return words.table(["two copies of the", "from step", "error barrier, points", ""], lines)


def table(rows: list[SummaryRow]) -> list[str]:
    """A line a density."""
    arms = [arm for arm in CONTROLS.values() if any(row.arm == arm.name for row in rows)]
    titles = ["weights left", "ticket, test accuracy %", "less dense, points", ""]
    for arm in arms:
        titles += [f"{arm.words} %", "ticket less it, points"]
    lines = []
    for number in sorted({row.round for row in rows}):
        by_arm = {row.arm: row for row in rows if row.round == number}
        ticket = by_arm[TICKET.name]
        line = [words.percent(ticket.density), plus_minus(ticket.accuracy, ticket.accuracy_half)]
        line += [plus_minus(ticket.difference, ticket.difference_half), ticket.verdict or "dense"]
        for arm in arms:
            row = by_arm.get(arm.name)
            line += ["", ""] if row is None else [
                plus_minus(row.accuracy, row.accuracy_half), plus_minus(row.difference, row.difference_half)
            ]  # fmt: skip
        lines.append(line)
    return words.table(titles, lines)
