import contextlib
import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from mnist_cli.data import loading
from mnist_cli.errors import ImageError
from mnist_cli.inputs import pictures

Array = pictures.Array


def seven(width: int = 240, height: int = 320, pen: int = 22, corner: int = 40) -> Array:
    """Draw a dark 7 on a light page, in a box of 120 by 160 pixels: uint8 (H, W)."""
    page = Image.new("L", (width, height), 255)
    x, y = corner, corner
    points = [(x, y), (x + 120, y), (x + 40, y + 160)]
    ImageDraw.Draw(page).line(points, fill=0, width=pen, joint="curve")
    return np.asarray(page)


def prepare(image: Image.Image | Array, form: str = "PNG", **options: Any) -> Array:
    if not isinstance(image, Image.Image):
        image = Image.fromarray(image)
    file = io.BytesIO()
    image.save(file, form, **options)
    return pictures.prepare(io.BytesIO(file.getvalue()), "picture")


def box(image: Array) -> tuple[int, int]:
    rows, columns = np.nonzero(image > 96)
    return int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1


def difference(one: Array, other: Array) -> float:
    """Average over the pixels, in grey levels."""
    return float(np.abs(one.astype(int) - other).mean())


SEVEN = prepare(seven())


def test_a_digit_is_as_mnist_has_it() -> None:
    """Light on black, 20 pixels on the longer side, its centre of mass in the middle."""
    assert SEVEN.dtype == np.uint8
    assert SEVEN.shape == (28, 28)
    assert (SEVEN.min(), SEVEN.max()) == (0, 255)
    assert max(box(SEVEN)) == 20
    y, x = np.indices((28, 28))
    assert np.average(y, weights=SEVEN) == pytest.approx(14, abs=0.1)
    assert np.average(x, weights=SEVEN) == pytest.approx(14, abs=0.1)
    assert (SEVEN[8:11, 6:20] > 128).any(axis=0).all()  # the bar of the 7
    assert SEVEN[12:, :9].max() == 0


@pytest.mark.parametrize(
    ("form", "mode"),
    [(form, mode) for form in ("PNG", "GIF") for mode in ("1", "L", "LA", "P", "RGB", "RGBA")]
    + [("WEBP", "RGB"), ("WEBP", "RGBA")],
)
def test_lossless_formats_and_modes(form: str, mode: str) -> None:
    """Whatever the format and the mode, the digit is the same."""
    options = {"lossless": True} if form == "WEBP" else {}
    assert difference(SEVEN, prepare(Image.fromarray(seven()).convert(mode), form, **options)) < 1


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
def test_bmp(mode: str) -> None:
    assert difference(SEVEN, prepare(Image.fromarray(seven()).convert(mode), "BMP")) < 1


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_jpeg(mode: str) -> None:
    page = Image.fromarray(seven()).convert(mode)
    assert difference(SEVEN, prepare(page, "JPEG", quality=60)) < 3


@pytest.mark.parametrize("top", [65535, 4095, 255])
def test_16_bit(top: int) -> None:
    """All 16 bits are read, also of a picture that uses the lower ones only."""
    assert difference(SEVEN, prepare((seven() / 255 * top).astype(np.uint16))) < 1


@pytest.mark.parametrize("ink", [0, 255])
def test_transparent_paper(ink: int) -> None:
    """Black ink and white ink both show on a transparent page."""
    page = np.full((320, 240, 4), ink, np.uint8)
    page[..., 3] = 255 - seven()
    assert difference(SEVEN, prepare(page)) < 1


def test_transparent_colour_of_a_palette() -> None:
    page = Image.fromarray(np.where(seven() > 128, 0, 1).astype(np.uint8), "P")
    page.putpalette([0, 0, 0, 0, 0, 0])
    assert difference(SEVEN, prepare(page, "GIF", transparency=0)) < 1


