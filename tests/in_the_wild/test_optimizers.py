"""Optimizers of PyTorch train a sparse model as the masked dense one, but for those that go by a weight's shape."""

import pytest
import torch
import torch.nn.functional as F
from torch import optim

from tests.in_the_wild.side_by_side import assert_twins, batches, sgd, train, twins

ELEMENTWISE = [
    optim.ASGD,
    optim.Adadelta,
    optim.Adagrad,
    optim.Adam,
    optim.AdamW,
    optim.Adamax,
    optim.NAdam,
    optim.RAdam,
    optim.RMSprop,
    optim.Rprop,
    optim.SGD,
]
FUSED = [optim.Adagrad, optim.Adam, optim.AdamW, optim.SGD]
GOES_BY_SHAPE = ["Adafactor", "Muon"]
REST = ["LBFGS", "SparseAdam"]  # the first has a test of its own, the second is for sparse gradients

# Some divide by gradients that are nearly 0, which turns float32's rounding into steps.
DOUBLE = {"dtype": torch.float64}


def test_no_optimizer_is_left_out():
    classes = {name for name in dir(optim) if isinstance(getattr(optim, name), type)}
    known = {each.__name__ for each in ELEMENTWISE} | {*GOES_BY_SHAPE, *REST, "Optimizer"}
    assert classes - known == set()


def trained_by(make):
    models = twins(**DOUBLE)
    for model in models:
        train(model, make(model.parameters()), **DOUBLE)
    return models


@pytest.mark.parametrize("foreach", [False, True], ids=["one by one", "foreach"])
@pytest.mark.parametrize("kind", ELEMENTWISE)
def test_weights_are_those_of_the_dense_model(kind, foreach):
    assert_twins(*trained_by(lambda parameters: kind(parameters, 0.01, foreach=foreach)))


@pytest.mark.parametrize("kind", FUSED)
def test_fused_variants_too(kind):
    assert_twins(*trained_by(lambda parameters: kind(parameters, 0.01, fused=True)))


def test_lbfgs_calls_its_closure():
    models = twins(**DOUBLE)
    for model in models:
        optimizer = optim.LBFGS(model.parameters(), max_iter=4, line_search_fn="strong_wolfe")
        for images, labels in batches(**DOUBLE):

            def closure(model=model, optimizer=optimizer, images=images, labels=labels):
                optimizer.zero_grad()
                loss = F.cross_entropy(model(images), labels)
                loss.backward()
                return loss

            optimizer.step(closure)
    assert_twins(*models)


def test_adafactor_keeps_rows_and_columns_for_a_dense_weight_and_every_number_for_values():
    with pytest.raises(AssertionError, match="not close"):
        assert_twins(*trained_by(optim.Adafactor))


@pytest.mark.skipif(not hasattr(optim, "Muon"), reason="this torch has no Muon")
def test_muon_refuses_values():
    sparse, _ = twins()
    with pytest.raises(ValueError, match=r"Muon only supports 2D parameters .* torch.Size\(\[\d+\]\)"):
        optim.Muon([sparse[6].values])


SCHEDULERS = {
    "StepLR": lambda optimizer: optim.lr_scheduler.StepLR(optimizer, 1, 0.5),
    "CosineAnnealingLR": lambda optimizer: optim.lr_scheduler.CosineAnnealingLR(optimizer, 3),
    "OneCycleLR": lambda optimizer: optim.lr_scheduler.OneCycleLR(optimizer, 0.2, total_steps=4),
    "ReduceLROnPlateau": lambda optimizer: optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, threshold=1.0),
    "a warmup, then another": lambda optimizer: optim.lr_scheduler.SequentialLR(
        optimizer,
        [optim.lr_scheduler.LinearLR(optimizer), optim.lr_scheduler.ExponentialLR(optimizer, 0.5)],
        milestones=[1],
    ),
}


@pytest.mark.parametrize("schedule", SCHEDULERS.values(), ids=SCHEDULERS)
def test_schedules_of_the_learning_rate(schedule):
    models = twins()
    for model in models:
        optimizer = sgd(model)
        scheduler = schedule(optimizer)
        for _ in range(3):
            losses = train(model, optimizer, count=1)
            scheduler.step(*losses if isinstance(scheduler, optim.lr_scheduler.ReduceLROnPlateau) else ())
        assert optimizer.param_groups[0]["lr"] != 0.1
    assert_twins(*models)
