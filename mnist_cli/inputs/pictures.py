"""Pictures of digits, made into what MNIST's images are. The only importer of pillow."""

import warnings
from contextlib import nullcontext
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from mnist_cli.errors import ImageError

try:
    from PIL import Image, ImageDraw, ImageFilter, ImageOps, UnidentifiedImageError
    from PIL.Image import Resampling
except ImportError as error:
    raise ImageError("pictures need pillow: pip install 'mnist-cli[image]'") from error

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP")
SIDE = 28  # pixels of an MNIST image
BOX = 20  # pixels of a digit's longer side in it
CENTRE = 14  # the row and the column of its centre of mass, to half a pixel
WORKING_SIDE = 560  # pixels that a larger picture is reduced to first
CELLS = 112  # of the grid on which the shade of the paper and the blots are looked for
# The rest was chosen on MNIST's last 10,000 training images, drawn on pages of many kinds.
FAINTEST = 12  # grey levels between the paper and the ink
STRONG, RIM = 0.4, 0.2  # of the darkest ink: what a stroke has, and what its rim has
NARROW, WIDE = 1 / 9, 1 / 2  # of the picture: wider than a stroke on a page, or in a full picture
SPECK = 0.02  # of the picture: a digit is longer
SAME = 0.85  # of the strongest ink: a narrow reach must not weaken it
FULL = 0.5  # of the picture: a digit that fills it is longer
THIN, STROKE, THICK = 1.3, 3.0, 5.0  # pixels in the box: strokes outside are made the middle one

Array = np.ndarray[tuple[int, ...], np.dtype[Any]]


def prepare(source: Path | BinaryIO, name: str) -> Array:
    """Make of a digit's picture what LeCun et al. (1998) made of NIST's: small, light, centred.

    Takes a PNG, JPEG, BMP, GIF (its first frame) or WebP of any size and mode and returns uint8
    (28, 28). A picture that looks like an MNIST image already comes back as it is.
    Raises ImageError, with `name` in it, where it cannot be read or shows nothing.
    """
    pixels = _read(source, name)
    if _looks_like_mnist(pixels):
        return _to_bytes(pixels.mean(axis=2))
    digit = _cut_out(pixels)
    if digit is None or max(digit.shape) < SPECK * max(pixels.shape):
        raise ImageError(f"{name}: the picture is blank; give one with a digit on it")
    return _fit(digit)


def render(image: Array, color: bool = False) -> str:
    """Draw uint8 (28, 28) as 14 lines of half blocks, in the terminal's 24 greys or in none."""
    lines = []
    for upper, lower in zip(image[::2].tolist(), image[1::2].tolist(), strict=True):
        pairs = list(zip(upper, lower, strict=True))
        if color:
            greys = ((232 + u * 24 // 256, 232 + v * 24 // 256) for u, v in pairs)
            cells = "".join(f"\x1b[38;5;{u};48;5;{v}m▀" for u, v in greys)
            lines.append(cells + "\x1b[0m")
        else:
            lines.append("".join(" ▀▄█"[(u > 96) + 2 * (v > 96)] for u, v in pairs).rstrip())
    return "\n".join(lines)


def _read(source: Path | BinaryIO, name: str) -> Array:
    """Read a picture, upright, as float32 (H, W, 3) from 0 to 255, at most WORKING_SIDE long."""
    try:
        opened = source.open("rb") if isinstance(source, Path) else nullcontext(source)
        with warnings.catch_warnings(), opened as file:
            warnings.simplefilter("ignore")  # damaged metadata does no harm
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file, formats=FORMATS) as image:
                image.draft(None, (WORKING_SIDE, WORKING_SIDE))
                return _pixels(image)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"{name}: the picture has too many pixels; make it smaller") from error
    except UnidentifiedImageError as error:
        raise ImageError(f"{name}: not a picture; give PNG, JPEG, BMP, GIF or WebP") from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ImageError(f"{name}: cannot read the picture: {reason}") from error


