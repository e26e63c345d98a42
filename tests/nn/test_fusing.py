"""lth.fuse: what it finds, that nothing else changes, and when PyTorch's own modules compute."""

import copy
import io

import pytest
import torch
import torch.nn.functional as F
from torch import fx, nn
from torch.optim.swa_utils import AveragedModel

import lth_sparse as lth
from lth_sparse import models
from lth_sparse.backends import cpu_operators
from lth_sparse.nn import beginnings
from lth_sparse.nn.fused_modules import FusedBatchNorm2d, FusedReLU

pytestmark = pytest.mark.skipif(
    bool(cpu_operators.UNUSABLE), reason=f"the C++ operators cannot be used here: {cpu_operators.UNUSABLE}"
)


@pytest.fixture(autouse=True)
def few_are_enough(monkeypatch):
    """The images here are small."""
    monkeypatch.setattr(beginnings, "FEWEST_POOLED", 1)


class Block(nn.Module):
    """As torchvision's: one ReLU module used twice, in place, and an addition in place."""

    def __init__(self, channels=8):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels)
        self.conv2, self.bn2 = nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += x
        return self.relu(out)


class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.other = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.BatchNorm2d(8)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.norm(self.conv(x))), 2)
        return torch.relu(x + self.other(x))


def small():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        Block(),
        nn.Conv2d(8, 4, 3),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2, 2),
        nn.Flatten(),
        nn.LazyLinear(5),
    )


def made(build=small, shape=(4, 3, 13, 13)):
    model = build()
    model(torch.zeros(shape))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
    return model, torch.randn(shape, generator=torch.Generator().manual_seed(1))


def fused_in(model):
    return {name for name, module in model.named_modules() if isinstance(module, FusedBatchNorm2d | FusedReLU)}


@pytest.fixture
def calls(monkeypatch):
    """How often each operator was called."""
    counts = {"batch_norm": 0, "relu_max_pool": 0}

    def counted(name, operator):
        def call(*arguments):
            counts[name] += 1
            return operator(*arguments)

        return call

    for name in counts:
        monkeypatch.setattr(beginnings, name, counted(name, getattr(beginnings, name)))
    return counts


def step(model, x):
    """(output, gradients, buffers) of a training step."""
    model.zero_grad()
    x = x.clone().requires_grad_()
    output = model(x)
    (output * torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)).sum().backward()
    return output.detach(), [x.grad, *(p.grad for p in model.parameters())], [b.clone() for b in model.buffers()]


def assert_same(found, expected, rtol=1e-4, atol=1e-4):
    torch.testing.assert_close(found, expected, rtol=rtol, atol=atol)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("build", [small, Functional], ids=["small", "functional"])
def test_a_fused_model_does_what_it_did(build, layout, calls):
    plain, x = made(build)
    plain, x = plain.to(memory_format=layout), x.contiguous(memory_format=layout)
    fused = lth.fuse(copy.deepcopy(plain))
    assert list(fused.state_dict()) == list(plain.state_dict())
    assert [name for name, _ in fused.named_modules()] == [name for name, _ in plain.named_modules()]
    for _ in range(2):
        assert_same(step(fused, x), step(plain, x))
    assert calls["batch_norm"] == 2 * (3 if build is small else 2)
    fused.eval(), plain.eval()
    assert_same(step(fused, x), step(plain, x))
    with torch.inference_mode():
        assert_same(fused(x), plain(x))
    assert fused(x).stride() == plain(x).stride()


@pytest.mark.parametrize(("fewest", "fused"), [(16, 1), (17, 0)])
def test_a_pool_of_few_numbers_is_left_to_pytorch(monkeypatch, calls, fewest, fused):
    monkeypatch.setattr(beginnings, "FEWEST_POOLED", fewest)
    model = lth.fuse(nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU(), nn.MaxPool2d(2)))
    model(torch.zeros(1, 1, 4, 4))
    assert calls["relu_max_pool"] == fused


def test_what_is_found():
    fused = lth.fuse(made()[0])
    assert fused_in(fused) == {"1", "2", "4.bn1", "4.bn2", "6"}
    assert fused[1].pools
    assert fused[4].bn2.adds
    assert not fused[4].bn1.adds
    assert fused_in(lth.fuse(fused)) == fused_in(fused)


