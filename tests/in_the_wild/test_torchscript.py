"""torch.jit.script knows PyTorch's own operators alone: it is refused, and dense again a model is scripted."""

import copy

import pytest
import torch

import lth_sparse as lth
from tests.in_the_wild.side_by_side import assert_equal, batches, dense_state, twins

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

((IMAGES, _),) = batches(count=1)


@pytest.mark.parametrize("part", [lambda model: model, lambda model: model[0]], ids=["a model", "a layer"])
def test_it_is_refused_with_what_to_do_and_the_model_stays_sparse(part):
    sparse, _ = twins()
    before = dense_state(sparse)
    with pytest.raises(RuntimeError, match=r"got torch.jit.script.*: give it lth_sparse.densify\(copy.deepcopy\(model"):
        torch.jit.script(part(sparse))
    assert isinstance(sparse[0], lth.SparseConv2d)
    assert_equal(dense_state(sparse), before)


def test_dense_again_it_gives_the_sparse_models_outputs(tmp_path):
    sparse, dense = (model.eval() for model in twins())
    torch.jit.script(lth.densify(copy.deepcopy(sparse))).save(tmp_path / "model.pt")
    outputs = torch.jit.load(tmp_path / "model.pt")(IMAGES[:3])
    assert_equal(outputs, sparse(IMAGES[:3]))
    assert_equal(outputs, dense(IMAGES[:3]))
