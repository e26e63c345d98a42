"""Both of PyTorch's fully sharded data parallels, over two processes: trained as one masked dense model by the whole
batch. Between the passes a process has a part of the values, and whatever needs all of them says so."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.distributed import init_device_mesh
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, set_model_state_dict
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.fsdp.wrap import ModuleWrapPolicy

import lth_sparse as lth
from tests.in_the_wild import processes
from tests.in_the_wild.processes import network, part
from tests.in_the_wild.side_by_side import assert_equal, assert_twins, batches, dense_state, sgd, train, twins

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")

LAYERS = (lth.SparseConv2d, lth.SparseLinear, nn.Conv2d, nn.Linear)
GATHERED = StateDictOptions(full_state_dict=True)


def fsdp2(model):
    mesh = init_device_mesh("cpu", (processes.WORLD,))
    for layer in model:
        if isinstance(layer, LAYERS):
            fully_shard(layer, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def fsdp1(model, **options):
    return FullyShardedDataParallel(model, device_id=torch.device("cpu"), **options)


def fsdp1_of_layers(model):
    return fsdp1(model, use_orig_params=True, auto_wrap_policy=ModuleWrapPolicy(set(LAYERS)))


SHARDINGS = {each.__name__: each for each in (fsdp2, fsdp1, fsdp1_of_layers)}


def trained(shard, rank):
    """The trained weights, gathered; and again, from another sharded model that they were loaded into."""
    sharded = shard(twins(network)[0])
    optimizer = sgd(sharded)
    for images, labels in batches():
        optimizer.zero_grad()
        F.cross_entropy(sharded(part(images, rank)), part(labels, rank)).backward()
        optimizer.step()
    gathered = get_model_state_dict(sharded, options=GATHERED)
    other = shard(twins(network)[0])
    set_model_state_dict(other, dict(gathered), options=GATHERED)
    again = get_model_state_dict(other, options=GATHERED)
    return {"gathered": gathered, "again": again}


def refusals(shard, rank):
    """What is said, to whatever needs all values, by the name of what was tried."""
    sparse, _ = twins(network)
    sharded = shard(sparse)
    sharded(next(batches())[0]).sum().backward()
    layer = next(each for each in sparse.modules() if isinstance(each, lth.SparseConv2d))
    mask = layer.mask.flip(1)

    def assign():
        layer.weight = torch.zeros(mask.shape)

    calls = {
        "layer.weight": lambda: layer.weight,
        "layer.weight = tensor": assign,
        "reset_parameters": layer.reset_parameters,
        "a mask": lambda: layer.load_state_dict({"mask": mask}, strict=False),
        "a dense weight": lambda: layer.load_state_dict({"weight": torch.zeros(mask.shape)}, strict=False),
        "densify": lambda: lth.densify(sharded),
        "save_ticket": lambda: lth.save_ticket("never.safetensors", sharded),
        "prune": lambda: lth.prune(sharded, 0.5),
        "snapshot": lambda: lth.snapshot(sharded),
        "sparsify": lambda: lth.sparsify(shard(pruned_by_zeros())),
        "sparsify with masks": lambda: sparsify_by_masks(shard(network())),
    }
    return {name: message_of(call) for name, call in calls.items()}


def pruned_by_zeros():
    _, dense = twins(network)
    return dense


def sparsify_by_masks(sharded):
    name = next(name for name, layer in sharded.named_modules() if isinstance(layer, nn.Linear))
    return lth.sparsify(sharded, {name: torch.ones(5, 54, dtype=torch.bool)})


def message_of(call):
    try:
        call()
    except (ValueError, RuntimeError) as error:
        return str(error)
    return "nothing"


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    scenarios = {f"train {name}": partial(trained, shard) for name, shard in SHARDINGS.items()}
    scenarios |= {f"refuse {name}": partial(refusals, shard) for name, shard in SHARDINGS.items()}
    return processes.run(scenarios, tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize("sharding", SHARDINGS)
def test_a_sharded_model_trains_what_one_process_does(ranks, sharding):
    _, dense = twins(network)
    train(dense, sgd(dense))
    results = ranks[0][f"train {sharding}"]
    sparse, _ = twins(network)
    for gathered in results.values():
        sparse.load_state_dict(gathered)
        assert_twins(sparse, dense)


@pytest.mark.parametrize("sharding", SHARDINGS)
def test_what_needs_all_values_says_how_to_gather_them(ranks, sharding):
    for results in ranks:
        for tried, message in results[f"refuse {sharding}"].items():
            assert "FSDP has sharded" in message, tried
            assert "get_model_state_dict(model, options=StateDictOptions(full_state_dict=True))" in message, tried


def test_a_ticket_is_saved_from_what_was_gathered(ranks, tmp_path):
    sparse, _ = twins(network)
    gathered = ranks[0]["train fsdp2"]["gathered"]
    lth.save_ticket(tmp_path / "ticket.safetensors", sparse, weights=gathered)
    loaded = lth.load_ticket(tmp_path / "ticket.safetensors", network())
    sparse.load_state_dict(gathered)
    assert_equal(loaded.state_dict(), dense_state(sparse))
