import contextlib
import inspect
import itertools
import json
import random
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result

from mnist_cli import functional, gradcheck
from mnist_cli.errors import MnistError
from mnist_cli.functional import Array
from mnist_cli.gradcheck import central_difference, check

Invoke = Callable[..., Result]

SOFTMAX = "e = np.exp(z - z.max(-1, keepdims=True)); p = e / e.sum(-1, keepdims=True)"
LOOP = """def softmax_jacobian(p, z):
    J = np.zeros((len(p), len(p)))
    for i in range(len(p)):
        for j in range(len(p)):
            J[i, j] = p[i] * ((i == j) - p[j])
    return J"""
QUESTION = """def softmax_jacobian(z, p):
    gradient = np.zeros(len(p))
    for i in range(len(p)):
        for j in range(len(z)):
            if i == j:
                gradient[i] = p[i] * (1 - z[i])
            else:
                gradient[i] = -p[i] * z[j]
    return gradient"""

RIGHT = (
    "softmax(x): e = np.exp(x - x.max(-1, keepdims=True)); e / e.sum(-1, keepdims=True)",
    LOOP,
    "softmax_jacobian(p): np.diag(p) - np.outer(p, p)",
    "softmax_jacobian(z): e = np.exp(z - z.max()); p = e / e.sum(); np.diag(p) - np.outer(p, p)",
    "softmax_jacobian(probs): probs[:, :, None] * (np.eye(probs.shape[1]) - probs[:, None, :])",
    "softmax_jacobian(p, z=None): np.stack([np.diag(q) - np.outer(q, q) for q in p])",
    "softmax_jacobian(p): p[..., None] * np.eye(p.shape[-1]) - np.einsum('bi,bj->bij', p, p)",
    "softmax_backward(dp, p): p * (dp - (dp * p).sum(axis=-1, keepdims=True))",
    "softmax_backward(probs, dprobs): probs * (dprobs - dprobs @ probs)",
    "softmax_backward(dp, p): (np.diag(p) - np.outer(p, p)) @ dp",
    f"softmax_backward(z, dp): {SOFTMAX}; p * dp - p * (p * dp).sum(-1, keepdims=True)",
    "loss_gradient(p, y): g = p.copy(); g[np.arange(len(y)), y] -= 1; g / len(y)",
    "loss_gradient(y, p): (p - y) / len(p)",
    "loss_gradient(p, y): g = p.copy(); g[y] -= 1; g",
)

WRONG = (
    ("wrong_axis", "softmax(z): e = np.exp(z - z.max()); e / e.sum()"),
    ("wrong_axis", "softmax(z): e = np.exp(z - z.max(axis=0)); e / e.sum(axis=0)"),
    ("wrong_axis overflow", "softmax(x): e = np.exp(x); e / np.sum(e)"),
    ("overflow", "softmax(z): e = np.exp(z); e / e.sum(-1, keepdims=True)"),
    ("batch_maximum", "softmax(z): e = np.exp(z - z.max()); e / e.sum(-1, keepdims=True)"),
    ("modifies_input", f"softmax(z): z -= z.max(-1, keepdims=True); {SOFTMAX}; p"),
    ("input_for_output last_column", QUESTION),
    ("last_column", QUESTION.replace("z[", "p[")),
    ("input_for_output", LOOP.replace("- p[j]", "- z[j]")),
    ("input_for_output", LOOP.replace("J[i, j]", "J[j, i]").replace("- p[j]", "- z[j]")),
    ("input_for_output", "softmax_jacobian(z): np.diag(z) - np.outer(z, z)"),
    ("diagonal_only", "softmax_jacobian(p): p * (1 - p)"),
    ("diagonal_only", "softmax_jacobian(p): np.diag(p * (1 - p))"),
    ("diagonal_only", "softmax_jacobian(p): np.diag(p)"),
    ("diagonal_only", "softmax_backward(dp, p): dp * p * (1 - p)"),
    ("diagonal_only", "loss_gradient(p, y): -y * (1 - p) / len(p)"),
    ("one_matrix_for_batch", "softmax_jacobian(p): q = p.mean(0); np.diag(q) - np.outer(q, q)"),
    ("one_matrix_for_batch", "softmax_jacobian(p): np.diag(p.mean(axis=0)) - p.T @ p / len(p)"),
    ("one_matrix_for_batch", "softmax_backward(dp, p): q = p[0]; q * (dp - (dp @ q)[:, None])"),
    ("wrong_axis", "softmax_backward(dp, p): p * (dp - (dp * p).sum())"),
    ("wrong_axis", "softmax_backward(dp, p): p * (dp - (dp * p).sum(axis=0))"),
    ("input_for_output", "softmax_backward(dp, z): z * (dp - (dp * z).sum(-1, keepdims=True))"),
    ("negated", "softmax_jacobian(p): np.outer(p, p) - np.diag(p)"),
    ("negated not_averaged", "loss_gradient(p, y): np.eye(p.shape[1])[y] - p"),
    ("not_averaged", "loss_gradient(p, y): p - y"),
    ("averaged_twice", "loss_gradient(p, y): (p - y) / len(p) / len(p)"),
    ("batch_maximum", "loss_gradient(z, y): e = np.exp(z - z.max()); "
                      "(e / e.sum(-1, keepdims=True) - y) / len(y)"),
    ("saturation", f"loss_gradient(z, y): {SOFTMAX}; d = -y / (len(p) * p); "
                   "p * (d - (d * p).sum(-1, keepdims=True))"),
    ("saturation", f"loss_gradient(z, y): {SOFTMAX}; p = np.maximum(p, p.dtype.type(1e-300)); "
                   "d = -y / (len(p) * p); p * (d - (d * p).sum(-1, keepdims=True))"),
    ("flat", f"loss_gradient(z, y): {SOFTMAX}; d = -y / (len(p) * np.maximum(p, 1e-12)); "
             "p * (d - (d * p).sum(-1, keepdims=True))"),
    ("wrong_shape", "softmax_jacobian(p): None"),
    ("raises", "softmax_jacobian(p): np.diag(p) - np.outer(p, q)"),
    ("unknown", "softmax_backward(dp, p): dp - p * dp.sum(axis=-1, keepdims=True)"),
)  # fmt: skip


