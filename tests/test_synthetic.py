"""The synthetic digits: always the same, like MNIST in form, neither trivial nor hopeless."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mnist_cli.data import synthetic
from mnist_cli.data.synthetic import generate
from mnist_cli.errors import DataError

Bytes = npt.NDArray[np.uint8]
Splits = dict[str, tuple[Bytes, Bytes]]

DIGEST = "9ecb57c90ad65e9a91b957f7114a757f321b2ed3b2cc2b4d8219714591251a33"


def digest() -> str:
    arrays = (array for split in ("train", "test") for array in generate(split))
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()


@pytest.fixture(scope="module")
def splits() -> Splits:
    return {split: generate(split) for split in ("train", "test")}


@pytest.fixture(scope="module")
def every_image(splits: Splits) -> Bytes:
    return np.concatenate([images for images, _ in splits.values()])


@pytest.mark.parametrize(("split", "count"), [("train", 10_000), ("test", 2_000)])
def test_arrays(splits: Splits, split: str, count: int) -> None:
    """Images and labels come as MNIST's do, a tenth of them each digit, in no order."""
    images, labels = splits[split]

    assert (count, 28, 28) == images.shape
    assert (count,) == labels.shape
    assert np.uint8 == images.dtype == labels.dtype
    assert [count // 10] * 10 == np.bincount(labels).tolist()
    assert (np.bincount(labels[:500], minlength=10) > 25).all()


def test_unknown_split() -> None:
    """Another split is refused in one line that names the two there are."""
    with pytest.raises(DataError, match=r"^synthetic has no split 'dev': use one of train, test$"):
        generate("dev")


def test_bytes_never_change() -> None:
    """The bytes are those the published figures were measured on."""
    assert digest() == DIGEST


def test_same_bytes_in_another_process() -> None:
    """Neither the process, its hash seed nor its BLAS threads change a byte."""
    code = "from tests.test_synthetic import digest; print(digest())"
    env = os.environ | {"PYTHONHASHSEED": "1", "OPENBLAS_NUM_THREADS": "3"}
    root = Path(__file__).parents[1]
    printed = subprocess.check_output([sys.executable, "-c", code], env=env, cwd=root, text=True)

    assert digest() == printed.strip()


def test_no_image_twice(every_image: Bytes) -> None:
    """All images differ, so the test split holds none of the training images."""
    assert len({image.tobytes() for image in every_image}) == 12_000


def test_ink_is_where_mnist_has_it(every_image: Bytes) -> None:
    """The rim is black, the ink in the 20×20 middle and centered, about as much as in MNIST."""
    rim = np.ones((28, 28), bool)
    rim[1:-1, 1:-1] = False
    ink = every_image / 255
    row = (ink.sum(2) @ np.arange(28)) / ink.sum((1, 2))

    assert not every_image[:, rim].any()
    assert ink[:, 4:24, 4:24].sum() > 0.95 * ink.sum()
    assert 0.11 < ink.mean() < 0.15  # MNIST: 0.131
    assert every_image.max((1, 2)).min() > 150
    assert abs(np.median(row) - 13.5) < 0.2


def test_edges_are_anti_aliased(every_image: Bytes) -> None:
    """Grey pixels are about as many as full ones, as in MNIST, and take every level."""
    gray = (every_image > 0) & (every_image < 200)

    assert 0.5 < gray.sum() / (every_image >= 200).sum() < 1.5
    assert set(range(255)) <= set(np.unique(every_image).tolist())


@pytest.mark.parametrize("digit", range(10))
def test_several_shapes(splits: Splits, digit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each digit has three shapes or more, clearly different, and uses them all."""
    images, labels = splits["train"]
    rng = np.random.default_rng(0)
    monkeypatch.setattr(synthetic, "JITTER", 0)
    monkeypatch.setattr(synthetic, "WARP", np.zeros_like(synthetic.WARP))

    def unit(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        length: npt.NDArray[np.float64] = np.linalg.norm(x, axis=(1, 2), keepdims=True)
        return (x / length).reshape(len(x), -1)

    pure = [
        synthetic._draw(*synthetic._place(*synthetic._write(shape, 50, rng), rng), rng).mean(0)
        for shape in synthetic.SHAPES[digit]
    ]
    shapes = unit(np.array(pure))
    likeness = shapes @ shapes.T - np.eye(len(shapes))
    nearest = (unit(images[labels == digit].astype(float)) @ shapes.T).argmax(axis=1)
    assert len(shapes) >= 3
    assert likeness.max() < 0.97
    assert np.bincount(nearest, minlength=len(shapes)).min() > 100


def test_difficulty(splits: Splits) -> None:
    """A linear softmax trained for ten epochs is right on 90–97 % of the test images."""
    x, y = splits["train"][0].reshape(-1, 784) / np.float32(255), splits["train"][1]
    x = np.pad(x, ((0, 0), (0, 1)), constant_values=1)
    onehot = np.eye(10, dtype=np.float32)
    W, velocity = np.zeros((2, 785, 10), np.float32)  # the last row is the bias
    rng = np.random.default_rng(0)
    for _ in range(10):
        for batch in np.array_split(rng.permutation(len(x)), 79):
            probs = np.exp(x[batch] @ W)
            probs /= probs.sum(axis=1, keepdims=True)
            velocity *= 0.9
            velocity += x[batch].T @ (probs - onehot[y[batch]]) / len(batch)
            W -= 0.1 * velocity
    images, labels = splits["test"]
    logits = images.reshape(-1, 784) / 255 @ W[:-1] + W[-1]
    accuracy = (logits.argmax(axis=1) == labels).mean()

    assert 0.90 < accuracy < 0.97


@given(seed=st.integers(0, 2**32), n=st.integers(3, 12))
def test_curve_goes_through_its_points(seed: int, n: int) -> None:
    """A stroke passes through each of its points, in order."""
    points = np.random.default_rng(seed).uniform(-1, 1, (2, n, 4)).astype(np.float32)
    curve = synthetic._curve(points)

    np.testing.assert_array_equal(points, curve[:, :: synthetic.STEPS])


@given(a=st.floats(-1, 1), b=st.floats(-1, 1), n=st.integers(4, 12))
def test_curve_reproduces_parabolas(a: float, b: float, n: int) -> None:
    """Between points evenly spaced on a parabola, the ends aside, a stroke is that parabola."""
    t = np.arange(n * synthetic.STEPS) / synthetic.STEPS / n
    parabola = np.array([t, a * t + b * t * t], np.float32)[..., None]
    curve = synthetic._curve(parabola[:, :: synthetic.STEPS])

    inner = slice(synthetic.STEPS, (n - 2) * synthetic.STEPS)
    np.testing.assert_allclose(parabola[:, inner], curve[:, inner], atol=1e-6)


@given(seed=st.integers(0, 2**32), n=st.integers(3, 12))
def test_closed_curve_has_no_seam(seed: int, n: int) -> None:
    """A closed stroke is the same line at whichever of its points the pen starts."""
    ring = np.random.default_rng(seed).uniform(-1, 1, (2, n, 4)).astype(np.float32)
    later = np.roll(ring, -1, axis=1)
    curve, other = (synthetic._curve(np.concatenate([r, r[:, :1]], 1)) for r in (ring, later))

    np.testing.assert_allclose(
        np.roll(curve[:, :-1], -synthetic.STEPS, axis=1), other[:, :-1], atol=1e-6
    )


@given(seed=st.integers(0, 2**32), size=st.floats(0.01, 100), lopsided=st.floats(1, 50))
def test_place_keeps_ink_inside(seed: int, size: float, lopsided: float) -> None:
    """Whatever was written, and wherever its weight lies, it fits MNIST's box inside the frame."""
    rng = np.random.default_rng(seed)
    middles = (size * rng.uniform(0, 1, (2, 20, 5)) ** lopsided).astype(np.float32)
    placed, _ = synthetic._place(middles, np.ones((20, 5), np.float32), rng)
    extent = (placed.max(axis=1) - placed.min(axis=1)).max(axis=0)

    assert placed.min() > 2.99
    assert placed.max() < 24.01
    assert (abs(extent - 18) < 2.2).all()
