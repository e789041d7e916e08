"""Draw the pictures of docs/softmax-jacobian.md from the program's own functions.

`python benchmarks/softmax_pictures.py data` writes them to docs/pictures/ and prints the measured
accuracies; `data` holds mnist/. The training curves take a minute, the others a second.
"""

import sys
from collections.abc import Callable
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


def right(dp: Array, p: Array, z: Array) -> Array:
    return softmax_backward(dp, p)


def diagonal_alone(dp: Array, p: Array, z: Array) -> Array:
    return dp * p * (1 - p)


def averaged_twice(dp: Array, p: Array, z: Array) -> Array:
    return softmax_backward(dp, p) / len(p)


def input_for_output(dp: Array, p: Array, z: Array) -> Array:
    return softmax_backward(dp, z)


def input_in_the_second_factor(dp: Array, p: Array, z: Array) -> Array:
    return np.einsum("bi,bij->bj", dp, p[:, :, None] * (np.eye(10) - z[:, None, :]))


def train(data_dir: Path, backward: Callable[..., Array], rate: float) -> tuple[Array, Array]:
    """Return the epochs, in steps of ten minibatches, and the test accuracy at each in percent."""
    train, test = (loading.load("mnist", split, data_dir) for split in ("train", "test"))
    x, x_test = (s.images.reshape(-1, 784).astype(np.float32) / 255 for s in (train, test))
    W, b = initialize()
    rng = np.random.default_rng(0)
    orders = [rng.permutation(IMAGES) for _ in range(EPOCHS)]
    batches = [i for order in orders for i in np.array_split(order, IMAGES // BATCH)]
    accuracies = []
    for step, i in enumerate(batches):
        z = x[i] @ W + b
        p = softmax(z)
        dz = backward(cross_entropy_backward(p, train.labels[i]), p, z).astype(np.float32)
        W -= np.float32(rate) * x[i].T @ dz
        b -= np.float32(rate) * dz.sum(axis=0)
        if step % 10 == 9:
            accuracies.append(100 * np.mean((x_test @ W + b).argmax(axis=1) == test.labels))
    return np.linspace(0, EPOCHS, len(accuracies) + 1)[1:], np.array(accuracies)


def training_curves(data_dir: Path) -> None:
    """Test accuracy of softmax regression trained with a right and with wrong backward passes."""
    backwards = {right: BLUE, diagonal_alone: GREEN, averaged_twice: GRAY, input_for_output: RED}
    figure, axis = plt.subplots(figsize=(8, 4), layout="constrained")
    for backward, color in backwards.items():
        epochs, accuracies = train(data_dir, backward, LEARNING_RATE)
        label = f"{backward.__name__.replace('_', ' ')}: {accuracies[-1]:.1f} %"
        print(label)
        axis.plot(epochs, accuracies, color=color, linewidth=2)
        place = {"textcoords": "offset points", "annotation_clip": False}
        axis.annotate(label, (EPOCHS, accuracies[-1]), (8, -3), color=color, **place)
    axis.set(xlabel="epoch", ylabel="test accuracy in %", ylim=(0, 100), xlim=(0, EPOCHS))
    axis.grid(color="0.9")
    save(figure, "wrong-backwards")
    for backward in (right, input_in_the_second_factor):
        accuracy = train(data_dir, backward, 0.01)[1][-1]
        print(f"{backward.__name__}, learning rate 0.01: {accuracy:.1f} %")


if __name__ == "__main__":
    jacobians()
    step_sizes()
    saturation()
    training_curves(Path(sys.argv[1]))