def source(text: str) -> str:
    """Return the definition that "name(arguments): statement; …; result" stands for."""
    if text.startswith("def "):
        return text
    head, body = text.split(": ", 1)
    *statements, result = body.split("; ")
    return f"def {head}:\n    {'; '.join([*statements, f'return {result}'])}\n"


def define(text: str) -> Callable[..., Any]:
    names: dict[str, Any] = {"np": np}
    exec(compile(source(text), "<function>", "exec"), names)
    [function] = (value for value in names.values() if inspect.isfunction(value))
    return function


def mistakes(function: Callable[..., Any]) -> set[str | None]:
    return {verdict.mistake for verdict in check(function)}


@pytest.mark.parametrize("text", RIGHT)
def test_right_function_passes(text: str) -> None:
    [verdict] = check(define(text))
    assert (True, None, "ok") == (verdict.passed, verdict.mistake, verdict.message[:2])
    assert verdict.error is not None
    assert verdict.error < 1e-12


def test_own_functions_pass() -> None:
    def loss_gradient(z: Array, y: Array) -> Array:
        p = functional.softmax(z)
        return functional.softmax_backward(functional.cross_entropy_backward(p, y), p)

    functions = gradcheck.load(Path(functional.__file__))
    assert {"softmax", "softmax_jacobian", "softmax_backward"} == set(functions)
    assert [{None}] * 4 == [mistakes(f) for f in (*functions.values(), loss_gradient)]


@pytest.mark.parametrize(("expected", "text"), WRONG)
def test_mistake_is_named(expected: str, text: str) -> None:
    assert set(expected.split()) == mistakes(define(text))


# Right functions with one thing changed: a sign, an axis, an index, a factor, a term.
CHANGES = {
    " - ": (" + ", " * ", " - 2 * "),
    " * ": (" / ", " + ", " * 2 * "),
    "-1": ("0", "None", "1"),
    "dp": ("p", "z"),
    "p": ("z", "dp", "(1 - p)"),
    "z": ("p", "-z", "z[::-1]"),
    "keepdims=True": ("keepdims=False",),
    "[:, :, None]": ("[:, None, :]", "[:, None]"),
    "[i]": ("[j]", "[0]", "[-i]"),
    "[j]": ("[i]", "[-1]", "[0]"),
    "bi,bj->bij": ("bi,bj->bji", "bi,cj->bij", "bi,bj->ij"),
    "return ": ("return -", "return 2 * ", "return 1e-5 + ", "return 0 * "),
    ".sum(": (".mean(", ".max("),
}


def perturbed() -> list[Callable[..., Any]]:
    functions = []
    for text in RIGHT:
        head, body = source(text).split(":", 1)
        for old, news in CHANGES.items():
            for place, new in itertools.product(re.finditer(re.escape(old), body), news):
                changed = body[: place.start()] + new + body[place.end() :]
                with contextlib.suppress(SyntaxError):
                    functions.append(define(f"{head}:{changed}"))
    return random.Random(0).sample(functions, len(functions))


