"""The topology of one training: changed between its steps by a rule, and the time that this takes."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from lth_sparse.lottery.criteria.interface import slopes_of, weights_of
from lth_sparse.lottery.held_masks import HeldMasks
from lth_sparse.lottery.topology.interface import Moment, Rule
from lth_sparse.nn.forms import dense_state, shared_by_ties
from lth_sparse.nn.masks import Masks, prunable, weight_name
from lth_sparse.system import processes
from lth_sparse.system.seeding import derive


@dataclass
class Clock:
    """Seconds that changes of a topology took: `gradient`, dense gradients; `repacking`, all else that is done between
    two steps. `following`: of the `following_steps` steps after a change, in which kernels may still set up what they
    need, and auto may measure."""

    gradient: float = 0.0
    repacking: float = 0.0
    following: float = 0.0
    following_steps: int = 0

    def repacking_with_surplus(self, seconds: float, steps: int) -> float:
        """What repacking took in a training of so many `seconds` and `steps`, with what the steps after a change took
        more than as many others did on average."""
        others = steps - self.following_steps
        if not others:
            return self.repacking
        each = (seconds - self.gradient - self.repacking - self.following) / others
        return self.repacking + max(0.0, self.following - self.following_steps * each)

    @contextmanager
    def of_a_following_step(self, device: torch.device) -> Iterator[None]:
        """Times what is done inside."""
        began = _now(device)
        yield
        self.following += _now(device) - began
        self.following_steps += 1


class Changes:
    """What `rule` makes of the masks of one training.

    `network`: the network as a dense one, with the weights that the training begins with; it is copied for each dense
    gradient, so that the training's running statistics and PyTorch's random state stay as they are. `seed`: of what is
    left to chance, with the step.
    """

    def __init__(self, rule: Rule, network: nn.Module, seed: int) -> None:
        self.rule = rule
        self.clock = Clock()
        self._network = network
        self._seed = seed

    def due(self, step: int) -> bool:
        """Whether the topology changes before this step."""
        return self.rule.updates.due(step)

    def typical(self, masks: Masks) -> Masks:
        """Masks as dense as those of the training for the most part, which begins with `masks`."""
        return self.rule.typical(masks, {name: weight.detach() for name, weight in prunable(self._network).items()})

    def make(
        self,
        step: int,
        held: HeldMasks,
        optimizer: torch.optim.Optimizer,
        images: Tensor,
        labels: Tensor,
        share: float = 1.0,
    ) -> None:
        """Changes the masks of the network that `held` holds before `step`, whose batch is given, or of several
        processes the part of this one, with what its mean counts in their average."""
        began, gradients_before = _now(images.device), self.clock.gradient
        state = dense_state(held.model)

        def gradient() -> Mapping[str, Tensor]:
            asked = _now(images.device)
            seed = derive(self._seed, "network", step, *processes.own_seed())
            found = self._gradient(state, held, images, labels, seed, share)
            self.clock.gradient += _now(images.device) - asked
            return found

        weights = {name: state[weight_name(name)] for name in held.masks}
        moment = Moment(step, weights, gradient, derive(self._seed, step))
        changed = self.rule.changed(held.masks, moment)
        shared = shared_by_ties(held.model, processes.first(lambda: changed))
        held.change({name: shared[name] for name in held.masks}, optimizer)
        self.clock.repacking += _now(images.device) - began - (self.clock.gradient - gradients_before)

    def _gradient(
        self, state: Mapping[str, Tensor], held: HeldMasks, images: Tensor, labels: Tensor, seed: int, share: float
    ) -> Mapping[str, Tensor]:
        copied = copy.deepcopy(self._network).train()
        copied.load_state_dict(state)
        devices = [images.device] if images.is_cuda else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(seed)  # Of dropout.
            loss = functional.cross_entropy(copied(images), labels) * share
        slopes = slopes_of(loss, weights_of(copied, held.masks))
        return {name: processes.averaged(slope) for name, slope in slopes.items()}


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
