"""Tickets of the models that programs have: pruned, sparse, tied, wrapped, with an optimizer that exists already."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

import lth_sparse as lth
from lth_sparse.nn.forms import unwrap
from lth_sparse.nn.masks import Masks
from lth_sparse.storage import sealed
from lth_sparse.storage.ticket import pack
from lth_sparse.system.errors import InputError

IMAGES = torch.randn(3, 2, 6, 6)


def network(seed: int) -> nn.Sequential:
    """Layers 0 and 4 can be pruned, 5 is left whole; BatchNorm has seen images."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 6), nn.Linear(6, 3)
    )
    model(IMAGES)
    return model.eval()


def masks(seed: int, density: float = 0.3) -> Masks:
    generator = torch.Generator().manual_seed(seed)
    return {
        "0": torch.rand(4, 2, 3, 3, generator=generator) < density,
        "4": torch.rand(6, 64, generator=generator) < density,
    }


def pruned(model: nn.Sequential, chosen: Masks) -> nn.Sequential:
    for layer, mask in chosen.items():
        prune.custom_from_mask(model.get_submodule(layer), "weight", mask)
    return model


def masked(model: nn.Module, chosen: Masks) -> nn.Module:
    for layer, mask in chosen.items():
        model.get_submodule(layer).weight.data.mul_(mask)  # type: ignore[operator, union-attr]
    return model


def assert_is(model: nn.Module, expected: nn.Module, chosen: Masks) -> None:
    """The same outputs, and masks that hold: after steps of an optimizer the pruned weights are still zero."""
    torch.testing.assert_close(model(IMAGES), expected(IMAGES))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        model(IMAGES).square().sum().backward()
        optimizer.step()
    model(IMAGES)
    inner, _ = unwrap(model)
    for layer, mask in chosen.items():
        weight = inner.get_submodule(layer).weight
        assert isinstance(weight, Tensor)
        assert (weight[~mask] == 0).all(), layer
        assert (weight[mask] != 0).all(), layer


@pytest.fixture(scope="module")
def process_group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    store = tmp_path_factory.mktemp("gloo") / "store"
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def compiled(model: nn.Module) -> nn.Module:
    return torch.compile(model, backend="eager")  # type: ignore[return-value]


WRAPPERS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "plain": lambda model: model,
    "DataParallel": nn.DataParallel,
    "DistributedDataParallel": nn.parallel.DistributedDataParallel,
    "compiled": compiled,
    "DistributedDataParallel of compiled": lambda model: nn.parallel.DistributedDataParallel(compiled(model)),
}
FORMS: dict[str, Callable[[nn.Sequential, Masks], nn.Module]] = {
    "dense": lambda model, chosen: model,
    "pruned": pruned,
    "sparse": lth.sparsify,
    "pruned and sparse": lambda model, chosen: lth.sparsify(pruned(model, {"0": chosen["0"]}), {"4": chosen["4"]}),
}


@pytest.mark.parametrize(("form", "wrapper"), list(itertools.product(FORMS, WRAPPERS)))
def test_a_ticket_of_any_form_loads_into_any(tmp_path: Path, process_group: None, form: str, wrapper: str) -> None:
    chosen = masks(1)
    expected = masked(network(1), chosen)
    model = WRAPPERS[wrapper](FORMS[form](network(1), chosen))
    lth.save_ticket(tmp_path / "t", model, chosen if form == "dense" else None)
    assert set(lth.read_ticket(tmp_path / "t").weights) == set(expected.state_dict())
    for other in FORMS:
        target = FORMS[other](network(2), masks(2))
        loaded = lth.load_ticket(tmp_path / "t", target)
        assert loaded is target
        holding = {"dense": [], "pruned and sparse": ["0", "4"]}.get(other, ["0", "4"])
        assert_is(loaded, expected, {layer: chosen[layer] for layer in holding})
        assert all(torch.equal(loaded.ticket.masks[layer], chosen[layer]) for layer in chosen)  # type: ignore[union-attr, index]
    # Under DistributedDataParallel a layer's number of values is settled, so the model has the ticket's.
    lth.load_ticket(tmp_path / "t", model)
    assert_is(model, expected, {} if form == "dense" else chosen)


def test_one_ticket_has_the_same_bytes_from_every_form(tmp_path: Path, process_group: None) -> None:
    chosen = masks(1)
    for number, (form, wrapper) in enumerate(itertools.product(FORMS, WRAPPERS)):
        model = WRAPPERS[wrapper](FORMS[form](network(1), chosen))
        lth.save_ticket(tmp_path / str(number), model, chosen)
        assert (tmp_path / str(number)).read_bytes() == (tmp_path / "0").read_bytes(), (form, wrapper)


