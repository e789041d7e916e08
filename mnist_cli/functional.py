"""The mathematics: linear, softmax, its Jacobian, cross-entropy, and the derivative of each.

Every function stands beside its derivative. B is the batch, D the inputs, C the classes; all
arrays keep their dtype, float32 or float64. The functions take any memory layout; they run
fastest on class-first arrays (Fortran order), where every operation is one pass along the batch.
"""

import functools
import math
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

# Up to so many multiplications OpenBLAS takes the product of two matrices without copying them
# first, on processors with AVX-512 (its pull request 3335); 128 images take 1,003,520.
SMALL_PRODUCT = 1_000_000


def linear(x: Array, W: Array, b: Array) -> Array:
    """Return the logits x W + b.

    x (B, D), W (D, C), b (C,) → logits (B, C), laid out class-first.
    """
    logits: Array = np.add(_product(x, W, "C"), b, order="F")
    return logits


def linear_backward(dlogits: Array, x: Array) -> tuple[Array, Array]:
    """Return ∂L/∂W = xᵀ ∂L/∂z and ∂L/∂b = Σ_batch ∂L/∂z.

    dlogits (B, C), x (B, D) → dW (D, C), db (C,).
    """
    return _product(x.T, dlogits, "F"), dlogits.sum(axis=0)


def _product(a: Array, b: Array, order: Literal["C", "F"]) -> Array:
    """Return a @ b in the memory layout `order`, the rows of `a` halved until products are small.

    a (M, K), b (K, N) → (M, N).
    """
    (rows, inner), columns, parts = a.shape, b.shape[1], 1
    while a.size * columns > parts * SMALL_PRODUCT and rows % (2 * parts) == 0:
        parts *= 2
    product = np.empty((rows, columns), np.result_type(a, b), order)
    np.matmul(a.reshape(parts, -1, inner), b, out=product.reshape(parts, -1, columns))
    return product


def softmax(logits: Array) -> Array:
    """Return the probabilities p_i = exp(z_i) / Σ_j exp(z_j).

    logits (..., C) → probs (..., C), for every finite logit and without a warning. Subtracting
    each row's own maximum changes nothing in p and keeps exp from overflowing. No probability
    falls below a small normal number, so that in the backward pass −1/p_y and p_y cancel exactly
    where p_y would have underflowed to 0.
    """
    with np.errstate(over="ignore"):  # two finite logits may lie further apart than floats reach
        shifted = logits - logits.max(axis=-1, keepdims=True)
    exps = np.exp(np.maximum(shifted, _log_floor(shifted.dtype)))
    probs: Array = exps / exps.sum(axis=-1, keepdims=True)
    return probs


@functools.cache
def _log_floor(dtype: np.dtype[Any]) -> float:
    """Return the log of the smallest normal number / epsilon: about −71 and −672.

    That far above the smallest normal number, a product p_i p_j still has all its digits for
    every p_j that is not negligible itself.
    """
    info = np.finfo(dtype)
    return math.log(info.tiny) - math.log(info.eps)


def softmax_jacobian(probs: Array) -> Array:
    """Return J_ij = ∂p_i/∂z_j = p_i (δ_ij − p_j), one matrix for each sample.

    probs (..., C) are the outputs of softmax, not its inputs → (..., C, C).
    """
    jacobian: Array = _identity(probs.shape[-1], probs.dtype) - probs[..., None, :]
    jacobian *= probs[..., :, None]
    return jacobian


@functools.cache
def _identity(classes: int, dtype: np.dtype[Any]) -> Array:
    """Return δ_ij, made once: at this size that takes as long as computing with it."""
    return np.eye(classes, dtype=dtype)


def softmax_backward(dprobs: Array, probs: Array) -> Array:
    """Return ∂L/∂z = (∂L/∂p) J, the upstream gradient times the Jacobian of each sample.

    dprobs (..., C), probs (..., C) → dlogits (..., C).
    """
    dlogits: Array = np.einsum("...i,...ij->...j", dprobs, softmax_jacobian(probs))
    return dlogits


def cross_entropy(logits: Array, y: Array) -> Array:
    """Return each sample's −log p_y, by log-sum-exp: exact where p_y itself would underflow.

    logits (B, C), y (B,) integers in [0, C) → losses (B,), in nats. A loss beyond the largest
    float is inf, without a warning.
    """
    top = logits.max(axis=1)
    with np.errstate(over="ignore"):
        log_sum_exp = np.log(np.exp(logits - top[:, None]).sum(axis=1))
        losses: Array = log_sum_exp + (top - logits[np.arange(len(y)), y])
    return losses


def cross_entropy_backward(probs: Array, y: Array) -> Array:
    """Return ∂L/∂p of the batch's mean cross-entropy: −1/(B p_y) at the label, 0 elsewhere.

    probs (B, C), y (B,) integers in [0, C) → dprobs (B, C).
    """
    batch, classes = probs.shape
    one_hot = _identity(classes, probs.dtype).take(y, axis=1).T  # (B, C), laid out class-first
    dprobs: Array = one_hot / (-batch * probs)
    return dprobs
