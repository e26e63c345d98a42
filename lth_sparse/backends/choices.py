"""What `auto` has chosen, and its plain JSON form: with it a run is repeated bit for bit, and nothing is measured."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple, get_args

import torch

from lth_sparse.plans.layer_spec import Kind, LayerSpec
from lth_sparse.system import checked_json as read
from lth_sparse.system.memory_formats import MEMORY_FORMATS

OPERATIONS = ("forward", "grad_input", "grad_weight")

CLOSE = 2.0
"""Batch sizes whose ratio is at most this share a choice whose winner leads by at least as much.

Between N and 2 N images the time of any backend at most doubles, so such a lead holds at both. A closer race is run
again at each batch size.
"""
CLOSE_DENSITY = 1.3
"""The same for numbers of live weights: pruned by a fifth, or moved about, a layer keeps a choice that is clear."""
MOST_SIZES = 8
"""Batch sizes at which one layer's operation is measured; then the nearest decides, or a layer that is given another
number of images at each call would be measured for ever."""


class Key(NamedTuple):
    """What the time of one operation of a layer depends on."""

    operation: str
    spec: LayerSpec
    input_shape: tuple[int, ...]
    layout: str
    """Memory format of what is read beside the weight: "contiguous", "channels_last", "strided" or "mixed"."""
    nnz: int
    dtype: torch.dtype
    device: str
    threads: int
    float32: str = ""
    """On a GPU, what float32 is multiplied in, "tf32" or "ieee"; on the CPU, how far Winograd's algorithm may go,
    "winograd 4x4", for layers that it computes; "" for others and other dtypes."""

    @property
    def batch_size(self) -> int:
        """Images, or rows of a linear layer's input."""
        return self.input_shape[0]

    def family(self) -> Key:
        """The same for every batch size."""
        return self._replace(input_shape=(0, *self.input_shape[1:]))

    def topologies(self) -> Key:
        """The same for every number of live weights."""
        return self._replace(nnz=0)

    def nothing_pruned(self) -> bool:
        """Whether the values are the dense weight, which otherwise has to be made of them."""
        return self.nnz == math.prod(self.spec.weight_shape)


class StepKey(NamedTuple):
    """What the time of a whole network's training step depends on. `live`: live weights, layer by layer."""

    network: str
    input_shape: tuple[int, ...]
    batch_size: int
    optimizer: str
    live: tuple[int, ...]
    device: str
    threads: int
    ways: str = ""
    """The settings of a run on the CPU that change how a step is computed: "winograd 4x4, fused"."""


class FormatKey(NamedTuple):
    """What tells which memory format a network's training step is faster in, computed by `backend`.

    That of masked dense PyTorch does not depend on the masks: there `step.live` is empty.
    """

    step: StepKey
    backend: str

    @property
    def live(self) -> int:
        """Live weights of all layers."""
        return sum(self.step.live)

    def family(self) -> FormatKey:
        """The same for every mask."""
        return self._replace(step=self.step._replace(live=()))


@dataclass(frozen=True)
class FormatChoice:
    """The memory format chosen, by its name in MEMORY_FORMATS, and the median milliseconds of a step in each.

    `measured_at`: how many live weights the network had that was measured, when it had more of them.
    """

    memory_format: str
    milliseconds: Mapping[str, float]
    measured_at: int | None = None

    @property
    def lead(self) -> float:
        """The time in the other format over that in the one chosen."""
        others = [value for name, value in self.milliseconds.items() if name != self.memory_format]
        return min(others, default=math.inf) / self.milliseconds[self.memory_format]


@dataclass(frozen=True)
class Choice:
    """The backend chosen, and why: the least milliseconds of each backend that was measured, and what each one
    that `failed` said. `measured_at`, `measured_live`: the batch size and the number of live weights that were
    measured, when they were others."""

    backend: str
    milliseconds: Mapping[str, float] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)
    measured_at: int | None = None
    measured_live: int | None = None

    @property
    def lead(self) -> float:
        """The time of the best of the others over that of the backend chosen; below 1 when it is not the fastest."""
        others = [value for name, value in self.milliseconds.items() if name != self.backend]
        own = self.milliseconds.get(self.backend, math.inf)
        return min(others, default=math.inf) / own if own > 0 else math.inf


