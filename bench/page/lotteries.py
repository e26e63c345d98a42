"""Whole lotteries, auto against masked dense PyTorch: the files that bench/lottery/ writes."""

from __future__ import annotations

from typing import Any

from bench.page import kernels, words
from bench.page.charts import Chart, Line
from bench.page.section import Section
from lth_sparse.report.words import duration

NOT_YET = "Not measured yet: no file of `make lottery` is under `bench/results/`."
MIB = 2**20
SIDES = {"dense": "masked dense", "auto": "`auto`"}


def sections(files: dict[str, dict[str, Any]]) -> list[Section]:
    """One for all, and one for each file under it."""
    head = Section("A whole lottery")
    if not files:
        head.say(NOT_YET)
        return [head]
    head.say(
        "The time of a full iterative run under `auto` and under masked dense PyTorch. Played for real, both take",
        "turns, round by round, in one process; wall time is all of a round: training, evaluations, pruning, proofs,",
        "timing, choosing and packing. Extrapolated, it is that of the training steps alone, worked out of measured",
        "ones. Each side trains in the memory format that its own step is faster in. What sparsity itself gives is the",
        "speedup over as many steps under `auto` with nothing pruned, whatever kernels those took.",
    )
    head.say(*summary(files))
    return [head, *(_section(name, found) for name, found in files.items())]


def title(found: dict[str, Any]) -> str:
    """Which network on which images, on what."""
    here, data = found["measured_on"], found["dataset"]
    machine = here["processor"] if here["device"] == "cpu" else here["device"]
    size = "x".join(map(str, data["image_shape"][1:]))
    kind = ", extrapolated" if found["extrapolated"] else ""
    return f"{found['network']['name']} on {size} images of {data['name']}, {machine}{kind}"


def totals(found: dict[str, Any], column: str) -> dict[str, float]:
    """Side -> its seconds over all rounds."""
    return {side: sum(row["sides"][side][column] for row in found["rounds"]) for side in SIDES}


def summary(files: dict[str, dict[str, Any]]) -> list[str]:
    """A line a file: the headline figures."""
    titles = ["lottery", "rounds", "steps a round", "weights left", "masked dense", "`auto`", "times faster",
              "times faster, training alone", "over `auto` with nothing pruned", "layers computed by",
              "last ticket, test accuracy %: masked dense; `auto`"]  # fmt: skip
    lines = []
    for found in files.values():
        last = found["rounds"][-1]
        training = totals(found, "training_seconds")
        whole = training if found["extrapolated"] else totals(found, "wall_seconds")
        accuracies = [last["sides"][side].get("accuracy") for side in SIDES]
        lines.append(
            [
                title(found),
                str(last["round"]),
                f"{last['iterations']:,}",
                words.percent(last["density"]),
                duration(whole["dense"]),
                duration(whole["auto"]),
                words.ratio(whole["dense"] / whole["auto"]),
                words.ratio(training["dense"] / training["auto"]),
                words.ratio(by_sparsity(found)),
                kernels.in_words(kernels.of_all_rounds(found)) or "not recorded",
                "; ".join("" if value is None else f"{100 * value:.2f}" for value in accuracies)
                if None not in accuracies
                else "not trained",
            ]
        )
    return words.table(titles, lines)


def by_sparsity(found: dict[str, Any]) -> float:
    """What the steps would have taken under auto with nothing pruned, over what they took."""
    rows = found["rounds"]
    unpruned = sum(row["iterations"] * rows[0]["step_ms"] for row in rows)
    return float(unpruned / sum(row["iterations"] * row["step_ms"] for row in rows))


