"""What `auto` has chosen, and its plain JSON form: with it a run is repeated bit for bit, and nothing is measured."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple, get_args

import torch

from lth_sparse.plans.layer_spec import Kind, LayerSpec

OPERATIONS = ("forward", "grad_input", "grad_weight")

CLOSE = 2.0
"""Batch sizes whose ratio is at most this share a choice whose winner leads by at least as much.

Between N and 2 N images the time of any backend at most doubles, so such a lead holds at both. A closer race is run
again at each batch size.
"""
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


class StepKey(NamedTuple):
    """What the time of a whole network's training step depends on. `live`: live weights, layer by layer."""

    network: str
    input_shape: tuple[int, ...]
    batch_size: int
    optimizer: str
    live: tuple[int, ...]
    device: str
    threads: int


@dataclass(frozen=True)
class Choice:
    """The backend chosen, and why: the least milliseconds of each backend that was measured, and what each one
    that `failed` said. `measured_at`: the batch size that was measured, when it was another one."""

    backend: str
    milliseconds: Mapping[str, float] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)
    measured_at: int | None = None

    @property
    def lead(self) -> float:
        """The time of the best of the others over that of the backend chosen; below 1 when it is not the fastest."""
        others = [value for name, value in self.milliseconds.items() if name != self.backend]
        own = self.milliseconds.get(self.backend, math.inf)
        return min(others, default=math.inf) / own if own > 0 else math.inf


class Choices:
    """The choices of a process or of a run: `layers` for operations, `steps` for whole training steps."""

    def __init__(self) -> None:
        self.layers: dict[Key, Choice] = {}
        self.steps: dict[StepKey, Choice] = {}
        self._sizes: dict[Key, dict[int, Choice]] = {}

    def __len__(self) -> int:
        return len(self.layers) + len(self.steps)

    def add(self, key: Key, choice: Choice) -> None:
        """Remembers what was chosen for an operation."""
        self.layers[key] = choice
        if choice.measured_at is None:
            self._sizes.setdefault(key.family(), {})[key.batch_size] = choice

    def from_another_size(self, key: Key) -> Choice | None:
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
        return sum(condition != (device, threads) for condition in conditions)

    def include(self, other: Choices) -> bool:
        """Whether all of `other` is chosen here too, and in the same way."""
        return other.layers.items() <= self.layers.items() and other.steps.items() <= self.steps.items()

    def to_json(self) -> dict[str, Any]:
        """The choices as JSON-ready data; `from_json` gives them back."""
        layers = [
            {**key._asdict(), "spec": asdict(key.spec), "dtype": str(key.dtype).removeprefix("torch.")} | asdict(choice)
            for key, choice in self.layers.items()
        ]
        steps = [key._asdict() | asdict(choice) for key, choice in self.steps.items()]
        return {"layers": layers, "steps": steps}

    @classmethod
    def from_json(cls, data: Any) -> Choices:
        """The choices that `to_json` wrote. Raises ValueError, in one sentence, when these are not."""
        choices = cls()
        for number, entry in enumerate(_list(_mapping(data, "the file"), "layers", "the file")):
            where = f"layers[{number}]"
            key = _layer_key(_mapping(entry, where), where)
            choices.add(key, _choice(entry, where))
        for number, entry in enumerate(_list(data, "steps", "the file")):
            where = f"steps[{number}]"
            step = _step_key(_mapping(entry, where), where)
            choices.steps[step] = _choice(entry, where)
        return choices


def _layer_key(entry: Mapping[str, Any], where: str) -> Key:
    operation, layout = _text(entry, "operation", where), _text(entry, "layout", where)
    if operation not in OPERATIONS:
        raise ValueError(f"{where}.operation is {operation!r}, expected one of {', '.join(OPERATIONS)}")
    dtype = getattr(torch, _text(entry, "dtype", where), None)
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"{where}.dtype is {entry['dtype']!r}, expected a dtype of torch")
    input_shape = _sizes(entry, "input_shape", where)
    spec = _spec(_mapping(entry.get("spec"), f"{where}.spec"), f"{where}.spec")
    if len(input_shape) != (2 if spec.kind == "linear" else 4) or not input_shape[0]:
        raise ValueError(f"{where}.input_shape is {list(input_shape)}, which is no input of a {spec.kind} layer")
    return Key(
        operation,
        spec,
        input_shape,
        layout,
        _count(entry, "nnz", where),
        dtype,
        _text(entry, "device", where),
        _count(entry, "threads", where),
        _text(entry, "float32", where) if "float32" in entry else "",
    )


def _spec(entry: Mapping[str, Any], where: str) -> LayerSpec:
    kind = _text(entry, "kind", where)
    if kind not in get_args(Kind):
        raise ValueError(f"{where}.kind is {kind!r}, expected conv2d or linear")
    values: dict[str, Any] = {"kind": kind}
    for name in ("in_channels", "out_channels", "groups"):
        values[name] = _count(entry, name, where)
    for name in ("kernel_size", "stride", "padding", "dilation"):
        values[name] = _sizes(entry, name, where)
        if len(values[name]) != 2:
            raise ValueError(f"{where}.{name} is {list(values[name])}, expected two numbers")
    return LayerSpec(**values)


def _step_key(entry: Mapping[str, Any], where: str) -> StepKey:
    return StepKey(
        _text(entry, "network", where),
        _sizes(entry, "input_shape", where),
        _count(entry, "batch_size", where),
        _text(entry, "optimizer", where),
        _sizes(entry, "live", where),
        _text(entry, "device", where),
        _count(entry, "threads", where),
    )


def _choice(entry: Mapping[str, Any], where: str) -> Choice:
    milliseconds = _mapping(entry.get("milliseconds"), f"{where}.milliseconds")
    for name, value in milliseconds.items():
        if type(value) not in (int, float) or not 0 <= value < math.inf:
            raise ValueError(f"{where}.milliseconds of {name!r} is {value!r}, expected a time of at least 0")
    failed = _mapping(entry.get("failed"), f"{where}.failed")
    measured_at = entry.get("measured_at")
    if measured_at is not None:
        measured_at = _count(entry, "measured_at", where)
    return Choice(
        _text(entry, "backend", where), dict(milliseconds), {n: str(v) for n, v in failed.items()}, measured_at
    )


def _mapping(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{where} is {_short(value)}, expected an object with names and values")
    return value


def _list(entry: Mapping[str, Any], name: str, where: str) -> list[Any]:
    value = entry.get(name)
    if not isinstance(value, list):
        raise ValueError(f'"{name}" of {where} is {_short(value)}, expected a list')
    return value


def _text(entry: Mapping[str, Any], name: str, where: str) -> str:
    value = entry.get(name)
    if not isinstance(value, str):
        raise ValueError(f"{where}.{name} is {_short(value)}, expected text")
    return value


def _count(entry: Mapping[str, Any], name: str, where: str) -> int:
    value = entry.get(name)
    if type(value) is not int or value < 0:
        raise ValueError(f"{where}.{name} is {_short(value)}, expected a whole number of at least 0")
    return value


def _sizes(entry: Mapping[str, Any], name: str, where: str) -> tuple[int, ...]:
    value: Sequence[Any] = _list(entry, name, where)
    if any(type(size) is not int or size < 0 for size in value):
        raise ValueError(f"{where}.{name} is {_short(value)}, expected whole numbers of at least 0")
    return tuple(value)


def _short(value: Any) -> str:
    text = repr(value)
    return "missing" if value is None else text if len(text) <= 40 else f"{text[:37]}..."
