"""Show that time grows linearly with the data and that memory stays flat.

    python benchmarks/growth.py --data-dir data [--copies 100]

It writes the training images of MNIST `copies` times into one pair of IDX files (4.7 GB for 100)
in a temporary directory, trains an epoch on them and on the original, in turn, and removes them.
The memory is the peak of the anonymous pages: what is only a view of the file does not count.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from mnist_cli.data import loading


def main() -> None:
    """Measure, and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--copies", type=int, default=100)
    parser.add_argument("--runs", type=int, default=3)
    args = parser.parse_args()
    split = loading.load("mnist", "train", args.data_dir)
    with tempfile.TemporaryDirectory(dir=".") as scratch:
        sizes = {}
        for copies in (1, args.copies):
            folder = Path(scratch) / str(copies)
            write(folder / "mnist", split, copies)
            sizes[copies * len(split.labels)] = folder
        found: dict[int, list[tuple[float, float]]] = {size: [] for size in sizes}
        for folder in sizes.values():
            train(folder)  # fills the page cache
        for _ in range(args.runs):
            for size, folder in sizes.items():
                found[size].append(train(folder))
        print("| images | images a second | anonymous memory, MiB |\n| ---: | ---: | ---: |")
        for size, runs in found.items():
            rate, memory = (statistics.median(column) for column in zip(*runs, strict=True))
            print(f"| {size:,} | {rate:,.0f} | {memory:.0f} |")
        small, large = found.values()
        ratio = statistics.median(a[0] / b[0] for a, b in zip(small, large, strict=True))
        print(f"\ntime an image, large / small: {ratio:.2f}")


def write(folder: Path, split: loading.Split, copies: int) -> None:
    """Write `copies` copies of the training images, one after another, as one data set."""
    folder.mkdir(parents=True)
    for kind, array in (("images-idx3", split.images), ("labels-idx1", split.labels)):
        with (folder / f"train-{kind}-ubyte").open("wb") as file:
            sizes = (copies * len(array), *array.shape[1:])
            file.write(bytes([0, 0, 8, array.ndim]) + np.array(sizes, ">u4").tobytes())
            for _ in range(copies):
                file.write(np.ascontiguousarray(array).data)


def train(folder: Path) -> tuple[float, float]:
    """Train an epoch; return images a second and the peak of anonymous memory in MiB."""
    options = ["--epochs", "1", "--data-dir", str(folder), "--offline", "--json"]
    model = str(folder / "model.npz")
    process = subprocess.Popen(
        [sys.executable, "-m", "mnist_cli", "train", *options, "-o", model], stdout=subprocess.PIPE
    )
    peak = 0
    status = Path(f"/proc/{process.pid}/status")
    while process.poll() is None:
        lines = status.read_text().splitlines()
        peak = max([peak, *(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))])
        time.sleep(0.01)
    assert process.stdout
    return json.loads(process.stdout.read())["images_per_second"], peak / 1024


if __name__ == "__main__":
    main()
