"""What only a GPU can show of its backends: precisions, CUDA graphs, calls that neither wait nor allocate."""

import pytest
import torch
import torch.nn.functional as F

import lth_sparse as lth
from lth_sparse import reference
from lth_sparse.backends import registry
from lth_sparse.plans.layer_spec import LayerSpec
from lth_sparse.plans.pattern import Pattern

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
CUDA = torch.device("cuda")
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
CONV = LayerSpec("conv2d", 40, 72, (3, 3), padding=(1, 1))
SPECS = {
    "conv2d": (CONV, (33, 40, 15, 16)),
    "strided": (LayerSpec("conv2d", 24, 40, (3, 3), (2, 2), (1, 1)), (17, 24, 16, 15)),
    "grouped": (LayerSpec("conv2d", 32, 64, (3, 3), padding=(1, 1), groups=4), (8, 32, 9, 9)),
    "1x1": (LayerSpec("conv2d", 64, 48), (16, 64, 8, 8)),
    "linear": (LayerSpec("linear", 300, 130), (77, 300)),
}
PRECISIONS = {
    "ieee": (torch.float32, "ieee"),
    "tf32": (torch.float32, "tf32"),
    "float16": (torch.float16, "ieee"),
    "bfloat16": (torch.bfloat16, "ieee"),
}


@pytest.fixture(params=["triton", "cuda"])
def backend(request):
    """The name of a backend that works here."""
    if reason := registry.backends()[request.param]:
        pytest.skip(f"{request.param} cannot be used here: {reason}")
    return request.param


@pytest.fixture(params=PRECISIONS)
def precision(request):
    """Its name and dtype, with PyTorch set to multiply float32 as the name says."""
    dtype, float32 = PRECISIONS[request.param]
    settings = torch.backends.cudnn.conv, torch.backends.cuda.matmul
    before = [setting.fp32_precision for setting in settings]
    for setting in settings:
        setting.fp32_precision = float32
    yield request.param, dtype
    for setting, value in zip(settings, before, strict=True):
        setting.fp32_precision = value


def numbers(spec, input_shape, dtype, layout="contiguous", density=0.1):
    generator = torch.Generator().manual_seed(0)
    mask = (torch.rand(spec.weight_shape, generator=generator) < density).to(CUDA)
    x = torch.randn(input_shape, generator=generator)
    values = torch.randn(int(mask.sum()), generator=generator)
    bias = torch.randn(spec.out_channels, generator=generator)
    size = spec.output_size(*input_shape[2:]) if spec.kind == "conv2d" else ()
    grad_out = torch.randn(input_shape[0], spec.out_channels, *size, generator=generator)
    x, values, bias, grad_out = (tensor.to(CUDA, dtype) for tensor in (x, values, bias, grad_out))
    if x.dim() == 4:
        x, grad_out = (images.contiguous(memory_format=LAYOUTS[layout]) for images in (x, grad_out))
    return mask, x, values, bias, grad_out


def sparse(name, spec, mask, x, values, bias, grad_out):
    backend = registry.get(name)
    plan = backend.pack(Pattern.from_mask(mask), spec)
    return (
        backend.forward(x, values, plan, bias),
        backend.grad_input(grad_out, values, plan, tuple(x.shape)),
        backend.grad_weight(x, grad_out, plan),
    )


def dense(spec, mask, x, values, bias, grad_out):
    return (
        reference.forward(x, values, bias, mask, spec),
        reference.grad_input(grad_out, values, mask, spec, tuple(x.shape)),
        reference.grad_weight(x, grad_out, mask, spec),
    )


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("spec", "input_shape"), SPECS.values(), ids=SPECS)
def test_errors_are_at_most_twice_those_of_dense(backend, spec, input_shape, layout, precision):
    name, dtype = precision
    tensors = numbers(spec, input_shape, dtype, layout)
    mask, rest = tensors[0], tensors[1:]
    truth = dense(spec, mask, *(tensor.double() for tensor in rest))
    # That TF32 is allowed does not mean that PyTorch takes it: the least that it costs is rounding what is multiplied.
    least = dense(spec, mask, *(as_tf32(tensor).double() if name == "tf32" else tensor.double() for tensor in rest))
    for ours, theirs, rounded, expected in zip(
        sparse(backend, spec, *tensors), dense(spec, *tensors), least, truth, strict=True
    ):
        assert ours.dtype == dtype
        error, own, inevitable = [(each.double() - expected).abs().max() for each in (ours, theirs, rounded)]
        assert error <= 2 * max(own, inevitable) + torch.finfo(torch.float32).eps * expected.abs().max()


@pytest.mark.parametrize(("spec", "input_shape"), SPECS.values(), ids=SPECS)
def test_float64_agrees(backend, spec, input_shape):
    tensors = numbers(spec, input_shape, torch.float64)
    for ours, expected in zip(sparse(backend, spec, *tensors), dense(spec, *tensors), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-11, atol=1e-11)


