"""Masks that change in the middle of a training: what survives keeps its numbers, and nothing is lost by an error."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import prune

import lth_sparse as lth

Make = Callable[[list[nn.Parameter]], torch.optim.Optimizer]
OPTIMIZERS: dict[str, Make] = {
    "sgd": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, nesterov=True, weight_decay=1e-3),
    "adam": lambda p: torch.optim.Adam(p, 0.01),
    "fused adamw": lambda p: torch.optim.AdamW(p, 0.01, fused=True),
    "amsgrad": lambda p: torch.optim.Adam(p, 0.01, amsgrad=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 0.01, momentum=0.5),
}


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 7, 3, padding=1, bias=False), nn.BatchNorm2d(7), nn.ReLU(), nn.Conv2d(7, 5, 3, stride=2),
        nn.Flatten(), nn.Linear(45, 11),
    )  # fmt: skip


def drawn(seed: int, density: float = 0.5) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    layers = {"0": (7, 3, 3, 3), "3": (5, 7, 3, 3), "5": (11, 45)}
    masks = {name: torch.rand(shape, generator=generator) < density for name, shape in layers.items()}
    masks["5"][4] = False  # A row without live weights.
    return masks


def step(model: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    dtype = next(model.parameters()).dtype
    images = torch.randn(6, 3, 8, 8, generator=generator, dtype=dtype)
    target = torch.randn(6, 11, generator=generator, dtype=dtype)
    loss = nn.functional.mse_loss(model(images), target)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()


class MaskedDense:
    """What has to come out: dense PyTorch, where weights, gradients and the optimizer's state are 0 where pruned."""

    def __init__(self, make: Make) -> None:
        self.model = network().double()
        self.optimizer = make(list(self.model.parameters()))
        self.masks: dict[str, Tensor] = {}

    def _pruned(self) -> Iterator[tuple[nn.Parameter, Tensor]]:
        for name, mask in self.masks.items():
            yield self.model.get_submodule(name).weight, mask  # type: ignore[misc]

    def set_masks(self, masks: dict[str, Tensor]) -> None:
        self.masks = masks
        for weight, mask in self._pruned():
            for value in self.optimizer.state[weight].values():
                if value.shape == weight.shape:
                    value.mul_(mask)
            weight.data.mul_(mask)

    def step(self, seed: int) -> Tensor:
        handles = [weight.register_hook(lambda g, mask=mask: g * mask) for weight, mask in self._pruned()]
        loss = step(self.model, self.optimizer, seed)
        for weight, mask in self._pruned():
            weight.data.mul_(mask)
        for handle in handles:
            handle.remove()
        return loss


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_training_goes_on_as_masked_dense_pytorch_does(make: Make) -> None:
    """In float64: in float32 RMSprop, which divides by gradients next to 0, drives rounding apart."""
    dense, model = MaskedDense(make), network().double()
    optimizer = make(list(model.parameters()))
    sequence = [{}, drawn(1), drawn(1, 0.3), drawn(2), {"3": drawn(3)["3"]}, drawn(4, 1.1)]
    for number, masks in enumerate(sequence):
        if masks:
            dense.set_masks(dense.masks | masks)
            assert lth.set_masks(model, masks, optimizer, backend="cpp") is model
        for seed in range(3 * number, 3 * number + 3):
            torch.testing.assert_close(step(model, optimizer, seed), dense.step(seed), rtol=1e-9, atol=1e-12)
    state = lth.densify(copy.deepcopy(model)).state_dict()
    for name, expected in dense.model.state_dict().items():
        torch.testing.assert_close(state[name], expected, rtol=1e-9, atol=1e-12, msg=name)
    live = sum(int(mask.sum()) for mask in dense.masks.values())
    assert sum(module.values.numel() for module in model if hasattr(module, "values")) == live


