"""A quick check of every backend that works here: small layers of each kind against float64."""

from __future__ import annotations

import torch
from torch import nn

from lth_sparse.backends.registry import backends, get, kernels
from lth_sparse.system.seeding import generator
from lth_sparse.verification import layers
from lth_sparse.verification.judgement import Row
from lth_sparse.verification.subject import Subject

BATCH, IMAGE_SHAPE, DENSITY = 5, (6, 9, 9), 0.3


def rows(device: torch.device) -> dict[str, list[Row]]:
    """Backend -> a row for each layer; for every backend that computes on `device`, and each kernel of one."""
    subject = _subject(device)
    images = torch.randn(BATCH, *IMAGE_SHAPE, generator=generator(0, "images")).to(device)
    usable = [name for name, reason in backends().items() if not reason]
    found: dict[str, list[Row]] = {each: [] for name in usable for each in (name, *kernels(name))}
    found = {name: made for name, made in found.items() if not get(name).refuses(device)}
    for case in layers.cases(subject, images, seed=0)[0]:
        yardstick = layers.Yardstick(case)
        for name, made in found.items():
            made.append(layers.verified(case, yardstick, subject, name, not_timed="the layers are too small"))
    return found


def _subject(device: torch.device) -> Subject:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential()
        model.add_module("3x3", nn.Conv2d(6, 20, 3, padding=1))
        model.add_module("strided", nn.Conv2d(20, 12, 3, stride=2, padding=1, groups=2))
        model.add_module("depthwise", nn.Conv2d(12, 12, 3, padding=1, groups=12))
        model.add_module("1x1", nn.Conv2d(12, 10, 1, bias=False))
        model.add_module("flat", nn.Flatten())
        model.add_module("linear", nn.Linear(250, 7))
        masks = {
            name: torch.rand(layer.weight.shape) < DENSITY
            for name, layer in model.named_children()
            if isinstance(layer, nn.Conv2d | nn.Linear)
        }
    model = model.to(device)
    masks = {name: mask.to(device) for name, mask in masks.items()}
    with torch.no_grad():
        for name, mask in masks.items():
            model.get_submodule(name).get_parameter("weight").mul_(mask)
    return Subject("self-test", model, masks, IMAGE_SHAPE)
