"""What a lottery trains: one network on one data set, by one set of settings, on one device."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from lth_sparse import models
from lth_sparse.data.batches import Batches
from lth_sparse.data.dataset import Dataset
from lth_sparse.lottery.beginning import initial
from lth_sparse.lottery.criteria.interface import Evidence
from lth_sparse.lottery.pruning import density_after
from lth_sparse.lottery.topology import rule_of
from lth_sparse.lottery.topology.changes import Changes
from lth_sparse.lottery.topology.interface import Rule
from lth_sparse.lottery.training import Training, learning_rate, length
from lth_sparse.nn import fuse, sparsify
from lth_sparse.nn import masks as masking
from lth_sparse.nn.masks import Masks
from lth_sparse.nn.synchronised_norm import synchronise
from lth_sparse.settings.checks import flag
from lth_sparse.settings.config import Config
from lth_sparse.system import processes
from lth_sparse.system.errors import InputError
from lth_sparse.system.memory_formats import MEMORY_FORMATS, put_in_format
from lth_sparse.system.seeding import derive
from lth_sparse.system.timing import MOST_STEPS, WARM_UP_STEPS, side_by_side

CRITERION_IMAGES = 1000


@dataclass(frozen=True)
class Way:
    """How a training is computed: by the backend of that name, the network in the memory format of that name."""

    backend: str
    memory_format: str


class Task:
    """The network with its initial weights, and the trainings that can be made of it.

    `model` (default: what `beginning.initial` gives) is the network that `network` names, and is the task's own then.
    `model` is the dense network with the weights of the moment, pruned ones at zero; `data` lies on `device`. Both are
    in `memory_format`, at first the one in which the network is faster as a rule. `kinds` says of each prunable layer
    what it is. Of several processes, each has one; copies synchronise their BatchNorms as `model` does.
    """

    def __init__(
        self,
        config: Config,
        data: Dataset,
        network: models.Network,
        device: torch.device,
        model: nn.Module | None = None,
    ) -> None:
        if model is None:
            model, _ = initial(config, network)
        self.config = config
        self.network = network
        self.device = device
        self.usual_format = models.faster_format(model)
        self.memory_format = self.usual_format
        self.model = put_in_format(model.to(device), self.memory_format)
        self.data = data.to(device, MEMORY_FORMATS[self.memory_format])
        self.kinds = masking.kinds(self.model)
        self._processes = processes.count()
        if self._processes > 1 and config.training.batch_norm == "synchronised":
            synchronise(self.model)

    def put_in_format(self, memory_format: str) -> None:
        """Lays the network and the images out anew, where they are in another format."""
        if memory_format != self.memory_format:
            put_in_format(self.model, memory_format)
            self.data = self.data.to(self.device, MEMORY_FORMATS[memory_format])
            self.memory_format = memory_format

    @property
    def steps(self) -> int:
        """Of a training from its beginning."""
        return length(self.config.training, self.batches(0).per_epoch)

    @property
    def step_size(self) -> int:
        """Images of a step in a process: of a part of a batch, the largest."""
        return -(-self.batches(0).size // self._processes)

    @property
    def rewind_iteration(self) -> int:
        """The step of the dense training whose weights are the rewind weights, given as such or as an epoch."""
        pruning = self.config.pruning
        if pruning.rewind_epoch is None:
            return pruning.rewind_iteration
        return pruning.rewind_epoch * self.batches(0).per_epoch

    def check_schedule(self) -> None:
        """Raises InputError, before any training, for what could only fail in a later round."""
        pruning = self.config.pruning
        if (size := self.batches(0).size) < self._processes:
            raise InputError(
                f"--batch-size {self.config.training.batch_size}: a step on {size} images is for at most {size} "
                f"processes, and there are {self._processes}; give a larger one, or torchrun fewer processes"
            )
        if self.rewind_iteration >= self.steps:
            given = "rewind_iteration" if pruning.rewind_epoch is None else "rewind_epoch"
            what = "" if pruning.rewind_epoch is None else f" is step {self.rewind_iteration}"
            raise InputError(
                f"{flag(given)} {getattr(pruning, given)}{what}: expected fewer than the {self.steps} steps of a "
                "training run"
            )
        if pruning.instability and (last := max(pruning.instability)) >= self.steps:
            raise InputError(f"--instability {last}: expected steps before the {self.steps} of a training run are over")
        for round in range(pruning.rounds + 1):
            density_after(pruning, round, self._sizes, self.kinds)
        if pruning.rounds:
            self._rule()

    def density_before(self, round: int) -> dict[str, float]:
        """Layer -> fraction of its weights that are alive when a ticket of `round` begins to be trained."""
        if self.config.pruning.schedule == "gradual":
            return dict.fromkeys(self._sizes, 1.0)
        return density_after(self.config.pruning, round, self._sizes, self.kinds)

    @property
    def _sizes(self) -> dict[str, int]:
        return {name: weight.numel() for name, weight in masking.prunable(self.model).items()}

    def _rule(self) -> Rule | None:
        pruning = self.config.pruning
        return rule_of(pruning, self._sizes, self.kinds, self.rewind_iteration, self.steps)

    def changes(self, label: tuple[int, str]) -> Changes | None:
        """What changes the topology of the training of `label`, its round and its arm; None where it stays."""
        rule = self._rule()
        return None if rule is None else Changes(rule, self.model, derive(self.config.seed, "topology", *label))

    def evidence(self, round: int) -> Evidence:
        """What a criterion may ask for in `round`: the loss on the first thousand images or so of round 0's training,
        and one of them."""
        batches = self.batches(0)
        count = min(batches.per_epoch, -(-CRITERION_IMAGES // batches.size))

        def loss(model: nn.Module) -> Tensor:
            chosen = [batches[number] for number in range(count)]
            return torch.stack([functional.cross_entropy(model(images), labels) for images, labels in chosen]).mean()

        return Evidence(loss, batches[0][0][:1], derive(self.config.seed, "criterion", round))

    def batches(self, round: int, order: int = 0) -> Batches:
        """The batches of `round` in one of its orders, of which an arm says which it is trained in."""
        return self._batches(self.data, round, order)

    def copy(self, masks: Masks, backend: str) -> nn.Module:
        """A copy of the network, with the weights of the moment, as `backend` computes it."""
        return self._computed_by(backend, copy.deepcopy(self.model), masks)

    def training(
        self,
        model: nn.Module,
        masks: Masks,
        label: tuple[int, str],
        start: int = 0,
        last_rate: bool = False,
        order: int = 0,
        changes: Changes | None = None,
    ) -> Training:
        """A training of `model`, new, from step `start`. `label`: its round and its arm. `last_rate`: at the learning
        rate of the schedule's last step. `order`: of its batches. `changes`: of its topology."""
        config = self.config.training
        if last_rate:
            last = learning_rate(config, self.steps - 1, self.steps)
            # The schedule is that of steps: `config.check` refuses fine-tuning at a cosine's end.
            config = replace(config, learning_rate=last, warmup=0, milestones=())
        return Training(model, masks, self.data, self.batches(label[0], order), config, label, start, changes)

    def contestant(self, way: Way, masks: Masks, round: int) -> Training:
        """A training to be timed, of a copy of the network, on no more images than that needs: the steps of one of
        the processes, without what they send each other."""
        data = self.data
        if self.device.type == "cpu":
            data = data.beginning((WARM_UP_STEPS + MOST_STEPS) * self.config.training.batch_size)
            data = data.to(self.device, MEMORY_FORMATS[way.memory_format])
        model = self._computed_by(way.backend, put_in_format(copy.deepcopy(self.model), way.memory_format), masks)
        batches = self._batches(data, round, size=self.step_size)
        return Training(model, masks, data, batches, self.config.training, (round, "timing"))

    def times(self, contestants: Sequence[Training], most: int = MOST_STEPS) -> list[float]:
        """Milliseconds of a step of each of these trainings, at most `most` taken in turn.

        On a GPU they are CUDA graphs, as in the training itself.
        """
        for contestant in contestants:
            contestant.warm_up()
        return side_by_side([contestant.step for contestant in contestants], self.device, most=most)

    def _computed_by(self, backend: str, model: nn.Module, masks: Masks) -> nn.Module:
        if backend == "dense":
            return model
        model = sparsify(model, masks, backend)
        return fuse(model) if self.config.fuse and self.device.type == "cpu" else model

    def _batches(self, data: Dataset, round: int, order: int = 0, size: int | None = None) -> Batches:
        seed = derive(self.config.seed, "training", round, *([order] if order else []))
        return Batches(data, size or self.config.training.batch_size, self.config.data.augmentation, seed)
