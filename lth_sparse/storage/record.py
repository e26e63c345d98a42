"""What a run has found out so far: the one source of `rounds.csv`, the other tables and the report.

Everything in a record is plain data, so it travels in a state file, in `record.json` and to the report unchanged.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from lth_sparse.storage.instability import Barrier, PathPoint
from lth_sparse.system import checked_json as read

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_Row = TypeVar("_Row")

TIME_COLUMNS = ("step_ms", "dense_step_ms", "speedup", "seconds", "repacking_seconds", "dense_gradient_seconds")
"""Columns of `rounds.csv` that differ between two runs of the same command; all others are equal."""


@dataclass(frozen=True)
class Round:
    """One row of `rounds.csv`. Accuracies are fractions of the test set; round 0 is the dense network.

    `accuracy_before_prune`: trained, before this round's pruning. `accuracy_after_prune`: the same weights, pruned,
    not retrained. `accuracy_rewound`: the ticket itself, rewound, not retrained. `accuracy_retrained`: the ticket
    trained to the end. `accuracy_early_stop`: the ticket at its iteration of minimum validation loss.
    `accuracy_random`, `accuracy_reinit`, ... (empty without the control): the controls of `lottery/arms.py`, trained
    alike, at the end. `accuracy_validation` is `accuracy_retrained` on the validation set,
    the only one that ever selects. `max_relative_error`: largest difference of the logits from masked dense in
    float64, over the largest logit. `step_ms`, `dense_step_ms`: a training step on this ticket, and the same step of
    masked dense PyTorch, side by side on the same batches; `speedup` is their ratio. `seconds`: training the ticket,
    without evaluations and controls; of these, where its topology changed in training, `repacking_seconds` what the
    changes took, with the surplus of the steps that followed, and `dense_gradient_seconds` the dense gradients.
    `gradient_bytes`: of the gradients that several processes average in a step of the ticket, `dense_gradient_bytes` of
    the dense network's; empty where one process trained.
    """

    round: int
    dataset: str
    density: float
    sparsity: float
    live_weights: int
    accuracy_before_prune: float
    accuracy_after_prune: float
    accuracy_rewound: float
    accuracy_retrained: float
    accuracy_early_stop: float | None
    accuracy_random: float | None
    # Records of before have no other control.
    accuracy_reinit: float | None = field(default=None, kw_only=True)
    accuracy_shuffle: float | None = field(default=None, kw_only=True)
    accuracy_invert: float | None = field(default=None, kw_only=True)
    accuracy_sign: float | None = field(default=None, kw_only=True)
    accuracy_rewind_none: float | None = field(default=None, kw_only=True)
    accuracy_static: float | None = field(default=None, kw_only=True)
    accuracy_validation: float
    early_stop_iteration: int | None
    iterations: int | None
    epochs: int | None
    train_loss: float | None
    max_relative_error: float | None
    step_ms: float | None
    dense_step_ms: float | None
    speedup: float | None
    seconds: float
    # Nor did topologies change then.
    repacking_seconds: float | None = None
    dense_gradient_seconds: float | None = None
    # Nor was there more than one process.
    gradient_bytes: int | None = None
    dense_gradient_bytes: int | None = None


@dataclass(frozen=True)
class CurvePoint:
    """One evaluation during training. `arm` is "ticket", a control, or a copy for the analysis of instability;
    `train_loss` is the mean since the last point."""

    round: int
    arm: str
    iteration: int
    train_loss: float
    validation_loss: float
    validation_accuracy: float


@dataclass(frozen=True)
class LayerCount:
    """Live weights of one prunable layer after a round's pruning. `kind` is "conv", "fc" or "output"."""

    round: int
    layer: str
    kind: str
    weights: int
    live: int


@dataclass(frozen=True)
class Proof:
    """One statement of the rewind proof, checked in `round` for `arm`; a statement that fails stops the run.

    One that begins with `NOT_PROVED` says why there is none.
    """

    round: int
    arm: str
    statement: str
    detail: str


