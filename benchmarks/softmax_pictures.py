"""Draw the pictures of docs/softmax-jacobian.md from the program's own functions.

`python benchmarks/softmax_pictures.py data` writes them to docs/pictures/ and prints the measured
accuracies; `data` holds mnist/. The training curves take a minute, the others a second.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from mnist_cli.data import loading
from mnist_cli.functional import (
    Array,
    cross_entropy_backward,
    softmax,
    softmax_backward,
    softmax_jacobian,
)
from mnist_cli.gradcheck import central_difference
from mnist_cli.network import initialize

PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
Z = np.array([2.0, -1.0, 0.5, 0.0])
IMAGES, EPOCHS, BATCH, LEARNING_RATE = 20_000, 5, 120, 0.2
RED, BLUE, GREEN, GRAY = "#c1121f", "#1f5fa8", "#2a7f3f", "#777777"


def save(figure: plt.Figure, name: str) -> None:
    figure.savefig(PICTURES / f"{name}.png", dpi=110)
    plt.close(figure)


def jacobians() -> None:
    """The right Jacobian, the question's, and their difference, with the row sums beside."""
    p = softmax(Z)
    right = softmax_jacobian(p)
    wrong = p[:, None] * (np.eye(4) - Z)
    panels = {"right: p(δ − p)": right, "wrong: p(δ − z)": wrong, "wrong − right": wrong - right}
    figure, axes = plt.subplots(1, 3, figsize=(10.5, 3.4), layout="constrained")
    for axis, (title, matrix) in zip(axes, panels.items(), strict=True):
        table = np.column_stack([matrix, matrix.sum(axis=1)])  # (4, 5)
        shown = np.column_stack([matrix, np.full(4, np.nan)])
        axis.imshow(shown, cmap="RdBu_r", vmin=-1.45, vmax=1.45)
        for (i, j), value in np.ndenumerate(table):
            strong = j < 4 and abs(value) > 0.9
            weight = "bold" if j == 4 else "normal"
            axis.text(
                *(j, i, f"{round(value, 2) + 0:.2f}".replace("-", "−")),
                ha="center", va="center", fontsize=10, weight=weight,
                color="white" if strong else "black",
            )  # fmt: skip
        axis.set_title(title)
        axis.set_xticks(range(5), [*(f"$z_{j}$" for j in range(4)), "sum"])
        axis.set_yticks(range(4), [f"$p_{i}$" for i in range(4)])
        axis.axvline(3.5, color="white", linewidth=4)
        axis.spines[:].set_visible(False)
        axis.tick_params(length=0)
    save(figure, "jacobians")


def step_sizes() -> None:
    """The error of three difference quotients against the step."""
    exact = softmax_jacobian(softmax(Z))

    def in_float32(z: Array) -> Array:
        return softmax(z.astype(np.float32)).astype(float)

    quotients = {
        "central difference, float32": (in_float32, 1, np.logspace(-7, 0, 71), RED),
        "central difference, float64": (softmax, 1, np.logspace(-14, 0, 141), BLUE),
        "complex step, float64": (softmax, 1j, np.logspace(-20, 0, 101), GREEN),
    }
    figure, axis = plt.subplots(figsize=(8, 4), layout="constrained")
    for label, (f, unit, steps, color) in quotients.items():
        quotient = [central_difference(f, Z, unit * step) for step in steps.tolist()]
        errors = [np.abs(q - exact).max() / exact.max() for q in quotient]
        axis.loglog(steps, np.maximum(errors, 1e-17), color=color, label=label)
        print(f"{label}: {min(errors):.1e} at {steps[np.argmin(errors)]:.0e}")
    axis.set(xlabel="step h", ylabel="error, relative to the largest entry", ylim=(3e-18, 30))
    axis.grid(color="0.9")
    axis.legend(frameon=False, loc="upper left", bbox_to_anchor=(0.0, 0.75))
    save(figure, "step-sizes")


