"""Each mistake that published lottery code has made is made here once, and has to stop the run."""

import pytest
import torch
from torch import nn

from lth_sparse.lottery import proof
from lth_sparse.nn import masks as masking
from lth_sparse.storage import sealed
from lth_sparse.system.errors import ProofError

GRADIENT_OF_ONES = {"0": torch.ones(4, 6), "2": torch.ones(3, 4)}


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))


@pytest.fixture
def masks(model: nn.Module) -> masking.Masks:
    return {name: torch.rand(w.shape) < 0.7 for name, w in masking.prunable(model).items()}


def before(
    model: nn.Module,
    masks: masking.Masks,
    saved: proof.Weights,
    sha256: str | None = None,
    stepped: bool = False,
) -> list[tuple[str, str]]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0, momentum=0.9)
    if stepped:
        model(torch.randn(5, 6)).sum().backward()
        optimizer.step()
    recorded = proof.Snapshot(saved, sha256 or sealed.digest(saved))
    return proof.before_training(model, masks, recorded, saved, optimizer)


def test_a_sound_rewind_is_proved(model: nn.Module, masks: masking.Masks) -> None:
    saved = proof.copy_of(model)
    model(torch.randn(8, 6)).sum().backward()
    torch.optim.SGD(model.parameters(), lr=1.0).step()
    proof.rewind(model, saved, masks)
    assert len(before(model, masks, saved)) == 4
    for name, weight in masking.prunable(model).items():
        weight.data += 0.1 * masks[name]
    statements = proof.after_training(model, masks, saved, lambda: GRADIENT_OF_ONES)
    assert [statement for statement, _ in statements] == [
        "every pruned weight is exactly 0 after training",
        "live positive weights moved in every layer that a gradient reaches",
        "live negative weights moved in every layer that a gradient reaches",
    ]
    assert not any("no gradient reaches" in detail for _, detail in statements)


def test_as_many_weights_have_to_live_as_a_topology_is_to_have(masks: masking.Masks) -> None:
    live = {name: int(mask.sum()) for name, mask in masks.items()}
    statement, detail = proof.changed_masks(masks, {("0", "2"): sum(live.values())})
    assert (statement.split(",")[0], detail) == (
        "after training as many weights live as its topology is to have", f"{sum(live.values())} in 2 layers",
    )  # fmt: skip
    with pytest.raises(ProofError, match=f"as its topology is to have.*2: {live['2']}, expected {live['2'] + 1}"):
        proof.changed_masks(masks, {("0",): live["0"], ("2",): live["2"] + 1})


def test_weights_that_grew_prove_no_movement(model: nn.Module, masks: masking.Masks) -> None:
    """Those that lived before and after have to have moved: what grew is another than it was in any case."""
    saved, began = proof.copy_of(model), {name: mask.clone() for name, mask in masks.items()}
    saved["2.weight"][0] = torch.tensor([0.1, -0.1, 0.1, -0.1])
    began["2"][0], masks["2"][0] = False, True
    proof.rewind(model, saved, masks)
    with torch.no_grad():
        model[0].weight += 0.1 * masks["0"]
        model[2].weight[0] = 0.5
    with pytest.raises(ProofError, match="none in 2"):
        proof.after_training(model, masks, saved, lambda: GRADIENT_OF_ONES, began)
    with torch.no_grad():
        model[2].weight += 0.1 * masks["2"]
    proof.after_training(model, masks, saved, lambda: GRADIENT_OF_ONES, began)
    with torch.no_grad():
        model[2].weight[2] = 1.0
    masks["2"][2, 0] = False
    with pytest.raises(ProofError, match="every pruned weight is exactly 0"):
        proof.after_training(model, masks, saved, lambda: GRADIENT_OF_ONES, began)


def test_aliased_initial_weights_are_caught(model: nn.Module, masks: masking.Masks) -> None:
    """`state_dict()` without a copy, as in BERT-Tickets#19 and in the seed of this project."""
    saved = dict(model.state_dict())
    proof.rewind(model, saved, masks)
    with pytest.raises(ProofError, match="the saved weights are a copy"):
        before(model, masks, saved)


def test_saved_weights_that_changed_are_caught(model: nn.Module, masks: masking.Masks) -> None:
    saved = proof.copy_of(model)
    recorded = sealed.digest(saved)
    saved["2.weight"][0, 0] += 1e-7
    proof.rewind(model, saved, masks)
    with pytest.raises(ProofError, match="those of the record"):
        before(model, masks, saved, recorded)


@pytest.mark.parametrize("name", ["0.weight", "0.bias", "1.running_mean"])
def test_a_rewind_that_forgets_a_tensor_is_caught(model: nn.Module, masks: masking.Masks, name: str) -> None:
    saved = proof.copy_of(model)
    proof.rewind(model, saved, masks)
    tensor = model.state_dict()[name]
    position = tuple(masks["0"].nonzero()[0]) if name == "0.weight" else 0
    tensor[position] = torch.nextafter(tensor[position], torch.tensor(9.0))  # one bit is enough
    with pytest.raises(ProofError, match=f"bit for bit.*{name}"):
        before(model, masks, saved)


def test_a_mask_that_is_not_applied_is_caught(model: nn.Module, masks: masking.Masks) -> None:
    saved = proof.copy_of(model)
    with pytest.raises(ProofError, match=r"w == w0 \* mask"):
        before(model, masks, saved)


def test_an_optimizer_that_crosses_rounds_is_caught(model: nn.Module, masks: masking.Masks) -> None:
    saved = proof.copy_of(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.randn(5, 6)).sum().backward()
    optimizer.step()
    proof.rewind(model, saved, masks)
    with pytest.raises(ProofError, match="the optimizer starts empty"):
        proof.before_training(model, masks, proof.Snapshot(saved, sealed.digest(saved)), saved, optimizer)


def test_a_revived_weight_is_caught(model: nn.Module, masks: masking.Masks) -> None:
    saved = proof.copy_of(model)
    proof.rewind(model, saved, masks)
    for weight in masking.prunable(model).values():
        weight.data += 1e-30
    with pytest.raises(ProofError, match="every pruned weight is exactly 0"):
        proof.after_training(model, masks, saved, lambda: GRADIENT_OF_ONES)


@pytest.mark.parametrize("layers", [("0", "2"), ("2",)])
@pytest.mark.parametrize("sign", [1, -1])
def test_frozen_weights_of_one_sign_are_caught(
    model: nn.Module, masks: masking.Masks, sign: int, layers: tuple[str, ...]
) -> None:
    """`weight < eps` without `abs` freezes every negative weight (rahulvigneswaran's LTH, issue 5)."""
    saved = proof.copy_of(model)
    proof.rewind(model, saved, masks)
    for name, weight in masking.prunable(model).items():
        moving = sign * weight > 0 if name in layers else torch.ones_like(weight)
        weight.data += 0.5 * moving * weight
    with pytest.raises(ProofError, match=f"live {'negative' if sign > 0 else 'positive'} weights moved"):
        proof.after_training(model, masks, saved, lambda: GRADIENT_OF_ONES)


def test_a_ticket_cut_off_from_its_output_is_no_mistake(model: nn.Module, masks: masking.Masks) -> None:
    saved = proof.copy_of(model)
    proof.rewind(model, saved, masks)
    nowhere = {name: torch.zeros_like(gradient) for name, gradient in GRADIENT_OF_ONES.items()}
    details = [detail for _, detail in proof.after_training(model, masks, saved, lambda: nowhere)]
    assert sum("no gradient reaches those of 0, 2" in detail for detail in details) == 2