def test_names_with_the_wrapper_in_them(tmp_path: Path) -> None:
    model = nn.DataParallel(network(1))
    lth.save_ticket(tmp_path / "a", model, masks(1))
    lth.save_ticket(tmp_path / "b", model, {f"module.{layer}": mask for layer, mask in masks(1).items()})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    layer = nn.DataParallel(nn.Linear(3, 2))
    lth.save_ticket(tmp_path / "c", layer, {"module": torch.ones(2, 3, dtype=torch.bool)})
    assert lth.read_ticket(tmp_path / "c").masks.keys() == {""}


@pytest.mark.parametrize("density", [0.1, 0.3, 1.0])
def test_an_optimizer_that_exists_keeps_its_parameters(tmp_path: Path, density: float) -> None:
    lth.save_ticket(tmp_path / "t", network(1), masks(1))
    model = lth.sparsify(network(2), masks(2, density))
    parameters = list(model.parameters())
    optimizer = torch.optim.SGD(parameters, lr=0.1)
    model(IMAGES).sum().backward()
    optimizer.step()
    lth.load_ticket(tmp_path / "t", model)
    optimizer.zero_grad()
    assert all(mine is theirs for mine, theirs in zip(model.parameters(), parameters, strict=True))
    before = model[4].values.detach().clone()  # type: ignore[index]
    model(IMAGES).sum().backward()
    optimizer.step()
    assert (model[4].values != before).any()  # type: ignore[index]
    assert torch.equal(model[4].mask, masks(1)["4"])  # type: ignore[index]


def test_layers_that_only_one_side_has_sparse(tmp_path: Path) -> None:
    """Sparse in the model, whole in the ticket: whole. Masked in the ticket, dense in the model: zeros."""
    chosen = {"4": masks(1)["4"]}
    expected = masked(network(1), chosen)
    lth.save_ticket(tmp_path / "t", network(1), chosen)
    for form in ("pruned", "sparse"):
        model = FORMS[form](network(2), {"0": masks(2)["0"], "5": torch.rand(3, 6) < 0.5})
        lth.load_ticket(tmp_path / "t", model)
        assert torch.equal(model[4].weight, expected[4].weight)  # type: ignore[index]
        assert_is(model, expected, {"0": torch.ones(4, 2, 3, 3, dtype=torch.bool)})


def test_a_sparse_layer_of_another_shape_is_refused_by_name(tmp_path: Path) -> None:
    lth.save_ticket(tmp_path / "t", nn.Sequential(nn.Linear(5, 4)), {"0": torch.rand(4, 5) < 0.5})
    model = lth.sparsify(nn.Sequential(nn.Linear(5, 3)), {"0": torch.rand(3, 5) < 0.5})
    with pytest.raises(InputError, match=r"does not fit the model: .*0\.mask.*\(4, 5\)"):
        lth.load_ticket(tmp_path / "t", model)


def test_the_weight_of_a_pruned_layer_is_the_tickets_at_once(tmp_path: Path) -> None:
    lth.save_ticket(tmp_path / "t", network(1), masks(1))
    model = pruned(network(2), masks(2))
    lth.load_ticket(tmp_path / "t", model)
    assert torch.equal(model[4].weight, masked(network(1), masks(1))[4].weight)  # type: ignore[index]


def test_under_distributed_data_parallel_the_number_of_values_is_settled(tmp_path: Path, process_group: None) -> None:
    lth.save_ticket(tmp_path / "t", network(1), masks(1))
    model = nn.parallel.DistributedDataParallel(lth.sparsify(network(2), masks(2, density=0.6)))
    with pytest.raises(InputError, match=r"its layer '0' has .* before you wrap the model"):
        lth.load_ticket(tmp_path / "t", model)


def test_masks_that_are_not_the_models_own_are_refused(tmp_path: Path) -> None:
    for form in ("pruned", "sparse"):
        model = FORMS[form](network(1), masks(1))
        with pytest.raises(InputError, match=r'masks\["4"\] is not the mask that the model itself has'):
            lth.save_ticket(tmp_path / "t", model, {**masks(1), "4": masks(2)["4"]})
        assert not (tmp_path / "t").exists()
        # Those of its layers that are dense can be given beside them.
        lth.save_ticket(tmp_path / form, model, {"5": torch.ones(3, 6, dtype=torch.bool)})
        assert lth.read_ticket(tmp_path / form).masks.keys() == {"0", "4", "5"}


def test_without_any_mask(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="masks: the model has none of its own"):
        lth.save_ticket(tmp_path / "t", network(1))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("saved", FORMS)
