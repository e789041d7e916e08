import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mnist_cli import evaluation, network, training
from mnist_cli.config import Config
from mnist_cli.errors import TrainingError
from mnist_cli.network import Params
from mnist_cli.training import Epoch, State

Digits = tuple[Any, Any]
CONFIG = Config(
    epochs=3,
    batch_size=50,
    learning_rate=0.1,
    momentum=0.9,
    weight_decay=0.0,
    schedule="cosine",
    validation_size=200,
    patience=0,
)


def states(digits: Digits, config: Config) -> list[State]:
    return list(training.train(training.start(), *digits, config))


def histories(digits: Digits, config: Config) -> list[Epoch]:
    return [state.last for state in states(digits, config)]


def bits(state: State) -> list[bytes]:
    return [array.tobytes("C") for array in (*state.params, *state.velocity, *state.best)]


def test_it_learns(digits: Digits) -> None:
    first, *_, last = histories(digits, Config(epochs=8, batch_size=20, validation_size=200))

    assert last.train_loss < first.train_loss
    assert last.validation_accuracy is not None
    assert last.validation_accuracy > 0.7


def test_the_same_seed_gives_the_same_bits_and_another_others(digits: Digits) -> None:
    one, two = states(digits, CONFIG)[-1], states(digits, CONFIG)[-1]
    other = states(digits, dataclasses.replace(CONFIG, seed=1))[-1]

    assert bits(one) == bits(two)
    assert all(left != right for left, right in zip(bits(one), bits(other), strict=True))


def test_no_global_random_state_is_read_or_changed(digits: Digits) -> None:
    np.random.seed(1)
    before = repr(np.random.get_state())
    one = states(digits, CONFIG)[-1]

    assert repr(np.random.get_state()) == before
    np.random.seed(2)
    assert bits(states(digits, CONFIG)[-1]) == bits(one)


def test_each_epoch_has_an_order_of_its_own(digits: Digits) -> None:
    config = dataclasses.replace(CONFIG, schedule="constant", epochs=2)
    first, second = states(digits, config)
    as_if_first = dataclasses.replace(first, last=training.BEFORE)

    assert bits(next(training.train(as_if_first, *digits, config))) != bits(second)


def test_an_earlier_state_is_not_changed_by_going_on(digits: Digits) -> None:
    begin = training.start()
    before = bits(begin)
    steps = training.train(begin, *digits, CONFIG)
    first = next(steps)
    after_first = bits(first)
    list(steps)

    assert bits(begin) == before
    assert bits(first) == after_first


@pytest.mark.parametrize("done", [0, 1, 2])
def test_going_on_from_any_state_gives_the_same_bits(digits: Digits, done: int) -> None:
    found = [training.start(), *states(digits, CONFIG)]

    *_, last = training.train(found[done], *digits, CONFIG)

    assert bits(last) == bits(found[-1])


def test_the_figures_of_an_epoch(digits: Digits) -> None:
    """The first is the mean over its minibatches; with one minibatch, that of the start."""
    images, labels = digits
    fields: dict[str, Any] = {
        "epochs": 1,
        "batch_size": 1000,
        "validation_size": 0,
        "learning_rate": 0.5,
    }
    config = dataclasses.replace(CONFIG, **fields)
    [state] = states(digits, config)
    start = training.start()
    loss, accuracy = evaluation.loss_and_accuracy(start.params, images, labels, np.arange(1000))

    epoch = state.last

    assert epoch.train_loss == pytest.approx(loss, rel=1e-5)
    assert epoch.train_accuracy == accuracy
    assert (epoch.validation_loss, epoch.validation_accuracy) == (None, None)
    assert epoch.learning_rate == 0.5


def test_the_learning_rates_told_are_those_of_the_schedule(digits: Digits) -> None:
    found = histories(digits, CONFIG)

    expected = [0.05 * (1 + math.cos(math.pi * epoch / 3)) for epoch in range(3)]
    assert [epoch.learning_rate for epoch in found] == pytest.approx(expected)


