"""Lottery: the whole lottery, for a model, a training and an evaluation of one's own."""

from __future__ import annotations

import copy
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from lth_sparse import __version__
from lth_sparse.backends import registry
from lth_sparse.lottery import criteria, proof
from lth_sparse.lottery.arms import CONTROLS as ARMS
from lth_sparse.lottery.criteria import Criterion
from lth_sparse.lottery.criteria.interface import Evidence
from lth_sparse.lottery.function_trainer import Evaluate, FunctionTrainer, Train
from lth_sparse.lottery.own_loop import check_scope, fraction
from lth_sparse.lottery.rounds import Callbacks, Rounds
from lth_sparse.nn import forms, set_masks
from lth_sparse.nn.masks import Masks
from lth_sparse.settings import checks
from lth_sparse.settings.config import PruningConfig
from lth_sparse.storage import environment, sealed
from lth_sparse.storage.record import Record, Round
from lth_sparse.storage.run_directory import RunDirectory
from lth_sparse.storage.ticket import load_ticket, read_ticket
from lth_sparse.system.errors import InputError
from lth_sparse.system.messages import say
from lth_sparse.system.suggest import nearest

CONTROLS = [name for name, arm in ARMS.items() if not arm.last_rate and "began" not in arm.needs]
"""Those that are told apart by masks and weights: the learning rate is somebody else's."""


