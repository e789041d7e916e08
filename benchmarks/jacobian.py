"""Time three forms of the softmax Jacobian of a batch: loop, per sample, batched.

Prints a Markdown table. The forms take turns, round after round, so that whatever else the machine
does falls on all of them; times and ratios are medians over the rounds.
"""

import functools
import itertools
import timeit

import numpy as np

from mnist_cli.functional import Array, softmax, softmax_jacobian

ROUNDS = 51
SECONDS = 0.02  # at least this long a measurement, so that the clock's grain does not count


def loop(probs: Array) -> Array:
    """Return the Jacobians (B, C, C) of probs (B, C), entry by entry."""
    B, C = probs.shape
    jacobian = np.zeros((B, C, C), probs.dtype)
    for n, i, j in itertools.product(range(B), range(C), range(C)):
        jacobian[n, i, j] = probs[n, i] * ((i == j) - probs[n, j])
    return jacobian


def per_sample(probs: Array) -> Array:
    """Return the Jacobians (B, C, C) of probs (B, C), matrix by matrix."""
    return np.stack([np.diagflat(p) - np.outer(p, p) for p in probs])


FORMS = (loop, per_sample, softmax_jacobian)


def measure(probs: Array) -> Array:
    """Return the seconds of each form in each round, shape (forms, rounds)."""
    timers = [timeit.Timer(functools.partial(form, probs)) for form in FORMS]
    numbers = [max(1, int(SECONDS / (timer.timeit(2) / 2))) for timer in timers]
    rounds = [
        [timer.timeit(number) / number for timer, number in zip(timers, numbers, strict=True)]
        for _ in range(ROUNDS)
    ]
    return np.transpose(rounds)


def main() -> None:
    """Check that the forms agree, time them, print the table."""
    print("| batch | classes | loop | per sample | batched | loop / batched | sample / batched |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    rng = np.random.default_rng(0)
    for B, C in [(1, 10), (128, 10), (1024, 10), (128, 20)]:
        logits = np.asfortranarray(rng.normal(size=(B, C)), np.float32)  # as in training
        probs = softmax(logits)
        for form in FORMS:
            np.testing.assert_allclose(form(probs), loop(probs), atol=1e-6)
        seconds = measure(probs)
        times = [f"{1e6 * median:,.1f} µs" for median in np.median(seconds, axis=1)]
        ratios = [f"{median:,.1f}" for median in np.median(seconds[:2] / seconds[2], axis=1)]
        print("| " + " | ".join([str(B), str(C), *times, *ratios]) + " |")


if __name__ == "__main__":
    main()
