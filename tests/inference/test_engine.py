"""The engine of inference: each of its operations beside PyTorch's in float64, and whole networks in it."""

import copy
import os
import pickle
import subprocess
import sys
import threading

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

import lth_sparse as lth
from lth_sparse.inference import engine
from lth_sparse.inference.engine import Kind, Program
from lth_sparse.inference.segments import Segment
from tests.poison import poisoned_memory
from tests.threads import at_threads

pytestmark = pytest.mark.skipif(bool(engine.refuses()), reason=engine.refuses())

BATCHES = (1, 5, 8, 16, 33)
"""Single images, groups of eight and of sixteen, whole and not."""
TOLERANCE = 1e-5


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def close(given, expected):
    assert given.shape == expected.shape
    assert (given.double() - expected).abs().max() <= TOLERANCE * expected.abs().max().clamp(min=1e-30)


def window(weight, stride=1, padding=0, dilation=1, groups=1):
    pair = nn.modules.utils._pair
    out_channels, in_channels, *kernel = weight.shape
    return (in_channels * groups, out_channels, *kernel, *pair(stride), *pair(padding), *pair(dilation), groups)


def pruned(*shape, density):
    weight = torch.randn(shape) * (torch.rand(shape) < density)
    if density < 0.9:
        weight[0] = 0  # An output without live weights.
    return weight


def run(program, *inputs):
    """The first output, in memory that was full of NaN."""
    network = program.made()
    with poisoned_memory():
        (result, *_) = network(list(inputs))
    return result


LAYERS = {
    "3x3": ((24, 10, 3, 3), {"padding": 1}),
    "3x3, one row": ((5, 3, 3, 3), {"padding": (1, 0)}),
    "1x1": ((40, 33, 1, 1), {}),
    "1x1, stride 2": ((17, 9, 1, 1), {"stride": 2}),
    "3x3, stride 2": ((12, 7, 3, 3), {"padding": 1, "stride": 2}),
    "3x3, strides 3 and 1": ((6, 5, 3, 3), {"padding": 1, "stride": (3, 1)}),
    "5x5": ((9, 4, 5, 5), {"padding": 2}),
    "5x3": ((9, 4, 5, 3), {"padding": (2, 1)}),
    "no padding": ((8, 6, 3, 3), {}),
    "more padding": ((8, 6, 3, 3), {"padding": 2}),
    "dilated": ((8, 6, 3, 3), {"padding": 2, "dilation": 2}),
    "groups": ((12, 3, 3, 3), {"padding": 1, "groups": 4}),
    "depthwise": ((20, 1, 3, 3), {"padding": 1, "groups": 20}),
    "depthwise, stride 2": ((20, 1, 3, 3), {"padding": 1, "stride": 2, "groups": 20}),
    "7x7, stride 2": ((10, 3, 7, 7), {"padding": 3, "stride": 2}),
}
SIZES = ((7, 7), (14, 13), (8, 16), (5, 33), (30, 1))


@pytest.mark.parametrize("density", [0.1, 1.0])
@pytest.mark.parametrize("layer", LAYERS)
def test_a_convolution_is_that_of_pytorch(layer, density):
    shape, options = LAYERS[layer]
    channels = shape[1] * options.get("groups", 1)
    for height, width in SIZES:
        weight, bias = pruned(*shape, density=density), torch.randn(shape[0])
        try:
            torch.nn.functional.conv2d(torch.zeros(1, channels, height, width), weight, **options)
        except RuntimeError:
            continue  # The kernel is larger than the image.
        for batch in BATCHES:
            x = torch.randn(batch, channels, height, width)
            expected = F.conv2d(x.double(), weight.double(), bias.double(), **options)
            program = Program()
            value = program.input("x", x.shape[1:])
            shape_out = tuple(expected.shape[1:])
            program.output(program.convolution("layer", value, weight, bias, window(weight, **options), shape_out))
            close(run(program, x), expected)


def test_what_is_added_and_clamped_in_the_store():
    first, second = pruned(6, 5, 3, 3, density=0.3), pruned(6, 6, 3, 3, density=0.3)
    for batch in BATCHES:
        x = torch.randn(batch, 5, 9, 11)
        program = Program()
        value = program.input("x", (5, 9, 11))
        kept = program.convolution("first", value, first, None, window(first, padding=1), (6, 9, 11), bounds=(0, 6))
        program.output(
            program.convolution("second", kept, second, None, window(second, padding=1), (6, 9, 11), kept, (-0.5, 0.5))
        )
        hidden = F.relu6(F.conv2d(x.double(), first.double(), padding=1))
        close(run(program, x), (F.conv2d(hidden, second.double(), padding=1) + hidden).clamp(-0.5, 0.5))


