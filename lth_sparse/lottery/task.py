"""What a lottery trains: one network on one data set, by one set of settings, on one device."""

from __future__ import annotations

import copy

import torch
from torch import nn

from lth_sparse import models
from lth_sparse.data.batches import Batches
from lth_sparse.data.dataset import Dataset
from lth_sparse.lottery.pruning import density_after
from lth_sparse.lottery.training import Training, length
from lth_sparse.nn import fuse, sparsify
from lth_sparse.nn import masks as masking
from lth_sparse.nn.masks import Masks
from lth_sparse.settings.config import Config
from lth_sparse.system.errors import InputError
from lth_sparse.system.seeding import derive
from lth_sparse.system.timing import side_by_side


class Task:
    """The network with its initial weights, and the trainings that can be made of it.

    `model` is the dense network with the weights of the moment, pruned ones at zero; `data` lies on `device`, in the
    memory format in which the network is faster; `kinds` says of each prunable layer what it is.
    """

    def __init__(self, config: Config, data: Dataset, network: models.Network, device: torch.device) -> None:
        model = models.build(network, derive(config.seed, "weights"))
        layout = models.faster_layout(model)
        self.config = config
        self.network = network
        self.device = device
        self.model = model.to(device).to(memory_format=layout)
        self.data = data.to(device, layout)
        self.kinds = masking.kinds(self.model)

    def check_schedule(self) -> None:
        """Raises InputError, before any training, for what could only fail in a later round."""
        pruning = self.config.pruning
        total = length(self.config.training, self.batches(0).per_epoch)
        if pruning.rewind_iteration >= total:
            raise InputError(
                f"--rewind-iteration {pruning.rewind_iteration}: expected fewer than the {total} steps "
                "of a training run"
            )
        for round in range(pruning.rounds + 1):
            self.density_after(round)

    def density_after(self, round: int) -> dict[str, float]:
        """Layer -> fraction of its weights that are alive after `round`."""
        sizes = {name: weight.numel() for name, weight in masking.prunable(self.model).items()}
        return density_after(self.config.pruning, round, sizes, self.kinds)

    def batches(self, round: int) -> Batches:
        """The batches of `round`, the same for all of its arms: only what an arm says tells them apart."""
        seed = derive(self.config.seed, "training", round)
        return Batches(self.data, self.config.training.batch_size, self.config.data.augmentation, seed)

    def copy(self, masks: Masks, backend: str) -> nn.Module:
        """A copy of the network, with the weights of the moment, as `backend` computes it."""
        model = copy.deepcopy(self.model)
        if backend == "dense":
            return model
        model = sparsify(model, masks, backend)
        return fuse(model) if self.config.fuse and self.device.type == "cpu" else model

    def training(self, model: nn.Module, masks: Masks, label: tuple[int, str], start: int = 0) -> Training:
        """A training of `model`, new, from step `start`. `label`: its round and its arm."""
        return Training(model, masks, self.data, self.batches(label[0]), self.config.training, label, start)

    def times(self, backend: str, masks: Masks, round: int) -> tuple[float, float]:
        """(`backend`'s, masked dense PyTorch's) milliseconds of a training step, on copies of the network.

        On a GPU both are CUDA graphs, as in the training itself.
        """
        contestants = [self.training(self.copy(masks, name), masks, (round, "timing")) for name in (backend, "dense")]
        for contestant in contestants:
            contestant.warm_up()
        backend_ms, dense_ms = side_by_side([contestant.step for contestant in contestants], self.device)
        return backend_ms, dense_ms
