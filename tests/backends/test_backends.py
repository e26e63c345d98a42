"""Every backend that works here against the specification, and the registry that hands them out."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lth_sparse import reference
from lth_sparse.backends import registry
from lth_sparse.plans.layer_spec import LayerSpec
from lth_sparse.plans.pattern import Pattern
from lth_sparse.system.errors import BackendError
from tests.csrc import cuda_on_host
from tests.poison import poisoned_memory

BACKENDS = [name for name, reason in registry.backends().items() if not reason and name != "auto"]
BACKENDS.append(cuda_on_host.NAME)
GRID = settings(max_examples=60, deadline=None, derandomize=True, database=None)
BATCH_SIZES = st.sampled_from([1, 2, 7, 16, 17, 33])
FORMATS = st.tuples(*[st.sampled_from([torch.contiguous_format, torch.channels_last])] * 2)
DENSITIES = st.sampled_from([0.0, 0.02, 0.1, 0.5, 1.0])


@st.composite
def conv2d_cases(draw):
    """A convolution's spec and an input shape that its kernel fits into."""
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))
    spec = LayerSpec(
        "conv2d",
        groups * draw(st.integers(1, 4)),
        groups * draw(st.integers(1, 4)),
        kernel_size=draw(pairs),
        stride=draw(pairs),
        padding=draw(st.tuples(st.integers(0, 2), st.integers(0, 2))),
        dilation=draw(st.tuples(st.integers(1, 2), st.integers(1, 2))),
        groups=groups,
    )
    sizes = [
        draw(st.integers(max(1, dilation * (kernel - 1) + 1 - 2 * padding), 9))
        for dilation, kernel, padding in zip(spec.dilation, spec.kernel_size, spec.padding, strict=True)
    ]
    return spec, (draw(BATCH_SIZES), spec.in_channels, *sizes)


@st.composite
def linear_cases(draw):
    spec = LayerSpec("linear", draw(st.integers(1, 17)), draw(st.integers(1, 17)))
    return spec, (draw(BATCH_SIZES), spec.in_channels)


def outputs_of_backend(name, mask, spec, x, values, bias, grad_out):
    backend = cuda_on_host.backend() if name == cuda_on_host.NAME else registry.get(name)
    with poisoned_memory():
        plan = backend.pack(Pattern.from_mask(mask), spec)
        return (
            backend.forward(x, values, plan, bias),
            backend.grad_input(grad_out, values, plan, tuple(x.shape)),
            backend.grad_weight(x, grad_out, plan),
        )


def outputs_of_reference(mask, spec, x, values, bias, grad_out):
    return (
        reference.forward(x, values, bias, mask, spec),
        reference.grad_input(grad_out, values, mask, spec, tuple(x.shape)),
        reference.grad_weight(x, grad_out, mask, spec),
    )


def test_poisoned_memory_is_poisoned():
    with poisoned_memory():
        assert torch.empty(9).isnan().all()
        # In C++, by an operator that leaves what it allocates as it is.
        assert torch.ones(9).resize_(99)[9:].isnan().all()
    assert not torch.are_deterministic_algorithms_enabled()


ONE_BY_ONE = {"triton": 0.5}
"""Backends that add their products one by one in float32, where dense PyTorch adds in blocks (docs/limits.md, known
faults) -> how far such a walk may end, in sqrt(n) roundings of the typical size of a sum of n products: its root mean
square is 0.15 (lth_sparse/verification/layers.py)."""


