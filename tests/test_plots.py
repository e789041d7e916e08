"""The figures: what is drawn is looked up in the matplotlib figure, not in pixels."""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mnist_cli.data import catalogue
from mnist_cli.errors import MnistError
from mnist_cli.evaluation import Evaluation, evaluate
from mnist_cli.functional import Array
from mnist_cli.network import Params
from mnist_cli.output import plots
from mnist_cli.training import Epoch

pytest.importorskip("matplotlib")
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

Page = tuple[Figure, Evaluation, Array, Array]


@pytest.fixture(scope="module", params=["synthetic", "kmnist", "fashion-mnist"])
def names(request: pytest.FixtureRequest) -> tuple[str, ...]:
    return catalogue.DATASETS[request.param].label_names


@pytest.fixture(scope="module")
def page(digits: tuple[Array, Array], names: tuple[str, ...]) -> Page:
    """Draw the page of a bad model, one that knows the mean images only, on 1,000 digits."""
    images, labels = digits
    means = np.stack([images[labels == label].mean(axis=0).ravel() for label in range(10)], axis=1)
    W = ((means - means.mean(axis=1, keepdims=True)) / 25).astype(np.float32)
    result = evaluate(Params(W, np.zeros(10, np.float32)), images, labels)
    with tempfile.NamedTemporaryFile(suffix=".png") as file:
        figure = plots.evaluation(Path(file.name), "m.npz on it", result, images, W, names)
    return figure, result, images, W


def panel(figure: Figure, title: str) -> Axes:
    (found,) = [axes for axes in figure.axes if axes.get_title().startswith(title)]
    return found


def epochs(count: int, validation: bool = True) -> list[Epoch]:
    validated: tuple[Any, Any] = (1.1, 0.4) if validation else (None, None)
    return [Epoch(n, 0.1, 1 / n, 1 - 0.5 / n, *validated, 0.1) for n in range(1, count + 1)]


def drawn(axes: Axes) -> Array:
    (image,) = axes.images
    return np.asarray(image.get_array())


def test_confusion_matrix_shows_counts_shaded_by_their_fraction(
    page: Page, names: tuple[str, ...]
) -> None:
    figure, result, *_ = page
    matrix = result.confusion_matrix
    axes = panel(figure, "Confusion matrix")
    np.testing.assert_allclose(matrix / matrix.sum(axis=1, keepdims=True), drawn(axes) ** 2)
    counts = {text.get_position(): text.get_text() for text in axes.texts}
    for (true, predicted), count in np.ndenumerate(matrix):
        assert (str(count) if count else "·") == counts[predicted, true]
    expected = list(names) or list("0123456789")
    assert expected == [text.get_text() for text in axes.get_xticklabels()]
    assert expected == [text.get_text() for text in axes.get_yticklabels()]


def test_reliability_diagram_shows_the_bins(page: Page) -> None:
    figure, result, *_ = page
    upper = panel(figure, "Reliability")
    (lower,) = [axes for axes in figure.axes if axes.get_ylabel() == "images"]
    filled = np.flatnonzero(result.calibration[:, 0])
    assert len(filled) > 5
    images, confidence, correct = result.calibration[filled].T
    for axes, heights in ((upper, correct / images), (lower, images)):
        bars: list[Any] = list(axes.patches)
        spans = [(bar.get_x(), bar.get_width()) for bar in bars]
        assert np.allclose([(k / 15, 1 / 15) for k in filled], spans)
        assert np.allclose(heights, [bar.get_height() for bar in bars])
    means, perfect = upper.lines
    assert np.allclose(confidence / images, np.asarray(means.get_xdata()))
    assert np.allclose(correct / images, np.asarray(means.get_ydata()))
    assert np.array_equal(perfect.get_xdata(), perfect.get_ydata())
    assert f"{result.expected_calibration_error:.4f}" in upper.get_title()


def test_weights_are_drawn_on_one_scale_about_zero(page: Page, names: tuple[str, ...]) -> None:
    figure, _, _, W = page
    for label, axes in enumerate(figure.axes[3:13]):
        assert (names[label] if names else str(label)) == axes.get_title()
        assert np.array_equal(W[:, label].reshape(28, 28), drawn(axes))
        low, high = axes.images[0].get_clim()
        assert -(low or 0) == high == np.quantile(np.abs(W), 0.995)


def test_mistakes_are_drawn_with_true_and_predicted_label(
    page: Page, names: tuple[str, ...]
) -> None:
    figure, result, images, _ = page
    for axes, wrong in zip(figure.axes[-24:], result.mistakes[:24], strict=True):
        assert np.array_equal(images[wrong.index], drawn(axes))
        labels = [names[k] if names else str(k) for k in (wrong.label, wrong.predicted)]
        caption = re.sub(r"[\s()]+", " ", axes.get_title()).strip()
        assert f"{labels[0]} → {labels[1]} {wrong.probability:.1%}" == caption


