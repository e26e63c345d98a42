"""What programs do to gradients between backward and step, and PyTorch's tools that look at them."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd import functional

from tests.in_the_wild.side_by_side import assert_equal, assert_twins, batches, sgd, train, twins

CLIPS = {
    "norm": lambda model: nn.utils.clip_grad_norm_(model.parameters(), 0.1),
    "norm, foreach": lambda model: nn.utils.clip_grad_norm_(model.parameters(), 0.1, foreach=True),
    "largest": lambda model: nn.utils.clip_grad_norm_(model.parameters(), 0.01, norm_type=float("inf")),
    "value": lambda model: nn.utils.clip_grad_value_(model.parameters(), 0.01),
}


@pytest.mark.parametrize("clip", CLIPS.values(), ids=CLIPS)
def test_gradients_are_clipped_as_the_dense_models(clip):
    models, norms = twins(), []
    for model in models:
        optimizer = sgd(model)
        norms.append([])
        for images, labels in batches():
            optimizer.zero_grad()
            F.cross_entropy(model(images), labels).backward()
            norms[-1].append(clip(model))
            optimizer.step()
    if norms[0][0] is not None:
        assert_equal(*norms)
    assert_twins(*models)


def test_gradients_accumulate_over_batches():
    models = twins()
    for model in models:
        optimizer = sgd(model)
        for step, (images, labels) in enumerate(batches(count=6)):
            (F.cross_entropy(model(images), labels) / 2).backward()
            if step % 2:
                optimizer.step()
                optimizer.zero_grad(set_to_none=step == 1)
    assert_twins(*models)


def test_an_optimizer_steps_in_the_backward_pass():
    models = twins()
    for model in models:
        optimizers = {parameter: torch.optim.SGD([parameter], 0.1) for parameter in model.parameters()}

        def step(parameter, optimizers=optimizers):
            optimizers[parameter].step()
            optimizers[parameter].zero_grad()

        for parameter in optimizers:
            parameter.register_post_accumulate_grad_hook(step)
        for images, labels in batches():
            F.cross_entropy(model(images), labels).backward()
    assert_twins(*models)


def test_saved_tensors_that_are_packed_and_unpacked():
    models = twins()
    for model in models:
        with torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor.numpy().copy(), torch.from_numpy):
            train(model, sgd(model))
        with torch.autograd.graph.save_on_cpu():
            train(model, sgd(model))
    assert_twins(*models)


def test_two_losses_of_one_graph_and_a_network_that_is_called_twice():
    models = twins()
    for model in models:
        optimizer = sgd(model)
        for images, labels in batches():
            optimizer.zero_grad()
            outputs = model(images)
            F.cross_entropy(outputs, labels).backward(retain_graph=True)
            (outputs - model(images.flip(3))).square().mean().backward()
            optimizer.step()
    assert_twins(*models)


@pytest.mark.parametrize("written", ["the input", "the parameters"])
def test_a_write_before_the_backward_pass_is_refused_as_pytorch_refuses_it(written):
    for model in twins():
        ((images, _),) = batches(count=1)
        outputs = model(images)
        with torch.no_grad():
            for tensor in [images] if written == "the input" else model.parameters():
                tensor.add_(1)
        with pytest.raises(RuntimeError, match="has been modified by an inplace operation"):
            outputs.sum().backward()


def test_deterministic_algorithms():
    models = twins()
    torch.use_deterministic_algorithms(True)
    try:
        for model in models:
            for images, labels in batches():
                (F.cross_entropy(model(images), labels) + model[6].weight.square().sum()).backward()
                sgd(model).step()
    finally:
        torch.use_deterministic_algorithms(False)
    assert_twins(*models)


@pytest.fixture
def evaluated():
    """Twins in float64, in eval mode, and images of two."""
    models = twins(dtype=torch.float64)
    ((images, _),) = batches(count=1, size=2, dtype=torch.float64)
    return (*(model.eval() for model in models), images)


def test_gradcheck_agrees(evaluated):
    sparse, _, images = evaluated
    assert torch.autograd.gradcheck(sparse, images.requires_grad_())


class Summed(nn.Module):
    """Over the batch, whose images do not act on each other in eval mode."""

    def forward(self, x):
        return x.sum(0)


@pytest.mark.parametrize("vectorize", [False, True])
def test_jacobians(evaluated, vectorize):
    *models, images = evaluated
    summed = [nn.Sequential(model, Summed()) for model in models]
    assert_equal(*(functional.jacobian(model, images, vectorize=vectorize) for model in summed))


def test_vector_jacobian_products_one_by_one_and_batched(evaluated):
    *models, images = evaluated
    vectors = torch.randn(3, 2, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    found = []
    for model in models:
        one = functional.vjp(model, images, vectors[0])[1]
        x = images.clone().requires_grad_()
        batched = torch.autograd.grad(model(x), x, vectors, is_grads_batched=True)[0]
        found.append((one, batched))
    assert_equal(*found)


SECOND = {
    "hessian": lambda call, x: functional.hessian(call, x),
    "hvp": lambda call, x: functional.hvp(call, x, torch.ones_like(x)),
    "vhp": lambda call, x: functional.vhp(call, x, torch.ones_like(x)),
    "jvp, by two backward passes": lambda call, x: functional.jvp(call, x, torch.ones_like(x)),
    "a gradient penalty": lambda call, x: (
        torch.autograd.grad(call(x.requires_grad_()), x, create_graph=True)[0].norm().backward()
    ),
}


@pytest.mark.parametrize("differentiate", SECOND.values(), ids=SECOND)
def test_second_derivatives_are_refused(evaluated, differentiate):
    sparse, _, images = evaluated
    with pytest.raises(NotImplementedError, match=r"no second derivative: use lth_sparse.densify\(model\)"):
        differentiate(lambda x: sparse(x).square().sum(), images)


@pytest.mark.filterwarnings("ignore:Anomaly Detection has been enabled")
def test_anomaly_mode_finds_nothing_and_names_what_gave_nan():
    models = twins()
    with torch.autograd.detect_anomaly():
        assert_equal(*(train(model, sgd(model)) for model in models))
    sparse, _ = models
    with torch.no_grad():
        sparse[3].values.fill_(float("nan"))
    ((images, labels),) = batches(count=1)
    with torch.autograd.detect_anomaly():
        loss = F.cross_entropy(sparse(images), labels)
        with (
            pytest.warns(UserWarning, match="Traceback of forward call that caused the error"),
            pytest.raises(RuntimeError, match="returned nan values"),
        ):
            loss.backward()
