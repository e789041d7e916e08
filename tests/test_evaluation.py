"""The figures of an evaluation, against formulas written here a second time."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mnist_cli.evaluation import Evaluation, Mistake, evaluate, loss_and_accuracy
from mnist_cli.functional import Array
from mnist_cli.network import Params, predict

# Numbers that stay what they are, divided by 255 and multiplied again.
logit = st.integers(-640, 640).map(lambda k: 255 * k / 4096)
cases = st.integers(1, 40).flatmap(
    lambda n: st.tuples(
        arrays(np.float32, (n, 10), elements=logit),
        arrays(np.uint8, n, elements=st.integers(0, 9)),
    )
)


def network_of(logits: Array, repeat: int = 1) -> tuple[Params, Array]:
    """A model and images to which it gives just these logits: image i lights pixel i alone."""
    n = len(logits)
    images = np.zeros((n * repeat, 784), np.uint8)
    images[np.arange(n * repeat), np.arange(n * repeat) % n] = 255
    W = np.zeros((784, 10), np.float32)
    W[:n] = logits
    return Params(W, np.zeros(10, np.float32)), images.reshape(-1, 28, 28)


def evaluate_logits(logits: Any, labels: Any, repeat: int = 1) -> Evaluation:
    params, images = network_of(np.array(logits, np.float32), repeat)
    return evaluate(params, images, np.array(list(labels) * repeat, np.uint8))


def of_matrix(matrix: Any) -> Evaluation:
    return Evaluation(np.array(matrix), 0.5, 0.25, np.zeros((15, 3)), [])


def of_counts(correct: int, examples: int) -> Evaluation:
    matrix = np.zeros((10, 10), int)
    matrix[3, 3], matrix[3, 5] = correct, examples - correct
    return of_matrix(matrix)


def probabilities(row: Array) -> list[float]:
    exps = [math.exp(float(z) - float(max(row))) for z in row]
    return [e / math.fsum(exps) for e in exps]


@given(cases)
def test_loss_and_brier_score_are_means_of_their_definitions(case: tuple[Array, Array]) -> None:
    logits, labels = case
    losses, scores = [], []
    for row, y in zip(logits, labels, strict=True):
        probs = probabilities(row)
        losses.append(-math.log(probs[y]))
        scores.append(sum((p - (c == y)) ** 2 for c, p in enumerate(probs)))
    result = evaluate_logits(logits, labels)
    assert np.mean(losses) == pytest.approx(result.loss, rel=1e-6, abs=1e-6)
    assert np.mean(scores) == pytest.approx(result.brier_score, rel=1e-6, abs=1e-6)


@given(cases)
def test_confusion_matrix_counts_true_labels_by_predictions(case: tuple[Array, Array]) -> None:
    logits, labels = case
    expected = np.zeros((10, 10), int)
    for row, y in zip(logits.tolist(), labels, strict=True):
        expected[y, row.index(max(row))] += 1
    result = evaluate_logits(logits, labels)
    assert expected.tolist() == result.confusion_matrix.tolist()
    assert (len(labels), int(np.trace(expected))) == (result.examples, result.correct)
    assert result.correct / len(labels) == result.accuracy


@given(cases)
def test_calibration_error_is_the_weighted_gap_of_fifteen_bins(case: tuple[Array, Array]) -> None:
    logits, labels = case
    bins: dict[int, list[tuple[float, bool]]] = {}
    for row, y in zip(logits, labels, strict=True):
        top = max(probabilities(row))
        edge = round(15 * top)
        assume(edge == 15 or abs(15 * top - edge) > 1e-9)  # the edges have tests of their own
        number = next(k for k in range(15) if k / 15 < top <= (k + 1) / 15)
        bins.setdefault(number, []).append((top, int(row.argmax()) == y))
    gaps = [abs(sum(right for _, right in b) - math.fsum(p for p, _ in b)) for b in bins.values()]
    result = evaluate_logits(logits, labels)
    expected = sum(gaps) / len(labels)
    assert expected == pytest.approx(result.expected_calibration_error, rel=1e-9, abs=1e-12)
    for number, (images, confidence, correct) in enumerate(result.calibration):
        inside = bins.get(number, [])
        assert (len(inside), sum(right for _, right in inside)) == (images, correct)
        assert math.fsum(p for p, _ in inside) == pytest.approx(confidence, rel=1e-12)


@pytest.mark.parametrize(("equals", "number"), [(1, 14), (3, 4), (5, 2)])
def test_a_probability_on_an_edge_belongs_to_the_bin_below(equals: int, number: int) -> None:
    """1/1, 1/3 and 1/5 are upper edges, which are closed."""
    result = evaluate_logits([[0.0] * equals + [-1e4] * (10 - equals)], [0])
    assert [number] == np.flatnonzero(result.calibration[:, 0]).tolist()
    assert 1 / equals == result.calibration[number, 1]


def test_a_probability_just_above_an_edge_belongs_to_the_bin_above() -> None:
    result = evaluate_logits([[1e-6, 0, 0, *[-1e4] * 7]], [0])
    assert np.flatnonzero(result.calibration[:, 0]).tolist() == [5]


@given(cases)
def test_per_class_figures_are_those_of_scikit_learn(case: tuple[Array, Array]) -> None:
    """By its definitions: 0 where there is nothing to divide by; macro: the plain mean of ten."""
    logits, labels = case
    predicted = logits.argmax(axis=1)
    result = evaluate_logits(logits, labels)
    assert list(range(10)) == [row["label"] for row in result.per_class]
    for label, row in enumerate(result.per_class):
        hits = sum((labels == label) & (predicted == label))
        precision = hits / max(sum(predicted == label), 1)
        recall = hits / max(sum(labels == label), 1)
        f1 = 2 * precision * recall / (precision + recall) if hits else 0.0
        assert pytest.approx((precision, recall, f1), abs=1e-15) == (
            row["precision"],
            row["recall"],
            row["f1"],
        )
        assert sum(labels == label) == row["support"]
    for figure, mean in result.macro_average.items():
        assert sum(row[figure] for row in result.per_class) / 10 == pytest.approx(mean)


def test_a_label_without_images_counts_as_zero() -> None:
    """It lowers the macro average, though every answer is right."""
    result = of_matrix(np.diag([5, 0, *[5] * 8]))
    nothing = {"label": 1, "precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0}
    assert nothing == result.per_class[1]
    assert pytest.approx({"precision": 0.9, "recall": 0.9, "f1": 0.9}) == result.macro_average


@pytest.mark.parametrize(
    ("correct", "examples", "low", "high"),
    # Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I, method 3
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_the_interval_is_wilsons(correct: int, examples: int, low: float, high: float) -> None:
    assert pytest.approx((low, high), abs=5e-5) == of_counts(correct, examples).interval


@given(st.integers(1, 60_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_lies_in_0_to_1_and_solves_wilsons_equation(case: tuple[int, int]) -> None:
    """At both ends |accuracy − end| = z √(end (1 − end) / n)."""
    correct, n = case
    result = of_counts(correct, n)
    low, high = result.interval
    assert 0 <= low <= result.accuracy + 1e-12
    assert result.accuracy - 1e-12 <= high <= 1
    for end in (low, high):
        square = 1.959963984540054**2 * end * (1 - end) / n
        assert (result.accuracy - end) ** 2 == pytest.approx(square, rel=1e-6, abs=1e-12)


def test_many_images_are_evaluated_as_few_are() -> None:
    """Blocks of images change nothing, the last and shorter one included."""
    rng = np.random.default_rng(7)
    logits, labels = rng.normal(0, 3, (700, 10)), rng.integers(0, 10, 700)
    few, many = evaluate_logits(logits, labels), evaluate_logits(logits, labels, repeat=5)
    assert (5 * few.confusion_matrix).tolist() == many.confusion_matrix.tolist()
    assert np.allclose(5 * few.calibration, many.calibration, rtol=1e-12)
    for figure in ("accuracy", "loss", "brier_score", "expected_calibration_error"):
        assert getattr(few, figure) == pytest.approx(getattr(many, figure), rel=1e-12)


def test_mistakes_are_all_wrong_answers_the_most_confident_first() -> None:
    rng = np.random.default_rng(8)
    logits, labels = rng.normal(0, 3, (780, 10)).astype(np.float32), rng.integers(0, 10, 780)
    wrong = [
        Mistake(1 * 780 + i, int(y), int(row.argmax()), max(probabilities(row)))
        for i, (row, y) in enumerate(zip(logits, labels, strict=True))
        if row.argmax() != y
    ]
    expected = sorted(wrong, key=lambda mistake: -mistake.probability)
    params, images = network_of(logits, repeat=2)

    mistakes = evaluate(params, images, np.concatenate([logits.argmax(axis=1), labels])).mistakes

    assert [m.index for m in expected] == [m.index for m in mistakes]
    assert [(m.label, m.predicted) for m in expected] == [(m.label, m.predicted) for m in mistakes]
    assert pytest.approx([m.probability for m in expected], rel=1e-6) == [
        m.probability for m in mistakes
    ]


def test_a_hopeless_answer_has_an_exact_loss() -> None:
    """The loss is the gap of the logits, where the probability has long underflowed."""
    result = evaluate_logits([[1e4, *[0.0] * 9]], [4])
    assert (result.loss, result.brier_score) == (1e4, 2.0)


@given(cases)
def test_loss_and_accuracy_of_some_images_are_those_of_their_evaluation(
    case: tuple[Array, Array],
) -> None:
    logits, labels = case
    params, images = network_of(logits)
    chosen = np.arange(0, len(labels), 2)
    whole = evaluate(params, images[chosen], labels[chosen])
    loss, accuracy = loss_and_accuracy(params, images, labels, chosen)
    assert whole.accuracy == accuracy
    assert whole.loss == pytest.approx(loss, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("gap", [0, 1e-30])
def test_of_equal_probabilities_the_first_is_the_answer(gap: float) -> None:
    """Also where tiny differences are lost in them; `predict` picks by the same probabilities."""
    logits = np.zeros((1, 10), np.float32)
    logits[0, 6] = gap
    params, images = network_of(logits)
    result = evaluate(params, images, np.array([0], np.uint8))
    assert (result.accuracy, predict(params, images)[0].argmax()) == (1, 0)


def test_json_has_the_documented_names_and_plain_numbers() -> None:
    result = of_matrix(np.arange(100).reshape(10, 10))
    document = result.to_json()
    assert [
        *("examples", "correct", "accuracy", "loss", "brier_score"),
        *("expected_calibration_error", "confusion_matrix", "per_class", "macro_average"),
    ] == list(document)
    assert {int, float} >= {type(value) for value in list(document.values())[:6]}
    assert np.arange(100).reshape(10, 10).tolist() == document["confusion_matrix"]
    assert list(document["per_class"][0]) == ["label", "precision", "recall", "f1", "support"]
