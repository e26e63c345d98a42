"""The files that the fuzzers begin with, in `corpus/`: sound ones, and such as somebody could have written.

`python -m tests.hostile.corpus` writes them. A file that breaks a reader becomes a line here.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

import lth_sparse as lth
from lth_sparse import models, run
from lth_sparse.storage import sealed
from lth_sparse.storage.run_directory import RunDirectory
from tests.hostile.files import reseal

FILES = Path(__file__).parent / "corpus"
RUN = (
    "--dataset", "digits", "--model", "tests.hostile.corpus:tiny", "--iterations", "4", "--rounds", "1",
    "--backend", "cpp", "--no-fuse", "--controls", "none",
)  # fmt: skip
"""The run whose states are in the corpus."""

Change = Callable[[dict[str, Tensor], dict[str, Any]], object]
"""Of a sealed file's tensors and data, in place."""


def files(kind: str) -> list[Path]:
    """Those of `kind`, "tickets" or "states"."""
    return sorted((FILES / kind).iterdir())


def tiny(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """A network of a few hundred weights, the same with every PyTorch."""
    size = input_shape[0] * input_shape[1] * input_shape[2]
    return _counted(nn.Sequential(nn.Flatten(), nn.Linear(size, 3), nn.ReLU(), nn.Linear(3, classes)))


def _counted(model: nn.Module) -> nn.Module:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_((torch.arange(parameter.numel()) % 7 - 3).reshape(parameter.shape) / 8)
    return model


def _every_third(shape: tuple[int, ...]) -> Tensor:
    return (torch.arange(torch.Size(shape).numel()) % 3 == 0).reshape(shape)


def _tickets() -> None:
    folder = FILES / "tickets"
    own = _counted(nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3)))
    lth.save_ticket(folder / "own", own, {"0": _every_third((5, 6))}, metadata={"round": {"density": 1 / 3}})
    convolution = _counted(nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(12, 2)).double())
    lth.save_ticket(folder / "double", convolution, {"0": _every_third((3, 2, 3, 3))})
    named = models.Network("tests.hostile.corpus:tiny", (1, 8, 8), 10)
    lth.save_ticket(folder / "named", tiny((1, 8, 8), 10), {"1": _every_third((3, 64))}, network=named)
    _damaged(folder, folder / "own")
    metadata: dict[str, Change] = {
        "version-of-another": lambda _, data: data.update(ticket_version=2),
        "version-true": lambda _, data: data.update(ticket_version=True),
        "network-that-is-a-list": lambda _, data: data.update(network=["conv4"]),
        "network-that-is-code": lambda _, data: data.update(
            network={"name": "os:system", "input_shape": [1, 8, 8], "classes": 3}
        ),
        "network-of-many-classes": lambda _, data: data.update(
            network={"name": "lenet-300-100", "input_shape": [3, 65536, 65536], "classes": 2**20}
        ),
        "shapes-that-overflow": lambda _, data: data.update(shapes={"0": [2**31 - 1] * 9}),
        "shapes-of-nothing": lambda _, data: data.update(shapes={"0": [0, 6]}),
        "shapes-negative": lambda _, data: data.update(shapes={"0": [-5, -6]}),
        "shapes-of-fractions": lambda _, data: data.update(shapes={"0": [5.0, 6.0]}),
        "shapes-of-other-layers": lambda _, data: data.update(shapes={"1": [5, 6], "": [2]}),
        "metadata-not-a-number": lambda _, data: data.update(round=float("nan")),
        "metadata-large-number": lambda _, data: data.update(round=10**4000),
        "mask-of-other-weights": lambda _, data: data.update(mask_sha256="0" * 64),
        "mask-of-ones": lambda tensors, _: tensors["mask/0"].fill_(255),
        "mask-too-short": lambda tensors, _: tensors.update({"mask/0": tensors["mask/0"][:-1]}),
        "mask-in-two-dimensions": lambda tensors, _: tensors.update({"mask/0": tensors["mask/0"][None]}),
        "values-too-many": lambda tensors, _: tensors.update({"values/0": torch.ones(11)}),
        "values-of-8-bits": lambda tensors, _: tensors.update(
            {"values/0": tensors["values/0"].to(torch.float8_e4m3fn)}
        ),
        "values-whole": lambda tensors, _: tensors.update({"values/0": tensors["values/0"].to(torch.int64)}),
        "values-complex": lambda tensors, _: tensors.update({"values/0": tensors["values/0"].to(torch.complex64)}),
        "weight-there-twice": lambda tensors, _: tensors.update({"rest/0.weight": torch.ones(5, 6)}),
        "no-tensors": lambda tensors, _: tensors.clear(),
    }
    for name, change in metadata.items():
        _resealed(folder, folder / "own", name, change)


