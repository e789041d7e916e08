"""Measure what `mnist-cli predict` loses when the digits come as pictures of pages.

    python benchmarks/own_pictures.py MODEL DATA_DIR [--split test] [--examples 1000] [--seed 0]

Draws random digits in four ways and prints the accuracy of each: as 28×28 PNG; large (4 to 12
times, bicubic, dark on light, RGB, anywhere on a white page of 1.2 to 3 times their size); the
same on grey-gradient paper with noise; and that as JPEG at quality 60. Exits with 1 if the pages
cost more than 1.5 points, or the others more than 3.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from mnist_cli.data import loading
from mnist_cli.inputs.pictures import Array

BATCH = 250  # pictures a process


def page(digit: Array, rng: np.random.Generator, spoilt: bool) -> Array:
    """Put a digit on a page: uint8 (28, 28) to uint8 (H, W, 3)."""
    side = round(28 * rng.uniform(4, 12))
    large = Image.fromarray(digit).resize((side, side), Image.Resampling.BICUBIC)
    height, width = (round(side * rng.uniform(1.2, 3)) for _ in range(2))
    top, left = rng.integers(height - side + 1), rng.integers(width - side + 1)
    light = np.ones((height, width, 1))
    light[top : top + side, left : left + side, 0] -= np.asarray(large) / 255
    if not spoilt:
        return np.rint(255 * light).astype(np.uint8).repeat(3, axis=2)
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    angle = rng.uniform(0, 2 * np.pi)
    shade = np.cos(angle) * x + np.sin(angle) * y
    paper = 150 + 95 * (shade - shade.min()) / np.ptp(shade)
    noise = rng.normal(0, 6, (height, width, 3))
    pixels: Array = np.clip(np.rint(paper[..., None] * light + noise), 0, 255).astype(np.uint8)
    return pixels


def predict(model: Path, pictures: list[Path]) -> list[int]:
    """Ask `mnist-cli predict` for the labels."""
    command = [sys.executable, "-m", "mnist_cli", "predict", str(model), "--json"]
    run = subprocess.run([*command, *map(str, pictures)], stdout=subprocess.PIPE, check=False)
    labels = {answer["image"]: answer["label"] for answer in json.loads(run.stdout)}
    return [labels.get(str(path), -1) for path in pictures]  # a refused picture is a wrong one


def main() -> int:
    """Print four accuracies, in percent."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("--split", choices=("train", "test"), default="test")
    parser.add_argument("--examples", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    data = loading.load("mnist", args.split, args.data_dir)
    rng = np.random.default_rng(args.seed)
    chosen = rng.choice(len(data.labels), args.examples, replace=False)
    kinds = ("28x28 PNG", "pages", "gradient and noise", "the same as JPEG 60")
    correct = dict.fromkeys(kinds, 0)
    for start in range(0, len(chosen), BATCH):
        batch = chosen[start : start + BATCH]
        with tempfile.TemporaryDirectory() as folder:
            paths: dict[str, list[Path]] = {kind: [] for kind in kinds}
            for index in batch:
                digit = np.asarray(data.images[index])
                spoilt = page(digit, rng, spoilt=True)
                drawn = (digit, page(digit, rng, spoilt=False), spoilt, spoilt)
                for number, (kind, pixels) in enumerate(zip(kinds, drawn, strict=True)):
                    path = Path(folder, f"{index}-{number}.{'jpg' if number == 3 else 'png'}")
                    Image.fromarray(pixels).save(path, quality=60, compress_level=1)
                    paths[kind].append(path)
            for kind in kinds:
                correct[kind] += int(
                    (predict(args.model, paths[kind]) == data.labels[batch]).sum()
                )

    missed = False
    for kind, allowed in zip(kinds, (0, 1.5, 3, 3), strict=True):
        accuracy = 100 * correct[kind] / len(chosen)
        lost = 100 * correct[kinds[0]] / len(chosen) - accuracy
        missed |= lost > allowed
        print(f"{kind:20s} {accuracy:6.2f} %   lost {lost:+.2f} points, allowed {allowed}")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
