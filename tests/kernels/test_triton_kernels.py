"""The Triton kernels: every way in which they cut a layer up, their precisions, and what they refuse.

Without a GPU they run in Triton's interpreter; tests/backends/test_backends.py holds them to its grid, too. What only a
GPU can show is in tests/gpu/test_gpu.py.
"""

import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import lth_sparse as lth
from lth_sparse import reference
from lth_sparse.backends import registry
from lth_sparse.kernels import configurations
from lth_sparse.plans.layer_spec import LayerSpec
from lth_sparse.plans.pattern import Pattern
from tests.backends.test_backends import BATCH_SIZES, DENSITIES, conv2d_cases, linear_cases, poisoned_memory
from tests.layer_shapes import SHAPES, conv2d

pytestmark = pytest.mark.skipif(
    bool(registry.backends()["triton"]), reason=f"triton cannot be used here: {registry.backends()['triton']}"
)
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
INTERPRETED = DEVICE.type == "cpu"
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
# Of a result, relative to its largest entry. The interpreter's bfloat16 is wrong, so that is for a GPU.
TOLERANCE = {torch.float64: 1e-14, torch.float32: 4e-6, torch.float16: 1e-3}


@pytest.fixture(autouse=True)
def exact_float32():
    """On a GPU float32 is multiplied as it is, which PyTorch's convolutions by default do not do."""
    settings = torch.backends.cudnn.conv, torch.backends.cuda.matmul
    before = [setting.fp32_precision for setting in settings]
    for setting in settings:
        setting.fp32_precision = "ieee"
    yield
    for setting, value in zip(settings, before, strict=True):
        setting.fp32_precision = value


def computed(spec, input_shape, dtype, layout="contiguous", density=0.3, seed=0):
    """What the backend makes of a layer, and the float64 truth for the same numbers."""
    backend, generator = registry.get("triton"), torch.Generator().manual_seed(seed)
    mask = torch.rand(spec.weight_shape, generator=generator) < density
    x, values, bias = (
        torch.randn(shape, generator=generator).to(dtype)
        for shape in (input_shape, (int(mask.sum()),), (spec.out_channels,))
    )
    output = reference.forward(x.double(), values.double(), bias.double(), mask, spec)
    grad_out = torch.randn(output.shape, generator=generator).to(dtype)
    truth = (
        output,
        reference.grad_input(grad_out.double(), values.double(), mask, spec, tuple(input_shape)),
        reference.grad_weight(x.double(), grad_out.double(), mask, spec),
    )
    if x.dim() == 4:
        x, grad_out = (images.contiguous(memory_format=LAYOUTS[layout]) for images in (x, grad_out))
    x, values, bias, grad_out = (tensor.to(DEVICE) for tensor in (x, values, bias, grad_out))
    with poisoned_memory():
        plan = backend.pack(Pattern.from_mask(mask.to(DEVICE)), spec)
        ours = (
            backend.forward(x, values, plan, bias),
            backend.grad_input(grad_out, values, plan, tuple(input_shape)),
            backend.grad_weight(x, grad_out, plan),
        )
    return [each.cpu() for each in ours], truth


def assert_right(ours, truth, dtype, layout="contiguous"):
    for mine, expected in zip(ours, truth, strict=True):
        assert mine.dtype == dtype
        assert mine.shape == expected.shape
        assert mine.dim() != 4 or mine.is_contiguous(memory_format=LAYOUTS[layout])
        if expected.numel():
            assert (mine - expected).abs().max() <= TOLERANCE[dtype] * expected.abs().max() + 1e-30


# On a GPU each example is compiled.
@settings(max_examples=60 if INTERPRETED else 5, deadline=None, derandomize=True, database=None)
@given(case=st.one_of(conv2d_cases(), linear_cases()), density=DENSITIES, seed=st.integers(0, 99), batch=BATCH_SIZES)
def test_float16_is_as_exact_as_its_rounding(case, density, seed, batch):
    """The products of float16 numbers are exact in float32, where they are added up: what is left is one rounding."""
    spec, input_shape = case
    ours, truth = computed(spec, (batch, *input_shape[1:]), torch.float16, density=density, seed=seed)
    assert_right(ours, truth, torch.float16)


