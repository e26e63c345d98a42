"""What a network makes of a whole split."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from lth_sparse.data.batches import in_order
from lth_sparse.data.dataset import Dataset, Split
from lth_sparse.system import processes

BATCH_SIZE = 250
"""Small enough for the activations of small networks to stay in a CPU's second-level cache."""
COMPARED_IMAGES = 64


@dataclass(frozen=True)
class Evaluation:
    """Mean cross-entropy and accuracy over a split; `confusion` int64 [true class, predicted class] counts images."""

    loss: float
    accuracy: float
    confusion: Tensor


def evaluate(model: nn.Module, split: Split, data: Dataset) -> Evaluation:
    """`model` in evaluation mode on every image of `split`, without augmentation; its mode is put back after.

    Each process evaluates its part of the images.
    """
    was_training = model.training
    model.eval()
    classes = len(data.classes)
    loss = torch.zeros((), dtype=torch.float64, device=split.labels.device)
    pairs = torch.zeros(classes * classes, dtype=torch.int64, device=split.labels.device)
    own = processes.part(len(split))
    with torch.inference_mode():
        for images, labels in in_order(Split(split.images[own], split.labels[own]), data, BATCH_SIZE):
            logits = model(images)
            loss += functional.cross_entropy(logits, labels, reduction="sum")
            pairs += torch.bincount(labels * classes + logits.argmax(1), minlength=classes * classes)
    model.train(was_training)
    confusion = processes.summed(pairs).reshape(classes, classes).cpu()
    loss = processes.summed(loss)
    return Evaluation(float(loss) / len(split), int(confusion.trace()) / len(split), confusion)


def max_relative_error(model: nn.Module, dense: nn.Module, data: Dataset) -> float:
    """Largest difference of the logits of `model` from those of `dense` in float64, over the largest logit.

    `dense`: the same network as masked dense PyTorch. On the first 64 validation images, in evaluation mode.
    """
    images = data.normalized(data.validation.images[:COMPARED_IMAGES])
    exact = copy.deepcopy(dense).double().eval()
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        expected = exact(images.double())
        given = model(images).double()
    model.train(was_training)
    return float((given - expected).abs().max() / expected.abs().max().clamp_min(torch.finfo(torch.float64).tiny))
