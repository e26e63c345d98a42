"""Files that are whole or not there, whoever writes them at once."""

import threading

import pytest

from lth_sparse.storage.files import write_atomically


def test_of_writers_at_once_each_file_is_whole(tmp_path):
    path, contents, wrong = tmp_path / "ticket", [bytes([letter]) * 300_000 for letter in b"abcd"], []

    def repeat(act):
        try:
            for _ in range(40):
                act()
        except BaseException as error:
            wrong.append(error)

    def read():
        if path.read_bytes() not in contents:
            wrong.append("a reader saw a part of a file")

    path.write_bytes(contents[0])
    threads = [
        threading.Thread(target=repeat, args=(lambda each=each: write_atomically(path, each),)) for each in contents
    ]
    threads += [threading.Thread(target=repeat, args=(read,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert [each.name for each in tmp_path.iterdir()] == ["ticket"]


def test_a_write_that_fails_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "ticket"
    path.write_bytes(b"before")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match=r"No space .*ticket"):
        write_atomically(path, b"after")
    assert path.read_bytes() == b"before"
    assert [each.name for each in tmp_path.iterdir()] == ["ticket"]
