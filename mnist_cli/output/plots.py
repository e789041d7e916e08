"""The pictures of an evaluation and of a training run; the only importer of matplotlib."""

import contextlib
import logging
import os
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mnist_cli import files
from mnist_cli.errors import MnistError
from mnist_cli.evaluation import BINS, Evaluation, Mistake
from mnist_cli.functional import Array
from mnist_cli.network import CLASSES, Params
from mnist_cli.training import Epoch

if TYPE_CHECKING:
    from matplotlib.figure import Figure

METADATA: dict[str, dict[str, Any]] = {  # no time stamps
    ".png": {},
    ".svg": {"Date": None},
    ".pdf": {"CreationDate": None},
}
# Nothing of the user's own settings, and nothing random in an SVG.
STYLE: list[Any] = [
    "default",
    {"font.size": 9, "axes.titlesize": 10, "svg.hashsalt": "mnist-cli"},
]
# Blue, vermilion and grey, which the colour-blind tell apart (Okabe and Ito 2008).
BLUE, VERMILION, GREY = "#0072b2", "#d55e00", "#666666"


def check(path: Path) -> None:
    """Raise MnistError if no picture could be drawn to `path`: its suffix, or no matplotlib."""
    if path.suffix.lower() not in METADATA:
        raise MnistError(f"cannot draw {path}: its name must end in .png, .svg or .pdf")
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # its news of caches are none of ours
    os.environ["MPLBACKEND"] = "agg"  # or the user's choice of windows could make the import fail
    try:
        import matplotlib.figure
        import matplotlib.style  # noqa: F401
    except ImportError as error:
        raise MnistError(
            f"cannot draw {path} without matplotlib: pip install 'mnist-cli[plot]'"
        ) from error


def evaluation(
    path: Path,
    evaluation: Evaluation,
    images: Array,
    params: Params,
    label_names: tuple[str, ...],
    title: str,
) -> "Figure":
    """Draw confusions, calibration, weights and mistakes on one page; return what was drawn.

    images (N, 28, 28) uint8 are those evaluated, label_names the ten of the data set, or none.

    Raises:
        MnistError: no matplotlib, an unknown suffix, or a file that cannot be written.

    """
    names = label_names or tuple(map(str, range(CLASSES)))
    printable = "".join(c if c.isprintable() else "?" for c in title)
    heading = f"{textwrap.fill(printable, 80, max_lines=2)}: accuracy {evaluation.accuracy:.2%}"
    with _page(path, height=12) as figure:
        figure.suptitle(heading, fontsize=11, y=0.99, parse_math=False)
        _draw_confusions(figure, evaluation.confusion_matrix, names)
        _draw_calibration(figure, evaluation)
        _draw_weights(figure, params.W, names)
        _draw_mistakes(figure, evaluation.mistakes, images, names)
    return figure


def training(path: Path, history: Sequence[Epoch]) -> "Figure":
    """Draw loss and accuracy on training and validation images, epoch by epoch; return it.

    Raises:
        MnistError: no matplotlib, an unknown suffix, or a file that cannot be written.

    """
    epochs = [epoch.epoch for epoch in history]
    marker = "o" if len(epochs) <= 40 else ""
    with _page(path, height=3.6) as figure:
        panels = _panels(figure, 1, 2, (0.65, 0.3, 7.85, 3.1), wspace=0.25)
        for axes, quantity in zip(panels.flat, ("loss", "accuracy"), strict=True):
            for split, color, line in (("train", BLUE, "-"), ("validation", VERMILION, "--")):
                values = [getattr(epoch, f"{split}_{quantity}") for epoch in history]
                if None not in values:
                    axes.plot(epochs, values, line, c=color, marker=marker, ms=4, label=split)
            axes.set(title=quantity.capitalize(), xlabel="epoch", ylabel=quantity)
            axes.locator_params("x", integer=True, min_n_ticks=1)
            axes.grid(alpha=0.3)
            axes.legend()
    return figure


@contextlib.contextmanager
def _page(path: Path, height: float) -> Iterator["Figure"]:
    """Give a page 8 inches wide that is written to `path`: same drawing, same bytes."""
    check(path)
    from matplotlib import figure, style

    suffix = path.suffix.lower()
    with style.context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph", UserWarning)  # a box stands for what is missing
        page = figure.Figure(figsize=(8, height), dpi=160)
        yield page
        with files.publish(path) as file:
            page.savefig(file, format=suffix[1:], metadata=METADATA[suffix])


