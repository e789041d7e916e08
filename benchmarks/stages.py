"""Show where the time of an epoch goes, stage by stage, and how far it is from the floor.

    python benchmarks/stages.py --data-dir data [--epochs 10]

The floor is the same gathers, casts and two products, taken in halves too, with nothing else; the
floor's epochs and the real ones take turns, so that both meet the same machine.
"""

import argparse
import os
import statistics
import time
from collections import defaultdict
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

from mnist_cli import datasets, evaluation, functional, network, optim
from mnist_cli.batches import minibatches
from mnist_cli.network import Params

BATCH = 128


def main() -> None:
    """Measure, and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=10)
    args = parser.parse_args()
    split = datasets.load("mnist", "train", args.data_dir)
    images = np.ascontiguousarray(split.images)
    params = network.initialise()
    velocity = Params(np.zeros_like(params.W), np.zeros_like(params.b))
    rng = np.random.default_rng(0)
    stages: dict[str, list[float]] = defaultdict(list)
    whole, floors = [], []
    for _ in range(args.epochs):
        order = rng.permutation(len(images))
        whole.append(epoch(params, velocity, images, split.labels, order))
        floors.append(floor(images, order))
        for name, seconds in split_epoch(params, velocity, images, split.labels, order).items():
            stages[name].append(seconds)
    steps = -(-len(images) // BATCH)
    per_step = {name: statistics.median(s) / steps * 1e6 for name, s in stages.items()}
    total = sum(per_step.values())
    print("| stage | µs a minibatch | share |\n| --- | ---: | ---: |")
    for name, cost in per_step.items():
        print(f"| {name} | {cost:.1f} | {cost / total:.0%} |")
    print(f"| sum | {total:.1f} | 100% |")
    ratio = statistics.median(a / b for a, b in zip(whole, floors, strict=True))
    print(f"\nwhole step: {statistics.median(whole) / steps * 1e6:.1f} µs")
    print(f"floor:      {statistics.median(floors) / steps * 1e6:.1f} µs")
    print(f"ratio:      {ratio:.2f}")


def epoch(params, velocity, images, labels, order) -> float:
    """Return the seconds of an epoch as the program runs it."""
    seen: list = []
    started = time.perf_counter()
    for step, (x, y) in enumerate(minibatches(images, labels, order, BATCH)):
        rate = optim.learning_rate_at(step / 1e6, "cosine", 0.1)
        logits, gradients = network.logits_and_gradients(params, x, y)
        seen.append((logits, y))
        if len(seen) == 16:
            evaluation.loss_and_hits(*map(np.concatenate, zip(*seen, strict=True)))
            seen.clear()
        optim.sgd_step(params, velocity, gradients, rate, 0.9, 1e-4)
    return time.perf_counter() - started


def floor(images, order) -> float:
    """Return the seconds of the gathers, the casts and the two products alone."""
    pixels = images.reshape(-1, 784)
    gathered, x = np.empty((BATCH, 784), np.uint8), np.empty((BATCH, 784), np.float32)
    W = np.asfortranarray(np.ones((784, 10), np.float32))
    dlogits = np.asfortranarray(np.ones((BATCH, 10), np.float32))
    logits, dW = np.empty((BATCH, 10), np.float32), np.empty((784, 10), np.float32, order="F")
    x_parts, logits_parts = x.reshape(2, -1, 784), logits.reshape(2, -1, 10)
    xT_parts, dW_parts = x.T.reshape(2, -1, BATCH), dW.reshape(2, -1, 10)
    started = time.perf_counter()
    for start in range(0, len(pixels) - BATCH + 1, BATCH):
        pixels.take(order[start : start + BATCH], axis=0, out=gathered, mode="clip")
        np.copyto(x, gathered)
        np.matmul(x_parts, W, out=logits_parts)  # in halves, as mnist-cli does
        np.matmul(xT_parts, dlogits, out=dW_parts)
    return (time.perf_counter() - started) * (len(pixels) / BATCH) / (len(pixels) // BATCH)


def split_epoch(params, velocity, images, labels, order) -> dict[str, float]:
    """Return the seconds of each stage in an epoch that is timed at every step."""
    seconds: dict[str, float] = defaultdict(float)
    seen: list = []
    mark = time.perf_counter()

    def lap(name: str) -> None:
        nonlocal mark
        now = time.perf_counter()
        seconds[name] += now - mark
        mark = now

    for x, y in minibatches(images, labels, order, BATCH):
        lap("gather and cast")
        logits = functional.linear(x, *params)
        lap("forward product, bias")
        probs = functional.softmax(logits)
        lap("softmax")
        dprobs = functional.cross_entropy_backward(probs, y)
        lap("derivative of the loss")
        dlogits = functional.softmax_backward(dprobs, probs)
        lap("Jacobian and its product")
        gradients = Params(*functional.linear_backward(dlogits, x))
        lap("backward product, bias")
        seen.append((logits, y))
        if len(seen) == 16:
            evaluation.loss_and_hits(*map(np.concatenate, zip(*seen, strict=True)))
            seen.clear()
        lap("loss and accuracy")
        optim.sgd_step(params, velocity, gradients, 0.1, 0.9, 1e-4)
        lap("update")
    return seconds


if __name__ == "__main__":
    main()
