"""torch.compile on models with sparse layers: one graph, and the numbers of eager mode."""

import copy

import pytest
import torch
from torch import nn

import lth_sparse.nn as lth
from lth_sparse.backends import registry
from lth_sparse.system.errors import BackendError

BACKENDS = [name for name, reason in registry.backends().items() if not reason]
EVERY = pytest.mark.parametrize("name", BACKENDS)


@pytest.fixture(autouse=True)
def fresh():
    torch.manual_seed(0)
    torch.compiler.reset()


def sparse_model(name, dtype=torch.float32):
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=2, padding_mode="circular", groups=2, bias=False),
        nn.ReLU(),
        nn.Conv2d(8, 6, (2, 4), stride=1, padding="same"),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(24, 16),
        nn.ReLU(),
        nn.Linear(16, 5, bias=False),
    ).to(dtype)
    layers = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    masks = {layer: torch.rand_like(model.get_submodule(layer).weight) < 0.5 for layer in layers}
    return lth.sparsify(model, masks, backend=name)


def compiled(model, compiler="aot_eager"):
    return torch.compile(model, fullgraph=True, backend=compiler)


def assert_same_step(ours, model, x, any_batch_size=False):
    """Outputs, gradients of the parameters and of x, compiled and eager."""
    steps = []
    for run in (ours, model):
        model.zero_grad()
        leaf = x.detach().clone().requires_grad_()
        if any_batch_size:
            torch._dynamo.mark_dynamic(leaf, 0)
        output = run(leaf)
        output.square().sum().backward()
        steps.append([output, leaf.grad, *[parameter.grad.clone() for parameter in model.parameters()]])
    torch.testing.assert_close(*steps, rtol=1e-4, atol=1e-5)


@EVERY
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
def test_a_training_step_is_that_of_eager_mode(name, memory_format):
    # Copied and moved, so that the plans are packed anew, and in time.
    model = copy.deepcopy(sparse_model(name)).to(memory_format=memory_format)
    assert_same_step(compiled(model), model, torch.randn(4, 3, 9, 8).to(memory_format=memory_format))


@EVERY
def test_batches_of_any_size_share_one_graph(name):
    model = sparse_model(name)
    ours = compiled(model)
    assert_same_step(ours, model, torch.randn(4, 3, 9, 8), any_batch_size=True)
    with torch.compiler.set_stance("fail_on_recompile"):
        for batch_size in (2, 7, 33):
            assert_same_step(ours, model, torch.randn(batch_size, 3, 9, 8), any_batch_size=True)


@EVERY
def test_inference_is_that_of_eager_mode(name):
    model = sparse_model(name).eval()
    x = torch.randn(4, 3, 9, 8)
    ours = compiled(model)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), model(x))
    with torch.inference_mode():
        torch.testing.assert_close(ours(x), model(x))


@EVERY
def test_inductor_gives_the_same_numbers(name):
    model = sparse_model(name)
    assert_same_step(compiled(model, "inductor"), model, torch.randn(4, 3, 9, 8))


@EVERY
def test_autocast_is_that_of_eager_mode(name):
    model, x = sparse_model(name), torch.randn(4, 3, 9, 8)
    supported, _ = registry.get(name).supports(model[0].spec, torch.bfloat16, torch.device("cpu"))
    with torch.autocast("cpu", torch.bfloat16):
        if supported:
            torch.testing.assert_close(compiled(model)(x), model(x))
        else:
            with pytest.raises(BackendError, match=f'backend "{name}" cannot compute under autocast'):
                model(x)


@EVERY
def test_a_new_mask_and_a_new_dtype_are_noticed(name):
    model, other = sparse_model(name), sparse_model(name)
    ours, x = compiled(model), torch.randn(4, 3, 9, 8)
    assert_same_step(ours, model, x)
    model.load_state_dict(other.state_dict())
    assert_same_step(ours, model, x)
    torch.testing.assert_close(ours(x), copy.deepcopy(other)(x))
    model.double()
    assert_same_step(ours, model, x.double())


@EVERY
def test_a_compiled_model_says_what_does_not_fit(name):
    layer = lth.SparseLinear(4, 3, backend=name)
    with pytest.raises(Exception, match=r"input: got shape \(2, 5\), expected \[..., 4\]"):
        compiled(layer)(torch.ones(2, 5))
