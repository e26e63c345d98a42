"""The auto backend: of those that work here, the fastest one for each layer and operation, found by measuring."""

from __future__ import annotations

import json
import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from torch import Tensor

from lth_sparse.backends import autograd_library, registry, triton, winograd
from lth_sparse.backends.base import Backend, Plan, float32_multiplied_in, forward_relu, memory_format
from lth_sparse.backends.choices import Choice, Choices, Key
from lth_sparse.backends.kept import Kept, keeping, of_this_call
from lth_sparse.plans.layer_spec import LayerSpec
from lth_sparse.plans.pattern import Pattern

FEWEST_CALLS = 3
MOST_CALLS = 12
"""Of each: those that are still as fast as each other then are so near that it does not matter which is chosen."""
BUDGET_SECONDS = 0.05
"""For one operation, all candidates together; the fewest calls are made all the same."""
OUT = 1.5
"""A candidate this many times slower than the fastest is called no more, once the fewest calls are made..."""
HICCUP_SECONDS = 0.1
"""... or at once, when it loses more than any interruption by the operating system could explain."""
MARGIN = 0.95
"""Of dense's time: what the fastest and the median call of another backend must stay below. The clock of a shared
machine drifts by as much between two calls."""

_DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


@dataclass(frozen=True, eq=False)
class AutoPlan(Plan):
    """The plans of all candidates, which share the pattern."""

    contents: Tensor
    """uint8, on the CPU: JSON with, for each candidate, how many tensors of its own its plan has, or why it has none.
    """
    own: tuple[Tensor, ...]

    def tensors(self) -> tuple[Tensor, ...]:
        """The pattern's, the contents, then each candidate's own."""
        return (*self.pattern.tensors(), self.contents, *self.own)

    def slices(self) -> dict[str, tuple[int, int] | str]:
        """Name of each candidate -> where in `own` its tensors are, or why it could not pack."""
        return self._named

    @cached_property
    def _named(self) -> dict[str, tuple[int, int] | str]:
        return _slices(bytes(self.contents.tolist()))

    def of(self, name: str) -> Plan:
        """The plan of the candidate called `name`."""
        where = self.slices()[name]
        return registry.get(name).unpack((*self.pattern.tensors(), *self.own[slice(*where)]), self.spec)


@lru_cache(maxsize=4096)
def _slices(contents: bytes) -> dict[str, tuple[int, int] | str]:
    found: dict[str, tuple[int, int] | str] = {}
    start = 0
    for name, entry in json.loads(contents).items():
        found[name] = entry if isinstance(entry, str) else (start, start + entry)
        start += 0 if isinstance(entry, str) else entry
    return found


def candidates() -> list[str]:
    """What auto chooses from here: backends, or the kernels of one that has several; dense is always one. What runs
    interpreted is there to be checked."""
    names = [name for name, reason in registry.backends().items() if not reason and name != "auto"]
    names = [name for name in names if name != "triton" or not triton.interpreted()]
    return [kernel for name in names for kernel in registry.kernels(name)]


def gain_by_zeros_alone(names: Sequence[str], device: torch.device) -> bool:
    """Whether none of these candidates could gain on dense where nothing is pruned: of cpp's kernels, some do."""
    return device.type != "cpu" or not any(name.partition("/")[0] == "cpp" for name in names)


