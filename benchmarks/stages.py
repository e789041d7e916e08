"""Show where the time of an epoch goes, stage by stage.

    python benchmarks/stages.py --data-dir data [--epochs 10]

How far the whole is from the floor, and from others, is what speed.py measures.
"""

import argparse
import os
import statistics
import time
from collections import defaultdict
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

from mnist_cli import evaluation, functional, network, training
from mnist_cli.config import Config
from mnist_cli.data import loading
from mnist_cli.network import Params, minibatches

CONFIG = Config()
BATCH = CONFIG.batch_size


def main() -> None:
    """Measure, and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=10)
    args = parser.parse_args()
    split = loading.load("mnist", "train", args.data_dir)
    images = np.ascontiguousarray(split.images)
    params = network.initialize()
    velocity = network.initialize()
    rng = np.random.default_rng(0)
    stages: dict[str, list[float]] = defaultdict(list)
    for _ in range(args.epochs):
        order = rng.permutation(len(images))
        for name, seconds in epoch(params, velocity, images, split.labels, order).items():
            stages[name].append(seconds)
    steps = -(-len(images) // BATCH)
    per_step = {name: statistics.median(s) / steps * 1e6 for name, s in stages.items()}
    total = sum(per_step.values())
    print("| stage | µs a minibatch | share |\n| --- | ---: | ---: |")
    for name, cost in per_step.items():
        print(f"| {name} | {cost:.1f} | {cost / total:.0%} |")
    print(f"| sum | {total:.1f} | 100% |")


def epoch(params, velocity, images, labels, order) -> dict[str, float]:
    """Return the seconds of each stage in an epoch that is timed at every step."""
    seconds: dict[str, float] = defaultdict(float)
    seen: list = []
    mark = time.perf_counter()

    def lap(name: str) -> None:
        nonlocal mark
        now = time.perf_counter()
        seconds[name] += now - mark
        mark = now

    for x, chosen in minibatches(images, order, BATCH):
        y = labels[chosen]
        lap("gather, cast and scale")
        logits = network.forward(params, x)
        lap("forward product, bias")
        probs = functional.softmax(logits)
        lap("softmax")
        dprobs = functional.cross_entropy_backward(probs, y)
        lap("derivative of the loss")
        dlogits = functional.softmax_backward(dprobs, probs)
        lap("Jacobian and its product")
        gradients = Params(x.T @ dlogits, dlogits.sum(axis=0))
        lap("backward product, bias")
        seen.append((logits, y))
        if len(seen) * BATCH >= training.TOGETHER:
            evaluation.loss_and_hits(*map(np.concatenate, zip(*seen, strict=True)))
            seen.clear()
        lap("loss and accuracy")
        training.sgd_step(params, velocity, gradients, 0.1, CONFIG)
        lap("update")
    return seconds


if __name__ == "__main__":
    main()
