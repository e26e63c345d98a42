"""lth.for_inference: what it folds, that outputs stay, and what it says of the rest."""

import copy
import gc
import io
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations, prune

import lth_sparse as lth
from lth_sparse import models
from lth_sparse.backends import cpu_operators
from lth_sparse.inference.rectified import RectifiedConv2d, RectifiedLinear, ReLUMaxPool2d
from lth_sparse.system.errors import InputError

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
BACKENDS = [name for name in ("cpp", "dense", "auto") if name != "cpp" or not cpu_operators.UNUSABLE]


def settled(model):
    """`model` with BatchNorms like those of a trained network, in eval mode."""
    for each in model.modules():
        if isinstance(each, NORMS) and each.running_mean is not None:
            each.running_mean.normal_()
            each.running_var.uniform_(0.5, 2.0)
        if isinstance(each, NORMS) and each.affine:
            nn.init.normal_(each.weight)
            nn.init.normal_(each.bias)
    return model.eval()


def sparse(model, backend="dense", density=0.4):
    layers = {name: each for name, each in model.named_modules() if type(each) in (nn.Conv2d, nn.Linear)}
    return lth.sparsify(model, {name: torch.rand_like(each.weight) < density for name, each in layers.items()}, backend)


def kinds(model):
    return [type(each) for each in model.modules()]


def check(model, *given, **options):
    """The module made of `model`, after its outputs are found to be the model's."""
    result = lth.for_inference(model, **options)
    with torch.no_grad():
        expected = model(*given)
    output = result(*given)
    allowed = 1e-12 if expected.dtype == torch.float64 else 1e-5
    assert (output - expected).abs().max() <= allowed * expected.abs().max()
    assert output.dtype == expected.dtype
    assert output.stride() == expected.stride()
    assert not output.requires_grad
    return result


def convolution(**rest):
    return nn.Conv2d(3, 8, 3, padding=1, **rest)


def images(*shape, **rest):
    return torch.randn(shape or (2, 3, 8, 8), **rest)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


CHAINS = {
    "bias": lambda: (convolution(), nn.BatchNorm2d(8)),
    "no bias": lambda: (convolution(bias=False), nn.BatchNorm2d(8)),
    "not affine": lambda: (convolution(), nn.BatchNorm2d(8, affine=False)),
    "another epsilon": lambda: (convolution(), nn.BatchNorm2d(8, eps=0.5)),
    "frozen": lambda: (convolution(), nn.BatchNorm2d(8).requires_grad_(False)),
    "groups and a stride": lambda: (nn.Conv2d(3, 12, 3, stride=2, groups=3), nn.BatchNorm2d(12)),
}


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("backend", [*BACKENDS, None])
@pytest.mark.parametrize("chain", CHAINS)
def test_batch_norm_and_relu_go_into_convolutions(chain, backend, dtype, layout):
    model = settled(nn.Sequential(*CHAINS[chain](), nn.ReLU(inplace=True))).to(dtype)
    if backend:
        sparse(model, backend)
    result = check(model, images(dtype=dtype).contiguous(memory_format=layout))
    found = kinds(result)
    assert nn.BatchNorm2d not in found
    # A dense convolution's ReLU stays one.
    assert (RectifiedConv2d in found, nn.ReLU in found) == ((True, False) if backend else (False, True))


@pytest.mark.parametrize("backend", [*BACKENDS, None])
def test_batch_norm_and_relu_go_into_linear_layers(backend):
    model = settled(nn.Sequential(nn.Linear(5, 7, bias=False), nn.BatchNorm1d(7), nn.ReLU(), nn.Linear(7, 3)))
    if backend:
        sparse(model, backend)
    result = check(model, torch.randn(4, 5))
    assert nn.BatchNorm1d not in kinds(result)
    assert (RectifiedLinear in kinds(result)) == bool(backend)
    with pytest.raises(ValueError, match=r"input: got shape \(2, 4, 5\), expected \[N, features\]"):
        result(torch.randn(2, 4, 5))
    assert torch.equal(result(torch.zeros(0, 5)), torch.zeros(0, 3))


