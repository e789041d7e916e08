"""Digits drawn from strokes: the data set that needs no network and no data file.

Nothing here rounds differently on another processor or with other BLAS threads: uniform random
numbers, + - * / and square roots; no matrix product, no exp or sin. So the bytes stay the same as
long as NumPy keeps its random streams.
"""

import numpy as np
import numpy.typing as npt

from mnist_cli.errors import DataError

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

SEED = 2828
COUNTS = {"train": 10_000, "test": 2_000}

# A digit has several shapes; a shape has strokes, separated by "/"; a stroke is a smooth curve
# through points "x,y", y downwards, 100 high. Equal points of a shape are one point and move
# together, so strokes that meet there still do.
SHAPES = (
    (  # 0: closed; closed past its start; open at the top
        "38,0 2,46 30,100 66,54 38,0",
        "50,6 20,8 4,60 32,100 64,60 54,10 34,8",
        "38,2 8,30 10,86 46,96 66,46 48,8",
    ),
    (  # 1: a stroke; with a flag; with flag and foot
        "50,0 50,33 50,67 50,100",
        "28,24 40,14 50,0/50,0 50,50 50,100",
        "28,20 40,12 50,0/50,0 50,50 50,100/26,100 50,100 74,99",
    ),
    (  # 2: with a corner; like a Z; with a loop; with a wavy foot
        "4,24 22,2 50,6 56,32 32,66 2,98/2,98 34,98 68,96",
        "4,12 30,4 60,4/60,4 30,50 2,96/2,96 34,98 68,96",
        "6,22 28,0 54,12 52,40 30,74 10,95 2,86 14,76 38,92 72,96",
        "2,16 30,0 58,20 48,50 12,90/12,90 32,84 50,98 74,88",
    ),
    (  # 3: round; with a flat top; with a loop in the middle
        "5,14 28,0 54,12 50,36 22,47/22,47 56,58 60,84 32,100 2,88",
        "5,2 32,3 60,2/60,2 42,22 24,42/24,42 58,54 60,86 30,100 2,90",
        "12,8 30,0 46,10 38,30 18,38 14,31 28,31 62,48 68,76 40,100 2,88",
    ),
    (  # 4: open; closed; crossed; in two bows
        "10,2 6,28 8,52 36,56 70,50/62,6 60,50 56,100",
        "52,0 28,30 2,64/2,64 36,65 74,62/52,0 52,50 50,100",
        "32,2 14,30 2,58/2,58 38,55 76,50/54,22 48,60 40,100",
        "6,8 6,40 26,54 52,42 62,8/62,8 58,52 52,100",
    ),
    (  # 5: with a cap; with a long one; like an S
        "14,2 11,22 8,44/8,44 36,36 60,56 54,88 28,100 2,90/14,2 38,3 64,0",
        "20,12 14,28 8,46/8,46 34,38 54,56 48,84 24,100 0,92/20,12 46,8 82,-4",
        "64,4 38,0 14,8 12,34 38,46 58,66 46,94 22,100 2,90",
    ),
    (  # 6: leaning; with a curved top; with a tight loop
        "46,0 20,26 4,64 16,96 44,96 56,74 36,56 8,72",
        "60,10 40,0 14,22 2,62 20,98 52,92 54,64 30,54 6,74",
        "26,0 12,34 4,70 16,98 38,94 42,74 24,66 6,80",
    ),
    (  # 7: plain; with a bar; with a serif
        "2,6 32,4 62,2/62,2 42,46 28,100",
        "2,4 32,5 62,2/62,2 40,46 26,100/18,52 40,50 64,48",
        "4,22 6,6/6,6 34,8 64,4/64,4 46,36 38,68 36,100",
    ),
    (  # 8: in one line; two rings; open at the top right
        "54,10 30,0 8,18 28,44 56,70 34,100 4,78 24,52 54,26 54,10",
        "32,0 10,22 32,46 54,22 32,0/32,46 4,72 32,100 62,72 32,46",
        "72,8 42,0 12,16 32,44 50,74 24,100 6,82 28,56 54,36 76,0",
    ),
    (  # 9: with a straight tail; with a curved tail; in one line
        "56,16 32,0 6,20 14,46 40,44 56,16/58,6 58,52 54,100",
        "56,20 32,0 4,20 18,48 46,42 56,20/56,20 60,58 44,92 10,96",
        "54,8 24,2 6,28 26,50 52,32 54,8/54,8 50,54 34,100",
    ),
)

STEPS = 8  # pieces between two points: each under a pixel long
JITTER = 12  # how far a point may go, in the units of SHAPES
# How far x and y may go for each x, y, x², xy, y² (from the middle, half a digit high is 1):
# aspect, slant, rotation, bend and taper. On top of that the hand leans to the right.
WARP = np.array([[0.4, 0.5, 0.2, 0.25, 0.2], [0.3, 0.4, 0.2, 0.2, 0.15]], np.float32)
LEAN = 0.2

SIZE = 28
EXTENT = 18  # of a pen's middle line: with the pen, the 20 pixels MNIST fits a digit into
MARGIN = 3  # a pen's middle line keeps this far from the edge, so the outermost pixels are black
PEAK = 0.37  # ink on the middle line of a straight stroke, after blurring


