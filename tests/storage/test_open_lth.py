"""Tickets of open_lth: files of its format, made here, become our networks, or one sentence says why not.

The networks below have the names of layers that open_lth's have (cifar_resnet.py, cifar_vgg.py and mnist_lenet.py in
models/ of facebookresearch/open_lth), and compute what those compute.
"""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import lth_sparse as lth
from lth_sparse.storage.open_lth import read_open_lth
from lth_sparse.system.errors import InputError


class TheirBlock(nn.Module):
    def __init__(self, channels, filters, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, filters, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(filters)
        self.conv2 = nn.Conv2d(filters, filters, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(filters)
        self.shortcut = nn.Sequential()
        if stride == 2:
            self.shortcut = nn.Sequential(nn.Conv2d(channels, filters, 1, 2, bias=False), nn.BatchNorm2d(filters))

    def forward(self, x):
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))) + self.shortcut(x))


class TheirResNet(nn.Module):
    def __init__(self, depth=20, width=16, classes=10):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        each, blocks, before = (depth - 2) // 6, [], width
        for segment in range(3):
            for place in range(each):
                filters = width * 2**segment
                blocks.append(TheirBlock(before, filters, 2 if segment and not place else 1))
                before = filters
        self.blocks, self.fc = nn.Sequential(*blocks), nn.Linear(4 * width, classes)

    def forward(self, x):
        return self.fc(self.blocks(F.relu(self.bn(self.conv(x)))).mean((2, 3)))


class TheirModule(nn.Module):
    def __init__(self, channels, filters):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(channels, filters, 3, padding=1), nn.BatchNorm2d(filters)

    def forward(self, x):
        return F.relu(self.bn(self.conv(x)))


class TheirVGG(nn.Module):
    def __init__(self, repeats=(2, 2, 3, 3, 3)):
        super().__init__()
        layers, channels = [], 3
        for stage, (filters, count) in enumerate(zip((64, 128, 256, 512, 512), repeats, strict=True)):
            layers += [nn.MaxPool2d(2)] if stage else []
            for _ in range(count):
                layers.append(TheirModule(channels, filters))
                channels = filters
        self.layers, self.fc = nn.Sequential(*layers), nn.Linear(512, 10)

    def forward(self, x):
        return self.fc(F.avg_pool2d(self.layers(x), 2).flatten(1))


class TheirLeNet(nn.Module):
    def __init__(self, hidden=(300, 100)):
        super().__init__()
        sizes = (784, *hidden)
        self.fc_layers = nn.ModuleList(nn.Linear(*pair) for pair in zip(sizes, hidden, strict=False))
        self.fc = nn.Linear(hidden[-1], 10)

    def forward(self, x):
        x = x.flatten(1)
        for layer in self.fc_layers:
            x = F.relu(layer(x))
        return self.fc(x)


NETWORKS = {
    "resnet20": (TheirResNet, (3, 32, 32)),
    "vgg16": (TheirVGG, (3, 32, 32)),
    "vgg19": (lambda: TheirVGG((2, 2, 4, 4, 4)), (3, 32, 32)),
    "lenet-300-100": (TheirLeNet, (1, 28, 28)),
}


def written(folder, model, density=0.2, steps=("ep0_it0", "ep160_it0")):
    """A level's folder, as a run leaves it: masks are int32, the weights at each step are pruned. The last step's."""
    folder.mkdir(parents=True)
    layers = {name: each for name, each in model.named_modules() if isinstance(each, nn.Conv2d | nn.Linear)}
    masks = {f"{name}.weight": (torch.rand(each.weight.shape) < density).int() for name, each in layers.items()}
    torch.save(masks, folder / "mask.pth")
    for each in model.modules():
        if isinstance(each, nn.BatchNorm2d):
            each.running_mean.normal_()
            each.running_var.uniform_(0.5, 2)
            nn.init.uniform_(each.weight)
            nn.init.normal_(each.bias)
    for step in steps:
        with torch.no_grad():
            for name, each in layers.items():
                each.weight.normal_(std=0.1).mul_(masks[f"{name}.weight"])
        torch.save(model.state_dict(), folder / f"model_{step}.pth")
    return masks


@pytest.mark.parametrize("name", NETWORKS)
def test_our_network_computes_what_theirs_computes(tmp_path, name):
    torch.manual_seed(0)
    make, shape = NETWORKS[name]
    theirs, main = make().eval(), tmp_path / "replicate_1" / "level_2" / "main"
    masks = written(main, theirs)
    ticket = read_open_lth(tmp_path / "replicate_1", name, level=2, step="ep160_it0")
    assert (ticket.network.name, ticket.network.input_shape, ticket.network.classes) == (name, shape, 10)
    x = torch.randn(3, *shape)
    ours = lth.load_ticket(ticket).eval()
    expected = theirs(x).detach()
    torch.testing.assert_close(ours(x), expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
    assert [int(each.sum()) for each in ticket.masks.values()] == [int(each.sum()) for each in masks.values()]
    sparse = lth.sparsify(ours, ours.ticket.masks, "dense")
    torch.testing.assert_close(sparse(x), expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
    lth.save_ticket(tmp_path / "ticket.safetensors", sparse, network=ticket.network)
    again = lth.load_ticket(tmp_path / "ticket.safetensors")
    assert all(torch.equal(again.ticket.masks[layer], mask) for layer, mask in ticket.masks.items())


def test_training_does_not_see_where_the_biases_of_vgg_went(tmp_path):
    torch.manual_seed(0)
    theirs = TheirVGG()
    written(tmp_path / "main", theirs, steps=("ep0_it0",))
    ours = lth.load_ticket(read_open_lth(tmp_path / "main", "vgg16"))
    x = torch.randn(4, 3, 32, 32)
    for model in (theirs, ours):
        model.train()
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-3)
    # Running means, too, stay apart by the biases.
    ours.eval(), theirs.eval()
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-3)