@registry.register("auto")
class AutoBackend:
    """Measures the candidates the first time that it meets an operation, then remembers; shapes as in `Backend`.

    What is measured is the call itself, on its own tensors, candidates in turn. What is remembered is in `choices`.
    A candidate is chosen over dense only when it is faster by more than noise explains. One that raises is out.
    """

    name = "auto"

    def __init__(self) -> None:
        self._choices = Choices()
        self._renew_lock()
        os.register_at_fork(after_in_child=self._renew_lock)

    def _renew_lock(self) -> None:
        # A fork has no other thread than the one that made it: nobody would release what another one held.
        self._measuring = threading.Lock()

    @property
    def choices(self) -> Choices:
        """What is remembered."""
        return self._choices

    @choices.setter
    def choices(self, choices: Choices) -> None:
        self._choices = choices
        autograd_library.forget()

    def chosen(
        self, plan: Plan, passes: Sequence[str], dtype: torch.dtype, input_shape: tuple[int, ...], layout: str
    ) -> list[str] | None:
        """What is remembered for each of `passes`; None when one is not known yet."""
        assert isinstance(plan, AutoPlan)
        device, names = plan.pattern.mask.device, []
        for each in passes:
            # The node copies what lies otherwise, as it was when the choice was made.
            keys = [_key(each, plan, input_shape, given, dtype, device) for given in (layout, "strided", "mixed")]
            choices = (self._known(key, plan) for key in keys)
            choice = next((choice for choice in choices if choice is not None), None)
            if choice is None:
                return None
            names.append(choice.backend)
        return names

    def matrices(self, plan: Plan) -> Plan | None:
        """The plan of the sparse C++ kernels, if it is among the candidates'."""
        assert isinstance(plan, AutoPlan)
        return plan.of("cpp/sparse") if isinstance(plan.slices().get("cpp/sparse"), tuple) else None

    def refuses(self, device: torch.device) -> str:
        """No device, for dense is always a candidate."""
        return ""

    def supports(self, spec: LayerSpec, dtype: torch.dtype, device: torch.device) -> tuple[bool, str]:
        """What dense supports, which is always a candidate."""
        return registry.get("dense").supports(spec, dtype, device)

    def pack(self, pattern: Pattern, spec: LayerSpec) -> AutoPlan:
        """The plans of every candidate that can compute the layer where the pattern lies, in some dtype."""
        entries: dict[str, int | str] = {}
        own: list[Tensor] = []
        for name in candidates():
            backend = registry.get(name)
            if not any(backend.supports(spec, dtype, pattern.mask.device)[0] for dtype in _DTYPES):
                continue
            try:
                tensors = backend.pack(pattern, spec).tensors()[Pattern.TENSORS :]
            except Exception as error:
                if name == "dense":
                    raise
                entries[name] = _reason(error)
            else:
                entries[name] = len(tensors)
                own += tensors
        contents = torch.frombuffer(bytearray(json.dumps(entries).encode()), dtype=torch.uint8)
        return AutoPlan(spec, pattern, contents, tuple(own))

    def unpack(self, tensors: Sequence[Tensor], spec: LayerSpec) -> AutoPlan:
        """The inverse of `pack(...).tensors()`; the candidates' own plans are unpacked when they are chosen."""
        contents, *own = tensors[Pattern.TENSORS :]
        return AutoPlan(spec, Pattern(*tensors[: Pattern.TENSORS]), contents, tuple(own))

    def forward(self, x: Tensor, values: Tensor, plan: Plan, bias: Tensor | None) -> Tensor:
        """The output, by the backend that is fastest at it."""
        return self._fastest(
            "forward", plan, tuple(x.shape), _layout(x), values,
            lambda backend, own: _in_format_of(x, backend.forward(x, values, own, bias)),
        )  # fmt: skip

    def forward_relu(self, x: Tensor, values: Tensor, plan: Plan, bias: Tensor | None) -> Tensor:
        """The output after ReLU, by the backend that is fastest at the output."""
        return self._fastest(
            "forward", plan, tuple(x.shape), _layout(x), values,
            lambda backend, own: _in_format_of(x, forward_relu(backend, x, values, own, bias)),
        )  # fmt: skip

    def grad_input(self, grad_out: Tensor, values: Tensor, plan: Plan, input_shape: tuple[int, ...]) -> Tensor:
        """The gradient of x, by the backend that is fastest at it."""
        return self._fastest(
            "grad_input", plan, tuple(input_shape), _layout(grad_out), values,
            lambda backend, own: _in_format_of(grad_out, backend.grad_input(grad_out, values, own, input_shape)),
        )  # fmt: skip

    def grad_weight(self, x: Tensor, grad_out: Tensor, plan: Plan) -> Tensor:
        """The gradient of values, by the backend that is fastest at it."""
        layouts = (_layout(x), _layout(grad_out))
        return self._fastest(
            "grad_weight", plan, tuple(x.shape), layouts[0] if layouts[0] == layouts[1] else "mixed", x,
            lambda backend, own: backend.grad_weight(x, grad_out, own),
        )  # fmt: skip

    def _fastest(
        self,
        operation: str,
        plan: Plan,
        input_shape: tuple[int, ...],
        layout: str,
        like: Tensor,
        call: Callable[[Backend, Plan], Tensor],
    ) -> Tensor:
        """`call` on the backend chosen, which is measured first when it is not known yet."""
        assert isinstance(plan, AutoPlan)
        key = _key(operation, plan, input_shape, layout, like.dtype, like.device)
        choice = self._known(key, plan) or self._choose(key, plan, like.device, call)
        return call(registry.get(choice.backend), plan.of(choice.backend))

    def _known(self, key: Key, plan: AutoPlan) -> Choice | None:
        """What is remembered, unless the backend chosen has no plan for this layer."""
        choice = self.choices.layers.get(key)
        return choice if choice is not None and isinstance(plan.slices().get(choice.backend), tuple) else None

    def _choose(
        self, key: Key, plan: AutoPlan, device: torch.device, call: Callable[[Backend, Plan], Tensor]
    ) -> Choice:
        failed: dict[str, str] = {}
        racing: list[str] = []
        for name, where in plan.slices().items():
            if isinstance(where, str):
                failed[name] = where
            elif registry.get(name).supports(plan.spec, key.dtype, device)[0]:
                racing.append(name)
        # An empty batch takes no time, and nothing may be timed while work is recorded instead of done.
        if len(racing) < 2 or not key.batch_size or _recording(device):
            return Choice("dense")
        with self._measuring:
            choice = self.choices.layers.get(key)  # Another thread may have been faster.
            if choice is None or choice.backend not in racing:
                choice = self.choices.from_a_like_one(key)
            if choice is None or choice.backend not in racing:
                plans = {name: plan.of(name) for name in racing}
                calls = {name: _bound(call, registry.get(name), plans[name]) for name in racing}
                # Each candidate finds what this call has kept, and none leaves anything in it.
                kept = of_this_call()
                with keeping(kept and Kept(kept.weight)):
                    choice = _measure(calls, failed, device)
            self.choices.add(key, choice)
        return choice


