"""torch.func and forward-mode AD on sparse models, which give what they give on masked dense ones."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, stack_module_state, vjp, vmap

import lth_sparse as lth
from lth_sparse.backends import registry
from tests.in_the_wild.twins import live, network, twins

BACKENDS = [name for name in ("auto", "cpp") if not registry.backends()[name]]
X, DIRECTION = torch.randn(2, 4, 3, 6, 5, generator=torch.Generator().manual_seed(1)).double()


@pytest.fixture(params=BACKENDS)
def pair(request):
    torch.manual_seed(0)
    return twins(network().double(), request.param)


def parameters(model):
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def buffers(model):
    return dict(model.named_buffers())


def loss_of(model):
    """The loss as a function of parameters and images."""
    return lambda params, x: functional_call(model, params, (x,)).square().sum()


def by_parameters(transform):
    """A transform of the loss, each result by the names of the parameters."""
    return lambda model: transform(model)(parameters(model), X)


def assert_same(transform, dense, sparse):
    torch.testing.assert_close(transform(sparse), live(transform(dense), sparse))


def test_gradients_of_parameters(pair):
    assert_same(by_parameters(lambda model: grad(loss_of(model))), *pair)


def test_gradients_of_parameters_where_all_that_is_given_is_wrapped(pair):
    def gradient(model):
        def loss(params, held, x):
            return functional_call(model, (params, held), (x,)).square().sum()

        return grad(loss)(parameters(model), buffers(model), X)

    assert_same(gradient, *pair)


def test_gradients_of_the_input(pair):
    dense, sparse = (grad(lambda x: model(x).square().sum())(X) for model in pair)  # noqa: B023
    torch.testing.assert_close(sparse, dense)


@pytest.mark.parametrize("randomness", ["error", "different"])
def test_gradients_of_each_sample(pair, randomness):
    def of_each(model):
        def loss(params, held, x):
            return functional_call(model, (params, held), (x.unsqueeze(0),)).square().sum()

        each = vmap(grad(loss), (None, None, 0), randomness=randomness)
        return each(parameters(model), buffers(model), X)

    assert of_each(pair[1])["0.values"].shape == (4, pair[1][0].values.numel())
    assert_same(of_each, *pair)


def test_gradients_of_each_sample_by_a_loop_are_the_same(pair):
    sparse = pair[1]
    loss = loss_of(sparse)
    together = vmap(grad(loss), (None, 0))(parameters(sparse), X.unsqueeze(1))
    alone = [grad(loss)(parameters(sparse), x) for x in X.unsqueeze(1)]
    torch.testing.assert_close(together, {name: torch.stack([each[name] for each in alone]) for name in together})


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_a_batch_of_batches_of_images(pair, dim):
    images = torch.stack([X, DIRECTION, X.flip(0)]).movedim(0, dim)
    dense, sparse = (vmap(model, dim)(images) for model in pair)
    torch.testing.assert_close(sparse, dense)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
def test_single_images_in_either_memory_format(pair, memory_format):
    images = X.to(memory_format=memory_format)
    dense, sparse = (vmap(model[0])(images) for model in pair)
    torch.testing.assert_close(sparse, dense)
    torch.testing.assert_close(sparse, pair[1][0](X))


def test_a_batch_of_nested_maps(pair):
    images = torch.stack([X, DIRECTION]).unsqueeze(2)
    dense, sparse = (vmap(vmap(model))(images) for model in pair)
    torch.testing.assert_close(sparse, dense)


def test_a_gradient_through_a_map(pair):
    def gradient(model):
        def loss(params, x):
            return vmap(lambda x: functional_call(model, params, (x,)))(x).square().sum()

        return grad(loss)(parameters(model), torch.stack([X, DIRECTION]))

    assert_same(gradient, *pair)


def test_a_backward_pass_through_a_map(pair):
    images = torch.stack([X, DIRECTION])

    def gradients(model):
        vmap(model)(images).square().sum().backward()
        return {name: parameter.grad for name, parameter in model.named_parameters()}

    assert_same(gradients, *pair)


@pytest.mark.parametrize("jacobian", [jacrev, jacfwd])
def test_jacobians(pair, jacobian):
    dense, sparse = (jacobian(model)(X) for model in pair)
    torch.testing.assert_close(sparse, dense)
    assert_same(lambda model: jacobian(lambda params: functional_call(model, params, (X,)))(parameters(model)), *pair)


@pytest.mark.parametrize("vectorize", [True, False])
def test_jacobians_by_autograd(pair, vectorize):
    dense, sparse = (torch.autograd.functional.jacobian(model, X, vectorize=vectorize) for model in pair)
    torch.testing.assert_close(sparse, dense)


def test_a_batch_of_backward_passes(pair):
    def gradients(model):
        together = torch.eye(20, dtype=X.dtype).view(20, 4, 5)
        found = torch.autograd.grad(model(X), list(model.parameters()), together, is_grads_batched=True)
        return dict(zip(parameters(model), found, strict=True))

    assert_same(gradients, *pair)


def test_products_with_jacobians(pair):
    def backward(model):
        output, products = vjp(model, X)
        return output, products(output.cos())

    def forward(model):
        return jvp(model, (X,), (DIRECTION,))

    def of_parameters(model):
        """In the direction of the parameters themselves."""
        held = parameters(model)
        return jvp(lambda params: functional_call(model, params, (X,)), (held,), (held,))

    for product in (backward, forward, of_parameters):
        torch.testing.assert_close(product(pair[1]), product(pair[0]))


def test_a_product_that_is_asked_for_outside_of_its_transform(pair):
    def gradients(model):
        _, products = vjp(lambda params: functional_call(model, params, (X,)), parameters(model))
        return products(torch.ones(4, 5, dtype=X.dtype))[0]

    assert_same(gradients, *pair)


@pytest.mark.parametrize("recording", [True, False])
def test_dual_numbers(pair, recording):
    def tangent(model):
        with torch.set_grad_enabled(recording), forward_ad.dual_level():
            return tuple(forward_ad.unpack_dual(model(forward_ad.make_dual(X, DIRECTION))))

    torch.testing.assert_close(tangent(pair[1]), tangent(pair[0]))


def test_a_gradient_of_a_directional_derivative(pair):
    """Backward over forward, for the parameters: where the network is what it is in one direction alone."""

    def by_transforms(model):
        def loss(params):
            return jvp(lambda x: functional_call(model, params, (x,)), (X,), (DIRECTION,))[1].square().sum()

        return grad(loss)(parameters(model))

    def by_dual_numbers(model):
        model.zero_grad()
        with forward_ad.dual_level():
            tangent = forward_ad.unpack_dual(model(forward_ad.make_dual(X, DIRECTION))).tangent
        tangent.square().sum().backward()
        # The bias of the last layer moves nothing.
        return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}

    assert_same(by_transforms, *pair)
    assert_same(by_dual_numbers, *pair)


def test_two_directional_derivatives(pair):
    def second(model):
        def first(params, x):
            return jvp(lambda x: functional_call(model, params, (x,)), (x,), (DIRECTION,))[1]

        held = parameters(model)
        return jvp(first, (held, X), (held, X))

    torch.testing.assert_close(second(pair[1]), second(pair[0]))


@pytest.mark.parametrize("on_meta", [True, False])
def test_an_ensemble_of_one_mask(pair, on_meta):
    def outputs(model):
        models = [copy.deepcopy(model) for _ in range(3)]
        with torch.no_grad():
            for index, each in enumerate(models):
                for parameter in each.parameters():
                    parameter.mul_(index + 1)
        stacked = stack_module_state(models)
        base = copy.deepcopy(model).to("meta") if on_meta else model
        together = vmap(lambda *state: functional_call(base, state, (X,)))(*stacked)
        torch.testing.assert_close(together, torch.stack([each(X) for each in models]))

        def loss(params, held, x):
            return functional_call(base, (params, held), (x,)).square().sum()

        return together, vmap(grad(loss), (0, 0, None))(*stacked, X)

    (dense, dense_gradients), (sparse, gradients) = map(outputs, pair)
    torch.testing.assert_close(sparse, dense)
    torch.testing.assert_close(gradients, live(dense_gradients, pair[1]))
    torch.testing.assert_close(pair[1](X), pair[0](X))


def test_an_ensemble_of_several_masks_is_refused(pair):
    model = pair[1]
    other = copy.deepcopy(model)
    other[0].mask.copy_(model[0].mask.flip(0))
    stacked = stack_module_state([model, other])
    with pytest.raises(ValueError, match=r"mask: got different ones .* expected the same .*call the models one by one"):
        vmap(lambda *state: functional_call(model, state, (X,)))(*stacked)


def test_another_mask_that_is_given_with_its_values_counts(pair):
    model = pair[1]
    other = twins(network().double())[1]
    state = {**dict(other.named_parameters()), **dict(other.named_buffers())}
    torch.testing.assert_close(functional_call(model, state, (X,)), other(X))
    torch.testing.assert_close(model(X), pair[0](X))


def test_a_second_derivative_is_refused(pair):
    model = pair[1]

    def slope(params, x):
        """As a network that solves a differential equation is trained: by parameters, of what is by positions."""
        return grad(lambda x: functional_call(model, params, (x,)).square().sum())(x).square().sum()

    for second in (
        lambda: hessian(lambda x: model(x).square().sum())(X),
        lambda: jacrev(jacrev(lambda x: model(x).square().sum()))(X),
        lambda: grad(slope)(parameters(model), X),
        lambda: jvp(lambda params: slope(params, X), (parameters(model),), (parameters(model),)),
    ):
        with pytest.raises(NotImplementedError, match=r"no second derivative: use lth_sparse\.densify"):
            second()


def test_a_layer_that_is_called_without_gradients_has_none(pair):
    def loss(model):
        def of(params, x):
            with torch.no_grad():
                fixed = functional_call(model, params, (x,))
            return (functional_call(model, params, (x,)) * fixed).sum()

        return of

    assert_same(by_parameters(lambda model: grad(loss(model))), *pair)


def test_dense_parameters_are_refused_by_a_sparse_model(pair):
    dense, sparse = pair
    with pytest.raises(ValueError, match='no such parameter, it is made of "values"'):
        functional_call(sparse, parameters(dense), (X,))
    torch.testing.assert_close(sparse(X), dense(X))


def test_compiled_transforms(pair):
    def each(model):
        transform = vmap(grad(loss_of(model)), (None, 0))
        return torch.compile(transform, backend="aot_eager", fullgraph=True)(parameters(model), X.unsqueeze(1))

    assert_same(each, *pair)


def test_of_a_fused_network():
    torch.manual_seed(0)
    dense, sparse = twins(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)).eval())
    lth.fuse(sparse)
    images = X.float()
    torch.testing.assert_close(vmap(sparse)(images.unsqueeze(1)), vmap(dense)(images.unsqueeze(1)))
    torch.testing.assert_close(jacrev(sparse)(images), jacrev(dense)(images))


@pytest.mark.parametrize("recording", [True, False])
def test_dual_numbers_of_a_network_for_inference(recording):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    model(X.float() + 1)
    dense, sparse = twins(model.eval(), "cpp")
    folded = lth.for_inference(sparse)

    def tangent(model):
        with torch.set_grad_enabled(recording), forward_ad.dual_level():
            return tuple(forward_ad.unpack_dual(model(forward_ad.make_dual(X.float(), DIRECTION.float()))))

    torch.testing.assert_close(tangent(folded), tangent(dense), rtol=1e-4, atol=1e-5)
