"""Networks of torchvision, of timm, and of a user's own functions: built, or refused in a sentence."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from lth_sparse import models
from lth_sparse.system.errors import InputError

MODULE = """
from torch import nn

def net(input_shape, num_classes=3):
    return nn.Sequential(nn.Flatten(), nn.Linear(input_shape[0] * input_shape[1] * input_shape[2], num_classes))

def by_other_name(classes, hidden=5):
    return nn.Sequential(nn.Flatten(), nn.Linear(4, hidden), nn.Linear(hidden, classes))

def plain():
    return nn.Linear(7, 2)

class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.fc = nn.Linear(4, num_classes)

def needs_depth(num_classes, depth):
    return nn.Linear(1, 1)

def positional(a, /):
    return nn.Linear(1, 1)

def raises():
    raise RuntimeError("no such\\nweights")

def number():
    return 3

LIMIT = 3
"""


@pytest.fixture(autouse=True)
def my_nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module in the current directory that nobody has imported."""
    (tmp_path / "my_nets.py").write_text(MODULE)
    (tmp_path / "broken.py").write_text("import no_such_module")
    (tmp_path / "script.py").write_text("import sys\nsys.exit(3)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "my_nets", raising=False)


def build(name: str, shape: tuple[int, int, int] = (3, 32, 32), classes: int = 10, seed: int = 0) -> nn.Module:
    return models.build(models.Network(name, shape, classes), seed)


@pytest.mark.parametrize(
    ("name", "outputs"), [("net", 5), ("by_other_name", 5), ("plain", 2), ("Net", 5)], ids=lambda value: str(value)
)
def test_a_users_function_is_given_what_its_signature_names(name: str, outputs: int) -> None:
    model = build(f"my_nets:{name}", (1, 2, 2), 5)
    assert [layer for layer in model.modules() if isinstance(layer, nn.Linear)][-1].out_features == outputs


def test_a_seed_decides_the_weights_and_nothing_else_does() -> None:
    before = torch.get_rng_state()
    first, again, other = (build("my_nets:plain", seed=seed).state_dict()["weight"] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(before, torch.get_rng_state())


def test_a_users_function_has_numbers_even_where_others_are_only_counted() -> None:
    with torch.device("meta"):
        assert not build("my_nets:plain").weight.is_meta


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_nets:net", "model 'no_such_nets:net': 'no_such_nets' cannot be imported: ModuleNotFoundError"),
        ("broken:net", "'broken' cannot be imported: ModuleNotFoundError: No module named 'no_such_module'"),
        ("script:net", "'script' cannot be imported: SystemExit: 3"),
        ("my_nets:nett", "'my_nets' has no function 'nett', did you mean \"net\"?"),
        ("my_nets:LIMIT", "has no function 'LIMIT'"),
        ("my_nets:", "has no function ''"),
        (":net", "cannot be imported"),
        ("my_nets.py:net", "expected the name of a module, not of its file: my_nets:net"),
        ("my_nets:needs_depth", "it has the parameter depth, .* may name input_shape, classes, num_classes, and give"),
        ("my_nets:positional", "its parameter a cannot be given by name"),
        ("my_nets:raises", r"called with \(\) it raised RuntimeError: no such weights"),
        ("my_nets:number", "expected it to give an nn.Module, got int"),
    ],
)
def test_what_is_no_network_is_refused_in_one_line(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as refused:
        build(name)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["resnet18", "googlenet", "squeezenet1_0", "mobilenet_v3_small"])
def test_torchvisions_have_heads_of_the_size_of_the_classes_and_new_weights(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.hub.load_state_dict_from_url", lambda *_, **__: pytest.fail("fetched"))
    model = build(f"torchvision:{name}", classes=7)
    assert isinstance(model, nn.Module)
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 7)


def test_timms_have_as_many_channels_as_the_images() -> None:
    pytest.importorskip("timm")
    for name in ("resnet18", "resnet18.a1_in1k"):
        model = build(f"timm:{name}", (1, 32, 32), 7)
        assert model(torch.randn(2, 1, 32, 32)).shape == (2, 7)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("torchvision:resnet19", (3, 32, 32), "torchvision has no network 'resnet19', did you mean \"resnet18\""),
        ("torchvision:fcn_resnet50", (3, 32, 32), "has no network 'fcn_resnet50', did you mean"),
        ("torchvision:resnet18", (1, 28, 28), "takes images of 3 channels, these have 1; choose timm:resnet18"),
        ("timm:resnet18x", (3, 32, 32), "timm has no network 'resnet18x', did you mean \"resnet18"),
        ("timm:hf-hub:timm/resnet18.a1_in1k", (3, 32, 32), "timm has no network 'hf-hub:timm/resnet18.a1_in1k'"),
    ],
)
def test_names_that_a_library_has_not_are_refused(name: str, shape: tuple[int, int, int], message: str) -> None:
    if name.startswith("timm"):
        pytest.importorskip("timm")
    with pytest.raises(InputError, match=message):
        build(name, shape)


def test_without_timm_a_sentence_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(InputError, match="timm is not installed: pip install timm"):
        build("timm:resnet18")


@pytest.mark.parametrize(
    ("name", "imported", "refused"),
    [
        ("resnet20", False, ""),
        ("torchvision:resnet18", False, ""),
        ("timm:resnet18", False, ""),
        ("my_nets:net", False, "import my_nets first, if you trust it, or give load_ticket a model"),
        ("my_nets:net", True, ""),
        ("my_nets:Net", True, ""),
        ("my_nets:plain", True, "my_nets has no function 'plain' with a parameter classes or num_classes"),
        ("my_nets:missing", True, "my_nets has no function 'missing'"),
        ("os:abort", False, "os has no function 'abort' with a parameter"),
        ("pdb:set_trace", False, "set_trace"),
    ],
)
def test_a_file_does_not_decide_which_code_runs(
    name: str, imported: bool, refused: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if imported:
        monkeypatch.syspath_prepend(Path.cwd())
        __import__("my_nets")
    if not refused:
        models.refuse_untrusted(name, "a.ticket")
        return
    with pytest.raises(InputError, match=f"^a.ticket names the network {name}.*{refused}"):
        models.refuse_untrusted(name, "a.ticket")
    assert imported or "my_nets" not in sys.modules
