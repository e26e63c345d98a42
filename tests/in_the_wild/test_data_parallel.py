"""DistributedDataParallel over two processes and DataParallel: trained as one masked dense model by the whole batch."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

import lth_sparse as lth
from tests.in_the_wild import processes
from tests.in_the_wild.processes import network, part
from tests.in_the_wild.side_by_side import assert_equal, assert_twins, batches, dense_state, sgd, train, twins


class TwoHeads(nn.Module):
    """Of two heads one is used, so that the other one's values get no gradient."""

    def __init__(self):
        super().__init__()
        self.body, self.unused = network(), nn.Linear(54, 5)

    def forward(self, x):
        return self.body(x)


def trained(rank, make=network, backend="auto", **options):
    sparse, _ = twins(make, backend=backend)
    model, optimizer = DistributedDataParallel(sparse, **options), sgd(sparse)
    for images, labels in batches():
        optimizer.zero_grad()
        F.cross_entropy(model(part(images, rank)), part(labels, rank)).backward()
        optimizer.step()
    return dense_state(sparse)


def plain(rank):
    return trained(rank)


def static_graph(rank):
    return trained(rank, static_graph=True, gradient_as_bucket_view=True)


def find_unused_parameters(rank):
    return trained(rank, TwoHeads, find_unused_parameters=True)


def no_sync(rank):
    """Two halves of the rank's part, one after the other."""
    sparse, _ = twins(network)
    model, optimizer = DistributedDataParallel(sparse), sgd(sparse)
    for images, labels in batches():
        optimizer.zero_grad()
        first, second = zip(part(images, rank).chunk(2), part(labels, rank).chunk(2), strict=True)
        with model.no_sync():
            (F.cross_entropy(model(first[0]), first[1]) / 2).backward()
        (F.cross_entropy(model(second[0]), second[1]) / 2).backward()
        optimizer.step()
    return dense_state(sparse)


def masks_of_ranks(rank):
    """Drawn anew by each; the output is checked against the dense layer's at each step."""
    torch.manual_seed(rank)
    mask = (torch.randperm(48) < 20).view(6, 8)
    layer = lth.SparseLinear.from_dense(nn.Linear(8, 6), mask)
    model, optimizer = DistributedDataParallel(layer), torch.optim.SGD(layer.parameters(), 0.1)
    x = torch.ones(2, 8)
    for _ in range(2):
        optimizer.zero_grad()
        output = model(x)
        torch.testing.assert_close(output, layer.to_dense()(x))
        output.square().sum().backward()
        optimizer.step()
    return {"drawn": mask, **layer.state_dict()}


def deterministic(rank):
    torch.use_deterministic_algorithms(True)
    try:
        return [trained(rank, backend="cpp") for _ in range(2)]
    finally:
        torch.use_deterministic_algorithms(False)


SCENARIOS = {
    each.__name__: each
    for each in (plain, static_graph, find_unused_parameters, no_sync, masks_of_ranks, deterministic)
}


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    return processes.run(SCENARIOS, tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize("scenario", ["plain", "static_graph", "find_unused_parameters", "no_sync"])
def test_two_processes_train_what_one_does(ranks, scenario):
    _, dense = twins(TwoHeads if scenario == "find_unused_parameters" else network)
    train(dense, sgd(dense))
    for results in ranks:
        assert_equal(results[scenario], dense.state_dict())


def test_the_same_bits_again_in_both_processes(ranks):
    first, *again = [state for results in ranks for state in results["deterministic"]]
    for state in again:
        assert all(torch.equal(state[name], first[name]) for name in first)


def test_every_rank_trains_the_mask_of_the_first(ranks):
    first, second = (results["masks_of_ranks"] for results in ranks)
    assert not torch.equal(first["drawn"], second.pop("drawn"))
    assert torch.equal(first.pop("drawn"), first["mask"])
    torch.testing.assert_close(first, second)


def test_data_parallel_on_a_cpu():
    sparse, dense = twins()
    train(DataParallel(sparse), sgd(sparse))
    train(DataParallel(dense), sgd(dense))
    assert_twins(sparse, dense)
