"""The engine that a command line asks for."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from lth_sparse.experiments.engines.interface import Engine
from lth_sparse.experiments.engines.local import Local, cores, shared_out
from lth_sparse.experiments.engines.ray import Ray
from lth_sparse.experiments.engines.slurm import Slurm
from lth_sparse.system.errors import InputError
from lth_sparse.system.messages import say

NAMES = ("local", "ray", "slurm")


@dataclass(frozen=True)
class Asked:
    """`on`: one of NAMES. `jobs` at once, with `threads` each; None where that was left open. `address`: of a Ray
    cluster. `slurm`: submitit's parameters. Raises InputError for what is another engine's."""

    on: str = "local"
    jobs: int | None = None
    threads: int | None = None
    address: str | None = None
    slurm: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.address is not None and self.on != "ray":
            raise InputError("--address: it is of a Ray cluster; give --on ray too, or leave it out")
        if self.slurm and self.on != "slurm":
            raise InputError("--slurm: it is for Slurm; give --on slurm too, or leave it out")


def engine(asked: Asked, wanted: int, devices: Collection[str], logs: Path) -> Engine:
    """For `wanted` jobs on these devices, as settings name them. `logs`: the directory of what jobs say.

    Where it is left open, this machine's cores are shared out among as many jobs as it has cores, and a GPU has one job
    at a time; on other engines a job has one core, and as many run as there is room for.
    """
    on_gpu = any(name.startswith("cuda") for name in devices)
    if asked.on == "ray":
        return Ray(asked.address, asked.jobs, asked.threads or 1, on_gpu)
    if asked.on == "slurm":
        return Slurm(logs / "submitit", asked.jobs, asked.threads or 1, asked.slurm)
    one_gpu = on_gpu or ("auto" in devices and torch.cuda.is_available())
    jobs, threads = shared_out(cores(), wanted, 1 if one_gpu and asked.jobs is None else asked.jobs, asked.threads)
    say(f"{jobs} at a time, {threads} thread{'s' if threads > 1 else ''} each; {logs} has what they say")
    return Local(jobs, threads)
