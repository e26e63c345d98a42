"""Python threads: four that call one model, with inputs of one shape and of many, and four that train copies of it."""

import copy
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

import lth_sparse as lth
from lth_sparse.backends.auto import remembering
from lth_sparse.backends.choices import Choices
from tests.in_the_wild.side_by_side import assert_equal, batches, draw_masks, sgd, train, twins

THREADS = 4
SIZES = range(6, 30)
"""Of images: more than a plan keeps answers for."""


class Network(nn.Module):
    """A layer for the kernels of each kind: sparse, Winograd's, depthwise and linear ones."""

    def __init__(self):
        super().__init__()
        self.sparse, self.full = nn.Conv2d(3, 32, 3, stride=2, padding=1), nn.Conv2d(32, 32, 3, padding=1)
        self.norm, self.relu = nn.BatchNorm2d(32), nn.ReLU()
        self.depthwise, self.linear = nn.Conv2d(32, 32, 3, padding=1, groups=32), nn.Linear(32, 5)

    def forward(self, x):
        x = self.relu(self.norm(self.full(self.sparse(x))))
        return self.linear(self.depthwise(x).mean((2, 3)))


def network(backend):
    torch.manual_seed(0)
    model = Network()
    return lth.sparsify(model, draw_masks(model) | {"full": torch.ones(32, 32, 3, 3, dtype=torch.bool)}, backend)


def images(size):
    return torch.randn(4, 3, size, 2 * size, generator=torch.Generator().manual_seed(size))


def passes(model, x):
    """The output, and the gradients of the input and of every parameter."""
    x = x.clone().requires_grad_()
    output = model(x)
    return [output.detach(), *torch.autograd.grad(output.square().sum(), [x, *model.parameters()])]


def in_threads(work):
    """What `work(number)` gives in each of the threads, which begin at the same time."""
    together = threading.Barrier(THREADS)

    def begin(number):
        together.wait()
        return work(number)

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(begin, range(THREADS)))


@pytest.mark.parametrize("backend", ["auto", "cpp"])
def test_one_model_that_all_call_with_other_shapes_at_once(backend):
    with remembering(Choices()):
        model = network(backend).eval()
        alone, exact = copy.deepcopy(model), lth.densify(copy.deepcopy(model)).double()
        # Each begins elsewhere, so that they ask for different shapes at any time.
        found = in_threads(
            lambda number: {size: passes(model, images(size)) for size in [*SIZES[6 * number :], *SIZES[: 6 * number]]}
        )
    for size in SIZES:
        expected = passes(exact, images(size).double())
        first, *others = (each[size] for each in found)
        live = dict(zip(dict(exact.named_parameters()), expected[2:], strict=True))
        for name, gradient in zip(dict(model.named_parameters()), first[2:], strict=True):
            layer = model.get_submodule(name.rpartition(".")[0])
            wanted = live[name.replace("values", "weight")]
            wanted = wanted[layer.mask] if name.endswith("values") else wanted
            torch.testing.assert_close(gradient.double(), wanted, rtol=1e-4, atol=1e-5 * float(wanted.abs().max()))
        for ours, theirs in zip(first[:2], expected[:2], strict=True):
            torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-5)
        if backend == "cpp":
            for each in (*others, passes(alone, images(size))):
                assert all(map(torch.equal, first, each)), size


@pytest.mark.parametrize("make", [lth.fuse, lth.for_inference], ids=["fused", "for inference"])
def test_fused_and_inference_models_that_all_call(make):
    model = network("cpp").eval()
    expected, shared = {size: copy.deepcopy(model)(images(size)).detach() for size in SIZES}, make(copy.deepcopy(model))
    with torch.no_grad():
        found = in_threads(lambda number: {size: shared(images(size)) for size in SIZES[number:]})
    for each in found:
        assert_equal(each, {size: expected[size] for size in each})


@pytest.mark.parametrize("backend", ["auto", "cpp"])
def test_threads_that_train_copies_train_what_one_trains(backend):
    with remembering(Choices()):
        model, _ = twins(backend=backend)

        def trained(number):
            own = copy.deepcopy(model)
            train(own, sgd(own), count=3 + number)
            return own.state_dict()

        one_by_one = [trained(number) for number in range(THREADS)]
        at_once = in_threads(trained)
    for ours, theirs in zip(at_once, one_by_one, strict=True):
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("backend", ["auto", "cpp"])
def test_gradients_of_the_images_are_the_dense_models(backend):
    sparse, dense = (model.eval() for model in twins(backend=backend))
    given = [x for x, _ in batches(count=12)]

    def gradient(model, x):
        x = x.clone().requires_grad_()
        return torch.autograd.grad(model(x).square().sum(), x)[0]

    for ours in in_threads(lambda number: [gradient(sparse, x) for x in given]):
        assert_equal(ours, [gradient(dense, x) for x in given])
