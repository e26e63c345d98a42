"""Sparse layers that lth.fuse computes together with the ReLU, and the max-pool, after them."""

import copy
import io

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import lth_sparse as lth
from lth_sparse.backends import autograd_library, cpu_operators
from lth_sparse.nn import beginnings
from lth_sparse.nn.unfinished import Unfinished
from tests.poison import poisoned_memory
from tests.threads import at_threads

pytestmark = pytest.mark.skipif(
    bool(cpu_operators.UNUSABLE), reason=f"the C++ operators cannot be used here: {cpu_operators.UNUSABLE}"
)
LAYOUTS = [torch.contiguous_format, torch.channels_last]


@pytest.fixture(autouse=True)
def few_are_enough(monkeypatch):
    """The images here are small."""
    monkeypatch.setattr(beginnings, "FEWEST_POOLED", 1)
    monkeypatch.setattr(beginnings, "FEWEST_RECTIFIED", 1)


class Functional(nn.Module):
    """ReLU and pool in functions, and a layer whose output a second one sees."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2, self.linear = nn.Conv2d(5, 8, 3), nn.Conv2d(8, 8, 1), nn.Linear(8, 3)

    def forward(self, x):
        x = F.max_pool2d(torch.relu_(self.conv1(x)), 2)
        y = self.conv2(x)
        return self.linear((F.relu(y) + y).mean((2, 3))).relu()


def sequential(inplace=False, bias=True):
    return nn.Sequential(
        nn.Conv2d(5, 17, 3, padding=1, bias=bias),
        nn.ReLU(inplace),
        nn.Conv2d(17, 8, 3, padding=1, bias=bias),
        nn.ReLU(inplace),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(8 * 5 * 6, 33, bias=bias),
        nn.ReLU(inplace),
        nn.Linear(33, 3),
    )


def sparse(model, backend="cpp", sparsity=0.5):
    torch.manual_seed(1)
    masks = {
        name: torch.rand_like(module.weight) > sparsity
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    }
    return lth.sparsify(model, masks, backend)


def waiting(model):
    return {name for name, module in model.named_modules() if getattr(module, "_followers", None) is not None}


def step(model, x):
    """(output, gradients) of a training step."""
    model.zero_grad()
    x = x.clone().requires_grad_()
    output = model(x)
    weights = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)
    with poisoned_memory():
        (output * weights).sum().backward()
    return output.detach(), [x.grad, *(p.grad for p in model.parameters())]


def images(shape=(6, 5, 11, 13), layout=torch.contiguous_format):
    return torch.randn(shape, generator=torch.Generator().manual_seed(2)).contiguous(memory_format=layout)


def assert_same(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("backend", ["cpp", "auto", "dense"])
@pytest.mark.parametrize(
    "build",
    [sequential, lambda: sequential(inplace=True), lambda: sequential(bias=False), Functional],
    ids=["", "in place", "no bias", "functional"],
)
def test_a_fused_model_does_what_it_did(build, backend, layout):
    torch.manual_seed(0)
    plain, x = sparse(build(), backend), images(layout=layout)
    fused = lth.fuse(copy.deepcopy(plain))
    assert waiting(fused) == ({"conv1", "linear"} if isinstance(plain, Functional) else {"0", "2", "6"})
    exact = copy.deepcopy(plain).double()
    for _ in range(2):  # auto measures the first time.
        output, gradients = step(fused, x)
        assert_same((output, gradients), step(plain, x))
        expected = step(exact, x.double())
        assert_same((output.double(), [g.double() for g in gradients]), expected)
    fused.eval(), plain.eval()
    with torch.no_grad():
        assert_same(fused(x), plain(x))


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("pool", [False, True], ids=["relu", "pool"])
@pytest.mark.parametrize(
    "shape", [(1, 1, 2, 2), (3, 16, 9, 7), (5, 64, 6, 6), (2, 129, 4, 3), (33, 7, 80, 70)], ids=str
)
def test_gradients_pass_where_relu_let_something_pass(shape, pool, layout):
    """Of an identity, so that they are what the kernel made of them, and no sum of it."""
    channels = shape[1]
    layer = lth.SparseConv2d(
        channels, channels, 1, mask=torch.eye(channels, dtype=torch.bool)[..., None, None], backend="cpp"
    )
    with torch.no_grad():
        layer.values.fill_(1), layer.bias.normal_()
    model = lth.fuse(nn.Sequential(layer, nn.ReLU(), nn.MaxPool2d(2) if pool else nn.Identity()))
    x = images(shape)
    x.view(-1)[::7] = 0
    x[0, 0, 0, 0] = float("nan")
    x = x.contiguous(memory_format=layout)
    given, reference = x.clone().requires_grad_(), x.clone().requires_grad_()
    bias = layer.bias.detach().clone().requires_grad_()
    output = model(given)
    if not autograd_library.UNUSABLE and not pool:
        assert output.grad_fn.name() == "SparseLayerBackward"
    expected = F.relu(reference + bias[:, None, None])
    expected = F.max_pool2d(expected, 2) if pool else expected
    gradient = torch.randn(expected.shape).contiguous(memory_format=layout)
    with poisoned_memory():
        output.backward(gradient)
    expected.backward(gradient)
    torch.testing.assert_close(output, expected, rtol=0, atol=0, equal_nan=True)
    assert torch.equal(given.grad, reference.grad)
    sums = reference.grad.double().sum((0, 2, 3))
    torch.testing.assert_close(layer.bias.grad.double(), sums, rtol=1e-5, atol=1e-5 * max(1.0, float(sums.abs().max())))


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_bits_do_not_depend_on_threads(layout):
    model, x = lth.fuse(sparse(sequential())), images((16, 5, 11, 13), layout)

    def gradients():
        return [g.clone() for g in step(model, x)[1]]

    one, *others = at_threads(gradients, 1, 2, 3)
    for other in others:
        assert all(map(torch.equal, one, other))


def test_what_else_is_done_with_the_output_is_done_with_the_layers():
    plain = sparse(nn.Sequential(nn.Conv2d(5, 8, 3), nn.ReLU()))
    fused, x = lth.fuse(copy.deepcopy(plain)), images()
    expected = plain[0](x)
    for use in (
        lambda y: y.shape,
        lambda y: y + 1,
        lambda y: F.relu6(y),
        lambda y: F.max_pool2d(y, 2),
        lambda y: F.max_pool2d(F.relu(y), 3),
        lambda y: torch.cat([y, y]),
        lambda y: y.relu_() + y,
    ):
        found = fused[0](x)
        assert isinstance(found, Unfinished)
        found, wanted = use(found), use(expected.clone())
        if isinstance(wanted, torch.Tensor):
            assert_same(found, wanted)
        else:
            assert found == wanted


def test_small_layers_do_not_wait(monkeypatch):
    """Of the first 6 images it has 8 * 6 * 11 * 13 numbers."""
    model, x = lth.fuse(sparse(nn.Sequential(nn.Conv2d(5, 8, 3, padding=1), nn.ReLU()))), images()
    monkeypatch.setattr(beginnings, "FEWEST_RECTIFIED", 8 * 6 * 11 * 13)
    assert type(model[0](x)) is Unfinished
    assert type(model[0](x[:5])) is torch.Tensor


def test_frozen_parameters_single_images_other_dtypes_and_empty_batches():
    plain = sparse(sequential())
    fused, x = lth.fuse(copy.deepcopy(plain)), images()
    for model in (plain, fused):
        model[0].bias.requires_grad_(False)
        model[2].values.requires_grad_(False)
    assert_same(step(fused, x), step(plain, x))
    assert fused[0].bias.grad is None
    assert fused[2].values.grad is None
    assert_same(fused[:5](x[0]), plain[:5](x[0]))
    assert fused[:5](x[:0]).shape == plain[:5](x[:0]).shape
    assert_same(step(fused.double(), x.double()), step(plain.double(), x.double()))
    with pytest.raises(ValueError, match=r"input: got shape \(6, 4, 11, 13\)"):
        fused.float()(x[:, :4])


def test_hooks_keep_a_layer_by_itself(capsys):
    model = sparse(sequential())
    seen = []
    model[1].register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].min()))
    lth.fuse(model)
    assert waiting(model) == {"2", "6"}
    assert "1 has hooks: it is not fused" in capsys.readouterr().err
    model[6].register_forward_hook(lambda module, inputs, output: seen.append(output.min()))
    model(images())
    assert len(seen) == 2
    assert all(type(each) is torch.Tensor and each < 0 for each in seen)


def test_copies_pickles_and_the_way_back():
    model, x = lth.fuse(sparse(sequential())), images()
    expected = model(x)
    stream = io.BytesIO()
    torch.save(model, stream)
    stream.seek(0)
    for other in (copy.deepcopy(model), torch.load(stream, weights_only=False)):
        assert waiting(other) == {"0", "2", "6"}
        assert_same(other(x), expected)
        assert other[0]._followers[0] is other[1]
    dense = lth.densify(copy.deepcopy(model))
    assert not waiting(dense)
    assert not hasattr(dense[0], "_followers")
    assert_same(dense(x), expected)


def test_an_output_changed_in_place_and_a_second_derivative_are_refused():
    model, x = lth.fuse(sparse(nn.Sequential(nn.Conv2d(5, 8, 3), nn.ReLU()))), images().requires_grad_()
    output = model(x)
    output.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()
    (gradient,) = torch.autograd.grad(model(x).square().sum(), x, create_graph=True)
    with pytest.raises(NotImplementedError, match="no second derivative"):
        gradient.sum().backward()


def test_gradients_that_come_in_another_layout_or_batched():
    plain = sparse(nn.Sequential(nn.Conv2d(5, 8, 3), nn.ReLU()))
    fused, x = lth.fuse(copy.deepcopy(plain)), images()
    found, expected = [], []
    for model, into in ((fused, found), (plain, expected)):
        given = x.clone().requires_grad_()
        output = model(given)
        into += torch.autograd.grad(
            output, [given, *model.parameters()], output.cos().contiguous(memory_format=LAYOUTS[1]), retain_graph=True
        )
        several = torch.stack([output.detach(), -output.detach()])
        into += torch.autograd.grad(output, [given, *model.parameters()], several, is_grads_batched=True)
    assert_same(found, expected)
