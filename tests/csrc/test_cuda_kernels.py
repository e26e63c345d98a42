"""The CUDA kernels, run on the host: every way in which they cut a layer up, their precisions, their memory.

tests/backends/test_backends.py holds them to its grid, too. What only a GPU can show is in tests/gpu/test_gpu.py.
"""

import copy
import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import lth_sparse as lth
from lth_sparse.backends import auto, nvidia, registry
from lth_sparse.backends import cuda as cuda_backend
from lth_sparse.backends.choices import Choices
from lth_sparse.plans import correlation, staging
from lth_sparse.plans.layer_spec import LayerSpec
from lth_sparse.plans.pattern import Pattern
from tests.backends.test_backends import outputs_of_reference, poisoned_memory
from tests.csrc import cuda_on_host
from tests.gpu.test_gpu import as_tf32
from tests.layer_shapes import SHAPES, conv2d

LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
PRECISIONS = {
    "float64": (torch.float64, False),
    "float32": (torch.float32, False),
    "tf32": (torch.float32, True),
    "float16": (torch.float16, False),
    "bfloat16": (torch.bfloat16, False),
}
# Beside those of tests/layer_shapes.py, such as only larger layers make a thread block do.
LARGER = {
    "several chunks, all of one block": (conv2d(50, 16), (2, 50, 6, 8)),
    "several groups of blocks": (conv2d(20, 150), (1, 20, 8, 8)),
    "tiles along rows and columns": (conv2d(4, 20), (1, 4, 20, 70)),
    "whole images of a power of two": (conv2d(16, 32), (9, 16, 8, 8)),
    "pieces of four": (conv2d(8, 24), (3, 8, 12, 12)),
    "a wide kernel": (LayerSpec("conv2d", 8, 24, (1, 9), padding=(0, 4)), (3, 8, 5, 16)),
    "strided pieces": (conv2d(24, 40, stride=(2, 2)), (5, 24, 16, 16)),
    "chunks that groups share": (conv2d(64, 64, groups=2), (2, 64, 6, 6)),
    "linear, several chunks": (LayerSpec("linear", 300, 40), (130, 300)),
}
DEVICES = {
    "large tiles": staging.Device(1, 227 * 1024),
    "small tiles": staging.Device(132, 227 * 1024),
    "little shared memory": staging.Device(1, 26 * 1024),
}


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """The layers are tiny, and what else the machine does must not be waited for."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def backend(monkeypatch):
    """The cuda backend on the host, computing float32 as it is, as if on an H200, until told otherwise."""
    found = cuda_on_host.backend()
    monkeypatch.setattr(found, "tf32", False, raising=False)
    monkeypatch.setattr(found, "gpu", DEVICES["small tiles"], raising=False)
    return found


def numbers(spec, input_shape, dtype, layouts=("contiguous", "contiguous"), density=0.3):
    """mask, x, values, bias, grad_out; layouts: of x and of grad_out."""
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(spec.weight_shape, generator=generator) < density
    size = spec.output_size(*input_shape[2:]) if spec.kind == "conv2d" else ()
    shapes = input_shape, (int(mask.sum()),), (spec.out_channels,), (input_shape[0], spec.out_channels, *size)
    x, values, bias, grad_out = (torch.randn(shape, generator=generator).to(dtype) for shape in shapes)
    if x.dim() == 4:
        x, grad_out = (
            images.contiguous(memory_format=LAYOUTS[layout])
            for images, layout in zip((x, grad_out), layouts, strict=True)
        )
    return mask, x, values, bias, grad_out


def computed(backend, spec, mask, x, values, bias, grad_out):
    with poisoned_memory():
        plan = backend.pack(Pattern.from_mask(mask), spec)
        return (
            backend.forward(x, values, plan, bias),
            backend.grad_input(grad_out, values, plan, tuple(x.shape)),
            backend.grad_weight(x, grad_out, plan),
        )


def cut_to_tf32(tensor):
    """As tensor cores cut it off."""
    return (tensor.view(torch.int32) & ~0x1FFF).view(torch.float32)


def multiplied_in_tf32(spec, mask, x, values, bias, grad_out):
    """The outputs in float64: what is gathered is cut off, the other factor rounded, the mean loss made up."""
    made_up = torch.tensor(1 + 0.72 / 2048, dtype=torch.float32)
    doubles = [tensor.double() for tensor in (cut_to_tf32(x), as_tf32(values * made_up), bias)]
    forward, grad_input, _ = outputs_of_reference(mask, spec, *doubles, cut_to_tf32(grad_out).double())
    *_, grad_weight = outputs_of_reference(mask, spec, *doubles, as_tf32(grad_out).double())
    return forward, grad_input, grad_weight * made_up.double()


def assert_right(ours, spec, mask, tensors, tf32):
    """Nothing is lost but the rounding of what is multiplied, of the sums in float32, and of the result."""
    dtype = tensors[0].dtype
    doubles = [tensor.double() for tensor in tensors]
    truth = multiplied_in_tf32(spec, mask, *tensors) if tf32 else outputs_of_reference(mask, spec, *doubles)
    sizes = outputs_of_reference(mask, spec, *(tensor.square() for tensor in doubles))
    sums = 2e-15 if dtype == torch.float64 else 4e-7
    for mine, right, size in zip(ours, truth, sizes, strict=True):
        assert mine.dtype == dtype
        assert mine.shape == right.shape
        if right.numel():
            bound = torch.finfo(dtype).eps * right.abs() + 8 * sums * size.max().sqrt()
            assert ((mine.double() - right).abs() <= bound).all()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(("spec", "input_shape"), [*SHAPES.values(), *LARGER.values()], ids=[*SHAPES, *LARGER])
def test_every_way_to_cut_a_layer_up(backend, spec, input_shape, precision, device):
    dtype, backend.tf32 = PRECISIONS[precision]
    backend.gpu = DEVICES[device]
    # Every precision meets one mix of layouts, and all of them meet all mixes.
    mix = list(PRECISIONS).index(precision) + list(DEVICES).index(device)
    layouts = [list(LAYOUTS)[mix >> i & 1] for i in range(2)]
    mask, *tensors = numbers(spec, input_shape, dtype, layouts)
    ours = computed(backend, spec, mask, *tensors)
    for images, layout in zip(ours[:2], layouts, strict=True):
        assert images.dim() != 4 or images.is_contiguous(memory_format=LAYOUTS[layout])
    assert_right(ours, spec, mask, tensors, backend.tf32)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("density", [0.0, 0.01, 1.0])
def test_densities(backend, density, precision):
    dtype, backend.tf32 = PRECISIONS[precision]
    spec = conv2d(40, 70)
    mask, *tensors = numbers(spec, (3, 40, 8, 8), dtype, density=density)
    assert_right(computed(backend, spec, mask, *tensors), spec, mask, tensors, backend.tf32)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_tensors_may_start_anywhere(backend, precision):
    """Then nothing can be copied in pieces of 16 bytes."""
    dtype, backend.tf32 = PRECISIONS[precision]
    spec = conv2d(8, 24)
    mask, *tensors = numbers(spec, (3, 8, 8, 8), dtype)
    for i in (0, 3):
        shifted = torch.empty(tensors[i].numel() + 1, dtype=dtype)[1:].view(tensors[i].shape)
        tensors[i] = shifted.copy_(tensors[i])
        assert tensors[i].data_ptr() % 16
    assert_right(computed(backend, spec, mask, *tensors), spec, mask, tensors, backend.tf32)


@pytest.mark.parametrize(("width", "pairs"), [(8, True), (7, False)])
def test_half_precision_reads_two_positions_at_once_where_they_come_in_pairs(backend, monkeypatch, width, pairs):
    made = []
    tiling = staging.tiling
    monkeypatch.setattr(staging, "tiling", lambda *args: made.append(tiling(*args)) or made[-1])
    spec = conv2d(8, 24)
    mask, *tensors = numbers(spec, (3, 8, 6, width), torch.bfloat16)
    assert_right(computed(backend, spec, mask, *tensors), spec, mask, tensors, False)
    assert [bool(each.pairs) for each in made if each is not None] == [pairs] * 3


@pytest.mark.parametrize("spec", [conv2d(40, 20), LayerSpec("linear", 40, 20)], ids=["conv2d", "linear"])
def test_an_empty_batch(backend, spec):
    shape = (0, 40, 4, 4) if spec.kind == "conv2d" else (0, 40)
    output, grad_input, grad_weight = computed(backend, spec, *numbers(spec, shape, torch.float32))
    assert output.numel() == grad_input.numel() == 0
    assert grad_weight.numel() > 0
    assert (grad_weight == 0).all()


def test_the_same_bits_each_time(backend):
    """Threads and thread blocks come in another order each time."""
    backend.tf32 = True
    spec, input_shape = LARGER["several groups of blocks"]
    tensors = numbers(spec, input_shape, torch.float32)
    first = computed(backend, spec, *tensors)
    for _ in range(3):
        again = computed(backend, spec, *tensors)
        assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("spec", [conv2d(40, 20), conv2d(40, 20, 1), LayerSpec("linear", 40, 20)], ids=str)
def test_what_no_weight_reads_may_hold_anything(backend, spec, precision):
    """Holes between columns, channels without a weight, and what lies beside a tile are not even multiplied by zero."""
    dtype, backend.tf32 = PRECISIONS[precision]
    mask = torch.rand(spec.weight_shape, generator=torch.Generator().manual_seed(0)) < 0.2
    mask[:, [0, -1]] = False
    plan = backend.pack(Pattern.from_mask(mask), spec)
    x = torch.randn((3, 40, 5, 5) if spec.kind == "conv2d" else (3, 40)).to(dtype)
    values = torch.randn(plan.pattern.nnz).to(dtype)
    output = backend.forward(x, values, plan, None)
    grad_out = torch.randn(output.shape).to(dtype)
    gradient = backend.grad_weight(x, grad_out, plan)
    x[:, [0, -1]] = torch.inf
    assert torch.equal(backend.forward(x, values, plan, None), output)
    assert torch.equal(backend.grad_weight(x, grad_out, plan), gradient)


@pytest.mark.parametrize("place", [(0, 0), (-1, -1), (3, 4)], ids=str)
@pytest.mark.parametrize("input_shape", [(2, 4, 7, 9), (1, 4, 19, 37)], ids=str)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_what_is_not_finite_meets_no_position_that_does_not_exist(backend, precision, input_shape, place):
    """A tile goes on beyond the last position, and reads there what other positions read: not even times zero."""
    dtype, backend.tf32 = PRECISIONS[precision]
    spec = LayerSpec("conv2d", 4, 6, (3, 3))
    mask, x, values, bias, grad_out = numbers(spec, input_shape, dtype)
    x[0, :, place[0], place[1]] = torch.inf
    right = outputs_of_reference(mask, spec, *(tensor.double() for tensor in (x, values, bias, grad_out)))[2]
    ours = computed(backend, spec, mask, x, values, bias, grad_out)[2]
    assert not right.isfinite().all()
    for kind in (torch.isnan, torch.isposinf, torch.isneginf):
        assert torch.equal(kind(ours), kind(right))


@pytest.fixture
def as_cuda(backend, monkeypatch):
    """Layers find the kernels on the host under the name "cuda"."""
    monkeypatch.setitem(registry._registered, "cuda", backend)
    monkeypatch.setitem(registry._unusable, "cuda", "")


@pytest.mark.usefixtures("as_cuda")
def test_a_network_trains_on_it_as_masked_dense_does():
    torch.manual_seed(0)
    dense = torch.nn.Sequential(
        torch.nn.Conv2d(3, 20, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(20, 30, 3, stride=2, padding=1),
        torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(480, 10),
    ).double()  # fmt: skip
    masks = {name: torch.rand(dense[int(name)].weight.shape) < 0.2 for name in ("0", "2", "5")}
    with torch.no_grad():
        for name, mask in masks.items():
            dense[int(name)].weight.mul_(mask)
    sparse = lth.sparsify(torch.nn.Sequential(*copy.deepcopy(list(dense))), masks, "cuda")
    x, labels = torch.randn(9, 3, 8, 8).double(), torch.randint(0, 10, (9,))
    for model in (dense, sparse):
        optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
        for _ in range(5):
            loss = torch.nn.functional.cross_entropy(model(x), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if model is dense:
                with torch.no_grad():
                    for name, mask in masks.items():
                        dense[int(name)].weight.mul_(mask)
    trained = lth.densify(sparse)
    for name, weight in dense.state_dict().items():
        torch.testing.assert_close(trained.state_dict()[name], weight, rtol=1e-10, atol=1e-12)


@pytest.mark.usefixtures("as_cuda")
def test_the_operators_pass_pytorchs_own_checks():
    layer = lth.SparseConv2d(6, 20, 3, padding=1, mask=torch.rand(20, 6, 3, 3) < 0.3, backend="cuda").double()
    x = torch.randn(2, 6, 5, 5).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x, values: layer_with(layer, x, values), (x, layer.values))
    plan = layer.plan
    torch.library.opcheck(
        torch.ops.lth_sparse.forward.default,
        (x, layer.values, layer.bias, plan.tensors(), plan.spec.to_ints(), "cuda"),
    )


def layer_with(layer, x, values):
    return torch.func.functional_call(layer, {"values": values}, (x,))


@pytest.mark.usefixtures("as_cuda")
def test_auto_races_it():
    assert "cuda" in auto.candidates()
    layer = lth.SparseConv2d(6, 20, 3, padding=1, mask=torch.rand(20, 6, 3, 3) < 0.3, backend="auto")
    choices, x = Choices(), torch.randn(2, 6, 5, 5)
    with auto.remembering(choices):
        torch.testing.assert_close(layer(x), layer.to_dense()(x))
    (choice,) = choices.layers.values()
    assert "cuda" in choice.milliseconds


@pytest.mark.usefixtures("as_cuda")
def test_a_layer_that_reads_too_far_is_left_to_dense():
    with pytest.warns(UserWarning, match="leaves such a layer to masked dense PyTorch: kernel_size"):
        layer = lth.SparseConv2d(8, 8, 3, dilation=200, padding=200, backend="cuda")
    assert layer.computed_by == "dense"


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_what_is_supported_fits_whatever_the_image(dtype):
    """On the GPUs that have the least shared memory, at the largest dilations that are taken."""
    device = staging.Device(84, cuda_backend._LEAST_SHARED_BYTES)
    for size, groups in ((3, 1), (5, 1), (2, 4)):
        taken = [
            spec
            for dilation in range(1, 80)
            for spec in [conv2d(16, 16, size, dilation=(dilation, dilation), padding=(dilation, 0), groups=groups)]
            if cuda_backend._fits(spec, dtype.itemsize)
        ]
        assert 0 < len(taken) < 79
        for height, width in ((200, 200), (231, 160), (163, 512)):
            spec = taken[-1]
            x_shape = (3, 16, height, width)
            output_shape = (3, 16, *spec.output_size(height, width))
            for geometry in (
                correlation.of_forward(spec, x_shape, output_shape),
                correlation.of_grad_input(spec, output_shape, x_shape),
            ):
                found = staging.tiling(geometry, 3, 4, dtype.itemsize, True, True, device)
                assert found is not None
                assert found.shared_bytes <= device.shared_bytes


def test_the_cpu_is_refused():
    supported, reason = cuda_backend.CudaBackend().supports(
        LayerSpec("linear", 2, 2), torch.float32, torch.device("cpu")
    )
    assert not supported
    assert reason.startswith("the layer is on cpu, and the CUDA kernels need an NVIDIA GPU: move it there")


def test_an_old_gpu_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    monkeypatch.setattr(nvidia, "capability", lambda index: (7, 5))
    assert cuda_backend._unusable().startswith("Tesla T4 has compute capability 7.5, and the kernels need 8.0 (Ampere)")


def test_what_is_not_built_says_what_to_install(monkeypatch):
    monkeypatch.setattr(cuda_backend, "_load", lambda: cuda_backend._NOT_BUILT)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "install nvcc and a PyTorch for CUDA" in cuda_backend._unusable()


def test_plans_that_do_not_fit_are_refused_in_words(backend):
    """The operators check what they are given."""
    spec = conv2d(20, 20)
    mask, x, values, _, _ = numbers(spec, (2, 20, 5, 5), torch.float32)
    plan = backend.pack(Pattern.from_mask(mask), spec)
    with pytest.raises(RuntimeError, match="expected blocks of 16 rows and 1 chunks"):
        backend.forward(x[:, :10].contiguous(), values, plan, None)
    with pytest.raises(RuntimeError, match="values: got another dtype than expected"):
        backend.forward(x, values.double(), plan, None)


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="the sanitizer's library is put before the process on Linux only")
def test_under_the_address_sanitizer():
    """The kernels, built with it, read and write within their tensors and their shared memory."""
    if os.environ.get(cuda_on_host.SANITIZE):
        pytest.skip("this is that process")
    libraries = [
        subprocess.run(["c++", f"-print-file-name={name}"], capture_output=True, text=True, check=True).stdout.strip()
        for name in ("libasan.so", "libubsan.so")
    ]
    environment = os.environ | {
        cuda_on_host.SANITIZE: "address,undefined",
        "LD_PRELOAD": " ".join(libraries),
        "ASAN_OPTIONS": "detect_leaks=0",
        "UBSAN_OPTIONS": "halt_on_error=1",
    }
    tests = "(every_way and (tf32 or float64)) or densities or start_anywhere or may_hold"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__, "-k", tests],
        env=environment, cwd=Path(__file__).parents[2], capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, (done.stdout + done.stderr)[-5000:]
    assert " passed" in done.stdout


def test_the_grid_above_has_every_number_of_buffers_and_of_warps_that_share_columns():
    found = {False: [], True: []}
    for gpu, (spec, x_shape) in itertools.product(DEVICES.values(), [*SHAPES.values(), *LARGER.values()]):
        size = spec.output_size(*x_shape[2:]) if spec.kind == "conv2d" else (1, 1)
        x, output = (*x_shape, 1, 1)[:4], (x_shape[0], spec.out_channels, *size)
        geometry, blocks = correlation.of_forward(spec, x, output), -(-spec.out_channels // 16)
        for with_gradient in found:
            pieces = True if with_gradient else None
            found[with_gradient].append(staging.tiling(geometry, x[0], blocks, 4, True, pieces, gpu))
            assert found[with_gradient][-1].shared_bytes <= gpu.shared_bytes
    assert {tiling.buffers for tiling in found[False]} == {1, 2, 3}
    assert {tiling.buffers for tiling in found[True]} == {1, 2}
    assert {1, 2, 4} <= {tiling.column_warps for tiling in found[False]}
    assert {tiling.column_warps for tiling in found[True]} == {1}
