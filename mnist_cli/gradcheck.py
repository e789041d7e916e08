"""Check a derivative of softmax, and name the mistake in a wrong one.

The judge measures, by difference quotients; only a result found wrong is compared with a catalogue
of wrong formulas. z are logits (B, C), p probabilities, dp the upstream gradient ∂L/∂p, y labels.
"""

from __future__ import annotations

import inspect
import itertools
import runpy
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mnist_cli.errors import MnistError
from mnist_cli.functional import Array, cross_entropy

FUNCTIONS = {  # the arguments that each may take, and the better way to write it
    "softmax": ("z", "e = np.exp(z - z.max(-1, keepdims=True)); e / e.sum(-1, keepdims=True)"),
    "softmax_jacobian": ("z p", "p[..., :, None] * (np.eye(p.shape[-1]) - p[..., None, :])"),
    "softmax_backward": ("z p dp", "p * (dp - (dp * p).sum(axis=-1, keepdims=True))"),
    "loss_gradient": ("z p y", "(p - one_hot) / len(p), where p = softmax(z)"),
}
NAMES = {"z": "z", "logits": "z", "p": "p", "probs": "p", "dp": "dp", "dprobs": "dp", "y": "y"}
MISTAKES = {
    "input_for_output": "The input z stands where the output p belongs",
    "last_column": "Each pass of the inner loop overwrites the one before, so one column is left",
    "diagonal_only": "Only the diagonal is there, but every probability depends on every logit",
    "one_matrix_for_batch": "One matrix serves the whole batch, but every sample has its own",
    "wrong_axis": "The sum runs across the batch instead of along each row",
    "wrong_shape": "The result has the wrong shape",
    "negated": "The sign is wrong",
    "averaged_twice": "It is divided by the batch size once too often",
    "not_averaged": "The loss is a mean over the batch, so its gradient has the factor 1/B",
    "overflow": "exp overflows unless each row's maximum is subtracted first",
    "batch_maximum": "One maximum is subtracted from the whole batch, but each row needs its own",
    "saturation": "Where a probability underflows to 0, 1/p is infinite",
    "flat": "Where the loss is clipped the gradient is 0, and the worst samples are never learned",
    "modifies_input": "It changes the caller's array in place",
    "raises": "It raises an exception",
    "unknown": "No common mistake gives this result",
}
Z = np.array([[1.9, -1.1, 0.6, 0.3], [-0.7, 0.4, 1.2, -1.6], [0.8, 2.1, -0.5, -1.3]])  # (B, C)
(B, C), EYE, Y = Z.shape, np.eye(4), np.array([2, 0, 1])
DP = np.random.default_rng(0).normal(size=(B, C))
EXTREMES = (
    ("overflow", "with logits near 1,000", Z + 1000),
    ("batch_maximum", "with rows 1,000 apart", Z - 1000 * np.arange(B)[:, None]),
    ("saturation", "with the label 10,000 below", Z - 10_000 * EYE[Y]),
)
Function = Callable[..., Any]
Seen = dict[str, tuple[float, str]]  # a mistake → its error, and how it shows


class Check(NamedTuple):
    """A verdict on a function: one if it is right, or one for each of its mistakes."""

    function: str
    passed: bool
    error: float | None  # relative to the largest entry
    mistake: str | None
    message: str


def central_difference(f: Function, x: Array, step: complex = 2e-5) -> Array:
    """Return the Jacobian of `f` at `x` in float64, shape f(x).shape + x.shape.

    An imaginary step, for an analytic `f`, is free of cancellation (Squire & Trapp 1998).
    """
    columns = []
    for index in np.ndindex(x.shape):
        above, below = x.astype(type(step)), x.astype(type(step))
        above[index] += step
        below[index] -= step
        # The step really made, after rounding, is not quite 2 · step.
        columns.append(np.real((f(above) - f(below)) / (above[index] - below[index])))
    return np.stack(columns, axis=-1).reshape(np.shape(columns[0]) + x.shape)


def check_gradient(f: Function, x: Array, gradient: Array) -> None:
    """Raise AssertionError unless `gradient` is the Jacobian of `f` at `x`, within 1e-6 of it."""
    expected = central_difference(f, x)
    atol, message = 1e-6 * float(np.abs(expected).max()), "desired is the difference quotient"
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=atol, err_msg=message)


