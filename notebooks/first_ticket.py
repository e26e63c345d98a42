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
# ## A network, a training, an evaluation
#
# All three are your own. The training makes its optimizer itself, for each round gives it another model.


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


network = nn.Sequential(
    nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
    nn.Flatten(), nn.Linear(64 * 4 * 4, 64), nn.ReLU(), nn.Linear(64, 10),
)  # fmt: skip

# %% [markdown]
# ## Train, prune, rewind, retrain
#
# Round 0 trains the dense network. Each round after it prunes the half of each layer's live weights that is smallest in
# magnitude, rewinds the survivors to their first values, and trains them again; that the rewind is one, bit for bit, is
# checked. Pruned layers are sparse: their parameter `values` holds the live weights, `weight` shows them in their dense
# shape, `mask` says where they are.
#
# Beside each ticket stands a network that begins with the same weights, but whose mask is as large and random. It is
# the control: without it nobody could tell the ticket's doing from that of its size.


# %%
def show(row):
    control = "" if row.accuracy_random is None else f", random mask {row.accuracy_random:.1%}"
    print(f"{row.density:6.1%} of the weights: ticket {row.accuracy_retrained:.1%}{control}")


lottery = lth.Lottery(
    network, train=train, evaluate=accuracy, rounds=4, rate=0.5, controls=["random"], dataset="digits",
    out="first-lottery", on_round=show,
)  # fmt: skip
record = lottery.run()

# %% [markdown]
# What was proved of the last round:

# %%
for proof in record.proofs:
    if proof.round == 4 and proof.arm == "ticket":
        print(f"{proof.statement}: {proof.detail[:60]}")

# %% [markdown]
# ## Plot
#
# One seed and a few hundred images: differences of a point or two are noise.

# %%
weights_left = [100 * row.density for row in record.rounds]
figure, axes = plt.subplots(figsize=(6, 3.5))
axes.plot(weights_left, [row.accuracy_retrained for row in record.rounds], marker="o", label="ticket")
axes.plot(weights_left[1:], [row.accuracy_random for row in record.rounds[1:]], marker="s", label="random mask")
axes.set(xscale="log", xlabel="weights left, %", ylabel="test accuracy")
axes.invert_xaxis()
axes.legend()
plt.show()

# %% [markdown]
# ## Keep it
#
# The lottery left a report, tables, and a ticket a round in `first-lottery`. A ticket file holds each mask at one bit a
# weight, and the live weights that it was rewound to: whoever has it and the network trains what was trained here.

# %%
trained = lottery.trained()
model = lth.load_ticket("first-lottery/tickets/round-04.safetensors", copy.deepcopy(network))
masks = model.ticket.masks
again = train(lth.sparsify(model, masks))
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
# [A lottery of your own](../docs/your-own-lottery.md) has the rest of `lth.Lottery`, and its steps one by one, for a
# training loop that stays yours. `python -m lth_sparse.run` brings networks and data along: the
# [quickstart](../docs/quickstart.md) begins with it. [Layers in your own program](../docs/in-your-own-program.md) has
# more of `lth.sparsify`.
