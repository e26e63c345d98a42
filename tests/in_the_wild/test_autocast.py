"""Automatic mixed precision: a sparse model computes in autocast's dtype, as the masked dense one does, or says no."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lth_sparse.backends import registry
from lth_sparse.system.errors import BackendError
from tests.in_the_wild.side_by_side import assert_same_updates, batches, dense_state, sgd, twins

NEEDS_CPP = pytest.mark.skipif(bool(registry.backends()["cpp"]), reason="cpp cannot be used here")


def train_mixed(model, dtype):
    """With a scaler, as float16 needs one, and gradients clipped between: the losses."""
    optimizer, scaler, losses = sgd(model), torch.amp.GradScaler("cpu", init_scale=2.0**12), []
    for images, labels in batches():
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype):
            outputs = model(images)
            loss = F.cross_entropy(outputs, labels)
        assert outputs.dtype == dtype
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.detach())
    return losses


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("backend", ["auto", "dense", pytest.param("cpp", marks=NEEDS_CPP)])
def test_it_trains_in_autocasts_dtype(backend, dtype):
    sparse, dense = twins(backend=backend)
    before = dense_state(sparse)
    ours, theirs = (train_mixed(model, dtype) for model in (sparse, dense))
    torch.testing.assert_close(ours, theirs, rtol=torch.finfo(dtype).eps, atol=0)
    assert_same_updates(sparse, dense, before, dtype)
    assert sparse[0].values.dtype == sparse[0].values.grad.dtype == torch.float32


@NEEDS_CPP
@pytest.mark.filterwarnings("ignore:.*leaves such a layer to masked dense PyTorch")
def test_kernels_without_this_dtype_refuse():
    sparse, _ = twins(backend="cpp/winograd")
    with pytest.raises(BackendError, match='"cpp/winograd" cannot compute under autocast: dtype is'):
        train_mixed(sparse, torch.bfloat16)


def test_a_step_whose_gradients_overflow_is_left_out():
    sparse, _ = twins()
    before = dense_state(sparse)
    optimizer, scaler = sgd(sparse), torch.amp.GradScaler("cpu")
    ((images, labels),) = batches(count=1)
    sparse.eval()
    scaler.scale(F.cross_entropy(sparse(images), labels) * torch.tensor(float("inf"))).backward()
    scaler.step(optimizer)
    torch.testing.assert_close(dense_state(sparse), before, rtol=0, atol=0)