def test_page_is_readable(page: Page) -> None:
    """Seven points are ten pixels where the page is 800 wide; nothing covers anything else."""
    figure, result, *_ = page
    assert f"m.npz on it: accuracy {result.accuracy:.2%}" == figure.get_suptitle()
    figure.draw_without_rendering()
    texts = [text for text in figure.findobj(Text) if isinstance(text, Text) and text.get_text()]
    assert min(float(text.get_fontsize()) for text in texts) >= 7
    legends = [legend for part in figure.subfigs for legend in part.legends]
    assert len(legends) == 1
    headings = [text for part in (figure, *figure.subfigs) for text in part.texts]
    labels = [label for axes in figure.axes for label in (axes.xaxis.label, axes.yaxis.label)]
    captions = [text for text in (*headings, *labels) if text.get_text()]
    captions += [axes.title for axes in figure.axes if axes.get_title()]
    boxes = [thing.get_window_extent() for thing in (*captions, *legends)]
    pictures = [axes.get_window_extent() for axes in figure.axes]
    for box in boxes:
        assert 0 <= box.x0 < box.x1 <= figure.bbox.width
        assert [box] == [other for other in (*boxes, *pictures) if box.overlaps(other)]


def test_training_run_is_drawn_epoch_by_epoch(tmp_path: Path) -> None:
    history = epochs(12)
    figure = plots.training(tmp_path / "run.png", "m.npz on mnist", history, kept=7)
    assert figure.get_suptitle() == "m.npz on mnist"
    assert ["loss", "accuracy"] == [axes.get_ylabel() for axes in figure.axes]
    for axes in figure.axes:
        *lines, mark = axes.lines
        assert ([7, 7], "kept: epoch 7") == (mark.get_xdata(), mark.get_label())
        for line, split in zip(lines, ("train", "validation"), strict=True):
            assert split == line.get_label()
            assert list(range(1, 13)) == list(np.asarray(line.get_xdata()))
            values = [getattr(epoch, f"{split}_{axes.get_ylabel()}") for epoch in history]
            assert values == list(np.asarray(line.get_ydata()))
        assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 2


@pytest.mark.parametrize("history", [epochs(1), epochs(3, validation=False), epochs(200)])
def test_run_of_any_length_is_drawn_without_a_warning(
    tmp_path: Path, history: Sequence[Epoch]
) -> None:
    figure = plots.training(tmp_path / "run.png", "m.npz", history, 1)
    judged = history[0].validation_loss is not None
    assert [2 + judged] * 2 == [len(axes.lines) for axes in figure.axes]
    assert all(tick == int(tick) for axes in figure.axes for tick in axes.get_xticks())


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf", ".PNG"])
def test_suffix_selects_the_format_and_the_bytes_repeat(tmp_path: Path, suffix: str) -> None:
    path, again = tmp_path / f"run{suffix}", tmp_path / f"again{suffix}"
    plots.training(path, "m.npz", epochs(5), 5)
    plots.training(again, "m.npz", epochs(5), 5)
    begin = {".svg": b"<?xml", ".pdf": b"%PDF-", ".png": b"\x89PNG"}[suffix.lower()]
    assert path.read_bytes().startswith(begin)
    assert path.read_bytes() == again.read_bytes()


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_perfect_model_with_a_strange_name_is_drawn_without_a_warning(
    tmp_path: Path, suffix: str
) -> None:
    """No mistakes, one filled bin, labels without images, no weights, a title of all sorts."""
    images, W = np.zeros((3, 28, 28), np.uint8), np.zeros((784, 10), np.float32)
    result = evaluate(Params(W, np.zeros(10, np.float32)), images, np.zeros(3, np.uint8))
    title = "$x^$ \\frac{ 数字 \x1b[1m\n\udcff " + "long" * 60
    figure = plots.evaluation(tmp_path / f"page{suffix}", title, result, images, W, ())
    heading = r"\$x\^\$ \\frac{ 数字 \?\[1m\?\? .*\n.*: accuracy 100\.00%"
    assert re.fullmatch(heading, figure.get_suptitle())
    assert len(panel(figure, "Reliability").patches) == 1
    assert figure.axes[3].images[0].get_clim() == (-1, 1)
    assert not any(axes.images for axes in figure.axes[-24:])


@pytest.mark.parametrize("name", ["plot.jpeg", "plot", ".png", "plot.png.gz"])
def test_other_suffixes_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(MnistError, match=f"{re.escape(name)}: .* .png, .svg or .pdf$"):
        plots.check(tmp_path / name)


def test_neither_display_nor_the_users_settings_matter(tmp_path: Path) -> None:
    """Not an unknown backend, no TeX, no odd fonts; and nothing is printed on stderr."""
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\nfont.size: 40\nsavefig.dpi: 3\n")
    (tmp_path / "file").touch()
    environment = os.environ | {
        "DISPLAY": "",
        "MPLBACKEND": "windows-of-yore",
        "SOURCE_DATE_EPOCH": "yesterday",
        "MPLCONFIGDIR": str(tmp_path / "file" / "not-a-directory"),
    }
    code = """if True:
        from pathlib import Path
        from mnist_cli import training
        from mnist_cli.output import plots
        plots.training(Path("theirs.png"), "m", [training.Epoch(1, 0.1, 1, 0.5, 1.1, 0.4, 0.1)], 1)
    """
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    plots.training(tmp_path / "mine.png", "m", epochs(1), 1)
    assert (tmp_path / "mine.png").read_bytes() == (tmp_path / "theirs.png").read_bytes()


def test_unreadable_settings_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "matplotlibrc").write_bytes(b"\xff")
    code = (
        "from mnist_cli.output import plots; from pathlib import Path; plots.check(Path('a.png'))"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert "MnistError: cannot draw a.png, as matplotlib does not load: " in done.stderr