def _section(name: str, found: dict[str, Any]) -> Section:
    slug = name.removesuffix(".json")
    made = Section(title(found), level=3)
    data, training = found["dataset"], found["config"]["training"]
    made.say(*words.provenance(found), f"- Data: `bench/results/{name}`")
    if found["extrapolated"]:
        made.say(f"**Extrapolated** {found['extrapolated']}. Evaluations, pruning, choosing and packing are not in it.")
    images = f"{data['train']:,} images to train on"
    images += "" if found["extrapolated"] else f", {data['test']:,} to test on"
    made.say(f"{images}, batches of {training['batch_size']}, {training['optimizer']}; seed {found['config']['seed']}.")
    made.say(*rounds_table(found))
    made.show(_chart(f"{slug}-steps", found, "training step, ms", _steps(found)))
    share = kernels.chart(f"{slug}-kernels", _title(found), found)
    if share is not None:
        made.show(share)
        made.say(
            "Of the layers' operations, by the times that `auto` measured when it chose; what lies between the layers",
            "is not in it.",
        )
    made.show(_chart(f"{slug}-memory", found, "held between steps, MiB", _memory(found, "held_bytes")))
    made.say(
        "Held between steps, counted on the tensors: parameters, gradients, optimizer, buffers, and masks or plans.",
    )
    if "peak_bytes" in found["rounds"][0]["sides"]["auto"]:
        made.show(_chart(f"{slug}-peak", found, "peak of a step, MiB", _memory(found, "peak_bytes")))
    made.say(*losing(found))
    return made


def rounds_table(found: dict[str, Any]) -> list[str]:
    """A line a round."""
    titles = [
        "round",
        "weights left",
        "trained by",
        "step ms, masked dense",
        "`auto`",
        "training s, masked dense",
        "`auto`",
    ]
    real, told = not found["extrapolated"], "kernels" in found["rounds"][0]
    titles[5:5] = ["times faster", "over `auto` with nothing pruned"]
    titles[3:3] = ["memory format: masked dense; `auto`", "layers computed by"] if told else []
    titles += ["wall s, masked dense", "`auto`", "test accuracy %, masked dense", "`auto`"] if real else []
    unpruned = found["rounds"][0]["step_ms"]
    lines = []
    for row in found["rounds"]:
        sides = [row["sides"][side] for side in SIDES]
        line = [str(row["round"]), words.percent(row["density"]), row["trained_by"]]
        if told:
            line += ["; ".join(row["memory_formats"][side] for side in SIDES), kernels.in_words(row["kernels"])]
        line += [f"{row['dense_step_ms']:.3g}", f"{row['step_ms']:.3g}"]
        line += [words.ratio(before / row["step_ms"]) for before in (row["dense_step_ms"], unpruned)]
        line += [f"{side['training_seconds']:,.1f}" for side in sides]
        if real:
            line += [f"{side['wall_seconds']:,.1f}" for side in sides]
            line += [f"{100 * side['accuracy']:.2f}" for side in sides]
        lines.append(line)
    return words.table(titles, lines)


def losing(found: dict[str, Any]) -> list[str]:
    """Rounds in which auto took longer, or ended less accurate, in a list."""
    column = "training_seconds" if found["extrapolated"] else "wall_seconds"
    slow, behind = [], []
    for row in found["rounds"]:
        dense, auto = row["sides"]["dense"], row["sides"]["auto"]
        if auto[column] > dense[column]:
            slow.append(f"round {row['round']}: {dense[column] / auto[column]:.3f}")
        if not found["extrapolated"] and auto["accuracy"] < dense["accuracy"]:
            behind.append(f"round {row['round']}: {100 * (auto['accuracy'] - dense['accuracy']):.2f}")
    lines = [f"- Losing: rounds that took longer under `auto`: {', '.join(slow)}."] if slow else []
    lines += [f"- Losing: test accuracy under `auto` less masked dense, points: {', '.join(behind)}."] if behind else []
    return lines


def _steps(found: dict[str, Any]) -> dict[str, list[float]]:
    return {
        "dense": [row["dense_step_ms"] for row in found["rounds"]],
        "auto": [row["step_ms"] for row in found["rounds"]],
    }


def _memory(found: dict[str, Any], column: str) -> dict[str, list[float]]:
    return {side: [row["sides"][side][column] / MIB for row in found["rounds"]] for side in SIDES}


def _chart(name: str, found: dict[str, Any], y_label: str, values: dict[str, list[float]]) -> Chart:
    rounds = tuple(float(row["round"]) for row in found["rounds"])
    lines = (
        Line("masked dense", rounds, tuple(values["dense"]), "s--", color=1),
        Line("auto", rounds, tuple(values["auto"])),
    )
    return Chart(name, _title(found), "round", y_label, lines)


def _title(found: dict[str, Any]) -> str:
    here = found["measured_on"]
    return f"{found['network']['name']}, {here['processor'] if here['device'] == 'cpu' else here['device']}"
