"""The lottery: train, prune, rewind, retrain, round after round (Frankle and Carbin 2019; Renda et al. 2020).

Round 0 trains the dense network. Every later round prunes what the round before it trained, rewinds the survivors to
the saved weights, proves that it did, and trains them again; its other arms go through the same training beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import MISSING, asdict, dataclass, fields

from torch import nn

from lth_sparse.lottery import proof
from lth_sparse.lottery.arms import Arm, Origin
from lth_sparse.lottery.position import WEIGHTS, Position, TrainingState, refuse_others
from lth_sparse.lottery.proof import Snapshot
from lth_sparse.lottery.trainer import Trainer
from lth_sparse.nn import masks as masking
from lth_sparse.nn.forms import dense_state, shared_by_ties
from lth_sparse.storage import sealed
from lth_sparse.storage.arms import CONTROLS, TICKET
from lth_sparse.storage.record import TIME_COLUMNS, LayerCount, Proof, Record, Round
from lth_sparse.storage.run_directory import RunDirectory
from lth_sparse.system import processes
from lth_sparse.system.errors import BackendError, InputError, because

_COLUMNS = {column.name for column in fields(Round) if column.default is MISSING}
_COLUMNS_OF_PRUNING = {"accuracy_before_prune", "accuracy_after_prune"}


@dataclass(frozen=True)
class Callbacks:
    """What is called while a lottery is played.

    `on_rewind_saved(sha256)`: the rewind weights are known, and nothing has used them yet. `on_round(record)`: a round
    is over, its ticket and tables written.
    """

    on_rewind_saved: Callable[[str], None] = lambda sha256: None
    on_round: Callable[[Record], None] = lambda record: None


class Rounds:
    """The rounds that `trainer` plays, written to `store`."""

    def __init__(self, trainer: Trainer, store: RunDirectory, callbacks: Callbacks, memory_format: str = "") -> None:
        self._trainer = trainer
        self._store = store
        self._callbacks = callbacks
        self._saved = Snapshot({}, "")
        self.position = Position(trainer.all_alive, memory_format)

    def play(self, resume: bool) -> Record:
        """Plays every round that is still to be played, and gives the whole record.

        `resume`: go on from the newest whole state that the store has, if it has one.
        """
        with self._trainer.session():
            state = self._restore() if resume else None
            for round in range(self.position.round, self._trainer.rounds + 1):
                self._play_round(round, state)
                state = None
            return self.position.record

    def _play_round(self, round: int, state: TrainingState | None) -> None:
        """From where the round was interrupted, in the training whose state is `state`, or from its beginning."""
        position = self.position
        position.round = round
        if position.arm == "":
            self._open_round()
            position.arm = TICKET.name
        arms = self._trainer.arms(round)
        for arm in arms[[arm.name for arm in arms].index(position.arm) :]:
            position.arm = arm.name
            self._play(arm, state)
            state = None
        self._close_round()

    def _open_round(self) -> None:
        """Prunes, and evaluates what pruning alone does to the trained network."""
        position, trainer = self.position, self._trainer
        if position.round == 0:
            if trainer.rewinds_to_start:
                self._save_rewind_weights(trainer.model)
            return
        if trainer.prunes_at_start:
            trainer.model.load_state_dict(self._saved.weights)
            before = trainer.accuracy()
        else:
            trainer.model.load_state_dict(position.trained)
            # Of the very weights that are pruned here, evaluated at the end of their round.
            before = position.record.rounds[0 if trainer.one_shot else -1].accuracy_retrained
        candidates = trainer.all_alive if trainer.one_shot or trainer.prunes_at_start else position.masks
        position.masks = trainer.prune(candidates, position.round)
        masking.apply(trainer.model, position.masks)
        if any("pruned" in arm.needs for arm in trainer.arms(position.round)):
            position.pruned = position.trained
        if any("began" in arm.needs for arm in trainer.arms(position.round)):
            position.began = position.masks
        if not trainer.one_shot:
            position.trained = {}
        position.found = {
            "accuracy_before_prune": before,
            "accuracy_after_prune": trainer.accuracy(),
        }

    def _play(self, arm: Arm, state: TrainingState | None) -> None:
        """One training of `arm`, from its start or from `state`, with its proofs, and its columns of the round's row.

        It leaves the trained weights in the trainer's model.
        """
        position, trainer = self.position, self._trainer
        origin = self._origin()
        drawn = processes.first(lambda: arm.masks(origin))
        shared = shared_by_ties(trainer.model, drawn)
        masks = {name: shared[name] for name in drawn}
        dense = position.round == 0 and arm.name == TICKET.name
        # Where the dense training starts is known beforehand only if it is what later rounds go back to.
        known = not dense or trainer.rewinds_to_start
        start = arm.start(origin)
        with self._state_refused() if state is not None else nullcontext():
            if known:
                proof.rewind(trainer.model, start, masks)
            training = trainer.begin(arm, masks, position, state)
        if known and state is None:
            checked = (
                proof.not_before_training(training.model, masks, self._saved, training.optimizer)
                if arm.keeps_optimizer
                else proof.before_training(training.model, masks, self._saved, start, training.optimizer)
            )
            self._prove(arm, checked)
        trainer.run(
            training,
            arm,
            lambda: self._save(training.state()),
            self._save_rewind_weights if dense else lambda model: None,
        )
        left = training.masks
        proof.refuse_other_masks(training.model, left)
        if trainer.model is not training.model:
            trainer.model.load_state_dict(dense_state(training.model))
        if dense:  # Which may have said meanwhile what later rounds go back to.
            start = self._saved.weights
        gradient = lambda: trainer.gradient_at(start, masks, position.round)  # noqa: E731
        if training.live_at_the_end is not None:
            self._prove(arm, [proof.changed_masks(left, training.live_at_the_end)])
            position.masks = left
        self._prove(arm, proof.after_training(trainer.model, left, start, gradient, masks))
        position.record.curves.extend(training.curve)
        if arm.column is not None:
            position.found[arm.column] = trainer.accuracy()
        if arm.name == TICKET.name:
            self._find_row(training, start)
        if arm.twin:
            trainer.compare(training, arm, position)
            position.twin = {}
        if any(other.twin == arm.name for other in trainer.arms(position.round)):
            position.twin = proof.copy_of(trainer.model)

    def _origin(self) -> Origin:
        position, trainer = self.position, self._trainer
        return Origin(
            position.masks,
            self._saved.weights,
            trainer.drawn_anew,
            trainer.seed,
            position.round,
            position.dense,
            position.pruned,
            position.began,
        )

    def _find_row(self, training: object, start: proof.Weights) -> None:
        """All columns but the accuracies of the arms. `training`: the ticket's, finished; `start`: where it began."""
        position, trainer = self.position, self._trainer
        if position.round == 0:
            accuracy = position.found[TICKET.column]
            position.found |= dict.fromkeys(("accuracy_before_prune", "accuracy_after_prune"), accuracy)
        if position.round == 0 or not trainer.one_shot:
            position.trained = proof.copy_of(trainer.model)
        if position.round == 0 and trainer.rounds and any("dense" in arm.needs for arm in trainer.arms(1)):
            position.dense = position.trained
        # A control that is trained at all is trained after the ticket.
        position.found |= {control.column: None for control in CONTROLS.values()}
        density = masking.density(position.masks)
        position.found |= {
            "round": position.round,
            "density": density,
            "sparsity": 1 - density,
            "live_weights": masking.live(position.masks),
        }
        position.found |= trainer.row(training, position, start)

    def _prove(self, arm: Arm, statements: list[tuple[str, str]]) -> None:
        self.position.record.proofs.extend(
            Proof(self.position.round, arm.name, statement, detail) for statement, detail in statements
        )

    def _close_round(self) -> None:
        """Writes the round's ticket and its rows."""
        position, trainer, record = self.position, self._trainer, self.position.record
        row = Round(**position.found)
        record.rounds.append(row)
        for name, mask in position.masks.items():
            record.layers.append(LayerCount(position.round, name, trainer.kinds[name], mask.numel(), int(mask.sum())))
        own = trainer.metadata()
        self._store.write_ticket(
            position.round,
            trainer.model,
            position.masks,
            weights=trainer.arms(position.round)[0].start(self._origin()),
            network=trainer.network,
            metadata={
                "dataset": row.dataset,
                "round": {name: value for name, value in asdict(row).items() if name not in TIME_COLUMNS},
                "rewind": own.pop("rewind") | {"sha256": self._saved.sha256},
                **own,
            },
        )
        self._store.write_record(record)
        trainer.write()
        trainer.round_done(row, record)
        self._callbacks.on_round(record)
        position.found, position.arm = {}, ""

    def _save_rewind_weights(self, model: nn.Module) -> None:
        weights = proof.copy_of(model)
        self._saved = Snapshot(weights, sealed.digest(weights))
        self._store.write_rewind(weights)
        self._callbacks.on_rewind_saved(self._saved.sha256)

    def _save(self, training: TrainingState) -> None:
        """Writes all that `_restore` needs."""
        self._trainer.write()
        self._store.write_state(*self.position.to_state(training, self._saved.sha256, self._trainer.settings))

    def _restore(self) -> TrainingState | None:
        """Goes back to the newest whole state of an interrupted run, if there is one."""
        found = self._store.read_state()
        if found is None:
            return None
        tensors, state = found
        with self._state_refused():
            if not self._trainer.is_of(state["config"]):
                raise InputError(
                    f"config.json of {self._store.path} is not what the run began with; this run cannot go on, "
                    "start another"
                )
            self._restore_rewind_weights(state["saved_sha256"])
            network = self._trainer.network
            position = self.position.at(tensors, state, 0 if network is None else network.classes)
            now = self._trainer.model.state_dict()
            for kind in WEIGHTS:
                if weights := getattr(position, kind):
                    refuse_others(weights, now, kind)
            for kind in ("dense", "pruned", "twin"):
                weights = {name: value.to(now[name].device) for name, value in getattr(position, kind).items()}
                setattr(position, kind, weights)
            rounds, arms = self._trainer.rounds, [arm.name for arm in self._trainer.arms(position.round)]
            if position.round > rounds or position.arm not in arms or len(position.record.rounds) != position.round:
                raise ValueError(f"it is of round {position.round} of {rounds}, {position.arm!r}")
            if not position.trained and (position.arm != TICKET.name or (self._trainer.one_shot and position.round)):
                raise ValueError("it has no trained weights")
            if lost := [
                kind
                for arm in self._trainer.arms(position.round)
                for kind in sorted(arm.needs)
                if not getattr(position, kind)
            ]:
                raise ValueError(f"it has no {lost[0]} weights")
            over = arms[: arms.index(position.arm)]
            if not position.twin and any(
                arm.twin in over for arm in self._trainer.arms(position.round) if arm.name not in over
            ):
                raise ValueError("it has no twin weights")
            needed = _COLUMNS if position.arm != TICKET.name else _COLUMNS_OF_PRUNING if position.round else set()
            if missing := needed - position.found.keys():
                raise ValueError(f"its row lacks {', '.join(sorted(missing))}")
            training = state["training"]
        self.position = position
        self._store.name_damaged_tickets(position.round)
        return tensors, training

    @contextmanager
    def _state_refused(self) -> Iterator[None]:
        """A state that is whole and says what no run would: somebody has written it."""
        try:
            yield
        except (InputError, BackendError):
            raise
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, RuntimeError, RecursionError) as error:
            raise InputError(
                f"the newest state under {self._store.path} is none of this run ({because(error)}); remove it to go on "
                "from the one before it, or start another run"
            ) from error

    def _restore_rewind_weights(self, recorded_sha256: str) -> None:
        if not recorded_sha256:
            return  # This state is from before the step whose weights are saved.
        weights = self._store.read_rewind()
        if weights is None and self._trainer.rewinds_to_start:
            weights = proof.copy_of(self._trainer.model)
        if weights is None or sealed.digest(weights) != recorded_sha256:
            raise InputError(
                f"the rewind weights of {self._store.path} are lost or not those of its record "
                f"(SHA-256 {recorded_sha256}); this run cannot go on, start another"
            )
        now = self._trainer.model.state_dict()
        refuse_others(weights, now, "rewind")
        self._saved = Snapshot({name: value.to(now[name].device) for name, value in weights.items()}, recorded_sha256)
