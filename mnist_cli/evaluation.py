"""What a model is worth: loss, accuracy, confusion matrix, per-class figures, calibration."""

import dataclasses
import math
from functools import cached_property
from typing import Any

import numpy as np

from mnist_cli import functional
from mnist_cli.functional import Array
from mnist_cli.network import CLASSES, Params, forward, minibatches

BLOCK = 1000  # images at a time: large enough for BLAS, small enough for the cache
BINS = 15  # of the calibration, as in Guo et al. 2017


def loss_and_accuracy(
    params: Params, images: Array, labels: Array, indices: Array
) -> tuple[float, float]:
    """Return the mean cross-entropy and the share of correct answers for the images `indices`."""
    losses, correct = 0.0, 0
    for x, y in minibatches(images, labels, indices, BLOCK):
        loss, hits = loss_and_hits(forward(params, x), y)
        losses += loss
        correct += hits
    return losses / len(indices), correct / len(indices)


def loss_and_hits(logits: Array, y: Array) -> tuple[float, int]:
    """Return the sum of the cross-entropies, and the number of correct answers."""
    loss = functional.cross_entropy(logits, y).sum(dtype=np.float64)
    # As argmax does, the first of equals wins; that goes image by image, this class by class.
    rank = np.arange(CLASSES, 0, -1, dtype=np.uint8)
    is_top = logits == logits.max(axis=1, keepdims=True)
    return float(loss), int(((is_top * rank).max(axis=1) == rank[y]).sum())


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluation:
    """The figures of one model on one split.

    confusion_matrix (10, 10) counts, rows true, columns predicted. calibration (15, 3): for each
    bin (k/15, (k+1)/15] of the top probability the number of images, the sum of their top
    probabilities and the number of correct ones. mistakes: the wrong answers, most confident
    first, as (index, true, predicted, probability), at most 24.
    """

    confusion_matrix: Array
    loss: float
    brier_score: float
    calibration: Array
    mistakes: list[tuple[int, int, int, float]]

    @property
    def examples(self) -> int:
        """The number of images."""
        return int(self.confusion_matrix.sum())

    @property
    def correct(self) -> int:
        """The number of right answers."""
        return int(np.trace(self.confusion_matrix))

    @property
    def accuracy(self) -> float:
        """The share of right answers."""
        return self.correct / self.examples

    @property
    def expected_calibration_error(self) -> float:
        """The mean over the images of |accuracy − confidence| in their bin (Guo et al. 2017)."""
        _, confidence, correct = self.calibration.T
        return float(np.abs(correct - confidence).sum() / self.examples)

    @cached_property
    def per_class(self) -> list[dict[str, Any]]:
        """Precision, recall, F1 and support of each label; 0 where there is nothing to divide."""
        matrix = self.confusion_matrix
        rows = []
        for label in range(CLASSES):
            hits, true, predicted = (
                matrix[label, label],
                matrix[label].sum(),
                matrix[:, label].sum(),
            )
            rows.append(
                {
                    "label": label,
                    "precision": _share(hits, predicted),
                    "recall": _share(hits, true),
                    "f1": _share(2 * hits, true + predicted),
                    "support": int(true),
                }
            )
        return rows

    @property
    def macro_average(self) -> dict[str, float]:
        """The plain means of precision, recall and F1 over the ten labels."""
        return {
            figure: math.fsum(row[figure] for row in self.per_class) / CLASSES
            for figure in ("precision", "recall", "f1")
        }

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the accuracy (Wilson 1927)."""
        z, n, p = 1.959963984540054, self.examples, self.accuracy
        centre = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
        return max(0.0, centre - half), min(1.0, centre + half)

    def to_json(self) -> dict[str, Any]:
        """Return the figures under the names that `evaluate --json` gives them."""
        return {
            "examples": self.examples,
            "correct": self.correct,
            "accuracy": self.accuracy,
            "loss": self.loss,
            "brier_score": self.brier_score,
            "expected_calibration_error": self.expected_calibration_error,
            "confusion_matrix": self.confusion_matrix.tolist(),
            "per_class": self.per_class,
            "macro_average": self.macro_average,
        }


def evaluate(params: Params, images: Array, labels: Array) -> Evaluation:
    """Evaluate a model on images (N, 28, 28) uint8 with labels (N,), block by block."""
    confusion = np.zeros((CLASSES, CLASSES), np.int64)
    calibration = np.zeros((3, BINS))
    losses = brier = 0.0
    mistakes: list[tuple[int, int, int, float]] = []
    edges = np.arange(1, BINS) / BINS
    start = 0
    for x, y in minibatches(images, labels, np.arange(len(labels)), BLOCK):
        logits = forward(params, x).astype(np.float64)  # (B, C)
        probs = functional.softmax(logits)
        predicted, confidence = logits.argmax(axis=1), probs.max(axis=1)
        right = predicted == y
        losses += float(functional.cross_entropy(logits, y).sum())
        brier += float(np.square(probs - (y[:, None] == np.arange(CLASSES))).sum())
        np.add.at(confusion, (y, predicted), 1)
        bins = np.searchsorted(edges, confidence, side="left")  # lower bound open, upper closed
        for row, weights in zip(calibration, (None, confidence, right), strict=True):
            row += np.bincount(bins, weights, BINS)
        mistakes += [
            (start + int(i), int(y[i]), int(predicted[i]), float(confidence[i]))
            for i in np.flatnonzero(~right)
        ]
        mistakes = sorted(mistakes, key=lambda mistake: -mistake[3])[:24]
        start += len(y)
    return Evaluation(confusion, losses / start, brier / start, calibration.T, mistakes)


def _share(part: int, whole: int) -> float:
    return float(part / whole) if whole else 0.0
