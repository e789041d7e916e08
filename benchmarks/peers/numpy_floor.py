"""The loop that the floors share: the gathers, casts and two products of mnist-cli, no more."""

import sys
import time
from pathlib import Path

import numpy as np
from common import BATCH, EPOCHS, report


def run(parts):
    """Run ten epochs, each product taken in so many parts."""
    sys.argv.pop()
    rng = np.random.default_rng(0)
    path = Path(sys.argv[1]) / "mnist" / "train-images-idx3-ubyte"
    images = np.asarray(np.memmap(path, np.uint8, "r", 16)).reshape(-1, 784)
    gathered, x = np.empty((BATCH, 784), np.uint8), np.empty((BATCH, 784), np.float32)
    W = np.asfortranarray(rng.normal(0, 0.01, (784, 10)).astype(np.float32))
    dlogits = np.asfortranarray(rng.normal(0, 0.01, (BATCH, 10)).astype(np.float32))
    logits, dW = np.empty((BATCH, 10), np.float32), np.empty((784, 10), np.float32, order="F")
    x_parts, logits_parts = x.reshape(parts, -1, 784), logits.reshape(parts, -1, 10)
    xT_parts, dW_parts = x.T.reshape(parts, -1, BATCH), dW.reshape(parts, -1, 10)
    started = time.perf_counter()
    for _ in range(EPOCHS):
        order = rng.permutation(len(images))
        for start in range(0, len(images) - BATCH + 1, BATCH):
            images.take(order[start : start + BATCH], axis=0, out=gathered, mode="clip")
            np.copyto(x, gathered)
            np.matmul(x_parts, W, out=logits_parts)
            np.matmul(xT_parts, dlogits, out=dW_parts)
    report(time.perf_counter() - started, W, np.zeros(10))