def test_sequences_into_a_linear_layer_without_batch_norm_stay_sequences():
    result = check(sparse(nn.Sequential(nn.Linear(5, 7), nn.ReLU()).eval()), torch.randn(2, 4, 5))
    assert RectifiedLinear in kinds(result)


class Written(nn.Module):
    """A convolution, BatchNorm where `norm`, then ReLU as `relu` writes it."""

    def __init__(self, relu, norm=True):
        super().__init__()
        self.conv, self.norm, self.relu = convolution(), nn.BatchNorm2d(8) if norm else nn.Identity(), relu

    def forward(self, x):
        return self.relu(self.norm(self.conv(x)))


RELUS = {
    "F.relu": F.relu,
    "F.relu, in place": lambda x: F.relu(x, inplace=True),
    "torch.relu": torch.relu,
    "torch.relu_": torch.relu_,
    "x.relu": lambda x: x.relu(),
    "x.relu_": lambda x: x.relu_(),
    "F.relu of a keyword": lambda x: F.relu(input=x),
}


@pytest.mark.parametrize("relu", RELUS)
def test_every_way_to_write_relu(relu):
    result = check(sparse(settled(Written(RELUS[relu]))), images())
    assert RectifiedConv2d in kinds(result)
    assert "relu" not in result.network.code


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.conv2, self.norm2 = nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        out = self.relu(self.norm1(self.conv1(x)))
        out = self.norm2(self.conv2(out))
        out += x
        return self.relu(out)


def test_relu_after_an_addition_stays():
    result = check(sparse(settled(Residual())), images(2, 4, 6, 6))
    assert [type(each) for each in result.network.children()] == [RectifiedConv2d, lth.SparseConv2d, nn.ReLU]


