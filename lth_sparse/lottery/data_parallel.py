"""The network of a training, as the processes of a run train it together, each on its part of every batch."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from lth_sparse.lottery.held_masks import HeldMasks
from lth_sparse.nn.forms import own_masks
from lth_sparse.nn.sparse_layer import SparseLayer
from lth_sparse.nn.synchronised_norm import is_synchronised
from lth_sparse.storage import sealed
from lth_sparse.system import processes


def gradient_bytes(model: nn.Module) -> int:
    """Of the gradients of `model`, which travel between processes once a step: of sparse layers, those of the live
    weights."""
    return sum(each.numel() * each.element_size() for each in model.parameters() if each.requires_grad)


class DataParallelNetwork:
    """The network that `held` holds to its masks. Of one process, it is the network itself.

    `label`: the round and the arm.
    """

    def __init__(self, held: HeldMasks, label: tuple[int, str]) -> None:
        self._held = held
        self._label = label
        self._wrapped: DistributedDataParallel | None = None
        self._left: list[Tensor] = []

    def loss(self, images: Tensor, labels: Tensor, batch_size: int) -> Tensor:
        """The mean cross-entropy of this process's part of a batch of `batch_size`, which counts as much as it has
        images. Its backward pass leaves the gradients of the whole batch's in every process."""
        if processes.count() == 1:
            return functional.cross_entropy(self._held.model(images), labels)
        if self._wrapped is None:
            self._wrapped = self._wrap()
        return functional.cross_entropy(self._wrapped(images), labels) * processes.share(batch_size)

    def masks_changed(self) -> None:
        """To be said before the next step: other numbers of weights live."""
        self._wrapped = None

    def after_step(self) -> None:
        """What a network keeps of its inputs, and no process sees all of, is the first process's in all of them."""
        processes.take_over(self._left)

    def _wrap(self) -> DistributedDataParallel:
        """Raises ProcessesError where the masks are not the same in all processes."""
        round, arm = self._label
        model = self._held.model
        masks = self._held.masks | {f"{name} of the model": mask for name, mask in own_masks(model).items()}
        processes.refuse_different(f"the masks of round {round} ({arm})", sealed.digest(masks))
        self._left = [
            buffer
            for module in model.modules()
            if not isinstance(module, SparseLayer) and not is_synchronised(module)
            for buffer in module.buffers(recurse=False)
        ]
        # It would send all of them before each forward pass, masks and plans among them.
        names = [name for name, _ in model.named_buffers()]
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, names)
        # A part of the network that is not used has no gradients: that is found out in the first step.
        return DistributedDataParallel(model, static_graph=True)