@pytest.mark.parametrize(
    ("network", "norms", "relus"), [("vgg16", 13, 4), ("resnet20", 21, 0), ("conv4", 0, 2), ("lenet", 0, 0)]
)
def test_runs_own_networks(network, norms, relus, capsys):
    name = {"lenet": "lenet-300-100"}.get(network, network)
    fused = lth.fuse(models.build(models.Network(name, (3, 32, 32), 10), seed=0))
    found = [type(module) for module in fused.modules()]
    assert (found.count(FusedBatchNorm2d), found.count(FusedReLU)) == (norms, relus)
    assert capsys.readouterr().err == ""


def test_torchvisions_resnet18(calls, capsys):
    torchvision = pytest.importorskip("torchvision")
    plain = torchvision.models.resnet18(weights=None, num_classes=5).eval()
    fused = lth.fuse(copy.deepcopy(plain))
    assert sum(isinstance(module, FusedBatchNorm2d) for module in fused.modules()) == 20
    x = torch.randn(2, 3, 48, 48)
    assert_same(step(fused, x), step(plain, x))
    assert calls["batch_norm"] == 20
    assert capsys.readouterr().err == ""


def test_torchvisions_mobilenet_v2(calls, capsys):
    torchvision = pytest.importorskip("torchvision")
    plain = torchvision.models.mobilenet_v2(weights=None, num_classes=5, dropout=0).eval()
    fused = lth.fuse(copy.deepcopy(plain))
    assert_same(step(fused, x := torch.randn(2, 3, 48, 48)), step(plain, x))
    norms = [module for module in fused.modules() if isinstance(module, FusedBatchNorm2d)]
    assert calls["batch_norm"] == len(norms) == 52
    assert sum(norm.clamps for norm in norms) == 35
    assert sum(norm.adds for norm in norms) == 10
    assert capsys.readouterr().err == ""


class Clamped(nn.Module):
    """BatchNorm, maybe an addition, and a clamp that is written in some way."""

    def __init__(self, clamp, adds):
        super().__init__()
        self.conv, self.norm, self.clamp, self.adds = nn.Conv2d(6, 6, 1), nn.BatchNorm2d(6), clamp, adds

    def forward(self, x):
        y = self.norm(self.conv(x))
        return self.clamp(x + y if self.adds else y)


@pytest.mark.parametrize("adds", [False, True], ids=["", "adds"])
@pytest.mark.parametrize(
    ("clamp", "clamps"),
    [
        (nn.ReLU6(), True),
        (nn.ReLU6(inplace=True), True),
        (nn.Hardtanh(-0.5, 0.25), True),
        (F.relu6, True),
        (lambda y: F.hardtanh(y, -1, 0.5), True),
        (lambda y: F.hardtanh(y, max_val=0.5, inplace=True), True),
        (lambda y: y.relu_(), True),
        (nn.Identity(), False),
        (torch.tanh, False),
    ],
)
def test_every_clamp_and_none(clamp, clamps, adds, calls):
    plain = Clamped(clamp, adds)
    fused, x = lth.fuse(copy.deepcopy(plain)), torch.randn(3, 6, 5, 5)
    assert_same(step(fused, x), step(plain, x))
    assert_same(step(fused.eval(), x), step(plain.eval(), x))
    assert calls["batch_norm"] == 2
    assert (fused.norm.adds, fused.norm.clamps) == (adds, clamps)


def test_a_clamp_that_was_not_expected_is_right():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.clamps = nn.BatchNorm2d(6), (F.relu6,)

        def forward(self, x):
            y = self.norm(x)
            for clamp in self.clamps:
                y = clamp(y)
            return y

    plain, x = Twice(), torch.randn(3, 6, 5, 5) * 4
    fused = lth.fuse(copy.deepcopy(plain))
    for clamps in ((F.relu,), (F.relu6, F.relu), (torch.relu, F.relu6), (), (torch.tanh,)):
        plain.clamps = fused.clamps = clamps
        assert_same(step(fused, x), step(plain, x))
    with pytest.raises(TypeError):
        F.relu6(fused.norm(x), 1, 2, 3)