@pytest.fixture
def small_tiles(monkeypatch):
    """Blocks, steps, tiles and parts as small as on a GPU, or smaller, so that tiny layers have several of each."""
    table = {row: dict(entry) for row, entry in configurations.table().items()}
    for entry in table.values():
        entry["blocks"] = {"block_rows": 16, "step_columns": 32}
        entry["least_programs"] = 12
        entry["launches"] = {
            key: launch | {"block_positions": 32, "positions_first": "channels_last" in key}
            for key, launch in entry["launches"].items()
        }
    monkeypatch.setattr(configurations, "table", lambda: table)
    for cached in (configurations.launch_of, configurations.parts_of):
        cached.cache_clear()
    yield
    for cached in (configurations.launch_of, configurations.parts_of):
        cached.cache_clear()


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("spec", "input_shape"), SHAPES.values(), ids=SHAPES)
def test_every_way_to_cut_a_layer_up(spec, input_shape, layout):
    ours, truth = computed(spec, input_shape, torch.float32, layout)
    assert_right(ours, truth, torch.float32, layout)


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize(("spec", "input_shape"), [SHAPES["several steps"], SHAPES["linear"]], ids=["conv2d", "linear"])
def test_the_same_bits_each_time(spec, input_shape):
    first, _ = computed(spec, input_shape, torch.float32)
    second, _ = computed(spec, input_shape, torch.float32)
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("spec", [conv2d(9, 20), conv2d(20, 20, 1), LayerSpec("linear", 40, 20)], ids=str)
def test_what_no_weight_reads_may_hold_anything(spec):
    """Columns that fill a step up, and channels without a weight, are not read: not even to be multiplied by zero."""
    mask = torch.rand(spec.weight_shape, generator=torch.Generator().manual_seed(0)) < 0.2
    mask[:, [0, -1]] = False
    backend, plan = registry.get("triton"), registry.get("triton").pack(Pattern.from_mask(mask.to(DEVICE)), spec)
    x = torch.randn((3, spec.in_channels, 5, 5) if spec.kind == "conv2d" else (3, spec.in_channels), device=DEVICE)
    values = torch.randn(plan.pattern.nnz, device=DEVICE)
    expected = backend.forward(x, values, plan, None)
    grad_out = torch.randn_like(expected)
    gradient = backend.grad_weight(x, grad_out, plan)
    x[:, [0, -1]] = torch.inf
    assert torch.equal(backend.forward(x, values, plan, None), expected)
    assert torch.equal(backend.grad_weight(x, grad_out, plan), gradient)


@pytest.mark.parametrize(
    ("images", "pixels", "steps"), [(128, 1024, 18), (1, 1, 1), (7, 49, 3), (3, 50_000, 5), (64, 4, 900)]
)
@pytest.mark.parametrize("row", configurations.table())
def test_parts_cover_every_position_once(row, images, pixels, steps):
    parts = configurations.parts_of(row, 64, images, pixels, steps)
    seen = torch.zeros(images, pixels, dtype=torch.int64)
    assert parts.images_at_once * parts.pixels_at_once == 64
    for part in range(parts.count):
        tile, image = part % parts.tile_parts * parts.tiles_each, part // parts.tile_parts * parts.images_each
        first, last = tile * parts.pixels_at_once, (tile + parts.tiles_each) * parts.pixels_at_once
        seen[image : image + parts.images_each, first:last] += 1
    assert (seen == 1).all()


def test_every_configuration_is_in_the_table():
    for row, entry in configurations.table().items():
        assert entry["blocks"]["step_columns"] % 32 == 0
        for operation in configurations.OPERATIONS:
            for layout in configurations.LAYOUTS:
                for precision in configurations.PRECISIONS:
                    launch = configurations.launch_of(row, operation, layout, precision, 10**6, 10)
                    assert launch.block_positions >= configurations.FEWEST_POSITIONS


