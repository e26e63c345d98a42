"""The operators of what lies between convolutions, against float64, in both layouts and at awkward sizes."""

import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from lth_sparse.backends import cpu_operators
from tests.csrc.test_cpp_kernels import LOWER
from tests.poison import poisoned_memory
from tests.threads import at_threads

pytestmark = pytest.mark.skipif(
    bool(cpu_operators.UNUSABLE), reason=f"the C++ operators cannot be used here: {cpu_operators.UNUSABLE}"
)
LAYOUTS = [torch.contiguous_format, torch.channels_last]
# Vectors of channels and of pixels: whole ones, several, with a rest; rows and columns that no window has; one pixel.
SHAPES = [
    (4, 16, 8, 8),
    (3, 5, 7, 9),
    (2, 64, 32, 32),
    (2, 3, 2, 2),
    (9, 130, 3, 5),
    (1, 8, 33, 31),
    (2, 33, 2, 70),
    (7, 9, 1, 1),
]
KINDS = ["plain", "residual", "pool"]
EPSILON = 1e-5
RELU = (0.0, None)
# ReLU6, a Hardtanh, one that only bounds from above, and none.
BOUNDS = [(0.0, 6.0), (-0.5, 0.25), (None, 1.0), (None, None)]


def possible(shape, kind):
    return kind != "pool" or min(shape[2:]) >= 2


CASES = [(shape, kind) for shape in SHAPES for kind in KINDS if possible(shape, kind)]