class Shared(nn.Module):
    """One convolution, used three times: before a ReLU, before a BatchNorm, and as it is."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.unused = nn.Linear(2, 2)

    def forward(self, x):
        x = torch.relu(self.conv(x))
        x = self.norm(self.conv(x))
        return self.conv(x)


def test_a_module_that_is_used_more_than_once():
    result = check(sparse(settled(Shared())), images())
    assert sorted(name for name, _ in result.network.named_children()) == ["conv", "conv_again", "conv_again_again"]


def test_the_same_chain_twice_is_one_layer_but_for_its_relu():
    conv, norm = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)
    result = check(sparse(settled(nn.Sequential(conv, norm, conv, norm, conv, norm, nn.ReLU()))), images())
    assert kinds(result).count(lth.SparseConv2d) == 1
    assert kinds(result).count(RectifiedConv2d) == 1


def test_a_part_that_two_others_share_is_followed_once(capsys):
    shared = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.ReLU())
    model = sparse(settled(Branching(shared, Branching(shared))))
    result = check(model, images(), strict=False)
    assert result.network.parts[0] is result.network.parts[1].parts[0]
    folded = result.network.parts[0].forward
    assert not any("forward" in vars(each) for each in folded.modules())
    said = [line.split(" cannot be followed")[0] for line in capsys.readouterr().err.splitlines()]
    assert said == [f"lth.for_inference: {name} (Branching)" for name in ("the model", "parts.1")]


@pytest.mark.parametrize("place", ["0", "1", "2"])
def test_a_forward_of_an_object_s_own_is_what_runs(place, capsys):
    model = sparse(settled(nn.Sequential(convolution(), nn.BatchNorm2d(8), nn.ReLU())))
    part = model.get_submodule(place)
    part.forward = lambda x: 3 * type(part).forward(part, x) - 1
    check(model, images())
    assert capsys.readouterr().err == f"lth.for_inference: {place} has a forward of its own: it is not folded\n"


def test_a_forward_of_the_model_s_own_is_not_lost():
    model = settled(nn.Sequential(convolution(), nn.BatchNorm2d(8)))
    model.forward = lambda x: model[0](x)
    with pytest.raises(InputError, match="cannot be followed as a whole: it has a forward of its own"):
        lth.for_inference(model)
    check(model, images(), strict=False)


class Read(nn.Module):
    """What is read by others, too, cannot be folded away."""

    def __init__(self, what):
        super().__init__()
        self.conv, self.norm, self.what = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), what

    def forward(self, x):
        convolved = self.conv(x)
        normalized = self.norm(convolved)
        rectified = torch.relu_(normalized) if self.what == "written" else torch.relu(normalized)
        return rectified + (convolved if self.what == "convolved" else normalized)


@pytest.mark.parametrize(("what", "left"), [("convolved", [nn.BatchNorm2d]), ("normalized", []), ("written", [])])
def test_what_others_read_stays(what, left):
    result = check(sparse(settled(Read(what))), images())
    assert [each for each in kinds(result) if each is nn.BatchNorm2d] == left
    assert RectifiedConv2d not in kinds(result)


def test_statistics_of_the_batch_and_other_norms_stay():
    for norm in (nn.BatchNorm2d(8, track_running_stats=False), nn.GroupNorm(2, 8), nn.InstanceNorm2d(8)):
        model = settled(nn.Sequential(convolution(), norm, nn.ReLU()))
        assert type(norm) in kinds(check(sparse(model), images()))


def test_parametrized_layers_and_subclasses_stay():
    class Own(nn.Conv2d):
        def forward(self, input):
            return 2 * super().forward(input)

    for layer in (parametrizations.weight_norm(convolution()), Own(3, 8, 3)):
        assert nn.BatchNorm2d in kinds(check(settled(nn.Sequential(layer, nn.BatchNorm2d(8))), images()))


@pytest.mark.parametrize("name", ["resnet20", "vgg16", "lenet-300-100", "conv4"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_our_networks(name, backend):
    shape = (1, 28, 28) if name.startswith("lenet") else (3, 32, 32)
    model = sparse(settled(models.build(models.Network(name, shape, 10), seed=0)), backend, 0.2)
    assert not set(NORMS) & set(kinds(check(model, images(3, *shape))))


@pytest.mark.parametrize("before", [True, False])
def test_models_of_lth_fuse(before, capsys):
    model = settled(nn.Sequential(convolution(), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 4, 3)))
    model = nn.Sequential(model, settled(Residual()), nn.ReLU(), nn.MaxPool2d(2)).eval()
    model = sparse(lth.fuse(model)) if before else lth.fuse(sparse(model))
    result = check(model, images(2, 3, 16, 16))
    assert not any(isinstance(each, nn.BatchNorm2d) for each in result.modules())
    assert not capsys.readouterr().err


def test_torchvision_resnet18():
    torchvision = pytest.importorskip("torchvision")
    model = sparse(settled(torchvision.models.resnet18()), BACKENDS[0], 0.1)
    x = images(2, 3, 64, 64)
    result = check(model, x, example=x)
    assert nn.BatchNorm2d not in kinds(result)
    # One in the stem, one in each of the eight blocks.
    assert kinds(result).count(RectifiedConv2d) == 9


def test_the_model_stays_as_it_is():
    model = sparse(settled(nn.Sequential(convolution(), nn.BatchNorm2d(8), nn.ReLU(), Shared8())))
    before, mine = copy.deepcopy(model.state_dict()), [id(each) for each in (*model.modules(), *model.parameters())]
    lth.for_inference(model, images())
    assert mine == [id(each) for each in (*model.modules(), *model.parameters())]
    assert before.keys() == model.state_dict().keys()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(each.requires_grad for each in model.parameters())
    assert [type(each) for each in model] == [lth.SparseConv2d, nn.BatchNorm2d, nn.ReLU, Shared8]


class Shared8(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 1)

    def forward(self, x):
        return self.conv(F.relu(self.conv(x)))


def test_it_holds_copies_and_refresh_takes_over_what_changed():
    model = sparse(settled(nn.Sequential(convolution(), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 2, 1))))
    x, result = images(), lth.for_inference(model)
    first = result(x)
    with torch.no_grad():
        model[0].values.mul_(2)
        model[1].running_mean.add_(1)
        model[3].bias.add_(1)
    assert torch.equal(result(x), first)
    other = sparse(copy.deepcopy(lth.densify(copy.deepcopy(model))), density=0.1)
    model[0].load_state_dict(other[0].state_dict())
    result.refresh()
    torch.testing.assert_close(result(x), model(x).detach())
    assert (result(x) - first).abs().max() > 0.1


def test_the_model_may_go():
    model = sparse(settled(nn.Sequential(convolution(), nn.BatchNorm2d(8), nn.ReLU())))
    x, result = images(), lth.for_inference(model)
    expected = result(x)
    del model
    gc.collect()
    assert torch.equal(result(x), expected)
    with pytest.raises(RuntimeError, match=r"refresh: the model .* is gone.* call lth_sparse\.for_inference again"):
        result.refresh()


@pytest.mark.parametrize("strict", [True, False])
def test_copies_and_pickles_compute_the_same(strict):
    inside = nn.Sequential(convolution(), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(2), nn.Linear(64, 5), nn.ReLU())
    model = sparse(settled(inside if strict else Branching(inside, nn.Sequential(nn.Linear(5, 4), nn.ReLU()))))
    x, result = images(), lth.for_inference(model, strict=strict)
    expected = result(x)
    copied, loaded = copy.deepcopy(result), pickle.loads(pickle.dumps(result))
    saved = io.BytesIO()
    torch.save(result, saved)
    saved.seek(0)
    for each in (copied, loaded, torch.load(saved, weights_only=False)):
        assert torch.equal(each(x), expected)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.5)
    copied.refresh()
    torch.testing.assert_close(copied(x), model(x).detach())
    assert torch.equal(result(x), expected)
    with pytest.raises(RuntimeError, match="stayed behind when this was pickled"):
        loaded.refresh()


@pytest.mark.parametrize("strict", [True, False])
def test_it_can_be_moved_to_another_dtype(strict):
    inside = nn.Sequential(convolution(), nn.BatchNorm2d(8), nn.ReLU())
    model = sparse(settled(inside if strict else Branching(inside)))
    result = lth.for_inference(model, strict=strict).double()
    x = images(dtype=torch.float64)
    torch.testing.assert_close(result(x), model.double()(x).detach(), rtol=1e-5, atol=1e-5)


class Branching(nn.Module):
    """Cannot be followed as a whole; its parts can."""

    def __init__(self, *parts):
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, x):
        for part in self.parts:
            x = part(x) if x.sum() > -1e6 else x
        return x


class Around(nn.Module):
    """Control flow on data, and parts that are called one by one, read and iterated over."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(convolution(), nn.BatchNorm2d(8), nn.ReLU())
        self.stages = nn.ModuleList([nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)), nn.Sequential(nn.ReLU())])
        self.tail = nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), nn.ReLU())

    def forward(self, x):
        x = self.stem(x)
        if x.mean() > 1e6:
            return x
        for stage in self.stages:
            x = stage(x)
        for layer in self.tail:
            x = layer(x)
        return x * self.stem[0].out_channels * len(self.stem)