def test_values_stay_the_same_parameter_and_keep_their_gradient() -> None:
    model = lth.sparsify(network(), drawn(1))
    model(torch.randn(2, 3, 8, 8)).sum().backward()
    layer = model[3]
    values, before, gradient = layer.values, layer.weight.detach(), layer.pattern.scatter(layer.values.grad)
    old, new = drawn(1)["3"], drawn(2)["3"]
    lth.set_masks(model, {"3": new})
    assert layer.values is values
    assert torch.equal(layer.mask, new)
    assert torch.equal(layer.weight, before * (old & new))
    assert torch.equal(layer.pattern.scatter(layer.values.grad), gradient * (old & new))


def test_gradients_of_a_layer_that_becomes_sparse_come_along() -> None:
    model = network()
    model(torch.randn(2, 3, 8, 8)).sum().backward()
    weight, bias = model[3].weight.grad, model[3].bias.grad
    mask = drawn(1)["3"]
    lth.set_masks(model, {"3": mask})
    assert torch.equal(model[3].values.grad, weight[mask])
    assert torch.equal(model[3].bias.grad, bias)


def test_a_pruned_layer_of_torch_becomes_sparse_with_its_state() -> None:
    model = network()
    prune.l1_unstructured(model[5], "weight", 0.5)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    step(model, optimizer, 0)
    mask = lth.get_masks(model)["5"]
    momentum = optimizer.state[model[5].weight_orig]["momentum_buffer"]
    lth.set_masks(model, {"5": mask}, optimizer)
    assert torch.equal(optimizer.state[model[5].values]["momentum_buffer"], momentum[mask])
    assert not any(parameter is momentum for parameter in optimizer.state)
    step(model, optimizer, 1)


def test_a_mask_of_a_tied_weight_holds_for_both() -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6))
    model[2].weight = model[0].weight
    lth.sparsify(model, {name: torch.rand(6, 6, generator=torch.Generator().manual_seed(0)) < 0.7 for name in "02"})
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    model(torch.randn(3, 6)).sum().backward()
    optimizer.step()
    new = torch.rand(6, 6) < 0.4
    lth.set_masks(model, {"2": new}, optimizer)
    assert model[0].values is model[2].values
    assert torch.equal(model[0].mask, new)
    assert torch.equal(model[0].weight, model[2].weight)
    assert optimizer.state[model[0].values]["momentum_buffer"].shape == (int(new.sum()),)
    with pytest.raises(ValueError, match='different ones for "0" and "2", which share'):
        lth.set_masks(model, {"0": new, "2": ~new})


def test_the_model_itself_may_be_the_layer() -> None:
    layer = nn.Linear(6, 4)
    optimizer = torch.optim.SGD(layer.parameters(), 0.1)
    sparse = lth.set_masks(layer, {"": torch.rand(4, 6) < 0.5}, optimizer)
    assert isinstance(sparse, lth.SparseLinear)
    assert optimizer.param_groups[0]["params"] == [sparse.values, sparse.bias]
    assert lth.set_masks(sparse, {"": torch.ones(4, 6, dtype=torch.bool)}, optimizer) is sparse
    assert sparse.sparsity == 0


def test_masks_that_are_given_out_are_copies() -> None:
    model = lth.sparsify(network(), drawn(1))
    masks = lth.get_masks(model)
    masks["3"].fill_(True)
    assert torch.equal(lth.get_masks(model)["3"], drawn(1)["3"])
    assert lth.get_masks(network()) == {}


WRONG = {
    "an unknown layer": ({"6": torch.ones(1, 1, dtype=torch.bool)}, None, ValueError, 'unknown layer "6"'),
    "no layer": ({"1": torch.ones(7, dtype=torch.bool)}, None, TypeError, "BatchNorm2d, expected nn.Conv2d or"),
    "another shape": ({"3": torch.ones(5, 7, dtype=torch.bool)}, None, ValueError, r"got shape \(5, 7\), expected"),
    "numbers": ({"3": torch.ones(5, 7, 3, 3)}, None, TypeError, "expected a tensor of dtype torch.bool"),
    "a list": ([torch.ones(5, 7, 3, 3)], None, TypeError, "masks: got a list, expected"),
    "another model's optimizer": (drawn(2), lambda m: torch.optim.SGD(network().parameters(), 0.1), ValueError, "none"),
    "no optimizer": (drawn(2), lambda m: "sgd", TypeError, "optimizer: got a str, expected a torch.optim.Optimizer"),
    "LBFGS": (drawn(2), lambda m: torch.optim.LBFGS(m.parameters()), ValueError, "LBFGS keeps .* make the optimizer"),
}


