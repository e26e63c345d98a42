"""Each criterion beside a reference of a few dense lines, and how criteria prune."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from torch.nn.utils import prune as torch_prune

import lth_sparse as lth
from lth_sparse.lottery import criteria
from lth_sparse.lottery.criteria import chance, gradients, synaptic_flow
from lth_sparse.lottery.criteria.interface import Evidence
from lth_sparse.nn.masks import Masks, apply, prunable
from lth_sparse.system.errors import InputError

IMAGES = torch.randn(12, 2, 6, 6, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(12) % 3


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Tanh(), nn.Conv2d(4, 6, 3, groups=2), nn.Tanh(), nn.Flatten(),
        nn.Linear(24, 3),
    )  # fmt: skip


def loss(model: nn.Module) -> Tensor:
    return functional.cross_entropy(model(IMAGES.to(next(model.parameters()).dtype)), LABELS)


EVIDENCE = Evidence(loss, IMAGES[:1], seed=3)


def masks_of(model: nn.Module, density: float = 0.7) -> Masks:
    generator = torch.Generator().manual_seed(2)
    return {name: torch.rand(weight.shape, generator=generator) < density for name, weight in prunable(model).items()}


def scored(name: str, model: nn.Module, masks: Masks) -> dict[str, Tensor]:
    apply(model, masks)
    found = criteria.CRITERIA[name].scores(model.double(), masks, EVIDENCE)
    return {layer: scores.detach() for layer, scores in found.items()}


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    return {f"{name}.weight": weight.detach().double() for name, weight in prunable(model).items()}


def value(model: nn.Module, weights: dict[str, Tensor], temperature: float = 1.0) -> Tensor:
    """The loss in training mode with these weights."""
    model = model.double().train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.track_running_stats = False
    return functional.cross_entropy(functional_call(model, weights, (IMAGES.double(),)) / temperature, LABELS)


def test_magnitude() -> None:
    model = network()
    found = scored("magnitude", model, masks_of(model))
    assert all(torch.equal(found[name], weight.abs()) for name, weight in prunable(model).items())


def test_snip_is_what_a_small_change_of_each_weight_does_to_the_loss() -> None:
    """Lee et al. 2019, equation 5: the loss by a factor on each weight, here by differences."""
    model = network()
    found = scored("snip", model, masks_of(model))
    weights, step = weights_of(model), 1e-6
    for name, scores in found.items():
        weight = weights[f"{name}.weight"]
        for index in [(0, 0), (1, 1), (2, 0)]:
            more, less = weight.clone(), weight.clone()
            more[index] *= 1 + step
            less[index] *= 1 - step
            # All entries at once where the index names a kernel: their sum.
            ends = [value(model, weights | {f"{name}.weight": each}).detach() for each in (more, less)]
            slope = float(ends[0] - ends[1]) / (2 * step)
            if scores[index].dim() == 0:
                assert float(scores[index]) == pytest.approx(abs(slope), rel=1e-4, abs=1e-9)
            else:
                assert abs(slope) <= float(scores[index].sum()) * 1.0001


def test_grasp_is_the_weight_times_the_hessian_by_the_gradient() -> None:
    model = network()
    found = scored("grasp", model, masks_of(model))
    weights = weights_of(model)
    names = list(weights)

    def of(*given: Tensor) -> Tensor:
        return value(model, dict(zip(names, given, strict=True)), gradients.TEMPERATURE)

    given = tuple(weights.values())
    gradient = torch.autograd.functional.jacobian(of, given)
    _, product = torch.autograd.functional.hvp(of, given, gradient)
    for name, weight, row in zip(names, given, product, strict=True):
        assert torch.allclose(found[name.removesuffix(".weight")], weight * row, rtol=1e-6, atol=1e-15)


def test_synflow_is_the_share_of_all_paths_that_go_through_a_weight() -> None:
    """Of linear layers: R is the sum over paths of products of magnitudes, and a score the part with this weight."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4, bias=False), nn.ReLU(), nn.Linear(4, 2, bias=False))
    masks = masks_of(model)
    apply(model, masks)
    found = synaptic_flow.scores(model, masks, Evidence(example=torch.randn(5, 3)))
    first, second = (layer.weight.detach().double().abs() for layer in (model[0], model[2]))
    paths = torch.einsum("ji,kj->kji", first, second)  # Output k, hidden j, input i.
    assert torch.allclose(found["0"], paths.sum(0))
    assert torch.allclose(found["2"], paths.sum(2))


