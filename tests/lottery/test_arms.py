"""What the arms of a round differ in, and what they share."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch

from lth_sparse.lottery.arms import CONTROLS, RANDOM, TICKET, arms_of
from lth_sparse.nn.masks import Masks
from lth_sparse.report.tables import ARMS
from lth_sparse.settings.config import PruningConfig
from lth_sparse.storage.record import Round


@pytest.fixture
def masks() -> Masks:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.rand(8, 9, generator=generator) < 0.4 for name in ("a", "b")}


def test_round_0_is_the_dense_network_alone() -> None:
    assert arms_of(PruningConfig(control="random"), 0) == (TICKET,)
    assert arms_of(PruningConfig(control="random"), 1) == (TICKET, RANDOM)
    assert arms_of(PruningConfig(control="none"), 1) == (TICKET,)


def test_every_control_of_the_settings_is_an_arm() -> None:
    (control,) = [setting for setting in fields(PruningConfig) if setting.name == "control"]
    assert set(control.metadata["choices"]) == {"none", *CONTROLS}
    names = [arm.name for arm in (TICKET, *CONTROLS.values())]
    assert len(set(names)) == len(names)


def test_every_arm_has_a_column_of_its_own() -> None:
    columns = [arm.accuracy for arm in (TICKET, *CONTROLS.values())]
    assert len(set(columns)) == len(columns)
    assert set(columns) <= {column.name for column in fields(Round)}


def test_the_report_has_words_for_every_arm() -> None:
    assert set(ARMS) == {arm.name for arm in (TICKET, *CONTROLS.values())}


def test_the_ticket_is_trained_with_its_masks(masks: Masks) -> None:
    assert TICKET.masks(masks, 0, 1) is masks


def test_a_random_mask_is_as_large_in_each_layer_and_another_one_each_round_and_seed(masks: Masks) -> None:
    drawn = [RANDOM.masks(masks, seed, round) for seed, round in ((0, 1), (0, 2), (1, 1))]
    for each in drawn:
        assert {name: int(mask.sum()) for name, mask in each.items()} == {n: int(m.sum()) for n, m in masks.items()}
    first, *others = (torch.cat([mask.flatten() for mask in each.values()]) for each in (*drawn, masks))
    assert not any(torch.equal(first, other) for other in others)
    assert all(torch.equal(mask, RANDOM.masks(masks, 0, 1)[name]) for name, mask in drawn[0].items())


@pytest.mark.parametrize("arm", [TICKET, *CONTROLS.values()], ids=lambda arm: arm.name)
def test_arms_start_from_the_rewind_weights_and_at_their_step(arm: object, masks: Masks) -> None:
    saved = {"a.weight": torch.ones(2)}
    assert arm.start(saved) is saved
    pruning = PruningConfig(rewind_iteration=7)
    assert [arm.first_step(pruning, round) for round in (0, 1, 5)] == [0, 7, 7]