@pytest.mark.parametrize(("masks", "make", "error", "message"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_used_changes_nothing(
    masks: dict[str, Tensor], make: Callable[[nn.Module], object] | None, error: type[Exception], message: str
) -> None:
    model = lth.sparsify(network(), {"0": drawn(1)["0"], "3": drawn(1)["3"]})
    optimizer = make(model) if make else None
    if isinstance(optimizer, torch.optim.LBFGS):

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = model(torch.ones(2, 3, 8, 8)).square().mean()
            loss.backward()
            return loss

        optimizer.step(closure)
    before, parameters = copy.deepcopy(model.state_dict()), list(model.parameters())
    with pytest.raises(error, match=message):
        lth.set_masks(model, masks, optimizer)  # type: ignore[arg-type]
    assert [id(parameter) for parameter in model.parameters()] == [id(parameter) for parameter in parameters]
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_a_factored_state_of_a_dense_layer_is_refused() -> None:
    model = network()
    optimizer = torch.optim.Adafactor(model.parameters())
    step(model, optimizer, 0)
    with pytest.raises(ValueError, match=r'Adafactor keeps "row_var" of "5.weight", which is not of its shape'):
        lth.set_masks(model, {"5": drawn(1)["5"]}, optimizer)
    assert isinstance(model[5], nn.Linear)


def test_distributed_data_parallel_keeps_its_sizes(tmp_path: Path) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        wrapped = DistributedDataParallel(lth.sparsify(network(), drawn(1)))
        moved = drawn(1)["3"].flatten()[torch.randperm(315)].reshape(5, 7, 3, 3)
        optimizer = torch.optim.SGD(wrapped.parameters(), 0.1, momentum=0.9)
        step(wrapped, optimizer, 0)
        lth.set_masks(wrapped, {"module.3": moved}, optimizer)
        step(wrapped, optimizer, 1)
        assert torch.equal(lth.get_masks(wrapped)["3"], moved)
        with pytest.raises(ValueError, match=r'the number of "3" would change: .* \(model.module\), and wrap it again'):
            lth.set_masks(wrapped, {"3": drawn(1, 0.2)["3"]}, optimizer)
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.alone
@pytest.mark.parametrize(("channels", "size", "density"), [(64, 32, 0.1), (256, 8, 0.1), (512, 4, 0.02)])
def test_a_layer_is_repacked_in_less_than_two_of_its_steps(channels: int, size: int, density: float) -> None:
    shape = (channels, channels, 3, 3)
    layer = lth.SparseConv2d(channels, channels, 3, padding=1, mask=torch.rand(shape) < density, backend="cpp")
    optimizer = torch.optim.SGD(layer.parameters(), 1e-3, momentum=0.9)
    images = torch.randn(128, channels, size, size, requires_grad=True)
    gradient = torch.randn(128, channels, size, size)

    def train() -> None:
        optimizer.zero_grad()
        layer(images).backward(gradient)
        optimizer.step()

    for _ in range(5):
        train()
    steps, repackings = [], []
    for _ in range(9):
        began = time.perf_counter()
        train()
        steps.append(time.perf_counter() - began)
        moved = layer.mask.flatten().roll(1).reshape(shape)
        began = time.perf_counter()
        lth.set_masks(layer, {"": moved}, optimizer)
        repackings.append(time.perf_counter() - began)
    assert min(repackings) < 2 * min(steps)