def _pixels(image: Image.Image) -> Array:
    if image.mode.startswith("I"):  # 16 bits, where some programs put 8
        wide = np.asarray(image, np.float32)
        image = Image.fromarray(wide / 257 if wide.max() > 255 else wide)
    elif image.has_transparency_data:
        image = image.convert("RGBA")
    elif image.mode not in ("L", "RGB"):
        image = image.convert("RGB")
    image.thumbnail((WORKING_SIDE, WORKING_SIDE), Resampling.BOX)
    pixels = np.asarray(ImageOps.exif_transpose(image), np.float32)
    pixels = pixels.reshape(*pixels.shape[:2], -1)  # (H, W, 1, 3 or 4)
    if pixels.shape[2] < 4:
        return np.broadcast_to(pixels, (*pixels.shape[:2], 3))
    alpha = pixels[..., 3:] / 255
    on_black = pixels[..., :3] * alpha
    on_white = on_black + 255 * (1 - alpha)
    return on_white if np.ptp(on_white) > FAINTEST else on_black


def _looks_like_mnist(pixels: Array) -> bool:
    if pixels.shape[:2] != (SIDE, SIDE):
        return False
    grey = pixels.mean(axis=2)
    dark = np.median(grey[[0, 0, -1, -1], [0, -1, 0, -1]]) <= 32
    if not dark or grey.max() < 128:
        return False
    # Fashion-MNIST's fill the image, wherever their centre of mass is.
    fills = max(np.ptp(where) for where in np.nonzero(grey > 32)) > 24
    return bool(fills or np.abs(_centroid(grey) - CENTRE).max() <= 1)


def _cut_out(pixels: Array) -> Array | None:
    """Cut the ink of the digit, light on 0, out of (H, W, 3), or return None where it is blank."""
    colour = pixels - np.median(pixels, axis=(0, 1))
    flat = colour.reshape(-1, 3)
    # Along the direction in which the colours differ most, red ink shows as well as black.
    axis = np.linalg.eigh(flat.T @ flat)[1][:, -1].astype(np.float32)
    grey = colour @ (axis / np.abs(axis).sum())
    # Strokes are narrow: what is broad, as shadows are, does not tell the ink from the paper.
    shade = _resize(grey, _scaled(grey.shape, 6), Resampling.BOX)
    if ((grey - _resize(shade, grey.shape, Resampling.BILINEAR)) ** 3).sum() < 0:
        grey = -grey
    fine, ink = _lift(grey, NARROW), _lift(grey, WIDE)
    if fine is not None and ink is not None and fine.max() > SAME * ink.max():
        digit = _crop(fine)
        if max(digit.shape) < FULL * max(grey.shape):
            return digit
    # Its strokes may be wide, and its paper less than half; the border then tells which is which.
    if ink is None or _edged(ink):
        swapped = _lift(-grey, WIDE)
        if swapped is not None and not _edged(swapped):
            ink = swapped
    return None if ink is None else _crop(ink)


def _edged(ink: Array) -> bool:
    return bool((_ring(ink) > RIM * ink.max()).mean() > 0.5)