def test_modules_with_hooks_are_named_and_not_fused(capsys, calls):
    model, x = made()
    seen = []
    model[4].bn1.register_forward_hook(lambda module, given, output: seen.append(type(output)))
    model[7].register_forward_pre_hook(lambda module, given: None)
    lth.fuse(model)
    assert fused_in(model) == {"1", "2", "4.bn2"}
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["lth.fuse: 4.bn1 has hooks: it is not fused", "lth.fuse: 7 has hooks: it is not fused"]
    model(x)
    assert seen == [torch.Tensor]
    # One that comes later is seen when the module is called.
    before = calls["batch_norm"]
    model[2].register_forward_pre_hook(lambda module, given: seen.append(type(given[0])))
    model(x)
    assert seen == [torch.Tensor] * 3
    assert calls["batch_norm"] == before + 1


def test_what_cannot_be_followed_stays_and_is_named_once(capsys):
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.relu, self.block = nn.BatchNorm2d(8), nn.ReLU(), Block()

        def forward(self, x):
            x = self.norm(x)
            return self.block(self.relu(x) if x.sum() > 0 else x)

    model = lth.fuse(Branches())
    assert fused_in(model) == {"block.bn1", "block.bn2"}
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("lth.fuse: the model (Branches) cannot be followed as a whole: ")


def test_other_ways_than_the_one_that_was_found_are_right():
    """Control flow that changes after fusing: the output of the BatchNorm becomes the tensor that it stands for."""

    class Switched(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.way = nn.BatchNorm2d(6), "relu"

        def forward(self, x):
            z = self.norm(x)
            if self.way == "twice":
                return torch.relu(z) * z
            if self.way == "inplace":
                torch.relu_(z)
                return z - 1
            if self.way == "index":
                return z[:, 1:] @ z[:, :-1].transpose(2, 3) + z.shape[0] - (z > 0).float().mean()
            if self.way == "add":
                y = z + x
                return torch.cat([y, z])
            return torch.relu(z)

    plain, x = Switched(), torch.randn(3, 6, 5, 5)
    fused = lth.fuse(copy.deepcopy(plain))
    assert fused_in(fused) == {"norm"}
    for way in ("relu", "twice", "inplace", "index", "add"):
        plain.way = fused.way = way
        # The running statistics move once a call, however often the output is asked for.
        assert_same(step(fused, x), step(plain, x))


@pytest.mark.parametrize(
    "changed",
    [{"momentum": None}, {"track_running_stats": False}, {"affine": False}, {"eps": 0.1, "momentum": 0.5}],
    ids=str,
)
def test_every_kind_of_batch_norm(changed, calls):
    plain = nn.Sequential(nn.BatchNorm2d(6, **changed), nn.ReLU())
    fused, x = lth.fuse(copy.deepcopy(plain)), torch.randn(3, 6, 5, 5)
    for mode in (True, True, False):
        fused.train(mode), plain.train(mode)
        assert_same(step(fused, x), step(plain, x))
    assert calls["batch_norm"] == 3
    x[0, 2] = float("nan")
    assert torch.equal(fused(x).isnan(), plain(x).isnan())


def test_one_value_per_channel_is_refused_as_by_pytorch():
    fused = lth.fuse(nn.Sequential(nn.BatchNorm2d(6), nn.ReLU()))
    with pytest.raises(ValueError, match="Expected more than 1 value per channel when training"):
        fused(torch.randn(1, 6, 1, 1))
    assert fused(torch.randn(1, 6, 2, 1)).shape == (1, 6, 2, 1)
    with pytest.raises(ValueError, match="expected 4D input"):
        fused(torch.randn(6, 2, 1))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16], ids=str)
def test_other_dtypes_are_pytorchs(dtype, calls):
    plain, x = made()
    plain, x = plain.to(dtype), x.to(dtype)
    fused = lth.fuse(copy.deepcopy(plain))
    found, expected = step(fused, x), step(plain, x)
    assert calls == {"batch_norm": 0, "relu_max_pool": 0}
    assert_same(found, expected, 0, 0)


def test_autocast_frozen_parameters_meta_and_odd_strides():
    plain, x = made()
    fused = lth.fuse(copy.deepcopy(plain))
    with torch.autocast("cpu", torch.bfloat16):
        assert_same(step(fused, x), step(plain, x), 0.1, 0.1)
    for model in (plain, fused):
        model[1].requires_grad_(False)
        model[4].bn2.bias.requires_grad_(False)
    assert_same(step(fused, x), step(plain, x))
    assert fused[1].weight.grad is None
    assert_same(step(fused, x.transpose(2, 3)), step(plain, x.transpose(2, 3)))
    assert copy.deepcopy(fused).to("meta")(x.to("meta")).shape == (4, 5)


