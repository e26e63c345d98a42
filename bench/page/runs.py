"""The lottery runs that are kept: a folder each, as `python -m lth_sparse.run` left it."""

from __future__ import annotations

from bench.page import words
from bench.page.charts import Chart, Line
from bench.page.section import Section
from bench.page.sources import Run
from lth_sparse.report.words import duration
from lth_sparse.storage.record import Record

MOMENTS = {"adam": 2, "sgd": 1}
"""Numbers that the optimizer keeps for each parameter; sgd with momentum."""
FLOAT = 4
MIB = 2**20


def section(run: Run) -> Section:
    """What the folder holds, in figures, and then in its own words."""
    info, here = run.info, run.info["environment"]
    made = Section(f"{run.name}/", level=3)
    network, data = info["network"], info["dataset"]
    training, pruning = info["config"]["training"], info["config"]["pruning"]
    length = f"{training['epochs']} epochs" if training["epochs"] else f"{training['iterations']} steps"
    made.say(
        f"`{network['name']}` ({network['weights']:,} weights) on {data['train']:,} images of `{data['name']}`, "
        f"{data['test']:,} test images, {pruning['rounds']} rounds of {length}"
        + (", each with its random control" if run.rounds[-1].accuracy_random is not None else "")
        + f", backend `{info['backend']}`, seed {info['config']['seed']}.",
    )
    made.say(
        f"- Machine: {here['processor']}, {here['threads']} threads, {here['device']}; {here['platform']}",
        f"- Versions: torch {here['torch']}, Python {here['python']}, lth_sparse {here['lth_sparse']}",
        f"- Commit: `{here['commit']}`",
        f"- Command: `{words.command(info['command'])}`",
    )
    made.say(run.about)
    made.say(*rounds_table(run))
    made.say(*choice(run))
    made.show(step_chart(run))
    if info["backend"] != "dense":
        made.show(memory_chart(run))
    made.say(*(f"![{plot.removesuffix('.png')}]({run.name}/plots/{plot})" for plot in run.plots))
    made.say(*losing(run))
    return made


def rounds_table(run: Run) -> list[str]:
    """A line a round."""
    titles = ["round", "weights left", "test accuracy %", "random mask %", "step ms", "masked dense ms", "speedup"]
    lines = [
        [
            str(row.round),
            words.percent(row.density),
            f"{100 * row.accuracy_retrained:.2f}",
            "" if row.accuracy_random is None else f"{100 * row.accuracy_random:.2f}",
            f"{row.step_ms:.1f}",
            f"{row.dense_step_ms:.1f}",
            f"{row.speedup:.2f}",
        ]
        for row in run.rounds
    ]
    return words.table([*titles, "training s"], [[*line, f"{row.seconds:.0f}"] for line, row in
                                                 zip(lines, run.rounds, strict=True)])  # fmt: skip


def accuracy_table(run: Run) -> list[str]:
    """The same on its side, accuracies alone."""
    titles = ["weights left", *(words.percent(row.density) for row in run.rounds)]
    ticket = ["ticket, test accuracy %", *(f"{100 * row.accuracy_retrained:.2f}" for row in run.rounds)]
    control = ["" if row.accuracy_random is None else f"{100 * row.accuracy_random:.2f}" for row in run.rounds]
    return words.table(titles, [ticket] + ([["random mask", *control]] if any(control) else []))


def choice(run: Run) -> list[str]:
    """The ticket that validation chose, in a list."""
    best, dense = Record(rounds=run.rounds).best_ticket(), run.rounds[0]
    random = "" if best.accuracy_random is None else f", a random mask of the same size {points(best.accuracy_random)}"
    return [
        f"- The ticket chosen on validation accuracy alone has {words.percent(best.density)} of the weights (round "
        f"{best.round}): {points(best.accuracy_retrained)} of the test images, the dense network "
        f"{points(dense.accuracy_retrained)}{random}.",
        f"- Training the {len(run.rounds)} tickets, round 0 included, took {duration(seconds(run))}, "
        "without evaluations and controls.",
    ]


def seconds(run: Run) -> float:
    """Of training all tickets."""
    return sum(row.seconds for row in run.rounds)


def losing(run: Run) -> list[str]:
    """Rounds that are slower or less accurate than the dense network, in a list."""
    dense = run.rounds[0].accuracy_retrained
    behind = [row for row in run.rounds[1:] if row.accuracy_retrained < dense]
    slow = [row for row in run.rounds if row.speedup < 1]
    lines = []
    if behind:
        points = ", ".join(f"{words.percent(r.density)}: {100 * (r.accuracy_retrained - dense):.1f}" for r in behind)
        lines.append(f"- Losing: tickets behind the dense network on the test set (weights left: points): {points}.")
    if slow:
        ratios = ", ".join(f"round {row.round}: {row.speedup:.2f}" for row in slow)
        lines.append(f"- Losing: steps not faster than masked dense beside them: {ratios}.")
    return lines


def step_chart(run: Run) -> Chart:
    """The time of a training step, round after round."""
    rounds = tuple(float(row.round) for row in run.rounds)
    lines = (
        Line("masked dense", rounds, tuple(row.dense_step_ms for row in run.rounds), "s--", color=1),
        Line(f"this run ({run.info['backend']})", rounds, tuple(row.step_ms for row in run.rounds)),
    )
    return Chart(f"{run.name}-steps", run.name, "round", "training step, ms", lines)


def state_bytes(run: Run, live: int) -> int:
    """Parameters, gradients and the optimizer's moments, with `live` of the prunable weights and all else."""
    network = run.info["network"]
    parameters = live + network["parameters"] - network["weights"]
    return FLOAT * parameters * (2 + MOMENTS[run.info["config"]["training"]["optimizer"]])


def memory_chart(run: Run) -> Chart:
    """What training a round's ticket has to hold, dense and in sparse layers."""
    rounds = tuple(float(row.round) for row in run.rounds)
    whole = state_bytes(run, run.info["network"]["weights"]) / MIB
    live = tuple(state_bytes(run, row.live_weights) / MIB for row in run.rounds)
    lines = (
        Line("masked dense", rounds, (whole,) * len(rounds), "s--", color=1),
        Line("sparse layers", rounds, live),
    )
    return Chart(f"{run.name}-memory", run.name, "round", "training state, MiB", lines)


def points(accuracy: float) -> str:
    return f"{100 * accuracy:.2f} %"
