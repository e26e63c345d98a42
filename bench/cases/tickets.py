"""Masks of real tickets: conv6, pruned by magnitude and rewound, round after round, on scikit-learn's digits.

Live weights of a trained network lie together, in filters and in channels, and a benchmark on random masks would miss
what that does to blocks. The layers of conv6 have the sizes that the benchmarks time: 64, 128 and 256 channels of 3 x
3. The images need no network and no folder, so that every machine finds the same tickets, to its rounding.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lth_sparse import data, models
from lth_sparse.data.batches import Batches
from lth_sparse.lottery import proof, pruning
from lth_sparse.lottery.training import Training
from lth_sparse.nn import masks as masking
from lth_sparse.nn.masks import Masks
from lth_sparse.settings.config import DataConfig, PruningConfig, TrainingConfig

NETWORK = "conv6"
ITERATIONS = 200


def tickets(sparsities: Sequence[float], device: torch.device, image_size: int) -> dict[float, Masks]:
    """Sparsity -> the masks of the ticket that keeps that much of every layer; `sparsities` ascend."""
    dataset = data.load(DataConfig("digits", image_size=image_size), seed=0).to(device, torch.contiguous_format)
    network = models.Network(NETWORK, dataset.image_shape, len(dataset.classes))
    model = models.build(network, seed=0).to(device)
    kinds, alive, initial = masking.kinds(model), masking.all_alive(model), proof.copy_of(model)
    training = TrainingConfig("adam", 3e-4, batch_size=64, iterations=ITERATIONS, evaluate_every=ITERATIONS)
    found = {}
    for sparsity in sparsities:
        proof.rewind(model, initial, alive)
        batches = Batches(dataset, training.batch_size, "none", 0)
        Training(model, alive, dataset, batches, training, (len(found), "ticket")).run(lambda: None, lambda: None)
        keep = dict.fromkeys(alive, 1 - sparsity)
        alive = pruning.magnitude(masking.prunable(model), alive, keep, PruningConfig(), kinds)
        found[sparsity] = alive
    return found
