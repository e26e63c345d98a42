"""Hooks, buffers and attributes that other tools put on a layer: sparsify and densify keep them, or refuse by name."""

from __future__ import annotations

import copy
from types import MethodType

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

import lth_sparse as lth


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


IMAGES = torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(1))
NAMES = ("0", "3")


def network() -> nn.Module:
    """A convolution "0" and a linear layer "3", and what stands between."""
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(36, 5))


def masks_of(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: torch.rand(model.get_submodule(name).weight.shape) < 0.5 for name in NAMES}


class Notes:
    """Hooks of every kind, which note their name and the class of the layer that they were called for."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, str]] = []

    def hook(self, name: str):
        def note(module, *_, **__):
            self.taken.append((name, type(module).__name__))

        return note

    def with_kwargs(self, name: str):
        def note(module, args, kwargs, *_):
            assert isinstance(kwargs, dict)
            self.taken.append((name, type(module).__name__))

        return note

    def on(self, layer: nn.Module) -> list:
        return [
            layer.register_forward_pre_hook(self.hook("forward pre")),
            layer.register_forward_pre_hook(self.with_kwargs("forward pre, kwargs"), with_kwargs=True),
            layer.register_forward_hook(self.hook("forward")),
            layer.register_forward_hook(self.with_kwargs("forward, kwargs"), with_kwargs=True),
            layer.register_forward_hook(self.hook("forward, always"), always_call=True),
            layer.register_full_backward_pre_hook(self.hook("backward pre")),
            layer.register_full_backward_hook(self.hook("backward")),
            layer.register_state_dict_pre_hook(self.hook("save pre")),
            layer.register_state_dict_post_hook(self.hook("save post")),
            layer.register_load_state_dict_pre_hook(self.hook("load pre")),
            layer.register_load_state_dict_post_hook(self.hook("load post")),
        ]

    def of(self, model: nn.Module) -> list[tuple[str, str]]:
        """What is noted while `model` runs forward and backward, is saved and is loaded."""
        self.taken.clear()
        model(IMAGES.clone().requires_grad_()).sum().backward()
        model.load_state_dict(model.state_dict())
        return list(self.taken)


KINDS = {"0": ("Conv2d", "SparseConv2d"), "3": ("Linear", "SparseLinear")}


@pytest.mark.parametrize("name", NAMES)
def test_hooks_of_a_layer_are_called_for_the_one_that_replaces_it(name):
    model, notes = network(), Notes()
    dense, sparse = KINDS[name]
    handles = notes.on(model.get_submodule(name))
    before = notes.of(model)
    assert {hook for hook, _ in before} == {
        "forward pre",
        "forward pre, kwargs",
        "forward",
        "forward, kwargs",
        "forward, always",
        "backward pre",
        "backward",
        "save pre",
        "save post",
        "load pre",
        "load post",
    }
    lth.sparsify(model, masks_of(model))
    assert notes.of(model) == [(hook, sparse) for hook, _ in before]
    lth.densify(model)
    assert notes.of(model) == [(hook, dense) for hook, _ in before]

    # The handles that were given out for the first layer remove from the last one.
    for handle in handles:
        handle.remove()
    assert notes.of(model) == []


def test_a_hook_that_changes_the_output_changes_it_still():
    model = network()
    model[0].register_forward_hook(lambda module, inputs, output: 2 * output)
    masks = masks_of(model)
    expected = copy.deepcopy(model)
    with torch.no_grad():
        for name, mask in masks.items():
            expected.get_submodule(name).weight.mul_(mask)
    torch.testing.assert_close(lth.sparsify(model, masks)(IMAGES), expected(IMAGES))


def test_the_layer_that_was_replaced_runs_as_it_did():
    model, notes = network(), Notes()
    prune.random_unstructured(model[0], "weight", amount=0.5)
    model[0].register_forward_hook(notes.hook("forward"))
    dense = model[0]
    lth.sparsify(model)
    torch.testing.assert_close(dense(IMAGES), model[0](IMAGES))
    assert notes.taken == [("forward", "Conv2d"), ("forward", "SparseConv2d")]


def test_prunes_own_hook_is_in_the_mask_and_does_not_come_along():
    model = network()
    prune.random_unstructured(model[0], "weight", amount=0.5)
    prune.random_unstructured(model[0], "bias", amount=0.5)
    lth.sparsify(model)
    assert not model[0]._forward_pre_hooks
    assert set(model[0].state_dict()) == {"values", "mask", "bias"}


def test_buffers_and_attributes_are_kept_there_and_back():
    model = network()
    statistics = torch.zeros(3)
    for name in NAMES:
        layer = model.get_submodule(name)
        layer.register_buffer("statistics", statistics)
        layer.register_buffer("scratch", torch.ones(2), persistent=False)
        layer.label = f"layer {name}"
        layer.weight.no_decay = name
        layer.bias.no_decay = False
        layer.weight.moment = torch.zeros_like(layer.weight)  # of a shape that its values do not have
    lth.sparsify(model, masks_of(model))
    for name in NAMES:
        layer = model.get_submodule(name)
        assert set(layer.state_dict()) == {"values", "mask", "bias", "statistics"}
        assert layer.statistics is statistics  # two layers share it
        assert layer.scratch.sum() == 2
        assert layer.label == f"layer {name}"
        assert (layer.values.no_decay, layer.bias.no_decay) == (name, False)
        assert not hasattr(layer.values, "moment")
    model.load_state_dict(model.state_dict())
    lth.densify(model)
    for name in NAMES:
        layer = model.get_submodule(name)
        assert set(layer.state_dict()) == {"weight", "bias", "statistics"}
        assert layer.statistics is statistics
        assert layer.label == f"layer {name}"
        assert set(vars(layer)) - {"label"} == set(vars(network().get_submodule(name)))
        assert (layer.weight.no_decay, layer.bias.no_decay) == (name, False)


def test_a_buffer_that_is_called_as_prunes_mask_is_a_buffer_like_others():
    model = network()
    dense, mask = model[3], torch.rand(5, 36) < 0.5
    dense.register_buffer("weight_mask", torch.zeros(5, 36))
    with torch.no_grad():
        dense.weight.mul_(mask)
    expected = model(IMAGES)
    lth.sparsify(model)
    assert torch.equal(model[3].mask, mask)
    assert model[3].weight_mask is dense.weight_mask
    torch.testing.assert_close(model(IMAGES), expected)


def test_a_copy_has_hooks_and_buffers_of_its_own():
    dense, notes = nn.Linear(4, 3), Notes()
    dense.register_forward_hook(notes.hook("forward"))
    dense.register_buffer("statistics", torch.zeros(3))
    sparse = lth.SparseLinear.from_dense(dense, None)
    sparse.register_forward_hook(notes.hook("of the copy"))
    sparse.statistics.add_(1)
    dense(torch.randn(2, 4))
    assert notes.taken == [("forward", "Linear")]
    assert dense.statistics.sum() == 0
    again = sparse.to_dense()
    again.statistics.add_(1)
    again.register_forward_hook(notes.hook("of the copy's copy"))
    assert len(sparse._forward_hooks) == 2
    assert sparse.statistics.sum() == 3


def parametrized_by_weight_norm(layer):
    parametrizations.weight_norm(layer)


def with_a_hook_on(key, register):
    def change(layer):
        getattr(getattr(layer, key), register)(lambda *_: None)

    return change


def with_its_own_forward(layer):
    layer.forward = MethodType(lambda self, x: x, layer)


LOST = {
    "weight_norm": (
        parametrized_by_weight_norm,
        'a parametrization of "weight".*remove_parametrizations(layer, "weight") first',
    ),
    "spectral_norm": (
        parametrizations.spectral_norm,
        'a parametrization of "weight".*remove_parametrizations(layer, "weight") first',
    ),
    "the old weight_norm": (
        nn.utils.weight_norm,
        "torch.nn.utils.weight_norm.*torch.nn.utils.remove_weight_norm(layer) first",
    ),
    "the old spectral_norm": (
        nn.utils.spectral_norm,
        "torch.nn.utils.spectral_norm.*torch.nn.utils.remove_spectral_norm(layer) first",
    ),
    "a hook on the weight": (
        with_a_hook_on("weight", "register_hook"),
        'a hook on its parameter "weight".*register it on the parameter of the layer that comes instead',
    ),
    "a post-accumulate hook on the weight": (
        with_a_hook_on("weight", "register_post_accumulate_grad_hook"),
        'a hook on its parameter "weight"',
    ),
    "a hook on the bias": (with_a_hook_on("bias", "register_hook"), 'a hook on its parameter "bias"'),
    "a parameter": (
        lambda layer: layer.register_parameter("scale", nn.Parameter(torch.ones(1))),
        'the extra parameter "scale".*a module around the layer',
    ),
    "a submodule": (
        lambda layer: layer.add_module("adapter", nn.Linear(1, 1)),
        'the submodule "adapter".*a module around the layer',
    ),
    "a buffer of a name that is taken": (
        lambda layer: layer.register_buffer("mask", torch.ones(1)),
        'an attribute "mask".*rename or delete it',
    ),
    "an attribute of a name that is taken": (
        lambda layer: setattr(layer, "sparsity", 0.9),
        'an attribute "sparsity".*rename or delete it',
    ),
    "a forward of its own": (with_its_own_forward, 'a "forward" of its own.*a module around the layer'),
    "compile": (lambda layer: layer.compile(), "layer.compile().*compile afterwards"),
    "an old backward hook": (
        lambda layer: layer.register_backward_hook(lambda *_: None),
        "a hook of register_backward_hook.*register_full_backward_hook",
    ),
}


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated")
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("change", "message"), LOST.values(), ids=LOST)
def test_what_would_be_lost_is_refused_before_the_model_changes(name, change, message):
    model = network()
    masks = masks_of(model)
    change(model.get_submodule(name))
    modules = list(model.modules())
    with pytest.raises(ValueError, match=f'^"{name}": got {message}'.replace("(", r"\(").replace(")", r"\)")):
        lth.sparsify(model, masks)
    assert list(model.modules()) == modules


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda layer: parametrize.register_parametrization(layer, "bias", nn.Identity()), "a parametrization"),
        (with_a_hook_on("values", "register_hook"), 'a hook on its parameter "values"'),
        (LOST["a parameter"][0], 'the extra parameter "scale"'),
        (LOST["a submodule"][0], 'the submodule "adapter"'),
        (lambda layer: setattr(layer, "weight_orig", 1), 'an attribute "weight_orig"'),
        (with_its_own_forward, 'a "forward" of its own'),
    ],
    ids=["parametrization", "a hook", "a parameter", "a submodule", "an attribute", "a forward"],
)
def test_densify_refuses_the_same(name, change, message):
    model = network()
    lth.sparsify(model, masks_of(model))
    change(model.get_submodule(name))
    modules = list(model.modules())
    with pytest.raises(ValueError, match=f'^"{name}": got {message}'):
        lth.densify(model)
    assert list(model.modules()) == modules


def test_a_pruned_layer_that_is_parametrized_is_refused_without_masks_too():
    model = network()
    with torch.no_grad():
        model[0].weight[0] = 0
    parametrizations.spectral_norm(model[0])
    expected = copy.deepcopy(model).state_dict()
    with pytest.raises(ValueError, match=r'^"0": got a parametrization of "weight"'):
        lth.sparsify(model)
    torch.testing.assert_close(model.state_dict(), expected)  # to look at it is no step of its power iteration
    parametrize.remove_parametrizations(model[0], "weight")
    assert isinstance(lth.sparsify(model)[0], lth.SparseConv2d)


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated")
@pytest.mark.parametrize("norm", [nn.utils.weight_norm, nn.utils.spectral_norm, parametrizations.weight_norm])
def test_normed_layers_that_are_not_pruned_are_left_alone(norm):
    model = network()
    norm(model[0])
    layer = model[0]
    mask = torch.rand(model[3].weight.shape) < 0.5
    assert lth.sparsify(model, {"3": mask})[0] is layer
    assert lth.sparsify(model)[0] is layer
    assert lth.densify(model)[0] is layer


def test_other_layers_may_have_what_they_like():
    model = network()
    for change, _ in (LOST["a parameter"], LOST["a submodule"], LOST["a hook on the weight"]):
        change(model[3])
    parametrizations.weight_norm(model[3])
    mask = torch.rand(model[0].weight.shape) < 0.5
    lth.sparsify(model, {"0": mask})
    assert isinstance(model[0], lth.SparseConv2d)
