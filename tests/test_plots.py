"""The pictures: what is drawn is looked up in the figure, not in pixels."""

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

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
from PIL import Image

Page = tuple[Figure, Evaluation, Array, Params]


@pytest.fixture(scope="module")
def model(digits: tuple[Array, Array]) -> tuple[Evaluation, Array, Params]:
    """A bad model, one that has learnt the mean images only, on 1,000 digits."""
    images, labels = digits
    means = np.stack([images[labels == label].mean(axis=0).ravel() for label in range(10)], axis=1)
    W = ((means - means.mean(axis=1, keepdims=True)) / 25).astype(np.float32)
    params = Params(W, np.zeros(10, np.float32))
    return evaluate(params, images, labels), images, params


@pytest.fixture(scope="module", params=["synthetic", "kmnist", "fashion-mnist"])
def names(request: pytest.FixtureRequest) -> tuple[str, ...]:
    return catalogue.DATASETS[request.param].label_names


@pytest.fixture(scope="module")
def page(
    model: tuple[Evaluation, Array, Params],
    names: tuple[str, ...],
    tmp_path_factory: pytest.TempPathFactory,
) -> Page:
    evaluation, images, params = model
    path = tmp_path_factory.mktemp("plots") / "evaluation.png"
    return plots.evaluation(path, *model, names, "m.npz on it"), evaluation, images, params


def panel(figure: Figure, title: str) -> Axes:
    (found,) = [axes for axes in figure.axes if axes.get_title().startswith(title)]
    return found


def epochs(count: int, validation: bool = True) -> list[Epoch]:
    def judged(value: float) -> float | None:
        return value if validation else None

    return [
        Epoch(n, 0.1, 1 / n, 1 - 0.5 / n, judged(1.1 / n), judged(1 - 0.6 / n), 0.1)
        for n in range(1, count + 1)
    ]


def drawn(axes: Axes) -> Array:
    (image,) = axes.images
    return np.asarray(image.get_array())


def test_a_page_has_all_its_panels(page: Page, names: tuple[str, ...]) -> None:
    """Confusions, the diagram and its bins, ten weight images and their scale, 24 mistakes."""
    figure, evaluation, *_ = page
    assert len(figure.axes) == 1 + 2 + 10 + 1 + 24
    assert figure.get_suptitle() == f"m.npz on it: accuracy {evaluation.accuracy:.2%}"
    labels = {(axes.get_xlabel(), axes.get_ylabel()) for axes in figure.axes}
    assert {
        ("predicted label", "true label"),
        ("", "accuracy"),
        ("top probability", "images"),
        ("", "weight"),
    } < labels


def test_the_confusion_matrix_shows_counts_shaded_by_their_share(
    page: Page, names: tuple[str, ...]
) -> None:
    figure, evaluation, *_ = page
    matrix = evaluation.confusion_matrix
    axes = panel(figure, "Confusion matrix")
    assert np.array_equal(matrix / matrix.sum(axis=1, keepdims=True), drawn(axes))
    counts = {text.get_position(): text.get_text() for text in axes.texts}
    for (true, predicted), count in np.ndenumerate(matrix):
        assert counts[predicted, true] == (str(count) if count else "·")
    expected = list(names) or [str(label) for label in range(10)]
    assert expected == [text.get_text() for text in axes.get_xticklabels()]
    assert expected == [text.get_text() for text in axes.get_yticklabels()]


def test_the_reliability_diagram_shows_the_bins(page: Page) -> None:
    figure, evaluation, *_ = page
    upper = panel(figure, "Reliability")
    (lower,) = [axes for axes in figure.axes if axes.get_ylabel() == "images"]
    filled = [(k, *row) for k, row in enumerate(evaluation.calibration) if row[0]]
    assert len(filled) > 5
    for bars, heights in (
        (upper.patches, [correct / images for _, images, _, correct in filled]),
        (lower.patches, [images for _, images, *_ in filled]),
    ):
        spans = [(bar.get_x(), bar.get_width()) for bar in bars]  # type: ignore[attr-defined]
        assert np.allclose([(k / 15, 1 / 15) for k, *_ in filled], spans)
        assert np.allclose(heights, [bar.get_height() for bar in bars])  # type: ignore[attr-defined]
    means, perfect = upper.lines
    assert np.allclose([c / n for _, n, c, _ in filled], np.asarray(means.get_xdata()))
    assert np.allclose([r / n for _, n, _, r in filled], np.asarray(means.get_ydata()))
    assert np.array_equal(perfect.get_xdata(), perfect.get_ydata())
    assert f"{evaluation.expected_calibration_error:.4f}" in upper.get_title()


