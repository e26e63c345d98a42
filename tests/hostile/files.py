"""Files that anybody could have written: bytes changed at random, or content changed and sealed again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from hypothesis import strategies as st
from torch import Tensor

from lth_sparse.storage import sealed

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.sampled_from([2**16, 2**31, 2**63, -(2**63), 10**30, 1e308, float("nan"), float("inf"), 0.5])
    | st.sampled_from(["", "0", "weight", "conv4", "resnet18", "timm:resnet50", "os:system", "lenet-300-100", "\0"])
    | st.text(max_size=5),
    lambda inside: st.lists(inside, max_size=4) | st.dictionaries(st.text(max_size=5), inside, max_size=3),
    max_leaves=6,
)
DTYPES = [
    torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.uint8, torch.int8, torch.int32, torch.int64,
    torch.bool, torch.complex64, torch.float8_e4m3fn, torch.float8_e5m2,
]  # fmt: skip


@st.composite
def changed_bytes(draw: st.DrawFn, content: bytes) -> bytes:
    """Cut short, prolonged, or with some bytes replaced: of the header's length, of the header, of anything."""
    kinds = ["cut", "longer", "bytes", "bytes", "length", "anything"]
    kind = draw(st.sampled_from(kinds if content else ["longer", "anything"]))
    if kind == "anything":
        return draw(st.binary(max_size=64))
    if kind == "cut":
        return content[: draw(st.integers(0, len(content)))]
    if kind == "longer":
        return content + draw(st.binary(min_size=1, max_size=16))
    changed = bytearray(content)
    if kind == "length":
        changed[:8] = draw(st.sampled_from([0, 1, len(content), 2**31, 2**63, 2**64 - 1])).to_bytes(8, "little")
        return bytes(changed)
    header = min(int.from_bytes(content[:8], "little") + 8, len(content))
    for _ in range(draw(st.integers(1, 4))):
        reach = draw(st.sampled_from([header, len(content)]))
        changed[draw(st.integers(0, reach - 1))] = draw(st.integers(0, 255))
    return bytes(changed)


@st.composite
def changed_json(draw: st.DrawFn, value: Any) -> Any:
    """The value, or something in it, replaced, removed, or added to."""
    if isinstance(value, dict) and value and draw(st.integers(0, 9)):
        name = draw(st.sampled_from(sorted(value)))
        kind = draw(st.sampled_from(["inside", "inside", "inside", "removed", "added", "renamed"]))
        rest = {key: entry for key, entry in value.items() if key != name}
        if kind == "removed":
            return rest
        if kind == "added":
            return value | {draw(st.text(max_size=5)): draw(VALUES)}
        if kind == "renamed":
            return rest | {draw(st.text(max_size=5)): value[name]}
        return value | {name: draw(changed_json(value[name]))}
    if isinstance(value, list) and value and draw(st.integers(0, 4)):
        place = draw(st.integers(0, len(value) - 1))
        if draw(st.integers(0, 4)) == 0:
            return value[:place] + value[place + 1 :]
        return [*value[:place], draw(changed_json(value[place])), *value[place + 1 :]]
    return draw(VALUES)


@st.composite
def changed_tensors(draw: st.DrawFn, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """One of the tensors removed, renamed, or of another dtype, shape or content; or one more."""
    name = draw(st.sampled_from(sorted(tensors)))
    kind = draw(st.sampled_from(["removed", "renamed", "dtype", "shape", "content", "added"]))
    rest = {key: value for key, value in tensors.items() if key != name}
    if kind == "removed":
        return rest
    if kind == "renamed":
        return rest | {
            draw(st.sampled_from(["", "mask/", "values/x", "rest/", "rest/0.weight", name + "x"])): tensors[name]
        }
    if kind == "dtype":
        return rest | {name: tensors[name].to(draw(st.sampled_from(DTYPES)))}
    shape = draw(st.lists(st.integers(0, 5), max_size=4))
    if kind == "shape":
        return rest | {name: torch.zeros(shape, dtype=tensors[name].dtype)}
    if kind == "added":
        extra = draw(
            st.sampled_from(["mask/x", "values/x", "rest/x", "model/x", "best/x", "optimizer/9/step", "optimizer/x"])
        )
        return tensors | {extra: torch.zeros(shape)}
    return rest | {
        name: torch.full_like(
            tensors[name], draw(st.sampled_from([0, 1, 255 if tensors[name].dtype == torch.uint8 else 3]))
        )
    }


def reseal(path: Path, tensors: dict[str, Tensor], data: Any) -> None:
    """Writes what may be nonsense under a seal that is right, as its author can."""
    held = {name: value.contiguous() for name, value in tensors.items()}
    if isinstance(data, dict):
        data = {**data, "sha256": sealed.digest(held, json.dumps(data, sort_keys=True))}
    path.write_bytes(safetensors.torch.save(held, {sealed.ENTRY: json.dumps(data)}))