def assert_as_exact_as_dense_pytorch(name, spec, input_shape, mask, seed, formats=None):
    """In float64 the backend is the reference; in float32 it errs at most twice as much as dense PyTorch, give or
    take two roundings of the sum's typical size: where an output is a single number, dense may be right by luck.
    Those of ONE_BY_ONE err by their walk besides.

    formats: the memory formats of x and grad_out, for a convolution.
    """
    torch.manual_seed(seed)
    x = torch.randn(input_shape, dtype=torch.float64)
    values = torch.randn(int(mask.sum()), dtype=torch.float64)
    bias = torch.randn(spec.out_channels, dtype=torch.float64)
    grad_out = torch.randn_like(reference.forward(x, values, bias, mask, spec))
    # The truth starts from numbers that float32 holds exactly, so that all that differs is the arithmetic.
    exact = [tensor.float().double() for tensor in (x, values, bias, grad_out)]
    truth = outputs_of_reference(mask, spec, *exact)
    if formats is not None:
        exact[0], exact[3] = [exact[i].to(memory_format=each) for i, each in zip((0, 3), formats, strict=True)]
    rounded = [tensor.float() for tensor in exact]
    double = outputs_of_backend(name, mask, spec, *exact)
    single = outputs_of_backend(name, mask, spec, *rounded)
    dense = outputs_of_reference(mask, spec, *rounded)
    sizes = outputs_of_reference(mask, spec, *[tensor.square() for tensor in exact])
    counts = outputs_of_reference(mask, spec, *[torch.ones_like(tensor) for tensor in exact])
    for expected, ours, ours_single, dense_single, size, count in zip(
        truth, double, single, dense, sizes, counts, strict=True
    ):
        assert ours.shape == ours_single.shape == expected.shape
        torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)
        if expected.numel():
            error, own = [(out - expected).abs().max() for out in (ours_single, dense_single)]
            roundings = 2 + ONE_BY_ONE.get(name, 0) * count.max().sqrt()
            assert error <= 2 * own + roundings * torch.finfo(torch.float32).eps * size.max().sqrt()


@pytest.mark.parametrize("name", BACKENDS)
@GRID
@given(case=conv2d_cases(), density=DENSITIES, formats=FORMATS, seed=st.integers(0, 99))
def test_conv2d_agrees_with_the_reference(name, case, density, formats, seed):
    spec, input_shape = case
    mask = torch.rand(spec.weight_shape, generator=torch.Generator().manual_seed(seed)) < density
    assert_as_exact_as_dense_pytorch(name, spec, input_shape, mask, seed, formats)


@pytest.mark.parametrize("name", BACKENDS)
@GRID
@given(case=linear_cases(), density=DENSITIES, seed=st.integers(0, 99))
def test_linear_agrees_with_the_reference(name, case, density, seed):
    spec, input_shape = case
    mask = torch.rand(spec.weight_shape, generator=torch.Generator().manual_seed(seed)) < density
    assert_as_exact_as_dense_pytorch(name, spec, input_shape, mask, seed)


def all_pruned(mask):
    mask[:] = False


def none_pruned(mask):
    mask[:] = True


def dead_output_channels(mask):
    mask[1::2] = False


def dead_input_channels(mask):
    mask[:, ::2] = False


def one_weight_left(mask):
    mask[:] = False
    mask[-1, -1] = torch.arange(mask[-1, -1].numel()).reshape(mask[-1, -1].shape) == 0


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize(
    "degenerate", [all_pruned, none_pruned, dead_output_channels, dead_input_channels, one_weight_left]
)
@pytest.mark.parametrize(
    ("spec", "input_shape"),
    [
        (LayerSpec("conv2d", 4, 6, kernel_size=(3, 3), padding=(1, 1)), (5, 4, 7, 7)),
        (LayerSpec("conv2d", 4, 6, kernel_size=(3, 3), stride=(2, 2), groups=2), (1, 4, 7, 7)),
        (LayerSpec("linear", 11, 6), (5, 11)),
    ],
    ids=["conv2d", "grouped", "linear"],
)
def test_degenerate_masks(name, spec, input_shape, degenerate):
    mask = torch.rand(spec.weight_shape, generator=torch.Generator().manual_seed(0)) < 0.7
    degenerate(mask)
    assert_as_exact_as_dense_pytorch(name, spec, input_shape, mask, seed=0)