def _states() -> None:
    folder = FILES / "states"
    with tempfile.TemporaryDirectory() as place:
        interrupted(Path(place))
        newest = sorted((Path(place) / "state").glob("[0-9]*"))[-1]
        shutil.copy(newest, folder / "round-1")
    _damaged(folder, folder / "round-1")
    changes: dict[str, Change] = {
        "confusion-of-many-classes": lambda tensors, _: tensors.update(
            {"confusion/0": torch.tensor([[2**16, 2**16, 0]])}
        ),
        "confusion-many": lambda tensors, _: tensors.update(
            {f"confusion/{number}": tensors["confusion/0"].clone() for number in range(40)}
        ),
        "confusion-not-counted": lambda tensors, _: tensors.update({"confusion/x": tensors.pop("confusion/0")}),
        "mask-too-short": lambda tensors, _: tensors.update({"mask/1": tensors["mask/1"][:-1]}),
        "weights-of-another": lambda tensors, _: tensors.update({"model/9.weight": torch.ones(3)}),
        "weights-of-another-shape": lambda tensors, _: tensors.update({"model/1.bias": torch.ones(4)}),
        "weights-not-finite": lambda tensors, _: tensors["model/1.bias"].fill_(float("nan")),
        "optimizer-of-no-parameter": lambda tensors, _: tensors.update({"optimizer/99/momentum_buffer": torch.ones(3)}),
        "optimizer-of-no-number": lambda tensors, _: tensors.update({"optimizer/x/momentum_buffer": torch.ones(3)}),
        "loss-of-two": lambda tensors, _: tensors.update({"loss_sum": torch.ones(2)}),
        "round-far": lambda _, data: data.update(round=2**62),
        "round-negative": lambda _, data: data.update(round=-1),
        "arm-unknown": lambda _, data: data.update(arm="nobody"),
        "trained-by-nobody": lambda _, data: data.update(trained_by="os:system"),
        "format-unknown": lambda _, data: data.update(memory_format="strided"),
        "record-that-is-a-list": lambda _, data: data.update(record=[]),
        "row-of-texts": lambda _, data: data["found"].update(accuracy_before_prune="1"),
        "iteration-far": lambda _, data: data["training"].update(iteration=2**40),
        "curve-of-nothing": lambda _, data: data["training"].update(curve=[{}]),
        "settings-of-another": lambda _, data: data["config"].update(seed=7),
        "rewind-of-another": lambda _, data: data.update(saved_sha256="0" * 64),
    }
    for name, change in changes.items():
        _resealed(folder, folder / "round-1", name, change)


def interrupted(out: Path) -> None:
    """A run of `RUN` that stops in its last round, with its states."""
    write, written = RunDirectory.write_state, []

    def stop(self: RunDirectory, *state: Any) -> None:
        write(self, *state)
        written.append(state)
        if len(written) == 2:
            raise KeyboardInterrupt

    with mock.patch.object(RunDirectory, "write_state", stop):
        assert run.main([*RUN, "--out", str(out)]) == 130


def _damaged(folder: Path, sound: Path) -> None:
    """What safetensors, JSON and the seal have to find."""
    content = sound.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header, body = json.loads(content[8 : 8 + size]), content[8 + size :]
    first, second = sorted(name for name in header if name != "__metadata__")[:2]

    def raw(name: str, header: Mapping[str, Any] | bytes, length: int | None = None) -> None:
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        count = len(text) if length is None else length
        (folder / name).write_bytes(count.to_bytes(8, "little") + text + body)

    def entry(name: str, **fields: Any) -> None:
        raw(name, {**header, first: {**header[first], **fields}})

    (folder / "raw-empty").write_bytes(b"")
    (folder / "raw-cut-in-the-header").write_bytes(content[: size // 2])
    (folder / "raw-cut-in-the-tensors").write_bytes(content[:-3])
    (folder / "raw-longer").write_bytes(content + b"\0")
    (folder / "raw-one-bit").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    raw("raw-header-of-16-exabytes", header, 2**64 - 1)
    raw("raw-header-of-99-megabytes", header, 99 * 2**20)
    raw("raw-header-that-is-text", b"[" * 500)
    raw("raw-header-nested", b'{"a":' * 500)
    entry("raw-offsets-beyond", data_offsets=[0, 2**40])
    entry("raw-offsets-reversed", data_offsets=[8, 0])
    entry("raw-offsets-of-another", data_offsets=header[second]["data_offsets"])
    entry("raw-shape-that-overflows", shape=[2**62, 2**62])
    entry("raw-shape-negative", shape=[-1])
    entry("raw-dtype-unknown", dtype="F512")
    raw("raw-no-seal", {**header, "__metadata__": {}})
    raw("raw-seal-that-is-text", {**header, "__metadata__": {sealed.ENTRY: "[" * 500}})
    raw("raw-seal-that-is-a-list", {**header, "__metadata__": {sealed.ENTRY: "[1]"}})


def _resealed(folder: Path, sound: Path, name: str, change: Change) -> None:
    tensors, data = sealed.read(sound)
    change(tensors, data)
    reseal(folder / name, tensors, data)


def main() -> int:
    """Writes the corpus anew."""
    shutil.rmtree(FILES, ignore_errors=True)
    for write in (_tickets, _states):
        (FILES / write.__name__.strip("_")).mkdir(parents=True)
        write()
    print(f"{sum(1 for _ in FILES.rglob('*'))} entries under {FILES.name}/")
    return 0


if __name__ == "__main__":
    # Under the name that the tests import it by, for the tickets name it.
    from tests.hostile import corpus

    sys.exit(corpus.main())
