"""The figures of an evaluation and of a training run; the only importer of matplotlib."""

from __future__ import annotations

import contextlib
import logging
import os
import textwrap
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from mnist_cli import files
from mnist_cli.errors import MnistError
from mnist_cli.evaluation import BINS, Evaluation
from mnist_cli.network import CLASSES
from mnist_cli.output.report import below_one

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

    from mnist_cli.functional import Array
    from mnist_cli.training import Epoch

SUFFIXES = (".png", ".svg", ".pdf")
# Blue, vermilion and gray: safe for color-blind readers (Okabe and Ito 2008).
BLUE, VERMILION, GRAY = "#0072b2", "#d55e00", "#666666"


def check(path: Path) -> None:
    """Raise MnistError if no figure could be drawn to `path`: its suffix, or no matplotlib."""
    if path.suffix.lower() not in SUFFIXES:
        raise MnistError(f"cannot draw {path}: its name must end in .png, .svg or .pdf")
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it would report on its font cache
    # A GUI backend of the user's could make the import fail; time stamps would change the bytes.
    os.environ |= {"MPLBACKEND": "agg", "SOURCE_DATE_EPOCH": "0"}
    try:
        import matplotlib.figure
        import matplotlib.style  # noqa: F401
    except ImportError as error:
        raise MnistError(f"{path} needs matplotlib: pip install 'mnist-cli[plot]'") from error
    except Exception as error:  # of a settings file that cannot be read
        raise MnistError(f"cannot draw {path}, as matplotlib does not load: {error}") from error


def evaluation(
    path: Path, title: str, result: Evaluation, images: Array, W: Array, names: tuple[str, ...]
) -> Figure:
    """Draw confusions, calibration, weights and mistakes on one page; return what was drawn.

    images (N, 28, 28) uint8 are those evaluated, W (784, 10) the weights, names the labels' ten
    names or none. Raises MnistError as `check` does, or where the file cannot be written.
    """
    names = names or tuple("0123456789")
    accuracy = f"accuracy {below_one(result.accuracy, 4):.2%}"
    with _page(path, title, accuracy, height=12) as figure:
        parts = figure.subfigures(3, 1, squeeze=False, height_ratios=(4.4, 3, 4))[:, 0]
        panels = parts[0].subplot_mosaic("AB;AC", height_ratios=(3, 1), width_ratios=(4, 3))
        _draw_confusions(panels["A"], result.confusion_matrix, names)
        _draw_calibration(panels["B"], panels["C"], result)
        _draw_weights(parts[1], W, names)
        _draw_mistakes(parts[2], result, images, names)
    return figure


def training(path: Path, title: str, history: Sequence[Epoch], kept: int) -> Figure:
    """Draw loss and accuracy epoch by epoch, with a mark at the one `kept`; return the figure.

    Raises MnistError as `check` does, or where the file cannot be written.
    """
    style: dict[str, Any] = {"marker": "o" if len(history) <= 40 else "", "ms": 4}
    with _page(path, title, height=3.8) as figure:
        for axes, quantity in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
            for split, color, line in (("train", BLUE, "-"), ("validation", VERMILION, "--")):
                values = [getattr(epoch, f"{split}_{quantity}") for epoch in history]
                if None not in values:
                    epochs = range(1, len(values) + 1)
                    axes.plot(epochs, values, line, c=color, label=split, **style)
            axes.axvline(kept, c=GRAY, ls=":", label=f"kept: epoch {kept}")
            axes.set(title=quantity.capitalize(), xlabel="epoch", ylabel=quantity)
            axes.locator_params("x", integer=True, min_n_ticks=1)
            axes.grid(alpha=0.3)
            axes.legend()
    return figure


