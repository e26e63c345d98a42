"""The proof of the rewind: what has to hold before and after a ticket is trained, checked at every round.

Each check stands for a mistake that was found in published code, and tests/lottery/test_proof.py makes every one:
initial weights that alias the trained ones, masks that are not applied after a step, `w < eps` without `abs`, which
freezes every negative weight, an optimizer whose momentum crosses rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lth_sparse.nn.forms import dense_state, own_masks, shared_by_ties, unwrap
from lth_sparse.nn.masks import Masks, apply, weight_name
from lth_sparse.storage import sealed
from lth_sparse.storage.record import NOT_PROVED
from lth_sparse.system.errors import ProofError

Weights = dict[str, Tensor]
"""A state dict whose tensors share no memory with any model."""


@dataclass(frozen=True)
class Snapshot:
    """The rewind weights of a run, and their SHA-256 as the run's record has it."""

    weights: Weights
    sha256: str


NEGLIGIBLE_GRADIENT = 1e-4
"""Of the weight itself: a gradient below this may move it by less than float32 resolves."""


def copy_of(model: nn.Module) -> Weights:
    """The weights and buffers of `model`, in their dense form, copied: `state_dict()` gives back the same tensors."""
    return {name: tensor.detach().clone() for name, tensor in dense_state(model).items()}


def rewind(model: nn.Module, weights: Weights, masks: Masks) -> None:
    """Puts saved weights and buffers back into a dense `model`, with the pruned weights exactly zero."""
    model.load_state_dict(weights)
    apply(model, masks)


def _require(holds: bool, statement: str, detail: str) -> tuple[str, str]:
    if not holds:
        raise ProofError(f"the rewind is not proved: '{statement}' does not hold: {detail}")
    return statement, detail


def before_training(
    model: nn.Module, masks: Masks, saved: Snapshot, start: Weights, optimizer: torch.optim.Optimizer | None
) -> list[tuple[str, str]]:
    """(statement, detail) of each check on a network just rewound; raises ProofError for the first that fails.

    `model`: in any form, dense, sparse or under torch.nn.utils.prune. `start`: the weights that it was given, before
    its mask: the saved ones for a ticket. `optimizer`: None where it does not exist yet, or is not known.
    """
    now = sealed.digest(saved.weights)
    state = dense_state(model)
    weight_of = {weight_name(name): mask for name, mask in shared_by_ties(model, masks).items()}
    shared = [name for name, tensor in saved.weights.items() if tensor.data_ptr() == state[name].data_ptr()]
    differing = []
    for name, tensor in start.items():
        expected = tensor.masked_fill(~weight_of[name], 0) if name in weight_of else tensor
        if not _same_bits(state[name], expected):
            differing.append(name)
    pruned = sum(int((~mask).sum()) for mask in masks.values())
    statements = [
        _require(
            now == saved.sha256,
            "the saved weights are those of the record",
            f"SHA-256 {now}, recorded {saved.sha256}",
        ),
        _require(
            not shared,
            "the saved weights are a copy",
            f"{len(state) - len(shared)} of {len(state)} tensors apart",
        ),
        _require(
            not differing,
            "w == w0 * mask, bit for bit",
            f"{', '.join(differing)} differ" if differing else f"{pruned} pruned weights are 0, all else is as saved",
        ),
    ]
    if optimizer is not None:
        entries = len(optimizer.state)
        statements.append(_require(entries == 0, "the optimizer starts empty", f"{entries} entries of state"))
    return statements


def not_before_training(
    model: nn.Module, masks: Masks, saved: Snapshot, optimizer: torch.optim.Optimizer | None
) -> list[tuple[str, str]]:
    """The same of a training that emulates a missing rewind: nothing is proved, and it says what would not hold."""
    state = dense_state(model)
    live = {weight_name(name): mask for name, mask in shared_by_ties(model, masks).items()}
    moved = sum(int((state[name] != saved.weights[name])[mask].sum()) for name, mask in live.items())
    entries = len(optimizer.state) if optimizer is not None else 0
    return [
        (
            f"{NOT_PROVED}: emulates a rewind that copies the weights onto themselves, and an optimizer that lives on",
            f"{moved} of {sum(int(mask.sum()) for mask in live.values())} live weights are not the rewind weights, the "
            f"optimizer begins with {entries} entries of state",
        )
    ]


