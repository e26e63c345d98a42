"""Builds, tests and measures the GPU backends in one command, within 8 minutes and without a network: `make gpu`.

Results are written as they are found, to OUT/gpu-NAME.json; a short table ends the run. `--rehearse` goes through the
same steps without a GPU, on tiny layers in Triton's interpreter: its times mean nothing, and its file says so.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from datetime import datetime, timezone
from functools import partial
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.gpu_checks import (
    LATE_SUITES,
    REHEARSED_SUITES,
    ROOT,
    SANITIZER_SECONDS,
    SUITES,
    VERIFY_SECONDS,
    broke_the_gpu,
    build,
    passed,
    sanitized,
    tested,
    verified,
    within_bounds,
)

BUDGET_SECONDS = 440
"""After which nothing new is begun; what is under way takes some seconds more. 8 minutes in all."""
PROFILE_SECONDS = 30
MOST_COMPILERS = 16
GPU_PRECISIONS = ("tf32", "bfloat16")
IEEE_SPARSITIES = (0.9, 0.95)
STEP_SPARSITY = 0.98


class Results:
    """What was found so far, written to its file at each step. `began`: by time.monotonic(), when the command did."""

    def __init__(self, path: Path, about: dict[str, Any], began: float) -> None:
        self.path = path
        self.found: dict[str, Any] = {**about, "layers": [], "auto": [], "steps": [], "failed": []}
        self.began = began

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self.began

    def over(self) -> bool:
        """Whether the time is up; said once."""
        late = self.seconds > BUDGET_SECONDS
        if late and not self.found.get("cut_short"):
            self.found["cut_short"] = True
            say(f"{BUDGET_SECONDS} s are over: what is left is not measured")
        return late

    def attempt(self, what: str, measure: Callable[[], None]) -> None:
        """Measures, unless the time is up; what fails is kept as a result, and the rest goes on."""
        if self.over():
            return
        try:
            measure()
        except Exception as error:
            self.failed(what, error)
        say(f"{what}, after {self.seconds:.0f} s")
        self.write()

    def failed(self, what: str, error: Exception) -> None:
        """Keeps a failure as a result."""
        self.found["failed"].append(f"{what}: {type(error).__name__}: {' '.join(str(error).split())}"[:500])
        say(f"FAILED {self.found['failed'][-1]}")

    def left(self, most: float) -> float:
        """So many seconds, or what is left of the time."""
        return max(5.0, min(most, BUDGET_SECONDS - self.seconds))

    def write(self) -> None:
        """The file, whole at any time."""
        self.found["seconds"] = round(self.seconds, 1)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".part")
        partial.write_text(json.dumps(self.found, indent=1) + "\n")
        partial.replace(self.path)


def say(text: str) -> None:
    """A line, at once."""
    print(text, flush=True)


def compile_ahead(architecture: str, layers: Sequence[Any], precisions: Sequence[str]) -> None:
    """Fills Triton's cache in parallel, so that measuring waits for no compiler."""
    cases = [
        (architecture, precision, layout, layer.spec, layer.input_shape)
        for precision, layout, layer in product(precisions, ("contiguous", "channels_last"), layers)
        if layout == "contiguous" or layer.spec.kind == "conv2d"
    ]
    with compilers() as processes:
        failures = [failure for failure in processes.map(_compile_one, cases) if failure]
    for failure in failures:
        say(f"did not compile: {failure}")


def compilers() -> ProcessPoolExecutor:
    """Processes that compile; new ones, for CUDA does not survive a fork."""
    count = min(MOST_COMPILERS, len(os.sched_getaffinity(0)))
    return ProcessPoolExecutor(count, mp_context=get_context("spawn"))


def _compile_one(case: tuple[Any, ...]) -> str:
    from bench.compiled_kernels import compiled_layer

    try:
        compiled_layer(*case)
    except Exception as error:
        return f"{case}: {type(error).__name__}: {error}"[:400]
    return ""


def set_precision(precision: str) -> torch.dtype:
    """Has PyTorch multiply float32 so; gives the dtype."""
    float32: Any = "tf32" if precision == "tf32" else "ieee"
    torch.backends.cudnn.conv.fp32_precision = float32  # type: ignore[attr-defined]
    torch.backends.cuda.matmul.fp32_precision = float32
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


