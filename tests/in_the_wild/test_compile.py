"""torch.compile as it stands in training programs. What each backend does in a graph: tests/nn/test_compile.py."""

import copy

import pytest
import torch
import torch.nn.functional as F

import lth_sparse as lth
from tests.in_the_wild.side_by_side import assert_equal, assert_twins, batches, draw_masks, network, sgd, train, twins

# A compiler may sum in yet another order; the other modes are for GPUs.
((IMAGES, LABELS),) = batches(count=1)


@pytest.fixture(autouse=True)
def fresh():
    torch.compiler.reset()


def test_a_model_that_is_compiled_trains_as_the_dense_one():
    sparse, dense = twins()
    assert_equal(train(torch.compile(sparse, fullgraph=True), sgd(sparse)), train(dense, sgd(dense)))
    assert_twins(sparse, dense)
    with torch.no_grad():
        assert_equal(torch.compile(sparse.eval(), fullgraph=True)(IMAGES), dense.eval()(IMAGES))


def test_layers_that_are_compiled_one_by_one_in_place():
    sparse, dense = twins()
    for layer in sparse:
        layer.compile(backend="aot_eager")
    train(sparse, sgd(sparse))
    train(dense, sgd(dense))
    with pytest.raises(ValueError, match=r"compile afterwards"):
        lth.densify(sparse)
    for layer in sparse:
        del layer._compiled_call_impl
    assert_twins(sparse, dense)


def test_a_whole_training_step_that_is_compiled():
    sparse, dense = twins()
    optimizer = sgd(sparse)

    @torch.compile(backend="aot_eager")
    def step(images, labels):
        optimizer.zero_grad()
        loss = F.cross_entropy(sparse(images), labels)
        loss.backward()
        optimizer.step()
        return loss.detach()

    losses = [step(*batch) for batch in batches()]
    assert_equal(losses, train(dense, sgd(dense)))
    assert_twins(sparse, dense)


def test_batches_of_changing_size():
    sparse, dense = twins()
    compiled = torch.compile(sparse, fullgraph=True, dynamic=True, backend="aot_eager")
    for size in (8, 5, 3, 2):
        assert_equal(train(compiled, sgd(sparse), count=1, size=size), train(dense, sgd(dense), count=1, size=size))
    assert_twins(sparse, dense)


def test_a_mask_that_is_replaced_counts_in_the_compiled_model():
    sparse, _ = twins()
    compiled = torch.compile(sparse, fullgraph=True, backend="aot_eager")
    train(compiled, sgd(sparse))
    other = lth.sparsify(network(), draw_masks(network(), density=0.2))
    sparse.load_state_dict(other.state_dict())
    assert_equal(compiled(IMAGES), other(IMAGES))
    assert_equal(train(compiled, sgd(sparse)), train(other, sgd(other)))
    assert_equal(sparse.state_dict(), other.state_dict())


def test_after_many_masks_the_model_goes_on_uncompiled():
    sparse, _ = twins()
    compiled = torch.compile(sparse.eval(), backend="aot_eager")
    with torch._dynamo.config.patch(recompile_limit=2):
        for _ in range(4):
            lth.prune(sparse, 0.1)
            assert_equal(compiled(IMAGES), lth.densify(copy.deepcopy(sparse))(IMAGES))
