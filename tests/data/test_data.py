import hashlib
import os
import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.datasets as published
from PIL import Image

from lth_sparse import data
from lth_sparse.data import batches, dataset, folder
from lth_sparse.data.dataset import Dataset, Split
from lth_sparse.settings.config import DataConfig
from lth_sparse.system.errors import InputError
from lth_sparse.system.seeding import generator


def load(name: str, where: Path | str = "", **settings: object) -> Dataset:
    return data.load(DataConfig(dataset=name, data_dir=str(where), **settings), seed=0)  # type: ignore[arg-type]


def test_digits_are_the_real_ones_whole_and_split_once() -> None:
    digits = load("digits")
    assert (len(digits.train), len(digits.validation), len(digits.test)) == (1294, 143, 360)
    assert digits.image_shape == (1, 8, 8)
    assert digits.train.images.dtype == torch.uint8
    assert digits.train.images.max() == 255
    everything = torch.cat([part.images.flatten(1) for part in (digits.train, digits.validation, digits.test)])
    from sklearn.datasets import load_digits

    expected = np.round(load_digits().data * 255 / 16).astype(np.uint8)
    assert sorted(map(bytes, everything.numpy())) == sorted(map(bytes, expected))


def test_the_seed_moves_the_validation_set_and_never_the_test_set() -> None:
    one, other = (data.load(DataConfig(dataset="digits"), seed) for seed in (1, 2))
    assert torch.equal(one.test.images, other.test.images)
    assert not torch.equal(one.validation.images, other.validation.images)
    assert torch.equal(one.train.images, data.load(DataConfig(dataset="digits"), 1).train.images)


def test_cifar_sized_training_sets_are_split_45k_to_5k() -> None:
    labels = torch.arange(50_000)
    train, validation = dataset.split_off_validation(Split(labels[:, None, None, None], labels), seed=0)
    assert (len(train), len(validation)) == (45_000, 5_000)
    assert torch.equal(torch.cat([train.labels, validation.labels]).sort().values, labels)
    assert torch.equal(train.images.flatten(), train.labels)


def test_statistics_are_those_of_the_training_images() -> None:
    images = torch.randint(0, 256, (4321, 3, 5, 7), dtype=torch.uint8)
    images[:, 2] = 77
    mean, deviation = dataset.statistics(images)
    exact = images.double() / 255
    torch.testing.assert_close(mean.double(), exact.mean((0, 2, 3)), rtol=1e-6, atol=0)
    torch.testing.assert_close(deviation[:2].double(), exact.std((0, 2, 3), correction=0)[:2], rtol=1e-5, atol=0)
    assert deviation[2] == pytest.approx(1, abs=1) and torch.isfinite(1 / deviation).all()  # noqa: PT018


@pytest.mark.parametrize(("name", "mean", "deviation"), [("half", 0.5, 0.5), ("none", 0.0, 1.0)])
def test_normalization_is_what_the_setting_says(name: str, mean: float, deviation: float) -> None:
    digits = load("digits", normalization=name)
    assert (digits.mean.item(), digits.deviation.item()) == (mean, deviation)
    given = digits.normalized(digits.train.images[:3])
    torch.testing.assert_close(given, (digits.train.images[:3].float() / 255 - mean) / deviation)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_batches_keep_the_layout_of_the_images(layout: torch.memory_format) -> None:
    images = torch.randint(0, 256, (40, 3, 6, 5), dtype=torch.uint8)
    part = Split(images, torch.arange(40))
    plain = Dataset("random", "", ("a",), part, part, part, *dataset.statistics(images))
    data = plain.to(torch.device("cpu"), layout)
    for augmentation in ("none", "crop-flip"):
        given, _ = batches.Batches(data, 7, augmentation, seed=0)[2]
        expected, _ = batches.Batches(plain, 7, augmentation, seed=0)[2]
        assert torch.equal(given, expected)
        assert given.is_contiguous(memory_format=layout)


