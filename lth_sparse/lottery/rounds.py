"""The lottery: train, prune, rewind, retrain, round after round (Frankle and Carbin 2019; Renda et al. 2020).

Round 0 trains the dense network. Every later round prunes what the round before it trained, rewinds the survivors to
the saved weights, proves that it did, and trains them again; its other arms go through the same training beside it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import asdict, dataclass

from torch import Tensor, nn
from torch.nn import functional

from lth_sparse.backends.auto import remembering
from lth_sparse.lottery import proof
from lth_sparse.lottery.arms import CONTROLS, TICKET, Arm, arms_of
from lth_sparse.lottery.choice_rows import lines
from lth_sparse.lottery.choosing import Chooser
from lth_sparse.lottery.evaluation import evaluate, max_relative_error
from lth_sparse.lottery.position import Position, TrainingState
from lth_sparse.lottery.progress import Progress
from lth_sparse.lottery.proof import Saved, Weights
from lth_sparse.lottery.pruning import magnitude
from lth_sparse.lottery.task import Task, Way
from lth_sparse.lottery.training import Training
from lth_sparse.nn import densify
from lth_sparse.nn import masks as masking
from lth_sparse.nn.masks import Masks
from lth_sparse.settings.config import Config
from lth_sparse.storage import sealed
from lth_sparse.storage.record import TIME_COLUMNS, LayerCount, Proof, Record, Round
from lth_sparse.storage.run_directory import RunDirectory
from lth_sparse.storage.ticket import save_ticket
from lth_sparse.system.errors import InputError
from lth_sparse.system.messages import say


@dataclass(frozen=True)
class Callbacks:
    """What is called while a lottery is played.

    `on_rewind_saved(sha256)`: the rewind weights are known, and nothing has used them yet. `on_round(record)`: a round
    is over, its ticket and tables written.
    """

    on_rewind_saved: Callable[[str], None] = lambda sha256: None
    on_round: Callable[[Record], None] = lambda record: None


class Lottery:
    """One run of `task`, in `store`, each training computed by the backend that `chooser` settles.

    The dense backend trains the network as it is, its masks applied after each step; any other trains a copy with
    sparse layers. Raises InputError for a schedule that could only fail in a later round.
    """

    def __init__(self, task: Task, chooser: Chooser, store: RunDirectory, callbacks: Callbacks) -> None:
        task.check_schedule()
        self._task = task
        self._chooser = chooser
        self._store = store
        self._callbacks = callbacks
        self._progress = Progress(task.config.pruning.rounds)
        self._saved = Saved({}, "")
        self._position = Position(masking.all_alive(task.model), task.memory_format)

    def run(self, resume: bool) -> Record:
        """Plays every round that is still to be played, and gives the whole record.

        `resume`: go on from the newest whole state that the store has, if it has one.
        """
        with remembering(self._chooser.choices):
            self._chooser.write()
            state = self._restore() if resume else None
            for round in range(self._position.round, self._task.config.pruning.rounds + 1):
                self._play_round(round, state)
                state = None
            return self._position.record

    def _play_round(self, round: int, state: TrainingState | None) -> None:
        """From where the round was interrupted, in the training whose state is `state`, or from its beginning."""
        position = self._position
        position.round = round
        if position.arm == "":
            self._open_round()
            position.arm = TICKET.name
        arms = arms_of(self._task.config.pruning, round)
        for arm in arms[[arm.name for arm in arms].index(position.arm) :]:
            position.arm = arm.name
            self._play(arm, state)
            state = None
        self._close_round()

    def _open_round(self) -> None:
        """Prunes, and evaluates what pruning alone does to the trained network."""
        position, task = self._position, self._task
        pruning = task.config.pruning
        if position.round == 0:
            if pruning.rewind_iteration == 0:
                self._save_rewind_weights(task.model)
            return
        task.model.load_state_dict(position.trained)
        one_shot = pruning.schedule == "one-shot"
        candidates = masking.all_alive(task.model) if one_shot else position.masks
        keep = task.density_after(position.round)
        position.masks = magnitude(masking.prunable(task.model), candidates, keep, pruning, task.kinds)
        masking.apply(task.model, position.masks)
        if not one_shot:
            position.trained = {}
        position.found = {
            # Of the very weights that are pruned here, evaluated at the end of their round.
            "accuracy_before_prune": position.record.rounds[0 if one_shot else -1].accuracy_retrained,
            "accuracy_after_prune": evaluate(task.model, task.data.test, task.data).accuracy,
        }

    def _play(self, arm: Arm, state: TrainingState | None) -> None:
        """Trains `arm`, and finds its columns of the round's row."""
        masks = arm.masks(self._position.masks, self._task.config.seed, self._position.round)
        training = self._train(arm, masks, state)
        accuracy = self._find_accuracy(arm)
        if arm is TICKET:
            self._find_row_of_ticket(training, accuracy)

    def _find_accuracy(self, arm: Arm) -> float:
        evaluation = evaluate(self._task.model, self._task.data.test, self._task.data)
        self._position.found[arm.accuracy] = evaluation.accuracy
        if arm is TICKET:
            self._position.record.confusion.append(evaluation.confusion.tolist())
        return evaluation.accuracy

    def _find_row_of_ticket(self, training: Training, accuracy: float) -> None:
        """All columns but the accuracies of the arms. `training`: the ticket's, finished, of this test accuracy."""
        position, task = self._position, self._task
        if position.round == 0:
            position.found |= dict.fromkeys(("accuracy_before_prune", "accuracy_after_prune"), accuracy)
        if position.round == 0 or task.config.pruning.schedule != "one-shot":
            position.trained = proof.copy_of(task.model)
        rewound = copy.deepcopy(task.model)
        proof.rewind(rewound, self._saved.weights, position.masks)
        accuracy_rewound = evaluate(rewound, task.data.test, task.data).accuracy
        last_weights = proof.copy_of(training.model)
        training.model.load_state_dict(training.best_weights)
        accuracy_early_stop = evaluate(training.model, task.data.test, task.data).accuracy
        training.model.load_state_dict(last_weights)
        ways = [Way(position.trained_by, position.memory_format), self._chooser.dense(position.masks, position.round)]
        step_ms, dense_step_ms = task.times(ways, position.masks, position.round)
        density = masking.density(position.masks)
        # A control that is trained at all is trained after the ticket.
        position.found |= {control.accuracy: None for control in CONTROLS.values()}
        position.found |= {
            "round": position.round,
            "dataset": task.data.name,
            "density": density,
            "sparsity": 1 - density,
            "live_weights": masking.live(position.masks),
            "accuracy_rewound": accuracy_rewound,
            "accuracy_early_stop": accuracy_early_stop,
            "accuracy_validation": training.curve[-1].validation_accuracy,
            "early_stop_iteration": training.early_stop,
            "iterations": training.total,
            "epochs": training.epoch,
            "train_loss": training.curve[-1].train_loss,
            "max_relative_error": max_relative_error(training.model, task.model, task.data),
            "step_ms": step_ms,
            "dense_step_ms": dense_step_ms,
            "speedup": dense_step_ms / step_ms,
            "seconds": training.seconds,
        }

    def _train(self, arm: Arm, masks: Masks, state: TrainingState | None) -> Training:
        """One training run from where the arm starts (round 0: from initialisation), with its proofs.

        It leaves the trained weights in the task's model.
        """
        position, task = self._position, self._task
        rewind_iteration = task.config.pruning.rewind_iteration
        from_rewind = position.round > 0 or rewind_iteration == 0
        if from_rewind:
            proof.rewind(task.model, arm.start(self._saved.weights), masks)
        if state is None:
            self._choose(arm, masks)
        training = self._training(arm, masks)
        if state is not None:
            training.restore(*state)
        elif from_rewind:
            start, rewound = arm.start(self._saved.weights), self._as_dense(training.model)
            self._prove(arm, proof.before_training(rewound, masks, self._saved, start, training.optimizer))
        self._progress.start(f"round {position.round} {arm.name}", training)

        def after_step() -> None:
            self._progress.step(training)
            if not from_rewind and training.iteration == rewind_iteration:
                self._save_rewind_weights(self._as_dense(training.model))

        try:
            training.run(lambda: self._save(training), after_step)
        finally:
            self._progress.stop()
        if task.model is not training.model:
            task.model.load_state_dict(self._as_dense(training.model).state_dict())
        start = arm.start(self._saved.weights)
        self._prove(arm, proof.after_training(task.model, masks, start, lambda: self._gradient_at(start, masks)))
        position.record.curves.extend(training.curve)
        return training

    def _choose(self, arm: Arm, masks: Masks) -> None:
        position = self._position
        way, rows = self._chooser.choose(masks, position.round)
        position.trained_by, position.memory_format = way.backend, way.memory_format
        if rows and arm is TICKET:  # A control is as sparse, so it is chosen alike.
            position.record.chosen += rows
            for line in lines(rows):
                say(line)

    def _training(self, arm: Arm, masks: Masks) -> Training:
        """The training of `masks`, from the weights of the moment, as the backend that was chosen computes it."""
        position, task = self._position, self._task
        task.put_in_format(position.memory_format)
        dense = position.trained_by == "dense"
        model = task.model if dense else task.copy(masks, position.trained_by)
        first_step = arm.first_step(task.config.pruning, position.round)
        return task.training(model, masks, (position.round, arm.name), first_step)

    def _as_dense(self, trained: nn.Module) -> nn.Module:
        """The way back: the dense network with the weights of `trained`, which `_training` gave."""
        return trained if trained is self._task.model else densify(copy.deepcopy(trained))

    def _gradient_at(self, start: Weights, masks: Masks) -> dict[str, Tensor]:
        scratch = copy.deepcopy(self._task.model)
        proof.rewind(scratch, start, masks)
        images, labels = self._task.batches(self._position.round)[0]
        functional.cross_entropy(scratch(images), labels).backward()
        return {name: weight.grad for name, weight in masking.prunable(scratch).items() if weight.grad is not None}

    def _prove(self, arm: Arm, statements: list[tuple[str, str]]) -> None:
        self._position.record.proofs.extend(
            Proof(self._position.round, arm.name, statement, detail) for statement, detail in statements
        )

    def _close_round(self) -> None:
        """Writes the round's ticket and its rows."""
        position, task, record = self._position, self._task, self._position.record
        row = Round(**position.found)
        record.rounds.append(row)
        for name, mask in position.masks.items():
            record.layers.append(LayerCount(position.round, name, task.kinds[name], mask.numel(), int(mask.sum())))
        save_ticket(
            self._store.ticket_path(position.round),
            task.model,
            position.masks,
            weights=self._saved.weights,
            network=task.network,
            metadata={
                "dataset": task.data.name,
                "round": {name: value for name, value in asdict(row).items() if name not in TIME_COLUMNS},
                "rewind": {"iteration": task.config.pruning.rewind_iteration, "sha256": self._saved.sha256},
                "config": task.config.to_json(),
            },
        )
        self._store.write_record(record)
        self._chooser.write()
        steps = row.iterations - TICKET.first_step(task.config.pruning, position.round)
        self._progress.round_done(row, record.rounds[0], steps * task.batches(position.round).size / row.seconds)
        self._callbacks.on_round(record)
        position.found, position.arm = {}, ""

    def _save_rewind_weights(self, model: nn.Module) -> None:
        weights = proof.copy_of(model)
        self._saved = Saved(weights, sealed.digest(weights))
        self._store.write_rewind(weights)
        self._callbacks.on_rewind_saved(self._saved.sha256)

    def _save(self, training: Training) -> None:
        """Writes all that `_restore` needs, after an epoch."""
        self._chooser.write()
        self._store.write_state(*self._position.to_state(training, self._saved.sha256, self._task.config))

    def _restore(self) -> TrainingState | None:
        """Goes back to the newest whole state of an interrupted run, if there is one."""
        found = self._store.read_state()
        if found is None:
            return None
        tensors, state = found
        if Config.from_json(state["config"]) != self._task.config:
            raise InputError(
                f"config.json of {self._store.path} is not what the run began with; this run cannot go on, "
                "start another"
            )
        self._restore_rewind_weights(state["saved_sha256"])
        self._position = self._position.at(tensors, state, self._task.device)
        return tensors, state["training"]

    def _restore_rewind_weights(self, recorded_sha256: str) -> None:
        if not recorded_sha256:
            return  # This state is from before the step whose weights are saved.
        weights = self._store.read_rewind()
        if weights is None and self._task.config.pruning.rewind_iteration == 0:
            weights = proof.copy_of(self._task.model)
        if weights is None or sealed.digest(weights) != recorded_sha256:
            raise InputError(
                f"the rewind weights of {self._store.path} are lost or not those of its record "
                f"(SHA-256 {recorded_sha256}); this run cannot go on, start another"
            )
        on_device = {name: value.to(self._task.device) for name, value in weights.items()}
        self._saved = Saved(on_device, recorded_sha256)