def test_the_weights_are_drawn_on_one_scale_about_zero(page: Page, names: tuple[str, ...]) -> None:
    figure, _, _, params = page
    for label, axes in enumerate(figure.axes[3:13]):
        assert axes.get_title() == (names[label] if names else str(label))
        assert np.array_equal(params.W[:, label].reshape(28, 28), drawn(axes))
        low, high = axes.images[0].get_clim()
        assert -(low or 0) == high == np.quantile(np.abs(params.W), 0.995)
        assert axes.images[0].get_cmap().name == "RdBu"


def test_the_mistakes_are_drawn_with_true_and_predicted_label(
    page: Page, names: tuple[str, ...]
) -> None:
    figure, evaluation, images, _ = page
    assert len(evaluation.mistakes) >= 24
    for axes, mistake in zip(figure.axes[-24:], evaluation.mistakes, strict=False):
        assert np.array_equal(images[mistake.index], drawn(axes))
        pair = (mistake.label, mistake.predicted)
        labels = [names[label] if names else str(label) for label in pair]
        caption = re.sub(r"[\s()]+", " ", axes.get_title()).strip()
        assert caption == f"{labels[0]} → {labels[1]} {mistake.probability:.1%}"


def test_everything_is_readable_and_in_its_place(page: Page) -> None:
    """Seven points are ten pixels where the page is 800 wide; no caption covers a picture."""
    figure = page[0]
    figure.draw_without_rendering()
    texts = [text for text in figure.findobj(Text) if isinstance(text, Text) and text.get_text()]
    assert min(float(text.get_fontsize()) for text in texts) >= 7
    headings = [text.get_window_extent() for text in figure.texts]
    captions = [axes.title.get_window_extent() for axes in figure.axes if axes.get_title()]
    pictures = [axes.get_window_extent() for axes in figure.axes]
    labels = [
        label.get_window_extent()
        for axes in figure.axes
        for label in (axes.xaxis.label, axes.yaxis.label)
        if label.get_text()
    ]
    for box in headings + captions + labels:
        assert box.x0 >= 0
        assert box.x1 <= figure.bbox.width
        others = [*headings, *captions, *pictures, *labels]
        assert [box] == [other for other in others if box.overlaps(other)]


def test_a_training_run_is_drawn_epoch_by_epoch(tmp_path: Path) -> None:
    history = epochs(12)
    figure = plots.training(tmp_path / "run.png", history)
    assert [axes.get_ylabel() for axes in figure.axes] == ["loss", "accuracy"]
    for axes in figure.axes:
        assert axes.get_xlabel() == "epoch"
        for line, split in zip(axes.lines, ("train", "validation"), strict=True):
            assert line.get_label() == split
            assert list(range(1, 13)) == list(np.asarray(line.get_xdata()))
            values = [getattr(epoch, f"{split}_{axes.get_ylabel()}") for epoch in history]
            assert values == list(np.asarray(line.get_ydata()))
        colors = {line.get_color() for line in axes.lines}
        styles = {line.get_linestyle() for line in axes.lines}
        assert len(colors) == len(styles) == 2