class Choices:
    """The choices of a process or of a run: `layers` for operations, `steps` for what computes a whole training step,
    `formats` for the memory format that it is computed in."""

    def __init__(self) -> None:
        self.layers: dict[Key, Choice] = {}
        self.steps: dict[StepKey, Choice] = {}
        self.formats: dict[FormatKey, FormatChoice] = {}
        self._sizes: dict[Key, dict[int, Choice]] = {}
        self._densities: dict[Key, dict[int, Choice]] = {}

    def __len__(self) -> int:
        return len(self.layers) + len(self.steps) + len(self.formats)

    def add(self, key: Key, choice: Choice) -> None:
        """Remembers what was chosen for an operation."""
        self.layers[key] = choice
        # What was taken over settles nothing itself, or it would creep from one to the next.
        if choice.measured_at is None and choice.measured_live is None:
            self._sizes.setdefault(key.family(), {})[key.batch_size] = choice
            self._densities.setdefault(key.topologies(), {})[key.nnz] = choice

    def update(self, other: Choices) -> None:
        """Adds those of `other`, whose word counts where both have one."""
        if other is self:
            return
        for key, choice in other.layers.items():
            self.add(key, choice)
        self.steps.update(other.steps)
        self.formats.update(other.formats)

    def from_a_like_one(self, key: Key) -> Choice | None:
        """The choice for `key` that what was measured at a like density, or at another batch size, settles."""
        return self._from_another_density(key) or self._from_another_size(key)

    def _from_another_density(self, key: Key) -> Choice | None:
        if not key.nnz:
            return None
        densities = {
            nnz: choice
            for nnz, choice in self._densities.get(key.topologies(), {}).items()
            if nnz and key._replace(nnz=nnz).nothing_pruned() == key.nothing_pruned()
        }
        if not densities:
            return None
        nearest = min(densities, key=lambda nnz: max(nnz, key.nnz) / min(nnz, key.nnz))
        choice = densities[nearest]
        if max(nearest, key.nnz) / min(nearest, key.nnz) <= CLOSE_DENSITY <= choice.lead:
            return replace(choice, measured_live=nearest)
        return None

    def _from_another_size(self, key: Key) -> Choice | None:
        """The choice for `key` that what was measured at another batch size settles, if it does."""

        def ratio(size: int) -> float:
            return max(size, key.batch_size) / min(size, key.batch_size)

        sizes = self._sizes.get(key.family(), {})
        if not sizes:
            return None
        nearest = min(sizes, key=ratio)
        choice = sizes[nearest]
        if (ratio(nearest) <= CLOSE <= choice.lead) or len(sizes) >= MOST_SIZES:
            return replace(choice, measured_at=nearest)
        return None

    def backends(self) -> set[str]:
        """Every backend that was chosen for something."""
        return {choice.backend for choice in (*self.layers.values(), *self.steps.values())}

    def made_elsewhere(self, device: str, threads: int) -> int:
        """How many were made on another type of device, or with another number of threads."""
        conditions = [(key.device, key.threads) for key in self.layers]
        conditions += [(key.device, key.threads) for key in self.steps]
        conditions += [(key.step.device, key.step.threads) for key in self.formats]
        return sum(condition != (device, threads) for condition in conditions)

    def include(self, other: Choices) -> bool:
        """Whether all of `other` is chosen here too, and in the same way."""
        return (
            other.layers.items() <= self.layers.items()
            and other.steps.items() <= self.steps.items()
            and other.formats.items() <= self.formats.items()
        )

    def to_json(self) -> dict[str, Any]:
        """The choices as JSON-ready data; `from_json` gives them back."""
        layers = [
            {**key._asdict(), "spec": asdict(key.spec), "dtype": str(key.dtype).removeprefix("torch.")} | asdict(choice)
            for key, choice in self.layers.items()
        ]
        steps = [key._asdict() | asdict(choice) for key, choice in self.steps.items()]
        formats = [
            {"backend": key.backend, **key.step._asdict()} | asdict(choice) for key, choice in self.formats.items()
        ]
        return {"layers": layers, "steps": steps, "formats": formats}

    @classmethod
    def from_json(cls, data: Any) -> Choices:
        """The choices that `to_json` wrote. Raises ValueError, in one sentence, when these are not."""
        choices = cls()
        for number, entry in enumerate(read.listed(read.mapping(data, "the file"), "layers", "the file")):
            where = f"layers[{number}]"
            key = _layer_key(read.mapping(entry, where), where)
            choices.add(key, _choice(entry, where))
        for number, entry in enumerate(read.listed(data, "steps", "the file")):
            where = f"steps[{number}]"
            step = _step_key(read.mapping(entry, where), where)
            choices.steps[step] = _choice(entry, where)
        # Files of version 0.1.0 have none.
        for number, entry in enumerate(read.listed({"formats": []} | dict(data), "formats", "the file")):
            where = f"formats[{number}]"
            step = _step_key(read.mapping(entry, where), where)
            choices.formats[FormatKey(step, read.text(entry, "backend", where))] = _format_choice(entry, where)
        return choices


