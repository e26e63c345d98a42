"""Figures and tables in Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from bench.cases.layers import LAYERS
from lth_sparse.plans.layer_spec import LayerSpec

_HOME = re.compile(r"/root/|/home/[^/ ]+/")
INSTRUCTION_SETS = {"avx512": "AVX-512", "avx2": "AVX2", "portable": "no vector instructions"}


def ratio(value: float) -> str:
    """A speedup: two digits behind the point, or one where they would promise too much."""
    return f"{value:.2f}" if value < 3 else f"{value:.1f}"


def percent(fraction: float, digits: int = 1) -> str:
    """A fraction as a percentage, without zeros at its end."""
    text = f"{100 * fraction:.{digits}f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text) + " %"


def table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table."""
    return ["| " + " | ".join(row) + " |" for row in (titles, ["---"] * len(titles), *rows)]


def command(text: str) -> str:
    """As it was given, its home directory as `~`."""
    return _HOME.sub("~/", text)


def provenance(about: dict[str, Any]) -> list[str]:
    """What a file was measured on, when, and by which command, as a list."""
    here = about["measured_on"]
    machine = [here["processor"]] if here["device"] == "cpu" else [here["device"], f"beside {here['processor']}"]
    machine.append(f"{here['threads']} threads")
    if "instruction_set" in here:
        machine.append(INSTRUCTION_SETS.get(here["instruction_set"], here["instruction_set"]))
    versions = [f"torch {here['torch']}", f"Python {here['python']}"]
    versions += [f"Triton {here['triton']}"] if "triton" in here else []
    versions += [here["compiler"]] if here.get("compiler") else []
    return [
        f"- Machine: {', '.join(machine)}; {here['platform']}; {here['allocator']}",
        f"- Versions: {', '.join(versions)}, lth_sparse {here['lth_sparse']}",
        f"- Commit: `{here['commit'] or 'unknown'}`, {about['date']}",
        f"- Command: `{command(about['command'])}`",
    ]


def source(name: str, found: dict[str, Any]) -> list[str]:
    """The provenance of the file `name` of bench/results, and the file itself."""
    return [*provenance(found), f"- Data: `bench/results/{name}`, explained in `bench/results/README.md`"]


def machine(here: dict[str, Any]) -> str:
    """The processor, and which one it is: a virtual machine may name its maker alone."""
    family = here["processor_family"].partition(" ")[2]
    return f"{here['processor']} ({family})" if family else str(here["processor"])


def layer(name: str) -> str:
    """What the case called `name` is, in words, or its name where it is none of bench/cases/layers.py."""
    cases = {layer.name: layer for layer in LAYERS}
    if name not in cases:
        return name
    case = cases[name]
    batch = f"batch {case.input_shape[0]}" + (", AVX2 on both sides" if case.avx2 else "")
    return f"{shape(case.spec, case.input_shape)}, {batch}"


def shape(spec: LayerSpec, input_shape: Sequence[int]) -> str:
    """A layer without its batch."""
    if spec.kind == "linear":
        return f"linear, {spec.in_channels} to {spec.out_channels}"
    channels = f"{spec.in_channels} to {spec.out_channels}" if spec.in_channels != spec.out_channels else ""
    stride = f", stride {spec.stride[0]}" if spec.stride[0] > 1 else ""
    return (
        f"{spec.kernel_size[0]}x{spec.kernel_size[1]}, {channels or spec.in_channels} channels, "
        f"{input_shape[2]}x{input_shape[3]}{stride}"
    )