def test_synflow_conserves_flow_from_layer_to_layer() -> None:
    """Tanaka et al. 2020, theorem 1, for a network without biases whose BatchNorm only scales."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 2, bias=False), nn.Flatten(),
        nn.Linear(27, 3, bias=False),
    )  # fmt: skip
    found = synaptic_flow.scores(model, masks_of(model, 1.1), Evidence(example=IMAGES[:1]))
    sums = [float(scores.detach().sum()) for scores in found.values()]
    assert sums == pytest.approx([sums[0]] * 3)


def test_scoring_leaves_the_model_as_it_is() -> None:
    for name in criteria.CRITERIA:
        model = network()
        for parameter in model.parameters():
            parameter.requires_grad_(False)  # Frozen, and scored all the same.
        before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
        masks = masks_of(model, 1.1)
        criteria.best(name, model, masks, dict.fromkeys(masks, 0.4), [list(masks)], EVIDENCE)
        assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())
        assert model.training
        assert not any(parameter.requires_grad or parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("name", criteria.CRITERIA)
@pytest.mark.parametrize("scope", ["layerwise", "global"])
def test_each_keeps_as_many_as_it_is_told_among_the_live_ones(name: str, scope: str) -> None:
    model = network()
    masks = masks_of(model, 0.8)
    pools = [list(masks)] if scope == "global" else [[layer] for layer in masks]
    found = criteria.best(name, model, masks, dict.fromkeys(masks, 0.3), pools, EVIDENCE)
    assert all(not (mask & ~masks[layer]).any() for layer, mask in found.items())
    sizes = {layer: mask.numel() for layer, mask in masks.items()}
    assert sum(int(mask.sum()) for mask in found.values()) == pytest.approx(0.3 * sum(sizes.values()), abs=3)
    if scope == "layerwise" and name != "erk":
        assert all(int(mask.sum()) == round(0.3 * sizes[layer]) for layer, mask in found.items())
    again = criteria.best(name, network(), masks, dict.fromkeys(masks, 0.3), pools, EVIDENCE)
    assert all(torch.equal(found[layer], again[layer]) for layer in found)


@pytest.mark.parametrize("name", ["random", "erk"])
def test_chance_depends_on_the_seed_alone(name: str) -> None:
    masks = masks_of(network(), 1.1)
    keep = dict.fromkeys(masks, 0.3)

    def found(seed: int) -> Tensor:
        chosen = criteria.best(name, network(), masks, keep, [list(masks)], Evidence(seed=seed))
        return torch.cat([mask.flatten() for mask in chosen.values()])

    assert torch.equal(found(0), found(0))
    assert not torch.equal(found(0), found(1))


@pytest.mark.parametrize("density", [0.9, 0.5, 0.2, 0.05])
def test_erk_is_in_proportion_to_sizes_over_their_product(density: float) -> None:
    model = network()
    masks = masks_of(model, 1.1)
    found = chance.erk(masks, dict.fromkeys(masks, density))
    live = sum(found[name] * mask.numel() for name, mask in masks.items())
    assert live == pytest.approx(density * sum(mask.numel() for mask in masks.values()))
    parts = {name: sum(mask.shape) / mask.numel() for name, mask in masks.items()}
    below = [name for name in masks if found[name] < 1]
    assert len({round(found[name] / parts[name], 9) for name in below}) <= 1
    for name in masks:
        if found[name] == 1 and below:
            assert parts[name] >= max(parts[each] for each in below)


def test_synflow_does_not_cut_a_layer_through_where_magnitude_does() -> None:
    """Layer collapse (Tanaka et al. 2020, section 3): of a network whose middle layer has small weights."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 20), nn.ReLU(), nn.Linear(20, 20), nn.ReLU(), nn.Linear(20, 20))
    with torch.no_grad():
        model[2].weight.mul_(0.01)
    masks = masks_of(model, 1.1)
    keep = dict.fromkeys(masks, 0.02)
    evidence = Evidence(example=torch.ones(1, 20))
    live = {
        name: [int(mask.sum()) for mask in criteria.best(name, model, masks, keep, [list(masks)], evidence).values()]
        for name in ("magnitude", "synflow")
    }
    assert live["magnitude"][1] == 0
    assert min(live["synflow"]) > 0
    assert sum(live["synflow"]) == sum(live["magnitude"]) == 24


FORMS: dict[str, Callable[[nn.Sequential, Masks], nn.Module]] = {
    "sparse": lambda model, masks: lth.sparsify(model, masks),
    "under torch.nn.utils.prune": lambda model, masks: _under_prune(model, masks),
    "compiled": lambda model, masks: torch.compile(_under_prune(model, masks), backend="eager"),  # type: ignore[return-value]
}


