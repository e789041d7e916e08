"""What people read on a terminal: the lines of a training run, the report of an evaluation."""

from __future__ import annotations

import dataclasses
import json
from bisect import bisect
from collections.abc import Iterator

import numpy as np

from mnist_cli.evaluation import BINS, Evaluation, Mistake
from mnist_cli.network import CLASSES
from mnist_cli.training import Epoch

# Where a deeper shade begins, as a fraction of the images of the true label.
RIGHT_STEPS = (0.5, 0.8, 0.9, 0.95)
WRONG_STEPS = (0.01, 0.02, 0.05, 0.1)
# From the 256-color palette: blue and orange, safe for color-blind readers, and of a middle
# lightness, so that a deeper shade is a stronger one on dark and light terminals alike.
RIGHT_SHADES = (None, 109, 110, 74, 39)
WRONG_SHADES = (None, 180, 179, 214, 208)
BLACK = 16


def below_one(fraction: float, decimals: int) -> float:
    """Return `fraction`, or something less where rounding to `decimals` would make 1 of it."""
    return min(fraction, 1 - 10**-decimals) if fraction < 1 else fraction


def json_line(record: Mistake) -> bytes:
    """Return a record as a line of JSON Lines."""
    return json.dumps(dataclasses.asdict(record)).encode() + b"\n"


def epoch_lines(epoch: Epoch, epochs: int) -> tuple[str, str]:
    """Return the head and a row of the table of `epochs` epochs, at most 80 columns wide."""
    cells = [("epoch", f"{epoch.epoch:>{len(str(epochs))}}/{epochs}")]
    for name, loss, accuracy in (
        ("train loss", epoch.train_loss, epoch.train_accuracy),
        ("validation loss", epoch.validation_loss, epoch.validation_accuracy),
    ):
        if loss is not None and accuracy is not None:
            cells += [(name, f"{loss:.4f}"), ("accuracy", f"{below_one(accuracy, 4):.2%}")]
    cells += [("seconds", f"{epoch.seconds:.2f}")]
    widths = [max(map(len, column)) for column in cells]
    head, row = ("  ".join(map(str.rjust, line, widths)) for line in zip(*cells, strict=True))
    return head, row


def report(
    title: str, evaluation: Evaluation, label_names: tuple[str, ...], *, color: bool
) -> str:
    """Return the report: plain ASCII for plain names, at most 80 columns below its title.

    label_names are the ten names of the labels, or none. With `color` the confusion matrix is
    shaded by ANSI escape sequences.
    """
    names = [f"{label} {name}" for label, name in enumerate(label_names)] or list("0123456789")
    parts = (
        [title],
        _figures(evaluation),
        _matrix(evaluation, names, color),
        _classes(evaluation, names),
        _confusions(evaluation, names),
    )
    return "\n\n".join(map("\n".join, parts))


def warnings(evaluation: Evaluation) -> list[str]:
    """Return a line for each figure that is undefined for some labels, as scikit-learn does."""
    predicted = evaluation.confusion_matrix.sum(axis=0)
    true = evaluation.confusion_matrix.sum(axis=1)
    undefined = {
        "precision is 0 by convention for labels never predicted": predicted,
        "recall is 0 by convention for labels without images": true,
        "F1 is 0 by convention for labels neither present nor predicted": predicted + true,
    }
    return [
        f"{text}: {', '.join(map(str, np.flatnonzero(counts == 0)))}"
        for text, counts in undefined.items()
        if not counts.all()
    ]


def _figures(evaluation: Evaluation) -> Iterator[str]:
    low, high = evaluation.interval
    counts = f"{evaluation.correct:,} of {evaluation.examples:,}"
    yield f"Accuracy                    {below_one(evaluation.accuracy, 4):.2%}  ({counts})"
    yield f"  95% interval (Wilson)     {low:.2%} to {below_one(high, 4):.2%}"
    yield f"Loss (cross-entropy)        {evaluation.loss:.4f}"
    yield f"Brier score                 {evaluation.brier_score:.4f}"
    error = evaluation.expected_calibration_error
    yield f"Expected calibration error  {error:.4f}  ({BINS} bins)"


def _matrix(evaluation: Evaluation, names: list[str], color: bool) -> Iterator[str]:
    matrix = evaluation.confusion_matrix
    margin = max(map(len, names)) + 1
    width = max(4, len(str(matrix.max())) + 1)
    yield "Confusion matrix: rows true, columns predicted"
    yield " " * margin + "".join(f"{label:{width}}" for label in range(CLASSES))
    for true, row in enumerate(matrix):
        cells = [f"{count or '.':>{width}}" for count in row.tolist()]
        if color:
            fractions = row / max(row.sum(), 1)
            cells = [_shade(cells[k], fractions[k], right=k == true) for k in range(CLASSES)]
        yield f"{names[true]:{margin}}{''.join(cells)}"


def _shade(cell: str, fraction: float, *, right: bool) -> str:
    steps, shades = (RIGHT_STEPS, RIGHT_SHADES) if right else (WRONG_STEPS, WRONG_SHADES)
    shade = shades[bisect(steps, fraction)]
    return f"\x1b[38;5;{BLACK};48;5;{shade}m{cell}\x1b[0m" if shade else cell


def _classes(evaluation: Evaluation, names: list[str]) -> Iterator[str]:
    macro = {**evaluation.macro_average, "support": evaluation.examples}
    margin = max(len("Macro average"), *map(len, names))
    yield f"{'Label':{margin}}  Precision  Recall      F1  Support"
    for name, row in zip([*names, "Macro average"], [*evaluation.per_class, macro], strict=True):
        row = {figure: below_one(value, 4) for figure, value in row.items()}
        figures = "{precision:11.4f}{recall:8.4f}{f1:8.4f}{support:9,}".format(**row)
        yield f"{name:{margin}}{figures}"


def _confusions(evaluation: Evaluation, names: list[str]) -> Iterator[str]:
    """Yield the five most frequent confusions, the lower labels first where they are equal."""
    matrix = evaluation.confusion_matrix
    wrong = np.where(np.eye(CLASSES, dtype=bool), 0, matrix).ravel()
    frequent = [index for index in np.argsort(-wrong, kind="stable")[:5] if wrong[index]]
    yield "Most frequent confusions" if frequent else "No confusions: every answer is right"
    for index in frequent:
        true, predicted = divmod(index, CLASSES)
        fraction = f"{below_one(wrong[index] / matrix[true].sum(), 3):.1%} of label {true}"
        yield f"{wrong[index]:7,}  {names[true]} taken for {names[predicted]} ({fraction})"
