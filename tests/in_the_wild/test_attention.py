"""nn.MultiheadAttention and nn.TransformerEncoderLayer, which use the weights of layers that they do not call."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize, prune

import lth_sparse as lth


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


TOKENS = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(1))


def encoder(**options) -> nn.Module:
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True, **options)
    return nn.TransformerEncoder(layer, 2)


def pruned_to_zero(model: nn.Module) -> nn.Module:
    """Half of the weights of each linear layer exactly 0."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Linear):
                module.weight.mul_(torch.rand(module.weight.shape) < 0.5)
    return model


def sparsified(model: nn.Module, expected: str) -> tuple[nn.Module, list[str]]:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        sparse = lth.sparsify(model)
    texts = [str(warning.message) for warning in said]
    assert any(expected in text for text in texts), texts
    return sparse, texts


def test_the_output_projection_of_attention_stays_dense_and_is_named():
    model = pruned_to_zero(nn.ModuleDict({"attention": nn.MultiheadAttention(8, 2), "out": nn.Linear(8, 8)}))
    projection = type(model["attention"].out_proj)
    sparse, texts = sparsified(model, '"attention.out_proj"')
    assert len(texts) == 1
    assert "nn.MultiheadAttention computes with its weight and never calls it" in texts[0]
    assert type(sparse["attention"].out_proj) is projection
    assert isinstance(sparse["out"], lth.SparseLinear)


def test_so_it_does_when_it_is_a_plain_linear_layer():
    model = nn.MultiheadAttention(8, 2)
    model.out_proj = nn.Linear(8, 8)
    sparse, texts = sparsified(pruned_to_zero(model), '"out_proj"')
    assert len(texts) == 1
    assert type(sparse.out_proj) is nn.Linear


def test_a_parametrized_one_is_named_too():
    model = pruned_to_zero(nn.MultiheadAttention(8, 2))
    parametrize.register_parametrization(model.out_proj, "weight", nn.Identity())
    sparsified(model, '"out_proj"')


def test_pruned_by_torch_both_projections_are_named():
    model = nn.MultiheadAttention(8, 2)
    prune.random_unstructured(model.out_proj, "weight", amount=0.5)
    prune.random_unstructured(model, "in_proj_weight", amount=0.5)
    _, texts = sparsified(model, '"out_proj"')
    assert 'in_proj_weight of "" (MultiheadAttention)' in texts[0]


@pytest.mark.parametrize("plain", [True, False])
def test_a_mask_for_it_is_refused(plain):
    model = nn.Sequential(nn.MultiheadAttention(8, 2))
    if plain:
        model[0].out_proj = nn.Linear(8, 8)
    with pytest.raises(TypeError, match=r'masks: got one for "0.out_proj".*never calls it.*leave it out'):
        lth.sparsify(model, {"0.out_proj": torch.eye(8).bool()})


def test_an_attention_of_ones_own_that_calls_its_projection_has_it_sparse():
    class Attention(nn.MultiheadAttention):
        def __init__(self):
            super().__init__(8, 2)
            self.out_proj = nn.Linear(8, 8)

        def forward(self, x):
            return self.out_proj(x)

    assert isinstance(lth.sparsify(pruned_to_zero(Attention())).out_proj, lth.SparseLinear)


def gradients(model: nn.Module, out: torch.Tensor) -> dict[str, torch.Tensor]:
    """Of the dense weights and the biases, by their dense names."""
    model.zero_grad()
    out.square().sum().backward()
    found = {}
    for name, parameter in model.named_parameters():
        layer = model.get_submodule(name.rpartition(".")[0])
        if isinstance(layer, lth.SparseLinear) and name.endswith("values"):
            found[name.replace("values", "weight")] = layer.pattern.scatter(parameter.grad)
        else:
            found[name] = parameter.grad
    return found


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("mode", ["train", "eval", "eval without gradients", "eval, padded", "eval, padded, frozen"])
def test_an_encoder_gives_the_same_outputs_and_gradients(mode):
    dense = pruned_to_zero(encoder())
    sparse, _ = sparsified(copy.deepcopy(dense), "out_proj")
    padding = torch.tensor([[False] * 5, [False] * 3 + [True] * 2]) if "padded" in mode else None
    kept = {name: layer.mask for name, layer in sparse.named_modules() if isinstance(layer, lth.SparseLinear)}
    assert set(kept) == {f"layers.{i}.linear{j}" for i in (0, 1) for j in (1, 2)}
    for model in (dense, sparse):
        model.train(mode == "train").requires_grad_("frozen" not in mode)
    with torch.set_grad_enabled("without" not in mode):
        ours, theirs = (model(TOKENS, src_key_padding_mask=padding) for model in (sparse, dense))
    if mode == "eval, padded, frozen":
        # The fast path of a dense encoder leaves 0 where there is padding, which means nothing.
        assert not theirs[padding].any()
        ours, theirs = ours[~padding], theirs[~padding]
    torch.testing.assert_close(ours, theirs)
    if mode in ("train", "eval", "eval, padded"):
        expected = gradients(dense, theirs)
        for name, mask in kept.items():
            expected[f"{name}.weight"].mul_(mask)
        torch.testing.assert_close(gradients(sparse, ours), expected, rtol=1e-4, atol=1e-5)


def calls(model: nn.Module) -> int:
    """How many sparse layers a forward pass without gradients calls."""
    count = 0

    def spied(layer, forward):
        def call(x):
            nonlocal count
            count += 1
            return forward(x)

        layer.forward = call

    for layer in model.modules():
        if isinstance(layer, lth.SparseLinear):
            spied(layer, layer.forward)
    with torch.no_grad():
        model(TOKENS)
    return count


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("batch_first", [True, False])
def test_an_encoder_calls_its_sparse_layers_where_a_dense_one_takes_its_fast_path(batch_first):
    model = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=batch_first)
    masks = {name: torch.rand(model.get_submodule(name).weight.shape) < 0.5 for name in ("linear1", "linear2")}
    lth.sparsify(model, masks)
    assert calls(copy.deepcopy(model).train()) == 2
    assert calls(model.eval()) == 2
