# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A first lottery ticket
#
# A trained network can lose most of its weights and hardly be worse. The lottery ticket hypothesis
# ([Frankle and Carbin 2019](https://arxiv.org/abs/1803.03635)) says more: the weights that survive could have been
# trained alone from the start, *if they begin where they began*. Such a sub-network is a winning ticket.
#
# This notebook finds one on scikit-learn's digits, within a minute and offline: train, prune, rewind, retrain. It then
# shows what it brings: a sparse layer keeps, multiplies and trains its live weights only.

# %%
import copy
import statistics
import time

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from torch import nn

import lth_sparse as lth

torch.manual_seed(0)
digits = load_digits()
images = torch.from_numpy(digits.images).float()[:, None] / 8 - 1  # [1797, 1, 8, 8]
labels = torch.from_numpy(digits.target)
test_images, test_labels = images[:400], labels[:400]
train_images, train_labels = images[400:], labels[400:]

# %% [markdown]
# ## Train
#
# A small convolutional network. Its first weights are kept: they are what the survivors will go back to.


# %%
def accuracy(model):
    with torch.no_grad():
        return float((model(test_images).argmax(1) == test_labels).float().mean())


def train(model, steps=100):
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    generator = torch.Generator().manual_seed(1)  # the same batches for every network
    for _ in range(steps):
        batch = torch.randint(len(train_images), (64,), generator=generator)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(train_images[batch]), train_labels[batch]).backward()
        optimizer.step()
    return model


dense = nn.Sequential(
    nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
    nn.Flatten(), nn.Linear(64 * 4 * 4, 64), nn.ReLU(), nn.Linear(64, 10),
)  # fmt: skip
start = copy.deepcopy(dense.state_dict())
train(dense)
print(f"dense: {accuracy(dense):.1%} of the test images")

# %% [markdown]
# ## Prune, rewind, retrain
#
# A round prunes the half of each layer's live weights that is smallest in magnitude after training. The survivors are
# rewound to their first values, and trained again. `lth.sparsify` makes the layers sparse: their parameter `values`
# holds the live weights, `weight` shows them in their dense shape, `mask` says where they are.
#
# Beside each ticket stands a network that begins with the same weights, but whose mask is as large and random. It is
# the control: without it nobody could tell the ticket's doing from that of its size.


# %%
def halved(layer):
    """The mask of the larger half of the live weights."""
    mask = getattr(layer, "mask", torch.ones_like(layer.weight, dtype=torch.bool))
    magnitudes = layer.weight.detach().abs().masked_fill(~mask, -1).flatten()
    chosen = torch.zeros(magnitudes.shape, dtype=torch.bool)
    chosen[magnitudes.topk(int(mask.sum()) // 2).indices] = True
    return chosen.reshape(mask.shape)


def shuffled(mask):
    return mask.flatten()[torch.randperm(mask.numel())].reshape(mask.shape)


def rewound(masks):
    """The network as it began, sparse."""
    model = copy.deepcopy(dense)
    model.load_state_dict(start)
    return lth.sparsify(model, masks)


layers = ("0", "2", "6", "8")  # the names of the convolutions and linear layers in the network
trained, left = dense, 1.0
history = [(left, accuracy(dense), accuracy(dense))]
for _ in range(4):
    masks = {name: halved(trained.get_submodule(name)) for name in layers}
    trained = train(rewound(masks))
    control = train(rewound({name: shuffled(mask) for name, mask in masks.items()}))
    left = sum(int(mask.sum()) for mask in masks.values()) / sum(mask.numel() for mask in masks.values())
    history.append((left, accuracy(trained), accuracy(control)))
    print(f"{left:6.1%} of the weights: ticket {history[-1][1]:.1%}, random mask {history[-1][2]:.1%}")

# %% [markdown]
# ## Plot
#
# One seed and a few hundred images: differences of a point or two are noise.

# %%
weights_left, of_tickets, of_controls = zip(*history, strict=True)
figure, axes = plt.subplots(figsize=(6, 3.5))
axes.plot([100 * part for part in weights_left], of_tickets, marker="o", label="ticket")
axes.plot([100 * part for part in weights_left], of_controls, marker="s", label="random mask")
axes.set(xscale="log", xlabel="weights left, %", ylabel="test accuracy")
axes.invert_xaxis()
axes.legend()
plt.show()

# %% [markdown]
# ## Keep it
#
# A ticket file holds each mask at one bit a weight, and the live weights that it was rewound to.

# %%
lth.save_ticket("first-ticket.safetensors", lth.densify(rewound(masks)), masks)
model = copy.deepcopy(dense)
ticket = lth.load_ticket("first-ticket.safetensors", model)
again = train(lth.sparsify(ticket, ticket.ticket.masks))
print(f"from the file: {accuracy(again):.1%}, before: {accuracy(trained):.1%}")

# %% [markdown]
# ## What it brings
#
# A training step of the sparse network beside one of masked dense PyTorch, which computes with every weight and puts
# the pruned ones back to zero. The two take turns; the first steps are left out, and medians shown. This network is
# tiny: larger ones gain more.

# %%
sides = {"masked dense": lth.densify(copy.deepcopy(trained)), "sparse": copy.deepcopy(trained)}
optimizers = {name: torch.optim.Adam(model.parameters()) for name, model in sides.items()}
milliseconds = {name: [] for name in sides}
for _ in range(40):
    for name, model in sides.items():
        began = time.perf_counter()
        optimizers[name].zero_grad()
        nn.functional.cross_entropy(model(train_images[:256]), train_labels[:256]).backward()
        optimizers[name].step()
        if name == "masked dense":
            with torch.no_grad():
                for layer, mask in masks.items():
                    model.get_submodule(layer).weight.mul_(mask)
        milliseconds[name].append(1e3 * (time.perf_counter() - began))
for name, model in sides.items():
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"{name:13} {parameters:7,} parameters, {statistics.median(milliseconds[name][5:]):6.2f} ms a step")

# %% [markdown]
# ## On from here
#
# `python -m lth_sparse.run` plays whole lotteries on CIFAR-10 and other data sets, proves every rewind, and writes a
# report. The [quickstart](../docs/quickstart.md) begins with it; [layers in your own
# program](../docs/in-your-own-program.md) has more of `lth.sparsify`.