def test_dense_keeps_channels_last_and_stays_right():
    spec = LayerSpec("conv2d", 8, 16, kernel_size=(3, 3), padding=(1, 1))
    mask = torch.rand(spec.weight_shape, generator=torch.Generator().manual_seed(0)) < 0.3
    torch.manual_seed(0)
    x, grad_out = torch.randn(2, 8, 6, 6), torch.randn(2, 16, 6, 6)
    values = torch.randn(int(mask.sum()))
    expected = outputs_of_reference(mask, spec, x, values, None, grad_out)
    strided = [tensor.to(memory_format=torch.channels_last) for tensor in (x, grad_out)]
    ours = outputs_of_backend("dense", mask, spec, strided[0], values, None, strided[1])
    for mine, truth in zip(ours, expected, strict=True):
        torch.testing.assert_close(mine, truth, rtol=1e-4, atol=1e-4)
    for mine in ours[:2]:
        assert mine.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", BACKENDS)
def test_expanded_gradients_are_read_right(name):
    spec = LayerSpec("conv2d", 3, 4, kernel_size=(3, 3))
    mask = torch.ones(spec.weight_shape, dtype=torch.bool)
    x, values = torch.randn(2, 3, 5, 5).double(), torch.randn(mask.numel()).double()
    expanded = torch.ones(1, 1, 1, 1).double().expand(2, 4, 3, 3)
    ours = outputs_of_backend(name, mask, spec, x, values, None, expanded)
    expected = outputs_of_reference(mask, spec, x, values, None, expanded.contiguous())
    torch.testing.assert_close(ours, expected)


# No padding: whether a weight meets the zeros around an image is the implementation's own affair.
UNPADDED = pytest.mark.parametrize(
    ("spec", "input_shape"),
    [
        (LayerSpec("conv2d", 4, 6, kernel_size=(3, 3)), (3, 4, 9, 8)),
        (LayerSpec("conv2d", 4, 6, kernel_size=(3, 2), stride=(2, 1), dilation=(1, 2), groups=2), (17, 4, 9, 8)),
        (LayerSpec("conv2d", 4, 6), (2, 4, 8, 8)),
        (LayerSpec("linear", 20, 6), (17, 20)),
    ],
    ids=["conv2d", "strided", "1x1", "linear"],
)
NOT_FINITE = pytest.mark.parametrize("special", [float("nan"), float("inf"), -float("inf")])


def numbers(spec, input_shape, mask):
    """x, values, bias and grad_out, none of them 0."""
    torch.manual_seed(0)
    x, values, bias = torch.rand(input_shape) + 0.5, torch.rand(int(mask.sum())) + 0.5, torch.rand(spec.out_channels)
    return [x, values, bias, torch.rand_like(reference.forward(x, values, bias, mask, spec)) + 0.5]


def kinds_of(outputs):
    """Where the outputs are NaN, and where they are infinite of either sign."""
    return [torch.stack([output.isnan(), output.isposinf(), output.isneginf()]) for output in outputs]


