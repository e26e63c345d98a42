"""TorchScript, which knows PyTorch's own operators alone, is refused; dense again, a model is scripted or traced."""

import copy

import pytest
import torch

import lth_sparse as lth
from tests.in_the_wild.side_by_side import assert_equal, batches, dense_state, twins

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

((IMAGES, _),) = batches(count=1)

TOOLS = {
    "script": lambda model, path: torch.jit.script(model),
    "script of a layer": lambda model, path: torch.jit.script(model[0]),
    "trace": lambda model, path: torch.jit.trace(model, IMAGES),
    "ONNX by trace": lambda model, path: torch.onnx.export(model, (IMAGES,), path, dynamo=False),
}


@pytest.mark.parametrize("tool", TOOLS)
def test_it_is_refused_with_what_to_do_and_the_model_stays_sparse(tool, tmp_path):
    sparse, _ = twins()
    if tool.startswith("ONNX"):
        pytest.importorskip("onnx")
    before = dense_state(sparse)
    with pytest.raises(RuntimeError, match=r"got torch.jit.*: give it lth_sparse.densify\(copy.deepcopy\(model\)\)"):
        TOOLS[tool](sparse.eval(), tmp_path / "model")
    assert isinstance(sparse[0], lth.SparseConv2d)
    assert_equal(dense_state(sparse), before)


@pytest.mark.parametrize("tool", ["script", "trace"])
def test_dense_again_it_gives_the_sparse_models_outputs(tool, tmp_path):
    sparse, dense = (model.eval() for model in twins())
    made = TOOLS[tool](lth.densify(copy.deepcopy(sparse)), None)
    made.save(tmp_path / "model.pt")
    outputs = torch.jit.load(tmp_path / "model.pt")(IMAGES[:3])
    assert_equal(outputs, sparse(IMAGES[:3]))
    assert_equal(outputs, dense(IMAGES[:3]))
