"""A ticket file, from loading to inference: retrained from its rewound weights, then beside its network in dense.

Without --ticket a small lottery on scikit-learn's digits makes one first, by `python -m lth_sparse.run`, in a temporary
directory. A ticket holds the weights that it was rewound to, so it is trained before its accuracy says anything.
About 20 seconds on two cores, 15 with --quick; no network needed.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import nn

import lth_sparse as lth

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--ticket", type=Path, help="a ticket of a network for digits (default: one is made first)")
parser.add_argument("--quick", action="store_true", help="a shorter lottery, fewer steps and repetitions")
options = parser.parse_args()
iterations, repetitions = (100, 10) if options.quick else (300, 40)

torch.manual_seed(0)
with tempfile.TemporaryDirectory() as folder:
    path = options.ticket
    if path is None:
        run = Path(folder) / "run"
        lottery = f"--dataset digits --rounds 2 --sparsity 0.8 --iterations {iterations} --controls none --out {run}"
        subprocess.run([sys.executable, "-m", "lth_sparse.run", *lottery.split()], check=True)
        path = run / "tickets" / "round-02.safetensors"
    model = lth.load_ticket(path)
    dense_file = Path(folder) / "dense.pt"
    torch.save(model.state_dict(), dense_file)
    sizes = {"dense": dense_file.stat().st_size, "sparse": path.stat().st_size}

masks = model.ticket.masks
sparse = lth.sparsify(model, masks)
digits = load_digits()
images, labels = torch.from_numpy(digits.images).float()[:, None] / 8 - 1, torch.from_numpy(digits.target)
optimizer = torch.optim.Adam(sparse.parameters(), lr=2e-3)
for _ in range(iterations):
    batch = torch.randint(300, len(images), (64,))
    optimizer.zero_grad()
    nn.functional.cross_entropy(sparse(images[batch]), labels[batch]).backward()
    optimizer.step()

sides = {"dense": lth.densify(copy.deepcopy(sparse)).eval(), "sparse": sparse.eval()}
times: dict[str, list[float]] = {name: [] for name in sides}
answers = {}
with torch.no_grad():
    for _ in range(3 + repetitions):
        for name, side in sides.items():
            began = time.perf_counter()
            answers[name] = side(images[:300]).argmax(1)
            times[name].append(time.perf_counter() - began)

live, weights = sum(int(mask.sum()) for mask in masks.values()), sum(mask.numel() for mask in masks.values())
print(f"{model.ticket.network.name}: {live:,} of {weights:,} weights are live")
print(f"{'':8}{'accuracy':>10}{'images/s':>12}{'file, bytes':>13}")
for name in sides:
    right = float((answers[name] == labels[:300]).float().mean())
    print(f"{name:8}{right:>10.1%}{300 / statistics.median(times[name][3:]):>12,.0f}{sizes[name]:>13,}")
print(f"The same answer on {float((answers['dense'] == answers['sparse']).float().mean()):.1%} of 300 test images;")
print(f"batches of 300, the two sides in turn, after 3 to warm up; medians of {repetitions}.")
