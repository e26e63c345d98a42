"""One run on a machine with a GPU, from its tests to the short table, or a rehearsal of it on a CPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from datetime import datetime, timezone
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
import triton

import lth_sparse
from bench.cases.gpu import BACKENDS, LAYERS, REHEARSED
from bench.cases.masks import random_masks, ticket_masks
from bench.gpu import checks
from bench.gpu.auto import measure_auto
from bench.gpu.compile_ahead import compile_ahead
from bench.gpu.layers import measure_layer
from bench.gpu.profile import profiled
from bench.gpu.results import Results, say
from bench.gpu.steps import measure_step
from bench.gpu.summary import summary
from lth_sparse.backends import registry
from lth_sparse.kernels.configurations import architecture, table
from lth_sparse.storage import environment
from lth_sparse.storage.files import slug

PROFILE_SECONDS = 30
GPU_PRECISIONS = ("tf32", "bfloat16")
IEEE_SPARSITIES = (0.9, 0.95)
SANITIZERS = ("memcheck", "racecheck")


def run(folder: Path, command: str, rehearse: bool, build_failed: Sequence[str], began: float) -> int:
    """What there is time for, written under `folder`; 1 when the build, a test or a measurement failed.

    `began`: when the command did, by time.monotonic().
    """
    device = torch.device("cpu" if rehearse else "cuda")
    here = environment.describe(device, lth_sparse.__version__) | {"triton": triton.__version__}
    name = "rehearsal" if rehearse else slug(here["device"])
    results = Results(
        folder / f"gpu-{name}.json",
        {
            "measured_on": here,
            "date": datetime.now(timezone.utc).date().isoformat(),
            "command": command,
            "rehearsal": "interpreted on a CPU: no time here means anything" if rehearse else "",
        },
        began,
    )
    results.found["build_failed"] = build_failed
    say(", ".join(f"{key} {value}" for key, value in here.items()))
    backends = _usable(results, rehearse)
    sanitizers = SANITIZERS if "cuda" in backends else ()
    _test(results, backends, sanitizers, device)
    _measure(results, backends, device)
    if not rehearse:
        if not results.over() and "cuda" in backends:
            results.found["profile"] = profiled(results.found["layers"], PROFILE_SECONDS)
            say("\n".join(results.found["profile"]))
        _check(results, _suites(results, checks.LATE_SUITES), results.found["tests"])
    results.write()
    say("\n".join(summary(results.found)))
    say(f"written to {results.path} after {results.seconds:.0f} s")
    return 0 if _right(results.found, sanitizers) else 1


def _usable(results: Results, rehearse: bool) -> list[str]:
    """The backends that can be measured here; why the others cannot is said and kept."""
    unusable = registry.backends()
    backends = ["triton"] if rehearse else [name for name in BACKENDS if not unusable[name]]
    results.found["unusable"] = {name: unusable[name] for name in BACKENDS if name not in backends}
    for backend, reason in results.found["unusable"].items():
        say(f"{backend} is not measured: {reason}")
    return backends


def _test(results: Results, backends: list[str], sanitizers: Sequence[str], device: torch.device) -> None:
    """The suites, compute-sanitizer and verify; takes a backend whose tests broke the GPU out of `backends`."""
    said = results.found["tests"] = {}
    sanitized = {tool: partial(checks.sanitized, tool, results.left(checks.SANITIZER_SECONDS)) for tool in sanitizers}
    suites = checks.REHEARSED_SUITES if device.type == "cpu" else checks.SUITES
    _check(results, _suites(results, suites) | sanitized, said)
    results.found |= {tool: said.pop(tool) for tool in sanitizers if tool in said}
    results.write()
    for backend in list(backends):
        if checks.broke_the_gpu(said.get(backend, "")):
            backends.remove(backend)
            say(f"{backend} is not measured: its tests ended in an error that would end this process too")
    if backends and not results.over():
        results.found["verify"] = checks.verified(device.type, backends, results.left(checks.VERIFY_SECONDS))
        say(f"verify: {results.found['verify']}")
    results.write()


def _check(results: Results, chosen: Mapping[str, Callable[[], str]], kept_in: dict[str, Any]) -> None:
    """All of them at once: they wait for compilers and for Python most of the time, and nothing is timed yet."""
    if results.over():
        return
    with ThreadPoolExecutor() as beside:
        names = {beside.submit(check): name for name, check in chosen.items()}
        for done in as_completed(names):
            error = done.exception()
            kept_in[names[done]] = f"failed: {error}" if error else done.result()
            say(f"{names[done]}: {kept_in[names[done]]}")
            results.write()


def _suites(results: Results, suites: Mapping[str, tuple[float, tuple[str, ...]]]) -> dict[str, Callable[[], str]]:
    return {
        name: partial(checks.tested, arguments, results.left(seconds)) for name, (seconds, arguments) in suites.items()
    }


def _measure(results: Results, backends: Sequence[str], device: torch.device) -> None:
    """Layers in each precision, a training step, and the auto backend."""
    rehearse = device.type == "cpu"
    layers = REHEARSED if rehearse else LAYERS
    masks_of: dict[str, Any] = {"random": random_masks(layers)}
    plans: dict[tuple[Any, ...], Any] = {}
    if not rehearse:
        torch.backends.cudnn.benchmark = True
        row = architecture(torch.cuda.get_device_capability())
        results.found["configurations"] = table()[row]
        results.attempt("compiled ahead", lambda: compile_ahead(row, layers, (*GPU_PRECISIONS, "float32")))
        results.attempt("tickets", lambda: masks_of.update(ticket=ticket_masks(layers, device, 32)))
    for precision, layer in product(("float32",) if rehearse else (*GPU_PRECISIONS, "float32"), layers):
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
    network, batch = ("small", 2) if rehearse else ("vgg16", 128)
    results.attempt(f"a step of {network}", lambda: measure_step(results, network, backends, device, batch))
    for layer in layers:
        random = {sparsity: masks[layer.name] for sparsity, masks in masks_of["random"].items()}
        results.attempt(f"auto on {layer.name}", partial(measure_auto, results, layer, random, device))


def _right(found: Mapping[str, Any], sanitizers: Sequence[str]) -> bool:
    """Whether everything was built, passed its tests and could be measured."""
    # The suite of a backend that cannot be used here is skipped, test by test.
    ran = [said for suite, said in found["tests"].items() if suite not in found["unusable"]]
    clean = all("ERROR SUMMARY: 0 errors" in found[tool] for tool in sanitizers if tool in found)
    right = bool(ran) and all(map(checks.passed, ran)) and clean and checks.within_bounds(found.get("verify", ""))
    return right and not found["failed"] and not found["build_failed"]
