"""One training run of one network, in steps that can be interrupted after any of them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lth_sparse.data.batches import Batches
from lth_sparse.data.dataset import Dataset
from lth_sparse.data.resident import ResidentEpoch
from lth_sparse.lottery import divergence
from lth_sparse.lottery.data_parallel import DataParallelNetwork
from lth_sparse.lottery.divergence import Diverged
from lth_sparse.lottery.evaluation import evaluate
from lth_sparse.lottery.held_masks import HeldMasks
from lth_sparse.lottery.optimizer import ADAMS, optimizer_of, recordable_optimizer
from lth_sparse.lottery.step_graph import StepGraph, recordable
from lth_sparse.lottery.topology.changes import Changes, Clock
from lth_sparse.nn.forms import own_masks
from lth_sparse.nn.masks import Masks
from lth_sparse.settings.config import TrainingConfig
from lth_sparse.storage.record import CurvePoint
from lth_sparse.storage.ticket import pack, unpack
from lth_sparse.system import chance, processes
from lth_sparse.system import checked_json as read
from lth_sparse.system.errors import InputError
from lth_sparse.system.seeding import derive

LEARNING_RATE_DROP = 10


def learning_rate(config: TrainingConfig, iteration: int, total: int) -> float:
    """Of step `iteration` (from 0) among `total`, and of nothing else: a training that begins later has the same rates.

    Linear warm-up, then a tenth at each milestone passed, or half a cosine, which is at 0 after the last step
    (Loshchilov and Hutter 2017, arXiv:1608.03983, equation 5, without restarts).
    """
    warm = min(1.0, (iteration + 1) / config.warmup) if config.warmup else 1.0
    if config.learning_rate_schedule == "cosine":
        passed = max(0, iteration - config.warmup) / max(1, total - config.warmup)
        return config.learning_rate * warm * (1 + math.cos(math.pi * passed)) / 2
    milestones = sum(iteration >= fraction * total for fraction in config.milestones)
    return config.learning_rate * warm / LEARNING_RATE_DROP**milestones


def length(config: TrainingConfig, per_epoch: int) -> int:
    """Steps of a training run, whether it was given in iterations or in epochs."""
    if config.iterations is not None:
        return config.iterations
    if config.epochs is None:
        raise InputError("the length of a training run is not set: give --epochs or --iterations")
    return config.epochs * per_epoch


class Training:
    """Trains `model` from step `start` to the end of the schedule, its pruned weights held at exactly zero.

    The dense backend's arithmetic: a plain PyTorch step, then the masks. The optimizer is new and empty. `curve`
    holds an evaluation on the validation set every `evaluate_every` steps; `best_weights` are those at the minimum
    of the validation loss (the early-stop criterion of Frankle and Carbin 2019), with the masks of that moment where
    layers are sparse. `changes`: what changes the masks between steps; without it they stay. `check_finite`: whether
    each step looks at its loss, its gradients and its weights.

    On a GPU a step finds all that it needs there, and is recorded as a CUDA graph after a few steps, anew after a
    change of the masks, which never ran on a GPU; between two evaluations of an epoch the host does not wait for it.

    Several processes, which all do this, have a part of each batch and average their gradients; between steps they hold
    the same numbers. Their step is not recorded.
    """

    def __init__(
        self,
        model: nn.Module,
        masks: Masks,
        data: Dataset,
        batches: Batches,
        config: TrainingConfig,
        label: tuple[int, str],
        start: int = 0,
        changes: Changes | None = None,
    ) -> None:
        device = data.train.images.device
        self.model = model
        self.iteration = self._first = start
        self.total = length(config, batches.per_epoch)
        self.curve: list[CurvePoint] = []
        self.best_weights: dict[str, Tensor] = {}
        self.best_loss = math.inf
        self.early_stop = start
        self.images_seen = 0
        self.seconds = 0.0
        self.check_finite = False
        self._chance: dict[str, Tensor] = {}
        self._data = data
        self._batches = batches
        self._config = config
        self.round, self._arm = label
        self._held = HeldMasks(model, masks)
        self._network = DataParallelNetwork(self._held, label)
        self._changes = changes
        self._changed = False
        self._began_with = masks
        self._loss_sum = torch.zeros((), device=device)
        self._loss_count = 0
        self._graph: StepGraph | None = None
        if recordable(device):
            self._graph = StepGraph(device)
            self._resident = ResidentEpoch(batches, partial(learning_rate, config, total=self.total), device)
            self.optimizer = recordable_optimizer(model, config, device)
        else:
            self.optimizer = optimizer_of(model, config)
        model.train()

    @property
    def masks(self) -> Masks:
        """Those of the moment."""
        return self._held.masks

    @property
    def live_at_the_end(self) -> Mapping[tuple[str, ...], int] | None:
        """How many weights live when it is over, by the layers that share the number; None where the masks stay."""
        return None if self._changes is None else self._changes.rule.live_at_the_end(self._began_with)

    @property
    def repacking_seconds(self) -> float | None:
        """Of `seconds`: what changes of the topology took, dense gradients aside; None where it stays."""
        if self._changes is None:
            return None
        return self._changes.clock.repacking_with_surplus(self.seconds, self.iteration - self._first)

    @property
    def dense_gradient_seconds(self) -> float | None:
        """Of `seconds`: what dense gradients took, for changes of the topology; None where it stays."""
        return None if self._changes is None else self._changes.clock.gradient

    @property
    def epoch(self) -> int:
        """Epochs finished."""
        return self.iteration // self._batches.per_epoch

    @property
    def images_per_second(self) -> float:
        """Of training alone, evaluations left out."""
        return self.images_seen / self.seconds if self.seconds else math.nan

    @property
    def not_recorded(self) -> str:
        """Why the step could not be recorded as a CUDA graph; "" where it is, is still to be, or need not be."""
        if self._graph is None:
            return "several processes average its gradients" if self._loss_sum.is_cuda else ""
        return self._graph.refusal

    def warm_up(self) -> None:
        """On a GPU, steps until it is settled whether the step is recorded: the next ones all take the same way."""
        while self._graph is not None and not self._graph.settled:
            self.step()

    def step(self) -> None:
        """One step of the optimizer on the next batch."""
        if self._graph is None:
            rate = learning_rate(self._config, self.iteration, self.total)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            self._learn(*self._batches.part(self.iteration))
        else:
            self._resident.seek(self.iteration)
            self._graph(self._learn_from_resident)
        self._loss_count += 1
        self.images_seen += self._batches.size
        self.iteration += 1

    def _learn_from_resident(self) -> None:
        """The whole step on the device. It is recorded, so nothing in it may depend on the host from step to step."""
        images, labels, rate = self._resident.take()
        for group in self.optimizer.param_groups:
            group["lr"].copy_(rate[0])
        self._learn(images, labels)

    def _learn(self, images: Tensor, labels: Tensor) -> None:
        loss = self._network.loss(images, labels, self._batches.size)
        if self.check_finite:
            divergence.check_loss(loss, self.model, images)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.check_finite:
            divergence.check_gradients(self.model)
        self.optimizer.step()
        self._held.apply()
        self._network.after_step()
        if self.check_finite:
            divergence.check_weights(self.model)
        self._loss_sum += loss.detach()

    def run(self, end_of_epoch: Callable[[], None], progress: Callable[[], None]) -> None:
        """Trains to the end. `progress` is called after every step, `end_of_epoch` after every epoch and at the end.

        What the network itself leaves to chance, dropout, is drawn anew in each epoch, by PyTorch's own generator, in
        each process by itself: a training that goes on from a state draws as one that was never interrupted.
        Raises Diverged when the loss is no longer finite: at the next evaluation, or at once with `check_finite`.
        """
        first = self.iteration
        while self.iteration < self.total:
            if self.iteration == first and self._chance:
                chance.restore(self._chance, self._loss_sum.device)
            elif self.iteration == first or self.iteration % self._batches.per_epoch == 0:
                torch.manual_seed(derive(self._batches.seed, "network", self.iteration, *processes.own_seed()))
            began = time.perf_counter()
            if self._changes is not None and self._changes.due(self.iteration):
                self._change_topology(self._changes)
            self._timed_step()
            finished = self.iteration == self.total
            evaluation_due = finished or self.iteration % self._config.evaluate_every == 0
            epoch_ends = finished or self.iteration % self._batches.per_epoch == 0
            if (evaluation_due or epoch_ends) and self._loss_sum.is_cuda:
                # The host is far ahead, and what follows waits for the GPU: that time is the steps' own.
                torch.cuda.synchronize(self._loss_sum.device)
            self.seconds += time.perf_counter() - began
            if evaluation_due or epoch_ends:
                self._loss_sum.copy_(processes.averaged(self._loss_sum))
            if evaluation_due:
                self._evaluate()
            progress()
            if epoch_ends:
                end_of_epoch()

    def _change_topology(self, changes: Changes) -> None:
        share = processes.share(self._batches.size)
        changes.make(self.iteration, self._held, self.optimizer, *self._batches.part(self.iteration), share)
        self._network.masks_changed()
        self._changed = True
        if self._graph is not None:
            self._graph = StepGraph(self._loss_sum.device)

    def _timed_step(self) -> None:
        """A step; those that follow a change are timed by themselves, until one is like all others again."""
        if self._changes is None or not self._changed:
            self.step()
            return
        with self._changes.clock.of_a_following_step(self._loss_sum.device):
            self.step()
        self._changed = self._graph is not None and not self._graph.settled

    def _evaluate(self) -> None:
        train_loss = float(self._loss_sum) / self._loss_count
        found = evaluate(self.model, self._data.validation, self._data)
        if not math.isfinite(train_loss) or not math.isfinite(found.loss):
            raise Diverged(f"the loss is {train_loss}, in validation {found.loss}")
        self._loss_sum.zero_()
        self._loss_count = 0
        self.curve.append(CurvePoint(self.round, self._arm, self.iteration, train_loss, found.loss, found.accuracy))
        if found.loss < self.best_loss:
            self.best_loss, self.early_stop = found.loss, self.iteration
            self.best_weights = copy_of_state(self.model)

    def check_state(self) -> None:
        """Raises Diverged where a state of this moment would be one of a training that has diverged."""
        if not math.isfinite(float(self._loss_sum)):
            raise Diverged(f"the loss is {float(self._loss_sum)}")
        if not divergence.state_is_finite(self.model):
            raise Diverged("weights are not finite")

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """(tensors, JSON-ready data) from which `restore` goes on, bit for bit."""
        tensors = {f"model/{name}": value for name, value in self.model.state_dict().items()}
        tensors |= {f"best/{name}": value for name, value in self.best_weights.items()}
        tensors["loss_sum"] = self._loss_sum
        if self._changes is not None:
            tensors |= {f"topology/{name}": pack(mask) for name, mask in self.masks.items()}
        tensors |= {f"optimizer/{name}": value for name, value in self.optimizer_state().items()}
        if self.iteration % self._batches.per_epoch:  # An epoch begins with generators of its own.
            tensors |= {f"chance/{device}": state for device, state in chance.state(self._loss_sum.device).items()}
        return tensors, {
            "iteration": self.iteration,
            "loss_count": self._loss_count,
            "best_loss": self.best_loss,
            "early_stop": self.early_stop,
            "images_seen": self.images_seen,
            "seconds": self.seconds,
            "curve": [asdict(point) for point in self.curve],
        } | ({} if self._changes is None else {"topology": asdict(self._changes.clock)})

    def optimizer_state(self) -> dict[str, Tensor]:
        """What the optimizer keeps, by "parameter/name", the parameter as its number."""
        return {
            f"{index}/{name}": value
            for index, entry in self.optimizer.state_dict()["state"].items()
            for name, value in entry.items()
            if value is not None
        }

    def restore(self, tensors: dict[str, Tensor], data: dict[str, Any]) -> None:
        """Takes over what `state` gave, from a Training made with the same arguments."""

        def under(prefix: str) -> dict[str, Tensor]:
            return {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}

        found = read.row(_Progress, data, "training")
        if not 0 <= found.iteration <= self.total or (found.iteration == self.total and not found.curve):
            raise ValueError(f"training.iteration is {found.iteration}, of {self.total}, after {found.curve[-1:]}")
        if found.curve or under("best/"):
            # Sparse layers may have had other masks then, and take them over: so it is seen whether all is there.
            self.model.load_state_dict(under("best/"))
            self.best_weights = copy_of_state(self.model)
        self.model.load_state_dict(under("model/"))
        if self._changes is not None:
            self._restore_masks(self._changes, under("topology/"), data["topology"])
        self._loss_sum.copy_(tensors["loss_sum"])
        self.restore_optimizer(under("optimizer/"))
        self._chance = under("chance/")
        if self._chance:
            chance.check(self._chance, self._loss_sum.device)
        self.iteration, self._loss_count = found.iteration, found.loss_count
        self.best_loss, self.early_stop = found.best_loss, found.early_stop
        self.images_seen, self.seconds = found.images_seen, found.seconds
        self.curve = [read.row(CurvePoint, point, f"curve[{number}]") for number, point in enumerate(found.curve)]

    def restore_optimizer(self, kept: Mapping[str, Tensor]) -> None:
        """Takes over what `optimizer_state` gave, of a training of the same parameters."""
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        entries: dict[int, dict[str, Tensor]] = {}
        for name, value in kept.items():
            index, key = name.split("/", 1)
            parameter = parameters[int(index)]
            if value.shape == parameter.shape:
                # In the parameter's memory layout, as the optimizer made it; a file knows only one layout.
                value = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
            elif value.dim():
                raise ValueError(f"optimizer/{name} has shape {tuple(value.shape)}, not the parameter's")
            entries.setdefault(int(index), {})[key] = value
        expected = _STATE_OF[type(self.optimizer)]
        if wrong := [index for index, entry in entries.items() if entry.keys() != expected]:
            raise ValueError(f"optimizer/{wrong[0]} has {sorted(entries[wrong[0]])}, expected {sorted(expected)}")
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": entries, "param_groups": groups})

    def _restore_masks(self, changes: Changes, packed: dict[str, Tensor], clock: dict[str, Any]) -> None:
        changes.clock = read.row(Clock, clock, "training.topology")
        masks = {
            name: unpack(packed[name], tuple(mask.shape)).to(mask.device) for name, mask in self._began_with.items()
        }
        if others := [name for name, mask in own_masks(self.model).items() if not torch.equal(mask, masks[name])]:
            raise ValueError(f"topology/{others[0]} is not the mask of the model")
        self._held.take(masks)


def copy_of_state(model: nn.Module) -> dict[str, Tensor]:
    """What `model.load_state_dict` goes back to, the masks of sparse layers with it; it shares no memory."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


_STATE_OF: dict[type, set[str]] = {
    torch.optim.SGD: {"momentum_buffer"},
    **{adam: {"step", "exp_avg", "exp_avg_sq"} for adam in ADAMS.values()},
}


@dataclass(frozen=True)
class _Progress:
    """What a state says of a training, beside its tensors."""

    iteration: int
    loss_count: int
    best_loss: float
    early_stop: int
    images_seen: int
    seconds: float
    curve: list[dict[str, Any]]
    topology: dict[str, Any] = field(default_factory=dict)