def test_a_batch_depends_on_the_seed_and_its_number_alone(tiny_data: Dataset) -> None:
    one = batches.Batches(tiny_data, 10, "crop-flip", seed=5)
    assert one.per_epoch == 6
    images, labels = one[13]
    one[2]
    again = batches.Batches(tiny_data, 10, "crop-flip", seed=5)[13]
    assert torch.equal(images, again[0])
    assert torch.equal(labels, again[1])
    assert not torch.equal(images, batches.Batches(tiny_data, 10, "crop-flip", seed=6)[13][0])


def test_an_epoch_shows_every_image_at_most_once_and_epochs_differ(tiny_data: Dataset) -> None:
    marked = Dataset(
        "marked", "", tiny_data.classes, Split(tiny_data.train.images, torch.arange(64)), tiny_data.validation,
        tiny_data.test, tiny_data.mean, tiny_data.deviation,
    )  # fmt: skip
    sequence = batches.Batches(marked, 10, "none", seed=0)
    epochs = [torch.cat([sequence[6 * epoch + step][1] for step in range(6)]).tolist() for epoch in range(2)]
    assert all(len(set(epoch)) == 60 for epoch in epochs)
    assert epochs[0] != epochs[1]


@pytest.mark.parametrize("augmentation", ["crop", "crop-flip"])
def test_augmentation_of_a_whole_batch_equals_that_of_its_images(augmentation: str) -> None:
    images = torch.randint(0, 256, (50, 3, 32, 32), dtype=torch.uint8)
    given = batches.augmented(images, batches.drawn(50, 32, augmentation, generator(0, "augmentation")))
    padded = torch.nn.functional.pad(images, (4, 4, 4, 4))
    mirrored = 0
    for image, source in zip(given, padded, strict=True):
        crops = {bytes(source[:, y : y + 32, x : x + 32].numpy()): 0 for y in range(9) for x in range(9)}
        crops |= {
            bytes(source[:, y : y + 32, x : x + 32].flip(2).contiguous().numpy()): 1
            for y in range(9) for x in range(9)
        }  # fmt: skip
        mirrored += crops[bytes(image.numpy())]
    assert (mirrored == 0) if augmentation == "crop" else (10 < mirrored < 40)