def dense_calls(spec: Any, x: Tensor, weight: Tensor, grad_out: Tensor) -> dict[str, Callable[[], object]]:
    """PyTorch's own operators: each alone, and both gradients in one call, as autograd makes it."""
    from bench.sides import dense_gradients, dense_layer

    return {**dense_layer(spec, x, weight, grad_out), **dense_gradients(spec, x, weight, grad_out)}


def measure_layer(
    results: Results,
    layer: Any,
    precision: str,
    masks_of: dict[str, dict[float, Tensor]],
    backends: Sequence[str],
    device: torch.device,
    plans: dict[tuple[Any, ...], Any],
) -> None:
    """Rows of one layer in one precision: dense in both layouts, then every mask and backend in both layouts.

    plans: what was packed for a backend, layer and mask; to be used again, and added to.
    """
    from bench.gpu_timing import microseconds
    from bench.sides import sparse_layer
    from lth_sparse.backends import registry
    from lth_sparse.plans.pattern import Pattern

    dtype = set_precision(precision)
    spec, generator = layer.spec, torch.Generator().manual_seed(0)
    x = torch.randn(layer.input_shape, generator=generator)
    weight = torch.randn(spec.weight_shape, generator=generator) / x[0].numel() ** 0.5
    grad_out = torch.randn(layer.output_shape, generator=generator)
    formats = {"contiguous": torch.contiguous_format}
    if spec.kind == "conv2d":
        formats["channels_last"] = torch.channels_last
    for layout, memory_format in formats.items():
        here = [tensor.to(device, dtype).contiguous(memory_format=memory_format) for tensor in (x, weight, grad_out)]
        images, dense_weight, gradients = here
        times = microseconds(dense_calls(spec, images, dense_weight, gradients), device)
        row = {"layer": layer.name, "precision": precision, "layout": layout, "side": "dense"}
        results.found["layers"].append(row | {"microseconds": times, "total": times["forward"] + times["backward"]})
        for kind, masks in masks_of.items():
            for sparsity, mask in masks.items():
                if results.over():
                    return
                mask = mask.to(device)
                about = row | {"masks": kind, "sparsity": sparsity, "density": float(mask.float().mean())}
                for backend in backends:
                    try:
                        key = backend, layer.name, kind, sparsity
                        if key not in plans:
                            plans[key] = registry.get(backend).pack(Pattern.from_mask(mask), spec)
                        side = sparse_layer(backend, spec, mask, images, dense_weight, gradients, plans[key])
                        times = microseconds(side, device)
                        error, dense_error = _errors(spec, side, mask, images, dense_weight, gradients)
                    except Exception as failure:  # The other backends go on.
                        results.failed(f"{backend} on {layer.name} in {precision}, {layout}, {sparsity:.0%}", failure)
                        continue
                    results.found["layers"].append(
                        about
                        | {"side": backend, "microseconds": times, "total": sum(times.values())}
                        | {"error": error, "dense_error": dense_error}
                    )
    results.write()


def _errors(
    spec: Any, side: Any, mask: Tensor, x: Tensor, weight: Tensor, grad_out: Tensor
) -> tuple[dict[str, float], dict[str, float]]:
    """Operation -> the relative error against float64 of ours, and of dense PyTorch in the same precision."""
    from lth_sparse.verification.judgement import relative

    masked = weight * mask
    dense = dense_calls(spec, x, masked, grad_out)
    exact = dense_calls(spec, x.double(), masked.double(), grad_out.double())
    ours, theirs = {}, {}
    for operation, call in side.items():
        expected, found = exact[operation](), dense[operation]()
        if operation == "grad_weight":
            expected, found = expected[mask], found[mask]
        ours[operation] = relative(call(), expected)
        theirs[operation] = relative(found, expected)
    return ours, theirs