def test_validation_images_are_never_trained_on(digits: Digits) -> None:
    """Whatever their labels say, the parameters come out the same; the figures do not."""
    images, labels = digits
    training_part, validation_part = training.split(1000, CONFIG)
    assert len(validation_part) == 200
    assert sorted([*training_part, *validation_part]) == list(range(1000))
    wrong = labels.copy()
    wrong[validation_part] = (wrong[validation_part] + 1) % 10

    right, misled = states(digits, CONFIG)[-1], states((images, wrong), CONFIG)[-1]

    assert bits(right)[:4] == bits(misled)[:4]
    told = [state.last.validation_accuracy or 0.0 for state in (misled, right)]
    assert told[0] < told[1]


@pytest.mark.parametrize("size", [1000, 5000])
def test_a_validation_size_that_leaves_nothing_is_refused(digits: Digits, size: int) -> None:
    config = dataclasses.replace(CONFIG, validation_size=size)

    with pytest.raises(TrainingError, match=f"{size} leaves none of the 1000 images"):
        states(digits, config)


LOSSES = st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.4]), min_size=1, max_size=8)


def state_after(losses: list[float]) -> State:
    """Return the state after epochs with these validation losses."""
    epochs = [
        Epoch(number, 0.1, 1.0, 0.5, loss, 0.5, 1.0) for number, loss in enumerate(losses, start=1)
    ]
    best = min(epochs, key=lambda epoch: epoch.validation_loss or 0)
    return dataclasses.replace(training.start(), last=epochs[-1], best_epoch=best)


@given(LOSSES, st.integers(1, 4))
def test_patience_counts_epochs_without_a_lower_validation_loss(
    losses: list[float], patience: int
) -> None:
    lowest, waited, stopped = math.inf, 0, False
    for loss in losses:  # in the words of the documentation
        waited = 0 if loss < lowest else waited + 1
        lowest = min(lowest, loss)
        stopped = waited >= patience

    assert stopped is state_after(losses).is_done(Config(epochs=100, patience=patience))


def test_without_patience_nothing_but_the_epochs_ends_a_run() -> None:
    state = state_after([0.1] + [0.4] * 7)

    assert not state.is_done(Config(epochs=9))
    assert state.is_done(Config(epochs=8))
    assert not training.start().is_done(Config(epochs=1, patience=1))


def test_patience_keeps_the_best_parameters_and_else_the_last_are_kept(digits: Digits) -> None:
    config = dataclasses.replace(CONFIG, epochs=60, learning_rate=1.0, patience=2)
    found = states(digits, config)
    last = found[-1]
    lowest = min((s.last.validation_loss or 0, s.last.epoch) for s in found)[1]
    assert lowest + 2 == len(found)

    params, epoch = last.final(config)

    assert found[lowest - 1].last == epoch
    assert found[lowest - 1].params.W.tobytes() == params.W.tobytes() != last.params.W.tobytes()
    judged = evaluation.loss_and_accuracy(params, *digits, training.split(1000, config)[1])
    assert (epoch.validation_loss, epoch.validation_accuracy) == judged

    without = dataclasses.replace(config, patience=0)
    assert (last.params, last.last) == last.final(without)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"learning_rate": 1000, "batch_size": 1000, "validation_size": 0, "epochs": 9}, "rate"),
        ({"learning_rate": 1000, "weight_decay": 1}, r"rate \(1000\) or the weight decay \(1\)$"),
        ({"weight_decay": 1000}, r"epoch 1: .* rate \(0.1\) or the weight decay \(1000\)$"),
    ],
)
def test_a_divergence_is_told_with_the_epoch_and_what_to_lower(
    digits: Digits, fields: dict[str, Any], words: str
) -> None:
    """Without a warning of numpy's, and before any figure that is no number."""
    config = dataclasses.replace(CONFIG, **fields)

    with pytest.raises(TrainingError, match=words):
        states(digits, config)


@pytest.mark.parametrize("learning_rate", [1, 2, 5, 20])
def test_a_high_learning_rate_is_no_divergence(digits: Digits, learning_rate: float) -> None:
    last = states(digits, dataclasses.replace(CONFIG, learning_rate=learning_rate))[-1]

    assert all(np.isfinite(array).all() for array in last.params)
    assert math.isfinite(last.last.train_loss)


