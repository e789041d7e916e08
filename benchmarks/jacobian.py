"""Time four forms of the softmax backward pass of a batch: loop, per sample, batched, without J.

Prints a Markdown table. The forms take turns, round after round, so that whatever else the machine
does affects all of them; times and ratios are medians over the rounds.
"""

import functools
import itertools
import timeit

import numpy as np

from mnist_cli.functional import Array, softmax, softmax_backward

ROUNDS = 21
SECONDS = 0.02  # at least this long a measurement, so that the clock's resolution does not matter


def loop(dprobs: Array, probs: Array) -> Array:
    """Return dprobs (B, C) times the Jacobians of probs (B, C), formed entry by entry."""
    B, C = probs.shape
    jacobian = np.zeros((B, C, C), probs.dtype)
    for n, i, j in itertools.product(range(B), range(C), range(C)):
        jacobian[n, i, j] = probs[n, i] * ((i == j) - probs[n, j])
    return np.einsum("bi,bij->bj", dprobs, jacobian)


def per_sample(dprobs: Array, probs: Array) -> Array:
    """Return dprobs (B, C) times the Jacobians of probs (B, C), formed matrix by matrix."""
    samples = zip(dprobs, probs, strict=True)
    return np.stack([dp @ (np.diagflat(p) - np.outer(p, p)) for dp, p in samples])


def without_jacobian(dprobs: Array, probs: Array) -> Array:
    """Return the same product for dprobs (B, C) and probs (B, C), with no matrix formed."""
    return probs * (dprobs - (dprobs * probs).sum(axis=-1, keepdims=True))


FORMS = (loop, per_sample, softmax_backward, without_jacobian)


def measure(dprobs: Array, probs: Array) -> Array:
    """Return the seconds of each form in each round, shape (forms, rounds)."""
    timers = [timeit.Timer(functools.partial(form, dprobs, probs)) for form in FORMS]
    numbers = [max(1, int(SECONDS / timer.timeit(1))) for timer in timers]
    rounds = [
        [timer.timeit(number) / number for timer, number in zip(timers, numbers, strict=True)]
        for _ in range(ROUNDS)
    ]
    return np.transpose(rounds)


def main() -> None:
    """Check that the forms agree, time them, print the table."""
    print(
        "| batch | classes | J | loop | per sample | batched | without J | batched / without J |"
    )
    print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    rng = np.random.default_rng(0)
    for B, C in [(1, 10), (120, 10), (1000, 10), (120, 100)]:
        arrays = rng.normal(size=(2, B, C)).astype(np.float32)
        dprobs, probs = map(np.asfortranarray, (arrays[0], softmax(arrays[1])))  # as in training
        for form in FORMS:
            np.testing.assert_allclose(form(dprobs, probs), loop(dprobs, probs), atol=1e-5)
        seconds = measure(dprobs, probs)
        times = [f"{1e6 * median:,.1f} µs" for median in np.median(seconds, axis=1)]
        ratio = f"{np.median(seconds[2] / seconds[3]):.1f}"
        memory = f"{B * C * C * 4 / 1000:,.1f} kB"
        print("| " + " | ".join([str(B), str(C), memory, *times, ratio]) + " |")


if __name__ == "__main__":
    main()
