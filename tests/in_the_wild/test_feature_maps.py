"""Programs that look at feature maps and at gradients of images: Grad-CAM, saliency, activations caught by hooks."""

import torch
import torch.nn.functional as F

from tests.in_the_wild.side_by_side import assert_equal, batches, sgd, train, twins

((IMAGES, LABELS),) = batches(count=1)


def trained_twins():
    models = twins()
    for model in models:
        train(model, sgd(model))
        model.eval()
    return models


def grad_cam(model, name):
    """As its users write it: a full backward hook and a forward hook on one convolution."""
    caught = {}
    layer = model.get_submodule(name)
    handles = [
        layer.register_forward_hook(lambda module, inputs, output: caught.update(maps=output)),
        layer.register_full_backward_hook(lambda module, inputs, outputs: caught.update(grads=outputs[0])),
    ]
    model(IMAGES).gather(1, LABELS[:, None]).sum().backward()
    for handle in handles:
        handle.remove()
    weights = caught["grads"].mean((2, 3), keepdim=True)
    return F.relu((weights * caught["maps"]).sum(1))


def test_grad_cam():
    ours, theirs = (grad_cam(model, "3") for model in trained_twins())
    assert theirs.any()
    assert_equal(ours, theirs)


def test_a_full_backward_hook_sees_and_changes_the_gradient_of_the_input():
    found = []
    for model in trained_twins():
        x = IMAGES.clone().requires_grad_()
        seen = []

        def halve(module, inputs, outputs, seen=seen):
            seen.extend([*inputs, *outputs])
            return tuple(None if grad is None else grad / 2 for grad in inputs)

        model[3].register_full_backward_hook(halve)
        F.cross_entropy(model(x), LABELS).backward()
        found.append([x.grad, *seen])
    assert_equal(*found)


def test_saliency_and_an_adversarial_image():
    found = []
    for model in trained_twins():
        x = IMAGES.clone().requires_grad_()
        (saliency,) = torch.autograd.grad(F.cross_entropy(model(x), LABELS), x)
        found.append((saliency, model(x + 0.1 * saliency.sign())))
    assert_equal(*found)


def test_activations_caught_by_forward_hooks():
    found = []
    for model in trained_twins():
        caught = []
        for module in model.modules():
            module.register_forward_hook(lambda module, inputs, output, caught=caught: caught.append(output))
        model(IMAGES)
        found.append(caught)
    assert_equal(*found)