def test_copies_pickles_averages_and_traces(calls):
    plain, x = made()
    fused = lth.fuse(copy.deepcopy(plain))
    expected = plain.eval()(x)
    buffer = io.BytesIO()
    torch.save(fused, buffer)
    buffer.seek(0)
    for other in (copy.deepcopy(fused), torch.load(buffer, weights_only=False), AveragedModel(fused)):
        before = calls["batch_norm"]
        assert_same(other.eval()(x), expected)
        assert calls["batch_norm"] == before + 3
    assert copy.deepcopy(fused)[1].followers[0] is not fused[1].followers[0]
    plain.load_state_dict(fused.state_dict())
    fused.load_state_dict(plain.state_dict())
    fused.eval()
    assert_same(fx.symbolic_trace(fused)(x), expected)
    assert_same(torch.jit.trace(fused, x)(x), expected)
    assert_same(torch.func.vmap(fused)(x[:, None])[:, 0], expected)


def test_compilers_see_pytorchs_modules(monkeypatch, calls):
    plain, x = made()
    fused = lth.fuse(copy.deepcopy(plain))
    compiled = torch.compile(fused, backend="eager", fullgraph=True)
    assert_same(compiled(x), plain(x))
    assert calls["batch_norm"] == 0
    assert_same(torch.export.export(fused.eval(), (x,)).module()(x), plain.eval()(x))


def test_there_is_no_second_derivative():
    fused, x = lth.fuse(nn.Sequential(nn.BatchNorm2d(6), nn.ReLU())), torch.randn(3, 6, 5, 5, requires_grad=True)
    (gradient,) = torch.autograd.grad(fused(x).square().sum(), x, create_graph=True)
    with pytest.raises(NotImplementedError, match="fused layers have no second derivative"):
        gradient.sum().backward()
    pooled = lth.fuse(nn.Sequential(nn.ReLU(), nn.MaxPool2d(2)))
    (gradient,) = torch.autograd.grad(pooled(x).square().sum(), x, create_graph=True)
    with pytest.raises(NotImplementedError, match="fused layers have no second derivative"):
        gradient.sum().backward()


def test_an_input_that_changes_before_the_output_is_used_is_named():
    norm = lth.fuse(nn.Sequential(nn.BatchNorm2d(6), nn.ReLU()))[0]
    x = torch.randn(3, 6, 5, 5)
    output = norm(x)
    x.zero_()
    with pytest.raises(RuntimeError, match="was changed in place before its output was used"):
        output.sum()


def test_sparsify_before_and_after_and_densify(calls):
    plain, x = made()
    masks = {"0": torch.rand(plain[0].weight.shape) < 0.5, "4.conv2": torch.rand(plain[4].conv2.weight.shape) < 0.5}
    before = lth.fuse(lth.sparsify(copy.deepcopy(plain), masks, backend="dense"))
    after = lth.sparsify(lth.fuse(copy.deepcopy(plain)), masks, backend="dense")
    assert fused_in(before) == fused_in(after)
    sparse = lth.sparsify(copy.deepcopy(plain), masks, backend="dense")
    expected = step(sparse, x)
    assert_same(step(before, x), expected)
    assert_same(step(after, x), expected)
    assert calls["batch_norm"] == 6
    dense = lth.densify(before)
    assert fused_in(dense) == fused_in(after)
    assert_same(dense.eval()(x), sparse.eval()(x))


def test_without_the_operators_nothing_is_fused_and_it_is_said(monkeypatch, capsys):
    monkeypatch.setattr("lth_sparse.nn.fusing.UNUSABLE", "its extension is not built")
    assert fused_in(lth.fuse(made()[0])) == set()
    assert capsys.readouterr().err == "lth.fuse: nothing is fused: its extension is not built\n"


def test_an_in_place_relu_whose_input_others_see_changes_it(calls):
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.relu, self.pool = nn.ReLU(inplace=True), nn.MaxPool2d(2)

        def forward(self, x):
            y = x * 1
            return self.pool(self.relu(y)).sum() + y.sum()

    x = torch.randn(2, 3, 4, 4)
    assert_same(lth.fuse(Shared())(x), Shared()(x))
    assert calls["relu_max_pool"] == 0
