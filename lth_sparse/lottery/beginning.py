"""The network that a lottery begins with: built, fit for it, with its initial weights or those of a checkpoint."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from lth_sparse import models
from lth_sparse.settings.config import Config
from lth_sparse.storage import checkpoint
from lth_sparse.system import processes
from lth_sparse.system.messages import say
from lth_sparse.system.seeding import derive


def initial(config: Config, network: models.Network) -> tuple[nn.Module, str | None]:
    """The dense network of a run, on the CPU, and the SHA-256 of the checkpoint that its weights are from, if any.

    Of several processes, all have the first one's. Raises InputError for a network that cannot go through a lottery,
    and a checkpoint that is not of it.
    """
    model = models.build(network, derive(config.seed, "weights"))
    if models.is_foreign(network.name) and (left := models.check(network, model)):
        say(left)
    processes.take_over(list(model.state_dict().values()))
    if config.checkpoint is None:
        return model, None
    path = Path(config.checkpoint).expanduser()
    weights, sha256 = processes.first(lambda: checkpoint.read(path))
    checkpoint.put_into(model, weights, f"--checkpoint {path}")
    return model, sha256