def saturation() -> None:
    """p_y, 1/p_y and their product in float32 as the label's logit falls behind."""
    gaps = np.linspace(0, 130, 521, dtype=np.float32)
    logits = np.stack([-gaps, np.zeros_like(gaps)], axis=1)  # (N, 2), the label is class 0
    exps = np.exp(logits)
    curves = {
        "plain softmax": ((exps / exps.sum(axis=1, keepdims=True))[:, 0], RED, "--"),
        "softmax of mnist-cli": (softmax(logits)[:, 0], BLUE, "-"),
    }
    figure, axes = plt.subplots(1, 3, figsize=(10.5, 3.4), layout="constrained")
    for label, (p, color, line) in curves.items():
        with np.errstate(all="ignore"):
            inverse = 1 / p
            quantities = (np.where(p > 0, p, np.nan), inverse, p * inverse)
        for axis, quantity in zip(axes, quantities, strict=True):
            shown = np.where(np.isfinite(quantity), quantity, np.nan)
            axis.plot(gaps, shown, color=color, linestyle=line, linewidth=2, label=label)
            end = np.flatnonzero(np.isfinite(shown))[-1]
            if end < len(gaps) - 1:  # a float ends here
                axis.plot(gaps[end], shown[end], "x", color=color, markersize=9, markeredgewidth=2)
        print(f"{label}: the product is finite up to a gap of {gaps[end]:.1f}")
    for axis, title in zip(axes, ("$p_y$", "$1/p_y$", "$p_y · 1/p_y$"), strict=True):
        axis.set(title=title, xlabel="gap between the logits")
        axis.grid(color="0.9")
    axes[0].set_yscale("log")
    axes[1].set_yscale("log")
    axes[2].set_ylim(0, 1.2)
    axes[2].legend(frameon=False, loc="lower left")
    save(figure, "saturation")


def training_curves(data_dir: Path) -> None:
    """Test accuracy of softmax regression trained with a right and with wrong backward passes."""
    backwards = {
        "right": (softmax_backward, BLUE),
        "diagonal alone": (lambda dp, p: dp * p * (1 - p), GREEN),
        "averaged twice": (lambda dp, p: softmax_backward(dp, p) / len(p), GRAY),
        "input for output": (softmax_backward, RED),
    }
    train, test = (loading.load("mnist", split, data_dir) for split in ("train", "test"))
    x, x_test = (s.images.reshape(-1, 784).astype(np.float32) / 255 for s in (train, test))
    figure, axis = plt.subplots(figsize=(8, 4), layout="constrained")
    for label, (backward, color) in backwards.items():
        W, b = initialize()
        steps, accuracies = [], []
        rng = np.random.default_rng(0)
        batches = [i for _ in range(EPOCHS) for i in minibatches(rng)]
        for step, i in enumerate(batches):
            logits = x[i] @ W + b
            probs = softmax(logits)
            dprobs = cross_entropy_backward(probs, train.labels[i])
            dlogits = backward(dprobs, logits if label == "input for output" else probs)
            W -= LEARNING_RATE * x[i].T @ dlogits
            b -= LEARNING_RATE * dlogits.sum(axis=0)
            if step % 10 == 0 or step == len(batches) - 1:
                steps.append(EPOCHS * (step + 1) / len(batches))
                accuracies.append(100 * np.mean((x_test @ W + b).argmax(axis=1) == test.labels))
        print(f"{label}: {accuracies[-1]:.1f} %")
        axis.plot(steps, accuracies, color=color, linewidth=2)
        axis.annotate(
            f"{label}: {accuracies[-1]:.1f} %",
            (EPOCHS, accuracies[-1]),
            (8, -3),
            textcoords="offset points",
            color=color,
            annotation_clip=False,
        )
    axis.set(xlabel="epoch", ylabel="test accuracy in %", ylim=(0, 100), xlim=(0, EPOCHS))
    axis.grid(color="0.9")
    save(figure, "wrong-backwards")


def minibatches(rng: np.random.Generator) -> list[Array]:
    """Return the indices of one epoch's minibatches."""
    order = rng.permutation(IMAGES)
    return [order[start : start + BATCH] for start in range(0, IMAGES, BATCH)]


if __name__ == "__main__":
    jacobians()
    step_sizes()
    saturation()
    training_curves(Path(sys.argv[1]))
