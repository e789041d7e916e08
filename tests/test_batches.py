from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mnist_cli.batches import minibatches
from mnist_cli.functional import Array

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