@contextlib.contextmanager
def _page(path: Path, *titles: str, height: float) -> Iterator[Figure]:
    """Give a page 8 inches wide that is written to `path` in the end."""
    check(path)
    from matplotlib import figure, style

    # None of the user's own settings, and no random identifiers in an SVG.
    settings: list[Any] = ["default", {"font.size": 9, "svg.hashsalt": "mnist-cli"}]
    with style.context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph", UserWarning)  # a missing one is drawn as a box
        page = figure.Figure(figsize=(8, height), dpi=160, layout="constrained")
        printable = "".join(c if c.isprintable() else "?" for c in titles[0])
        heading = ": ".join([textwrap.fill(printable, 80, max_lines=2), *titles[1:]])
        page.suptitle(heading, fontsize=11, parse_math=False)
        yield page
        with files.publish(path) as file:
            page.savefig(file, format=path.suffix[1:].lower())


def _draw_confusions(axes: Axes, matrix: Array, names: tuple[str, ...]) -> None:
    fractions = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    # The square root makes the few per cent of a frequent confusion visible.
    axes.imshow(np.sqrt(fractions), cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(matrix):
        color = "white" if fractions[row, column] > 0.25 else "black" if count else GRAY
        axes.text(column, row, f"{count or '·'}", c=color, size=7, ha="center", va="center")
    angle, side = (45, "right") if max(map(len, names)) > 3 else (0, "center")
    axes.set_xticks(range(CLASSES), names, rotation=angle, ha=side, rotation_mode="anchor")
    axes.set_yticks(range(CLASSES), names)
    axes.set(title="Confusion matrix (images)", xlabel="predicted label", ylabel="true label")


def _draw_calibration(upper: Axes, lower: Axes, result: Evaluation) -> None:
    filled = np.flatnonzero(result.calibration[:, 0])
    images, confidence, correct = result.calibration[filled].T
    left, means, accuracy = filled / BINS, confidence / images, correct / images
    bar: dict[str, Any] = {"width": 1 / BINS, "align": "edge", "edgecolor": "white"}
    upper.bar(left, accuracy, color=BLUE, label="accuracy in the bin", **bar)
    upper.plot(means, accuracy, "D", c=VERMILION, ms=4, clip_on=False, label="mean probability")
    upper.plot([0, 1], [0, 1], "--", c=GRAY, label="perfect calibration")
    title = f"Reliability (calibration error {result.expected_calibration_error:.4f})"
    upper.set(title=title, ylabel="accuracy", xlim=(0, 1), ylim=(0, 1.02), xticklabels=[])
    lower.bar(left, images, color=GRAY, log=True, **bar)
    lower.set(xlabel="top probability", ylabel="images", xlim=(0, 1), ylim=(0.5, None))
    upper.figure.legend(fontsize=7.5, loc="outside lower right", ncols=3)


def _draw_weights(figure: SubFigure, W: Array, names: tuple[str, ...]) -> None:
    figure.suptitle("Weights: blue pixels speak for the label, red ones against it", fontsize=10)
    # A few weights of rarely inked pixels are so large that all others would look pale.
    limit = float(np.quantile(np.abs(W), 0.995)) or 1.0
    panels = figure.subplots(2, CLASSES // 2)
    for axes, name, weights in zip(panels.flat, names, W.T, strict=True):
        image = axes.imshow(weights.reshape(28, 28), cmap="RdBu", vmin=-limit, vmax=limit)
        axes.set_title(name, fontsize=8)
        axes.set(xticks=[], yticks=[])
    figure.colorbar(image, ax=panels, extend="both", label="weight")


def _draw_mistakes(
    figure: SubFigure, result: Evaluation, images: Array, names: tuple[str, ...]
) -> None:
    heading = "Most confident mistakes: true label → predicted label, and its probability"
    figure.suptitle(heading if result.mistakes else "No mistakes", fontsize=10)
    caption = "{}\n→ {}\n{:.1%}" if max(map(len, names)) > 3 else "{} → {}  ({:.1%})"
    panels = figure.subplots(3, 8)
    for axes in panels.flat:
        axes.set_axis_off()
    for axes, wrong in zip(panels.flat, result.mistakes, strict=False):
        axes.imshow(images[wrong.index], cmap="gray_r", vmin=0, vmax=255)
        probability = below_one(wrong.probability, 3)
        text = caption.format(names[wrong.label], names[wrong.predicted], probability)
        axes.set_title(text, fontsize=7.5)
