"""Numbers and sentences of the report, in plain text: nothing here knows about HTML or plots."""

from __future__ import annotations

import math
from typing import Any

from lth_sparse.storage.arms import RecordedArm, beside
from lth_sparse.storage.record import Record, Round

DASH = "\N{EN DASH}"
TIMES = "\N{MULTIPLICATION SIGN}"
EMULATION = "emulation of a missing rewind"
NO_BREAK = "\N{NO-BREAK SPACE}"


def known(value: float | None) -> bool:
    """Whether `value` was measured: neither None nor NaN nor infinite."""
    return value is not None and math.isfinite(value)


def number(value: float | None, form: str = ",.0f") -> str:
    """`value` in the format `form`, or a dash where it was not measured."""
    return format(value, form) if value is not None and known(value) else DASH


def percent(fraction: float | None, digits: int = 1) -> str:
    """A fraction, such as an accuracy, as a percentage."""
    return f"{100 * fraction:.{digits}f}{NO_BREAK}%" if fraction is not None and known(fraction) else DASH


def weights_left(density: float | None) -> str:
    """A density as a percentage of three figures, so that 0.4 % does not read as 0 %."""
    return f"{100 * density:.3g}{NO_BREAK}%" if density is not None and known(density) else DASH


def times(ratio: float | None) -> str:
    """A speedup."""
    return number(ratio, ".2f") + TIMES if known(ratio) else DASH


def plus_minus(mean: float | None, half: float | None) -> str:
    """A fraction in percent and half its interval, with no more digits than the interval allows: one of it, two where
    the first is a 1."""
    if mean is None or not known(mean):
        return DASH
    if half is None:
        return format(100 * mean, ".1f")
    digits = 2
    if half > 0:
        leading = math.floor(math.log10(100 * half))
        digits = min(max(0, (0 if 100 * half >= 2 * 10**leading else 1) - leading), 2)
    return f"{100 * mean:.{digits}f} ± {100 * half:.{digits}f}"


def duration(seconds: float) -> str:
    """In the two largest units that it has, of hours, minutes and seconds."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.0f} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def error(value: float | None) -> str:
    """A relative error: exactly zero reads as 0, everything else by its order of magnitude."""
    return "0" if value == 0 else number(value, ".1e")


def field(info: dict[str, Any], *path: str) -> Any:
    """The entry of nested `info` at `path`, or None: a run that just started knows little of itself."""
    value: Any = info
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def dataset_name(info: dict[str, Any]) -> str:
    """The data set that the numbers are about."""
    return str(field(info, "dataset", "name") or "an unnamed data set")


def emulates(info: dict[str, Any]) -> bool:
    """Whether the run emulates a published mistake: it is no lottery, and has to say so wherever it is shown."""
    return field(info, "config", "pruning", "rewind") == "aliased"


def subject(info: dict[str, Any]) -> str:
    """What was trained on what, such as "small on digits"."""
    what = f"{field(info, 'network', 'name') or 'network'} on {dataset_name(info)}"
    return f"{what} ({EMULATION})" if emulates(info) else what


def labelled(info: dict[str, Any], sentence: str) -> str:
    """A sentence of what came out, with what it is a result of where that is no lottery."""
    return f"{EMULATION.capitalize()}: {sentence}" if emulates(info) else sentence


_STATISTICS = {
    "synchronised": "; BatchNorm's statistics in training are those of the whole batch (synchronised)",
    "local": "; BatchNorm's statistics in training are those of each process's part (local)",
}


def several(info: dict[str, Any]) -> str:
    """How several processes played the run, without a full stop; "" where one did."""
    count = field(info, "environment", "processes")
    if not count or count == 1:
        return ""
    of_norms = _STATISTICS.get(str(field(info, "environment", "batch_norm")), "")
    return f"{count} processes train together, each on its part of every batch{of_norms}"


def wins(row: Round, record: Record) -> bool:
    """Whether the ticket of `row` validates at least as well as the dense network."""
    return row.round > 0 and row.accuracy_validation >= record.rounds[0].accuracy_validation


def headline(info: dict[str, Any], record: Record) -> str:
    """What came out, in one sentence that names the data set."""
    data = dataset_name(info)
    if not record.rounds:
        return f"No round finished yet on {data}."
    dense = record.rounds[0]
    dense_accuracy = percent(dense.accuracy_retrained)
    if len(record.rounds) == 1:
        return f"The dense network reaches {dense_accuracy} test accuracy on {data}; no pruned round has finished yet."
    best = record.best_ticket()
    reached = f"{percent(best.accuracy_retrained)} test accuracy"
    left = weights_left(best.density)
    if wins(best, record):
        return (
            f"A ticket with {left} of the weights reaches {reached} on {data}; "
            f"the dense network reaches {dense_accuracy}."
        )
    return (
        f"No ticket on {data} validates as well as the dense network: the best one, with {left} of the "
        f"weights, reaches {reached}; the dense network reaches {dense_accuracy}."
    )


def choice(info: dict[str, Any], record: Record) -> list[str]:
    """How the ticket of the headline was chosen, and what its accuracy is held against, in sentences."""
    if len(record.rounds) < 2:
        return []
    dense, best = record.rounds[0], record.best_ticket()
    chosen, bar = percent(best.accuracy_validation), percent(dense.accuracy_validation)
    if info.get("validated") is False:
        sentences = [
            "The ticket was chosen by the very evaluation that is quoted, which flatters it: nothing was held back to "
            "choose on."
        ]
    elif wins(best, record):
        sentences = [
            "It was chosen on validation accuracy alone, as the sparsest ticket that validates at least as "
            f"well as the dense network ({chosen} against {bar}); the test set selected nothing."
        ]
        if best.accuracy_retrained < dense.accuracy_retrained:
            sentences.append("It matched the dense network on the validation set, not on the test set.")
    else:
        sentences = [
            f"It was chosen on validation accuracy alone, as the ticket that validates best ({chosen}, "
            f"the dense network {bar}); the test set selected nothing."
        ]
    return sentences + [_control(best, *each) for each in beside(best) if known(each[1])] + _resolution(info)


def _control(best: Round, arm: RecordedArm, accuracy: float) -> str:
    sentence = f"{arm.says[0].upper()}{arm.says[1:]}, trained alike, reaches {percent(accuracy)}"
    return (
        f"{sentence}: in this round, no less than the ticket."
        if accuracy >= best.accuracy_retrained
        else f"{sentence}."
    )


def _resolution(info: dict[str, Any]) -> list[str]:
    images = field(info, "dataset", "test")
    if not images:
        return []
    return [f"With {images:,} test images, one image is {100 / images:.2g} percentage points."]


def progress(info: dict[str, Any], record: Record) -> str:
    """How far the run has come."""
    planned = field(info, "config", "pruning", "rounds")
    if not record.rounds:
        return "round 0, the dense network, is still training"
    done = len(record.rounds) - 1
    if planned is None:
        return f"{done} pruned rounds finished"
    if done < planned:
        return f"still running: {done} of {planned} pruned rounds finished"
    return f"all {planned} pruned rounds finished"


def ranges(numbers: set[int]) -> str:
    """Whole numbers as ranges: {0, 1, 2, 5} is "0..2, 5"."""
    parts: list[list[int]] = []
    for value in sorted(numbers):
        if parts and value == parts[-1][-1] + 1:
            parts[-1].append(value)
        else:
            parts.append([value])
    return ", ".join(f"{part[0]}..{part[-1]}" if len(part) > 1 else str(part[0]) for part in parts)