def test_first_frame_of_an_animation() -> None:
    others = [Image.new("L", (240, 320), 0)]
    page = Image.fromarray(seven())
    assert difference(SEVEN, prepare(page, "GIF", save_all=True, append_images=others)) < 1


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize(
    ("orientation", "turn"),
    [(3, Image.Transpose.ROTATE_180), (6, Image.Transpose.ROTATE_90), (2, Image.Transpose(0))],
)
@pytest.mark.parametrize("times", [1, 8])
def test_exif_orientation(form: str, orientation: int, turn: Image.Transpose, times: int) -> None:
    """A turned photograph is turned back, a large one too, which is read at a smaller scale."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    page = Image.fromarray(seven()).convert("RGB").transpose(turn)
    page = page.resize((page.width * times, page.height * times))
    assert difference(SEVEN, prepare(page, form, exif=exif)) < 4


@pytest.mark.parametrize(
    ("ink", "paper"),
    [
        ((20, 40, 160), (250, 248, 240)),
        ((230, 200, 30), (255, 255, 255)),
        ((200, 40, 40), (40, 120, 40)),
        ((235, 235, 225), (40, 70, 55)),
        ((205, 205, 205), (225, 225, 225)),
    ],
    ids=["blue pen", "yellow on white", "red on green", "chalk", "faint pencil"],
)
def test_colours(ink: tuple[int, ...], paper: tuple[int, ...]) -> None:
    share = seven()[..., None] / 255
    page = share * np.array(paper) + (1 - share) * np.array(ink)
    assert difference(SEVEN, prepare(np.rint(page).astype(np.uint8))) < 2


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 200), st.integers(0, 200), st.integers(1, 3), st.booleans(), st.booleans())
def test_place_size_and_polarity_do_not_matter(
    left: int, top: int, times: int, light: bool, shaded: bool
) -> None:
    """Wherever and however large the digit is, light or dark, on white or on shaded paper."""
    page = np.full((520, 440), 255, np.uint8)
    page[top : top + 320, left : left + 240] = seven()
    if shaded:
        page = (page * np.linspace(0.6, 0.9, 440)).astype(np.uint8)
    if light:
        page = 255 - page
    page = page.repeat(times, 0).repeat(times, 1)
    assert difference(SEVEN, prepare(page)) < 6


def shadow(page: Array) -> Array:
    y, x = np.indices(page.shape)
    shaded: Array = page * np.interp(x + y, [250, 600], [1, 0.6])
    return shaded


def dust(page: Array) -> Array:
    page = page.copy()
    page[5:9, 230:234] = page[400:405, 20:24] = page[470:473, 420:424] = 0
    return page


def salt(page: Array) -> Array:
    rng = np.random.default_rng(0)
    return np.where(rng.random(page.shape) < 0.02, rng.choice([0, 255], page.shape), page)


def noise(page: Array) -> Array:
    return np.clip(page * 0.8 + np.random.default_rng(0).normal(0, 8, page.shape), 0, 255)


def lines(page: Array) -> Array:
    page = page.copy()
    page[12::30] = np.minimum(page[12::30], 185)
    return page


def table(page: Array) -> Array:
    page = page.copy()
    page[:30] = page[:, :25] = 60
    return page


@pytest.mark.parametrize("spoil", [shadow, dust, salt, noise, lines, table])
def test_what_photographs_have_does_not_matter(spoil: Any) -> None:
    """Shadows, dust, noise, ruled lines and the table are not part of the digit."""
    page = np.full((480, 440), 255, np.uint8)
    page[100:420, 120:360] = seven(pen=14)
    clean = prepare(page)
    assert difference(clean, prepare(spoil(page).astype(np.uint8))) < 10


@pytest.mark.parametrize("pen", [1, 3, 60])
def test_strokes_come_out_as_wide_as_mnists(pen: int) -> None:
    """A fine pen is thickened, a broad marker thinned."""
    drawn = (prepare(seven(pen=pen)) / 255).sum()
    assert 0.6 < drawn / (SEVEN / 255).sum() < 1.9


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGB", "RGBA"])
def test_an_mnist_image_comes_back_as_it_is(mode: str) -> None:
    """Byte for byte, though a second preparation would change it."""
    image = np.where(SEVEN > 100, SEVEN - 20, SEVEN // 3)
    assert np.array_equal(image, prepare(Image.fromarray(image).convert(mode)))


def test_an_mnist_image_of_16_bits_comes_back_as_it_is() -> None:
    assert np.array_equal(SEVEN, prepare(SEVEN.astype(np.uint16) * 257))


def test_real_images_come_back_as_they_are(real_data: Path) -> None:
    """Digits and clothes alike, though clothes fill the image."""
    for name in ("mnist", "fashion-mnist"):
        for image in loading.load(name, "train", real_data).images[:300]:
            assert np.array_equal(image, prepare(image))


def test_a_digit_out_of_balance_stays_whole() -> None:
    """A centre of mass near one end would push the other end out of the image."""
    page = np.full((420, 300), 255, np.uint8)
    page[30:110, 80:220] = page[110:390, 145:157] = 0
    image = prepare(page)
    assert max(box(image)) == 20
    assert image[-1].max() > 96


def test_noise_does_not_reach_the_image() -> None:
    """Between the strokes of a noisy page there is black."""
    page = noise(np.pad(seven(), 60, constant_values=255)).astype(np.uint8)
    assert prepare(page)[SEVEN == 0].mean() < 1


def test_28_by_28_that_is_no_mnist_image_is_prepared() -> None:
    """Dark on light, or light on dark but out of the middle."""
    assert difference(SEVEN, prepare(255 - SEVEN)) < 4
    assert difference(SEVEN, prepare(np.roll(SEVEN, (-3, 3), axis=(0, 1)))) < 4


@pytest.mark.parametrize("pen", [22, 40])
def test_a_tight_crop(pen: int) -> None:
    """A digit that fills its picture to the edges is told from its paper."""
    page = seven(pen=pen)
    rows, columns = np.nonzero(page < 255)
    tight = page[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    assert difference(prepare(page), prepare(tight)) < 4
    assert difference(prepare(page), prepare(255 - tight)) < 4


def test_pictures_of_digits_are_recognised(real_data: Path) -> None:
    """A linear classifier loses next to nothing when digits are photographed."""
    train = loading.load("mnist", "train", real_data)
    x = train.images[:20000].reshape(-1, 784) / 255
    W = np.linalg.solve(x.T @ x + 100 * np.eye(784), x.T @ np.eye(10)[train.labels[:20000]])
    rng = np.random.default_rng(0)
    digits, labels = train.images[50000:50100], train.labels[50000:50100]

    def correct(prepared: list[Array]) -> int:
        return int(((np.reshape(prepared, (-1, 784)) @ W).argmax(axis=1) == labels).sum())

    pages = []
    for digit in digits:
        large = Image.fromarray(255 - digit).resize((168, 168), Image.Resampling.BICUBIC)
        page = Image.new("L", (400, 300), 255)
        page.paste(large, (int(rng.integers(232)), int(rng.integers(132))))
        shaded = np.asarray(page) * np.linspace(0.6, 0.95, 400) + rng.normal(0, 6, (300, 400))
        pages.append(prepare(np.clip(shaded, 0, 255).astype(np.uint8), "JPEG", quality=60))
    assert correct(pages) >= correct(list(digits)) - 3


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (28, 28), (300, 200), (1, 5000)])
@pytest.mark.parametrize("level", [0, 128, 255])
def test_a_blank_picture(size: tuple[int, int], level: int) -> None:
    with pytest.raises(ImageError, match=r"^picture: .*blank"):
        prepare(Image.new("L", size, level))


@pytest.mark.parametrize("speck", [0, 4])
def test_a_page_with_nothing_but_shade_noise_and_a_speck(speck: int) -> None:
    rng = np.random.default_rng(0)
    page = np.linspace(150, 220, 300) + rng.normal(0, 10, (400, 300))
    page[200 : 200 + speck, 100 : 100 + speck] = 20
    with pytest.raises(ImageError, match="blank"):
        prepare(page.astype(np.uint8))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_a_fully_transparent_picture(mode: str) -> None:
    with pytest.raises(ImageError, match="blank"):
        prepare(Image.new(mode, (90, 90)))


@pytest.mark.parametrize("side", [9_500, 14_000, 60_000])
def test_a_decompression_bomb(side: int, tmp_path: Path) -> None:
    """From where pillow warns, it is an error; nothing is decoded."""
    path = tmp_path / "bomb.bmp"
    Image.new("1", (8, 8)).save(path)
    header = bytearray(path.read_bytes())
    header[18:26] = side.to_bytes(4, "little") * 2
    path.write_bytes(header)
    with pytest.raises(ImageError, match=r"bomb.bmp: the picture has too many pixels") as caught:
        pictures.prepare(path, str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        ("folder", "s a directory"),
        (b"", "not a"),
        (b"P5 1 1 255 ", "not a"),
    ],
    ids=["missing", "directory", "empty", "another format"],
)
def test_what_is_no_picture(content: bytes | str | None, message: str, tmp_path: Path) -> None:
    """The error is one line and names the file."""
    path = tmp_path / "it.png"
    if content == "folder":
        path.mkdir()
    elif isinstance(content, bytes):
        path.write_bytes(content)
    with pytest.raises(ImageError, match=rf"^{path}: .*{message}") as caught:
        pictures.prepare(path, str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "BMP", "GIF", "WEBP"])
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_damaged_pictures(form: str, data: st.DataObject) -> None:
    """Half a picture is refused, and no damage does more than that."""
    file = io.BytesIO()
    Image.fromarray(seven()).save(file, form)
    content = bytearray(file.getvalue())
    with pytest.raises(ImageError, match=r"^picture: "):
        pictures.prepare(io.BytesIO(content[: len(content) // 2]), "picture")
    for _ in range(data.draw(st.integers(1, 9))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ImageError):
        assert pictures.prepare(io.BytesIO(content), "picture").shape == (28, 28)


def test_a_pipe_is_read(tmp_path: Path) -> None:
    """Standard input cannot seek."""
    path = tmp_path / "seven.png"
    Image.fromarray(seven()).save(path)
    code = (
        "import sys; from mnist_cli.inputs import pictures;"
        "sys.stdout.buffer.write(pictures.prepare(sys.stdin.buffer, '-').tobytes())"
    )
    with subprocess.Popen(["cat", path], stdout=subprocess.PIPE) as cat:
        run = subprocess.run([sys.executable, "-c", code], stdin=cat.stdout, capture_output=True)
    assert SEVEN.tobytes() == run.stdout


def test_without_pillow_one_line_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['PIL'] = None\n"
        "from mnist_cli.errors import ImageError\n"
        "try: import mnist_cli.inputs.pictures\n"
        "except ImageError as error: print(error)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stdout == "pictures need pillow: pip install 'mnist-cli[image]'\n"


def test_render_in_plain_characters() -> None:
    """Two rows a line; nothing but half blocks where there are no colours."""
    image = np.zeros((28, 28), np.uint8)
    image[0, 0] = image[1, 1] = image[2:4, 2] = 255
    lines = pictures.render(image).split("\n")
    assert ["▀▄", "  █", *[""] * 12] == lines


def test_render_in_grey() -> None:
    """Black is 232, white 255; every line ends by setting the colours back."""
    image = np.zeros((28, 28), np.uint8)
    image[0, 0], image[1, 0] = 255, 128
    lines = pictures.render(image, color=True).split("\n")
    assert len(lines) == 14
    assert lines[0].startswith("\x1b[38;5;255;48;5;244m▀\x1b[38;5;232;48;5;232m▀")
    assert all(line.endswith("▀\x1b[0m") and line.count("▀") == 28 for line in lines)