@pytest.mark.parametrize("history", [epochs(1), epochs(3, validation=False), epochs(200)])
def test_a_run_of_any_kind_is_drawn_without_a_warning(
    tmp_path: Path, history: Sequence[Epoch]
) -> None:
    figure = plots.training(tmp_path / "run.png", history)
    judged = history[0].validation_loss is not None
    assert [1 + judged] * 2 == [len(axes.lines) for axes in figure.axes]
    ticks = [tick for axes in figure.axes for tick in axes.get_xticks()]
    assert all(tick == int(tick) for tick in ticks)


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf", ".PNG"])
def test_a_picture_is_of_the_kind_its_suffix_says(tmp_path: Path, suffix: str) -> None:
    """It is valid, and drawn again it has the same bytes."""
    path, again = tmp_path / f"run{suffix}", tmp_path / f"again{suffix}"
    plots.training(path, epochs(5))
    plots.training(again, epochs(5))
    content = path.read_bytes()
    assert content == again.read_bytes()
    if suffix == ".svg":
        assert ElementTree.fromstring(content).tag.endswith("}svg")
    elif suffix == ".pdf":
        assert content.startswith(b"%PDF-")
        assert content.rstrip().endswith(b"%%EOF")
    else:
        with Image.open(path) as image:
            assert (image.format, image.width) == ("PNG", 1280)
            image.load()


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_an_evaluation_page_has_the_same_bytes_each_time(
    tmp_path: Path, model: tuple[Evaluation, Array, Params], suffix: str
) -> None:
    contents = []
    for name in ("one", "two"):
        path = tmp_path / f"{name}{suffix}"
        plots.evaluation(path, *model, (), "the model")
        contents.append(path.read_bytes())
    assert contents[0] == contents[1]


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_a_perfect_model_of_a_strange_name_is_drawn_without_a_warning(
    tmp_path: Path, suffix: str
) -> None:
    """No mistakes, one filled bin, labels without images, no weights, a title of all sorts."""
    images = np.zeros((3, 28, 28), np.uint8)
    params = Params(np.zeros((784, 10), np.float32), np.zeros(10, np.float32))
    evaluation = evaluate(params, images, np.zeros(3, np.uint8))
    title = "$x^$ \\frac{ 数字 \x1b[1m\n\udcff " + "long" * 60
    path = tmp_path / f"page{suffix}"
    figure = plots.evaluation(path, evaluation, images, params, (), title)
    assert figure.get_suptitle().startswith("$x^$ \\frac{ 数字 ?[1m?? long")
    assert figure.get_suptitle().endswith(": accuracy 100.00%")
    assert figure.get_suptitle().count("\n") == 1
    assert len(panel(figure, "Reliability").patches) == 1
    assert figure.axes[3].images[0].get_clim() == (-1, 1)
    assert not any(axes.images for axes in figure.axes[-24:])
    if suffix == ".svg":
        ElementTree.parse(path)


def test_fewer_mistakes_leave_the_rest_of_the_grid_empty(
    tmp_path: Path, model: tuple[Evaluation, Array, Params]
) -> None:
    _, images, params = model
    labels = (images.reshape(-1, 784) @ params.W).argmax(axis=1)
    labels[5] = (labels[5] + 1) % 10
    evaluation = evaluate(params, images, labels)
    figure = plots.evaluation(tmp_path / "page.png", evaluation, images, params, (), "m")
    assert [bool(axes.images) for axes in figure.axes[-24:]] == [True] + [False] * 23
    assert np.array_equal(images[5], drawn(figure.axes[-24]))


@pytest.mark.parametrize("name", ["plot.jpeg", "plot", ".png", "plot.png.gz"])
def test_another_suffix_is_refused_by_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(MnistError, match=f"{re.escape(name)}: .* .png, .svg or .pdf$"):
        plots.check(tmp_path / name)


def test_without_matplotlib_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MnistError) as caught:
        plots.check(Path("run.svg"))
    expected = "cannot draw run.svg without matplotlib: pip install 'mnist-cli[plot]'"
    assert expected == str(caught.value)


def test_a_picture_that_cannot_be_written_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(MnistError, match=r"cannot write .*nowhere.run\.png"):
        plots.training(tmp_path / "nowhere" / "run.png", epochs(2))


def test_neither_display_nor_the_users_settings_matter(tmp_path: Path) -> None:
    """Not a broken choice of windows, no TeX, no odd fonts; and nothing is said on stderr."""
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\nfont.size: 40\nsavefig.dpi: 3\n")
    (tmp_path / "file").touch()
    environment: dict[str, Any] = {
        **{k: v for k, v in os.environ.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY")},
        "MPLBACKEND": "windows-of-yore",
        "MATPLOTLIBRC": str(tmp_path / "matplotlibrc"),
        "MPLCONFIGDIR": str(tmp_path / "file" / "not-a-directory"),
    }
    code = (
        "import sys; from pathlib import Path; from mnist_cli import training;"
        "from mnist_cli.output import plots;"
        "history = [training.Epoch(n, 0.1, 1 / n, 0.5, 1.1 / n, 0.5, 0.1) for n in range(1, 6)];"
        "plots.training(Path('theirs.png'), history);"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    history = [Epoch(n, 0.1, 1 / n, 0.5, 1.1 / n, 0.5, 0.1) for n in range(1, 6)]
    plots.training(tmp_path / "mine.png", history)
    assert (tmp_path / "mine.png").read_bytes() == (tmp_path / "theirs.png").read_bytes()


def test_matplotlib_is_imported_only_to_draw() -> None:
    code = (
        "import sys, mnist_cli.output.plots, mnist_cli.output.report;"
        "assert 'matplotlib' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
