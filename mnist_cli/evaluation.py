"""What a model is worth: loss, accuracy, confusion matrix, per-class figures, calibration."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from mnist_cli.functional import Array, cross_entropy, softmax
from mnist_cli.network import BLOCK, CLASSES, Params, forward, minibatches

BINS = 15  # of the calibration, as in Guo et al. 2017


def loss_and_accuracy(
    params: Params, images: Array, labels: Array, indices: Array
) -> tuple[float, float]:
    """Return the mean cross-entropy and the accuracy on the images `indices`."""
    loss, correct = 0.0, 0
    for x, chosen in minibatches(images, indices, BLOCK):
        block_loss, hits = loss_and_hits(forward(params, x), labels[chosen])
        loss, correct = loss + block_loss, correct + hits
    return loss / len(indices), correct / len(indices)


def loss_and_hits(logits: Array, y: Array) -> tuple[float, int]:
    """Return the sum of the cross-entropies and the number of correct answers.

    logits (B, C), y (B,) integers in [0, C).
    """
    loss = cross_entropy(logits, y).sum(dtype=np.float64)
    return float(loss), int((logits.argmax(axis=1) == y).sum())


@dataclasses.dataclass(frozen=True)
class Mistake:
    """A wrong answer: the image's index in the split, and the probability of `predicted`."""

    index: int
    label: int
    predicted: int
    probability: float


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluation:
    """The figures of one model on one split.

    confusion_matrix (10, 10) counts, rows true, columns predicted. calibration (15, 3): for each
    bin (k/15, (k+1)/15] of the top probability the number of images, the sum of their top
    probabilities and the number of correct ones. mistakes: most confident first.
    """

    confusion_matrix: Array
    loss: float
    brier_score: float
    calibration: Array
    mistakes: list[Mistake]

    @property
    def examples(self) -> int:
        """The number of images."""
        return int(self.confusion_matrix.sum())

    @property
    def correct(self) -> int:
        """The number of correct answers."""
        return int(np.trace(self.confusion_matrix))

    @property
    def accuracy(self) -> float:
        """The fraction of correct answers."""
        return self.correct / self.examples

    @property
    def expected_calibration_error(self) -> float:
        """The mean over the images of |accuracy − confidence| in their bin (Guo et al. 2017)."""
        _, confidence, correct = self.calibration.T
        return float(np.abs(correct - confidence).sum() / self.examples)

    @property
    def per_class(self) -> list[dict[str, Any]]:
        """Precision, recall, F1 and support of each label; 0 where there is nothing to divide."""
        hits = np.diag(self.confusion_matrix)
        predicted, true = self.confusion_matrix.sum(axis=0), self.confusion_matrix.sum(axis=1)
        figures = zip(
            (hits / np.maximum(predicted, 1)).tolist(),
            (hits / np.maximum(true, 1)).tolist(),
            (2 * hits / np.maximum(true + predicted, 1)).tolist(),
            true.tolist(),
            strict=True,
        )
        names = ("precision", "recall", "f1", "support")
        return [{"label": k} | dict(zip(names, row, strict=True)) for k, row in enumerate(figures)]

    @property
    def macro_average(self) -> dict[str, float]:
        """The plain means of precision, recall and F1 over the ten labels."""
        rows = self.per_class
        return {
            name: math.fsum(row[name] for row in rows) / CLASSES
            for name in ("precision", "recall", "f1")
        }

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % confidence interval of the accuracy (Wilson 1927)."""
        z, n, p = 1.959963984540054, self.examples, self.accuracy
        center = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
        return max(0.0, center - half), min(1.0, center + half)

    def to_json(self) -> dict[str, Any]:
        """Return the figures under the names that `evaluate --json` gives them."""
        names = (
            *("examples", "correct", "accuracy", "loss", "brier_score"),
            *("expected_calibration_error", "confusion_matrix", "per_class", "macro_average"),
        )
        figures = {name: getattr(self, name) for name in names}
        return figures | {"confusion_matrix": self.confusion_matrix.tolist()}


def evaluate(params: Params, images: Array, labels: Array) -> Evaluation:
    """Evaluate a model on images (N, 28, 28) uint8 with labels (N,)."""
    n = len(labels)
    probs, losses = np.empty((n, CLASSES)), np.empty(n)
    for x, chosen in minibatches(images, np.arange(n), BLOCK):
        logits = forward(params, x).astype(np.float64)
        probs[chosen], losses[chosen] = softmax(logits), cross_entropy(logits, labels[chosen])

    predicted, confidence = probs.argmax(axis=1), probs.max(axis=1)
    wrong = predicted != labels
    confusion_matrix = np.bincount(CLASSES * labels.astype(int) + predicted, minlength=CLASSES**2)
    # Σ_k (p_k − δ_yk)² = Σ_k p_k² − 2 p_y + 1
    brier_scores = np.square(probs).sum(axis=1) - 2 * probs[np.arange(n), labels] + 1
    # the lower bound of a bin is open, the upper one closed
    bins = np.searchsorted(np.arange(1, BINS) / BINS, confidence, side="left")
    weights = (np.ones(n), confidence, ~wrong)
    indices = np.flatnonzero(wrong)
    indices = indices[np.argsort(-confidence[indices], kind="stable")]
    columns = (indices, labels[indices], predicted[indices], confidence[indices])
    return Evaluation(
        confusion_matrix=confusion_matrix.reshape(CLASSES, CLASSES),
        loss=float(losses.mean()),
        brier_score=float(brier_scores.mean()),
        calibration=np.stack([np.bincount(bins, w, BINS) for w in weights], axis=1),
        mistakes=[Mistake(*row) for row in zip(*(c.tolist() for c in columns), strict=True)],
    )