class Lottery:
    """Finds tickets of `model`: train, prune, rewind, prove the rewind, train again (Frankle and Carbin 2019).

    model: any network of nn.Conv2d and nn.Linear layers, dense. It is copied, and left as it is.
    train(model): trains the model that it is given, in place, from its first step to its last; what it returns is left
    alone. It makes its own optimizer, for each round has another model: its pruned layers are SparseConv2d and
    SparseLinear.
    evaluate(model): how good a model is on the test set, a number that is higher where it is better, such as a fraction
    of images. validate(model): the same on images that chose nothing, by which tickets are chosen (default: evaluate).
    Both are called in eval mode and without gradients.
    rounds, rate, scope, criterion, layers: how often is pruned, and how, as `prune` has it. sparsity: instead of the
    rate, what the last round reaches, by the same fraction each round.
    controls: what is trained beside each ticket, of "random" (a random mask with as many live weights in each layer),
    "reinit" (its mask on weights that the modules' `reset_parameters` draw anew), "shuffle" (its mask shuffled within
    each layer), "invert" (the smallest weights of the trained dense network), "sign" (the signs of its weights alone).
    seed: of these masks. What `train` draws is its own to seed, the same for each round.
    backend: of the sparse layers.
    dataset: its name, for the report.
    out: a directory for the tickets, tables, plots and the report, from which `run(resume=True)` goes on. Without it
    they are in one that goes when the Lottery does.
    loss, example: what some criteria need, as `prune` has it.
    on_round(row): called after each round with its row of `rounds.csv`, a dataclass: `wandb.log(asdict(row))`. Default:
    a line on standard error.

    `round` and `arm` ("ticket" or a control's name) say what is being trained. Raises InputError for what cannot be
    used.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        train: Train,
        evaluate: Evaluate,
        validate: Evaluate | None = None,
        rounds: int = 10,
        rate: float = 0.2,
        sparsity: float | None = None,
        scope: str = "layerwise",
        criterion: str | Criterion = "magnitude",
        layers: Sequence[str] | None = None,
        controls: Sequence[str] = (),
        seed: int = 0,
        backend: str = "auto",
        dataset: str = "your data",
        out: str | Path | None = None,
        on_round: Callable[[Round], None] | None = None,
        loss: Callable[[nn.Module], Tensor] | None = None,
        example: Tensor | None = None,
    ) -> None:
        network, _ = forms.unwrap(model)
        if forms.own_masks(network):
            raise InputError(
                "model: got one that is pruned already, expected a dense one to begin with: lth.densify(model), or "
                "torch.nn.utils.prune.remove"
            )
        _check(train=train, evaluate=evaluate, **({} if validate is None else {"validate": validate}))
        evidence = Evidence(loss, example)
        criteria.check(criterion, evidence)
        controls = (controls,) if isinstance(controls, str) else tuple(controls)
        layers = layers if layers is None or isinstance(layers, str) else list(layers)
        for name in controls:
            if name not in CONTROLS:
                raise InputError(f"controls: got {name!r}{nearest(name, CONTROLS)}, expected of {', '.join(CONTROLS)}")
        if isinstance(criterion, str):
            checks.controls(criterion, controls)
        pruning = _pruning(rounds, rate, sparsity, scope)
        backend = registry.resolve(backend)
        self._trainer = FunctionTrainer(
            network, train, evaluate, validate, pruning, layers, criterion, evidence, controls, seed, backend, dataset
        )
        self._beginning = proof.copy_of(network)
        self._temporary = tempfile.TemporaryDirectory(prefix="lth_sparse-") if out is None else None
        self._store = RunDirectory(Path(out or self._temporary.name), say)  # type: ignore[union-attr]
        self._on_round = on_round
        self._rounds: Rounds | None = None
        self._info = self._described(network, dataset, validate is not None)

    def _described(self, network: nn.Module, dataset: str, validated: bool) -> dict[str, Any]:
        trainer = self._trainer
        return {
            "command": f"lth.Lottery of {type(network).__name__}, in {Path(sys.argv[0]).name or 'an interpreter'}",
            "config": trainer.settings,
            "backend": trainer.backend,
            "dataset": {"name": dataset},
            "validated": validated,
            "network": {
                "name": type(network).__name__,
                "weights": sum(mask.numel() for mask in trainer.all_alive.values()),
                "parameters": sum(parameter.numel() for parameter in network.parameters()),
            },
            "beginning": sealed.digest(self._beginning),
            "rewind": None,
            "environment": environment.describe(next(iter(trainer.all_alive.values())).device, __version__),
        }

    @property
    def round(self) -> int:
        """The round in which something is trained; 0 trains the dense network."""
        return self._trainer.round

    @property
    def arm(self) -> str:
        """What is trained in it: "ticket", or the name of a control."""
        return self._trainer.arm

    def rewind_here(self, model: nn.Module) -> None:
        """Let later rounds rewind to the weights that `model` has at this moment (Frankle et al. 2020).

        To be called by `train`, once, at the step that it wants; after round 0 it does nothing. Without it the weights
        are those of the beginning.
        """
        self._trainer.rewind_here(model)

    def run(self, resume: bool = False) -> Record:
        """Plays all rounds; gives the record: `record.rounds` has a row a round, `record.best_ticket()` is one of them.

        resume: go on with the lottery that was interrupted in `out`, from the last training that was over. Raises
        InputError where that one had other settings or another model, and ProofError where a rewind is not proved; what
        was finished is kept.
        """
        store = self._store
        going_on = resume and store.holds_a_run()
        if going_on:
            before = store.read_info()
            if any(before.get(key) != self._info[key] for key in ("config", "beginning")):
                raise InputError(f"{store.path} holds a lottery with other settings, or of other first weights")
            self._info |= {"rewind": before["rewind"]}
        elif self._temporary is None:
            store.refuse_if_taken()
        with store.held(new=not going_on and self._temporary is None):
            if going_on and (record := store.finished(self._trainer.rounds)) is not None:
                return record
            rounds = self._rounds = Rounds(self._trainer, store, Callbacks(self._keep_rewind, self._round_over))
            if not going_on:
                store.write_info(self._info)
            self._trainer.model.load_state_dict(self._beginning)  # Where an earlier call has left other weights.
            record = rounds.play(resume=going_on)
            self._report(record)
            store.drop_states()
        return record

    def ticket(self, round: int | None = None) -> nn.Module:
        """A ticket of a round that is over, rewound and sparse, ready to be trained. Default: the record's best."""
        record = self._store.read_record()
        if round is None and record.rounds:
            round = record.best_ticket().round
        if round is None or not self._store.ticket_path(round).exists():
            raise InputError(f"there is no ticket of round {round}: {len(record.rounds)} rounds are over")
        path = self._store.ticket_path(round)
        return self._sparse(load_ticket(path, copy.deepcopy(self._trainer.model)), read_ticket(path).masks)

    def trained(self) -> nn.Module:
        """The ticket that this process trained last, sparse, with the weights of its training."""
        if self._rounds is None or not self._rounds.position.trained:
            raise InputError("nothing was trained yet: call run() first")
        model = copy.deepcopy(self._trainer.model)
        model.load_state_dict(self._rounds.position.trained)
        return self._sparse(model, self._rounds.position.masks)

    def _sparse(self, model: nn.Module, masks: Masks) -> nn.Module:
        device = next(iter(self._trainer.all_alive.values())).device
        return set_masks(model, {name: mask.to(device) for name, mask in masks.items()}, backend=self._trainer.backend)

    def _keep_rewind(self, sha256: str) -> None:
        self._info["rewind"] = {"sha256": sha256}
        self._store.write_info(self._info)

    def _round_over(self, record: Record) -> None:
        if self._on_round is None:
            self._trainer.tell(record)
        else:
            self._on_round(record.rounds[-1])

    def _report(self, record: Record) -> None:
        from lth_sparse import report  # Which takes matplotlib half a second to import.

        report.write(self._store.path, self._info, record)


def _check(**functions: object) -> None:
    for name, function in functions.items():
        if not callable(function):
            raise InputError(f"{name}: got a {type(function).__name__}, expected a function of the model")


def _pruning(rounds: int, rate: float, sparsity: float | None, scope: str) -> PruningConfig:
    if isinstance(rounds, bool) or not isinstance(rounds, int) or rounds < 0:
        raise InputError(f"rounds: got {rounds!r}, expected a whole number of at least 0")
    for name, value in (("rate", rate), ("sparsity", sparsity)):
        if value is not None:
            fraction(value, name)
    check_scope(scope)
    if sparsity is not None and rounds == 0:
        raise InputError("sparsity: got one to reach, but rounds=0 prunes nothing")
    return PruningConfig(rounds=rounds, prune_rate=rate, sparsity=sparsity, scope=scope)
