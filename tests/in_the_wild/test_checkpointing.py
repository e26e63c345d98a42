"""Activations that are computed twice to save memory: torch.utils.checkpoint, and the wrapper of torch.distributed."""

import pytest
import torch.nn.functional as F
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import apply_activation_checkpointing
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

import lth_sparse as lth
from tests.in_the_wild.side_by_side import assert_equal, assert_twins, batches, network, sgd, train, twins

LAYERS = lth.SparseConv2d | lth.SparseLinear | nn.Conv2d | nn.Linear
BOTH = pytest.mark.parametrize("use_reentrant", [True, False])


class Checkpointed(nn.Module):
    def __init__(self, use_reentrant):
        super().__init__()
        self.body, self.use_reentrant = network(), use_reentrant

    def forward(self, x):
        features = checkpoint(self.body[2:6], self.body[:2](x), use_reentrant=self.use_reentrant)
        return self.body[6:](features)


@BOTH
def test_a_checkpointed_part_trains_as_the_dense_models(use_reentrant):
    models = twins(lambda: Checkpointed(use_reentrant))
    assert_equal(*(train(model, sgd(model)) for model in models))
    assert_twins(*models)


@BOTH
def test_checkpoint_sequential(use_reentrant):
    models = twins()
    for model in models:
        optimizer = sgd(model)
        for images, labels in batches():
            optimizer.zero_grad()
            outputs = checkpoint_sequential(model, 2, images.requires_grad_(), use_reentrant=use_reentrant)
            F.cross_entropy(outputs, labels).backward()
            optimizer.step()
    assert_twins(*models)


def test_layers_that_are_wrapped_keep_their_names_in_state_dicts():
    models = twins()
    names = list(models[0].state_dict())
    for model in models:
        apply_activation_checkpointing(model, check_fn=lambda module: isinstance(module, LAYERS))
        train(model, sgd(model))
    assert list(models[0].state_dict()) == names
    assert_twins(*models)
