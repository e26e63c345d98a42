"""What a network has to have to go through a lottery, found out before anything is written."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune

import lth_sparse as lth
from lth_sparse import models
from lth_sparse.nn.masks import prunable
from lth_sparse.system.errors import InputError

SHAPE = (1, 6, 6)


def small(outputs: int = 4) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(3 * 16, outputs))


def check(model: nn.Module, shape: tuple[int, int, int] = SHAPE) -> str:
    return models.check(models.Network("mine:net", shape, 4), model)


class Changed(nn.Module):
    """`small`, whose output `change` makes something else of."""

    def __init__(self, change: object) -> None:
        super().__init__()
        self.inner, self.change = small(), change

    def forward(self, x: Tensor) -> object:
        return self.change(self, self.inner(x))  # type: ignore[operator]


def pruned() -> nn.Module:
    model = small()
    prune.random_unstructured(model[3], "weight", 0.5)
    return model


def sparse() -> nn.Module:
    return lth.sparsify(small(), {"0": torch.rand(3, 1, 3, 3) < 0.5})


def tied() -> nn.Module:
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 36), nn.Linear(36, 36), nn.Linear(36, 4))
    model[2].weight = model[1].weight
    return model


def hooked() -> nn.Module:
    model = small()
    model[0].bias.register_hook(lambda gradient: gradient)
    return model


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (small(5), "gives (2, 5) for 2 images, expected (2, 4), a number for each class"),
        (nn.Sequential(nn.Flatten(), nn.LayerNorm(36)), "has no nn.Conv2d and no nn.Linear"),
        (nn.Sequential(nn.Flatten(), nn.LazyLinear(4)), "has lazy layers"),
        (pruned(), "is pruned already, in 3: a lottery begins with a dense network"),
        (sparse(), "is pruned already, in 0"),
        (tied(), "shares one weight between 1.weight and 2.weight"),
        (hooked(), 'cannot be pruned: "0": got a hook on its parameter "bias"'),
        (Changed(lambda self, x: (x, x)), "gives a tuple in training; expected one float tensor"),
        (Changed(lambda self, x: x if self.training else [x]), "gives a list in evaluation"),
        (Changed(lambda self, x: x.argmax(1)), "gives a torch.int64 in training"),
        (Changed(lambda self, x: 1 / 0), "does not take images of 1x6x6: ZeroDivisionError: division by zero; mend it"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_what_cannot_go_through_a_lottery_is_refused(model: nn.Module, message: str) -> None:
    with pytest.raises(InputError, match=r"^model 'mine:net' .*" + re.escape(message)) as refused:
        check(model)
    assert "\n" not in str(refused.value)


def test_the_size_that_fits_is_found() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(2 * 30 * 30, 4))
    with pytest.raises(InputError, match=r"1x6x6: RuntimeError: .*; --image-size 32 gives it images that it takes$"):
        check(model)
    assert check(model, (1, 32, 32)) == ""


def test_a_layer_that_is_used_twice_is_no_tie() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 36), nn.ReLU(), nn.Linear(36, 4))
    model.add_module("2", model[1])
    assert check(model) == ""


def test_trying_it_leaves_the_network_and_chance_as_they_were() -> None:
    model = small()
    before, random = {name: value.clone() for name, value in model.state_dict().items()}, torch.get_rng_state()
    assert check(model) == ""
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(random, torch.get_rng_state())


def test_layers_that_are_left_alone_are_said() -> None:
    class Scaled(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    attention = nn.TransformerEncoderLayer(6, 2, 8, batch_first=True)
    model = nn.Sequential(Scaled(1, 1, 1), Scaled(1, 1, 1), nn.Flatten(1, 2), attention, nn.Flatten(), nn.Linear(36, 4))
    parametrize.register_parametrization(attention.linear2, "weight", nn.Identity())
    said = check(model)
    assert "0 and 1 more: a tests.models.test_fitness.test_layers_that_are_left_alone_are_said.<locals>.Scaled" in said
    assert "3.self_attn.out_proj: nn.MultiheadAttention computes with its weight and never calls it" in said
    assert "3.linear2: a " in said
    assert list(prunable(model)) == ["3.linear1", "5"]
