"""The report on the terminal: every figure true, everything aligned, no colors unasked."""

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mnist_cli.data import catalogue
from mnist_cli.evaluation import Evaluation, evaluate
from mnist_cli.functional import Array
from mnist_cli.network import Params
from mnist_cli.output.report import below_one, epoch_lines, report, warnings
from mnist_cli.training import Epoch

FASHION = catalogue.FASHION_MNIST.label_names
ESCAPE = re.compile(r"\x1b\[[0-9;]*m")
matrices = arrays(np.int64, (10, 10), elements=st.integers(0, 600)).filter(np.any)


def of_matrix(matrix: Any) -> Evaluation:
    return Evaluation(np.array(matrix), 0.123456, 0.234567, np.zeros((15, 3)), [])


def lines_of(evaluation: Evaluation, names: Any = (), color: bool = False) -> list[str]:
    return report("model.npz", evaluation, names, color=color).split("\n")


def below(lines: list[str], start: str) -> list[str]:
    """Return the lines of the block whose first line begins with `start`, without that line."""
    first = next(number for number, line in enumerate(lines) if line.startswith(start))
    last = next((n for n in range(first, len(lines)) if not lines[n]), len(lines))
    return lines[first + 1 : last]


def with_errors(errors: dict[tuple[int, int], int], hits: int = 100) -> Evaluation:
    matrix = hits * np.eye(10, dtype=int)
    for cell, count in errors.items():
        matrix[cell] = count
    return of_matrix(matrix)


@pytest.mark.parametrize("judged", [(None, None), (2302.58, 1.0)])
@pytest.mark.parametrize("epochs", [1, 12, 10**9])
def test_epochs_are_a_table_of_80_columns(epochs: int, judged: tuple[Any, Any]) -> None:
    """Each figure ends below its name; so do those of other epochs."""
    lines: list[str] = []
    for number in (1, epochs):
        lines += epoch_lines(Epoch(number, 0.1, 2302.58, 0.99999, *judged, 1234.5), epochs)
    assert lines[0] == lines[2]
    ends = [[found.end() for found in re.finditer(r"\S+( loss)?", line)] for line in lines]
    assert len({len(line) for line in lines}) == 1
    assert len(lines[0]) <= 80
    assert ends[0] == ends[3]
    assert [f"{epochs}/{epochs}", "2302.5800", "99.99%"] == lines[3].split()[:3]


def test_nothing_less_than_one_is_rounded_to_one() -> None:
    assert f"{below_one(0.99999, 4):.2%}" == f"{below_one(0.9999, 4):.2%}" == "99.99%"
    assert f"{below_one(1.0, 4):.2%}" == "100.00%"
    text = "\n".join(lines_of(with_errors({(0, 1): 1}, hits=100_000)))
    assert "Accuracy                    99.99%  (1,000,000 of 1,000,001)" in text
    assert re.search(r"^0 +1\.0000  0\.9999  0\.9999", text, re.MULTILINE)


def test_figures_are_those_of_the_evaluation(digits: tuple[Array, Array]) -> None:
    W = np.random.default_rng(0).normal(size=(784, 10)).astype(np.float32) / 10
    real = evaluate(Params(W, np.zeros(10, np.float32)), *digits)
    text = "\n".join(lines_of(real))
    low, high = real.interval
    for pattern, values in {
        r"Accuracy +([\d.]+)%  \((\d+) of ([\d,]+)\)": (100 * real.accuracy, real.correct, 1000),
        r"95% interval \(Wilson\) +([\d.]+)% to ([\d.]+)%": (100 * low, 100 * high),
        r"Loss \(cross-entropy\) +([\d.]+)": (real.loss,),
        r"Brier score +([\d.]+)": (real.brier_score,),
        r"Expected calibration error +([\d.]+)  \(15 bins\)": (real.expected_calibration_error,),
    }.items():
        found = re.search(pattern, text)
        assert found, pattern
        shown = [float(group.replace(",", "")) for group in found.groups()]
        assert pytest.approx(values, abs=0.0051 if "%" in pattern else 0.000051) == shown


@given(matrices, st.sampled_from([(), FASHION]), st.sampled_from([1, 100]))
def test_confusion_matrix_is_true_and_aligned(
    matrix: Array, names: tuple[str, ...], factor: int
) -> None:
    """Its numbers end where the label above them does; no count is shown as a point."""
    header, *rows = below(lines_of(of_matrix(factor * matrix), names), "Confusion matrix")
    ends = [found.end() for found in re.finditer(r"\d", header)]
    assert [*range(10)] == [int(label) for label in header.split()]
    for label, (row, counts) in enumerate(zip(rows, factor * matrix, strict=True)):
        name = f"{label} {names[label]}" if names else str(label)
        assert row.startswith(name + " ")
        cells = list(re.finditer(r"\d+|\.", row[len(name) :]))
        assert ends == [len(name) + cell.end() for cell in cells]
        assert counts.tolist() == [int(cell[0].replace(".", "0")) for cell in cells]