def _under_prune(model: nn.Sequential, masks: Masks) -> nn.Sequential:
    for name, mask in masks.items():
        torch_prune.custom_from_mask(model.get_submodule(name), "weight", mask)
    return model


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", criteria.CRITERIA)
def test_every_form_of_a_model_is_pruned_alike(form: str, name: str) -> None:
    masks = masks_of(network(), 0.8)
    dense = network()
    apply(dense, masks)
    keep = dict.fromkeys(masks, 0.3)
    one = criteria.best(name, dense, masks, keep, [list(masks)], EVIDENCE)
    other = criteria.best(name, FORMS[form](network(), masks), masks, keep, [list(masks)], EVIDENCE)
    assert all(torch.equal(one[layer], other[layer]) for layer in one)


def test_prune_takes_what_a_criterion_needs() -> None:
    model = lth.prune(network(), sparsity=0.5, criterion="snip", scope="global", loss=loss)
    kept = lth.get_masks(model)
    assert sum(int(mask.sum()) for mask in kept.values()) == pytest.approx(0.5 * 252, abs=2)
    lth.prune(model, sparsity=0.7, criterion="synflow", scope="global", example=IMAGES[:1])
    assert all(not (mask & ~kept[name]).any() for name, mask in lth.get_masks(model).items())
    for criterion, message in {
        "snip": "'snip' needs loss=, a function of the model that gives its loss on a batch",
        "grasp": "'grasp' needs loss=",
        "synflow": "'synflow' needs example=, an input of the model",
        "snap": "got 'snap', did you mean \"snip\"",
    }.items():
        with pytest.raises(InputError, match=message):
            lth.prune(network(), 0.5, criterion=criterion)


def test_of_the_layers_that_keep_alike_erk_takes_no_more_than_is_alive_and_leaves_the_others() -> None:
    masks = masks_of(network(), 1.1)
    name, *others = masks
    masks[name] = torch.zeros_like(masks[name])
    masks[name].view(-1)[:5] = True
    keep = dict.fromkeys(others[:1], 1.0) | dict.fromkeys([name, *others[1:]], 0.3)
    found = criteria.best("erk", network(), masks, keep, [[each] for each in masks], EVIDENCE)
    assert found[others[0]].all()
    shared = [name, *others[1:]]
    wanted = 0.3 * sum(masks[each].numel() for each in shared)
    assert sum(int(found[each].sum()) for each in shared) == pytest.approx(wanted, abs=2)
    assert int(found[name].sum()) <= 5


def test_synflow_keeps_what_it_is_told_round_after_round() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(40, 60), nn.ReLU(), nn.Linear(60, 60), nn.ReLU(), nn.Linear(60, 4))
    masks = masks_of(model, 1.1)
    total = sum(mask.numel() for mask in masks.values())
    for round in range(1, 20):
        keep = dict.fromkeys(masks, 0.75**round)
        masks = criteria.best("synflow", model, masks, keep, [list(masks)], Evidence(example=torch.ones(1, 40)))
        assert sum(int(mask.sum()) for mask in masks.values()) == pytest.approx(0.75**round * total, abs=2)


class Dictionary(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(72, 3)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"logits": self.layer(x.flatten(1))}


@pytest.mark.parametrize(
    ("name", "model", "evidence", "message"),
    [
        ("snip", network(), Evidence(lambda m: loss(network())), "the loss depends on no weight of the model"),
        ("grasp", network(), Evidence(lambda m: loss(network())), "the loss depends on no weight of the model"),
        ("snip", network(), Evidence(lambda m: torch.ones(())), "the loss depends on no weight of the model"),
        ("grasp", Dictionary(), Evidence(lambda m: m(IMAGES)["logits"].sum()), "grasp cannot be asked of this model"),
        ("synflow", Dictionary(), Evidence(example=IMAGES), "synflow cannot be asked of this model, expected a tensor"),
        ("synflow", nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 2)), Evidence(example=torch.arange(3)),
         "synflow cannot be asked of this model, expected a tensor of float"),
    ],
)  # fmt: skip
def test_what_it_cannot_be_asked_of_is_said(name: str, model: nn.Module, evidence: Evidence, message: str) -> None:
    masks = masks_of(model, 1.1)
    with pytest.raises(InputError, match=message):
        criteria.best(name, model, masks, dict.fromkeys(masks, 0.5), [list(masks)], evidence)


def test_what_a_function_of_ones_own_raises_is_said() -> None:
    def mine(model: nn.Module) -> dict[str, Tensor]:
        raise ValueError("my own mistake")

    with pytest.raises(InputError, match=r"criterion: mine raised .*my own mistake"):
        lth.prune(network(), 0.5, criterion=mine)
