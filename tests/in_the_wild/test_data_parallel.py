"""DistributedDataParallel over two processes that have drawn masks of their own: rank 0's counts, everywhere."""

import torch
from torch import distributed, multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel

import lth_sparse as lth


def train(rank, rendezvous, results):
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2)
    torch.manual_seed(rank)
    mask = (torch.randperm(48) < 20).view(6, 8)
    layer = lth.SparseLinear.from_dense(nn.Linear(8, 6), mask)
    model = DistributedDataParallel(layer)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    x = torch.ones(2, 8)
    for _ in range(2):
        optimizer.zero_grad()
        output = model(x)
        torch.testing.assert_close(output, layer.to_dense()(x))
        output.square().sum().backward()
        optimizer.step()
    torch.save({"drawn": mask, **layer.state_dict()}, f"{results}/{rank}.pt")
    distributed.destroy_process_group()


def test_every_rank_trains_the_mask_of_the_first(tmp_path):
    multiprocessing.spawn(train, (tmp_path / "rendezvous", tmp_path), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert not torch.equal(first["drawn"], second.pop("drawn"))
    assert torch.equal(first.pop("drawn"), first["mask"])
    torch.testing.assert_close(first, second)
