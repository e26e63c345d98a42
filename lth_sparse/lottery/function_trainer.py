"""The trainer of `lth.Lottery`: a model, and the functions of somebody's own program that train and evaluate it."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from lth_sparse import models
from lth_sparse.backends.auto import candidates, gain_by_zeros_alone
from lth_sparse.lottery import proof
from lth_sparse.lottery.arms import Arm, arms_of
from lth_sparse.lottery.criteria import Criterion
from lth_sparse.lottery.criteria.interface import Evidence
from lth_sparse.lottery.own_loop import fewer, masks_of
from lth_sparse.lottery.position import Position, TrainingState
from lth_sparse.lottery.proof import Weights
from lth_sparse.lottery.pruning import density_after
from lth_sparse.lottery.reinitialization import check_can_be_drawn_anew, drawn_anew
from lth_sparse.nn import masks as masking
from lth_sparse.nn import set_masks
from lth_sparse.nn.masks import Masks
from lth_sparse.settings.config import PruningConfig
from lth_sparse.storage.arms import TICKET, beside
from lth_sparse.storage.record import CurvePoint, Record, Round
from lth_sparse.system.checked_json import is_of
from lth_sparse.system.errors import InputError
from lth_sparse.system.messages import clock, say
from lth_sparse.system.seeding import derive

Train = Callable[[nn.Module], object]
Evaluate = Callable[[nn.Module], float]


@dataclass
class FunctionTraining:
    """A training by a function, of which nothing is known but that it is over."""

    model: nn.Module
    masks: Masks
    over: bool = False
    seconds: float = 0.0
    optimizer: torch.optim.Optimizer | None = None
    live_at_the_end: None = None
    curve: list[CurvePoint] = field(default_factory=list)

    def state(self) -> TrainingState:
        """The weights that it left."""
        return {f"model/{name}": value for name, value in proof.copy_of(self.model).items()}, {"seconds": self.seconds}

    def restore(self, tensors: dict[str, Tensor], data: dict[str, Any]) -> None:
        """Takes over what `state` gave: such a training is over."""
        weights = {name.removeprefix("model/"): value for name, value in tensors.items() if name.startswith("model/")}
        self.model.load_state_dict(weights)
        if not is_of(data["seconds"], float):
            raise ValueError(f"training.seconds is {data['seconds']!r}, expected a time")
        self.seconds, self.over = data["seconds"], True


class FunctionTrainer:
    """A `Trainer` of a copy of `model`. The arguments are those of `Lottery`."""

    def __init__(
        self,
        model: nn.Module,
        train: Train,
        evaluate: Evaluate,
        validate: Evaluate | None,
        pruning: PruningConfig,
        layers: Sequence[str] | None,
        criterion: str | Criterion,
        evidence: Evidence,
        controls: Sequence[str],
        seed: int,
        backend: str,
        dataset: str,
    ) -> None:
        self.model = copy.deepcopy(model)
        self.all_alive = masks_of(self.model, layers)
        self.kinds: Mapping[str, str] = masking.kinds(self.model)
        self.rounds = pruning.rounds
        self.one_shot = False
        self.prunes_at_start = False
        self.seed = seed
        self.rewinds_to_start = True
        self.network: models.Network | None = None
        named = criterion if isinstance(criterion, str) else getattr(criterion, "__name__", type(criterion).__name__)
        self.settings: dict[str, Any] = {
            "pruning": {name: getattr(pruning, name) for name in ("rounds", "prune_rate", "sparsity", "scope")}
            | {"criterion": named, "layers": list(self.all_alive), "controls": list(controls), "seed": seed}
        }
        self.round = 0
        self.arm = ""
        self.rewind_here: Callable[[nn.Module], None] = lambda model: None
        self._train, self._evaluate, self._validate = train, evaluate, validate
        self._pruning, self._criterion, self._evidence = pruning, criterion, evidence
        self._controls = tuple(controls)
        self._untrained = copy.deepcopy(model)
        if "reinit" in controls:
            check_can_be_drawn_anew(model)
        self.backend, self._dataset = backend, dataset
        self._began, self._finished_here = time.monotonic(), 0
        for round in range(self.rounds + 1):
            self._left(round)

    @contextmanager
    def session(self) -> Iterator[None]:
        """Nothing is to be kept around the rounds."""
        yield

    def arms(self, round: int) -> Sequence[Arm]:
        """The ticket, and the controls that were asked for."""
        return arms_of(self._controls, "weights", round)

    def drawn_anew(self, seed: int) -> Weights:
        """A copy of the model whose modules have drawn their parameters again."""
        return drawn_anew(self._untrained, seed)

    def _left(self, round: int) -> dict[str, float]:
        """Layer -> fraction of its weights that are alive after `round`. Raises InputError where that cannot be."""
        sizes = {name: mask.numel() for name, mask in self.all_alive.items()}
        return density_after(self._pruning, round, sizes, {name: self.kinds[name] for name in sizes})

    def prune(self, candidates: Masks, round: int) -> Masks:
        """By the criterion, and the rate or the final sparsity."""
        evidence = replace(self._evidence, seed=derive(self.seed, "criterion", round))
        return fewer(self.model, candidates, self._left(round), self._pruning.scope, self._criterion, evidence)

    def accuracy(self) -> float:
        """What `evaluate` says of the model."""
        return self._number(self._evaluate, self.model, "evaluate")

    def _number(self, function: Evaluate, model: nn.Module, name: str) -> float:
        was_training = model.training
        model.eval()
        with torch.no_grad():
            given = function(model)
        model.train(was_training)
        if isinstance(given, Tensor) and given.numel() == 1:
            given = given.item()
        try:
            number = float(given)
        except (TypeError, ValueError):
            raise InputError(f"{name}: got {given!r}, expected a number, higher where the model is better") from None
        if not math.isfinite(number):
            raise InputError(f"{name}: got {number} in round {self.round} ({self.arm}): has the training diverged?")
        return number

    def begin(self, arm: Arm, masks: Masks, position: Position, state: TrainingState | None) -> FunctionTraining:
        """A copy of the model with sparse layers, or dense where nothing is pruned and only zeros could be saved."""
        self.round, self.arm = position.round, arm.name
        model = copy.deepcopy(self.model)
        whole = all(bool(mask.all()) for mask in masks.values())
        device = next(iter(masks.values())).device
        names = candidates() if self.backend == "auto" else [self.backend]
        if not (whole and gain_by_zeros_alone(names, device)):
            model = set_masks(model, masks, backend=self.backend)
        training = FunctionTraining(model.train(), masks)
        if state is not None:
            training.restore(*state)
        return training

    def run(
        self, training: FunctionTraining, arm: Arm, save: Callable[[], None], rewind_here: Callable[[nn.Module], None]
    ) -> None:
        """By the function, unless it is over."""
        if not training.over:
            self.rewind_here = rewind_here
            began = time.perf_counter()
            self._train(training.model)
            training.seconds = time.perf_counter() - began
            training.over = True
        save()

    def gradient_at(self, start: Weights, masks: Masks, round: int) -> Mapping[str, Tensor]:
        """None is known: the loss is the function's own."""
        return {}

    def row(self, training: FunctionTraining, position: Position, start: Weights) -> dict[str, Any]:
        """What the two functions and the clock say of a ticket's training."""
        rewound = copy.deepcopy(self.model)
        proof.rewind(rewound, start, position.masks)
        accuracy = position.found[TICKET.column]
        validated = self._number(self._validate, self.model, "validate") if self._validate else accuracy
        unknown = ("early_stop_iteration", "iterations", "epochs", "train_loss", "max_relative_error")
        times = ("accuracy_early_stop", "step_ms", "dense_step_ms", "speedup")
        return dict.fromkeys((*unknown, *times)) | {
            "dataset": self._dataset,
            "accuracy_rewound": self._number(self._evaluate, rewound, "evaluate"),
            "accuracy_validation": validated,
            "seconds": training.seconds,
        }

    def compare(self, training: FunctionTraining, arm: Arm, position: Position) -> None:
        """No arm has a twin."""

    def metadata(self) -> dict[str, Any]:
        """The settings of the lottery."""
        return {"rewind": {}, "config": self.settings}

    def is_of(self, settings: Mapping[str, Any]) -> bool:
        """Whether these are the settings of the lottery."""
        return settings == self.settings

    def write(self) -> None:
        """Nothing rests beside a state."""

    def round_done(self, row: Round, record: Record) -> None:
        """Whoever plays the lottery says so."""
        self._finished_here += 1

    def tell(self, record: Record) -> None:
        """The round's line, with the time that the rest will take at the pace so far."""
        row = record.rounds[-1]
        pace = (time.monotonic() - self._began) / self._finished_here
        against = "" if row.round == 0 else f" (dense {record.rounds[0].accuracy_retrained:.4g})"
        controls = "".join(f", {arm.words} {accuracy:.4g}" for arm, accuracy in beside(row))
        say(
            f"round {row.round}/{self.rounds}: {row.density:.1%} of the weights left, {row.accuracy_retrained:.4g}"
            f"{against}{controls}, trained in {row.seconds:.1f} s, {clock(pace * (self.rounds - row.round))} left"
        )
