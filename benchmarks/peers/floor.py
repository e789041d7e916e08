"""The floor: the gathers, casts and two products of a minibatch, and nothing else."""

import sys
import time
from pathlib import Path

import numpy as np
from common import BATCH, EPOCHS, report

sys.argv.pop()
rng = np.random.default_rng(0)
path = Path(sys.argv[1]) / "mnist" / "train-images-idx3-ubyte"
images = np.asarray(np.memmap(path, np.uint8, "r", 16)).reshape(-1, 784)
gathered, x = np.empty((BATCH, 784), np.uint8), np.empty((BATCH, 784), np.float32)
W = rng.normal(0, 0.01, (784, 10)).astype(np.float32)
dlogits = np.asfortranarray(rng.normal(0, 0.01, (BATCH, 10)).astype(np.float32))
started = time.perf_counter()
for _ in range(EPOCHS):
    order = rng.permutation(len(images))
    for start in range(0, len(images) - BATCH + 1, BATCH):
        images.take(order[start : start + BATCH], axis=0, out=gathered, mode="clip")
        np.copyto(x, gathered)
        x @ W
        x.T @ dlogits
report(time.perf_counter() - started, W, np.zeros(10))
