import pytest
import torch

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
    ],
)
def test_parameter_counts_of_the_papers(name: str, input_shape: tuple[int, int, int], weights: int) -> None:
    model = models.build(models.Network(name, input_shape, 10), seed=0)
    assert sum(weight.numel() for weight in prunable(model).values()) == weights


def test_resnet20_has_the_well_known_number_of_parameters() -> None:
    model = models.build(models.Network("resnet20", CIFAR, 10), seed=0)
    assert sum(parameter.numel() for parameter in model.parameters()) == 272_474


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
    with pytest.raises(InputError, match='did you mean "resnet20"'):
        models.build(models.Network("resnet", CIFAR, 10), seed=0)