def load(path: Path) -> dict[str, Function]:
    """Run a Python file and return those of FUNCTIONS that it defines, or raise MnistError."""
    sys.path.insert(0, str(path.resolve().parent))  # where it may import from
    try:
        names = runpy.run_path(str(path))
    except (Exception, SystemExit) as error:
        raise MnistError(f"{path}: {_told(error)}") from error
    functions = {name: names[name] for name in FUNCTIONS if inspect.isfunction(names.get(name))}
    if not functions:
        raise MnistError(f"{path} defines none of {', '.join(FUNCTIONS)}")
    return functions


def check(function: Function, name: str = "") -> list[Check]:
    """Return the verdicts on a function; raise MnistError if its name or arguments are unknown."""
    name = name or getattr(function, "__name__", "")
    if name not in FUNCTIONS:
        raise MnistError(f"{name or function} is none of {', '.join(FUNCTIONS)}")
    takes = _takes(function, name)
    one_hot = {p: key.replace("y", "one_hot") for p, key in takes.items()}
    trials = [(*_judge(name, function, t, n), t, n) for n in (B, 1) for t in (takes, one_hot)]
    rank, seen, takes, n = min(trials, key=lambda trial: trial[0])
    if rank < 4:
        _extremes(name, function, takes, n, seen)
    if list(seen) == [""]:
        return [Check(name, True, seen[""][0], None, "ok" + " for one sample" * (n == 1))]
    seen.pop("", None)
    checks = []
    for mistake, (error, text) in seen.items():
        message = f"{MISTAKES[mistake]}: {text}."
        if mistake in ("wrong_axis", "not_averaged") and any(trial[0] == 2 for trial in trials):
            message += " It is right for one sample."
        checks.append(Check(name, False, error if error < np.inf else None, mistake, message))
    return checks


def _told(error: BaseException) -> str:
    """Return what was raised, and the last line of the user's file on the way there."""
    stack = traceback.extract_tb(error.__traceback__)
    frames = [f for f in stack if f.filename not in (__file__, "<frozen runpy>")]
    lines = [(f.lineno, f.line) for f in frames if f.filename == frames[0].filename]
    number, text = (lines or [(getattr(error, "lineno", 0), getattr(error, "text", ""))])[-1]
    where = f" in line {number}, {(text or '').strip()}" if number else ""
    said = getattr(error, "msg", getattr(error, "strerror", None)) or error
    return f"{type(error).__name__}{where}: {said}"


def _takes(function: Function, name: str) -> dict[str, str]:
    """Return what each parameter of the function is given."""
    parameters = inspect.signature(function).parameters.values()
    required = [p.name for p in parameters if p.default is p.empty and "*" not in str(p)]
    if name == "softmax" and len(required) == 1:
        return {required[0]: "z"}
    allowed = {n: key for n, key in NAMES.items() if key in FUNCTIONS[name][0].split()}
    if unknown := ", ".join(p for p in required if p not in allowed):
        code, names = inspect.unwrap(function).__code__, ", ".join(allowed)
        where = f"{code.co_filename}, line {code.co_firstlineno}"
        raise MnistError(f"{where}: {name} takes {unknown}, which is none of {names}")
    return {p.name: allowed[p.name] for p in parameters if p.name in allowed}


