"""The loop that the numpy tutorials share: float images, fancy indexing, SGD with momentum."""

import math
import sys
import time

import numpy as np
from common import BATCH, DECAY, EPOCHS, MOMENTUM, RATE, load, report


def train(dlogits_of):
    """Train, with `dlogits_of(probs, one_hot)` as the backward pass of softmax and the loss."""
    sys.argv.pop()
    rng = np.random.default_rng(0)
    images, labels = load("train")
    x = images.astype(np.float32) / 255
    y = np.eye(10, dtype=np.float32)[labels]
    W, b = rng.normal(0, 0.01, (784, 10)).astype(np.float32), np.zeros(10, np.float32)
    vW, vb = np.zeros_like(W), np.zeros_like(b)
    started = time.perf_counter()
    step, steps = 0, EPOCHS * -(-len(x) // BATCH)
    for _ in range(EPOCHS):
        order = rng.permutation(len(x))
        for start in range(0, len(x), BATCH):
            chosen = order[start : start + BATCH]
            xb, yb = x[chosen], y[chosen]
            logits = xb @ W + b
            exps = np.exp(logits - logits.max(axis=1, keepdims=True))
            dlogits = dlogits_of(exps / exps.sum(axis=1, keepdims=True), yb)
            rate = RATE * (1 + math.cos(math.pi * step / steps)) / 2
            vW = MOMENTUM * vW + xb.T @ dlogits + DECAY * W
            vb = MOMENTUM * vb + dlogits.sum(axis=0)
            W = W - rate * vW
            b = b - rate * vb
            step += 1
    report(time.perf_counter() - started, W, b)