def right_elsewhere(function: Callable[..., Any]) -> bool:
    """Compare with the formula at logits that are not the judge's, on a batch and sample-wise."""
    z = np.random.default_rng(1).normal(size=(5, 3))
    p, dp, y = functional.softmax(z), z[::-1], np.array([0, 2, 1, 1, 0])
    name, J, one_hot = function.__name__, functional.softmax_jacobian(p), np.eye(3)[y]
    expected = {
        "softmax": p,
        "softmax_jacobian": J,
        "softmax_backward": np.einsum("bi,bij->bj", dp, J),
        "loss_gradient": (p - one_hot) / len(y),
    }[name]
    given = {"z": z, "x": z, "p": p, "probs": p, "dp": dp, "dprobs": dp}
    for labels, rows in itertools.product((y, one_hot), ([slice(None)], range(5))):
        values = given | {"y": labels}
        arguments = [values[n].copy() for n in inspect.signature(function).parameters]
        with np.errstate(all="ignore"), contextlib.suppress(Exception):
            found = np.array([function(*(a[row] for a in arguments)) for row in rows])
            found = found[0] if len(rows) == 1 else found / (5 if name == "loss_gradient" else 1)
            if found.shape == expected.shape and np.allclose(found, expected, 0, 1e-6):
                return True
    return False


def test_no_perturbation_passes_unless_it_is_right() -> None:
    judged = ((function, mistakes(function)) for function in perturbed())
    running = ((function, found) for function, found in judged if found != {"raises"})
    two_hundred = list(itertools.islice(running, 200))
    passed = [function for function, found in two_hundred if found == {None}]
    assert 200 == len(two_hundred)
    assert 10 < len(passed) < 60  # some changes change nothing
    assert all(map(right_elsewhere, passed))


def test_message_shows_the_worst_entry_found_and_measured() -> None:
    [verdict] = check(define("softmax_backward(dp, p): dp * p * (1 - p)"))
    found, measured = map(float, re.findall(r"gives (\S+), measured (\S+)\.", verdict.message)[0])
    p, dp = functional.softmax(gradcheck.Z), gradcheck.DP
    right, wrong = functional.softmax_backward(dp, p), dp * p * (1 - p)
    worst = np.unravel_index(np.abs(right - wrong).argmax(), p.shape)
    assert str([int(i) for i in worst]) in verdict.message
    np.testing.assert_allclose([found, measured], [wrong[worst], right[worst]], rtol=1e-3)
    assert abs(right - wrong).max() / abs(right).max() == pytest.approx(verdict.error)


def test_batch_mistake_that_is_right_for_one_sample_is_said_to_be() -> None:
    [verdict] = check(define("softmax(z): e = np.exp(z - z.max()); e / e.sum()"))
    assert verdict.message.endswith("It is right for one sample.")


def test_complex_step_is_exact_where_the_central_difference_rounds() -> None:
    z = gradcheck.Z[0]
    exact = functional.softmax_jacobian(functional.softmax(z))
    central, complex_step = (
        abs(central_difference(functional.softmax, z, step) - exact).max()
        for step in (2e-5, 1e-20j)
    )
    assert 1e-12 < central < 1e-9
    assert complex_step < 1e-15


def test_function_of_another_name_needs_one_of_the_four() -> None:
    with pytest.raises(MnistError, match="grad is none of softmax, softmax_jacobian"):
        check(define("grad(p): p"))
    assert check(define("grad(p): np.diag(p) - np.outer(p, p)"), "softmax_jacobian")[0].passed


# The command


@pytest.fixture
def judge(invoke: Invoke, tmp_path: Path) -> Invoke:
    """Write the texts of functions to mine.py, and run the command on it."""

    def call(*texts: str, options: tuple[str, ...] = ()) -> Result:
        content = "\n".join(["import numpy as np", *map(source, texts)])
        (tmp_path / "mine.py").write_text(content, encoding="utf-8")
        return invoke("gradcheck", "mine.py", *options)

    return call


def test_right_file_has_a_line_a_function(judge: Invoke) -> None:
    Path("helper.py").write_text("import numpy as np")  # beside the file
    result = judge(RIGHT[0].replace(": e", ": from helper import np; e"), LOOP, RIGHT[-1])
    assert (0, "") == (result.exit_code, result.stderr)
    expected = ["softmax: ok", "softmax_jacobian: ok for one sample"]
    assert [*expected, "loss_gradient: ok for one sample"] == result.stdout.splitlines()


