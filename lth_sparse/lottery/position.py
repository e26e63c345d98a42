"""How far a lottery has come, and the state file that an interrupted one goes on from."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, get_type_hints

from torch import Tensor

from lth_sparse.lottery.proof import Weights
from lth_sparse.nn.masks import Masks
from lth_sparse.storage import confusion
from lth_sparse.storage.record import Record, Round
from lth_sparse.storage.ticket import pack, unpack
from lth_sparse.system import checked_json as read

_COLUMNS = get_type_hints(Round)
WEIGHTS = ("trained", "dense", "pruned", "twin")
"""The fields of a position that are weights."""

TrainingState = tuple[dict[str, Tensor], dict[str, Any]]
"""(tensors, JSON-ready data): what a training gives to be written, and takes to go on."""


@dataclass
class Position:
    """`arm`: "" between rounds, else the name of the arm in training, which the backend called `trained_by` computes in
    `memory_format`.

    `found`: columns of the round's row known so far. `masks`: the ticket's. `trained`: the weights that the next
    round prunes: those of the ticket trained last, or always the dense network's for one-shot pruning; empty when that
    ticket is still to be trained. `dense`, `pruned`, `began`: those of `arms.Origin`, empty where no arm needs them.
    `twin`: those that the twin of an arm that is still to come was trained to, empty where none is.
    """

    masks: Masks
    memory_format: str
    record: Record = field(default_factory=Record)
    round: int = 0
    arm: str = ""
    found: dict[str, Any] = field(default_factory=dict)
    trained: Weights = field(default_factory=dict)
    trained_by: str = ""
    dense: Weights = field(default_factory=dict)
    pruned: Weights = field(default_factory=dict)
    twin: Weights = field(default_factory=dict)
    began: Masks = field(default_factory=dict)

    def to_state(self, training: TrainingState, saved_sha256: str, settings: dict[str, Any]) -> TrainingState:
        """(tensors, JSON-ready data) of a lottery with these settings, in the middle of `training`."""
        tensors, progress = training
        tensors |= {f"mask/{name}": pack(mask) for name, mask in self.masks.items()}
        tensors |= {f"began/{name}": pack(mask) for name, mask in self.began.items()}
        for kind in WEIGHTS:
            tensors |= {f"{kind}/{name}": value for name, value in getattr(self, kind).items()}
        matrices = self.record.confusion
        tensors |= {f"confusion/{number}": confusion.pack(matrix) for number, matrix in enumerate(matrices)}
        return tensors, {
            "round": self.round,
            "arm": self.arm,
            "trained_by": self.trained_by,
            "memory_format": self.memory_format,
            "found": self.found,
            "record": replace(self.record, confusion=[]).to_json(),
            "training": progress,
            "saved_sha256": saved_sha256,
            "config": settings,
        }

    def at(self, tensors: dict[str, Tensor], state: dict[str, Any], classes: int) -> Position:
        """The position that `to_state` wrote; its masks have the shapes and the devices of those here, its confusion
        matrices so many classes.

        Raises KeyError or ValueError where it is not one.
        """

        def masks_of(kind: str) -> Masks:
            return {
                name: unpack(tensors[f"{kind}/{name}"], tuple(mask.shape)).to(mask.device)
                for name, mask in self.masks.items()
            }

        weights = {
            kind: {n.removeprefix(f"{kind}/"): value for n, value in tensors.items() if n.startswith(f"{kind}/")}
            for kind in WEIGHTS
        }
        where, record = "the state", Record.from_json(state["record"])
        # States of before have them in the record.
        matrices = [name for name in tensors if name.startswith("confusion/")]
        if len(matrices) > len(record.rounds) + 1:
            raise ValueError(f"{where} has {len(matrices)} confusion matrices, of {len(record.rounds)} rounds")
        record.confusion += [
            confusion.unpack(tensors[f"confusion/{number}"], classes) for number in range(len(matrices))
        ]
        found = read.mapping(state.get("found"), f"{where}.found")
        if wrong := [name for name in found if not read.is_of(found[name], _COLUMNS.get(name))]:
            raise ValueError(f"{where}.found has {wrong[0]!r}: {found[wrong[0]]!r}, which is not of a round's row")
        return Position(
            masks_of("mask"),
            # States of version 0.1.0 have no format: there was one for each network.
            read.text({"memory_format": self.memory_format} | state, "memory_format", where),
            record,
            read.count(state, "round", where),
            read.text(state, "arm", where),
            dict(found),
            trained_by=read.text(state, "trained_by", where),
            began=masks_of("began") if any(name.startswith("began/") for name in tensors) else {},
            **weights,
        )


def refuse_others(given: Weights, expected: Weights, where: str) -> None:
    """Raise ValueError where weights that a file has are not those of the model."""
    if given.keys() != expected.keys():
        raise ValueError(f"{where}/ has not the names of the model")
    for name, value in given.items():
        if value.shape != expected[name].shape:
            raise ValueError(f"{where}/{name} has shape {tuple(value.shape)}, expected {tuple(expected[name].shape)}")
