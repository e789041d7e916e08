"""Compare every figure of `mnist-cli evaluate --json` with scikit-learn's.

    python benchmarks/check_evaluation.py MODEL DATA_DIR [train|test]

The probabilities are computed here from the arrays in the model file, in float64. Exits with 1 if
a figure differs by more than 2e-6.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from sklearn import metrics

from mnist_cli import inputs
from mnist_cli.data import loading

TOLERANCE = 2e-6


def figures(model: Path, data_dir: Path, split: str) -> dict[str, Any]:
    """Return the figures under the names of `evaluate --json`, by scikit-learn."""
    with np.load(model, allow_pickle=False) as arrays:
        metadata = json.loads(str(arrays["metadata"]))
        W, b = arrays["W"].astype(float), arrays["b"].astype(float)
    data = loading.load(metadata["dataset"], split, data_dir)
    images = inputs.apply(data.images, metadata["normalize"], metadata["features"])
    logits = images.reshape(-1, 784) / 255 @ W + b
    probs = np.exp(logits - logits.max(axis=1, keepdims=True))
    probs /= probs.sum(axis=1, keepdims=True)
    y, predicted, top = data.labels, probs.argmax(axis=1), probs.max(axis=1)

    labels = range(10)
    table = metrics.classification_report(
        y, predicted, labels=labels, output_dict=True, zero_division=0
    )
    return {
        "examples": len(y),
        "correct": metrics.accuracy_score(y, predicted, normalize=False),
        "accuracy": metrics.accuracy_score(y, predicted),
        "loss": metrics.log_loss(y, probs, labels=labels),
        "brier_score": sum(metrics.brier_score_loss(y == c, probs[:, c]) for c in labels),
        "expected_calibration_error": sum(
            abs((predicted[inside] == y[inside]).mean() - top[inside].mean()) * inside.mean()
            for k in range(15)
            if (inside := (top > k / 15) & (top <= (k + 1) / 15)).any()
        ),
        "confusion_matrix": metrics.confusion_matrix(y, predicted, labels=labels).tolist(),
        "per_class": [
            {"label": c} | {_short(name): value for name, value in table[str(c)].items()}
            for c in labels
        ],
        "macro_average": {
            _short(name): value for name, value in table["macro avg"].items() if name != "support"
        },
    }


def _short(name: str) -> str:
    return {"f1-score": "f1"}.get(name, name)


def flatten(value: Any, name: str = "") -> dict[str, float]:
    """Return the numbers in a JSON value by their paths."""
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)  # type: ignore[assignment]
    else:
        return {name: value}
    return {path: v for key, part in items for path, v in flatten(part, f"{name}/{key}").items()}


def main(model: str, data_dir: str, split: str = "test") -> int:
    """Print the largest difference of each kind of figure."""
    command = [sys.executable, "-m", "mnist_cli", "evaluate", model, "--json"]
    command += ["--data-dir", data_dir, "--split", split]
    ours = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    theirs = flatten(figures(Path(model), Path(data_dir), split))
    found = flatten(
        {name: ours[name] for name in ours if name not in ("model", "dataset", "split")}
    )
    if found.keys() != theirs.keys():
        print("different figures:", *sorted(found.keys() ^ theirs.keys()))
        return 1
    worst: dict[str, float] = {}
    for path, value in theirs.items():
        kind = path.split("/")[1]
        worst[kind] = max(worst.get(kind, 0.0), abs(found[path] - value))
    for kind, difference in worst.items():
        print(f"{kind:28}{difference:.1e}")
    print(f"{len(theirs)} figures, the largest difference {max(worst.values()):.1e}")
    return int(max(worst.values()) > TOLERANCE)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