def test_what_cannot_be_followed_is_refused_with_its_place_or_stays(capsys):
    model = sparse(settled(Around()))
    with pytest.raises(
        InputError,
        match=r"the model \(Around\) cannot be followed as a whole: .*control flow.* \(test_inference\.py, line \d+, "
        r"in forward\); strict=False leaves it",
    ):
        lth.for_inference(model)
    result = check(model, images(), strict=False)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].startswith("lth.for_inference: the model (Around) cannot be followed as a whole: ")
    called = []
    folded = result.network.stem.forward
    assert [type(each) for each in folded.children()] == [RectifiedConv2d]
    folded.register_forward_hook(lambda *_: called.append(1))
    result(images())
    assert called, "the folded part is what runs"


def test_random_numbers_of_a_forward_are_not_kept():
    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = convolution(), nn.BatchNorm2d(8)

        def forward(self, x):
            return self.norm(self.conv(x)) + torch.randn(8, 1, 1)

    model = settled(Noisy())
    state = torch.get_rng_state()
    with pytest.raises(InputError, match="cannot be followed as a whole: it draws random numbers"):
        lth.for_inference(model)
    assert torch.equal(state, torch.get_rng_state())
    result = lth.for_inference(model, strict=False)
    assert not torch.equal(result(images()), result(images()))


