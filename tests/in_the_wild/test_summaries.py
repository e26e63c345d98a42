"""What summaries, counters and profilers say of a sparse model: the numbers that it has, not those of the dense one."""

import torch
from torch import nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters
from torch.profiler import ProfilerActivity, profile

import lth_sparse as lth
from tests.in_the_wild.side_by_side import assert_equal, batches, twins

((IMAGES, _),) = batches(count=1)


def live(dense):
    return sum(int(module.weight.count_nonzero()) for module in dense if isinstance(module, nn.Conv2d | nn.Linear))


def summary(model):
    """As torchinfo and its like make it: hooks on all leaves, during one batch."""
    rows = []

    def note(module, inputs, output):
        rows.append((tuple(inputs[0].shape), tuple(output.shape), sum(p.numel() for p in module.parameters())))

    for module in model.modules():
        if not list(module.children()):
            module.register_forward_hook(note)
    model(IMAGES)
    return rows


def test_a_summary_has_the_dense_models_shapes_and_counts_live_weights():
    sparse, dense = twins()
    ours, theirs = summary(sparse), summary(dense)
    assert [row[:2] for row in ours] == [row[:2] for row in theirs]
    for module, row in zip(dense, ours, strict=True):
        weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
        counted = 0 if weight is None else int(weight.count_nonzero())
        assert row[2] == counted + (0 if bias is None else bias.numel())


def test_a_vector_of_all_parameters_and_back():
    sparse, dense = twins()
    vector = parameters_to_vector(sparse.parameters())
    kept = [p for p in dense.parameters()]
    assert vector.numel() == sum(p.numel() for p in kept if p.dim() == 1) + live(dense)
    vector_to_parameters(2 * vector, sparse.parameters())
    with torch.no_grad():
        for parameter in kept:
            parameter.mul_(2)
    assert_equal(sparse(IMAGES), dense(IMAGES))


def test_a_profile_names_the_layer_and_its_kernels():
    sparse, _ = twins(backend="cpp")
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        sparse(IMAGES).sum().backward()
    names = {event.key for event in profiled.key_averages()}
    assert any(name.startswith("lth_sparse_cpu::") for name in names)
    assert any("LayerBackward" in name for name in names)


def test_layers_say_what_they_are():
    sparse, _ = twins()
    text = str(sparse)
    assert "SparseConv2d(3, 8, kernel_size=(3, 3)" in text
    assert text.count("sparsity=") == 3
    assert isinstance(sparse[6], lth.SparseLinear)
