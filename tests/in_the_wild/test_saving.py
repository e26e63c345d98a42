"""Whole modules and state dicts in files, copies, and memory that processes share."""

import copy
import pickle

import pytest
import safetensors.torch
import torch
from torch import multiprocessing, nn
from torch.distributed import checkpoint as distributed_checkpoint
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

from tests.in_the_wild.side_by_side import assert_equal, assert_twins, dense_state, sgd, train, twins


def saved_whole(model, path):
    torch.save(model, path)
    return torch.load(path, weights_only=False)


def saved_by_safetensors(model, path):
    safetensors.torch.save_model(model, path)
    other, _ = twins()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    missing, unexpected = safetensors.torch.load_model(other, path)
    assert not missing
    assert not unexpected
    return other


def mapped_and_assigned(model, path):
    torch.save(model.state_dict(), path)
    other, _ = twins()
    other.load_state_dict(torch.load(path, mmap=True), assign=True)
    return other


WAYS = {
    "torch.save of a module": saved_whole,
    "safetensors": saved_by_safetensors,
    "mmap and assign": mapped_and_assigned,
    "pickle": lambda model, path: pickle.loads(pickle.dumps(model)),
    "deepcopy": lambda model, path: copy.deepcopy(model),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_what_comes_back_is_the_same_and_its_own(way, tmp_path):
    sparse, _ = twins()
    train(sparse, sgd(sparse))
    again = way(sparse, tmp_path / "file")
    assert_equal(again.state_dict(), sparse.state_dict())
    before = dense_state(sparse)
    train(again, sgd(again))
    torch.testing.assert_close(dense_state(sparse), before, rtol=0, atol=0)
    train(sparse, sgd(sparse))
    assert_equal(dense_state(again), dense_state(sparse))


def test_a_training_that_is_resumed_from_a_checkpoint(tmp_path):
    resumed = []
    for which, model in enumerate(twins()):
        optimizer = sgd(model)
        train(model, optimizer)
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "checkpoint")
        checkpoint = torch.load(tmp_path / "checkpoint")
        other = twins()[which]
        other.load_state_dict(checkpoint["model"])
        again = sgd(other)
        again.load_state_dict(checkpoint["optimizer"])
        train(other, again)
        resumed.append(other)
    assert_twins(*resumed)


def test_safetensors_writes_tied_values_once(tmp_path):
    sparse, _ = twins(lambda: nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6)))
    sparse[1] = copy.deepcopy(sparse[0])
    sparse[1].values = sparse[0].values
    safetensors.torch.save_model(sparse, tmp_path / "model.safetensors")
    other = copy.deepcopy(sparse)
    with torch.no_grad():
        other[0].values.zero_()
    safetensors.torch.load_model(other, tmp_path / "model.safetensors")
    assert other[1].values is other[0].values
    x = torch.randn(2, 6)
    assert_equal(other(x), sparse(x))


def train_shared(rank, model):
    torch.set_num_threads(1)
    train(model, sgd(model))


def test_another_process_trains_the_model_in_shared_memory():
    sparse, dense = twins()
    sparse.share_memory()
    multiprocessing.spawn(train_shared, (sparse,), nprocs=1)
    train(dense, sgd(dense))
    assert_twins(sparse, dense)


def test_a_distributed_checkpoint_of_model_and_optimizer(tmp_path):
    def state(model, optimizer):
        return dict(zip(("model", "optimizer"), get_state_dict(model, optimizer), strict=True))

    (sparse, _), (other, _) = twins(), twins()
    optimizer, again = sgd(sparse), sgd(other)
    train(sparse, optimizer)
    distributed_checkpoint.save(state(sparse, optimizer), checkpoint_id=tmp_path)
    loaded = state(other, again)
    distributed_checkpoint.load(loaded, checkpoint_id=tmp_path)
    set_state_dict(other, again, model_state_dict=loaded["model"], optim_state_dict=loaded["optimizer"])
    for each, its_own in ((sparse, optimizer), (other, again)):
        train(each, its_own)
    assert_equal(other.state_dict(), sparse.state_dict())