POOLS = {
    "2x2": (2, 2, 0),
    "3x3, stride 2": (3, 2, 1),
    "3x3, stride 1": (3, 1, 1),
    "2x3, stride 3": ((2, 3), 3, (1, 0)),
}


@pytest.mark.parametrize("greatest", [True, False])
@pytest.mark.parametrize("pool", POOLS)
def test_pools(pool, greatest):
    kernel, stride, padding = POOLS[pool]
    pair = nn.modules.utils._pair
    for batch in BATCHES:
        x = torch.randn(batch, 5, 9, 14) - 3  # So that a zero beyond the border would be the greatest.
        of_torch = F.max_pool2d if greatest else F.avg_pool2d
        expected = of_torch(x.double(), kernel, stride, padding)
        program = Program()
        value = program.input("x", (5, 9, 14))
        numbers = (5, 5, *pair(kernel), *pair(stride), *pair(padding), 1, 1, 5)
        kind = Kind.MAX_POOL if greatest else Kind.AVERAGE_POOL
        program.output(program.pool("pool", kind, value, numbers, tuple(expected.shape[1:])))
        close(run(program, x), expected)


def test_nan_goes_where_it_goes_in_pytorch():
    weight = pruned(4, 3, 3, 3, density=0.4)
    for batch in (1, 16):
        x = torch.randn(batch, 3, 10, 10)
        x[0, 1, 4, 5], x[0, 2, 9, 9] = torch.nan, torch.inf
        program = Program()
        value = program.input("x", (3, 10, 10))
        value = program.convolution(
            "layer", value, weight, None, window(weight, padding=1), (4, 10, 10), bounds=(0, None)
        )
        numbers = (4, 4, 3, 3, 2, 2, 1, 1, 1, 1, 4)
        program.output(program.pool("pool", Kind.MAX_POOL, value, numbers, (4, 5, 5)))
        live = weight.clone()
        unfolded = F.unfold(F.pad(x, (1, 1, 1, 1)).double(), 3)  # 0 * nan is nan in a dense product, and nothing here.
        rows = live.double().flatten(1)
        products = torch.where(rows[None, :, :, None] != 0, rows[None, :, :, None] * unfolded[:, None], 0.0)
        expected = F.max_pool2d(products.sum(2).unflatten(2, (10, 10)).relu(), 3, 2, 1)
        torch.testing.assert_close(run(program, x).double(), expected, equal_nan=True, rtol=1e-5, atol=1e-5)


def test_parts_are_computed_where_they_are_concatenated():
    weight = pruned(6, 4, 3, 3, density=0.5)
    for batch in BATCHES:
        x = torch.randn(batch, 4, 7, 9)
        program = Program()
        value = program.input("x", (4, 7, 9))
        part = program.convolution("part", value, weight, None, window(weight, padding=1), (6, 7, 9))
        both = program.concatenate("both", [part, value, part])
        all_of_it = program.concatenate("all", [value, both])
        program.output(program.add("sum", all_of_it, program.clamp("clamp", all_of_it, (0, 1))))
        one = F.conv2d(x.double(), weight.double(), padding=1)
        expected = torch.cat([x.double(), one, x.double(), one], 1)
        close(run(program, x), expected + expected.clamp(0, 1))


def test_the_average_over_all_pixels():
    for batch in BATCHES:
        x = torch.randn(batch, 9, 7, 5)
        program = Program()
        program.output(program.global_average("mean", program.input("x", (9, 7, 5))))
        close(run(program, x), x.double().mean((2, 3), keepdim=True))


NETWORKS = {
    "resnet18": (torchvision.models.resnet18, 64),
    "resnet50": (torchvision.models.resnet50, 45),
    "mobilenet_v2": (torchvision.models.mobilenet_v2, 64),
    "vgg16": (torchvision.models.vgg16, 33),
    "densenet121": (torchvision.models.densenet121, 40),
    "squeezenet": (torchvision.models.squeezenet1_1, 65),
    "googlenet": (lambda: torchvision.models.googlenet(init_weights=False, aux_logits=False), 64),
    "shufflenet": (torchvision.models.shufflenet_v2_x0_5, 64),
    "efficientnet": (torchvision.models.efficientnet_b0, 64),
    "regnet": (torchvision.models.regnet_y_400mf, 64),
}


