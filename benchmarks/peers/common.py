"""What every peer needs: the official files as arrays, and a line of JSON with the result."""

import json
import sys
from pathlib import Path

import numpy as np

EPOCHS, BATCH, RATE, MOMENTUM, DECAY = 10, 120, 0.2, 0.9, 1e-4


def load(part):
    """Return the images (N, 784) and labels (N,) of `train` or `t10k`, uint8."""
    folder = Path(sys.argv[1]) / "mnist"
    images = np.fromfile(folder / f"{part}-images-idx3-ubyte", np.uint8)[16:].reshape(-1, 784)
    return images, np.fromfile(folder / f"{part}-labels-idx1-ubyte", np.uint8)[8:]


def report(seconds, W, b):
    """Write the model, judge it on the test images, print the result."""
    np.savez(sys.argv[2], W=W, b=b)
    if len(sys.argv) > 3:  # judge as well; not in the runs whose whole process is timed
        images, labels = load("t10k")
        accuracy = float(((images / 255 @ W + b).argmax(axis=1) == labels).mean())
    else:
        accuracy = None
    print(json.dumps({"seconds": seconds, "accuracy": accuracy}))