@pytest.mark.parametrize("name", BACKENDS)
@UNPADDED
@NOT_FINITE
@pytest.mark.parametrize("carrier", ["x", "values", "grad_out"])
def test_what_is_not_finite_travels_as_in_the_reference(name, spec, input_shape, special, carrier):
    mask = torch.ones(spec.weight_shape, dtype=torch.bool)
    tensors = numbers(spec, input_shape, mask)
    tensor = tensors[["x", "values", "bias", "grad_out"].index(carrier)]
    tensor.view(-1)[tensor.numel() // 2] = special
    expected = outputs_of_reference(mask, spec, *[each.double() for each in tensors])
    assert not all(output.isfinite().all() for output in expected)
    ours = outputs_of_backend(name, mask, spec, *tensors)
    if carrier == "values" and spec.kind == "conv2d":
        # The rim of grad_input is what lies outside grad_out for some weights: zeros that may meet them or not.
        rows, columns = [dilation * (size - 1) for dilation, size in zip(spec.dilation, spec.kernel_size, strict=True)]
        interior = (..., slice(rows, input_shape[2] - rows), slice(columns, input_shape[3] - columns))
        ours, expected = [(output, grad_x[interior], grad) for output, grad_x, grad in (ours, expected)]
    for mine, truth in zip(kinds_of(ours), kinds_of(expected), strict=True):
        assert torch.equal(mine, truth)


@pytest.mark.parametrize("name", [name for name in BACKENDS if name != "dense"])
@UNPADDED
@NOT_FINITE
def test_a_pruned_weight_times_infinity_is_zero(name, spec, input_shape, special):
    mask = torch.rand(spec.weight_shape, generator=torch.Generator().manual_seed(0)) < 0.6
    mask[:, 1] = False
    mask[2] = False
    tensors = numbers(spec, input_shape, mask)
    expected = outputs_of_backend(name, mask, spec, *tensors)
    # The second column (the second channel of each group) and the third row have no live weight.
    x, _, _, grad_out = tensors
    x[:, 1 :: spec.in_channels // spec.groups] = special
    grad_out[:, 2] = special
    ours = outputs_of_backend(name, mask, spec, *tensors)
    assert all(torch.equal(mine, truth) for mine, truth in zip(ours, expected, strict=True))


def test_the_reference_agrees_with_a_convolution_written_out():
    spec = LayerSpec("conv2d", 2, 2, kernel_size=(2, 2), stride=(2, 1), padding=(1, 0), groups=2)
    mask = torch.tensor([[[[True, False], [False, True]]], [[[False, True], [True, True]]]])
    values = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    x = torch.arange(12.0).reshape(1, 2, 2, 3)
    padded = torch.nn.functional.pad(x, (0, 0, 1, 1))
    expected = torch.empty(1, 2, 2, 2)
    for row in range(2):
        for column in range(2):
            image = padded[0, :, 2 * row : 2 * row + 2, column : column + 2]
            expected[0, 0, row, column] = 1 * image[0, 0, 0] + 2 * image[0, 1, 1]
            expected[0, 1, row, column] = 3 * image[1, 0, 1] + 4 * image[1, 1, 0] + 5 * image[1, 1, 1]
    assert torch.equal(reference.forward(x, values, None, mask, spec), expected)


def test_output_size_is_that_of_pytorch():
    spec = LayerSpec("conv2d", 1, 1, kernel_size=(3, 2), stride=(2, 3), padding=(1, 0), dilation=(2, 1))
    convolution = torch.nn.Conv2d(1, 1, (3, 2), (2, 3), (1, 0), (2, 1))
    assert spec.output_size(9, 11) == tuple(convolution(torch.zeros(1, 9, 11)).shape[1:])


def test_integers_are_not_supported():
    supported, reason = registry.get("dense").supports(LayerSpec("linear", 2, 2), torch.int64, torch.device("cpu"))
    assert not supported
    assert "torch.int64" in reason


def test_backends_says_what_is_usable_and_why_the_rest_is_not():
    known = registry.backends()
    assert list(known)[:5] == ["auto", "dense", "cpp", "triton", "cuda"]
    assert known["auto"] == known["dense"] == ""
    for name in ("cpp", "triton", "cuda"):
        if known[name]:
            with pytest.raises(BackendError, match=f'backend "{name}" cannot be used here: '):
                registry.resolve(name)


def test_auto_stands_for_a_backend_that_is_usable():
    assert registry.backends()[registry.resolve("auto")] == ""
    assert registry.get("auto") is registry.get(registry.resolve("auto"))


def test_an_unknown_backend_is_refused_with_the_nearest_name():
    with pytest.raises(BackendError, match='unknown backend "dens", did you mean "dense"\\?'):
        registry.get("dens")


def test_a_new_backend_registers_itself(monkeypatch):
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))
    monkeypatch.setattr(registry, "_unusable", dict(registry._unusable))
    dense_class = type(registry.get("dense"))
    registry.register("cpp")(dense_class)
    assert registry.backends()["cpp"] == ""
    assert registry.get("cpp") is not registry.get("dense")
    registry.register("quantum", unusable="no qubits were found")(dense_class)
    with pytest.raises(BackendError, match='"quantum" cannot be used here: no qubits were found'):
        registry.get("quantum")
