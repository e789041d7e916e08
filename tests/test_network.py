from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mnist_cli import evaluation, functional, network
from mnist_cli.functional import Array
from mnist_cli.network import Params, minibatches


def oracle(params: Params, x: Array, y: Array) -> Params:
    """Return the gradients by the shortcut probs − onehot, in float64."""
    x = x.astype(float) / 255
    z = x @ params.W.astype(float) + params.b
    exps = np.exp(z - z.max(axis=1, keepdims=True))
    dlogits = (exps / exps.sum(axis=1, keepdims=True) - np.eye(network.CLASSES)[y]) / len(y)
    return Params(x.T @ dlogits, dlogits.sum(axis=0))


def make_batch(batch: int, scale: float = 0.3, seed: int = 0) -> tuple[Params, Array, Array]:
    rng = np.random.default_rng(seed)
    W = rng.normal(0, scale, (network.INPUTS, network.CLASSES)).astype(np.float32)
    b = rng.normal(0, scale, network.CLASSES).astype(np.float32)
    x = rng.integers(0, 256, (batch, network.INPUTS)).astype(np.float32)
    return Params(W, b), x, rng.integers(0, network.CLASSES, batch, dtype=np.uint8)


def test_initial_parameters_make_all_classes_equally_likely_and_are_learnt_from() -> None:
    params = network.initialise()
    _, x, y = make_batch(20)
    assert (params.W.shape, params.b.shape) == ((784, 10), (10,))
    assert np.float32 == params.W.dtype == params.b.dtype
    logits, gradients = network.logits_and_gradients(params, x, y)
    assert not logits.any()
    assert gradients.W.all()
    assert network.initialise().W is not params.W


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 64), st.floats(0.001, 3), st.integers(0, 2**32 - 1))
def test_the_gradients_are_those_of_the_oracle(batch: int, scale: float, seed: int) -> None:
    params, x, y = make_batch(batch, scale, seed)
    _, gradients = network.logits_and_gradients(params, x, y)
    expected = oracle(params, x, y)
    # The logits themselves carry a rounding error of their size (scale · √784) times epsilon.
    atol = 1e-6 * max(1, 28 * scale)
    for actual, right in zip(gradients, expected, strict=True):
        assert np.float32 == actual.dtype
        np.testing.assert_allclose(actual, right, rtol=0, atol=atol)


def test_the_losses_are_added_up_and_the_right_answers_are_counted() -> None:
    params, x, y = make_batch(50)
    logits, _ = network.logits_and_gradients(params, x, y)
    np.testing.assert_allclose(logits, x / 255 @ params.W + params.b, rtol=1e-5, atol=1e-5)
    loss, correct = evaluation.loss_and_hits(logits, y)
    logits = logits.astype(float)
    expected = (np.logaddexp.reduce(logits, axis=1) - logits[np.arange(50), y]).sum()
    assert loss == pytest.approx(expected, rel=1e-5)
    assert correct == sum(row.argmax() == label for row, label in zip(logits, y, strict=True))


@given(st.integers(1, 64), st.integers(0, 2**32 - 1))
def test_the_first_of_equal_logits_is_the_answer(batch: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.integers(0, 3, (batch, network.CLASSES)).astype(np.float32)
    y = rng.integers(0, network.CLASSES, batch)
    for order in (np.ascontiguousarray, np.asfortranarray):
        assert evaluation.loss_and_hits(order(logits), y)[1] == (logits.argmax(axis=1) == y).sum()


def test_the_gradients_go_through_the_jacobian(monkeypatch: pytest.MonkeyPatch) -> None:
    params, x, y = make_batch(8)
    right = network.logits_and_gradients(params, x, y)[1]
    jacobian = functional.softmax_jacobian
    monkeypatch.setattr(functional, "softmax_jacobian", lambda probs: 2 * jacobian(probs))
    doubled = network.logits_and_gradients(params, x, y)[1]
    np.testing.assert_allclose(doubled.W, 2 * right.W, rtol=1e-6)
    np.testing.assert_allclose(doubled.b, 2 * right.b, rtol=1e-6)


def test_a_sample_whose_probability_underflows_is_still_learnt() -> None:
    """The label lies 10,000 below another class; one step of plain SGD goes the full way."""
    params, x, _ = make_batch(1)
    params.W[:] = 0
    params.b[:] = 0
    params.b[3] = 1e4
    y = np.array([7])
    logits, gradients = network.logits_and_gradients(params, x, y)
    expected = np.zeros(network.CLASSES)
    expected[3], expected[7] = 1, -1
    assert evaluation.loss_and_hits(logits, y) == (1e4, 0)
    np.testing.assert_allclose(gradients.b, expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(gradients.W, np.outer(x[0] / 255, expected), rtol=0, atol=1e-6)


def test_the_arguments_are_left_as_they_are() -> None:
    params, x, y = make_batch(4)
    before = [array.copy() for array in (*params, x, y)]
    network.logits_and_gradients(params, x, y)
    for array, copy in zip((*params, x, y), before, strict=True):
        np.testing.assert_array_equal(copy, array)


RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (50, 28, 28), dtype=np.uint8)
LABELS = RNG.integers(0, 10, 50, dtype=np.uint8)


def collect(images: Array, indices: Array, batch_size: int) -> list[tuple[Array, Array]]:
    return [(x.copy(), y) for x, y in minibatches(images, LABELS, indices, batch_size)]


@settings(deadline=None)
@given(st.lists(st.integers(0, 49), min_size=1, max_size=60), st.integers(1, 80))
def test_minibatches_are_the_indexed_pixels(indices: list[int], batch_size: int) -> None:
    """In order, repeats included, every batch but the last full."""
    chosen = np.array(indices)
    batches = collect(IMAGES, chosen, batch_size)
    full, rest = divmod(len(chosen), batch_size)
    assert [batch_size] * full + [rest] * (rest > 0) == [len(y) for _, y in batches]
    x, y = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    assert np.float32 == x.dtype
    expected = IMAGES[chosen].reshape(-1, 784)
    np.testing.assert_array_equal(x, expected)
    np.testing.assert_array_equal(LABELS[chosen], y)


@pytest.mark.parametrize("batch_size", [50, 2**31 - 1])
def test_a_batch_as_large_as_the_data_or_larger_is_one_batch(batch_size: int) -> None:
    ((x, y),) = collect(IMAGES, np.arange(50), batch_size)
    assert (x.shape, y.shape) == ((50, 784), (50,))


def test_images_may_be_a_read_only_memory_map(tmp_path: Path) -> None:
    path = tmp_path / "images"
    path.write_bytes(bytes(16) + IMAGES.tobytes())
    mapped = np.memmap(path, np.uint8, "r", 16, IMAGES.shape)
    order = RNG.permutation(50)
    pairs = zip(collect(mapped, order, 7), collect(IMAGES, order, 7), strict=True)
    for (x, y), (expected_x, expected_y) in pairs:
        np.testing.assert_array_equal(expected_x, x)
        np.testing.assert_array_equal(expected_y, y)
    assert path.read_bytes()[16:] == IMAGES.tobytes()