@given(matrices)
def test_table_has_the_figures_of_each_label_aligned(matrix: Array) -> None:
    evaluation = of_matrix(matrix)
    rows = below(lines_of(evaluation, FASHION), "Label")
    macro = {"label": "Macro", **evaluation.macro_average, "support": evaluation.examples}
    names = (*FASHION, "average")
    for name, line, row in zip(names, rows, [*evaluation.per_class, macro], strict=True):
        figures = [float(figure.replace(",", "")) for figure in line.split()[-4:]]
        assert f"{row['label']} {name}" == " ".join(line.split()[:-4])
        expected = [row["precision"], row["recall"], row["f1"], row["support"]]
        assert pytest.approx(expected, abs=0.000051) == figures
    assert len({len(row) for row in rows}) == 1
    ends = [[found.end() for found in re.finditer(r"[\d.,]+(?= |$)", row)][-4:] for row in rows]
    assert all(ends[0] == others for others in ends)


@given(matrices, st.sampled_from([1, 600, 60_000]))
def test_report_fits_80_columns(matrix: Array, factor: int) -> None:
    """With the longest names, and up to all 60,000 images in one cell."""
    counts = np.minimum(factor * matrix, 60_000)
    lines = lines_of(of_matrix(counts), FASHION)
    assert "".join(lines).isascii()  # so that no terminal, pipe or locale can refuse it
    assert max(map(len, lines)) <= 80
    assert not [line for line in lines if line != line.rstrip()]


@given(matrices)
def test_colors_change_nothing_else(matrix: Array) -> None:
    plain = lines_of(of_matrix(matrix), color=False)
    shaded = lines_of(of_matrix(matrix), color=True)
    assert "\x1b" not in "".join(plain)
    assert plain == [ESCAPE.sub("", line) for line in shaded]


def test_shades_distinguish_hits_from_errors_and_frequent_from_rare() -> None:
    """A shaded cell sets its ink too, to be legible on dark and on light terminals."""
    errors = {(0, 1): 30, (0, 2): 3, (0, 3): 1, (0, 4): 10, (5, 6): 900}
    shown = "\n".join(lines_of(with_errors(errors, hits=300), color=True))
    codes = re.findall(r"\x1b\[38;5;16;48;5;(\d+)m *(\d+)\x1b\[0m", shown)
    shades = {int(count): code for code, count in codes}
    assert shades.keys() == {300, 30, 10, 900}
    assert len({shades[30], shades[10], shades[300], shades[900]}) == 4


def test_five_most_frequent_confusions_are_listed_in_order() -> None:
    errors = {(4, 9): 7, (9, 4): 8, (1, 7): 7, (2, 0): 6, (3, 5): 12, (8, 8): 100, (0, 6): 6}
    assert below(lines_of(with_errors(errors)), "Most frequent") == [
        "     12  3 taken for 5 (10.7% of label 3)",
        "      8  9 taken for 4 (7.4% of label 9)",
        "      7  1 taken for 7 (6.5% of label 1)",
        "      7  4 taken for 9 (6.5% of label 4)",
        "      6  0 taken for 6 (5.7% of label 0)",
    ]
    assert below(lines_of(with_errors({(6, 0): 100}), FASHION), "Most frequent") == [
        "    100  6 Shirt taken for 0 T-shirt/top (50.0% of label 6)"
    ]


def test_perfect_model_has_neither_confusions_nor_warnings() -> None:
    assert lines_of(with_errors({}))[-1] == "No confusions: every answer is right"
    assert warnings(with_errors({})) == []


def test_warnings_name_the_labels_without_a_defined_figure() -> None:
    matrix = np.diag([5] * 8 + [0, 0])
    matrix[0, 8] = 1  # 8 is predicted and not present; 9 is neither
    matrix[1] = [3] + [0] * 9  # 1 is present and never predicted
    assert warnings(of_matrix(matrix)) == [
        "precision is 0 by convention for labels never predicted: 1, 9",
        "recall is 0 by convention for labels without images: 8, 9",
        "F1 is 0 by convention for labels neither present nor predicted: 9",
    ]
