"""sparsify and densify on whole models."""

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

import lth_sparse.nn as lth
from lth_sparse.system.errors import BackendError


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


class Block(nn.Module):
    """A network with nested names, and layers of other kinds between."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.head = nn.ModuleDict({"hidden": nn.Linear(8, 16), "out": nn.Linear(16, 5)})

    def forward(self, x):
        return self.head["out"](self.head["hidden"](self.features(x).mean((2, 3))).relu())


IMAGES = torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(1))


def half_of(weight):
    return torch.rand(weight.shape) < 0.5


def kinds(model):
    return {name: type(module).__name__ for name, module in model.named_modules() if "." in name}


def test_named_masks_are_applied_and_other_layers_stay_dense():
    model = Block()
    mask = half_of(model.head["hidden"].weight)
    expected = copy.deepcopy(model)
    expected.head["hidden"].weight.data.mul_(mask)
    assert lth.sparsify(model, {"head.hidden": mask}, backend="dense") is model
    assert kinds(model) == {**kinds(expected), "head.hidden": "SparseLinear"}
    assert torch.equal(model.head["hidden"].mask, mask)
    assert model.head["hidden"].backend == "dense"
    torch.testing.assert_close(model(IMAGES), expected(IMAGES))


def test_models_pruned_by_pytorch_give_the_same_outputs_and_gradients():
    model = Block()
    prune.global_unstructured(
        [(model.features[0], "weight"), (model.head["hidden"], "weight")], prune.L1Unstructured, amount=0.7
    )
    prune.ln_structured(model.features[0], "weight", amount=2, n=2, dim=0)
    prune.random_unstructured(model.head["hidden"], "bias", amount=0.5)
    output, convolution = model(IMAGES), model.features[0]
    output.square().sum().backward()
    lth.sparsify(model)
    assert type(model.features[0]) is lth.SparseConv2d
    assert type(model.head["hidden"]) is lth.SparseLinear
    assert type(model.head["out"]) is nn.Linear
    sparse_output = model(IMAGES)
    torch.testing.assert_close(sparse_output, output)
    sparse_output.square().sum().backward()
    expected = convolution.weight_orig.grad[convolution.weight_mask.bool()]
    torch.testing.assert_close(model.features[0].values.grad, expected)


def test_a_pruned_model_that_was_just_trained_is_read_as_its_next_forward_would():
    model = nn.Sequential(nn.Linear(6, 4))
    prune.random_unstructured(model[0], "weight", amount=0.5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    model(torch.randn(3, 6)).square().sum().backward()
    optimizer.step()
    pruned = model[0]
    lth.sparsify(model)
    x = torch.randn(3, 6)
    torch.testing.assert_close(model(x), pruned(x))


def test_a_live_weight_that_happens_to_be_zero_stays_live_under_a_prune_mask():
    model = nn.Sequential(nn.Linear(6, 4))
    prune.random_unstructured(model[0], "weight", amount=0.5)
    with torch.no_grad():
        model[0].weight_orig.zero_()
    mask = model[0].weight_mask.bool()
    assert torch.equal(lth.sparsify(model)[0].mask, mask)


def test_exact_zeros_are_the_mask_where_there_is_no_other():
    model = Block()
    mask = half_of(model.features[0].weight)
    model.features[0].weight.data.mul_(mask)
    expected = copy.deepcopy(model)
    lth.sparsify(model)
    assert kinds(model) == {**kinds(expected), "features.0": "SparseConv2d"}
    assert torch.equal(model.features[0].mask, mask)
    torch.testing.assert_close(model(IMAGES), expected(IMAGES))


def test_densify_undoes_sparsify():
    model = Block()
    masks = {name: half_of(model.get_submodule(name).weight) for name in ("features.0", "head.out")}
    lth.sparsify(model, masks)
    expected = model(IMAGES)
    assert lth.densify(model) is model
    assert kinds(model) == kinds(Block())
    torch.testing.assert_close(model(IMAGES), expected)
    assert (model.features[0].weight[~masks["features.0"]] == 0).all()


def test_a_model_that_is_one_layer_is_returned_replaced():
    for layer in (nn.Linear(6, 4), nn.Conv2d(3, 4, 3)):
        mask = half_of(layer.weight)
        sparse = lth.sparsify(layer, {"": mask})
        assert isinstance(sparse, lth.SparseLayer)
        assert torch.equal(sparse.mask, mask)
        assert type(lth.densify(sparse)) is type(layer)


def test_a_module_used_twice_is_replaced_by_one():
    layer = nn.Linear(5, 5)
    model = nn.Sequential(layer, nn.ReLU(), nn.Sequential(layer))
    mask = half_of(layer.weight)
    lth.sparsify(model, {"2.0": mask})
    assert type(model[0]) is lth.SparseLinear
    assert model[0] is model[2][0]
    lth.densify(model)
    assert type(model[0]) is nn.Linear
    assert model[0] is model[2][0]


def test_a_module_used_twice_refuses_two_masks():
    layer = nn.Linear(5, 5)
    model = nn.Sequential(layer, layer)
    with pytest.raises(ValueError, match='two different ones for "1"'):
        lth.sparsify(model, {"0": torch.eye(5).bool(), "1": ~torch.eye(5).bool()})


def tied_pair():
    model = nn.Sequential(nn.Linear(5, 5), nn.Linear(5, 5))
    model[1].weight = model[0].weight
    return model


def test_tied_weights_stay_tied_there_and_back():
    model = tied_pair()
    mask = torch.eye(5).bool()
    lth.sparsify(model, {"0": mask, "1": mask})
    assert model[0].values is model[1].values
    assert model[0].bias is not model[1].bias
    lth.densify(model)
    assert model[0].weight is model[1].weight


def test_tied_biases_stay_tied_under_different_masks():
    model = nn.Sequential(nn.Linear(5, 5), nn.Linear(5, 5))
    model[1].bias = model[0].bias
    lth.sparsify(model, {"0": torch.eye(5).bool(), "1": ~torch.eye(5).bool()})
    assert model[0].bias is model[1].bias


def test_ties_that_would_break_are_refused_and_the_model_is_unchanged():
    model = tied_pair()
    with pytest.raises(ValueError, match='"0" shares a parameter with "1" \\(weight\\), which is not replaced'):
        lth.sparsify(model, {"0": torch.eye(5).bool()})
    with pytest.raises(ValueError, match='different ones for "0" and "1", which share their weight'):
        lth.sparsify(model, {"0": torch.eye(5).bool(), "1": ~torch.eye(5).bool()})
    assert kinds(nn.Sequential(model)) == {"0.0": "Linear", "0.1": "Linear"}


def test_layers_that_compute_something_else_are_left_alone():
    class Scaled(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    model = nn.Sequential(Scaled(5, 5))
    nn.init.zeros_(model[0].weight)
    (text,) = warnings_of(model)
    assert text.endswith("it has no nn.Conv2d and no nn.Linear")


def test_zeros_that_a_layer_began_with_are_said_and_it_stays_dense():
    model = Block()
    mask = half_of(model.features[0].weight)
    with torch.no_grad():
        model.features[0].weight.mul_(mask)
        model.head["hidden"].weight.zero_()  # as of a head, or of the last convolution of a residual block
        model.head["out"].weight.zero_()
    with pytest.warns(UserWarning, match='every weight of "head.hidden" and "head.out" is 0.*left dense') as said:
        lth.sparsify(model)
    assert [warning.filename for warning in said] == [__file__]
    assert kinds(model) == {**kinds(Block()), "features.0": "SparseConv2d"}
    nn.init.normal_(model.head["out"].weight)
    model(IMAGES).square().sum().backward()
    assert model.head["hidden"].weight.grad.any()


@pytest.mark.filterwarnings("error")
def test_a_mask_that_prunes_a_whole_layer_is_taken_at_its_word():
    model = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 3))
    prune.random_unstructured(model[0], "weight", amount=1.0)
    nn.init.zeros_(model[1].weight)
    assert lth.sparsify(model, {"1": torch.zeros(3, 4).bool()})[1].sparsity == 1
    assert lth.sparsify(model)[0].sparsity == 1


def test_pruned_layers_that_stay_dense_are_named_once():
    class Scaled(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    model = nn.Sequential(Scaled(5, 5), Scaled(5, 5), Scaled(5, 5), nn.Conv1d(5, 5, 1), nn.Linear(5, 5))
    with torch.no_grad():
        model[0].weight[0] = 0
    for layer in (model[1], model[3]):
        prune.random_unstructured(layer, "weight", amount=0.5)
    prune.random_unstructured(model[2], "bias", amount=0.5)
    layers = list(model)
    with pytest.warns(
        UserWarning, match='look pruned and stay dense: "0" .Scaled., "1" .Scaled., weight of "3" .Conv1d.'
    ) as said:
        lth.sparsify(model)
    assert [warning.filename for warning in said] == [__file__]
    assert list(model) == layers


def warnings_of(model):
    """What sparsify without masks says about a model, which it leaves as it is."""
    layers = list(model.modules())
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert list(lth.sparsify(model).modules()) == layers
    assert all(warning.filename == __file__ for warning in said)
    return [str(warning.message) for warning in said]


def test_that_nothing_is_pruned_is_said_once():
    (text,) = warnings_of(Block())
    assert text.startswith("sparsify: nothing is pruned, and the model stays as it is: no weight is exactly 0 or under")
    assert text.endswith('give masks, such as {"features.0": bool tensor}, or prune first (lth_sparse.prune)')
    (text,) = warnings_of(nn.Sequential(nn.Conv1d(3, 3, 1)))
    assert text.endswith("it has no nn.Conv2d and no nn.Linear")
    assert warnings_of(lth.sparsify(Block(), {"head.out": OUT})) == []
    assert warnings_of(lth.SparseLinear(3, 3)) == []


def test_what_is_no_pruned_weight_is_not_said_to_be_one():
    class Packed(nn.Linear):
        """As a quantized layer: its weight is bytes."""

        def __init__(self):
            super().__init__(5, 5)
            self.weight = nn.Parameter(torch.arange(3, dtype=torch.uint8), requires_grad=False)

    (text,) = warnings_of(nn.Sequential(Packed(), nn.Embedding(5, 5, padding_idx=0), nn.LazyLinear(3)))
    assert text.startswith("sparsify: nothing is pruned")


@pytest.mark.parametrize(
    ("masks", "error", "message"),
    [
        (
            {"feature.0": torch.ones(1)},
            ValueError,
            'the unknown layer "feature.0", did you mean "features.0"?',
        ),
        (
            {"features.1": torch.ones(8).bool()},
            TypeError,
            'one for "features.1", a BatchNorm2d, expected nn.Conv2d',
        ),
        (
            {"head.out": torch.ones(5, 15).bool()},
            ValueError,
            r'masks\["head.out"\]: got shape \(5, 15\), expected the weight\'s, \(5, 16\)',
        ),
        (
            {"head.out": torch.ones(5, 16)},
            TypeError,
            r'masks\["head.out"\]: got dtype torch.float32, expected',
        ),
    ],
)
def test_masks_that_do_not_fit_are_refused_by_name(masks, error, message):
    model = Block()
    good = half_of(model.features[0].weight)
    with pytest.raises(error, match=message):
        lth.sparsify(model, {"features.0": good, **masks})
    assert kinds(model) == kinds(Block())


OUT = torch.ones(5, 16).bool()


@pytest.mark.parametrize(
    ("masks", "error", "message"),
    [
        ({"head.out": OUT.float()}, TypeError, r'masks\["head.out"\]: got dtype torch.float32, .*: mask.bool\(\)$'),
        ({"head.out": OUT.int()}, TypeError, r"got dtype torch.int32, .*: mask.bool\(\)$"),
        ({"head.out": OUT.to_sparse()}, TypeError, r"got layout torch.sparse_coo, .*: mask.to_dense\(\)$"),
        ({"head.out": OUT.to_sparse_csr()}, TypeError, r"got layout torch.sparse_csr, .*: mask.to_dense\(\)$"),
        ({"head.out": OUT.numpy()}, TypeError, r"got ndarray, .*: torch.as_tensor\(mask, dtype=torch.bool\)$"),
        ({"head.out": OUT.tolist()}, TypeError, r"got list, .*: torch.as_tensor\(mask, dtype=torch.bool\)$"),
        ({"head.out": OUT.to("meta")}, ValueError, r'got a tensor on meta, .* where the weight is: mask.to\("cpu"\)$'),
        ({"head.out": None}, TypeError, "got NoneType, expected a tensor of dtype torch.bool"),
        ([OUT], TypeError, r'masks: got a list, expected a dict such as \{"features.0": bool tensor\}$'),
        (OUT, TypeError, r"masks: got a Tensor, expected a dict"),
        ({0: OUT}, TypeError, r"masks: got 0 for a name, expected a str"),
        ({"head.out.weight": OUT}, ValueError, 'got "head.out.weight", the name of a weight, .* layer, "head.out"$'),
        ({"head.out.bias": OUT}, ValueError, 'unknown layer "head.out.bias", did you mean "head.out"'),
        ({"head": OUT}, TypeError, 'one for "head", a ModuleDict, .*: name its layers, such as "head.hidden"$'),
        ({"": OUT}, TypeError, 'one for "", a Block, .*: name its layers, such as "features.0"$'),
    ],
    ids=lambda each: "" if isinstance(each, type) else None,
)
def test_masks_of_a_wrong_kind_are_refused_with_what_to_do(masks, error, message):
    model = Block()
    with pytest.raises(error, match=message):
        lth.sparsify(model, masks)
    assert kinds(model) == kinds(Block())


def test_masks_keyed_by_module_are_refused_with_its_name():
    model = Block()
    with pytest.raises(TypeError, match=r'masks: got a Linear for a name, expected that of its layer, "head\.out"$'):
        lth.sparsify(model, {model.head["out"]: OUT})
    with pytest.raises(TypeError, match=r'masks: got a Parameter for a name, expected that of its layer, "head\.out"$'):
        lth.sparsify(model, {model.head["out"].weight: OUT})
    with pytest.raises(TypeError, match=r"masks: got a Linear for a name, expected that of a layer of the model$"):
        lth.sparsify(model, {nn.Linear(16, 5): OUT})


def test_a_model_that_is_sparse_is_left_alone_without_masks_and_refuses_another():
    model = lth.sparsify(Block(), {"head.out": OUT})
    layer = model.head["out"]
    assert lth.sparsify(model).head["out"] is layer
    with pytest.raises(TypeError, match=r'"head.out", which is sparse already: lth.set_masks\(model, masks\)$'):
        lth.sparsify(model, {"head.out": OUT})
    mask = half_of(model.features[0].weight)
    assert lth.sparsify(model, {"features.0": mask}).head["out"] is layer


def test_a_lazy_layer_is_refused_until_it_has_a_weight():
    model = nn.Sequential(nn.LazyLinear(4))
    assert len(warnings_of(model)) == 1
    mask = torch.ones(4, 3).bool()
    with pytest.raises(
        TypeError, match=r'"0": got a LazyLinear, which has no weight yet.*run a batch through the model'
    ):
        lth.sparsify(model, {"0": mask})
    model(torch.ones(2, 3))
    assert type(lth.sparsify(model, {"0": mask})[0]) is lth.SparseLinear


@pytest.mark.parametrize("masks", [None, {"0": torch.ones(4, 4).bool()}])
def test_complex_weights_are_refused(masks):
    model = nn.Sequential(nn.Linear(4, 4, dtype=torch.complex64))
    with torch.no_grad():
        model[0].weight[0] = 0
    with pytest.raises(TypeError, match=r'"0": got dtype torch.complex64, expected a real floating-point'):
        lth.sparsify(model, masks)
    assert type(model[0]) is nn.Linear


@pytest.mark.parametrize("masks", [None, {"0": torch.ones(4, 4).bool()}])
def test_a_model_without_numbers_is_refused(masks):
    model = nn.Sequential(nn.Linear(4, 4, device="meta"))
    with pytest.raises(ValueError, match=r'"0": got a weight on the meta device, .*: load the model first'):
        lth.sparsify(model, masks)


def test_an_unknown_backend_is_refused_even_with_nothing_to_replace():
    with pytest.raises(BackendError, match='unknown backend "cppp", did you mean "cpp"'):
        lth.sparsify(Block(), {}, backend="cppp")