def generate(split: str) -> tuple[Bytes, Bytes]:
    """Draw the images and labels of a split, the same ones every time.

    `split` is "train" (10,000 images) or "test" (2,000), each from random streams of its own.
    Returns images, uint8 (N, 28, 28), light ink on black, and labels, uint8 (N,), in random order,
    equally many of each digit. Raises DataError for another split.
    """
    if split not in COUNTS:
        raise DataError(f"synthetic has no split {split!r}: use one of {', '.join(COUNTS)}")
    rng = np.random.default_rng([SEED, list(COUNTS).index(split)])
    labels = (rng.permutation(COUNTS[split]) % 10).astype(np.uint8)
    style = rng.integers(2**32, size=len(labels))
    images = np.empty((len(labels), SIZE, SIZE), np.uint8)
    for digit, shapes in enumerate(SHAPES):
        for i, shape in enumerate(shapes):  # a few hundred images at a time fit the cache
            chosen = np.flatnonzero((labels == digit) & (style % len(shapes) == i))
            images[chosen] = _draw(*_place(*_write(shape, len(chosen), rng), rng), rng)
    return images, labels


def _write(shape: str, count: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Write a shape `count` times; the small pieces' middles (2, K, count), lengths (K, count)."""
    strokes = [stroke.split() for stroke in shape.split("/")]
    names = list(dict.fromkeys(name for stroke in strokes for name in stroke))
    points = np.array([name.split(",") for name in names], np.float32).T[..., None]
    middle = (points.min(axis=1, keepdims=True) + points.max(axis=1, keepdims=True)) / 2
    points = (points - middle + JITTER * _spread(rng, (2, len(names), count))) / 50
    warp = WARP[..., None, None] * _spread(rng, (2, 5, 1, count))
    warp[0, 1] -= LEAN
    x, y = points
    for i, term in enumerate((x, y, x * x, x * y, y * y)):
        points = points + warp[:, i] * term
    curves = [_curve(points[:, [names.index(name) for name in stroke]]) for stroke in strokes]
    step = np.concatenate([c[:, 1:] - c[:, :-1] for c in curves], axis=1)
    middles = np.concatenate([(c[:, 1:] + c[:, :-1]) / 2 for c in curves], axis=1)
    return middles, np.sqrt(step[0] * step[0] + step[1] * step[1])


def _curve(points: Floats) -> Floats:
    """Run a uniform Catmull-Rom spline through points, (2, n, count) to (2, K, count)."""
    before, after = points[:, -2:-1], points[:, 1:2]
    if (points[:, 0] != points[:, -1]).any():  # an open stroke goes straight on at its ends
        before, after = 2 * points[:, :1] - after, 2 * points[:, -1:] - before
    around = np.concatenate([before, points, after], axis=1)[:, :, None]
    a, b, c, d = around[:, :-3], around[:, 1:-2], around[:, 2:-1], around[:, 3:]
    t = (np.arange(STEPS, dtype=np.float32) / STEPS)[:, None]
    curve = b + t / 2 * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)))
    return np.concatenate([curve.reshape(2, -1, points.shape[2]), points[:, -1:]], axis=1)


def _place(middles: Floats, length: Floats, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Bring digits to MNIST's size and place, in pixels: the longer side fits, mass centered."""
    count = length.shape[1]
    low, high = middles.min(axis=1), middles.max(axis=1)
    scale = EXTENT * (1 + 0.12 * _spread(rng, (count,))) / (high - low).max(axis=0)
    mass = (middles * length).sum(axis=1) / length.sum(axis=0)
    shift = (SIZE - 1) / 2 - mass * scale + 1.2 * _spread(rng, (2, count))
    shift = np.clip(shift, MARGIN - low * scale, SIZE - 1 - MARGIN - high * scale)
    return middles * scale + shift[:, None], length * scale


def _draw(middles: Floats, length: Floats, rng: np.random.Generator) -> Bytes:
    """Lay the ink of pieces on pixels, (2, K, count) and (K, count) to (count, 28, 28)."""
    count = length.shape[1]
    left, top = corner = middles.astype(np.int64)
    right, down = middles - corner  # the fractions that go to the next column and row
    cell = (np.arange(count) * SIZE + top) * SIZE + left
    ink = np.zeros(count * SIZE * SIZE)
    for offset, fraction in (
        (0, (1 - right) * (1 - down)),
        (1, right * (1 - down)),
        (SIZE, (1 - right) * down),
        (SIZE + 1, right * down),
    ):
        ink += np.bincount((cell + offset).ravel(), (fraction * length).ravel(), len(ink))
    page = ink.astype(np.float32).reshape(count, SIZE, SIZE)
    for _ in range(2):
        page[:, 1:-1] = (page[:, :-2] + 2 * page[:, 1:-1] + page[:, 2:]) / 4
        page[:, :, 1:-1] = (page[:, :, :-2] + 2 * page[:, :, 1:-1] + page[:, :, 2:]) / 4
    # Across a stroke the ink is a bell, and its fourth root one twice as wide; where that is cut
    # off decides the width of the pen, and how steeply, the gray of its edges.
    bell = np.sqrt(np.sqrt(page / PEAK))
    thick = rng.random((count, 1, 1), np.float32)
    edge = 0.94 - 0.12 * thick * (1 + thick)
    gray = 255 - 30 * rng.random(page.shape, np.float32)
    return (np.clip(0.5 + 5 * (bell - edge), 0, 1) * gray).astype(np.uint8)


def _spread(rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """Draw from −1…1, denser towards 0."""
    return rng.random(shape, np.float32) - rng.random(shape, np.float32)