@contextmanager
def remembering(choices: Choices) -> Iterator[None]:
    """Inside, `auto` measures nothing that `choices` know, and adds what they do not."""
    backend = registry.get("auto")
    assert isinstance(backend, AutoBackend)
    before, backend.choices = backend.choices, choices
    try:
        yield
    finally:
        backend.choices = before


def _key(
    operation: str,
    plan: Plan,
    input_shape: tuple[int, ...],
    layout: str,
    dtype: torch.dtype,
    device: torch.device,
) -> Key:
    return Key(
        operation, plan.spec, input_shape, layout, plan.pattern.nnz, dtype, device.type, torch.get_num_threads(),
        _float32(plan.spec, dtype, device),
    )  # fmt: skip


def _bound(call: Callable[[Backend, Plan], Tensor], backend: Backend, plan: Plan) -> Callable[[], Tensor]:
    return lambda: call(backend, plan)


def _measure(calls: dict[str, Callable[[], Tensor]], failed: dict[str, str], device: torch.device) -> Choice:
    """Times `calls` in turn, after one of each to warm up, and chooses."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    racing = list(calls)
    began = time.perf_counter()
    for turn in range(1 + MOST_CALLS):
        for name in racing[:: 1 if turn % 2 else -1]:
            try:
                took = _timed(calls[name], device)
            except Exception as error:
                failed[name] = _reason(error)
                racing.remove(name)
                del seconds[name]
                continue
            if turn:
                seconds[name].append(took)
        if turn and racing:
            best = min(min(seconds[name]) for name in racing)
            racing = [name for name in racing if not _out(min(seconds[name]), best, turn)]
        spent = time.perf_counter() - began
        if len(racing) < 2 or (turn >= FEWEST_CALLS and spent > BUDGET_SECONDS):
            break
    return _winner(seconds, failed)


def _out(least: float, best: float, calls: int) -> bool:
    return least > OUT * best and (calls >= FEWEST_CALLS or least - best > HICCUP_SECONDS)


def _winner(seconds: dict[str, list[float]], failed: dict[str, str]) -> Choice:
    # One that is left alone by failures before it was timed at all has won too.
    rivals = list(seconds)
    milliseconds = {name: 1000 * min(times) for name, times in seconds.items() if times}
    if "dense" in seconds and milliseconds:
        dense = seconds["dense"]
        rivals = [
            name
            for name, times in seconds.items()
            if min(times) < MARGIN * min(dense) and statistics.median(times) < MARGIN * statistics.median(dense)
        ]
    # When every candidate failed, dense says why, in PyTorch's own words.
    return Choice(min(rivals, key=lambda name: milliseconds.get(name, 0.0), default="dense"), milliseconds, failed)


def _timed(call: Callable[[], Tensor], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    began = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def _recording(device: torch.device) -> bool:
    """Whether a compiler traces, or a CUDA graph is captured."""
    return torch.compiler.is_compiling() or (device.type == "cuda" and torch.cuda.is_current_stream_capturing())


def _in_format_of(images: Tensor, result: Tensor) -> Tensor:
    # The operators would do it otherwise, and a conversion is part of the time.
    return result.contiguous(memory_format=memory_format(images))


def _float32(spec: LayerSpec, dtype: torch.dtype, device: torch.device) -> str:
    """The key's field of that name."""
    if dtype != torch.float32:
        return ""
    if device.type == "cuda":
        return float32_multiplied_in(spec)
    largest = winograd.setting()
    return f"winograd {largest}" if largest != "off" and winograd.computes(spec) else ""


def _layout(images: Tensor) -> str:
    if memory_format(images) == torch.channels_last:
        return "channels_last"
    return "contiguous" if images.is_contiguous() else "strided"


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
