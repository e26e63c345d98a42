"""Forks of a process that has called a model, workers of a DataLoader among them."""

import json
import subprocess
import sys

import pytest
from torch.utils.data import DataLoader, Dataset

from tests.in_the_wild import forked
from tests.in_the_wild.side_by_side import assert_equal, batches, twins

((IMAGES, _),) = batches(count=1)


@pytest.fixture(scope="module")
def outcomes():
    """Of a process that has computed nothing before, as this one may have."""
    done = subprocess.run([sys.executable, "-m", "tests.in_the_wild.forked"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("case", forked.CASES)
def test_a_sparse_layer_behaves_as_pytorchs_own(outcomes, case):
    found = outcomes[case]
    assert found == dict.fromkeys(forked.LAYERS, found["nn.Conv2d"])
    if "one" in case:
        assert found["nn.Conv2d"] == "works"


def test_a_fork_while_another_thread_measures(outcomes):
    assert outcomes[forked.WHILE_MEASURING] == {"auto": "works"}


class Features(Dataset):
    """Each image is seen through a model, in the process that loads it."""

    def __init__(self, model):
        self.model = model.eval().requires_grad_(False)

    def __len__(self):
        return len(IMAGES)

    def __getitem__(self, index):
        return self.model(IMAGES[index : index + 1])[0]


def test_a_model_in_the_workers_of_a_loader():
    ours, theirs = (list(DataLoader(Features(model), batch_size=4, num_workers=1)) for model in twins())
    assert_equal(ours, theirs)
