"""bench.tune: where its table goes."""

import pytest

from bench import tune
from lth_sparse.kernels import configurations


def test_the_folder_of_the_table_is_made(tmp_path, monkeypatch):
    row = next(iter(configurations.table().values()))
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(tune, "tuned", lambda *_: {key: (1.0, None) for key in range(1000)})
    monkeypatch.setattr(tune, "entry_of", lambda *_: row)
    file = tmp_path / "new" / "folder" / "table.json"
    assert tune.main(["--rehearse", "--out", str(file)]) == 0
    assert file.read_text().startswith("{")


def test_a_folder_is_refused_before_anything_is_timed(tmp_path, capsys):
    with pytest.raises(SystemExit):
        tune.main(["--rehearse", "--out", str(tmp_path)])
    assert "expected a file in it" in capsys.readouterr().err
