from pathlib import Path

import pytest
import torch

from lth_sparse.storage import sealed
from lth_sparse.storage.files import write_atomically


@pytest.fixture
def path(tmp_path: Path) -> Path:
    tensors = {
        "floats": torch.randn(3, 5),
        "flags": torch.tensor([True, False]),
        "half": torch.randn(7).to(torch.bfloat16),
        "empty": torch.empty(0),
        "scalar": torch.tensor(3),
        "strided": torch.arange(12).reshape(3, 4).t(),
    }
    sealed.write(tmp_path / "file.safetensors", tensors, {"note": "é"})
    return tmp_path / "file.safetensors"


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    tensors = {"a": torch.randn(4, 3).t(), "b": torch.tensor([True, False]), "empty": torch.empty(0, 2)}
    sealed.write(tmp_path / "x", tensors, {"note": "é"})
    read, metadata = sealed.read(tmp_path / "x")
    assert metadata == {"note": "é"}
    assert read.keys() == tensors.keys()
    assert all(torch.equal(read[name], tensors[name]) and read[name].dtype == tensors[name].dtype for name in read)


def test_keys_that_are_numbers_do_not_damage_the_file(tmp_path: Path) -> None:
    sealed.write(tmp_path / "x", {}, {"nested": {2: "a", 10: "b"}})
    assert sealed.read(tmp_path / "x")[1] == {"nested": {"2": "a", "10": "b"}}


def test_a_file_cut_short_anywhere_is_named_and_refused(path: Path) -> None:
    content = path.read_bytes()
    for length in (0, 4, 8, 40, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(sealed.DamagedFile, match=str(path)):
            sealed.read(path)


def test_a_flip_of_any_byte_is_refused_or_harmless(path: Path) -> None:
    content = path.read_bytes()
    expected, metadata = sealed.read(path)
    refused = 0
    for position in range(len(content)):
        path.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
        try:
            read, read_metadata = sealed.read(path)
        except sealed.DamagedFile:
            refused += 1
        else:  # White space that pads the header carries nothing.
            assert read_metadata == metadata
            assert all(sealed.digest({"": read[n]}) == sealed.digest({"": expected[n]}) for n in expected)
    assert refused > 0.9 * len(content)


def test_equal_content_gives_equal_bytes(path: Path) -> None:
    content = path.read_bytes()
    tensors, data = sealed.read(path)
    for _ in range(10):
        sealed.write(path, tensors, data)
        assert path.read_bytes() == content


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00{}      ")
    with pytest.raises(sealed.DamagedFile, match="not a file of this project"):
        sealed.read(tmp_path / "other")


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_atomically(tmp_path / "file", b"old")
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        write_atomically(tmp_path / "file", b"new")
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [("file", b"old")]