@pytest.mark.parametrize("augmentation", ["none", "crop", "crop-flip"])
def test_a_batch_is_what_its_two_random_streams_say(tiny_data: Dataset, augmentation: str) -> None:
    sequence = batches.Batches(tiny_data, 10, augmentation, seed=5)
    for iteration in (0, 13, 7):
        order = torch.randperm(64, generator=generator(5, "order", iteration // 6))
        chosen = order[10 * (iteration % 6) : 10 * (iteration % 6) + 10]
        images = tiny_data.train.images[chosen]
        if augmentation != "none":
            random = generator(5, "augmentation", iteration)
            rows, columns = torch.randint(0, 3, (2, 10, 1), generator=random)
            mirrored = torch.rand(10, 1, generator=random) < 0.5
            padded = torch.nn.functional.pad(images, (1, 1, 1, 1))
            for index, image in enumerate(padded):
                images[index] = image[:, rows[index] :, columns[index] :][:, :8, :8]
                if augmentation == "crop-flip" and mirrored[index]:
                    images[index] = images[index].flip(2)
        given, labels = sequence[iteration]
        assert torch.equal(given, tiny_data.normalized(images))
        assert torch.equal(labels, tiny_data.train.labels[chosen])


def test_small_images_are_enlarged_only_with_a_notice() -> None:
    config = DataConfig(dataset="digits")
    enlarged = data.load(config, seed=0, minimum_size=16)
    assert enlarged.image_shape == (1, 16, 16)
    assert "enlarged to 16x16" in enlarged.notice
    assert load("digits", image_size=16).notice == ""
    assert load("digits").notice == ""


# The folder source


def test_a_folder_of_images_is_read_as_it_is(image_folder: Path) -> None:
    read = load("folder", image_folder)
    assert read.classes == ("dark", "light")
    assert (len(read.train), len(read.validation), len(read.test)) == (54, 6, 20)
    assert read.image_shape == (3, 12, 12)
    first = np.asarray(Image.open(image_folder / "test" / "dark" / "0000.png"))
    assert np.array_equal(read.test.images[0].permute(1, 2, 0).numpy(), first)
    assert read.test.labels.tolist() == [0] * 10 + [1] * 10


def test_the_second_time_a_folder_comes_from_its_cache(image_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load("folder", image_folder)
    decoded = folder._decoded
    monkeypatch.setattr(folder, "_decoded", lambda *_: pytest.fail("decoded again"))
    assert torch.equal(load("folder", image_folder).train.images, first.train.images)
    # A changed image, or a damaged cache, is read anew.
    monkeypatch.setattr(folder, "_decoded", decoded)
    changed = image_folder / "test" / "dark" / "0000.png"
    Image.new("RGB", (12, 12), "red").save(changed)
    assert load("folder", image_folder).test.images[0, 0].min() == 255
    cache = image_folder / ".lth_sparse.safetensors"
    cache.write_bytes(cache.read_bytes()[:-1])
    assert load("folder", image_folder).test.images[0, 0].min() == 255


def test_a_cache_that_cannot_be_written_is_only_a_warning(image_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folder.sealed, "write", full)
    with pytest.warns(UserWarning, match="decodes them again.*No space left"):
        assert len(load("folder", image_folder).test) == 20


@pytest.mark.parametrize("content", [b"", b"no image", None])
def test_a_broken_image_is_named(image_folder: Path, content: bytes | None) -> None:
    broken = image_folder / "train" / "light" / "0007.png"
    broken.write_bytes(broken.read_bytes()[:100] if content is None else content)
    with pytest.raises(InputError, match=f"image {broken} is broken"):
        load("folder", image_folder)
    assert not (image_folder / ".lth_sparse.safetensors").exists()


def test_images_of_several_sizes_need_an_image_size(image_folder: Path) -> None:
    Image.new("RGB", (20, 14), "red").save(image_folder / "train" / "dark" / "0003.png")
    with pytest.raises(InputError, match=r"0000.png is 12x12, .*0003.png is 20x14; give --image-size"):
        load("folder", image_folder)
    assert load("folder", image_folder, image_size=10).image_shape == (3, 10, 10)


def test_a_folder_that_is_missing_empty_or_lopsided_is_refused(image_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere/train is missing"):
        load("folder", tmp_path / "nowhere")
    (tmp_path / "empty" / "train").mkdir(parents=True)
    with pytest.raises(InputError, match="empty/train has a class without images, or none"):
        load("folder", tmp_path / "empty")
    (image_folder / "train" / "third").mkdir()
    with pytest.raises(InputError, match="third"):
        load("folder", image_folder)
    os.rename(image_folder / "train" / "third", image_folder / "test" / "third")
    Image.new("RGB", (12, 12)).save(image_folder / "test" / "third" / "0.png")
    with pytest.raises(InputError, match="differ in their classes: third"):
        load("folder", image_folder)


# The published sets, in their own file formats, without a network


def fake_cifar10(where: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """CIFAR-10 in miniature: torchvision's files, with their checksums put in torchvision's place."""
    base = where / published.CIFAR10.base_folder
    base.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (60, 3 * 32 * 32), dtype=np.uint8)

    def put(name: str, content: object) -> list[str]:
        encoded = pickle.dumps(content)
        (base / name).write_bytes(encoded)
        return [name, hashlib.md5(encoded).hexdigest()]

    train = [
        put(f"data_batch_{i}", {"data": pixels[10 * i - 10 : 10 * i], "labels": list(range(10))}) for i in range(1, 6)
    ]
    test = [put("test_batch", {"data": pixels[50:], "labels": list(range(10))})]
    meta = put("batches.meta", {"label_names": [f"class {i}" for i in range(10)]})
    monkeypatch.setattr(published.CIFAR10, "train_list", train)
    monkeypatch.setattr(published.CIFAR10, "test_list", test)
    monkeypatch.setattr(published.CIFAR10, "meta", {"filename": meta[0], "key": "label_names", "md5": meta[1]})
    return pixels


@pytest.mark.parametrize("name", ["cifar10", "auto"])
def test_cifar10_on_disk_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: None, name: str) -> None:
    pixels = fake_cifar10(tmp_path, monkeypatch)
    read = load(name, tmp_path)
    assert (read.name, read.notice) == ("cifar10", "")
    assert (len(read.train), len(read.validation), len(read.test)) == (45, 5, 10)
    assert np.array_equal(read.test.images.flatten(1).numpy(), pixels[50:])
    assert read.classes[3] == "class 3"


def test_a_checksum_that_does_not_hold_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: None
) -> None:
    fake_cifar10(tmp_path, monkeypatch)
    (tmp_path / published.CIFAR10.base_folder / "test_batch").write_bytes(b"changed")
    with pytest.raises(InputError, match="'cifar10' is not whole"):
        load("cifar10", tmp_path)


@pytest.mark.parametrize(("name", "folder_name"), [("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST")])
def test_mnist_and_its_twin_are_read_from_their_files(
    tmp_path: Path, offline: None, name: str, folder_name: str
) -> None:
    raw = tmp_path / folder_name / "raw"
    raw.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (30, 28, 28), dtype=np.uint8)
    for part in ("train", "t10k"):
        header = b"".join(number.to_bytes(4, "big") for number in (0x803, 30, 28, 28))
        (raw / f"{part}-images-idx3-ubyte").write_bytes(header + pixels.tobytes())
        labels = bytes(i % 10 for i in range(30))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(b"".join(n.to_bytes(4, "big") for n in (0x801, 30)) + labels)
    read = load(name, tmp_path)
    assert read.image_shape == (1, 28, 28)
    assert np.array_equal(read.test.images[:, 0].numpy(), pixels)


def test_svhn_is_read_from_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: None) -> None:
    from scipy.io import savemat

    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 20), dtype=np.uint8)
    listing = {}
    for part in ("train", "test"):
        path = tmp_path / f"{part}_32x32.mat"
        savemat(path, {"X": pixels, "y": np.arange(1, 21)[:, None] % 10 + 1})
        listing[part] = ["", path.name, hashlib.md5(path.read_bytes()).hexdigest()]
    monkeypatch.setattr(published.SVHN, "split_list", listing)
    read = load("svhn", tmp_path)
    assert np.array_equal(read.test.images.numpy(), pixels.transpose(3, 2, 0, 1))


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "mnist", "fashion-mnist", "svhn"])
def test_a_named_data_set_is_never_substituted(tmp_path: Path, offline: None, name: str) -> None:
    with pytest.raises(InputError, match=f"'{name}' is not whole under .* could not be read or fetched") as refused:
        load(name, tmp_path)
    assert "--dataset digits" in str(refused.value)


def test_auto_falls_back_to_digits_and_says_so(tmp_path: Path, offline: None) -> None:
    read = load("auto", tmp_path)
    assert read.name == "digits"
    assert "results on DIGITS" in read.notice
    assert "not CIFAR-10" in read.notice


def test_an_unknown_name_is_met_with_the_nearest() -> None:
    with pytest.raises(InputError, match='did you mean "cifar10"'):
        load("cifar-10")


def test_too_few_images_are_refused(tmp_path: Path) -> None:
    for part in ("train", "test"):
        (tmp_path / part / "only").mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(tmp_path / part / "only" / "0.png")
    with warnings.catch_warnings(), pytest.raises(InputError, match="has 1 training images; at least 10"):
        load("folder", tmp_path)
