"""The program itself, in processes of its own: the same bytes, nothing lost, nobody hurt."""

import ctypes
import json
import os
import pty
import random
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests import hostile
from tests.conftest import Run

pytestmark = pytest.mark.usefixtures("data_dir")

TRAIN = ["train", "--offline", "--validation-size", "100", "--batch-size", "32"]
FILES = ["--checkpoint", "c.npz", "--metrics-file", "m.jsonl"]


def metrics(path: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def one_line(stderr: str) -> str:
    """Return what stderr says, if it is one plain line that says what failed."""
    assert re.fullmatch(r"Error: [ -~]+\n", stderr), stderr
    return stderr


def limited(**limits: int) -> dict[str, Any]:
    """Return what makes `run` run within these limits."""
    pairs = [(getattr(resource, f"RLIMIT_{name}"), limit) for name, limit in limits.items()]

    def limit() -> None:
        for which, value in pairs:
            resource.setrlimit(which, (value, value))

    return {"preexec_fn": limit}


def unprivileged() -> None:
    """Let even root obey permissions: drop CAP_DAC_OVERRIDE for what is executed next."""
    ctypes.CDLL(None).prctl(24, 1, 0, 0, 0)


def test_output_options_do_not_change_a_byte(run: Run, tmp_path: Path) -> None:
    """Quiet, JSON, with every file, or on a terminal. Another seed does."""
    command = [*TRAIN, "--epochs", "3"]
    run(*command, "-q", "-o", "quiet.npz")
    run(*command, "--json", "-o", "json.npz")
    run(*command, *FILES, "-o", "files.npz")
    ours, theirs = pty.openpty()
    subprocess.run(
        [sys.executable, "-m", "mnist_cli", *command, "-o", "terminal.npz"],
        cwd=tmp_path,
        stdout=theirs,
        stderr=theirs,
        check=True,
    )
    os.close(theirs)
    os.close(ours)
    run(*command, "-o", "other.npz", "--seed", 1)

    names = ["quiet", "json", "files", "terminal", "other"]
    quiet, *same, other = [(tmp_path / f"{name}.npz").read_bytes() for name in names]
    assert same == [quiet] * 3
    assert other != quiet


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGINT, 130)],
)
def test_killed_run_ends_like_an_unbroken_one(
    run: Run, tmp_path: Path, number: int, code: int
) -> None:
    """The signal goes to the whole process group, at random moments; each epoch counts once."""
    options = ["--epochs", "200", "--metrics-file", "m.jsonl"]  # too many to finish before
    assert run(*TRAIN, *options, "-o", "unbroken.npz").returncode == 0
    expected = metrics(tmp_path / "m.jsonl")
    command = [*TRAIN, *options, "--checkpoint", "c.npz"]
    rng = random.Random(number)
    for _ in range(4):
        process = subprocess.Popen(
            [sys.executable, "-m", "mnist_cli", *command],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            pipesize=4096,  # holds about forty lines: no run gets further ahead of its reader
        )
        assert process.stdout
        for _ in range(rng.randrange(1, 8)):
            process.stdout.readline()
        time.sleep(rng.uniform(0, 0.03))
        os.killpg(process.pid, number)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == code
        if number != signal.SIGKILL:
            assert re.search(r"^Interrupted.* saved in .*c\.npz.*\n\Z", errors, re.MULTILINE)
            assert not list(tmp_path.glob(".*"))

    assert run(*command).returncode == 0

    assert (tmp_path / "unbroken.npz").read_bytes() == (tmp_path / "model.npz").read_bytes()
    assert expected == metrics(tmp_path / "m.jsonl")
    files = {"c.npz", "data", "m.jsonl", "model.npz", "unbroken.npz"}
    assert files == {path.name for path in tmp_path.iterdir()}
    other = run(*command, "--seed", 3)
    assert other.returncode == 1
    assert "cannot resume from c.npz: it was made with seed 0, not 3" in one_line(other.stderr)


# What is written, how many bytes of it fit, and the options that ask for it.
KINDS: dict[str, tuple[int, list[str]]] = {
    "model.npz": (20_000, []),
    "c.npz": (50_000, ["--checkpoint", "c.npz"]),
    "m.jsonl": (300, ["--metrics-file", "m.jsonl"]),
    "p.svg": (5_000, ["--plot", "p.svg"]),
}


@pytest.mark.parametrize("name", KINDS)
def test_full_disk_is_reported_and_the_old_file_stays(run: Run, tmp_path: Path, name: str) -> None:
    pytest.importorskip("matplotlib")
    room, options = KINDS[name]
    command = [*TRAIN, "--schedule", "constant", "-q", *options]
    command += ["-o", os.devnull] if options else []
    run(*command, "--epochs", 1)
    old = (tmp_path / name).read_bytes()

    result = run(*command, "--epochs", 3, **limited(FSIZE=room))

    assert result.returncode == 1
    assert one_line(result.stderr) == f"Error: cannot write {name}: File too large\n"
    if name != "m.jsonl":  # which is begun anew and grows line by line
        assert old == (tmp_path / name).read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"data", name}


@pytest.mark.parametrize("option", ["-o", "--checkpoint", "--metrics-file"])
def test_unwritable_output_fails_before_anything_is_done(
    run: Run, tmp_path: Path, option: str
) -> None:
    locked, protected = tmp_path / "locked", tmp_path / "protected.npz"
    locked.mkdir(mode=0o555)
    protected.touch(mode=0o444)

    obstacles = {
        "missing/file.npz": "No such file or directory",
        "locked/file.npz": "Permission denied",
        "protected.npz": "Permission denied",
        "data": "Is a directory",
    }
    for path, words in obstacles.items():
        result = run(*TRAIN, "--data-dir", "nowhere", option, path, preexec_fn=unprivileged)
        assert result.returncode == 1
        assert one_line(result.stderr) == f"Error: cannot write {path}: {words}\n"
    assert {path.name for path in tmp_path.iterdir()} == {"data", "locked", "protected.npz"}


def test_metrics_can_be_appended_to_a_log(run: Run, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("{}\n")
    with log.open("a") as stdout:
        command = [sys.executable, "-m", "mnist_cli", *TRAIN, "--epochs", "2"]
        command += ["--metrics-file", "/dev/stdout", "--checkpoint", os.devnull]
        subprocess.run(command, cwd=tmp_path, stdout=stdout, check=True)

    found = [line for line in log.read_text().splitlines() if line.startswith("{")]
    assert [json.loads(line).get("epoch") for line in found] == [None, 1, 2]


HEAVY = [
    *("fifo", "device", "9,000 members", "terabyte header", "bomb in a member"),
    *("bomb that says so", "json 100,000 levels deep", "json of 2,000,000 lists"),
]


@pytest.mark.parametrize("kind", HEAVY)
def test_hostile_model_takes_little_time_and_memory(run: Run, tmp_path: Path, kind: str) -> None:
    hostile.put(kind, tmp_path / "hostile.npz")

    result = run("evaluate", "hostile.npz", **limited(AS=1500 << 20, CPU=5))

    assert result.returncode == 1
    assert result.stdout == ""
    assert "hostile.npz" in one_line(result.stderr)
