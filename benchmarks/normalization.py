"""Measure what the normalisations do to the accuracy, and draw the pictures of the chapter.

    python benchmarks/normalization.py --data-dir data [--seeds 5] [--output docs/pictures]

`data` holds mnist/ and fashion-mnist/. Prints the tables of docs/normalization.md and draws
normalization.png (the ten digits before and after) and normalization-pictures.png (slanted and
stretched pictures, through what `predict` does). The test images judge; they choose nothing.
"""

import argparse
import dataclasses
import io
import statistics
import time
from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt
from numpy.typing import NDArray
from PIL import Image

from mnist_cli import config, training
from mnist_cli.config import NORMALIZATIONS, Config
from mnist_cli.data import loading
from mnist_cli.evaluation import loss_and_accuracy
from mnist_cli.inputs.normalize import Images, normalize
from mnist_cli.inputs.pictures import prepare
from mnist_cli.network import Params

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
COLOURS = dict(zip(NORMALIZATIONS, ("#666666", "#0072b2", "#d55e00"), strict=True))
SLANTS = np.linspace(-0.6, 0.6, 7)
STRETCHES = np.array([0.5, 0.6, 0.75, 1, 1.33, 1.67, 2])  # width to height


def main() -> None:
    """Measure, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("docs/pictures"))
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    mnist = loading.load("mnist", "train", args.data_dir)
    draw_digits(mnist, args.output / "normalization.png")

    print("| data | training | normalize | median | lowest | highest |")
    print("| --- | --- | --- | ---: | ---: | ---: |")
    models = {}
    for name in ("mnist", "fashion-mnist"):
        splits = [loading.load(name, part, args.data_dir) for part in ("train", "test")]
        runs = [("defaults", Config(dataset=name, normalize=n)) for n in NORMALIZATIONS]
        if name == "mnist":
            chosen = Config(**config.load(CONFIGS / "moment.json"))
            runs.append(("configs/moment.json", chosen))
        for title, settings in runs:
            figures = []
            for seed in range(args.seeds):
                params, accuracy = judge(dataclasses.replace(settings, seed=seed), *splits)
                figures.append(100 * accuracy)
                if seed == 0 and title == "defaults" and name == "mnist":
                    models[settings.normalize] = params
            low, middle, high = min(figures), statistics.median(figures), max(figures)
            row = (
                f"{name} | {title} | {settings.normalize} | {middle:.2f} | {low:.2f} | {high:.2f}"
            )
            print(f"| {row} |", flush=True)
    test = loading.load("mnist", "test", args.data_dir)
    draw_pictures(models, test, args.output / "normalization-pictures.png")

    images = np.concatenate([mnist.images, test.images])
    for method in NORMALIZATIONS[1:]:
        seconds = []
        for _ in range(5):
            started = time.perf_counter()
            normalize(images, method)
            seconds.append(time.perf_counter() - started)
        print(f"{method}: {len(images)} images in {statistics.median(seconds):.2f} s")


def judge(settings: Config, train: loading.Split, test: loading.Split) -> tuple[Params, float]:
    """Train on one split and return the parameters, with their accuracy on the other."""
    images = normalize(train.images, settings.normalize)
    *_, state = training.train(training.start(), images, train.labels, settings)
    params, _ = state.final(settings)
    images = normalize(test.images, settings.normalize)
    _, accuracy = loss_and_accuracy(params, images, test.labels, np.arange(len(images)))
    return params, accuracy


def draw_digits(split: loading.Split, path: Path, each: int = 2) -> None:
    """Draw the first images of each class, one row as they are and one a method."""
    chosen = np.concatenate([np.flatnonzero(split.labels == c)[:each] for c in range(10)])
    rows = [np.hstack(list(normalize(split.images[chosen], m))) for m in NORMALIZATIONS]
    figure, axes = plt.subplots(len(rows), 1, figsize=(10, 1.9), layout="constrained")
    for ax, row, method in zip(axes, rows, NORMALIZATIONS, strict=True):
        ax.imshow(row, cmap="gray_r", vmin=0, vmax=255, interpolation="nearest")
        ax.set_xticks([])
        ax.set_yticks([14], [method])
        ax.tick_params(length=0)
        for x in range(28, row.shape[1], 28):
            ax.axvline(x - 0.5, color="#cccccc", linewidth=0.5)
    figure.savefig(path, dpi=150, metadata={"Software": None})


def draw_pictures(models: dict[str, Params], split: loading.Split, path: Path) -> None:
    """Draw the accuracy on slanted and on stretched pictures of digits, one line a method."""
    images, labels = split.images[:500], split.labels[:500]
    panels = [
        ("slant of the picture: columns to the right for each row upwards", SLANTS),
        ("width of the picture, as a share of its height", STRETCHES),
    ]
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.6), sharey=True, layout="constrained")
    for ax, (title, values) in zip(axes, panels, strict=True):
        slanted = values is SLANTS
        accuracies: dict[str, list[float]] = {method: [] for method in models}
        for value in values:
            maps = (value, 1.0) if slanted else (0.0, value)
            prepared = np.stack([picture(image, *maps) for image in images])
            for method, params in models.items():
                x = normalize(prepared, method)
                accuracy = loss_and_accuracy(params, x, labels, np.arange(len(labels)))[1]
                accuracies[method].append(100 * accuracy)
        for method, figures in accuracies.items():
            ax.plot(values, figures, marker="o", color=COLOURS[method], label=method)
            print(f"{title}: {method}:", *(f"{f:.1f}" for f in figures), flush=True)
        ax.set_xlabel(title)
        ax.grid(color="#dddddd")
    axes[1].set_xscale("log")
    axes[1].set_xticks(STRETCHES, [f"{value:g}" for value in STRETCHES])
    axes[1].minorticks_off()
    axes[0].set_ylabel("accuracy in %, 500 pictures")
    axes[0].legend()
    figure.savefig(path, dpi=150, metadata={"Software": None})


def picture(image: Images, slant: float, stretch: float) -> NDArray[np.uint8]:
    """Make a large dark-on-light picture of an image, slanted or stretched, and prepare it."""
    scale = 28 / 84
    width, height = scale / np.sqrt(stretch), scale * np.sqrt(stretch)
    centre = 70.0  # of the picture, 140 pixels wide and high
    shear = slant * height
    coefficients = (
        *(width, shear, 14 - (width + shear) * centre),
        *(0, height, 14 - height * centre),
    )
    large = Image.fromarray(image).transform(
        (140, 140), Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR
    )
    file = io.BytesIO()
    Image.fromarray(255 - np.asarray(large)).save(file, "PNG")
    file.seek(0)
    prepared: NDArray[np.uint8] = prepare(file, "picture")
    return prepared


if __name__ == "__main__":
    main()
