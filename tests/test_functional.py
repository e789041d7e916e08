import math
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mnist_cli import functional
from mnist_cli.functional import Array
from mnist_cli.gradcheck import central_difference, check_gradient
from mnist_cli.network import Params, forward, gradients

examples = settings(deadline=None, max_examples=60)

FLOAT32, FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)
DTYPES = (FLOAT32, FLOAT64)
GAP = np.array([[0, 1e4, 3], [-1e4, 0, 0], [1e4, 0, 1e4]])


@st.composite
def batches(
    draw: st.DrawFn, largest: float = 1e4, dtypes: tuple[Any, ...] = DTYPES, most: int = 64
) -> Array:
    """Logits (B, C) whose sizes, from 1e-30 to `largest`, are those of the batch, row or entry."""
    B, C = draw(st.integers(1, most)), draw(st.integers(2, 20))
    exponents = st.floats(-30, math.log10(largest))
    low, high = sorted((draw(exponents), draw(exponents)))
    shape = draw(st.sampled_from([(1, 1), (B, 1), (B, C)]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    sizes = 10 ** (low + (high - low) * rng.random(shape))
    logits = sizes * rng.uniform(-1, 1, (B, C))
    return logits.astype(draw(st.sampled_from(dtypes)))


@st.composite
def any_finite(draw: st.DrawFn) -> Array:
    """Logits from the whole range of floats, subnormals and the largest included."""
    dtype: Any = draw(st.sampled_from(DTYPES))
    shape = draw(st.tuples(st.integers(1, 4), st.integers(2, 5)))
    top = float(np.finfo(dtype).max)
    elements = st.floats(-top, top, width=32 if dtype == FLOAT32 else 64)
    return draw(hnp.arrays(dtype, shape, elements=elements | st.sampled_from([top, -top])))


def labels_for(logits: Array, seed: int) -> Array:
    return np.random.default_rng(seed).integers(0, logits.shape[1], len(logits), dtype=np.uint8)


def exact_softmax(logits: Array) -> list[list[Decimal]]:
    rows = [[Decimal(float(z)) for z in row] for row in logits]
    exps = [[(z - max(row)).exp() for z in row] for row in rows]
    return [[e / sum(row) for e in row] for row in exps]


def one_hot(y: Array, classes: int) -> Array:
    return np.eye(classes)[y]


def through_jacobian(logits: Array, y: Array) -> Array:
    probs = functional.softmax(logits)
    return functional.softmax_backward(functional.cross_entropy_backward(probs, y), probs)


# softmax


@examples
@given(batches())
@example(GAP)
@example(GAP.astype(np.float32))
def test_probabilities_are_positive_and_each_row_sums_to_one(logits: Array) -> None:
    probs = functional.softmax(logits)
    eps = np.finfo(logits.dtype).eps
    assert (logits.shape, logits.dtype) == (probs.shape, probs.dtype)
    assert (probs > 0).all()
    np.testing.assert_allclose(probs.sum(axis=1), 1, rtol=0, atol=logits.shape[1] * eps)


@examples
@given(batches(), st.integers(0, 2**32 - 1))
def test_softmax_does_not_change_when_a_row_is_shifted(logits: Array, seed: int) -> None:
    logits = np.round(logits * 64) / 64  # so that adding whole numbers rounds nothing
    shifts = np.random.default_rng(seed).integers(-10_000, 10_000, (len(logits), 1))
    shifted = logits + shifts.astype(logits.dtype)
    np.testing.assert_array_equal(functional.softmax(logits), functional.softmax(shifted))


@examples
@given(batches())
def test_each_row_has_the_softmax_it_would_have_alone(logits: Array) -> None:
    logits = logits + np.linspace(-1e4, 1e4, len(logits), dtype=logits.dtype)[:, None]
    alone = np.stack([functional.softmax(row) for row in logits])
    rtol = 10 * np.finfo(logits.dtype).eps
    np.testing.assert_allclose(functional.softmax(logits), alone, rtol=rtol)


@examples
@given(batches(300, dtypes=(FLOAT64,), most=4))
def test_softmax_and_jacobian_agree_with_decimal_arithmetic(logits: Array) -> None:
    exact = exact_softmax(logits)
    probs = functional.softmax(logits)
    np.testing.assert_allclose(probs, np.array(exact, float), rtol=1e-12, atol=1e-29)
    jacobians = [
        [[p[i] * ((i == j) - p[j]) for j in range(len(p))] for i in range(len(p))] for p in exact
    ]
    actual = functional.softmax_jacobian(probs)
    np.testing.assert_allclose(actual, np.array(jacobians, float), rtol=0, atol=1e-12)


@examples
@given(any_finite())
def test_softmax_is_right_for_every_finite_logit(logits: Array) -> None:
    probs = functional.softmax(logits)
    atol = 4 * np.finfo(logits.dtype).eps
    np.testing.assert_allclose(probs, np.array(exact_softmax(logits), float), rtol=0, atol=atol)


@pytest.mark.parametrize(("dtype", "size"), [("f4", 1e4), ("f4", 3e38), ("f8", 1.7e308)])
def test_an_underflowing_probability_stays_normal(dtype: str, size: float) -> None:
    """However far a logit lies below, its probability and 1 / (B p) stay accurate floats."""
    probs = functional.softmax(np.array([[size, -size, 0, size]], dtype))
    assert probs.min() >= np.finfo(dtype).tiny
    assert np.isfinite(1 / probs).all()
    np.testing.assert_allclose(probs, [[0.5, 0, 0, 0.5]], rtol=0, atol=1e-30)


@pytest.mark.parametrize("dtype", ["u1", "i1", "i8"])
def test_softmax_of_integers_is_that_of_the_same_floats(dtype: str) -> None:
    """Unsigned differences must not wrap around."""
    logits = np.array([[1, 3, 2], [100, 0, 120]], dtype)
    np.testing.assert_array_equal(
        functional.softmax(logits.astype(float)), functional.softmax(logits)
    )


# its Jacobian


@examples
@given(batches())
@example(GAP)
def test_the_jacobian_is_symmetric_psd_and_its_rows_sum_to_zero(logits: Array) -> None:
    jacobian = functional.softmax_jacobian(functional.softmax(logits))
    (B, C), eps = logits.shape, np.finfo(logits.dtype).eps
    assert ((B, C, C), logits.dtype) == (jacobian.shape, jacobian.dtype)
    np.testing.assert_array_equal(jacobian, jacobian.transpose(0, 2, 1))
    np.testing.assert_allclose(jacobian.sum(axis=2), 0, rtol=0, atol=C * eps)
    assert np.linalg.eigvalsh(jacobian.astype(float)).min() >= -C * eps


@examples
@given(batches())
def test_the_jacobian_is_the_loop_form(logits: Array) -> None:
    probs = functional.softmax(logits)
    loop = np.zeros((*probs.shape, probs.shape[1]))
    for n, p in enumerate(probs.tolist()):
        for i in range(len(p)):
            for j in range(len(p)):
                loop[n, i, j] = p[i] * ((i == j) - p[j])
    # Relative, not absolute, and where p_i p_j underflows only the subnormal digits may differ.
    info = np.finfo(probs.dtype)
    np.testing.assert_allclose(
        functional.softmax_jacobian(probs), loop, rtol=4 * info.eps, atol=float(info.tiny)
    )


@examples
@given(batches(dtypes=(FLOAT64,), most=4))
def test_the_jacobian_is_the_central_difference(logits: Array) -> None:
    for row in logits:
        np.testing.assert_allclose(
            functional.softmax_jacobian(functional.softmax(row)),
            central_difference(functional.softmax, row),
            rtol=0,
            atol=1e-9,
        )


@examples
@given(batches(), st.integers(0, 2**32 - 1))
def test_softmax_backward_is_upstream_times_jacobian(logits: Array, seed: int) -> None:
    probs = functional.softmax(logits)
    upstream = np.random.default_rng(seed).normal(size=probs.shape).astype(probs.dtype)
    dlogits = functional.softmax_backward(upstream, probs)
    expected = [
        v @ (np.diagflat(p) - np.outer(p, p))
        for v, p in zip(upstream.astype(float), probs.astype(float), strict=True)
    ]
    assert probs.dtype == dlogits.dtype
    np.testing.assert_allclose(dlogits, expected, rtol=0, atol=40 * np.finfo(probs.dtype).eps)


# cross-entropy


@examples
@given(batches())
def test_cross_entropy_is_minus_the_log_of_the_labels_probability(logits: Array) -> None:
    y = labels_for(logits, 0)
    losses = functional.cross_entropy(logits, y)
    z = logits.astype(float)
    expected = np.logaddexp.reduce(z, axis=1) - z[np.arange(len(y)), y]
    assert (y.shape, logits.dtype) == (losses.shape, losses.dtype)
    eps = float(np.finfo(logits.dtype).eps)
    atol = 40 * max(eps, 2.3e-16 * float(np.abs(z).max()))  # the second: of `expected` itself
    np.testing.assert_allclose(losses, expected, rtol=4 * eps, atol=atol)


def test_cross_entropy_is_exact_where_the_probability_underflows() -> None:
    logits = np.array([[0, 1e4], [0, 1e4]], np.float32)
    np.testing.assert_array_equal([1e4, 0], functional.cross_entropy(logits, np.array([0, 1])))


@pytest.mark.parametrize(("dtype", "size"), [("f4", 3e38), ("f8", 1.7e308)])
def test_a_loss_beyond_the_largest_float_is_infinite_without_a_warning(
    dtype: str, size: float
) -> None:
    logits = np.array([[size, -size], [size, -size]], dtype)
    losses = functional.cross_entropy(logits, np.array([1, 0]))
    np.testing.assert_array_equal([np.inf, 0], losses)


@examples
@given(batches(30, dtypes=(FLOAT64,), most=4))
def test_cross_entropy_backward_is_the_central_difference(logits: Array) -> None:
    probs, y = functional.softmax(logits), labels_for(logits, 0)
    probs = (probs + 1 / probs.shape[1]) / 2  # 1/p is too steep for differences near p = 0
    check_gradient(
        lambda p: -np.log(p[np.arange(len(y)), y]).mean(),
        probs,
        functional.cross_entropy_backward(probs, y),
    )


@pytest.mark.parametrize("classes", [3, 5])
def test_one_hot_labels_are_refused(classes: int) -> None:
    probs = functional.softmax(np.zeros((3, classes)))
    with pytest.raises(ValueError, match=r"integers of shape \(B,\), .* \(3, "):
        functional.cross_entropy_backward(probs, np.eye(3, classes, dtype=int))


# the whole chain


@examples
@given(batches() | any_finite(), st.integers(0, 2**32 - 1))
@example(GAP.astype(np.float32), 1)
def test_the_gradient_through_the_jacobian_is_probs_minus_one_hot(
    logits: Array, seed: int
) -> None:
    y = labels_for(logits, seed)
    dlogits = through_jacobian(logits, y)
    expected = (functional.softmax(logits) - one_hot(y, logits.shape[1])) / len(y)
    assert logits.dtype == dlogits.dtype
    np.testing.assert_allclose(dlogits, expected, rtol=0, atol=1e-6)


@examples
@given(any_finite(), st.integers(0, 2**32 - 1))
def test_the_gradient_is_right_for_the_true_probabilities(logits: Array, seed: int) -> None:
    y = labels_for(logits, seed)
    true_probs = np.array(exact_softmax(logits), float)
    expected = (true_probs - one_hot(y, logits.shape[1])) / len(y)
    np.testing.assert_allclose(through_jacobian(logits, y), expected, rtol=0, atol=1e-6)


@examples
@given(st.integers(1, 64), st.integers(1, 5), st.integers(2, 20), st.integers(0, 2**32 - 1))
def test_the_gradient_of_the_loss_is_its_central_difference(
    B: int, D: int, C: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    x, W, b = rng.normal(size=(B, D)), rng.normal(size=(D, C)), rng.normal(size=C)
    # Logits up to 30 in size, few of them or all.
    scale = rng.uniform(0, 30) / np.abs(x @ W + b).max()
    params = Params(scale * W, scale * b)
    # A label the network is sure of has no gradient to measure: let the first be a wrong one.
    y = rng.integers(0, C, B)
    y[0] = forward(params, x)[0].argmin()

    dW, db = gradients(params, x, y)[1]

    def mean_loss(Wb: Array) -> Any:
        return functional.cross_entropy(x @ Wb[:-1] + Wb[-1], y).mean()

    check_gradient(mean_loss, np.vstack(params), np.vstack([dW, db]))


@examples
@given(batches(), st.integers(0, 2**32 - 1))
def test_memory_layouts_give_equal_results(logits: Array, seed: int) -> None:
    y, eps = labels_for(logits, seed), np.finfo(logits.dtype).eps
    c, f = np.ascontiguousarray(logits), np.asfortranarray(logits)
    spread = np.repeat(logits, 2, axis=1)[:, ::2]  # every second column of a wider array
    for function, rtol in (
        (functional.softmax, 0),
        (lambda z: functional.softmax_jacobian(functional.softmax(z)), 0),
        (lambda z: functional.cross_entropy(z, y), 4 * eps),  # as large as the logits are
        (lambda z: through_jacobian(z, y), 0),
    ):
        expected = function(c)
        for other in (f, spread):
            np.testing.assert_allclose(function(other), expected, rtol=rtol, atol=20 * eps)


def test_the_arguments_are_left_as_they_are() -> None:
    logits, y = GAP.copy(), np.array([0, 1, 2])
    probs = functional.softmax(logits)
    before = probs.copy()
    through_jacobian(logits, y)
    functional.softmax_backward(np.ones_like(probs), probs)
    functional.cross_entropy(logits, y)
    np.testing.assert_array_equal(GAP, logits)
    np.testing.assert_array_equal(before, probs)


# the checker itself

Z = np.array([2.0, -1.0, 0.5, 0.0])


def test_check_gradient_accepts_the_right_jacobian() -> None:
    check_gradient(functional.softmax, Z, functional.softmax_jacobian(functional.softmax(Z)))


def test_check_gradient_refuses_a_jacobian_without_its_off_diagonal() -> None:
    p = functional.softmax(Z)
    with pytest.raises(AssertionError, match="difference quotient"):
        check_gradient(functional.softmax, Z, np.diag(p * (1 - p)))


def test_check_gradient_refuses_a_jacobian_of_the_inputs() -> None:
    with pytest.raises(AssertionError, match="difference quotient"):
        check_gradient(functional.softmax, Z, functional.softmax_jacobian(Z))


def test_check_gradient_refuses_a_gradient_averaged_twice() -> None:
    logits, y = np.stack([Z, -Z]), np.array([1, 2])
    with pytest.raises(AssertionError, match="difference quotient"):
        check_gradient(
            lambda z: functional.cross_entropy(z, y).mean(),
            logits,
            through_jacobian(logits, y) / len(y),
        )


def test_check_gradient_refuses_an_error_of_a_hundred_thousandth() -> None:
    jacobian = functional.softmax_jacobian(functional.softmax(Z))
    with pytest.raises(AssertionError, match="difference quotient"):
        check_gradient(functional.softmax, Z, jacobian * (1 + 1e-5))
