"""Tickets from a stranger: InputError, or a ticket whose every field was checked; memory in proportion to the file."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import lth_sparse as lth
from lth_sparse import models
from lth_sparse.storage import sealed
from lth_sparse.storage.ticket import Ticket
from lth_sparse.system.errors import InputError
from tests.hostile import corpus
from tests.hostile.effort import examples, report
from tests.hostile.files import changed_bytes, changed_json, changed_tensors, reseal
from tests.memory import limited_memory, not_for_memory, peak_memory


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3))


MOST = 512
"""MiB that reading a ticket of a few KB may map."""


def check(found):
    """What every user of a ticket may rely on."""
    assert isinstance(found, Ticket)
    assert found.network is None or isinstance(found.network, models.Network)
    assert isinstance(found.metadata, dict)
    for layer, mask in found.masks.items():
        weight = found.weights[f"{layer}.weight" if layer else "weight"]
        assert (mask.dtype, mask.shape) == (torch.bool, weight.shape)
        assert not weight[~mask].any()


def read(path):
    """Reads and loads; InputError is the only thing that it may raise."""
    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    try:
        found = lth.read_ticket(path)
    except InputError as error:
        not_for_memory(error)
        return False
    check(found)
    for into in (model, None):
        try:
            loaded = lth.load_ticket(path, into)
        except InputError as error:
            not_for_memory(error)
            if into is not None:
                assert all(torch.equal(value, before[name]) for name, value in into.state_dict().items())
        else:
            check(loaded.ticket)
    return True


@pytest.mark.filterwarnings("ignore")
def test_the_corpus():
    taken = {path.name: read(path) for path in corpus.files("tickets")}
    assert {name for name in taken if taken[name]} == {
        *("double", "metadata-large-number", "metadata-not-a-number", "named", "network-of-many-classes"),
        *("network-that-is-code", "own", "values-complex", "values-of-8-bits"),
    }


@pytest.mark.filterwarnings("ignore")
def test_bytes_that_were_changed(tmp_path, capfd):
    contents, taken = [path.read_bytes() for path in corpus.files("tickets")], []

    @examples(400)
    @given(st.sampled_from(contents).flatmap(changed_bytes))
    def attack(content):
        (tmp_path / "ticket").write_bytes(content)
        taken.append(read(tmp_path / "ticket"))

    with peak_memory() as memory, limited_memory(MOST):
        attack()
    report(capfd, f"{len(taken)} tickets of which bytes were changed: {sum(taken)} read, the others refused")
    assert not all(taken)
    assert memory.mebibytes < 100


@pytest.mark.filterwarnings("ignore")
def test_content_that_was_changed_and_sealed_again(tmp_path, capfd):
    contents, taken = [sealed.read(corpus.FILES / "tickets" / name) for name in ("own", "double", "named")], []

    @st.composite
    def changed(draw):
        tensors, data = draw(st.sampled_from(contents))
        for _ in range(draw(st.integers(1, 2))):
            if draw(st.booleans()):
                tensors = draw(changed_tensors(tensors)) if tensors else tensors
            else:
                data = draw(changed_json(data))
        return tensors, data

    @examples(700)
    @given(changed())
    def attack(content):
        reseal(tmp_path / "ticket", *content)
        taken.append(read(tmp_path / "ticket"))

    with peak_memory() as memory, limited_memory(MOST):
        attack()
    report(capfd, f"{len(taken)} tickets that were changed and sealed again: {sum(taken)} read, the others refused")
    assert 0.05 < np.mean(taken) < 0.95
    assert memory.mebibytes < 100


def test_a_huge_network_in_a_small_file(tmp_path):
    path = tmp_path / "ticket"
    described = {"ticket_version": 1, "shapes": {}, "mask_sha256": sealed.digest({})}
    for name in ("resnet50", "vgg16", "conv4", "lenet-300-100"):
        reseal(
            path,
            {"rest/x": torch.zeros(1)},
            described | {"network": {"name": name, "input_shape": [3, 65536, 65536], "classes": 2**20}},
        )
        with (
            peak_memory() as memory,
            pytest.raises(InputError, match=r"does not fit the network|classes|input_shape|images"),
        ):
            lth.load_ticket(path)
        assert memory.mebibytes < 50


@pytest.mark.parametrize("reader", ["read_ticket", "load_ticket"])
def test_a_named_pipe_is_not_waited_for(reader, tmp_path):
    os.mkfifo(tmp_path / "ticket")
    program = f"import sys, lth_sparse; lth_sparse.{reader}(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "ticket"], capture_output=True, text=True, timeout=60
    )
    assert "OSError" in done.stderr
    assert "it is no regular file" in done.stderr


def test_a_double_ticket_loads_as_double(tmp_path):
    named = models.Network("lenet-300-100", (1, 8, 8), 3)
    model = models.build(named, seed=0).double()
    layer = next(name for name, module in model.named_modules() if isinstance(module, nn.Linear))
    lth.save_ticket(
        tmp_path / "ticket", model, {layer: torch.rand(model.get_submodule(layer).weight.shape) < 0.5}, network=named
    )
    loaded = lth.load_ticket(tmp_path / "ticket")
    assert {value.dtype for value in loaded.state_dict().values()} == {torch.float64}
    expected = lth.read_ticket(tmp_path / "ticket").weights
    assert all(torch.equal(value, expected[name]) for name, value in loaded.state_dict().items())


@pytest.mark.parametrize("form", ["dense", "sparse", "pruned"])
def test_a_ticket_that_does_not_fit_changes_nothing(form, tmp_path):
    lth.save_ticket(tmp_path / "ticket", network(), {"0": torch.rand(5, 6) < 0.5})
    model = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 4))
    if form == "sparse":
        model = lth.sparsify(model, {"0": torch.rand(5, 6) < 0.3})
    if form == "pruned":
        nn.utils.prune.random_unstructured(model[0], "weight", 0.5)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(InputError, match="does not fit the model"):
        lth.load_ticket(tmp_path / "ticket", model)
    assert before.keys() == model.state_dict().keys()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda tensors, data: tensors.update({"values/0": tensors["values/0"].to(torch.int32)}),
            "values of torch.int32",
        ),
        (lambda tensors, data: tensors.update({"mask/0": tensors["mask/0"][None]}), r"got a mask \(1, 4\)"),
        (lambda tensors, data: tensors.update({"values/x": torch.zeros(3)}), "values/x has no shape"),
        (lambda tensors, data: data.update({"mask_sha256": "0" * 64}), "its masks are not those of mask_sha256"),
        (lambda tensors, data: tensors.pop("values/0"), "layer '0' has no values"),
    ],
)
def test_fields_that_do_not_fit_together(change, sentence, tmp_path):
    lth.save_ticket(tmp_path / "ticket", network(), {"0": torch.rand(5, 6) < 0.5})
    tensors, data = sealed.read(tmp_path / "ticket")
    change(tensors, data)
    reseal(tmp_path / "ticket", tensors, data)
    with pytest.raises(InputError, match=sentence):
        lth.read_ticket(tmp_path / "ticket")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (torch.complex64, r"its '3.bias' is torch.float32, the ticket's torch.complex64"),
        (torch.int64, r"its '3.bias' is torch.float32, the ticket's torch.int64"),
    ],
)
def test_what_a_model_would_round_is_refused(change, sentence, tmp_path):
    lth.save_ticket(tmp_path / "ticket", network(), {"0": torch.rand(5, 6) < 0.5})
    tensors, data = sealed.read(tmp_path / "ticket")
    tensors["rest/3.bias"] = tensors["rest/3.bias"].to(change)
    reseal(tmp_path / "ticket", tensors, data)
    with pytest.raises(InputError, match=sentence):
        lth.load_ticket(tmp_path / "ticket", network())


def test_what_is_saved_can_be_loaded(tmp_path):
    """Whatever a maker adds as metadata: refused when it is saved, or there again when it is loaded."""
    values = st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text()
        | st.just(2**4097)
        | st.binary(max_size=3)
        | st.sampled_from([np.float32(2), torch.ones(2), {1}, 1j]),
        lambda inside: (
            st.lists(inside, max_size=3)
            | st.tuples(inside)
            | st.dictionaries(
                st.text(max_size=4)
                | st.integers()
                | st.sampled_from(["sha256", "network", "shapes", "ticket_version", None, (1,)]),
                inside,
                max_size=3,
            )
        ),
        max_leaves=8,
    )
    model, masks, refused = network(), {"0": torch.ones(5, 6, dtype=torch.bool)}, []

    @examples(300, most=10_000)
    @given(
        st.dictionaries(
            st.text(max_size=4) | st.sampled_from(["sha256", "network", "shapes", "ticket_version"]),
            values,
            min_size=1,
            max_size=3,
        )
    )
    def save(metadata):
        try:
            lth.save_ticket(tmp_path / "ticket", model, masks, metadata=metadata)
        except InputError:
            refused.append(metadata)
            return
        assert {str(key) for key in metadata} <= lth.read_ticket(tmp_path / "ticket").metadata.keys()

    save()
    assert refused
