"""A LightningModule around a sparse model: trained, saved and resumed as around the masked dense one."""

import pytest
import torch
import torch.nn.functional as F

from tests.in_the_wild.side_by_side import (
    assert_equal,
    assert_same_updates,
    assert_twins,
    batches,
    dense_state,
    sgd,
    twins,
)

lightning = pytest.importorskip("lightning", reason="lightning is not installed")

from lightning.pytorch import callbacks  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")


class Classifier(lightning.LightningModule):
    def __init__(self, network):
        super().__init__()
        self.network = network
        self.losses = []

    def training_step(self, batch, index):
        images, labels = batch
        loss = F.cross_entropy(self.network(images), labels)
        self.losses.append(loss.detach())
        return loss

    def configure_optimizers(self):
        optimizer = sgd(self)
        return [optimizer], [{"scheduler": torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9), "interval": "step"}]

    def train_dataloader(self):
        return torch.utils.data.DataLoader(list(batches(count=4)), batch_size=None)


def trainer(directory, **options):
    return lightning.Trainer(
        default_root_dir=directory,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **{"enable_checkpointing": False, **options},
    )


def test_two_steps_a_checkpoint_and_two_more(tmp_path):
    models, losses = [], []
    for which in (0, 1):
        saving = callbacks.ModelCheckpoint(tmp_path / str(which), save_last=True)
        first = Classifier(twins()[which])
        options = {"gradient_clip_val": 0.5, "accumulate_grad_batches": 2}
        trainer(tmp_path, max_steps=1, enable_checkpointing=True, callbacks=[saving], **options).fit(first)
        second = Classifier(twins()[which])
        trainer(tmp_path, max_steps=3, **options).fit(second, ckpt_path=saving.last_model_path)
        models.append(second.network)
        losses.append(first.losses + second.losses)
    assert_equal(*losses)
    assert_twins(*models)
    loaded = Classifier.load_from_checkpoint(tmp_path / "0" / "last.ckpt", network=twins()[0])
    assert_equal(len(loaded.network.state_dict()), len(models[0].state_dict()))


def test_stochastic_weight_averaging(tmp_path):
    models = twins()
    for model in models:
        averaging = callbacks.StochasticWeightAveraging(1e-2, swa_epoch_start=1)
        trainer(tmp_path, max_epochs=3, callbacks=[averaging]).fit(Classifier(model))
    assert_twins(*models)


def test_mixed_precision(tmp_path):
    sparse, dense = twins()
    before = dense_state(sparse)
    for model in (sparse, dense):
        trainer(tmp_path, max_steps=2, precision="bf16-mixed").fit(Classifier(model))
    assert_same_updates(sparse, dense, before, torch.bfloat16)


def test_its_callback_that_prunes_passes_sparse_weights_over(tmp_path):
    sparse, _ = twins()
    values = [layer.values.numel() for layer in (sparse[0], sparse[3], sparse[6])]
    pruning = callbacks.ModelPruning("l1_unstructured", amount=0.5)
    trainer(tmp_path, max_epochs=1, callbacks=[pruning]).fit(Classifier(sparse))
    assert [layer.values.numel() for layer in (sparse[0], sparse[3], sparse[6])] == values
    assert not any(name.endswith("values_orig") for name, _ in sparse.named_parameters())
