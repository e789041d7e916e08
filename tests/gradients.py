"""A derivative, checked against the difference quotient."""

from collections.abc import Callable

import numpy as np

from mnist_cli.functional import Array


def central_difference(f: Callable[[Array], Array], x: Array, step: float = 2e-5) -> Array:
    """Return the Jacobian of `f` at `x` in float64, shape f(x).shape + x.shape."""
    columns = []
    for index in np.ndindex(x.shape):
        above, below = x.astype(float), x.astype(float)
        above[index] += step
        below[index] -= step
        # The step really made, after rounding, is not quite 2 · step.
        columns.append((f(above) - f(below)) / (above[index] - below[index]))
    return np.stack(columns, axis=-1).reshape(np.shape(columns[0]) + x.shape)


def check_gradient(
    f: Callable[[Array], Array], x: Array, gradient: Array, tolerance: float = 1e-6
) -> None:
    """Raise AssertionError unless `gradient` is that of `f` at `x`.

    The tolerance is relative to the largest entry. `f` may return an array; then `gradient` is
    its Jacobian, of shape f(x).shape + x.shape.
    """
    expected = central_difference(f, x)
    assert expected.shape == gradient.shape
    errors = np.abs(gradient - expected)
    worst = np.unravel_index(errors.argmax(), errors.shape)
    assert errors[worst] <= tolerance * np.abs(expected).max(), (
        f"at {tuple(map(int, worst))} the gradient is {gradient[worst]:.9g}, "
        f"the difference quotient {expected[worst]:.9g}"
    )
