"""Which BatchNorms are synchronised, and that one process has what nn's give; what several give is in
tests/commands/test_run_processes.py."""

import copy

import pytest
import torch
from torch import nn

from lth_sparse.nn.synchronised_norm import is_synchronised, synchronise
from lth_sparse.system.errors import InputError


def test_one_process_normalises_as_before():
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    synchronised = synchronise(copy.deepcopy(plain))
    assert [is_synchronised(module) for module in synchronised] == [False, True, False]
    assert is_synchronised(copy.deepcopy(synchronise(synchronised))[1])
    images = torch.randn(5, 3, 6, 6)
    for training in (True, False):
        given, expected = synchronised.train(training)(images), plain.train(training)(images)
        assert torch.equal(given, expected)
    assert all(torch.equal(value, plain.state_dict()[name]) for name, value in synchronised.state_dict().items())


class Rectified(nn.BatchNorm2d):
    """As timm has one."""

    def forward(self, x):
        return super().forward(x).relu()


def test_a_norm_of_another_class_is_refused_by_its_name():
    with pytest.raises(InputError, match=r"--batch-norm synchronised: 1 is a Rectified, .*--batch-norm local"):
        synchronise(nn.Sequential(nn.BatchNorm2d(3), Rectified(3)))