def _panels(
    figure: "Figure",
    rows: int,
    columns: int,
    box: tuple[float, float, float, float],
    **spacing: Any,
) -> Array:
    """Add a grid of axes; its box is left, top, right and bottom in inches from the top left.

    matplotlib's own layout would differ in the last digits from run to run.
    """
    left, top, right, bottom = box
    width, height = figure.get_size_inches()
    spacing |= {"left": left / width, "right": right / width}
    spacing |= {"top": 1 - top / height, "bottom": 1 - bottom / height}
    return figure.subplots(rows, columns, squeeze=False, gridspec_kw=spacing)


def _head(figure: "Figure", top: float, text: str) -> None:
    figure.text(0.5, 1 - top / figure.get_size_inches()[1], text, ha="center", fontsize=10)


def _draw_confusions(figure: "Figure", matrix: Array, names: tuple[str, ...]) -> None:
    from matplotlib.colors import PowerNorm

    axes = _panels(figure, 1, 1, (1.1, 0.7, 4.5, 4.1))[0, 0]
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    # The square root tells the few per cent of a frequent confusion from none.
    axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, 0, 1))
    for (true, predicted), count in np.ndenumerate(matrix):
        color = "white" if shares[true, predicted] > 0.25 else "black" if count else GREY
        text = str(count) if count else "·"
        axes.text(predicted, true, text, ha="center", va="center", color=color, fontsize=7)
    slant: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(range(CLASSES), names, **(slant if _are_long(names) else {}))
    axes.set_yticks(range(CLASSES), names)
    axes.set(title="Confusion matrix (images)", xlabel="predicted label", ylabel="true label")


def _draw_calibration(figure: "Figure", evaluation: Evaluation) -> None:
    upper, lower = _panels(figure, 2, 1, (5.2, 0.7, 7.8, 4.1), height_ratios=(3, 1)).flat
    filled = evaluation.calibration[:, 0] > 0
    images, confidence, correct = evaluation.calibration[filled].T
    accuracy = correct / images
    bar: dict[str, Any] = {"width": 1 / BINS, "align": "edge", "edgecolor": "white"}
    bars = upper.bar(np.flatnonzero(filled) / BINS, accuracy, color=BLUE, **bar)
    (means,) = upper.plot(confidence / images, accuracy, "D", c=VERMILION, ms=4, clip_on=False)
    (perfect,) = upper.plot([0, 1], [0, 1], "--", c=GREY)
    labels = ("accuracy in the bin", "at its mean probability", "perfect calibration")
    upper.legend((bars, means, perfect), labels, loc="upper left", fontsize=7.5)
    error = evaluation.expected_calibration_error
    upper.set(title=f"Reliability (calibration error {error:.4f})", ylabel="accuracy")
    upper.set(xlim=(0, 1), ylim=(0, 1.02), xticklabels=[])
    lower.bar(np.flatnonzero(filled) / BINS, images, color=GREY, log=True, **bar)
    lower.set(xlabel="top probability", ylabel="images", xlim=(0, 1), ylim=(0.5, None))


def _draw_weights(figure: "Figure", W: Array, names: tuple[str, ...]) -> None:
    _head(figure, 5.2, "Weights: blue pixels speak for the label, red ones against it")
    panels = _panels(figure, 2, CLASSES // 2, (0.3, 5.5, 6.9, 7.9), wspace=0.1, hspace=0.22)
    # A few weights of rarely inked pixels are so large that beside them all others look pale.
    limit = float(np.quantile(np.abs(W), 0.995)) or 1.0
    for label, axes in enumerate(panels.flat):
        image = axes.imshow(W[:, label].reshape(28, 28), cmap="RdBu", vmin=-limit, vmax=limit)
        axes.set_title(names[label], fontsize=8)
        axes.set(xticks=[], yticks=[])
    scale = _panels(figure, 1, 1, (7.1, 5.5, 7.2, 7.9))[0, 0]
    figure.colorbar(image, scale, extend="both", label="weight")


def _draw_mistakes(
    figure: "Figure",
    mistakes: Sequence[Mistake],
    images: Array,
    names: tuple[str, ...],
) -> None:
    heading = "Most confident mistakes: true label → predicted label, and its probability"
    _head(figure, 8.25, heading if mistakes else "No mistakes")
    long = _are_long(names)
    caption = "{}\n→ {}\n{:.1%}" if long else "{} → {}  ({:.1%})"
    box = (0.1, 8.75 if long else 8.5, 7.9, 11.9)
    panels = _panels(figure, 3, 8, box, wspace=0.1, hspace=0.6 if long else 0.3)
    for axes in panels.flat:
        axes.set_axis_off()
    for axes, mistake in zip(panels.flat, mistakes, strict=False):
        axes.imshow(images[mistake.index], cmap="gray_r", vmin=0, vmax=255)
        text = caption.format(names[mistake.label], names[mistake.predicted], mistake.probability)
        axes.set_title(text, fontsize=7.5)


def _are_long(names: tuple[str, ...]) -> bool:
    return max(map(len, names)) > 3