@pytest.mark.parametrize(
    ("capability", "row"), [((8, 0), "sm_80"), ((8, 9), "sm_80"), ((9, 0), "sm_90"), ((12, 0), "sm_90")]
)
def test_each_gpu_has_a_row(capability, row):
    assert configurations.architecture(capability) == row


@pytest.fixture
def precisions(monkeypatch):
    """The precisions that the kernels are asked for."""
    from lth_sparse.kernels import correlation

    asked = []
    correlate = correlation.correlate
    monkeypatch.setattr(correlation, "correlate", lambda *args: asked.append(args[-1]) or correlate(*args))
    return asked


@pytest.mark.parametrize("allowed", [True, False])
@pytest.mark.parametrize("kind", ["conv2d", "linear"])
def test_tf32_is_used_where_pytorch_allows_it(precisions, kind, allowed):
    convolutions, products = torch.backends.cudnn.conv, torch.backends.cuda.matmul
    setting, spec, shape = (
        (convolutions, conv2d(2, 3), (1, 2, 4, 4))
        if kind == "conv2d"
        else (products, LayerSpec("linear", 4, 3), (2, 4))
    )
    setting.fp32_precision = "tf32" if allowed else "ieee"
    computed(spec, shape, torch.float32)
    assert precisions == ["tf32" if allowed else "ieee"] * 2
    computed(spec, shape, torch.float16)
    assert precisions[2:] == ["ieee"] * 2


def test_a_layer_that_the_kernels_do_not_take_is_left_to_dense_and_the_reason_said_once(recwarn):
    layers = [lth.SparseConv2d(1, 2, (17, 14), backend="triton", device=DEVICE) for _ in range(2)]
    said = [str(warning.message) for warning in recwarn if "leaves such a layer" in str(warning.message)]
    assert said == [
        'backend "triton" leaves such a layer to masked dense PyTorch: kernel_size is (17, 14), and the Triton '
        "kernels take rows and columns that add up to 30 at most"
    ]
    x = torch.randn(2, 1, 20, 20, device=DEVICE)
    for layer in layers:
        assert (layer.backend, layer.computed_by) == ("triton", "dense")
        torch.testing.assert_close(layer(x), layer.to_dense()(x))


def test_auto_does_not_race_what_is_interpreted():
    from lth_sparse.backends.auto import candidates

    assert ("triton" in candidates()) == (not INTERPRETED)


def outside(*lines, **environment):
    """Runs a program in a new process, without the interpreter unless it is asked for."""
    variables = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"} | environment
    return subprocess.run([sys.executable, "-c", "\n".join(lines)], env=variables, capture_output=True, text=True)


def test_cpu_tensors_without_the_interpreter_are_refused_by_the_layer():
    done = outside(
        "import torch, lth_sparse as lth",
        "from lth_sparse.backends import registry",
        "registry._unusable['triton'] = ''",  # As on a machine with a GPU.
        "layer = lth.SparseLinear(3, 2, backend='triton')",
        "try: layer(torch.ones(1, 3))",
        "except lth.backends.__globals__['BackendError'] as error: print(error)",
    )
    assert (
        "the layer is on cpu, and the Triton kernels need an NVIDIA GPU: move it there, choose another backend"
        in done.stdout
    ), done.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_machine_without_a_gpu_says_what_to_do():
    done = outside("import lth_sparse as lth; print(lth.backends()['triton'])")
    assert done.stdout.startswith("there is no NVIDIA GPU; set TRITON_INTERPRET=1 before Python starts"), done.stderr
    done = outside("import lth_sparse as lth; print(lth.backends()['triton'])", TRITON_INTERPRET="1")
    assert done.stdout == "\n", done.stderr


