"""Train the network of docs/hidden-layer.md, 784–128–10, on MNIST.

`python benchmarks/hidden_layer.py data` reads data/mnist/ and trains twice: on 50,000 images,
evaluated on the other 10,000 (the hyperparameters were chosen by these), then on all 60,000,
evaluated on the test images.
"""

import os
import sys
import time
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # for products as small as these

import numpy as np

from mnist_cli.data import loading
from mnist_cli.functional import cross_entropy_backward, softmax, softmax_backward


def initialize(rng, inputs=784, hidden=128, classes=10):
    W1 = rng.normal(0, np.sqrt(2 / inputs), (inputs, hidden))
    W2 = rng.normal(0, np.sqrt(2 / hidden), (hidden, classes))
    return [a.astype(np.float32) for a in (W1, np.zeros(hidden), W2, np.zeros(classes))]


def forward(params, x):
    W1, b1, W2, b2 = params
    z1 = x @ W1 + b1  # (B, H)
    a1 = np.maximum(z1, 0)  # (B, H), the activation: ReLU
    z2 = a1 @ W2 + b2  # (B, C), the logits
    return a1, z2


def gradients(params, x, y):
    W2 = params[2]
    a1, z2 = forward(params, x)
    a2 = softmax(z2)  # (B, C)
    delta3 = softmax_backward(cross_entropy_backward(a2, y), a2)  # ∂L/∂z2 (B, C)
    delta2 = (delta3 @ W2.T) * (a1 > 0)  # ∂L/∂z1 (B, H)
    return [x.T @ delta2, delta2.sum(axis=0), a1.T @ delta3, delta3.sum(axis=0)]


def train(x, y, epochs=10, batch_size=120, learning_rate=0.1, momentum=0.9, seed=0):
    rng = np.random.default_rng(seed)
    params = initialize(rng)
    velocity = [np.zeros_like(a) for a in params]
    for epoch in range(epochs):
        rate = np.float32(learning_rate * (1 - epoch / epochs))
        for chosen in np.array_split(rng.permutation(len(x)), len(x) // batch_size):
            steps = gradients(params, x[chosen], y[chosen])
            for a, v, gradient in zip(params, velocity, steps, strict=True):
                v *= momentum
                v += gradient
                a -= rate * v
    return params


def accuracy(params, x, y):
    return np.mean(forward(params, x)[1].argmax(axis=1) == y)


def main() -> None:
    data_dir = Path(sys.argv[1])
    train_split, test = (loading.load("mnist", split, data_dir) for split in ("train", "test"))
    x, x_test = (s.images.reshape(-1, 784).astype(np.float32) / 255 for s in (train_split, test))
    y = train_split.labels
    held_out = accuracy(train(x[:50_000], y[:50_000]), x[50_000:], y[50_000:])
    print(f"50,000 images: {held_out:.2%} of the 10,000 held out")
    for seed in range(3):
        started = time.perf_counter()
        reached = accuracy(train(x, y, seed=seed), x_test, test.labels)
        seconds = time.perf_counter() - started
        print(f"60,000 images, seed {seed}: {reached:.2%} test accuracy, {seconds:.0f} s")


if __name__ == "__main__":
    main()
