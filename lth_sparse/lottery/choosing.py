"""How a round is trained: by which backend, in which memory format, and, under auto, by what layer by layer."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import torch

from lth_sparse.backends import winograd
from lth_sparse.backends.auto import candidates, gain_by_zeros_alone
from lth_sparse.backends.choices import Choice, Choices, StepKey
from lth_sparse.backends.registry import with_kernels
from lth_sparse.lottery.choice_rows import chosen, format_times, layers_chosen
from lth_sparse.lottery.formats import CLEAR_LEAD, HELD_FOR, WORTHWHILE_STEPS, Formats
from lth_sparse.lottery.task import Task, Way
from lth_sparse.lottery.training import Training
from lth_sparse.nn import masks as masking
from lth_sparse.nn.masks import Masks
from lth_sparse.storage.record import STEP, Chosen
from lth_sparse.storage.run_directory import RunDirectory, read_choices
from lth_sparse.system import processes
from lth_sparse.system.errors import InputError
from lth_sparse.system.messages import say
from lth_sparse.system.timing import FEWEST_STEPS, MOST_STEPS

OF_A_TRAINING = 0.01
"""The share of a training's steps that is timed, of each side, to choose between the two: a short one is not worth
more."""


class Chooser:
    """Settles what trains each mask of a run whose backend is `backend`, a name that `backends.registry.resolve` gave,
    and in which memory format.

    It measures nothing that `choices` know, and adds what it measured; of several processes the first one does so. A
    training whose step auto would not make faster, dense does; both are compared in their own better formats. `write()`
    keeps the choices with the run: it comes before any state that rests on them. `worthwhile`: as `Formats` has it.
    `seconds`: what choosing took so far.
    """

    def __init__(
        self, task: Task, backend: str, choices: Choices, store: RunDirectory, worthwhile: int = WORTHWHILE_STEPS
    ) -> None:
        self.choices = choices
        self._task = task
        self.backend = backend
        self._store = store
        self._formats = Formats(task, choices, worthwhile)
        self._written = 0
        self.seconds = 0.0
        self._last: tuple[tuple[int, StepKey], tuple[Way, list[Chosen]]] | None = None

    def choose(self, masks: Masks, round: int) -> tuple[Way, list[Chosen]]:
        """How `masks` are trained in `round`, and the rows of the record that say why, if that was measured."""
        of = round, self._key(masks)
        if self._last is not None and self._last[0] == of:  # The control's masks are as sparse as the ticket's.
            return self._last[1]
        began = time.perf_counter()
        way, rows, choices = processes.first(lambda: (*self._settled(masks, round), self.choices))
        self.choices.update(choices)
        self.seconds += time.perf_counter() - began
        self.write()
        self._last = of, (way, rows)
        return way, rows

    def _settled(self, masks: Masks, round: int) -> tuple[Way, list[Chosen]]:
        backend = self.backend if self.backend != "auto" or len(candidates()) > 1 else "dense"
        return self._by_auto(masks, round) if backend == "auto" else self._by(backend, masks, round)

    def dense(self, masks: Masks, round: int) -> Way:
        """Masked dense PyTorch in its better format, which the speedup of a round is measured against."""
        return self._way("dense", masks, round)

    def _way(self, backend: str, masks: Masks, round: int) -> Way:
        return self._formats.way(backend, self._key(masks), masks, round)

    def _by(self, backend: str, masks: Masks, round: int) -> tuple[Way, list[Chosen]]:
        """Nothing is to choose but the format. Dense's is measured too: every round is compared with it."""
        way = self._way(backend, masks, round)
        self.dense(masks, round)
        told = self._formats_told(masks, backend)
        row = Chosen(round, "", masking.density(masks), STEP, backend, {}, told, way.memory_format)
        return way, [row] if told else []

    def _by_auto(self, masks: Masks, round: int) -> tuple[Way, list[Chosen]]:
        dense, rows = self.dense(masks, round), []
        whole = all(bool(mask.all()) for mask in masks.values())
        if whole and gain_by_zeros_alone(candidates(), self._task.device):
            way, choice, why = dense, Choice("dense"), "nothing is pruned"
        else:
            ours = self._way("auto", masks, round)
            training = self._task.contestant(ours, masks, round)
            rows = layers_chosen(training.model, training.step, self.choices, round, ours.memory_format)
            choice, why = self._step(training, dense, masks, rows, round)
            way = ours if choice.backend == "auto" else dense
        note = "; ".join(part for part in (why, self._formats_told(masks, "auto", "dense")) if part)
        step = chosen(round, "", masking.density(masks), STEP, choice, note)
        return way, [*rows, replace(step, memory_format=way.memory_format)]

    def _step(self, ours: Training, dense: Way, masks: Masks, layers: list[Chosen], round: int) -> tuple[Choice, str]:
        """Whether sparse layers or masked dense PyTorch make the faster step, both measured whole."""
        key = self._key(masks)
        choice = self._known_step(key)
        if choice is None:
            if all(row.backend == "dense" for row in layers):
                return Choice("dense"), "it is the fastest at every operation of every layer"
            most = max(FEWEST_STEPS, min(MOST_STEPS, int(OF_A_TRAINING * self._task.steps)))
            auto_ms, dense_ms = self._task.times([ours, self._task.contestant(dense, masks, round)], most)
            choice = Choice("auto" if auto_ms < dense_ms else "dense", {"auto": auto_ms, "dense": dense_ms})
        self.choices.steps[key] = choice
        other = choice.measured_live
        return choice, "" if other is None else f"measured with {other:,} live weights"

    def _known_step(self, key: StepKey) -> Choice | None:
        """What is known of this step, from up to twice the live weights if auto led there: fewer take it no longer."""
        if key in self.choices.steps:
            return self.choices.steps[key]
        for other, choice in self.choices.steps.items():
            if other._replace(live=()) != key._replace(live=()) or choice.measured_live is not None:
                continue
            denser = all(most >= least for most, least in zip(other.live, key.live, strict=True))
            like = denser and sum(other.live) <= HELD_FOR * sum(key.live)
            if like and choice.backend == "auto" and choice.lead >= CLEAR_LEAD:
                return replace(choice, measured_live=sum(other.live))
        return None

    def _key(self, masks: Masks) -> StepKey:
        task = self._task
        return StepKey(
            task.network.name,
            task.network.input_shape,
            task.step_size,
            task.config.training.optimizer,
            tuple(int(mask.sum()) for mask in masks.values()),
            task.device.type,
            torch.get_num_threads(),
            self._ways() if task.device.type == "cpu" else "",
        )

    def _ways(self) -> str:
        return f"winograd {winograd.setting()}" + (", fused" if self._task.config.fuse else "")

    def _formats_told(self, masks: Masks, *backends: str) -> str:
        """What was measured of the formats of `backends`; "" where nothing was."""
        key = self._key(masks)
        known = {name: self._formats.known(name, key) for name in backends}
        return "; ".join(f"{name} {format_times(choice)}" for name, choice in known.items() if choice is not None)

    def write(self) -> None:
        """Writes the choices where they are more than were written."""
        if len(self.choices) != self._written:
            self._store.write_choices(self.choices)
            self._written = len(self.choices)


def choices_of(path: Path, backend: str, device: torch.device) -> Choices:
    """What was chosen in the run that left `path`. Raises InputError where it cannot be taken over."""
    if backend != "auto" and device.type != "cpu":
        raise InputError(
            f"--choices {path} is for --backend auto, or for the memory format of a run on the CPU; this run has "
            f"--backend {backend} on {device.type}"
        )
    choices = read_choices(path)
    for name in sorted(choices.backends()) if backend == "auto" else ():
        reason = with_kernels().get(name, "there is no such backend")
        if reason:
            raise InputError(f'{path} chose backend "{name}", which cannot be used here: {reason}')
    threads = torch.get_num_threads()
    strange = choices.made_elsewhere(device.type, threads)
    if strange:
        say(
            f"{strange} of the {len(choices)} choices in {path} were made on another device or with other than the "
            f"{threads} threads here: they do not apply, and what they chose is measured again"
        )
    return choices