def test_a_machine_without_triton_says_what_to_install(monkeypatch):
    from lth_sparse.backends import triton

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert triton._unusable() == "Triton is not installed: run 'pip install triton'"


def test_an_old_gpu_is_named(monkeypatch):
    from lth_sparse.backends import nvidia, triton

    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    monkeypatch.setattr(nvidia, "capability", lambda index: (7, 5))
    expected = "Tesla T4 has compute capability 7.5, and the kernels need 8.0 (Ampere) or newer"
    assert triton._unusable() == expected
    backend = registry.get("triton")
    assert backend.refuses(torch.device("cuda:0")) == expected
    assert backend.supports(LayerSpec("linear", 2, 2), torch.float32, torch.device("cuda:0")) == (False, expected)


def test_a_result_with_too_many_elements_is_refused():
    spec = LayerSpec("conv2d", 1, 64)
    plan = registry.get("triton").pack(Pattern.from_mask(torch.ones(spec.weight_shape, dtype=torch.bool)), spec)
    x = torch.ones(1).expand(2**15, 1, 32, 32)
    with pytest.raises(ValueError, match=r"2147483648 elements, expected fewer than 2\^31: give fewer images"):
        registry.get("triton").forward(x, torch.ones(64), plan, None)


def test_a_layer_without_images_or_weights_costs_no_launch():
    backend, spec = registry.get("triton"), conv2d(2, 3)
    plan = backend.pack(Pattern.from_mask(torch.zeros(spec.weight_shape, dtype=torch.bool, device=DEVICE)), spec)
    x = torch.randn(2, 2, 4, 4, device=DEVICE)
    values, bias = torch.empty(0, device=DEVICE), torch.randn(3, device=DEVICE)
    output = backend.forward(x, values, plan, bias)
    assert torch.equal(output, bias[:, None, None].expand(2, 3, 4, 4))
    assert backend.grad_weight(x, output, plan).shape == (0,)
    plan = backend.pack(Pattern.from_mask(torch.ones(spec.weight_shape, dtype=torch.bool, device=DEVICE)), spec)
    assert backend.forward(x[:0], torch.ones(54, device=DEVICE), plan, bias).shape == (0, 3, 4, 4)
    assert not backend.grad_weight(x[:0], output[:0], plan).any()


@pytest.mark.parametrize("kind", ["conv2d", "linear"])
def test_a_bias_may_have_any_strides(kind):
    spec, shape = (conv2d(2, 6), (1, 2, 4, 4)) if kind == "conv2d" else (LayerSpec("linear", 4, 6), (2, 4))
    backend = registry.get("triton")
    plan = backend.pack(Pattern.from_mask(torch.ones(spec.weight_shape, dtype=torch.bool, device=DEVICE)), spec)
    x, values = torch.randn(shape, device=DEVICE), torch.randn(plan.pattern.nnz, device=DEVICE)
    for bias in (torch.arange(12.0, device=DEVICE)[::2], torch.ones(1, device=DEVICE).expand(6)):
        expected = backend.forward(x, values, plan, bias.contiguous())
        assert torch.equal(backend.forward(x, values, plan, bias), expected)


def test_layers_train_with_it():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(64, 3))
    masks = {"0": torch.rand(4, 1, 3, 3) < 0.5, "3": torch.rand(3, 64) < 0.2}
    for name, mask in masks.items():
        model.get_submodule(name).weight.data *= mask
    import copy

    sparse = lth.sparsify(copy.deepcopy(model), masks, "triton").to(DEVICE)
    x, labels = torch.randn(5, 1, 6, 6), torch.tensor([0, 1, 2, 1, 0])
    losses = []
    for network, device in ((model, torch.device("cpu")), (sparse, DEVICE)):
        optimizer = torch.optim.Adam(network.parameters(), 1e-2)
        for _ in range(4):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(network(x.to(device)), labels.to(device))
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                for name, mask in masks.items():
                    if network is model:
                        model.get_submodule(name).weight *= mask
        losses.append(loss.item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