def network_of(name, density=0.1):
    """A pruned network in eval mode, whose BatchNorms are like those of a trained one."""
    model = NETWORKS[name][0]()
    for each in model.modules():
        if isinstance(each, nn.BatchNorm2d):
            nn.init.uniform_(each.running_var, 0.5, 2.0)
            nn.init.normal_(each.running_mean, 0, 0.1)
    masks = {
        name: torch.rand_like(each.weight) < density
        for name, each in model.named_modules()
        if isinstance(each, nn.Conv2d) and each.in_channels > 3 and each.groups == 1
    }
    return lth.sparsify(model, masks).eval()


@pytest.mark.parametrize("name", NETWORKS)
def test_whole_networks(name):
    model, size = network_of(name), NETWORKS[name][1]
    fast = lth.for_inference(model)
    wide = copy.deepcopy(model).double()
    with torch.no_grad():
        for batch in (1, 3, 16):
            x = torch.randn(batch, 3, size, size)
            close(fast(x), wide(x.double()))
    (made,) = fast._by_sizes._made.values()
    assert any(isinstance(each, Segment) for each in made.modules())
    assert not any(isinstance(each, lth.SparseConv2d) for each in made.modules()) or name in ("efficientnet", "regnet")


class OddChannels(nn.Module):
    """A stem, a shortcut, a stride, a depthwise layer and a classifier, none of whose channels fill a vector."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 13, 7, 2, 3), nn.BatchNorm2d(13), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
        self.block = nn.Sequential(nn.Conv2d(13, 11, 3, padding=1), nn.ReLU(), nn.Conv2d(11, 13, 3, padding=1))
        self.down = nn.Sequential(nn.Conv2d(13, 21, 3, 2, 1), nn.BatchNorm2d(21), nn.ReLU6())
        self.depthwise = nn.Sequential(nn.Conv2d(21, 21, 3, padding=1, groups=21), nn.ReLU())
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(21, 7))

    def forward(self, images):
        stem = self.stem(images)
        return self.head(self.depthwise(self.down(F.relu(stem + self.block(stem)))))


@pytest.mark.parametrize("batch", [1, 2, 7, 11, 12, 33])
def test_images_of_32_to_333_pixels_in_batches_of_1_to_33(batch):
    model = OddChannels().eval()
    masks = {f"{name}.0": torch.rand_like(getattr(model, name)[0].weight) < 0.2 for name in ("block", "down")}
    model = lth.sparsify(model, masks)
    fast, wide = lth.for_inference(model), copy.deepcopy(model).double()
    with torch.no_grad():
        for height, width in ((32, 32), (33, 57), (97, 64), (131, 224), (333, 333)):
            x = torch.randn(batch, 3, height, width)
            close(fast(x), wide(x.double()))


def test_threads_that_call_one_network_get_its_numbers():
    fast, x = lth.for_inference(network_of("resnet18")), torch.randn(8, 3, 64, 64)
    expected, found = [fast(x[k : k + 1]) for k in range(8)], {}

    def call(k):
        for _ in range(3):
            found[k] = fast(x[k : k + 1])

    threads = [threading.Thread(target=call, args=(k,)) for k in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert all(torch.equal(found[k], expected[k]) for k in range(8))


def test_the_bits_are_those_of_one_thread():
    model = network_of("resnet18")
    images = [torch.randn(batch, 3, 64, 64) for batch in (1, 17)]

    def outputs():
        fast = lth.for_inference(model)
        return [fast(x) for x in images]

    first, *others = at_threads(outputs, 1, 2, 3, 7)
    for each in others:
        assert all(torch.equal(one, other) for one, other in zip(first, each, strict=True))


def test_copies_pickles_and_refreshed_weights():
    model, x = network_of("resnet18"), torch.randn(2, 3, 64, 64)
    fast = lth.for_inference(model)
    expected = fast(x)
    assert torch.equal(copy.deepcopy(fast)(x), expected)
    assert torch.equal(pickle.loads(pickle.dumps(fast))(x), expected)
    with torch.no_grad():
        model.fc.bias.add_(1)
        model.conv1.weight.mul_(2)
    assert torch.equal(fast(x), expected)
    fast.refresh()
    with torch.no_grad():
        close(fast(x), model(x).double())


def test_another_size_is_said(capsys):
    fast = lth.for_inference(network_of("resnet18"))
    fast(torch.randn(1, 3, 64, 64))
    fast(torch.randn(9, 3, 64, 64))
    assert capsys.readouterr().err == ""
    fast(torch.randn(2, 3, 40, 56))
    assert "made again, for 2x3x40x56" in capsys.readouterr().err


HOSTILE = {
    "ends in the middle": ([1, 3], []),
    "expected 1 or more": ([1, 3, 0, 4, 0], []),
    "is too large": ([1, 3, 2**30, 2**30, 0], []),
    "expected two for each": ([1, 3, 4, 4, 1, 0, 0], []),
    "is used before": ([2, 3, 4, 4, 3, 4, 4, 1, 7, 1, 0], [0, 1]),
    "is computed twice": ([1, 3, 4, 4, 2, 0, 0, 0, 0], [0, 1, 0, 1]),
    "there is more of it": ([1, 3, 4, 4, 1, 0, 0, 9], [0, 1]),
}


@pytest.mark.parametrize("sentence", HOSTILE)
def test_a_program_that_makes_no_sense_is_refused(sentence):
    numbers, bounds = HOSTILE[sentence]
    nothing = torch.zeros(0, dtype=torch.int32)
    with pytest.raises(RuntimeError, match=sentence):
        torch.ops.lth_sparse_cpu.inference_network(numbers, bounds, nothing, nothing, torch.zeros(0), torch.zeros(0))


def test_inputs_that_do_not_fit_are_refused():
    program = Program()
    program.output(program.input("x", (3, 4, 5)))
    network = program.made()
    for sentence, given in {
        "got 2 tensors": [torch.zeros(1, 3, 4, 5)] * 2,
        "got 3 dimensions": [torch.zeros(3, 4, 5)],
        "expected contiguous float32": [torch.zeros(1, 3, 4, 5, dtype=torch.float64)],
        "got images of 3 x 5 x 4": [torch.zeros(1, 3, 5, 4)],
    }.items():
        with pytest.raises(RuntimeError, match=sentence):
            network(given)
    with pytest.raises(RuntimeError, match="there is none of number -1"):
        torch.ops.lth_sparse_cpu.inference_run(-1, [torch.zeros(1, 3, 4, 5)])


@pytest.mark.parametrize("instruction_set", ["avx2", "portable"])
def test_lower_instruction_sets_of_this_machine(instruction_set):
    if torch.ops.lth_sparse_cpu.instruction_set() in (instruction_set, "portable"):
        pytest.skip("this process runs it, or a lower one")
    command = [sys.executable, "-m", "pytest", "-q", "-x", __file__, "-k", "not instruction_set and not whole_networks"]
    done = subprocess.run(command, env=os.environ | {"LTH_SPARSE_CPU": instruction_set}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


class Shortcut(nn.Module):
    """x + what is made of it, over a module that hands x on as it is; then something may be done to that."""

    def __init__(self, shortcut, after):
        super().__init__()
        self.before, self.conv = nn.Conv2d(3, 12, 3, padding=1), nn.Conv2d(12, 12, 3, padding=1)
        self.shortcut, self.again, self.after = shortcut, nn.Identity(), after

    def forward(self, x):
        x = self.before(x)
        kept = self.after(self.again(self.shortcut(x)))
        return self.conv(x) + kept


@pytest.mark.parametrize("shortcut", [nn.Identity(), nn.Dropout(), nn.Sequential(nn.Identity())], ids=str)
@pytest.mark.parametrize("after", [nn.Identity(), nn.ReLU(), nn.ReLU(inplace=True)], ids=str)
def test_a_shortcut_that_is_the_identity(shortcut, after):
    model = Shortcut(shortcut, after)
    for layer in (model.before, model.conv):
        layer.weight.data *= torch.rand_like(layer.weight) < 0.2
    fast, x = lth.for_inference(lth.sparsify(model).eval()), torch.randn(2, 3, 9, 9)
    with torch.no_grad():
        close(fast(x), copy.deepcopy(model).double()(x.double()))
    (made,) = fast._by_sizes._made.values()
    segments = sum(isinstance(each, Segment) for each in made.modules())
    # In place, the change is one of x too: that stays PyTorch's, and so does a module of others.
    assert (segments == 1) != (getattr(after, "inplace", False) or isinstance(shortcut, nn.Sequential))