@pytest.mark.parametrize("place", ["0", "1", "2"])
def test_modules_with_hooks_are_not_folded_and_are_named(place, capsys):
    model = sparse(settled(nn.Sequential(convolution(), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 2, 1), nn.ReLU())))
    seen = []
    model.get_submodule(place).register_forward_hook(lambda layer, given, output: seen.append(output))
    result = check(model, images())
    assert len(seen) == 2, "the hook sees both"
    torch.testing.assert_close(seen[0], seen[1])
    assert (nn.BatchNorm2d in kinds(result)) == (place != "2")
    assert kinds(result).count(RectifiedConv2d) == 1
    assert capsys.readouterr().err == f"lth.for_inference: {place} has hooks: it is not folded\n"


def test_a_block_and_a_model_with_hooks_keep_them(capsys):
    model = settled(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), Residual(), nn.ReLU()))
    seen = []
    model[2].register_forward_hook(lambda layer, given, output: seen.append(output))
    result = check(sparse(model), images())
    assert len(seen) == 2
    assert kinds(result).count(nn.BatchNorm2d) == 2
    whole = settled(nn.Sequential(nn.Sequential(convolution(), nn.BatchNorm2d(8)), nn.ReLU()))
    whole.register_forward_pre_hook(lambda layer, given: (2 * given[0],))
    result = check(whole, images())
    assert type(result.network[0].forward).__name__ == "GraphModule"
    said = capsys.readouterr().err.splitlines()
    assert said == [
        "lth.for_inference: 2 has hooks: what is in it stays as it is",
        "lth.for_inference: the model has hooks: its parts are followed one by one",
    ]


def test_training_mode_is_refused():
    model = nn.Sequential(convolution(), nn.BatchNorm2d(8), nn.Dropout())
    with pytest.raises(InputError, match=r"model: got one in training mode, .* call model\.eval\(\) first"):
        lth.for_inference(model)
    model.eval()[2].train()
    with pytest.raises(InputError, match="model: got its part '2' in training mode"):
        lth.for_inference(model)
    result = lth.for_inference(model.eval())
    with pytest.raises(RuntimeError, match=r"cannot be trained: train the model, then refresh\(\)"):
        result.train()
    assert not result.eval().training
    model.train()
    with pytest.raises(InputError, match="training mode"):
        result.refresh()
    with pytest.raises(InputError, match=r"model: got a str, expected a torch\.nn\.Module"):
        lth.for_inference("model")


def test_a_model_under_torch_prune_is_folded():
    model = settled(nn.Sequential(convolution(), nn.BatchNorm2d(8), nn.ReLU()))
    prune.l1_unstructured(model[0], "weight", amount=0.5)
    model(images()).sum().backward()  # After which PyTorch cannot copy it.
    result = check(model, images())
    assert nn.BatchNorm2d not in kinds(result)
    assert prune.is_pruned(model[0])
    assert not prune.is_pruned(result)


def test_an_example_that_differs_is_refused():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.calls = nn.Sequential(nn.Linear(3, 3), nn.ReLU()), 0

        def forward(self, x):
            self.calls += 1
            return self.layer(x) * self.calls

    model = sparse(Counting().eval())
    lth.for_inference(model)
    with pytest.raises(InputError, match=r"example: the outputs differ by .* of the largest, expected at most 1e-04"):
        lth.for_inference(model, torch.ones(2, 3))


