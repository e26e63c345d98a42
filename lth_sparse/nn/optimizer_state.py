"""What an optimizer keeps for a parameter, when the parameter gets another size or another takes its place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Move:
    """`new(network)` finds what has become of the parameter `old`, which may be itself; `moved` does to a tensor of the
    shape that `old` had what was done to its numbers. `name`: the parameter's, for errors."""

    name: str
    old: nn.Parameter
    new: Callable[[nn.Module], nn.Parameter]
    moved: Callable[[Tensor], Tensor]


def moved_state(optimizer: torch.optim.Optimizer | None, moves: Sequence[Move]) -> Callable[[nn.Module], None]:
    """What to call with the network once its parameters are what they become: the optimizer then has them, and its
    state for them.

    Tensors of the parameter's shape (momentum, moments) are moved, counts of steps stay. Raises ValueError, nothing
    changed, for an optimizer that keeps anything else, and for one that has none of the parameters.
    """
    if optimizer is None or not moves:
        return lambda network: None
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(f"optimizer: got a {type(optimizer).__name__}, expected a torch.optim.Optimizer")
    known = {parameter for group in optimizer.param_groups for parameter in group["params"]}
    if known.isdisjoint(move.old for move in moves):
        raise ValueError(
            "optimizer: got one that has none of the model's parameters whose masks change, expected the one that "
            "trains them: it was made before lth.sparsify, or of another model"
        )
    states = [(move, _moved(optimizer, move)) for move in moves if move.old in optimizer.state]

    def move_all(network: nn.Module) -> None:
        new_of = {move.old: move.new(network) for move in moves}
        for group in optimizer.param_groups:
            group["params"] = [new_of.get(parameter, parameter) for parameter in group["params"]]
        for move, _ in states:
            del optimizer.state[move.old]
        for move, state in states:
            optimizer.state[new_of[move.old]] = state

    return move_all


def _moved(optimizer: torch.optim.Optimizer, move: Move) -> dict[str, Any]:
    state: dict[str, Any] = {}
    for key, value in optimizer.state[move.old].items():
        if isinstance(value, Tensor) and value.shape == move.old.shape:
            value = move.moved(value)
        elif isinstance(value, Tensor | list | tuple) and not (isinstance(value, Tensor) and value.numel() == 1):
            raise ValueError(
                f'optimizer: {type(optimizer).__name__} keeps "{key}" of "{move.name}", which is not of its shape, so '
                "it has no part for each weight that survives: make the optimizer anew after the masks have changed"
            )
        state[key] = value
    return state
