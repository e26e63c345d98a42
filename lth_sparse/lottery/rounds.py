"""The lottery: train, prune, rewind, retrain, round after round (Frankle and Carbin 2019; Renda et al. 2020).

Round 0 trains the dense network. Every later round prunes what the round before it trained, rewinds the survivors to
the saved weights, proves that it did, and trains them again; with the control, a random mask of the same size goes
through the same training beside it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from lth_sparse import models
from lth_sparse.backends.auto import candidates, remembering
from lth_sparse.backends.choices import Choice, Choices, StepKey
from lth_sparse.data.batches import Batches
from lth_sparse.data.dataset import Dataset
from lth_sparse.lottery import proof
from lth_sparse.lottery.choosing import chosen, layers_chosen, lines
from lth_sparse.lottery.evaluation import evaluate, max_relative_error
from lth_sparse.lottery.progress import Progress
from lth_sparse.lottery.proof import Weights
from lth_sparse.lottery.pruning import density_after, magnitude, random_like
from lth_sparse.lottery.training import Training, length
from lth_sparse.nn import densify, sparsify
from lth_sparse.nn import masks as masking
from lth_sparse.nn.masks import Masks
from lth_sparse.settings.config import Config
from lth_sparse.storage import sealed
from lth_sparse.storage.record import STEP, TIME_COLUMNS, Chosen, LayerCount, Proof, Record, Round
from lth_sparse.storage.run_directory import RunDirectory
from lth_sparse.storage.ticket import pack, save_ticket, unpack
from lth_sparse.system.errors import InputError
from lth_sparse.system.messages import say
from lth_sparse.system.seeding import derive
from lth_sparse.system.timing import side_by_side

TrainingState = tuple[dict[str, Tensor], dict[str, Any]]
"""What `Training.state` gives and `Training.restore` takes."""


@dataclass
class Position:
    """How far a run has come. `arm`: "" between rounds, else the training in progress, "ticket" or "random", which
    the backend called `trained_by` computes.

    `found`: columns of the round's row known so far. `masks`: the ticket's. `trained`: the weights that the next
    round prunes: those of the ticket trained last, or always the dense network's for one-shot pruning; empty when that
    ticket is still to be trained.
    """

    masks: Masks
    record: Record = field(default_factory=Record)
    round: int = 0
    arm: str = ""
    found: dict[str, Any] = field(default_factory=dict)
    trained: Weights = field(default_factory=dict)
    trained_by: str = ""


class Lottery:
    """One run on `device`, its layers computed by `backend`, a name that `backends.registry.resolve` gave.

    The dense backend trains the network as it is, its masks applied after each step; any other trains a copy with
    sparse layers. Either way `_model` is the dense network with the weights of the moment, pruned ones at zero.
    The auto backend measures nothing that `choices` know; a training whose step it would not make faster, dense does.
    `on_rewind_saved(sha256)` is called when the rewind weights are known, before anything uses them; `on_round(record)`
    after every round.
    """

    def __init__(
        self,
        config: Config,
        data: Dataset,
        network: models.Network,
        backend: str,
        choices: Choices,
        device: torch.device,
        store: RunDirectory,
        progress: Progress,
        on_rewind_saved: Callable[[str], None],
        on_round: Callable[[Record], None],
    ) -> None:
        self._config = config
        self._network = network
        self._store = store
        self._progress = progress
        self._on_rewind_saved = on_rewind_saved
        self._on_round = on_round
        self._backend = backend
        self._choices = choices
        self._choices_written = 0
        self._device = device
        model = models.build(network, derive(config.seed, "weights"))
        layout = models.faster_layout(model)
        self._model = model.to(device).to(memory_format=layout)
        self._data = data.to(device, layout)
        self._kinds = masking.kinds(self._model)
        self._saved: Weights = {}
        self._saved_sha256 = ""
        self._position = Position(masking.all_alive(self._model))
        self._check_schedule()

    def _check_schedule(self) -> None:
        """Refuses before any training what could only fail in a later round."""
        total = length(self._config.training, self._batches(0).per_epoch)
        if self._config.pruning.rewind_iteration >= total:
            raise InputError(
                f"--rewind-iteration {self._config.pruning.rewind_iteration}: expected fewer than the {total} steps "
                "of a training run"
            )
        for round in range(self._config.pruning.rounds + 1):
            self._density_after(round)

    def _density_after(self, round: int) -> dict[str, float]:
        sizes = {name: mask.numel() for name, mask in self._position.masks.items()}
        return density_after(self._config.pruning, round, sizes, self._kinds)

    def run(self, resume: bool) -> Record:
        """Plays every round that is still to be played, and gives the whole record.

        `resume`: go on from the newest whole state that the store has, if it has one.
        """
        with remembering(self._choices):
            return self._run(resume)

    def _run(self, resume: bool) -> Record:
        self._write_choices()
        training_state = self._restore() if resume else None
        position = self._position
        for round in range(position.round, self._config.pruning.rounds + 1):
            position.round = round
            if position.arm == "":
                self._open_round()
                position.arm = "ticket"
            if position.arm == "ticket":
                self._play_ticket(training_state)
                training_state = None
                if self._config.pruning.control == "random" and round > 0:
                    position.arm = "random"
            if position.arm == "random":
                self._play_random(training_state)
                training_state = None
            self._close_round()
        return position.record

    def _open_round(self) -> None:
        """Prunes, and evaluates what pruning alone does to the trained network."""
        position, model = self._position, self._model
        if position.round == 0:
            if self._config.pruning.rewind_iteration == 0:
                self._save_rewind_weights(self._model)
            return
        model.load_state_dict(position.trained)
        pruning = self._config.pruning
        one_shot = pruning.schedule == "one-shot"
        candidates = masking.all_alive(model) if one_shot else position.masks
        keep = self._density_after(position.round)
        position.masks = magnitude(masking.prunable(model), candidates, keep, pruning, self._kinds)
        masking.apply(model, position.masks)
        if not one_shot:
            position.trained = {}
        position.found = {
            # Of the very weights that are pruned here, evaluated at the end of their round.
            "accuracy_before_prune": position.record.rounds[0 if one_shot else -1].accuracy_retrained,
            "accuracy_after_prune": evaluate(model, self._data.test, self._data).accuracy,
        }

    def _play_ticket(self, state: TrainingState | None) -> None:
        """Rewinds the ticket, trains it, and finds all of its row but the control's."""
        position = self._position
        training = self._play("ticket", position.masks, state)
        model, data = self._model, self._data
        retrained = evaluate(model, data.test, data)
        if position.round == 0:
            position.found = dict.fromkeys(("accuracy_before_prune", "accuracy_after_prune"), retrained.accuracy)
        if position.round == 0 or self._config.pruning.schedule != "one-shot":
            position.trained = proof.copy_of(model)
        scratch = copy.deepcopy(model)
        proof.rewind(scratch, self._saved, position.masks)
        rewound = evaluate(scratch, data.test, data)
        last_weights = proof.copy_of(training.model)
        training.model.load_state_dict(training.best_weights)
        stopped_early = evaluate(training.model, data.test, data)
        training.model.load_state_dict(last_weights)
        step_ms, dense_step_ms = self._times(position.trained_by, position.masks)
        density = masking.density(position.masks)
        position.found |= {
            "round": position.round,
            "dataset": data.name,
            "density": density,
            "sparsity": 1 - density,
            "live_weights": masking.live(position.masks),
            "accuracy_rewound": rewound.accuracy,
            "accuracy_retrained": retrained.accuracy,
            "accuracy_early_stop": stopped_early.accuracy,
            "accuracy_random": None,
            "accuracy_validation": training.curve[-1].validation_accuracy,
            "early_stop_iteration": training.early_stop,
            "iterations": training.total,
            "epochs": training.epoch,
            "train_loss": training.curve[-1].train_loss,
            "max_relative_error": max_relative_error(training.model, model, data),
            "step_ms": step_ms,
            "dense_step_ms": dense_step_ms,
            "speedup": dense_step_ms / step_ms,
            "seconds": training.seconds,
        }
        position.record.confusion.append(retrained.confusion.tolist())

    def _play_random(self, state: TrainingState | None) -> None:
        """Sends a random mask with as many live weights in each layer through the same training."""
        seed = derive(self._config.seed, "random mask", self._position.round)
        self._play("random", random_like(self._position.masks, seed), state)
        self._position.found["accuracy_random"] = evaluate(self._model, self._data.test, self._data).accuracy

    def _play(self, arm: str, masks: Masks, state: TrainingState | None) -> Training:
        """One training run from the rewind weights (round 0: from initialisation), with its proofs."""
        position, pruning = self._position, self._config.pruning
        from_rewind = position.round > 0 or pruning.rewind_iteration == 0
        if from_rewind:
            proof.rewind(self._model, self._saved, masks)
        if state is None:
            position.trained_by = self._choose(masks, arm)
        training = self._training(self._trainable(masks), masks, arm, self._first_step())
        if state is not None:
            training.restore(*state)
        elif from_rewind:
            start = self._as_dense(training.model)
            self._prove(arm, proof.before_training(start, masks, self._saved, self._saved_sha256, training.optimizer))
        self._progress.start(f"round {position.round} {arm}", training)

        def after_step() -> None:
            self._progress.step(training)
            if not from_rewind and training.iteration == pruning.rewind_iteration:
                self._save_rewind_weights(self._as_dense(training.model))

        try:
            training.run(lambda: self._save(training), after_step)
        finally:
            self._progress.stop()
        if self._model is not training.model:
            self._model.load_state_dict(self._as_dense(training.model).state_dict())
        self._prove(arm, proof.after_training(self._model, masks, self._saved, lambda: self._gradient_at_start(masks)))
        position.record.curves.extend(training.curve)
        return training

    def _first_step(self) -> int:
        """The step at which this round's training starts: 0 for the dense network, the rewind step for tickets."""
        return self._config.pruning.rewind_iteration if self._position.round > 0 else 0

    def _trainable(self, masks: Masks) -> nn.Module:
        """The network, with the weights of the moment, as the backend of the training in progress computes it."""
        backend = self._position.trained_by
        return self._model if backend == "dense" else self._copy(masks, backend)

    def _copy(self, masks: Masks, backend: str) -> nn.Module:
        """A copy of the network as `backend` computes it."""
        model = copy.deepcopy(self._model)
        return model if backend == "dense" else sparsify(model, masks, backend)

    def _choose(self, masks: Masks, arm: str) -> str:
        """The backend that trains `masks`: the run's own, or "dense" where auto does not make the whole step faster."""
        if self._backend != "auto":
            return self._backend
        if len(candidates()) == 1:
            return "dense"
        rows: list[Chosen] = []
        if all(bool(mask.all()) for mask in masks.values()):
            choice, why = Choice("dense"), "nothing is pruned"
        else:
            rows = self._choose_layers(masks)
            choice, why = self._choose_step(masks, rows)
        if arm == "ticket":  # The random mask is as sparse, layer by layer, so all of it is chosen alike.
            round = self._position.round
            rows.append(chosen(round, "", masking.density(masks), STEP, choice, why))
            self._position.record.chosen += rows
            for line in lines(rows):
                say(line)
        self._write_choices()
        return choice.backend

    def _choose_layers(self, masks: Masks) -> list[Chosen]:
        training = self._training(self._copy(masks, "auto"), masks, "timing", 0)
        return layers_chosen(training.model, training.step, self._choices, self._position.round)

    def _choose_step(self, masks: Masks, layers: list[Chosen]) -> tuple[Choice, str]:
        """Whether sparse layers or masked dense PyTorch make the faster step, both measured whole."""
        key = StepKey(
            self._network.name,
            self._network.input_shape,
            self._batches(0).size,
            self._config.training.optimizer,
            tuple(int(mask.sum()) for mask in masks.values()),
            self._device.type,
            torch.get_num_threads(),
        )
        if key not in self._choices.steps:
            if all(row.backend == "dense" for row in layers):
                return Choice("dense"), "it is the fastest at every operation of every layer"
            auto_ms, dense_ms = self._times("auto", masks)
            faster = "auto" if auto_ms < dense_ms else "dense"
            self._choices.steps[key] = Choice(faster, {"auto": auto_ms, "dense": dense_ms})
        return self._choices.steps[key], ""

    def _write_choices(self) -> None:
        """Keeps the choices with the run: before a state that rests on them."""
        if len(self._choices) != self._choices_written:
            self._store.write_choices(self._choices)
            self._choices_written = len(self._choices)

    def _as_dense(self, trained: nn.Module) -> nn.Module:
        """The way back: the dense network with the weights of `trained`, which `_trainable` gave."""
        return trained if trained is self._model else densify(copy.deepcopy(trained))

    def _close_round(self) -> None:
        """Writes the round's ticket and its rows."""
        position, record = self._position, self._position.record
        row = Round(**position.found)
        record.rounds.append(row)
        for name, mask in position.masks.items():
            record.layers.append(LayerCount(position.round, name, self._kinds[name], mask.numel(), int(mask.sum())))
        save_ticket(
            self._store.ticket_path(position.round),
            self._model,
            position.masks,
            weights=self._saved,
            network=self._network,
            metadata={
                "dataset": self._data.name,
                "round": {name: value for name, value in asdict(row).items() if name not in TIME_COLUMNS},
                "rewind": {
                    "iteration": self._config.pruning.rewind_iteration,
                    "sha256": self._saved_sha256,
                },
                "config": self._config.to_json(),
            },
        )
        self._store.write_record(record)
        self._write_choices()
        images = (row.iterations - self._first_step()) * self._batches(position.round).size
        self._progress.round_done(row, record.rounds[0], images / row.seconds)
        self._on_round(record)
        position.found, position.arm = {}, ""

    def _prove(self, arm: str, statements: list[tuple[str, str]]) -> None:
        self._position.record.proofs.extend(
            Proof(self._position.round, arm, statement, detail) for statement, detail in statements
        )

    def _batches(self, round: int) -> Batches:
        """The batches of `round`, the same for both arms: only the mask tells them apart."""
        seed = derive(self._config.seed, "training", round)
        return Batches(self._data, self._config.training.batch_size, self._config.data.augmentation, seed)

    def _training(self, model: nn.Module, masks: Masks, arm: str, start: int) -> Training:
        round = self._position.round
        return Training(model, masks, self._data, self._batches(round), self._config.training, (round, arm), start)

    def _times(self, backend: str, masks: Masks) -> tuple[float, float]:
        """(`backend`'s, masked dense PyTorch's) milliseconds of a training step, on copies of the network.

        On a GPU both are CUDA graphs, as in the training itself.
        """
        contestants = [self._training(self._copy(masks, name), masks, "timing", 0) for name in (backend, "dense")]
        for contestant in contestants:
            contestant.warm_up()
        backend_ms, dense_ms = side_by_side([contestant.step for contestant in contestants], self._device)
        return backend_ms, dense_ms

    def _gradient_at_start(self, masks: Masks) -> dict[str, Tensor]:
        scratch = copy.deepcopy(self._model)
        proof.rewind(scratch, self._saved, masks)
        images, labels = self._batches(self._position.round)[0]
        functional.cross_entropy(scratch(images), labels).backward()
        return {name: weight.grad for name, weight in masking.prunable(scratch).items() if weight.grad is not None}

    def _save_rewind_weights(self, model: nn.Module) -> None:
        self._saved = proof.copy_of(model)
        self._saved_sha256 = sealed.digest(self._saved)
        self._store.write_rewind(self._saved)
        self._on_rewind_saved(self._saved_sha256)

    def _save(self, training: Training) -> None:
        """Writes all that `_restore` needs, after an epoch."""
        self._write_choices()
        position = self._position
        tensors, progress = training.state()
        tensors |= {f"mask/{name}": pack(mask) for name, mask in position.masks.items()}
        tensors |= {f"trained/{name}": value for name, value in position.trained.items()}
        state = {
            "round": position.round,
            "arm": position.arm,
            "trained_by": position.trained_by,
            "found": position.found,
            "record": position.record.to_json(),
            "training": progress,
            "saved_sha256": self._saved_sha256,
            "config": self._config.to_json(),
        }
        self._store.write_state(tensors, state)

    def _restore(self) -> TrainingState | None:
        """Goes back to the newest whole state of an interrupted run, if there is one."""
        found = self._store.read_state()
        if found is None:
            return None
        tensors, state = found
        if Config.from_json(state["config"]) != self._config:
            raise InputError(
                f"config.json of {self._store.path} is not what the run began with; this run cannot go on, "
                "start another"
            )
        self._restore_rewind_weights(state["saved_sha256"])
        masks: Masks = {}
        for name, mask in self._position.masks.items():
            masks[name] = unpack(tensors[f"mask/{name}"], tuple(mask.shape)).to(self._device)
        trained = {
            name.removeprefix("trained/"): value.to(self._device)
            for name, value in tensors.items()
            if name.startswith("trained/")
        }
        self._position = Position(
            masks,
            Record.from_json(state["record"]),
            state["round"],
            state["arm"],
            state["found"],
            trained,
            state["trained_by"],
        )
        return tensors, state["training"]

    def _restore_rewind_weights(self, recorded_sha256: str) -> None:
        if not recorded_sha256:
            return  # This state is from before the step whose weights are saved.
        saved = self._store.read_rewind()
        if saved is None and self._config.pruning.rewind_iteration == 0:
            saved = proof.copy_of(self._model)
        if saved is None or sealed.digest(saved) != recorded_sha256:
            raise InputError(
                f"the rewind weights of {self._store.path} are lost or not those of its record "
                f"(SHA-256 {recorded_sha256}); this run cannot go on, start another"
            )
        self._saved = {name: value.to(self._device) for name, value in saved.items()}
        self._saved_sha256 = recorded_sha256
