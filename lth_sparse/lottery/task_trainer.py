"""The trainer of `run`: a task, trained by the backend and in the memory format that its chooser settles."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from lth_sparse import models
from lth_sparse.backends.auto import remembering
from lth_sparse.lottery import criteria, proof
from lth_sparse.lottery.arms import Arm, arms_of
from lth_sparse.lottery.choice_rows import lines
from lth_sparse.lottery.choosing import Chooser
from lth_sparse.lottery.criteria.own import criterion_of
from lth_sparse.lottery.data_parallel import gradient_bytes
from lth_sparse.lottery.divergence import Diverged
from lth_sparse.lottery.evaluation import evaluate, max_relative_error
from lth_sparse.lottery.events import Listener, RoundEvent, tell, tell_of_step
from lth_sparse.lottery.instability import Instability
from lth_sparse.lottery.position import Position, TrainingState
from lth_sparse.lottery.progress import Progress
from lth_sparse.lottery.proof import Weights
from lth_sparse.lottery.pruning import pools_of
from lth_sparse.lottery.saving import Saving
from lth_sparse.lottery.task import Task, Way
from lth_sparse.lottery.training import Training, copy_of_state
from lth_sparse.nn import masks as masking
from lth_sparse.nn.masks import Masks
from lth_sparse.settings.config import Config
from lth_sparse.storage.arms import TICKET
from lth_sparse.storage.record import Record, Round
from lth_sparse.storage.run_directory import RunDirectory
from lth_sparse.system import processes, stopping
from lth_sparse.system.errors import InputError
from lth_sparse.system.messages import say


class TaskTrainer:
    """A `Trainer` of `task`, each training computed by the backend that `chooser` settles.

    The dense backend trains the network as it is, its masks applied after each step; any other trains a copy with
    sparse layers. `store` keeps what copies of the dense network start from. `listeners` are told what happens. Raises
    InputError for a schedule that could only fail in a later round. `check_finite`: whether each step looks for what is
    not finite, to name the layer where that begins.
    """

    def __init__(
        self,
        task: Task,
        chooser: Chooser,
        store: RunDirectory,
        listeners: Sequence[Listener] = (),
        check_finite: bool = False,
    ) -> None:
        task.check_schedule()
        pruning = task.config.pruning
        self.model: nn.Module = task.model
        self.all_alive = masking.all_alive(task.model)
        self.kinds: Mapping[str, str] = task.kinds
        self.rounds = pruning.rounds
        self.one_shot = pruning.schedule == "one-shot"
        self.prunes_at_start = pruning.prune_at == "start"
        self._criterion = criterion_of(pruning.criterion)
        self.seed = task.config.seed
        self.rewinds_to_start = task.rewind_iteration == 0
        self.network: models.Network | None = task.network
        self.settings = task.config.to_json()
        self._task = task
        self._chooser = chooser
        self._instability = Instability(task, store)
        self._progress = Progress(pruning.rounds)
        self._listeners = listeners
        self._check_finite = check_finite
        self._confusion: list[list[int]] = []
        self._optimizer_state: dict[str, Tensor] = {}

    @contextmanager
    def session(self) -> Iterator[None]:
        """Inside, what the chooser knows is not measured again. At the end it is said what choosing took."""
        began = time.perf_counter()
        with remembering(self._chooser.choices):
            self.write()
            yield
        took, whole = self._chooser.seconds, time.perf_counter() - began
        say(f"choosing what trains the rounds took {took:.2f} s, {took / whole:.1%} of their time")

    def arms(self, round: int) -> Sequence[Arm]:
        """The ticket, the controls that the settings ask for, and the copies that are compared by instability."""
        pruning = self._task.config.pruning
        return (*arms_of(pruning.controls, pruning.rewind, round), *self._instability.copies(round))

    def drawn_anew(self, seed: int) -> Weights:
        """The network, built again."""
        model = models.build(self._task.network, seed).to(self._task.device)
        drawn = {name: value.detach() for name, value in model.state_dict().items()}
        return processes.first(lambda: drawn)  # What a builder of the user's own draws need not be the same.

    def prune(self, candidates: Masks, round: int) -> Masks:
        """By the criterion and the schedule of the settings."""
        keep, task = self._task.density_before(round), self._task
        pools = pools_of(candidates, task.config.pruning, self.kinds)
        return processes.first(
            lambda: criteria.best(self._criterion, self.model, candidates, keep, pools, task.evidence(round))
        )

    def accuracy(self) -> float:
        """On the test images."""
        evaluation = evaluate(self.model, self._task.data.test, self._task.data)
        self._confusion = evaluation.confusion.tolist()
        return evaluation.accuracy

    def begin(self, arm: Arm, masks: Masks, position: Position, state: TrainingState | None) -> Training:
        """The training of `masks`, as the backend computes it that is chosen, or was chosen when `state` was saved."""
        task, label = self._task, (position.round, arm.name)
        changes = task.changes(label) if arm.changes and position.round > 0 else None
        if state is None:
            self._choose(arm, masks if changes is None else changes.typical(masks), position)
        task.put_in_format(position.memory_format)
        model = self.model if position.trained_by == "dense" else task.copy(masks, position.trained_by)
        first_step = arm.first_step(task.rewind_iteration, position.round)
        training = task.training(model, masks, label, first_step, arm.last_rate, arm.order, changes)
        training.check_finite = self._check_finite
        if state is not None:
            training.restore(*state)
        elif arm.keeps_optimizer:
            training.restore_optimizer(self._optimizer_state)
        return training

    def _choose(self, arm: Arm, masks: Masks, position: Position) -> None:
        way, rows = self._chooser.choose(masks, position.round)
        position.trained_by, position.memory_format = way.backend, way.memory_format
        if rows and arm.name == TICKET.name:  # A control is as sparse, so it is chosen alike.
            position.record.chosen += rows
            for line in lines(rows):
                say(line)

    def run(
        self, training: Training, arm: Arm, save: Callable[[], None], rewind_here: Callable[[nn.Module], None]
    ) -> None:
        """To the end of the schedule, saved there, at ends of epochs, and where a signal asks to stop: then Stopped is
        raised. Raises InputError for a training that diverges, of which no state is saved."""
        rewind_iteration, where = self._task.rewind_iteration, f"round {training.round} ({arm.name})"
        saved = training.iteration if training.iteration > arm.first_step(rewind_iteration, training.round) else None
        self._progress.start(f"round {training.round} {arm.name}", training)
        self._instability.keep(training, arm)

        def keep() -> None:
            nonlocal saved
            processes.only_first(save)()
            saved = training.iteration

        saving = Saving(keep)

        def after_step() -> None:
            self._progress.step(training)
            self._instability.keep(training, arm)
            if rewind_iteration and training.iteration == rewind_iteration:
                rewind_here(training.model)
            tell_of_step(self._listeners, training, arm.name)
            if stopping.asked():
                training.check_state()
                saving.must()
                stopping.stop(f"step {training.iteration} of {training.total} of {where} is saved")

        def end_of_epoch() -> None:
            training.check_state()
            (saving.must if training.iteration == training.total else saving.may)()

        try:
            # Of several processes each hears a signal in another step: they cannot save one together.
            with stopping.deferred() if processes.count() == 1 else nullcontext():
                training.run(end_of_epoch, after_step)
        except Diverged as error:
            raise InputError(
                f"training diverged: {error}, after {training.iteration} steps of {where}; lower --learning-rate or "
                f"raise --warmup, in another --out; {_kept(saved, training)}"
            ) from error
        finally:
            self._progress.stop()
        if any(later.keeps_optimizer for later in self.arms(training.round + 1)):
            self._optimizer_state = training.optimizer_state()

    def gradient_at(self, start: Weights, masks: Masks, round: int) -> Mapping[str, Tensor]:
        """On the first batch of `round`."""
        scratch = copy.deepcopy(self.model)
        proof.rewind(scratch, start, masks)
        return processes.first(lambda: self._gradient_of_first_batch(scratch, round))

    def _gradient_of_first_batch(self, scratch: nn.Module, round: int) -> Mapping[str, Tensor]:
        images, labels = self._task.batches(round)[0]
        functional.cross_entropy(scratch(images), labels).backward()
        return {name: weight.grad for name, weight in masking.prunable(scratch).items() if weight.grad is not None}

    def row(self, training: Training, position: Position, start: Weights) -> dict[str, Any]:
        """What the evaluations, the curve and the clock say of a ticket's training."""
        task = self._task
        position.record.confusion.append(self._confusion)
        rewound = copy.deepcopy(self.model)
        proof.rewind(rewound, start, position.masks)
        accuracy_rewound = evaluate(rewound, task.data.test, task.data).accuracy
        last_weights = copy_of_state(training.model)
        training.model.load_state_dict(training.best_weights)
        accuracy_early_stop = evaluate(training.model, task.data.test, task.data).accuracy
        training.model.load_state_dict(last_weights)
        step_ms, dense_step_ms = processes.first(lambda: self._step_times(position))
        return {
            "dataset": task.data.name,
            "accuracy_rewound": accuracy_rewound,
            "accuracy_early_stop": accuracy_early_stop,
            "accuracy_validation": training.curve[-1].validation_accuracy,
            "early_stop_iteration": training.early_stop,
            "iterations": training.total,
            "epochs": training.epoch,
            "train_loss": training.curve[-1].train_loss,
            "max_relative_error": max_relative_error(training.model, self.model, task.data),
            "step_ms": step_ms,
            "dense_step_ms": dense_step_ms,
            "speedup": dense_step_ms / step_ms,
            "seconds": training.seconds,
            "repacking_seconds": training.repacking_seconds,
            "dense_gradient_seconds": training.dense_gradient_seconds,
        } | self._gradient_bytes(training)

    def _step_times(self, position: Position) -> list[float]:
        """Milliseconds of a step as the round is trained, and of masked dense PyTorch's."""
        ways = [Way(position.trained_by, position.memory_format), self._chooser.dense(position.masks, position.round)]
        return self._task.times([self._task.contestant(way, position.masks, position.round) for way in ways])

    def _gradient_bytes(self, training: Training) -> dict[str, int]:
        if processes.count() == 1:
            return {}
        return {
            "gradient_bytes": gradient_bytes(training.model),
            "dense_gradient_bytes": gradient_bytes(self.model),
        }

    def compare(self, training: Training, arm: Arm, position: Position) -> None:
        """By the error along the line between the two."""
        self._instability.compare(training, arm, position)

    def metadata(self) -> dict[str, Any]:
        """The settings of the run, and the step that it rewinds to."""
        return {"rewind": {"iteration": self._task.rewind_iteration}, "config": self.settings}

    def is_of(self, settings: Mapping[str, Any]) -> bool:
        """Whether these are the settings of the run."""
        return Config.from_json(settings) == self._task.config

    def write(self) -> None:
        """Keeps the choices."""
        self._chooser.write()

    def round_done(self, row: Round, record: Record) -> None:
        """The round's line, with its images a second."""
        (ticket, *_) = self.arms(row.round)
        steps = self._task.steps - ticket.first_step(self._task.rewind_iteration, row.round)
        images_per_second = steps * self._task.batches(row.round).size / row.seconds
        self._progress.round_done(row, record.rounds[0], images_per_second)
        tell(self._listeners, RoundEvent(row, images_per_second))


def _kept(saved: int | None, training: Training) -> str:
    """From where a training that has diverged would go on, though only to the same end."""
    if saved is not None:
        kept = f"step {saved} of this training is kept, from which --resume goes on"
    elif training.round == 0:
        kept = "nothing of it was saved, and --resume begins again"
    else:
        kept = "the end of the training before it is kept, from which --resume goes on"
    return f"{kept}, to the same end" + ("" if training.check_finite else ": with --check-finite that names the layer")