def refuse_other_masks(model: nn.Module, masks: Masks) -> None:
    """Raises ProofError where a sparse `model` has other masks after its training than those it was given."""
    others = [
        name for name, mask in own_masks(unwrap(model)[0]).items() if not torch.equal(mask, masks.get(name, mask))
    ]
    _require(not others, "the masks are those of the round", f"{', '.join(others)} have others after the training")


def changed_masks(masks: Masks, expected: Mapping[tuple[str, ...], int]) -> tuple[str, str]:
    """(statement, detail) of the check on `masks` that a training has changed; raises ProofError where it fails.

    `expected`: how many weights have to live in the layers of each key together.
    """
    wrong = []
    for layers, number in expected.items():
        live = sum(int(masks[name].sum()) for name in layers)
        if live != number:
            wrong.append(f"{', '.join(layers)}: {live}, expected {number}")
    return _require(
        not wrong,
        "after training as many weights live as its topology is to have",
        "; ".join(wrong) or f"{sum(expected.values())} in {sum(map(len, expected))} layers",
    )


def after_training(
    model: nn.Module,
    masks: Masks,
    start: Weights,
    gradient_at_start: Callable[[], Mapping[str, Tensor]],
    began: Masks | None = None,
) -> list[tuple[str, str]]:
    """(statement, detail) of each check on a trained ticket; raises ProofError for the first that fails.

    `model`, `start`: as for `before_training`. `began`: the masks that it was given, where `masks` are others that the
    training changed them to: what has to have moved lived before and after. `gradient_at_start()` gives the gradient of
    the loss there, by layer. It is asked only when the live weights of one sign in some layer all stood still, to tell
    a ticket that is cut off from its output there from a mistake in the masking; where it gives none for a layer,
    others have to have moved.
    """
    state, given = dense_state(model), masks if began is None else began
    weights = {name: state[weight_name(name)] for name in masks}
    revived = sum(int((weight[~masks[name]] != 0).sum()) for name, weight in weights.items())
    statements = [
        _require(revived == 0, "every pruned weight is exactly 0 after training", f"{revived} pruned weights are not")
    ]
    gradient: Mapping[str, Tensor] | None = None
    for sign, direction in (("positive", 1), ("negative", -1)):
        alive = moved = 0
        frozen: list[str] = []
        unreached: list[str] = []
        unknown: list[str] = []
        for name, weight in weights.items():
            first = start[weight_name(name)]
            chosen = masks[name] & given[name] & (direction * first > 0)
            moved_here = int((weight[chosen] != first[chosen]).sum())
            alive, moved = alive + int(chosen.sum()), moved + moved_here
            if not moved_here and bool(chosen.any()):
                gradient = gradient_at_start() if gradient is None else gradient
                if name not in gradient:
                    unknown.append(name)
                    continue
                reached = gradient[name][chosen].abs() > NEGLIGIBLE_GRADIENT * first[chosen].abs()
                (frozen if bool(reached.any()) else unreached).append(name)
        detail = f"{moved} of {alive} moved"
        detail += f"; none in {', '.join(frozen)}" if frozen else ""
        detail += f"; no gradient reaches those of {', '.join(unreached)}" if unreached else ""
        detail += f"; none in {', '.join(unknown)}, whose gradient is not known" if unknown else ""
        holds = not frozen and (moved > 0 or not unknown)
        statements.append(_require(holds, f"live {sign} weights moved in every layer that a gradient reaches", detail))
    return statements


def _same_bits(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and torch.equal(
        one.contiguous().reshape(-1).view(torch.uint8), other.contiguous().reshape(-1).view(torch.uint8)
    )
