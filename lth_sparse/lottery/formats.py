"""In which memory format a training is computed: on the CPU the one that its whole step is faster in, measured."""

from __future__ import annotations

from dataclasses import replace

from lth_sparse.backends.choices import Choices, FormatChoice, FormatKey, StepKey
from lth_sparse.lottery.task import Task, Way
from lth_sparse.nn.masks import Masks
from lth_sparse.system.memory_formats import MEMORY_FORMATS
from lth_sparse.system.timing import side_by_side

WORTHWHILE_STEPS = 1000
"""Of a training. What is shorter takes the format that is usually faster; measuring takes a hundredth of so many."""
STEPS = 3
"""Timed of each format, after those that warm up."""
CLEAR_LEAD = 1.1
"""A choice that leads by so much holds for up to half as many live weights: what differs between formats is mostly
the rest of the step, which does not shrink with the weights."""
HELD_FOR = 2.0


class Formats:
    """Settles the format of each training of `task`; measures nothing that `choices` know, and adds what it measured.

    `worthwhile`: trainings of fewer steps are not measured. On a GPU, and where no weight has four dimensions, nothing
    is. A choice counts for all masks of as many live weights in each layer, and masked dense PyTorch's for all masks.
    """

    def __init__(self, task: Task, choices: Choices, worthwhile: int) -> None:
        self._task = task
        self._choices = choices
        convolutional = any(weight.dim() == 4 for weight in task.model.parameters())
        self._measured = task.device.type == "cpu" and convolutional and task.steps >= worthwhile

    def way(self, backend: str, key: StepKey, masks: Masks, round: int) -> Way:
        """How `backend` trains `masks` in `round`. `key`: of that step."""
        choice = self.known(backend, key)
        if choice is None and self._measured:
            choice = self._measure(backend, masks, round)
        if choice is None:
            return Way(backend, self._task.usual_format)
        self._choices.formats[_format_key(backend, key)] = choice
        return Way(backend, choice.memory_format)

    def known(self, backend: str, key: StepKey) -> FormatChoice | None:
        """What is known of that step's format, from another mask if that leaves no doubt; None if nothing is."""
        wanted = _format_key(backend, key)
        if wanted in self._choices.formats:
            return self._choices.formats[wanted]
        for other, choice in self._choices.formats.items():
            denser = other.family() == wanted.family() and wanted.live <= other.live <= HELD_FOR * wanted.live
            if denser and choice.measured_at is None and choice.lead >= CLEAR_LEAD:
                return replace(choice, measured_at=other.live)
        return None

    def _measure(self, backend: str, masks: Masks, round: int) -> FormatChoice:
        contestants = [self._task.contestant(Way(backend, name), masks, round) for name in MEMORY_FORMATS]
        steps = [contestant.step for contestant in contestants]
        milliseconds = dict(
            zip(MEMORY_FORMATS, side_by_side(steps, self._task.device, fewest=STEPS, most=STEPS), strict=True)
        )
        return FormatChoice(min(milliseconds, key=lambda name: milliseconds[name]), milliseconds)


def _format_key(backend: str, key: StepKey) -> FormatKey:
    return FormatKey(key._replace(live=()) if backend == "dense" else key, backend)