def _lift(grey: Array, reach: float) -> Array | None:
    """Take the ink, which is lighter, off the paper of (H, W); None where there is none."""
    small = _resize(grey, _scaled(grey.shape, min(CELLS, max(grey.shape))), Resampling.BOX)
    # An opening that no stroke survives leaves the paper with its shade and its shadows.
    width = int(reach * max(small.shape)) | 1
    paper = _spread(_spread(small, width, np.minimum), width, np.maximum)
    ink: Array = grey - _resize(paper, grey.shape, Resampling.BILINEAR)
    low, level = np.percentile(ink, [5, 25])  # of bare paper, were even half the picture ink
    noise = level - low
    ink -= level
    if max(ink.shape) > 2 * SIDE:  # smaller pictures have strokes as small as specks
        third = Image.fromarray(ink).filter(ImageFilter.RankFilter(3, 6))
        ink = np.minimum(ink, np.asarray(third))
    rank = min(ink.size, max(4, ink.size // 10000))
    peak = np.partition(ink, -rank, axis=None)[-rank]
    ink = np.clip(ink, 0, peak)
    return None if peak < max(FAINTEST, 6 * noise) else ink


def _crop(ink: Array) -> Array:
    """Crop to the largest blot and those near it: no dust, no lines, no edge of the paper."""
    step = -(-max(ink.shape) // CELLS)
    starts = [np.arange(0, n, step) for n in ink.shape]
    strong = ink > STRONG * ink.max()
    mass = np.add.reduceat(np.add.reduceat(strong, starts[0], 0, dtype=int), starts[1], 1)
    keep = _near_the_largest(_blots(_spread(mass > 0, 3, np.maximum)), mass)
    keep = _spread(keep, 3, np.maximum).repeat(step, 0).repeat(step, 1)
    return _trim(np.where(keep[: ink.shape[0], : ink.shape[1]], ink, 0))


def _trim(ink: Array) -> Array:
    y, x = np.nonzero(ink > RIM * ink.max())
    trimmed: Array = ink[y.min() : y.max() + 1, x.min() : x.max() + 1]
    return trimmed


def _blots(mask: Array) -> Array:
    """Number the connected parts of a mask from 1."""
    image = Image.fromarray(-mask.astype(np.int32))
    blots, number = np.asarray(image), 0
    while blots.min() < 0:
        number += 1
        y, x = np.unravel_index(blots.argmin(), blots.shape)
        ImageDraw.floodfill(image, (int(x), int(y)), number)
        blots = np.asarray(image)
    return blots


def _near_the_largest(blots: Array, mass: Array) -> Array:
    """Choose, as a mask, the blots that make up the digit; `mass` counts a cell's ink."""
    weight = np.bincount(blots.ravel(), mass.ravel())
    along = np.bincount(_ring(np.where(mass, blots, 0)), minlength=len(weight))
    weight[along > along.sum() / 5] /= 100  # an edge of the paper, if there is anything else
    where = [np.nonzero(blots == number) for number in range(len(weight))]
    low = np.array([[axis.min(initial=CELLS) for axis in axes] for axes in where])
    high = np.array([[axis.max(initial=0) for axis in axes] for axes in where])
    largest = weight.argmax()
    gap = np.maximum(low - high[largest], low[largest] - high).max(axis=1)
    near = gap <= 0.2 * (high - low)[largest].max()
    chosen: Array = weight > np.where(near, 0.02, 0.2) * weight[largest]
    return chosen[blots]


def _fit(ink: Array) -> Array:
    """Scale to BOX pixels on the longer side, with strokes like MNIST's, and centre by mass."""
    width = BOX / max(ink.shape) * _stroke(ink)
    if not THIN <= width <= THICK:
        ink = np.pad(_resize(ink, _scaled(ink.shape, 8 * BOX), Resampling.BILINEAR), 8)
        by = round(8 * abs(STROKE - width)) | 1
        ink = _trim(_spread(ink, by, np.maximum if width < THIN else np.minimum))
    span = max(ink.shape) * SIDE / BOX  # pixels of `ink` that the image is to show
    margin = int(span)
    # To a fraction of a pixel, where MNIST was centred to whole ones: more are recognised so.
    start = _centroid(ink) + 0.5 - span * (CENTRE + 0.5) / SIDE
    y, x = margin + np.clip(start, np.array(ink.shape) - span, 0)
    padded = Image.fromarray(np.pad(ink, margin))
    box = (float(x), float(y), float(x + span), float(y + span))
    image = np.asarray(padded.resize((SIDE, SIDE), Resampling.BICUBIC, box))
    return _to_bytes(np.clip(image * (255 / image.max()), 0, 255))


def _stroke(ink: Array) -> float:
    """Measure the width of the strokes: half their rim goes along each side."""
    solid = np.pad(ink > ink.max() / 2, 1).astype(np.int8)
    rim = sum(np.abs(np.diff(solid, axis=axis)).sum(dtype=int) for axis in (0, 1))
    return float(2 * solid.sum() / (np.pi / 4 * rim))


def _centroid(image: Array) -> Array:
    y, x = (np.arange(n) for n in image.shape)
    return np.array([image.sum(axis=1) @ y, image.sum(axis=0) @ x], float) / float(image.sum())


def _ring(image: Array) -> Array:
    return np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])


def _scaled(shape: tuple[int, ...], side: int) -> tuple[int, ...]:
    return tuple(max(1, round(side * n / max(shape))) for n in shape)


def _resize(image: Array, shape: tuple[int, ...], method: Resampling) -> Array:
    return np.asarray(Image.fromarray(image).resize((shape[1], shape[0]), method))


def _spread(image: Array, width: int, extreme: np.ufunc) -> Array:
    """Give each pixel the extreme of the square around it, in about log2(width) steps a side."""
    for _ in range(2):
        image = np.pad(image, ((width // 2, width // 2), (0, 0)), mode="edge")
        span = 1
        while span < width:
            step = min(span, width - span)
            image = extreme(image[:-step], image[step:])
            span += step
        image = image.T
    return image


def _to_bytes(image: Array) -> Array:
    return np.rint(image).astype(np.uint8)