def as_tf32(tensor):
    """Rounded to 10 bits of mantissa, ties away from zero."""
    return ((tensor.view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32)


def test_the_same_bits_each_time(backend, precision):
    tensors = numbers(CONV, (33, 40, 15, 16), precision[1])
    first = sparse(backend, CONV, *tensors)
    for _ in range(5):
        assert all(torch.equal(one, other) for one, other in zip(first, sparse(backend, CONV, *tensors), strict=True))


def called(name, spec, mask, x, values, bias, grad_out):
    """The three operations, as functions, on a plan that is packed already; each was called once."""
    backend = registry.get(name)
    plan = backend.pack(Pattern.from_mask(mask), spec)
    calls = (
        lambda: backend.forward(x, values, plan, bias),
        lambda: backend.grad_input(grad_out, values, plan, tuple(x.shape)),
        lambda: backend.grad_weight(x, grad_out, plan),
    )
    for call in calls:
        call()
    torch.cuda.synchronize()
    return calls


@pytest.mark.parametrize(("spec", "input_shape"), SPECS.values(), ids=SPECS)
def test_a_call_neither_waits_nor_takes_more_than_its_output_and_a_workspace(backend, spec, input_shape):
    calls = called(backend, spec, *numbers(spec, input_shape, torch.float32))
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for call in calls:
            before_it = torch.cuda.memory_stats()
            call()
            after_it = torch.cuda.memory_stats()
            assert after_it["allocation.all.allocated"] - before_it["allocation.all.allocated"] == 2
            # Both come out of the allocator's cache.
            assert after_it["segment.all.allocated"] == before_it["segment.all.allocated"]
    finally:
        torch.cuda.set_sync_debug_mode(before)


@pytest.mark.parametrize(("spec", "input_shape"), SPECS.values(), ids=SPECS)
def test_graphs_capture_it_and_see_new_values(backend, spec, input_shape):
    mask, x, values, bias, grad_out = numbers(spec, input_shape, torch.float32)
    calls = called(backend, spec, mask, x, values, bias, grad_out)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = [call() for call in calls]
    for tensor in (x, values, grad_out):
        tensor.copy_(torch.randn_like(tensor))
    # What runs between must not disturb what the graph holds.
    larger = LayerSpec("conv2d", 128, 256, (3, 3), padding=(1, 1))
    called(backend, larger, *numbers(larger, (64, 128, 16, 16), torch.float32))
    graph.replay()
    torch.cuda.synchronize()
    for output, expected in zip(outputs, [call() for call in calls], strict=True):
        assert torch.equal(output, expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast(backend, dtype):
    torch.manual_seed(0)
    layer = lth.SparseConv2d(16, 32, 3, padding=1, mask=torch.rand(32, 16, 3, 3) < 0.2, backend=backend).to(CUDA)
    x = torch.randn(4, 16, 8, 8, device=CUDA, requires_grad=True)
    with torch.autocast("cuda", dtype):
        output = layer(x)
        expected = F.conv2d(x, layer.weight, layer.bias, padding=1)
    assert output.dtype == dtype
    torch.testing.assert_close(output, expected, rtol=2e-2, atol=2e-2)
    output.float().sum().backward()
    assert layer.values.grad.dtype == torch.float32


def test_compiled_networks_give_the_same_numbers(backend):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(8, 16, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(576, 5))
    masks = {"0": torch.rand(16, 8, 3, 3) < 0.2, "3": torch.rand(5, 576) < 0.1}
    model = lth.sparsify(model, masks, backend).to(CUDA)
    x = torch.randn(3, 8, 8, 8, device=CUDA)
    expected = model(x)
    torch.testing.assert_close(torch.compile(model, fullgraph=True)(x), expected, rtol=1e-4, atol=1e-4)


def test_tensors_on_two_devices_are_refused(backend):
    layer = lth.SparseLinear(4, 3, backend=backend).to(CUDA)
    with pytest.raises(ValueError, match="input: got a tensor on cpu, expected cuda:0, where the layer is"):
        layer(torch.ones(2, 4))


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there is one GPU")
def test_a_layer_runs_on_the_gpu_that_it_is_on(backend):
    layer = lth.SparseLinear(64, 32, mask=torch.rand(32, 64) < 0.3, backend=backend).to("cuda:1")
    x = torch.randn(5, 64, device="cuda:1")
    torch.testing.assert_close(layer(x), F.linear(x, layer.weight, layer.bias), rtol=1e-3, atol=1e-3)
    with pytest.raises(ValueError, match="got a tensor on cuda:0, expected cuda:1"):
        layer(x.to("cuda:0"))


def test_auto_races_it_and_agrees(backend):
    spec, input_shape = SPECS["conv2d"]
    mask, x, values, bias, _ = numbers(spec, input_shape, torch.float32)
    auto = registry.get("auto")
    plan = auto.pack(Pattern.from_mask(mask), spec)
    assert backend in plan.slices()
    ours = auto.forward(x, values, plan, bias)
    torch.testing.assert_close(ours, reference.forward(x, values, bias, mask, spec), rtol=1e-2, atol=1e-2)