def _softmax(z: Array) -> Array:
    e = np.exp(z - z.real.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def _measure(name: str, n: int, z: Array, step: complex = 1e-20j) -> Array:
    """Return what `name` should give for the logits z (B, C); the loss is a mean over n."""
    if name == "softmax":
        return _softmax(z)
    if name == "softmax_jacobian":
        return np.einsum("bibj->bij", central_difference(_softmax, z, step))
    if name == "softmax_backward":
        return central_difference(lambda z: (DP * _softmax(z)).sum(), z, step)
    return central_difference(lambda z: cross_entropy(z, Y).sum() / n, z, step)


def _error(found: Array, measured: Array) -> float:
    return float(np.abs(found - measured).max() / np.abs(measured).max())


def _show(found: Array, measured: Array, n: int) -> tuple[float, str]:
    """Return the error, and the entry that differs most, NaN most of all, with both numbers."""
    vector = found.ndim < measured.ndim and len(found) == B
    found = np.broadcast_to(found[..., None] if vector else found, measured.shape)
    at = np.unravel_index(np.abs(found - measured).argmax(), measured.shape)
    numbers = f"it gives {found[at] + 0:.4g}, measured {measured[at]:.4g}"
    return _error(found, measured), f"at {list(map(int, at[n == 1 :]))} {numbers}"


def _catalogue(name: str, n: int) -> Iterator[tuple[str, Array]]:
    """Yield mistakes, and what `name` gives for Z with them; the loss is a mean over n."""
    e, p, one_hot = np.exp(Z), _softmax(Z), EYE[Y]
    dp = -one_hot / (n * p) if name == "loss_gradient" else DP
    for total in ((dp * p).sum(axis=0), (dp * p).sum()):
        yield "wrong_axis ", p * (dp - total)
    across, over_all, z = e / e.sum(axis=0), e / e.sum(), "input_for_output "
    factors = [("", p, p), (z, Z, Z), (z, p, Z), (z, Z, p)]
    for mistake, a, b in [*factors, *(("wrong_axis ", q, q) for q in (across, over_all))]:
        yield mistake, a if name == "softmax" else (a - one_hot) / n
        J = a[:, :, None] * (EYE - b[:, None, :])
        mean = a.mean(axis=0)[:, None] * (EYE - b.mean(axis=0))
        for more, results in (
            ("", (J, J.swapaxes(1, 2))),
            ("diagonal_only", (J * EYE, a[:, :, None] * EYE, a * (1 - b))),
            ("last_column", (J[:, :, -1], J[:, -1, :])),
            ("one_matrix_for_batch", (mean, J[0], J[-1], J.mean(axis=0), J.sum(axis=0))),
        ):
            for M in results:
                if name != "softmax_jacobian":
                    M = dp * M if M.shape == (B, C) else (dp[:, None] @ M)[:, 0]
                yield mistake + more, M


def _call(function: Function, takes: dict[str, str], n: int, z: Array) -> tuple[Array, str]:
    """Return the result for the logits z (B, C), n rows a call, and the arguments it changed."""
    values = {"z": z, "p": _softmax(z.astype(float)), "dp": DP, "y": Y, "one_hot": EYE[Y]}
    given = {p: values[key].astype(int if key == "y" else z.dtype) for p, key in takes.items()}
    copies = {p: array.copy() for p, array in given.items()}
    rows = range(B) if n == 1 else [slice(None)]
    with np.errstate(all="ignore"):
        results = [np.array(function(**{p: a[r] for p, a in copies.items()}), float) for r in rows]
    changed = " and ".join(p for p in given if np.any(copies[p] != given[p]))
    return np.stack(results) if n == 1 else results[0], changed


def _judge(name: str, function: Function, takes: dict[str, str], n: int) -> tuple[int, Seen]:
    """Return a rank (0 right, 1 named, 2 and 3 so for one sample, 4–6 neither) and mistakes."""
    try:
        found, changed = _call(function, takes, n, Z)
    except (Exception, SystemExit) as error:
        return 6, {"raises": (np.nan, _told(error))}
    measured, central = (_measure(name, n, Z, step) for step in (1e-20j, 2e-5))
    same = found.shape == measured.shape
    named = [[""]]
    if not (same and max(_error(found, measured), _error(found, central)) <= 1e-6):
        named = [
            (mistakes + sign + scale).split()
            for mistakes, result in _catalogue(name, n)
            for sign, s in (("", 1), (" negated", -1))
            for scale, k in (("", s), (" averaged_twice", s / B), (" not_averaged", s * B))
            if found.ndim <= measured.ndim and found.shape[-result.ndim :] == result.shape
            if _error(found, k * result) <= 1e-6
        ]
    if not (named or same):
        shapes = f"{found.shape[n == 1 :]} where {measured.shape[n == 1 :]} is due"
        return 5, {"wrong_shape": (np.nan, shapes)}
    mistakes = min(named, key=len, default=["unknown"])
    rank = 2 * (n == 1) + (mistakes != [""]) if named else 4
    seen = dict.fromkeys(mistakes, _show(found, measured, n))
    if changed:
        seen["modifies_input"] = (np.nan, f"after the call {changed} is not what it was")
    return rank, seen


def _extremes(name: str, function: Function, takes: dict[str, str], n: int, seen: Seen) -> None:
    """Add what goes wrong in float32 or far from 0; of a wrong function, only NaN counts."""
    limit = 1e-5 if "" in seen else np.finfo(float).max
    for dtype, (mistake, where, z) in itertools.product((np.float64, np.float32), EXTREMES):
        z = z.astype(dtype)
        try:
            found = _call(function, takes, n, z)[0]
            error, text = _show(found, _measure(name, n, z.astype(float)), n)
        except (Exception, SystemExit) as raised:
            error, text = np.nan, _told(raised)
        if error < np.inf:
            mistake = "flat" if mistake == "saturation" and not found.any() else "unknown"
        if not error <= limit and not (mistake == "batch_maximum" and "overflow" in seen):
            seen.setdefault(mistake, (error, f"{where}, {text}"))