def test_without_a_network_names_stay_theirs_and_the_first_step_is_taken(tmp_path):
    theirs = TheirLeNet((30, 20, 10))
    written(tmp_path / "main", theirs, steps=("ep10_it0", "ep2_it5"))
    ticket = read_open_lth(tmp_path)
    assert ticket.network is None
    assert list(ticket.masks) == ["fc_layers.0", "fc_layers.1", "fc_layers.2", "fc"]
    loaded = lth.load_ticket(ticket, TheirLeNet((30, 20, 10)))
    assert all(torch.equal(value, theirs.state_dict()[key]) for key, value in loaded.state_dict().items())
    first = read_open_lth(tmp_path, step="ep10_it0")
    assert not torch.equal(first.weights["fc.weight"], ticket.weights["fc.weight"])
    with pytest.raises(InputError, match="the ticket does not name a network of lth_sparse"):
        lth.load_ticket(ticket)
    with pytest.raises(InputError, match=r"the ticket does not fit the model: .*size mismatch"):
        lth.load_ticket(ticket, TheirLeNet((30, 20, 11)))


def test_weights_that_a_file_has_where_the_mask_has_none_are_pruned(tmp_path):
    theirs = TheirLeNet((20, 10))
    masks = written(tmp_path / "main", theirs, steps=("ep0_it0",))
    nn.init.ones_(theirs.fc.weight)
    torch.save(theirs.state_dict(), tmp_path / "main" / "model_ep0_it0.pth")
    assert torch.equal(read_open_lth(tmp_path).weights["fc.weight"], masks["fc.weight"].float())


REFUSED = {
    "another depth": (
        TheirResNet(32),
        "resnet20",
        r"it has nothing for 'blocks\.3\.shortcut\.0\.weight' of shape \(32, 16",
    ),
    "less depth": (
        TheirResNet(14),
        "resnet20",
        r"it has nothing for 'blocks\.3\.shortcut\.0\.weight' of shape \(32, 16, 1, 1\)",
    ),
    "another width": (
        TheirResNet(20, 8),
        "resnet20",
        r"its 'conv\.weight' has shape \(8, 3, 3, 3\), 'conv\.weight' \(16, 3, 3, 3\)",
    ),
    "more layers of a VGG": (
        TheirVGG((2, 2, 4, 4, 4)),
        "vgg16",
        r"its 'layers\.9\.conv\.weight' has shape \(256, 256, 3, 3\), 'conv4_1\.weight' \(512",
    ),
    "another network": (TheirLeNet(), "vgg16", r"it has nothing for 'conv1_1\.weight' of shape \(64, 3, 3, 3\)"),
    "more layers of a LeNet": (TheirLeNet((300, 100, 50)), "lenet-300-100", r"nothing for its 'fc_layers\.2\.weight'"),
    "a network that is none": (TheirLeNet(), "lenet", r"network: got 'lenet'.*expected one of resnet20, vgg16"),
    "no last layer": (nn.Sequential(nn.Linear(3, 4)), "resnet20", r"does not fit resnet20: it has no layer 'fc'"),
}


@pytest.mark.parametrize(("theirs", "name", "sentence"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_is_named_with_its_shape(tmp_path, theirs, name, sentence):
    written(tmp_path / "main", theirs)
    with pytest.raises(InputError, match=sentence):
        read_open_lth(tmp_path / "main", name)


class Code:
    def __reduce__(self):
        return print, ("run",)


def test_files_that_are_not_theirs(tmp_path, capsys):
    main = tmp_path / "level_0" / "main"
    with pytest.raises(InputError, match=r"neither mask\.pth nor folders level_0"):
        read_open_lth(tmp_path)
    written(main, TheirLeNet((20, 10)), steps=("ep0_it0", "ep3_it7"))
    with pytest.raises(InputError, match=r"level: got none, but .* has level 0: choose one"):
        read_open_lth(tmp_path)
    with pytest.raises(InputError, match=r"level: got 4, but .* has level 0"):
        read_open_lth(tmp_path, level=4)
    with pytest.raises(InputError, match=r"expected model_ep9_it0\.pth, it has the steps ep0_it0, ep3_it7"):
        read_open_lth(tmp_path, level=0, step="ep9_it0")
    masks = torch.load(main / "mask.pth")
    for broken, sentence in (
        ({"fc.weight": masks["fc.weight"][:-1]}, r"'fc\.weight' of shape \(9, 10\), .* has shape \(10, 10\)"),
        ({"other.weight": masks["fc.weight"]}, r"'other\.weight' of shape \(10, 10\), .* has no such weight"),
        ({"fc.weight": masks["fc.weight"] * 2}, "got other numbers than 0 and 1"),
        ([1], "got a list, expected a dictionary of tensors"),
        ({"fc.weight": Code()}, "is no file of tensors"),
    ):
        torch.save(broken, main / "mask.pth")
        with pytest.raises(InputError, match=sentence):
            read_open_lth(main)
    (main / "mask.pth").write_bytes(b"nothing")
    with pytest.raises(InputError, match="is no file of tensors"):
        read_open_lth(main)
    assert "run" not in capsys.readouterr().out.split()