def test_rewound_to_a_state_of_any_form(tmp_path: Path, form: str, saved: str) -> None:
    """The state was saved with more weights alive, before the last pruning."""
    before = {layer: mask | masks(3)[layer] for layer, mask in masks(1).items()}
    state = copy.deepcopy(FORMS[saved](network(1), before).state_dict())
    model = FORMS[form](network(2), masks(1))
    lth.save_ticket(tmp_path / "t", model, masks(1), weights=state)
    lth.save_ticket(tmp_path / "expected", network(1), masks(1))
    assert (tmp_path / "t").read_bytes() == (tmp_path / "expected").read_bytes()


def test_weights_that_do_not_hold_what_the_mask_keeps(tmp_path: Path) -> None:
    chosen = masks(1)
    for form in ("pruned", "sparse"):
        state = FORMS[form](network(1), masks(2)).state_dict()
        with pytest.raises(InputError, match=r"weights: '0.weight' is pruned there at"):
            lth.save_ticket(tmp_path / "t", network(2), chosen, weights=state)
        state = FORMS[form](network(1), chosen).state_dict()
        with pytest.raises(InputError, match="weights: they have a mask for '4', and masks has none"):
            lth.save_ticket(tmp_path / "t", network(2), {"0": chosen["0"]}, weights=state)
    for state, message in (
        ({}, "there is no '0.weight'"),
        ({**network(1).state_dict(), "0.weight": torch.zeros(3)}, r"'0.weight' has shape \(3,\)"),
        ({**network(1).state_dict(), "note": "text"}, "'note' is a str"),
        ({"0.weight": torch.zeros(4, 2, 3, 3, device="meta")}, "'0.weight' is on the meta device"),
    ):
        with pytest.raises(InputError, match=f"weights: .*{message}"):
            lth.save_ticket(tmp_path / "t", network(1), chosen, weights=state)  # type: ignore[arg-type]


def test_a_weight_that_is_computed_is_refused(tmp_path: Path) -> None:
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(5, 4)))
    with pytest.raises(InputError, match="remove_parametrizations"):
        lth.save_ticket(tmp_path / "t", model, {"0": torch.rand(4, 5) < 0.5})


def test_a_model_on_the_meta_device_is_refused(tmp_path: Path) -> None:
    """load_state_dict would leave it as it is."""
    lth.save_ticket(tmp_path / "t", nn.Linear(5, 4), {"": torch.rand(4, 5) < 0.5})
    with pytest.raises(InputError, match="meta device"):
        lth.load_ticket(tmp_path / "t", nn.Linear(5, 4, device="meta"))


def test_masks_of_biases_and_of_other_layers_are_kept_beside_them(tmp_path: Path) -> None:
    def model(seed: int) -> nn.Sequential:
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv1d(2, 4, 3), nn.Flatten(), nn.Linear(16, 6))

    def all_pruned(seed: int) -> nn.Sequential:
        found = model(seed)
        for layer, name in ((found[0], "weight"), (found[2], "weight"), (found[2], "bias")):
            prune.random_unstructured(layer, name, amount=0.5)  # type: ignore[no-untyped-call]
        return found

    images = torch.randn(3, 2, 6)
    source = all_pruned(1)
    lth.save_ticket(tmp_path / "t", source)
    lth.save_ticket(tmp_path / "rewound", source, weights=model(1).state_dict())
    assert (tmp_path / "t").read_bytes() == (tmp_path / "rewound").read_bytes()
    again = lth.load_ticket(tmp_path / "t", all_pruned(2))
    state = source.state_dict()
    alive = {name: value for name, value in again.state_dict().items() if name != "2.weight_orig"}
    assert all(torch.equal(value, state[name]) for name, value in alive.items())
    for target in (again, model(2), lth.sparsify(all_pruned(2))):
        torch.testing.assert_close(lth.load_ticket(tmp_path / "t", target)(images), source(images))


class Tied(nn.Module):
    """Two layers with one weight, and a head that shares an embedding's; the biases are their own."""

    def __init__(self, tied: bool = True) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 8)
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)
        self.head = nn.Linear(8, 7)
        if tied:
            self.second.weight = self.first.weight
            self.head.weight = self.embedding.weight

    def forward(self, words: Tensor) -> Any:
        return self.head(self.second(self.first(self.embedding(words)).relu()))


WORDS = torch.arange(7)
MASK = torch.rand(8, 8) < 0.4