class Case:
    """Inputs in float32; `torchs` is what PyTorch makes of them in a dtype."""

    def __init__(self, shape, kind, *, offset=0.0, affine=True, of_batch=True, running=True, bounds=RELU):
        generator = torch.Generator().manual_seed(0)

        def random(*size):
            return torch.randn(size, generator=generator)

        channels = shape[1]
        self.kind, self.of_batch, self.bounds = kind, of_batch, bounds
        self.x, self.residual = random(*shape) * 2 + offset, random(*shape) if kind == "residual" else None
        self.weight, self.bias = (random(channels) + 0.5, random(channels) * 0.2) if affine else (None, None)
        self.running = (random(channels) * 0.1 + offset, random(channels).abs() + 0.5) if running else (None, None)
        pooled = (*shape[:2], shape[2] // 2, shape[3] // 2)
        self.grad_out = random(*(pooled if kind == "pool" else shape))

    @property
    def passes_on(self):
        """Whether the gradient of the output is that of the residual."""
        return self.bounds == (None, None)

    def torchs(self, dtype):
        def leaf(tensor):
            return None if tensor is None else tensor.to(dtype).detach().clone().requires_grad_()

        x, residual, weight, bias = map(leaf, (self.x, self.residual, self.weight, self.bias))
        running = [None if t is None else t.to(dtype) * 1 for t in self.running]
        z = F.batch_norm(x, *running, weight, bias, self.of_batch, 0.1, EPSILON)
        output = clamped(z if residual is None else z + residual, self.bounds)
        output = F.max_pool2d(output, 2) if self.kind == "pool" else output
        output.backward(self.grad_out.to(dtype))
        grads = [None if t is None else t.grad for t in (x, weight, bias, residual)]
        return dict(zip(NAMES, (output.detach(), *grads, *running), strict=True))

    def ours(self, layout):
        def laid(tensor):
            return None if tensor is None else tensor.contiguous(memory_format=layout)

        x, residual, grad_out = map(laid, (self.x, self.residual, self.grad_out))
        running = [None if t is None else t.clone() for t in self.running]
        operators, pool = torch.ops.lth_sparse_cpu, self.kind == "pool"
        with poisoned_memory():
            output, mean, inverse, taken = operators.batch_norm(
                x, residual, self.weight, self.bias, *running, self.of_batch, 0.1, EPSILON, *self.bounds, pool
            )
            grad_x, grad_weight, grad_bias, grad_residual = operators.batch_norm_backward(
                grad_out,
                x,
                None if residual is None or self.passes_on else output,
                self.weight,
                self.bias,
                mean,
                inverse,
                taken if pool else None,
                self.of_batch,
                *self.bounds,
            )
        if residual is not None and self.passes_on:
            assert grad_residual.numel() == 0
            grad_residual = grad_out
        assert output.is_contiguous(memory_format=layout)
        assert grad_x.is_contiguous(memory_format=layout)
        affine = [None, None] if self.weight is None else [grad_weight, grad_bias]
        grads = [grad_x, *affine, None if residual is None else grad_residual]
        return dict(zip(NAMES, (output, *grads, *running), strict=True))


def clamped(z, bounds):
    """By PyTorch's modules, whose gradients are 0 at the bounds themselves, where torch.clamp's are not."""
    if bounds == RELU:
        return F.relu(z)
    least, greatest = (sign * 1e30 if bound is None else bound for sign, bound in zip((-1, 1), bounds, strict=True))
    return z if bounds == (None, None) else F.hardtanh(z, least, greatest)


NAMES = ("output", "x", "weight", "bias", "residual", "running_mean", "running_var")


def error(found, exact):
    return float((found.double() - exact).abs().max() / exact.abs().max().clamp_min(1e-30))


def check(case):
    exact, torchs = case.torchs(torch.float64), case.torchs(torch.float32)
    for layout in LAYOUTS:
        for name, found in case.ours(layout).items():
            assert (found is None) == (exact[name] is None), name
            if found is not None:
                assert error(found, exact[name]) < max(2e-6, 4 * error(torchs[name], exact[name])), (name, layout)


@pytest.mark.parametrize(("shape", "kind"), CASES, ids=str)
@pytest.mark.parametrize("of_batch", [True, False], ids=["training", "evaluation"])
def test_batch_norm(shape, kind, of_batch):
    check(Case(shape, kind, of_batch=of_batch))


@pytest.mark.parametrize(("shape", "kind"), [case for case in CASES if case[1] != "pool"], ids=str)
@pytest.mark.parametrize("bounds", BOUNDS, ids=str)
def test_batch_norm_with_another_clamp_or_none(shape, kind, bounds):
    check(Case(shape, kind, bounds=bounds))


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("kind", ["plain", "residual"])
def test_gradients_stop_at_the_bounds_themselves(kind, layout):
    # In evaluation mode with these constants the output is x itself, whose numbers hit the bounds.
    case = Case((2, 18, 5, 6), kind, of_batch=False, affine=False, bounds=(0.0, 6.0))
    case.x, case.running = case.x.mul(4).round(), (torch.zeros(18), torch.full((18,), 1 - EPSILON))
    case.residual = None if case.residual is None else torch.zeros_like(case.x)
    expected = case.torchs(torch.float32)
    assert (expected["output"] == 6).any()
    for name, found in case.ours(layout).items():
        if found is not None:
            torch.testing.assert_close(found, expected[name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("changed", [{"affine": False}, {"running": False}, {"offset": 30.0}], ids=str)
def test_batch_norm_without_some_of_it_and_far_from_zero(kind, changed):
    check(Case((5, 17, 6, 5), kind, **changed))


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("shape", [shape for shape in SHAPES if min(shape[2:]) >= 2], ids=str)
@pytest.mark.parametrize("nan", [False, True])
def test_relu_max_pool_takes_what_pytorch_takes(shape, layout, nan):
    x = (torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 4).round() / 4  # Many are equal.
    if nan:
        x[torch.rand(shape, generator=torch.Generator().manual_seed(1)) < 0.1] = float("nan")
    x = x.contiguous(memory_format=layout).requires_grad_()
    expected = F.max_pool2d(F.relu(x), 2)
    grad_out = torch.randn(expected.shape).contiguous(memory_format=layout)
    expected.backward(grad_out)
    with poisoned_memory():
        output, taken = torch.ops.lth_sparse_cpu.relu_max_pool(x.detach())
        grad_x, sums = torch.ops.lth_sparse_cpu.relu_max_pool_backward(
            grad_out, taken, shape, layout == torch.channels_last, True
        )
    torch.testing.assert_close(output, expected.detach(), rtol=0, atol=0, equal_nan=True)
    assert torch.equal(grad_x, x.grad)
    torch.testing.assert_close(sums, x.grad.double().sum((0, 2, 3)).float(), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("bounds", [RELU, *BOUNDS], ids=str)
def test_nan_and_infinity_go_where_pytorchs_go(kind, layout, bounds):
    if kind == "pool" and bounds != RELU:
        pytest.skip("a pool follows ReLU")
    for of_batch in (True, False):
        case = Case((3, 20, 6, 6), kind, of_batch=of_batch, bounds=bounds)
        case.x[0, 3, 2, 2], case.x[1, 7, 0, 1] = float("nan"), float("inf")
        expected = case.torchs(torch.float32)
        for name, found in case.ours(layout).items():
            if found is not None:
                assert torch.equal(found.isfinite(), expected[name].isfinite()), (name, of_batch)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_bits_do_not_depend_on_threads(kind, layout):
    case = Case((16, 33, 18, 18), kind)
    found = at_threads(lambda: case.ours(layout), 1, 2, 3)
    for other in found[1:]:
        for name, value in found[0].items():
            assert value is None or torch.equal(value, other[name]), name


def test_what_does_not_fit_is_refused():
    operators, x = torch.ops.lth_sparse_cpu, torch.randn(2, 3, 4, 4)

    def forward(x, residual=None, weight=None, running=(None, None), of_batch=True, bounds=RELU, pool=False):
        return operators.batch_norm(x, residual, weight, None, *running, of_batch, 0.1, EPSILON, *bounds, pool)

    for sentence, call in {
        "input: expected float32": lambda: forward(x.double()),
        "weight: got 4 elements, expected 3": lambda: forward(x, weight=torch.ones(4)),
        "residual: expected the input's memory format": lambda: forward(
            x, torch.randn(2, 3, 4, 4).contiguous(memory_format=torch.channels_last)
        ),
        "residual: expected none with a pool": lambda: forward(x, x, pool=True),
        "least, greatest: expected 0 and none": lambda: forward(x, bounds=(0.0, 6.0), pool=True),
        "least: expected none, or at most greatest": lambda: forward(x, bounds=(1.0, 0.0)),
        "running_mean: expected one in evaluation mode": lambda: forward(x, of_batch=False),
        "more than 1 value per channel": lambda: forward(x[:1, :, :1, :1].contiguous()),
        "expected at least 2 x 2": lambda: forward(x[:, :, :1].contiguous(), pool=True),
        r"grad_out: expected \[2, 3, 2, 2\]": lambda: operators.relu_max_pool_backward(
            x, torch.zeros(2, 3, 2, 2, dtype=torch.uint8), x.shape, False, True
        ),
    }.items():
        with pytest.raises(RuntimeError, match=sentence):
            call()


@pytest.mark.parametrize("instruction_set", ["avx2", "portable"])
def test_lower_instruction_sets_of_this_machine(instruction_set):
    highest = torch.ops.lth_sparse_cpu.instruction_set()
    if instruction_set not in LOWER[highest]:
        pytest.skip(f"this process runs {highest}")
    command = [sys.executable, "-m", "pytest", "-q", "-x", __file__, "-k", "not instruction_set"]
    done = subprocess.run(command, env=os.environ | {"LTH_SPARSE_CPU": instruction_set}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