def test_the_largest_parameters_make_finite_logits() -> None:
    params = Params(
        np.full((784, 10), network.LARGEST, np.float32),
        np.full(10, network.LARGEST, np.float32),
    )

    assert np.isfinite(network.forward(params, np.ones((2, 784), np.float32))).all()


def rate_at(progress: float, schedule: str, rate: float) -> float:
    config = Config(schedule=schedule, learning_rate=rate)
    return training.learning_rate_at(progress, config)


rates = st.floats(1e-6, 1e3)
shares = st.floats(0, 1)


@given(rates)
def test_cosine_falls_from_the_full_rate_through_half_of_it_to_zero(rate: float) -> None:
    assert rate == rate_at(0, "cosine", rate)
    assert rate_at(1 / 3, "cosine", rate) == pytest.approx(0.75 * rate)
    assert rate_at(0.5, "cosine", rate) == pytest.approx(rate / 2)
    assert rate_at(1, "cosine", rate) == 0


@given(rates, shares, shares)
def test_cosine_never_rises(rate: float, one: float, other: float) -> None:
    early, late = sorted((one, other))
    assert rate >= rate_at(early, "cosine", rate) >= rate_at(late, "cosine", rate) >= 0


@given(rates, shares)
def test_constant_stays(rate: float, progress: float) -> None:
    assert rate == rate_at(progress, "constant", rate)


@settings(deadline=None)
@given(
    rate=st.floats(1e-3, 1),
    momentum=st.floats(0, 0.99),
    decay=st.sampled_from([0.0, 1e-4, 0.1]),
    seed=st.integers(0, 2**32 - 1),
)
def test_steps_follow_the_recurrence_written_out(
    rate: float, momentum: float, decay: float, seed: int
) -> None:
    """Velocity v ← momentum · v + (gradient + decay · w), weight w ← w − rate · v."""
    rng = np.random.default_rng(seed)
    params = Params(rng.normal(size=(3, 2)), rng.normal(size=2))
    velocity = Params(np.zeros((3, 2)), np.zeros(2))
    w, c = float(params.W[1, 0]), float(params.b[1])
    v_w = v_c = 0.0
    for step in range(4):
        step_rate = rate / (step + 1)
        gradients = Params(rng.normal(size=(3, 2)), rng.normal(size=2))
        g_w, g_c = float(gradients.W[1, 0]), float(gradients.b[1])
        config = Config(momentum=momentum, weight_decay=decay)
        training.sgd_step(params, velocity, gradients, step_rate, config)
        v_w = momentum * v_w + g_w + decay * w
        v_c = momentum * v_c + g_c
        w -= step_rate * v_w
        c -= step_rate * v_c
    actual = [params.W[1, 0], params.b[1], velocity.W[1, 0], velocity.b[1]]
    assert actual == pytest.approx([w, c, v_w, v_c], rel=1e-12, abs=1e-12)


def test_a_step_changes_float32_arrays_in_place() -> None:
    params = Params(np.ones((2, 2), np.float32), np.ones(2, np.float32))
    velocity = Params(np.zeros((2, 2), np.float32), np.zeros(2, np.float32))
    gradients = Params(np.full((2, 2), 0.5, np.float32), np.full(2, 0.25, np.float32))
    training.sgd_step(params, velocity, gradients, 0.1, Config(weight_decay=0))
    assert np.float32 == params.W.dtype == velocity.b.dtype
    np.testing.assert_allclose(params.W, 0.95)
    np.testing.assert_allclose(params.b, 0.975)
    np.testing.assert_array_equal(velocity.W, gradients.W)
    np.testing.assert_array_equal(velocity.b, gradients.b)


def test_constant_gradients_reach_the_terminal_velocity() -> None:
    """With momentum m, a constant gradient g is in the end followed at g / (1 − m)."""
    params = Params(np.zeros((1, 1)), np.zeros(1))
    velocity = Params(np.zeros((1, 1)), np.zeros(1))
    for _ in range(400):
        gradients = Params(np.ones((1, 1)), np.ones(1))
        training.sgd_step(params, velocity, gradients, 1e-3, Config(weight_decay=0))
    assert math.isclose(10, velocity.W.item(), rel_tol=1e-9)
