import pytest
import torch
import torchvision

from lth_sparse import models
from lth_sparse.nn.masks import kinds, prunable
from lth_sparse.system.errors import InputError

CIFAR = (3, 32, 32)


@pytest.mark.parametrize(
    ("name", "input_shape", "weights"),
    [
        ("lenet-300-100", (1, 28, 28), 266_200),  # Frankle and Carbin 2019, figure 2, this and the next three
        ("conv2", CIFAR, 4_300_992),
        ("conv4", CIFAR, 2_425_024),
        ("conv6", CIFAR, 2_261_184),
        ("resnet20", CIFAR, 270_896),  # "271K"
        ("vgg16", CIFAR, 14_715_584),  # 14.7 M
        ("vgg19", CIFAR, 20_024_000),  # "20 M"
        ("small", CIFAR, 155_824),
        ("network", CIFAR, 23_262_912),  # the coursework's 23.3 M
        ("resnet32", CIFAR, 464_432),  # "0.46M" in table 6 of He et al. 2016
        ("wrn-22-1", CIFAR, 270_896),  # the convolutions of resnet20
        ("wrn-22-2", CIFAR, 1_076_912),  # a conv of Zagoruyko and Komodakis' WRN-28-2 less in each block: below
    ],
)
def test_parameter_counts_of_the_papers(name: str, input_shape: tuple[int, int, int], weights: int) -> None:
    model = models.build(models.Network(name, input_shape, 10), seed=0)
    assert sum(weight.numel() for weight in prunable(model).values()) == weights


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        # The 272,474 and 466,906 of ResNets of 6 n + 2 layers with projections; without, as the paper pads, the
        # well-known 269,722 and 464,154 are 2,560 weights and 192 of BatchNorm fewer.
        ("resnet20", 269_722 + 2_560 + 192),
        ("resnet32", 464_154 + 2_560 + 192),
        # torchvision's 11,689,512 and 25,557,032 with a 3x3 stem in the place of the 7x7, and 10 classes, not 1000.
        ("resnet18", 11_689_512 - 64 * 3 * (49 - 9) - 990 * (512 + 1)),
        ("resnet50", 25_557_032 - 64 * 3 * (49 - 9) - 990 * (2048 + 1)),
        # The well-known 1,467,610 of WRN-28-2 without one of its four blocks a stage.
        ("wrn-22-2", 1_467_610 - sum(2 * 9 * width**2 + 2 * 2 * width for width in (32, 64, 128))),
    ],
)
def test_residual_networks_have_the_well_known_numbers_of_parameters(name: str, parameters: int) -> None:
    model = models.build(models.Network(name, CIFAR, 10), seed=0)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_they_are_torchvisions_but_for_stem_and_head(name: str) -> None:
    """Convolutions of the same shapes, strides and paddings."""

    def layers(model: torch.nn.Module) -> list[tuple[object, ...]]:
        convolutions = [module for module in model.modules() if isinstance(module, torch.nn.Conv2d)][1:]
        return sorted((tuple(each.weight.shape), each.stride, each.padding) for each in convolutions)

    ours = models.build(models.Network(name, CIFAR, 10), seed=0)
    assert layers(ours) == layers(torchvision.models.get_model(name))


def test_the_seeds_network_is_as_the_coursework_had_it() -> None:
    model = models.build(models.Network("network", CIFAR, 10), seed=0)
    multiplications = 0

    def count(module: torch.nn.Module, _: object, output: torch.Tensor) -> None:
        nonlocal multiplications
        multiplications += module.weight.numel() * (output[0, 0].numel() if output.ndim == 4 else 1)

    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            module.register_forward_hook(count)
    assert model(torch.zeros(1, *CIFAR)).shape == (1, 10)
    assert round(multiplications / 1e6, 1) == 62.7
    assert 0.89 < sum(w.numel() for n, w in prunable(model).items() if n.startswith(("fc", "output"))) / 23.26e6 < 0.91


@pytest.mark.parametrize("name", models.names())
def test_every_network_trains_at_its_smallest_size_and_on_other_shapes(name: str) -> None:
    smallest = models.minimum_size(name)
    for shape in ((1, smallest, smallest), (3, smallest + 3, smallest + 1)):
        model = models.build(models.Network(name, shape, 7), seed=0)
        logits = model(torch.randn(2, *shape))
        assert logits.shape == (2, 7)
        logits.sum().backward()
        assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_seed_decides_the_weights_and_nothing_else_does() -> None:
    network = models.Network("small", CIFAR, 10)
    first = models.build(network, seed=3).state_dict()
    torch.rand(5)
    before = torch.get_rng_state()
    second, other = models.build(network, seed=3).state_dict(), models.build(network, seed=4).state_dict()
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["conv1a.weight"], other["conv1a.weight"])


def test_only_the_last_linear_layer_is_the_output() -> None:
    model = models.build(models.Network("conv2", CIFAR, 10), seed=0)
    assert kinds(model) == {"conv1a": "conv", "conv1b": "conv", "fc1": "fc", "fc2": "fc", "output": "output"}


def test_images_too_small_and_unknown_names_are_refused() -> None:
    with pytest.raises(InputError, match=r"'vgg16' needs images of at least 16x16 pixels, given 8x8"):
        models.build(models.Network("vgg16", (1, 8, 8), 10), seed=0)
    with pytest.raises(InputError, match='did you mean "lenet-300-100"'):
        models.build(models.Network("lenet-300", CIFAR, 10), seed=0)