def test_several_inputs_and_outputs():
    class Several(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = convolution(), nn.BatchNorm2d(8)

        def forward(self, x, shift, scale=2.0):
            y = self.norm(self.conv(x))
            return {"sum": torch.relu(y) + shift, "place": y.flatten(1).argmax(1), "scaled": [scale * y]}

    model = sparse(settled(Several()))
    result = lth.for_inference(model, (images(), torch.ones(1)))
    given = images()
    ours, theirs = result(given, torch.ones(1), scale=3.0), model(given, torch.ones(1), scale=3.0)
    torch.testing.assert_close(ours["scaled"][0], theirs["scaled"][0].detach())
    assert torch.equal(ours["place"], theirs["place"])


def test_layers_inside_attention_are_left_in_place():
    model = nn.Sequential(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), nn.Linear(8, 8), nn.ReLU())
    names = ("0.linear1", "0.linear2", "1")
    masks = {name: torch.rand_like(model.get_submodule(name).weight) < 0.4 for name in names}
    result = check(lth.sparsify(model, masks, "dense").eval(), torch.randn(2, 5, 8))
    assert kinds(result).count(RectifiedLinear) == 1


def test_a_model_inside_wrappers():
    model = sparse(settled(nn.Sequential(convolution(), nn.BatchNorm2d(8), nn.ReLU())))
    x = images()
    result = lth.for_inference(nn.DataParallel(model))
    torch.testing.assert_close(result(x), model(x).detach())


def test_nothing_to_fold_is_a_copy():
    layer = lth.SparseLinear(4, 3, mask=torch.rand(3, 4) < 0.5, backend="dense").eval()
    x = torch.randn(2, 4)
    assert torch.equal(lth.for_inference(layer)(x), layer(x))


@pytest.mark.skipif(bool(cpu_operators.UNUSABLE), reason="the C++ operators cannot be used here")
def test_relu_is_in_the_store_of_the_cpp_kernels(monkeypatch):
    model = sparse(settled(nn.Sequential(convolution(), nn.BatchNorm2d(8), nn.ReLU())), "cpp")
    result, x = lth.for_inference(model), images()
    expected = result(x)
    for name in ("relu", "relu_"):
        monkeypatch.setattr(torch, name, None)
        monkeypatch.setattr(F, name, None)
    assert torch.equal(result(x), expected)


class Pooled(nn.Module):
    def __init__(self, functional):
        super().__init__()
        self.conv, self.norm, self.functional = convolution(), nn.BatchNorm2d(8), functional
        self.relu, self.pool = nn.ReLU(inplace=True), nn.MaxPool2d(2)

    def forward(self, x):
        x = self.norm(self.conv(x))
        return F.max_pool2d(F.relu(x), 2) if self.functional else self.pool(self.relu(x))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("functional", [True, False])
@pytest.mark.parametrize("dense", [True, False])
def test_relu_before_a_max_pool_goes_into_the_pool(dense, functional, dtype, layout):
    model = settled(Pooled(functional)).to(dtype)
    model = model if dense else sparse(model)
    for shape in ((2, 3, 8, 8), (1, 3, 9, 7), (3, 3, 2, 3)):
        result = check(model, images(*shape, dtype=dtype).contiguous(memory_format=layout))
        last = list(result.network.children())
        assert [type(each) for each in last] == [nn.Conv2d if dense else lth.SparseConv2d, ReLUMaxPool2d]


def test_a_pool_with_hooks_or_of_another_size_stays(capsys):
    for pool in (nn.MaxPool2d(3), nn.MaxPool2d(2, stride=1), nn.AvgPool2d(2), nn.MaxPool2d(2, padding=1)):
        result = check(sparse(settled(nn.Sequential(convolution(), nn.ReLU(), pool))), images())
        assert [type(each) for each in result.network.children()] == [RectifiedConv2d, type(pool)]
    model = sparse(settled(nn.Sequential(convolution(), nn.ReLU(), nn.MaxPool2d(2))))
    seen = []
    model[2].register_forward_pre_hook(lambda layer, given: seen.append(given[0]))
    result = check(model, images())
    assert [type(each) for each in result.network.children()] == [RectifiedConv2d, nn.MaxPool2d]
    assert torch.equal(seen[0], seen[1])
    assert capsys.readouterr().err == "lth.for_inference: 2 has hooks: it is not folded\n"
