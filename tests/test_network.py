from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mnist_cli import functional, network
from mnist_cli.functional import Array
from mnist_cli.network import Params, minibatches


def oracle(params: Params, x: Array, y: Array) -> Params:
    """Return the gradients by the shortcut probs − onehot, in float64."""
    x = x.astype(float)
    z = x @ params.W.astype(float) + params.b
    exps = np.exp(z - z.max(axis=1, keepdims=True))
    dlogits = (exps / exps.sum(axis=1, keepdims=True) - np.eye(network.CLASSES)[y]) / len(y)
    return Params(x.T @ dlogits, dlogits.sum(axis=0))


def make_batch(batch: int, scale: float = 0.3, seed: int = 0) -> tuple[Params, Array, Array]:
    rng = np.random.default_rng(seed)
    W = rng.normal(0, scale, (network.INPUTS, network.CLASSES)).astype(np.float32)
    b = rng.normal(0, scale, network.CLASSES).astype(np.float32)
    x = rng.random((batch, network.INPUTS), np.float32)
    return Params(W, b), x, rng.integers(0, network.CLASSES, batch, dtype=np.uint8)


def test_initial_parameters_make_all_classes_equally_likely_and_are_learnt_from() -> None:
    params = network.initialize()
    _, x, y = make_batch(20)
    assert (params.W.shape, params.b.shape) == ((784, 10), (10,))
    assert np.float32 == params.W.dtype == params.b.dtype
    logits, gradients = network.gradients(params, x, y)
    assert not logits.any()
    assert gradients.W.all()
    assert network.initialize().W is not params.W


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 64), st.floats(0.001, 3), st.integers(0, 2**32 - 1))
def test_the_gradients_are_those_of_the_oracle(batch: int, scale: float, seed: int) -> None:
    params, x, y = make_batch(batch, scale, seed)
    _, gradients = network.gradients(params, x, y)
    expected = oracle(params, x, y)
    # The logits themselves carry a rounding error of their size (scale · √784) times epsilon.
    atol = 1e-6 * max(1, 28 * scale)
    for actual, right in zip(gradients, expected, strict=True):
        assert np.float32 == actual.dtype
        np.testing.assert_allclose(actual, right, rtol=0, atol=atol)


def test_the_gradients_go_through_the_jacobian(monkeypatch: pytest.MonkeyPatch) -> None:
    params, x, y = make_batch(8)
    right = network.gradients(params, x, y)[1]
    jacobian = functional.softmax_jacobian
    monkeypatch.setattr(functional, "softmax_jacobian", lambda probs: 2 * jacobian(probs))
    doubled = network.gradients(params, x, y)[1]
    np.testing.assert_allclose(doubled.W, 2 * right.W, rtol=1e-6)
    np.testing.assert_allclose(doubled.b, 2 * right.b, rtol=1e-6)


def test_a_sample_whose_probability_underflows_is_still_learnt() -> None:
    """The label lies 10,000 below another class; one step of plain SGD goes the full way."""
    params, x, _ = make_batch(1)
    params.W[:] = 0
    params.b[:] = 0
    params.b[3] = 1e4
    y = np.array([7])
    logits, gradients = network.gradients(params, x, y)
    expected = np.zeros(network.CLASSES)
    expected[3], expected[7] = 1, -1
    assert logits[0, 7] - logits[0, 3] == -1e4
    np.testing.assert_allclose(gradients.b, expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(gradients.W, np.outer(x[0], expected), rtol=0, atol=1e-6)


def test_the_arguments_are_left_as_they_are() -> None:
    params, x, y = make_batch(4)
    before = [array.copy() for array in (*params, x, y)]
    network.gradients(params, x, y)
    for array, copy in zip((*params, x, y), before, strict=True):
        np.testing.assert_array_equal(copy, array)


RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (50, 28, 28), dtype=np.uint8)


def collect(images: Array, indices: Array, batch_size: int) -> list[tuple[Array, Array]]:
    return [(x.copy(), chosen) for x, chosen in minibatches(images, indices, batch_size)]


@settings(deadline=None)
@given(st.lists(st.integers(0, 49), min_size=1, max_size=60), st.integers(1, 80))
def test_minibatches_are_the_indexed_pixels(indices: list[int], batch_size: int) -> None:
    """In order, repeats included, every batch but the last full."""
    chosen = np.array(indices)
    batches = collect(IMAGES, chosen, batch_size)
    full, rest = divmod(len(chosen), batch_size)
    assert [batch_size] * full + [rest] * (rest > 0) == [len(part) for _, part in batches]
    x, order = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    assert np.float32 == x.dtype
    np.testing.assert_allclose(x, IMAGES[chosen].reshape(-1, 784) / 255, rtol=2e-7)
    assert (x.min(), x.max()) <= (0, 1)
    np.testing.assert_array_equal(chosen, order)


@pytest.mark.parametrize("batch_size", [50, 2**31 - 1])
def test_a_batch_as_large_as_the_data_or_larger_is_one_batch(batch_size: int) -> None:
    [(x, chosen)] = collect(IMAGES, np.arange(50), batch_size)
    assert (x.shape, chosen.shape) == ((50, 784), (50,))


def test_images_may_be_a_read_only_memory_map(tmp_path: Path) -> None:
    path = tmp_path / "images"
    path.write_bytes(bytes(16) + IMAGES.tobytes())
    mapped = np.memmap(path, np.uint8, "r", 16, IMAGES.shape)
    order = RNG.permutation(50)
    pairs = zip(collect(mapped, order, 7), collect(IMAGES, order, 7), strict=True)
    for (x, _), (expected, _) in pairs:
        np.testing.assert_array_equal(expected, x)
    assert IMAGES.tobytes() == path.read_bytes()[16:]


@pytest.mark.parametrize("count", [1, 999, 1000, 2500])
def test_predictions_are_the_softmax_of_the_logits(count: int) -> None:
    """In blocks, the last and shorter one included."""
    params, _, _ = make_batch(1)
    images = np.random.default_rng(1).integers(0, 256, (count, 28, 28), dtype=np.uint8)
    logits = images.reshape(-1, 784) / 255 @ params.W + params.b
    probs = network.predict(params, images)
    assert ((count, 10), "float64") == (probs.shape, str(probs.dtype))
    np.testing.assert_allclose(probs, functional.softmax(logits), rtol=1e-4)