NOT_PROVED = "not proved"
"""How a statement begins that stands where a proof would, and was not checked."""
STEP = "step"
"""The `operation` of a whole training step."""


@dataclass(frozen=True)
class Chosen:
    """What the auto backend chose in `round` for one `operation` of a layer, or, where `layer` is "", what computes the
    whole training step, and in which memory format. `milliseconds`: the least that each backend took, for a step the
    median; `note`: the rest of the reason, if there is any.
    """

    round: int
    layer: str
    density: float
    operation: str
    backend: str
    milliseconds: dict[str, float]
    note: str
    memory_format: str = ""

    def times(self) -> str:
        """The backend chosen with its milliseconds, and those of the others in brackets."""

        def words(name: str) -> str:
            return f"{name} {self.milliseconds[name]:.2f}" if name in self.milliseconds else name

        others = sorted(self.milliseconds.keys() - {self.backend}, key=lambda name: self.milliseconds[name])
        return words(self.backend) + (f" ({', '.join(map(words, others))})" if others else "")

    def sentence(self) -> str:
        """What computes a whole step, in which memory format, and why."""
        what = "masked dense PyTorch trains it" if self.backend == "dense" else "sparse layers train it"
        what += f", {self.memory_format}" if self.memory_format else ""
        times = f"a step takes {self.times()} ms" if self.milliseconds else ""
        why = "; ".join(part for part in (times, self.note) if part)
        return f"{what}: {why}" if why else what


@dataclass
class Record:
    """Grows by one round at a time. `confusion[round][true class][predicted class]` counts test images. `chosen`:
    what was measured and chosen; without auto that is the memory format of each round, if anything. `barriers`,
    `paths`: of the analysis of instability, if it was asked for.
    """

    rounds: list[Round] = field(default_factory=list)
    curves: list[CurvePoint] = field(default_factory=list)
    layers: list[LayerCount] = field(default_factory=list)
    proofs: list[Proof] = field(default_factory=list)
    confusion: list[list[list[int]]] = field(default_factory=list)
    chosen: list[Chosen] = field(default_factory=list)
    barriers: list[Barrier] = field(default_factory=list)
    paths: list[PathPoint] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """The record as JSON-ready data; `from_json` gives it back."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Any) -> Record:
        """The record that `to_json` wrote. Raises ValueError, in one sentence, when this is none."""
        found = read.mapping(data, "the record")

        def rows(name: str, kind: type[_Row]) -> list[_Row]:
            # Finished runs of versions before this one lack some.
            listed = read.listed({"chosen": [], "barriers": [], "paths": []} | dict(found), name, "the record")
            return [read.row(kind, row, f"{name}[{number}]") for number, row in enumerate(listed)]

        confusion = read.listed(found, "confusion", "the record")
        if not read.is_of(confusion, list[list[list[int]]]):
            raise ValueError('"confusion" of the record is no list of matrices')
        return cls(
            rounds=rows("rounds", Round),
            curves=rows("curves", CurvePoint),
            layers=rows("layers", LayerCount),
            proofs=rows("proofs", Proof),
            confusion=confusion,
            chosen=rows("chosen", Chosen),
            barriers=rows("barriers", Barrier),
            paths=rows("paths", PathPoint),
        )

    def best_ticket(self) -> Round:
        """The sparsest pruned round that validates at least as well as the dense network, else the best of them.

        Chosen on the validation set alone: its test accuracy may be quoted. Round 0 where nothing was pruned.
        """
        dense, *tickets = self.rounds
        winning = [row for row in tickets if row.accuracy_validation >= dense.accuracy_validation]
        if winning:
            return winning[-1]
        return max(tickets, key=lambda row: row.accuracy_validation, default=dense)


def table(rows: Sequence[DataclassInstance]) -> str:
    """`rows` as CSV text with a header line. Floats are written in full, so equal runs give equal text."""
    return table_of([asdict(row) for row in rows])


def table_of(rows: Sequence[Mapping[str, Any]]) -> str:
    """The same of rows that have the same columns."""
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return text.getvalue()
