"""What is in a binary for NVIDIA GPUs: the kernels, what each takes, its instructions and its loops.

Read by the cuobjdump that Triton brings along, so that neither a GPU nor a toolkit is needed.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Kernel:
    """One kernel for one architecture, such as "sm_90".

    `stack`: bytes of a thread's stack, where what does not fit into registers is spilled. `instructions`: (address,
    text) of each.
    """

    architecture: str
    name: str
    registers: int
    stack: int
    instructions: tuple[tuple[int, str], ...]

    def count(self, opcode: str) -> int:
        """Instructions whose name begins so."""
        return sum(_opcode(text).startswith(opcode) for _, text in self.instructions)

    def loops(self) -> list[Kernel]:
        """The stretches from an instruction to a branch back to it, inner ones and outer ones."""
        place = {address: index for index, (address, _) in enumerate(self.instructions)}
        found = []
        for index, (address, text) in enumerate(self.instructions):
            target = re.search(r"\bBRA\b.*\b0x([0-9a-f]+)", text)
            if target and int(target[1], 16) < address:
                body = self.instructions[place[int(target[1], 16)] : index + 1]
                found.append(Kernel(self.architecture, self.name, self.registers, self.stack, body))
        return found


def _opcode(text: str) -> str:
    words = text.split()
    return words[1] if words[0].startswith("@") and len(words) > 1 else words[0]


def kernels_in(binary: Path) -> list[Kernel]:
    """All kernels of a cubin, an object file or a shared object, for all architectures that it has machine code for."""
    usage = {}
    for architecture, name, text in _by_kernel(_asked("--dump-resource-usage", binary)):
        if found := re.search(r"REG:(\d+) STACK:(\d+)", text):
            usage[(architecture, name)] = int(found[1]), int(found[2])
    kernels = []
    for architecture, name, text in _by_kernel(_asked("--dump-sass", binary)):
        lines = re.findall(r"^\s*/\*([0-9a-f]{4,})\*/\s+(.*?)\s*;", text, re.MULTILINE)
        if lines:
            instructions = tuple((int(address, 16), line) for address, line in lines)
            kernels.append(Kernel(architecture, name, *usage[(architecture, name)], instructions))
    return kernels


def _asked(option: str, binary: Path) -> str:
    import triton

    return subprocess.run(
        [triton.knobs.nvidia.cuobjdump.path, option, binary], capture_output=True, text=True, check=True
    ).stdout


def _by_kernel(listing: str) -> Iterator[tuple[str, str, str]]:
    """(architecture, name, text up to the next kernel) in turn."""
    architecture = ""
    for part in re.split(r"^(?=\s*arch = |\s*Function\s*:?\s)", listing, flags=re.MULTILINE):
        if found := re.match(r"\s*arch = (sm_\w+)", part):
            architecture = found[1]
        elif found := re.match(r"\s*Function\s*:?\s+([^\s:]+)", part):
            yield architecture, found[1], part