def measure_auto(results: Results, layer: Any, masks: dict[float, Tensor], device: torch.device) -> None:
    """The auto backend, when it has chosen, against dense, in the command line's layout."""
    from bench.gpu_timing import microseconds
    from bench.sides import dense_layer, sparse_layer

    set_precision("tf32")
    generator = torch.Generator().manual_seed(0)
    spec = layer.spec
    tensors = [
        torch.randn(shape, generator=generator).to(device)
        for shape in (layer.input_shape, spec.weight_shape, layer.output_shape)
    ]
    if spec.kind == "conv2d":
        tensors = [tensor.contiguous(memory_format=torch.channels_last) for tensor in tensors]
    x, weight, grad_out = tensors
    for sparsity, mask in masks.items():
        if results.over():
            return
        sides = {
            "auto": sparse_layer("auto", spec, mask.to(device), x, weight, grad_out),
            "dense": dense_layer(spec, x, weight, grad_out),
        }
        times = microseconds({name: _all_of(list(side.values())) for name, side in sides.items()}, device)
        results.found["auto"].append({"layer": layer.name, "sparsity": sparsity, "microseconds": times})
    results.write()


def _all_of(calls: list[Callable[[], object]]) -> Callable[[], None]:
    def run() -> None:
        for call in calls:
            call()

    return run