def _layer_key(entry: Mapping[str, Any], where: str) -> Key:
    operation, layout = read.text(entry, "operation", where), read.text(entry, "layout", where)
    if operation not in OPERATIONS:
        raise ValueError(f"{where}.operation is {operation!r}, expected one of {', '.join(OPERATIONS)}")
    dtype = getattr(torch, read.text(entry, "dtype", where), None)
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"{where}.dtype is {entry['dtype']!r}, expected a dtype of torch")
    input_shape = read.sizes(entry, "input_shape", where)
    spec = _spec(read.mapping(entry.get("spec"), f"{where}.spec"), f"{where}.spec")
    if len(input_shape) != (2 if spec.kind == "linear" else 4) or not input_shape[0]:
        raise ValueError(f"{where}.input_shape is {list(input_shape)}, which is no input of a {spec.kind} layer")
    return Key(
        operation,
        spec,
        input_shape,
        layout,
        read.count(entry, "nnz", where),
        dtype,
        read.text(entry, "device", where),
        read.count(entry, "threads", where),
        read.text(entry, "float32", where) if "float32" in entry else "",
    )


def _spec(entry: Mapping[str, Any], where: str) -> LayerSpec:
    kind = read.text(entry, "kind", where)
    if kind not in get_args(Kind):
        raise ValueError(f"{where}.kind is {kind!r}, expected conv2d or linear")
    values: dict[str, Any] = {"kind": kind}
    for name in ("in_channels", "out_channels", "groups"):
        values[name] = read.count(entry, name, where)
    for name in ("kernel_size", "stride", "padding", "dilation"):
        values[name] = read.sizes(entry, name, where)
        if len(values[name]) != 2:
            raise ValueError(f"{where}.{name} is {list(values[name])}, expected two numbers")
    return LayerSpec(**values)


def _step_key(entry: Mapping[str, Any], where: str) -> StepKey:
    return StepKey(
        read.text(entry, "network", where),
        read.sizes(entry, "input_shape", where),
        read.count(entry, "batch_size", where),
        read.text(entry, "optimizer", where),
        read.sizes(entry, "live", where),
        read.text(entry, "device", where),
        read.count(entry, "threads", where),
        read.text(entry, "ways", where) if "ways" in entry else "",
    )


def _format_choice(entry: Mapping[str, Any], where: str) -> FormatChoice:
    chosen, milliseconds = read.text(entry, "memory_format", where), read.times(entry, "milliseconds", where)
    for name in (chosen, *milliseconds):
        if name not in MEMORY_FORMATS:
            raise ValueError(f"{where} has memory format {name!r}, expected one of {', '.join(MEMORY_FORMATS)}")
    if not milliseconds.get(chosen):
        raise ValueError(f"{where}.milliseconds has no time of {chosen}, which it chose")
    measured_at = entry.get("measured_at")
    return FormatChoice(chosen, milliseconds, None if measured_at is None else read.count(entry, "measured_at", where))


def _choice(entry: Mapping[str, Any], where: str) -> Choice:
    milliseconds = read.times(entry, "milliseconds", where)
    failed = read.mapping(entry.get("failed"), f"{where}.failed")
    others = {
        name: None if entry.get(name) is None else read.count(entry, name, where)
        for name in ("measured_at", "measured_live")  # Files of 0.1.0 do not have the second.
    }
    return Choice(read.text(entry, "backend", where), milliseconds, {n: str(v) for n, v in failed.items()}, **others)
