"""What the arms of a round differ in, and what they share."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch
from torch import nn

from lth_sparse.lottery.arms import CONTROLS, TICKETS, Arm, Origin, arms_of
from lth_sparse.lottery.proof import Weights
from lth_sparse.lottery.reinitialization import check_can_be_drawn_anew, drawn_anew
from lth_sparse.nn.masks import Masks
from lth_sparse.report.plots import CONTROL_LINES
from lth_sparse.report.tables import ARMS
from lth_sparse.settings.config import PruningConfig
from lth_sparse.storage import arms as recorded
from lth_sparse.storage.record import Round
from lth_sparse.system.errors import InputError


def weights(seed: int) -> Weights:
    generator = torch.Generator().manual_seed(seed)
    return {f"{name}.weight": torch.randn(8, 9, generator=generator) for name in ("a", "b")} | {"a.bias": torch.ones(8)}


def origin(seed: int = 0, round: int = 1, ticket: Masks | None = None) -> Origin:
    generator = torch.Generator().manual_seed(0)
    drawn = {name: torch.rand(8, 9, generator=generator) < 0.4 for name in ("a", "b")}
    ticket = ticket or drawn
    began = {name: mask.flip(0) for name, mask in ticket.items()}
    return Origin(ticket, weights(1), weights, seed, round, weights(2), weights(3), began)


def live(masks: Masks) -> dict[str, int]:
    return {name: int(mask.sum()) for name, mask in masks.items()}


def flat(masks: Masks) -> torch.Tensor:
    return torch.cat([mask.flatten() for mask in masks.values()])


def test_round_0_is_the_dense_network_alone() -> None:
    for rewind in TICKETS:
        assert arms_of(("random", "reinit"), rewind, 0) == (TICKETS["weights"],)
        assert arms_of(("random", "reinit"), rewind, 1) == (TICKETS[rewind], CONTROLS["random"], CONTROLS["reinit"])
        assert arms_of((), rewind, 1) == (TICKETS[rewind],)


@pytest.mark.parametrize(("setting", "arms"), [("controls", CONTROLS), ("rewind", TICKETS)])
def test_every_arm_can_be_asked_for(setting: str, arms: dict[str, Arm]) -> None:
    (found,) = [each for each in fields(PruningConfig) if each.name == setting]
    assert list(found.metadata["choices"]) == list(arms)


def test_every_arm_has_a_column_a_line_and_words_of_its_own() -> None:
    assert list(CONTROLS) == list(recorded.CONTROLS) == list(CONTROL_LINES)
    every = [recorded.TICKET, *recorded.CONTROLS.values()]
    of_record = {(arm.name, arm.column) for arm in every}
    assert {(arm.name, arm.column) for arm in (*TICKETS.values(), *CONTROLS.values())} == of_record
    for of in ("name", "column", "words", "says"):
        assert len({getattr(arm, of) for arm in every}) == len(every)
    assert {arm.column for arm in every} <= {column.name for column in fields(Round)}
    assert set(ARMS) == {arm.name for arm in every}
    assert len(set(CONTROL_LINES.values())) == len(CONTROL_LINES)


@pytest.mark.parametrize("arm", [*TICKETS.values(), *CONTROLS.values()], ids=lambda arm: arm.name)
def test_every_arm_has_as_many_live_weights_in_each_layer_and_begins_at_the_same_step(arm: Arm) -> None:
    given = origin()
    assert live(arm.masks(given)) == live(given.ticket)
    empty = origin(ticket={"a": torch.zeros(8, 9, dtype=torch.bool), "b": torch.ones(8, 9, dtype=torch.bool)})
    assert live(arm.masks(empty)) == {"a": 0, "b": 72}
    assert arm.start(given).keys() == given.saved.keys()
    assert [arm.first_step(7, round) for round in (0, 1, 5)] == [0, 7, 7]


@pytest.mark.parametrize("name", ["random", "shuffle"])
def test_a_mask_left_to_chance_is_another_one_each_round_and_seed(name: str) -> None:
    arm = CONTROLS[name]
    drawn = [flat(arm.masks(origin(*each))) for each in ((0, 1), (0, 2), (1, 1))]
    kept = flat(origin().ticket)
    assert not any(torch.equal(drawn[0], other) for other in (*drawn[1:], kept))
    assert torch.equal(drawn[0], flat(arm.masks(origin(0, 1))))
    assert arm.start(origin())["a.weight"].equal(origin().saved["a.weight"])


@pytest.mark.parametrize("name", ["reinit", "sign", "rewind-none"])
def test_an_arm_of_other_weights_has_the_mask_of_the_ticket(name: str) -> None:
    given = origin()
    assert CONTROLS[name].masks(given) is given.ticket


def test_smallest_weights_are_those_of_the_trained_dense_network() -> None:
    given = origin()
    for name, mask in CONTROLS["invert"].masks(given).items():
        trained = given.dense[f"{name}.weight"].abs()
        assert trained[mask].max() < trained[~mask].min()


def test_signs_alone_are_of_one_size_in_each_layer_and_all_else_is_rewound() -> None:
    given = origin()
    start = CONTROLS["sign"].start(given)
    for name in ("a.weight", "b.weight"):
        size = given.saved[name].std(correction=0)
        assert start[name].equal(torch.where(given.saved[name] > 0, size, -size))
    assert start["a.bias"] is given.saved["a.bias"]


def test_new_initial_weights_are_others_each_round_and_seed() -> None:
    starts = [CONTROLS["reinit"].start(origin(*each))["a.weight"] for each in ((0, 1), (0, 2), (1, 1), (0, 1))]
    assert starts[0].equal(starts[3])
    assert not any(starts[0].equal(other) for other in (*starts[1:3], origin().saved["a.weight"]))


def test_what_is_not_rewound_goes_on_from_what_was_pruned() -> None:
    given = origin()
    for arm in (CONTROLS["rewind-none"], TICKETS["learning-rate"], TICKETS["none"], TICKETS["aliased"]):
        assert arm.start(given) is given.pruned
        assert arm.needs == {"pruned"}
    assert [name for name, arm in TICKETS.items() if arm.last_rate] == ["none"]
    assert [name for name, arm in TICKETS.items() if arm.keeps_optimizer] == ["aliased"]
    assert [name for name, arm in CONTROLS.items() if arm.last_rate] == ["rewind-none"]


def test_the_topology_of_the_ticket_alone_changes_and_the_static_one_is_what_it_began_with() -> None:
    given = origin()
    assert CONTROLS["static"].masks(given) is given.began
    assert CONTROLS["static"].start(given) is given.saved
    # What emulates a program that never rewound is of one topology: `config.check` refuses the two together.
    assert [name for name, arm in TICKETS.items() if not arm.changes] == ["aliased"]
    assert not any(arm.changes for arm in CONTROLS.values())
    assert [name for name, arm in CONTROLS.items() if "began" in arm.needs] == ["static"]


def network() -> nn.Sequential:
    attention = nn.TransformerEncoderLayer(8, 2, 16)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 8), attention)


def test_modules_draw_their_parameters_anew_and_nothing_else_draws() -> None:
    model = network()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(7)
        model[1].running_mean.fill_(7)
    drawing = torch.get_rng_state()
    one, again, other = (drawn_anew(model, seed) for seed in (0, 0, 1))
    assert torch.get_rng_state().equal(drawing)
    assert all(bool((value != 7).all()) for value in one.values())
    assert all(one[name].equal(again[name]) for name in one)
    assert not one["0.weight"].equal(other["0.weight"])
    assert not one["4.self_attn.in_proj_weight"].equal(other["4.self_attn.in_proj_weight"])
    assert bool((model[0].weight == 7).all())


def test_a_module_that_draws_its_layers_itself_has_the_last_word() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def reset_parameters(self) -> None:
            nn.init.constant_(self.layer.weight, 5)

    assert drawn_anew(Own(), 0)["layer.weight"].eq(5).all()


def test_a_module_that_cannot_draw_its_parameters_is_named() -> None:
    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(3))

    check_can_be_drawn_anew(network())
    with pytest.raises(InputError, match=r'"reinit" cannot draw the weights of "1", a Scale, anew: expected a method'):
        check_can_be_drawn_anew(nn.Sequential(nn.Linear(3, 3), Scale()))
