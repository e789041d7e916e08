import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mnist_cli import optim
from mnist_cli.network import Params

rates = st.floats(1e-6, 1e3)
shares = st.floats(0, 1)


@given(rates)
def test_cosine_falls_from_the_full_rate_through_half_of_it_to_zero(rate: float) -> None:
    assert rate == optim.learning_rate_at(0, "cosine", rate)
    assert optim.learning_rate_at(1 / 3, "cosine", rate) == pytest.approx(0.75 * rate)
    assert optim.learning_rate_at(0.5, "cosine", rate) == pytest.approx(rate / 2)
    assert optim.learning_rate_at(1, "cosine", rate) == 0


@given(rates, shares, shares)
def test_cosine_never_rises(rate: float, one: float, other: float) -> None:
    early, late = sorted((one, other))
    assert (
        rate
        >= optim.learning_rate_at(early, "cosine", rate)
        >= optim.learning_rate_at(late, "cosine", rate)
        >= 0
    )


@given(rates, shares)
def test_constant_stays(rate: float, progress: float) -> None:
    assert rate == optim.learning_rate_at(progress, "constant", rate)


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
        optim.sgd_step(params, velocity, gradients, step_rate, momentum, decay)
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
    optim.sgd_step(params, velocity, gradients, 0.1, 0.9, 0.0)
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
        optim.sgd_step(params, velocity, gradients, 1e-3, 0.9, 0.0)
    assert math.isclose(10, velocity.W.item(), rel_tol=1e-9)
