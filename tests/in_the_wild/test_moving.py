"""Dtypes, memory formats, devices without numbers and inference mode: what a program switches a whole model to."""

import pytest
import torch

from tests.in_the_wild.side_by_side import assert_equal, assert_twins, batches, sgd, train, twins

((IMAGES, _),) = batches(count=1)


@pytest.mark.parametrize("cast", ["double", "bfloat16", "half"])
def test_every_floating_point_number_is_cast_and_no_mask(cast):
    outputs = []
    for model in twins():
        getattr(model.eval(), cast)()
        image = getattr(IMAGES, cast)()
        with torch.no_grad():
            output = model(image)
        assert output.dtype == image.dtype
        outputs.append(output)
        assert {each.dtype for each in model.state_dict().values()} <= {image.dtype, torch.bool, torch.int64}
    ours, theirs = outputs
    torch.testing.assert_close(ours, theirs)  # by the tolerance of the dtype


def test_a_model_that_was_cast_trains_on():
    models = twins()
    for model in models:
        train(model, sgd(model))
        model.double()
        train(model, sgd(model), dtype=torch.float64)
        model.float()
        train(model, sgd(model))
    assert_twins(*models)


def test_channels_last():
    models = twins()
    for model in models:
        model.to(memory_format=torch.channels_last)
        maps = model[0](IMAGES.to(memory_format=torch.channels_last))
        assert maps.is_contiguous(memory_format=torch.channels_last)
        train(model, sgd(model))
    assert_twins(*models)


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
def test_a_model_is_evaluated_between_training_steps(mode):
    models, outputs = twins(), []
    for model in models:
        optimizer = sgd(model)
        for _ in range(3):
            train(model, optimizer, count=1)
            with mode():
                outputs.append(model.eval()(IMAGES).clone())
            model.train()
    assert_equal(outputs[:3], outputs[3:])
    assert_twins(*models)


def test_images_that_were_made_in_inference_mode():
    models = twins()
    with torch.inference_mode():
        images = IMAGES.clone()
        assert_equal(*(model(images) for model in models))
    for model in models:
        with pytest.raises(RuntimeError, match="Inference tensors cannot be saved for backward"):
            model(images)


def test_odd_batches():
    ours, theirs = (model.eval() for model in twins())
    strided = (IMAGES.flip(0)[::2], IMAGES.transpose(2, 3), IMAGES[:1].expand(3, -1, -1, -1))
    for batch in (IMAGES[:0], IMAGES[:1], *strided):
        assert_equal(ours(batch), theirs(batch))
