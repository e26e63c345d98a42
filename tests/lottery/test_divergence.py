"""What is not finite stops a training before it is saved, and the layer where it began is named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn

from lth_sparse.data.batches import Batches
from lth_sparse.data.dataset import Dataset
from lth_sparse.lottery.divergence import Diverged
from lth_sparse.lottery.training import Training
from lth_sparse.nn import fuse, sparsify
from lth_sparse.nn.masks import all_alive
from lth_sparse.settings.config import TrainingConfig

CONFIG = TrainingConfig(
    optimizer="sgd", learning_rate=0.01, momentum=0.0, batch_size=16, epochs=3, evaluate_every=100
)  # fmt: skip


class Breaking(nn.Module):
    """Gives its input, or what makes the forward or the backward pass go wrong in call number `at`."""

    def __init__(self, at: int, forward: float = 1.0, backward: float = 1.0) -> None:
        super().__init__()
        self.at, self.calls = at, 0
        self.factors = forward, backward

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        if self.calls >= self.at and self.training:
            forward, backward = self.factors
            x = x * forward
            if backward != 1.0:
                x.register_hook(lambda gradient: gradient * backward)
        return x


def network(breaking: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), breaking, nn.Flatten(),
        nn.Linear(4 * 36, 2),
    )  # fmt: skip


def training(data: Dataset, model: nn.Module, config: TrainingConfig = CONFIG) -> Training:
    return Training(model, all_alive(model), data, Batches(data, 16, "none", 0), config, (1, "ticket"))


def nothing() -> None:
    pass


@pytest.mark.parametrize("form", [lambda model: model, lambda model: fuse(sparsify(model, backend="cpp"))])
@pytest.mark.parametrize(
    ("breaking", "said"),
    [
        (Breaking(6, forward=float("nan")), r"the loss is nan; the first layer with .* not finite is 4 \(Breaking\)$"),
        (
            Breaking(6, forward=3e38),
            r"the first layer with an output that is not finite is \d \((Breaking|Sparse|Linear)",
        ),
        (
            Breaking(6, backward=float("nan")),
            r"gradients are not; the first .* from the loss on, is 3 \((Sparse)?Conv2d\); backwards it has reached 0 ",
        ),
    ],
)
def test_the_first_layer_is_named_in_the_step_where_it_happens(
    tiny_data: Dataset, form: Callable[[nn.Module], nn.Module], breaking: Breaking, said: str
) -> None:
    breaking.calls = 0
    stopped = training(tiny_data, form(network(breaking)))
    stopped.check_finite = True
    with pytest.raises(Diverged, match=said):
        stopped.run(nothing, nothing)
    assert stopped.iteration == 5


def test_a_step_of_the_optimizer_that_overflows_is_told_from_the_passes(tiny_data: Dataset) -> None:
    stopped = training(tiny_data, network(nn.Identity()), replace(CONFIG, learning_rate=3e38, momentum=0.9))
    stopped.check_finite = True
    with pytest.raises(Diverged, match=r"step of the optimizer makes weights that are not; .* is \d \(|the loss is"):
        stopped.run(nothing, nothing)
    assert stopped.iteration < 2


def test_no_state_can_be_taken_of_a_training_that_has_diverged(tiny_data: Dataset) -> None:
    """Also where no evaluation is due yet that would have said so."""
    ends = []
    stopped = training(tiny_data, network(Breaking(6, forward=float("nan"))))

    def end_of_epoch() -> None:
        ends.append(stopped.iteration)
        stopped.check_state()

    with pytest.raises(Diverged, match="the loss is nan"):
        stopped.run(end_of_epoch, nothing)
    assert ends == [4, 8]


def test_weights_that_the_last_step_spoiled_are_no_state(tiny_data: Dataset) -> None:
    stopped = training(tiny_data, network(nn.Identity()))
    stopped.check_state()
    with torch.no_grad():
        stopped.model[0].weight[0, 0, 0, 0] = float("inf")
    with pytest.raises(Diverged, match="weights are not finite"):
        stopped.check_state()


def test_looking_changes_nothing(tiny_data: Dataset) -> None:
    states = []
    for check in (False, True):
        looked = training(tiny_data, fuse(sparsify(network(nn.Identity()), backend="cpp")))
        looked.check_finite = check
        looked.run(nothing, nothing)
        states.append(looked.model.state_dict())
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