def test_wrong_file_exits_with_three_and_shows_a_better_way(judge: Invoke) -> None:
    result = judge(RIGHT[0], QUESTION)
    assert (3, "Mistakes found in softmax_jacobian.\n") == (result.exit_code, result.stderr)
    lines = result.stdout.splitlines()
    assert "softmax_jacobian: input_for_output. The input z stands where" in result.stdout
    assert "docs/softmax-jacobian.md explains input_for_output and last_column. Better:" in lines
    assert "    p[..., :, None] * (np.eye(p.shape[-1]) - p[..., None, :])" == lines[-1]
    assert max(map(len, lines)) <= 80


def test_better_ways_are_right() -> None:
    for name, (takes, better) in gradcheck.FUNCTIONS.items():
        expression = better.split(", where")[0].replace("one_hot", "y")
        parameters = ", ".join(p for p in takes.split() if re.search(rf"\b{p}\b", expression))
        [verdict] = check(define(f"{name}({parameters}): {expression}"))
        assert (True, "ok") == (verdict.passed, verdict.message)  # on a batch


def test_json_has_an_entry_for_each_mistake(judge: Invoke) -> None:
    result = judge(RIGHT[0], QUESTION, options=("--json",))
    document = json.loads(result.stdout)
    assert ("mine.py", False) == (document["file"], document["passed"])
    keys = ("function", "passed", "error", "mistake", "message")
    assert all(keys == tuple(verdict) for verdict in document["checks"])
    assert [None, "input_for_output", "last_column"] == [c["mistake"] for c in document["checks"]]


def test_prints_of_the_file_go_to_stderr(judge: Invoke) -> None:
    result = judge("softmax_jacobian(p): print('Hi'); np.diag(p) - np.outer(p, p)")
    assert "softmax_jacobian: ok for one sample\n" == result.stdout
    assert "Hi\n" in result.stderr


def test_quiet_silences_the_file_as_well(judge: Invoke) -> None:
    result = judge("softmax_jacobian(p): print('Hi'); p", options=("-q",))
    assert (3, "Mistakes found in softmax_jacobian.\n") == (result.exit_code, result.stderr)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("import numpy as np\ndef softmax(z):\n    return (z", "in line 3, return (z: '(' was"),
        ("import nump\n", "ModuleNotFoundError in line 1, import nump: No module"),
        ("a = 1\nb = a / 0\n", "ZeroDivisionError in line 2, b = a / 0: division by zero"),
        ("raise SystemExit('no')", "SystemExit in line 1, raise SystemExit('no'): no"),
        ("a = 1\n", "mine.py defines none of softmax, softmax_jacobian, softmax_backward"),
        ("\ndef softmax_jacobian(q): return q", "line 2: softmax_jacobian takes q, which is none"),
        ("def softmax(z, t): return z", "line 1: softmax takes t, which is none of z, logits"),
    ],
)
def test_file_that_cannot_be_judged_is_an_error_with_its_line(
    invoke: Invoke, tmp_path: Path, content: str, said: str
) -> None:
    (tmp_path / "mine.py").write_text(content)
    result = invoke("gradcheck", "mine.py")
    assert (1, "") == (result.exit_code, result.stdout)
    assert result.stderr.startswith("Error: mine.py")
    assert said in result.stderr
    assert 1 == result.stderr.count("\n")


def test_missing_file_is_an_error(invoke: Invoke) -> None:
    result = invoke("gradcheck", "nowhere.py")
    assert 1 == result.exit_code
    assert "Error: nowhere.py: FileNotFoundError: No such file or directory\n" == result.stderr


def test_exception_has_its_line_in_the_file(judge: Invoke) -> None:
    result = judge("softmax_jacobian(p): helper(p)", "helper(p): 1 / 0")
    assert "raises. It raises an exception: ZeroDivisionError in line 6" in result.stdout


def test_interruption_says_which_function_ran(tmp_path: Path) -> None:
    hanging = "def softmax_jacobian(p):\n    print('in', flush=True)\n    while True: pass\n"
    (tmp_path / "mine.py").write_text(f"def softmax(z): return z\n{hanging}")
    command = [sys.executable, "-m", "mnist_cli", "gradcheck", "mine.py"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert "in\n" == process.stderr.readline()
        process.send_signal(signal.SIGINT)
        assert "Interrupted in softmax_jacobian\n" == process.stderr.read()
    assert 130 == process.returncode


def test_module_imports_nothing_but_numpy_and_the_package() -> None:
    code = "import sys, mnist_cli.gradcheck; print(*{m.split('.')[0] for m in sys.modules})"
    modules = set(subprocess.check_output([sys.executable, "-c", code], text=True).split())
    assert "numpy" in modules
    assert not modules & {"click", "matplotlib", "PIL", "requests", "scipy", "torch", "tqdm"}
