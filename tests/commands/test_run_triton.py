"""`python -m lth_sparse.run --backend triton` where there is no GPU: the real kernels, in Triton's interpreter."""

import pytest
import torch

from lth_sparse.settings import config
from lth_sparse.settings.presets import INTERPRETED
from tests.conftest import error_line, rows

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU, so nothing is interpreted")
TINY = (
    "--dataset", "folder", "--image-size", 16, "--iterations", 3, "--evaluate-every", 3, "--rounds", 1,
    "--batch-size", 8,
)  # fmt: skip
ACCURACIES = [
    f"accuracy_{name}"
    for name in ("before_prune", "after_prune", "rewound", "retrained", "early_stop", "random", "validation")
]


@pytest.mark.long
def test_a_lottery_in_the_interpreter_is_that_of_dense(lottery, image_folder, tmp_path):
    options = (*TINY, "--data-dir", image_folder)
    status, said = lottery("--backend", "triton", *options, "--out", tmp_path / "triton")
    assert status == 0, said
    assert "Triton's interpreter runs the kernels on the CPU, thousands of times slower" in said
    assert "The run has 3 steps a training and 1 rounds" in said
    assert lottery("--backend", "dense", *options, "--out", tmp_path / "dense")[0] == 0
    for ours, dense in zip(rows(tmp_path / "triton"), rows(tmp_path / "dense"), strict=True):
        assert [ours[name] for name in ACCURACIES] == [dense[name] for name in ACCURACIES]
        assert float(ours["train_loss"]) == pytest.approx(float(dense["train_loss"]), rel=1e-5)
        assert 0 < float(ours["max_relative_error"]) < 1e-5
    status, said = lottery("--resume", "--out", tmp_path / "triton")
    assert status == 0
    assert "is finished already" in said


def test_the_preset_is_cut_to_a_size_that_the_interpreter_manages():
    settings = config.build({"backend": "triton"}, INTERPRETED)
    assert (settings.training.iterations, settings.pruning.rounds) == (40, 2)
    settings = config.build({"backend": "triton", "rounds": 5, "epochs": 1}, INTERPRETED)
    assert (settings.training.iterations, settings.training.epochs, settings.pruning.rounds) == (None, 1, 5)
    settings = config.build({"preset": "openlth/vgg16"}, INTERPRETED)
    assert (settings.training.iterations, settings.training.epochs) == (40, None)


def test_bad_input_is_one_line_here_too(lottery, tmp_path):
    status, said = lottery("--backend", "triton", "--dataset", "folder", "--data-dir", tmp_path / "nothing")
    assert status == 2
    error_line(said)


def test_a_machine_without_triton_says_what_to_install(lottery, monkeypatch, tmp_path):
    from lth_sparse.backends import registry, triton

    monkeypatch.setitem(registry._unusable, "triton", triton._unusable)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    status, said = lottery("--backend", "triton", "--out", tmp_path / "run")
    assert status == 2
    assert error_line(said).endswith(
        "backend \"triton\" cannot be used here: Triton is not installed: run 'pip install triton'"
    )


def test_the_cpu_backend_is_refused_on_a_gpu(lottery, monkeypatch, image_folder, tmp_path):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr("lth_sparse.lottery.playing.make_deterministic", lambda: None)
    status, said = lottery(
        *TINY, "--data-dir", image_folder, "--backend", "cpp", "--device", "cuda:0", "--out", tmp_path / "run"
    )
    assert status == 2
    assert error_line(said).endswith("the layer is on cuda:0, and the C++ kernels run on the CPU")