@pytest.mark.parametrize("given", [["first"], ["second"], ["first", "second"]])
def test_a_mask_of_a_tied_weight_holds_under_all_its_names(tmp_path: Path, given: list[str]) -> None:
    model = Tied()
    lth.save_ticket(tmp_path / "t", model, dict.fromkeys(given, MASK))
    model.first.weight.data.mul_(MASK)
    expected = model(WORDS)
    assert lth.read_ticket(tmp_path / "t").masks.keys() == {"first", "second"}
    sparse = lth.sparsify(Tied(), dict.fromkeys(["first", "second"], torch.rand(8, 8) < 0.6))
    values = sparse.first.values
    for target in (Tied(), Tied(tied=False), sparse):
        loaded = lth.load_ticket(tmp_path / "t", target)
        torch.testing.assert_close(loaded(WORDS), expected)
    assert sparse.first.values is sparse.second.values is values  # type: ignore[union-attr]
    assert values.shape == (int(MASK.sum()),)  # type: ignore[union-attr]
    lth.save_ticket(tmp_path / "again", sparse)
    assert (tmp_path / "again").read_bytes() == (tmp_path / "t").read_bytes()
    loaded = lth.load_ticket(tmp_path / "t", Tied())
    again = lth.sparsify(loaded, loaded.ticket.masks)  # type: ignore[union-attr, arg-type]
    torch.testing.assert_close(again(WORDS), expected)


def test_a_mask_of_a_head_holds_for_the_embedding_that_it_shares(tmp_path: Path) -> None:
    model, mask = Tied(), torch.rand(7, 8) < 0.4
    lth.save_ticket(tmp_path / "t", model, {"head": mask})
    model.head.weight.data.mul_(mask)
    for tied in (True, False):
        loaded = lth.load_ticket(tmp_path / "t", Tied(tied))
        torch.testing.assert_close(loaded(WORDS), model(WORDS))


def test_one_module_under_two_names(tmp_path: Path) -> None:
    def model() -> nn.Sequential:
        shared = nn.Linear(8, 8)
        return nn.Sequential(shared, nn.ReLU(), shared)

    for name in ("0", "2"):
        source = model()
        lth.save_ticket(tmp_path / "t", source, {name: MASK})
        source[0].weight.data.mul_(MASK)  # type: ignore[operator, union-attr]
        inputs = torch.randn(2, 8)
        for target in (model(), lth.sparsify(model(), {"0": torch.rand(8, 8) < 0.7})):
            torch.testing.assert_close(lth.load_ticket(tmp_path / "t", target)(inputs), source(inputs))


def test_two_masks_for_one_weight_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'first' and 'second' share their weight"):
        lth.save_ticket(tmp_path / "t", Tied(), {"first": MASK, "second": ~MASK})
    assert not (tmp_path / "t").exists()


@pytest.mark.parametrize(("name", "other"), [("first", "second"), ("head", "embedding")])
def test_a_tied_weight_that_prune_prunes_under_one_name(tmp_path: Path, name: str, other: str) -> None:
    """The other layer computes with all of it, which a ticket cannot hold."""
    model = Tied()
    prune.random_unstructured(model.get_submodule(name), "weight", amount=0.5)  # type: ignore[no-untyped-call]
    with pytest.raises(InputError, match=f"'{name}.weight' is pruned, and '{other}.weight', which shares it, is not"):
        lth.save_ticket(tmp_path / "t", model)


def test_a_ticket_whose_layers_differ_does_not_fit_a_model_that_ties_them(tmp_path: Path) -> None:
    source = Tied(tied=False)
    lth.save_ticket(tmp_path / "t", source, {"first": MASK, "second": ~MASK})
    lth.save_ticket(tmp_path / "u", source, {"head": torch.ones(7, 8, dtype=torch.bool)})
    with pytest.raises(InputError, match=r"does not fit the model: .*'first' and 'second', whose masks differ"):
        lth.load_ticket(tmp_path / "t", Tied())
    with pytest.raises(InputError, match=r"does not fit the model: .*shares one tensor between .* differ"):
        lth.load_ticket(tmp_path / "u", Tied())


def test_a_state_whose_tied_weights_differ_is_refused(tmp_path: Path) -> None:
    state = {**Tied().state_dict(), "second.weight": torch.ones(8, 8)}
    with pytest.raises(InputError, match=r"shares one tensor between 'first.weight' and 'second.weight'"):
        lth.save_ticket(tmp_path / "t", Tied(), {"first": MASK}, weights=state)


def test_a_tied_ticket_of_an_earlier_version_keeps_its_mask(tmp_path: Path) -> None:
    """It has the mask under one name, and the whole weight under the other."""
    model = Tied()
    rest = {f"rest/{name}": value for name, value in model.state_dict().items() if name != "first.weight"}
    tensors = {"mask/first": pack(MASK), "values/first": model.first.weight.detach()[MASK], **rest}
    sealed.write(tmp_path / "t", tensors, {"ticket_version": 1, "network": None, "shapes": {"first": [8, 8]}})
    loaded = lth.load_ticket(tmp_path / "t", Tied())
    model.first.weight.data.mul_(MASK)
    assert torch.equal(loaded(WORDS), model(WORDS))
    assert loaded.ticket.masks.keys() == {"first", "second"}  # type: ignore[union-attr]
