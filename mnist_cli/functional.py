"""Softmax, its Jacobian, cross-entropy, and the derivative of each.

B is the batch, C the number of classes. Arrays keep their dtype, float32 or float64, and may have
any memory layout; class-first arrays (Fortran order) are fastest, as each step is then one pass
along the batch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

# No probability falls below exp(-70) = 4e-31, so that 1/p and p cancel where p would have been 0.
# Next to the 1 in its row, that is far less than one rounding error.
FLOOR = -70


@np.errstate(over="ignore")  # two finite logits may lie further apart than floats reach
def softmax(logits: Array) -> Array:
    """Return the probabilities p_i = exp(z_i) / Σ_k exp(z_k).

    logits (..., C), any finite numbers → probs (..., C). Subtracting each row's own maximum
    changes nothing in p and keeps exp from overflowing.
    """
    shifted = logits * 1.0 - logits.max(axis=-1, keepdims=True)
    exps = np.exp(np.maximum(shifted, FLOOR))
    return exps / exps.sum(axis=-1, keepdims=True)


def softmax_jacobian(probs: Array) -> Array:
    """Return J_ij = ∂p_i/∂z_j = p_i (δ_ij − p_j), one matrix for each sample.

    probs (..., C) are the outputs of softmax, not its inputs → (..., C, C).
    """
    identity = np.eye(probs.shape[-1], dtype=probs.dtype)
    return probs[..., :, None] * (identity - probs[..., None, :])


def softmax_backward(dprobs: Array, probs: Array) -> Array:
    """Return ∂L/∂z = (∂L/∂p) J, the upstream gradient times the Jacobian of each sample.

    dprobs (..., C), probs (..., C) → dlogits (..., C).
    """
    return np.einsum("...i,...ij->...j", dprobs, softmax_jacobian(probs))


@np.errstate(over="ignore")
def cross_entropy(logits: Array, y: Array) -> Array:
    """Return each sample's −log p_y = log Σ_k exp(z_k − max) + max − z_y.

    logits (B, C), y (B,) integers in [0, C) → losses (B,), in nats. The loss is exact where p_y
    itself would underflow; one beyond the largest float is inf.
    """
    top = logits.max(axis=1)
    log_sum_exp = np.log(np.exp(logits - top[:, None]).sum(axis=1))
    return log_sum_exp + (top - logits[np.arange(len(y)), y])


def cross_entropy_backward(probs: Array, y: Array) -> Array:
    """Return ∂L/∂p of the batch's mean cross-entropy: −1/(B p_y) at the label, 0 elsewhere.

    probs (B, C), y (B,) integers in [0, C) → dprobs (B, C). Raises ValueError for one-hot y.
    """
    if y.ndim != 1:
        raise ValueError(f"y must be integers of shape (B,), not an array of shape {y.shape}")
    one_hot = y[:, None] == np.arange(probs.shape[-1])
    return one_hot / (-len(y) * probs)