def measure_step(results: Results, network: str, backends: Sequence[str], device: torch.device, batch: int) -> None:
    """A whole training step, captured in a CUDA graph: masked dense in both layouts, and sparse layers."""
    from bench.gpu_timing import microseconds
    from bench.sides import random_masks
    from lth_sparse import models
    from lth_sparse.nn import sparsify
    from lth_sparse.nn.masks import apply
    from lth_sparse.verification.training import training_step

    set_precision("tf32")
    images, labels = torch.randn(batch, 3, 32, 32), torch.randint(0, 10, (batch,))
    sides = {}
    for name, layout in product(("dense", *backends), ("contiguous", "channels_last")):
        model = models.build(models.Network(network, (3, 32, 32), 10), seed=0)
        masks = random_masks(model, STEP_SPARSITY)
        apply(model, masks)
        memory_format = torch.channels_last if layout == "channels_last" else torch.contiguous_format
        model = model.to(device).to(memory_format=memory_format)
        on_device = {layer: mask.to(device) for layer, mask in masks.items()}
        if name != "dense":
            model, on_device = sparsify(model, on_device, name), {}
        here = images.to(device).contiguous(memory_format=memory_format)
        sides[f"{name}, {layout}"] = training_step(model, here, labels.to(device), on_device)
    times = microseconds(sides, device)
    results.found["steps"].append({"network": network, "sparsity": STEP_SPARSITY, "microseconds": times})
    results.write()


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs what there is time for; 1 when a test or a measurement failed, 2 when there is no GPU to run on."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description="builds, tests and measures on a GPU")
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "results", metavar="DIR")
    parser.add_argument("--rehearse", action="store_true", help="without a GPU: the same steps on tiny layers")
    parser.add_argument("--no-build", action="store_true", help="the checkout is installed already")
    chosen = parser.parse_args(arguments)
    began = time.monotonic()
    if chosen.rehearse:
        os.environ["TRITON_INTERPRET"] = "1"
    elif not torch.cuda.is_available():
        parser.error("there is no GPU: run it where there is one, or give --rehearse")
    device = torch.device("cpu" if chosen.rehearse else "cuda")
    build_failed = [] if chosen.no_build else build()
    for line in build_failed:
        say(f"build: {line}")

    import triton

    import lth_sparse
    from bench.cost_model import random_masks, ticket_masks
    from bench.gpu_cases import BACKENDS, LAYERS, REHEARSED
    from bench.gpu_profile import profiled
    from bench.gpu_summary import summary
    from lth_sparse.backends import registry
    from lth_sparse.kernels.configurations import architecture, table
    from lth_sparse.storage import environment
    from lth_sparse.storage.files import slug

    layers = REHEARSED if chosen.rehearse else LAYERS
    here = environment.describe(device, lth_sparse.__version__) | {"triton": triton.__version__}
    name = "rehearsal" if chosen.rehearse else slug(here["device"])
    results = Results(
        chosen.out / f"gpu-{name}.json",
        {
            "measured_on": here,
            "date": datetime.now(timezone.utc).date().isoformat(),
            "command": "python -m bench.gpu " + " ".join(sys.argv[1:] if arguments is None else arguments),
            "rehearsal": "interpreted on a CPU: no time here means anything" if chosen.rehearse else "",
        },
        began,
    )
    results.found["build_failed"] = build_failed
    say(", ".join(f"{key} {value}" for key, value in here.items()))
    unusable = registry.backends()
    backends = ["triton"] if chosen.rehearse else [name for name in BACKENDS if not unusable[name]]
    results.found["unusable"] = {name: unusable[name] for name in BACKENDS if name not in backends}
    for backend, reason in results.found["unusable"].items():
        say(f"{backend} is not measured: {reason}")
    results.found["tests"] = {}

    def check(checks: Mapping[str, Callable[[], str]], kept_in: dict[str, Any]) -> None:
        """All of them at once: they wait for compilers and for Python most of the time, and nothing is timed yet."""
        if results.over():
            return
        with ThreadPoolExecutor() as beside:
            names = {beside.submit(run): name for name, run in checks.items()}
            for done in as_completed(names):
                error = done.exception()
                kept_in[names[done]] = f"failed: {error}" if error else done.result()
                say(f"{names[done]}: {kept_in[names[done]]}")
                results.write()

    def suites_of(suites: Mapping[str, tuple[float, tuple[str, ...]]]) -> dict[str, Callable[[], str]]:
        return {
            name: partial(tested, arguments, results.left(seconds)) for name, (seconds, arguments) in suites.items()
        }

    sanitizers = {
        tool: partial(sanitized, tool, results.left(SANITIZER_SECONDS))
        for tool in (("memcheck", "racecheck") if "cuda" in backends else ())
    }
    said = results.found["tests"]
    check(suites_of(REHEARSED_SUITES if chosen.rehearse else SUITES) | sanitizers, said)
    results.found |= {tool: said.pop(tool) for tool in sanitizers if tool in said}
    results.write()
    for backend in list(backends):
        if broke_the_gpu(results.found["tests"].get(backend, "")):
            backends.remove(backend)
            say(f"{backend} is not measured: its tests ended in an error that would end this process too")
    if backends and not results.over():
        results.found["verify"] = verified(device.type, backends, results.left(VERIFY_SECONDS))
        say(f"verify: {results.found['verify']}")
    results.write()
    masks_of: dict[str, Any] = {"random": random_masks(layers)}
    plans: dict[tuple[Any, ...], Any] = {}
    if not chosen.rehearse:
        torch.backends.cudnn.benchmark = True
        row = architecture(torch.cuda.get_device_capability())
        results.found["configurations"] = table()[row]
        results.attempt("compiled ahead", lambda: compile_ahead(row, layers, (*GPU_PRECISIONS, "float32")))
        results.attempt("tickets", lambda: masks_of.update(ticket=ticket_masks(layers, device, 32)))
    for precision, layer in product(("float32",) if chosen.rehearse else (*GPU_PRECISIONS, "float32"), layers):
        of_layer = {
            kind: {
                sparsity: masks[layer.name]
                for sparsity, masks in by_sparsity.items()
                if layer.name in masks and (precision != "float32" or sparsity in IEEE_SPARSITIES)
            }
            for kind, by_sparsity in masks_of.items()
        }
        measure = partial(measure_layer, results, layer, precision, of_layer, backends, device, plans)
        results.attempt(f"{layer.name} in {precision}", measure)
    network, batch = ("small", 2) if chosen.rehearse else ("vgg16", 128)
    results.attempt(f"a step of {network}", lambda: measure_step(results, network, backends, device, batch))
    for layer in layers:
        random = {sparsity: masks[layer.name] for sparsity, masks in masks_of["random"].items()}
        results.attempt(f"auto on {layer.name}", partial(measure_auto, results, layer, random, device))
    if not chosen.rehearse:
        if not results.over() and "cuda" in backends:
            results.found["profile"] = profiled(results.found["layers"], PROFILE_SECONDS)
            say("\n".join(results.found["profile"]))
        check(suites_of(LATE_SUITES), results.found["tests"])
    results.write()
    say("\n".join(summary(results.found)))
    say(f"written to {results.path} after {results.seconds:.0f} s")
    # The suite of a backend that cannot be used here is skipped, test by test.
    ran = [said for suite, said in results.found["tests"].items() if suite not in results.found["unusable"]]
    clean = all("ERROR SUMMARY: 0 errors" in results.found[tool] for tool in sanitizers if tool in results.found)
    right = bool(ran) and all(map(passed, ran)) and clean and within_bounds(results.found.get("verify", ""))
    return 0 if right and not results.found["failed"] and not build_failed else 1


if __name__ == "__main__":
    sys.exit(main())
