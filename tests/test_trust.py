"""The program itself, in processes of its own: the same bytes, nothing lost, nobody hurt."""

import ctypes
import hashlib
import json
import os
import pty
import random
import re
import resource
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mnist_cli.storage import model_file
from tests import hostile
from tests.conftest import Run
from tests.test_model_file import make, mutate_file, mutate_member

pytestmark = pytest.mark.usefixtures("data_dir")

TRAIN = ["train", "--offline", "--validation-size", "100", "--batch-size", "32"]
FILES = ["--checkpoint", "c.npz", "--metrics-file", "m.jsonl"]


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


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


def test_the_output_options_do_not_change_a_byte(run: Run, tmp_path: Path) -> None:
    """Quiet, JSON, with every file, or on a terminal: one SHA-256. Another seed: another."""
    command = [*TRAIN, "--epochs", "3"]
    printed = run(*command, "-q", "-o", "quiet.npz")
    document = json.loads(run(*command, "--json", "-o", "json.npz").stdout)
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
    digests = [sha256(tmp_path / f"{name}.npz") for name in names]
    assert digests[:1] * 4 == digests[:4]
    assert digests[4] != digests[0]
    last = metrics(tmp_path / "m.jsonl")[-1]
    assert {name: document[name] for name in last if name in document} | {
        "epoch": document["epochs"],
        "learning_rate": last["learning_rate"],
    } == last
    assert f"train loss {document['train_loss']:.4f}" in printed.stdout


def start(folder: Path, *args: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "mnist_cli", *TRAIN, *map(str, args)],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        pipesize=4096,  # holds about forty lines: no run gets further ahead of its reader
    )


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGINT, 130)],
)
def test_a_killed_run_ends_as_if_it_was_never_killed(
    run: Run, tmp_path: Path, number: int, code: int
) -> None:
    """The signal goes to the whole process group, at random moments; each epoch counts once."""
    options = ["--epochs", "200", "--metrics-file", "m.jsonl"]  # too many to finish before
    assert run(*TRAIN, *options, "-o", "unbroken.npz").returncode == 0
    expected = metrics(tmp_path / "m.jsonl")
    rng = random.Random(number)
    for _ in range(4):
        process = start(tmp_path, *options, "--checkpoint", "c.npz")
        assert process.stdout
        for _ in range(rng.randrange(1, 8)):
            process.stdout.readline()
        time.sleep(rng.uniform(0, 0.03))
        os.killpg(process.pid, number)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == code
        if number != signal.SIGKILL:
            assert re.search(r"^Interrupted.* again .*c\.npz.*\n\Z", errors, re.MULTILINE)
            assert not list(tmp_path.glob(".*"))

    assert run(*TRAIN, *options, "--checkpoint", "c.npz").returncode == 0

    assert sha256(tmp_path / "model.npz") == sha256(tmp_path / "unbroken.npz")
    assert metrics(tmp_path / "m.jsonl") == expected
    files = {"c.npz", "data", "m.jsonl", "model.npz", "unbroken.npz"}
    assert {path.name for path in tmp_path.iterdir()} == files


def test_the_next_run_removes_what_a_killed_one_left(run: Run, tmp_path: Path) -> None:
    for name in ("model.npz", "c.npz", "m.jsonl"):
        (tmp_path / f".{name}.tmp").write_bytes(b"torn")

    assert run(*TRAIN, "--epochs", 1, *FILES).returncode == 0

    assert {p.name for p in tmp_path.iterdir()} == {"data", "model.npz", "c.npz", "m.jsonl"}


def test_resuming_another_run_is_refused_by_name(run: Run, tmp_path: Path) -> None:
    run(*TRAIN, "--epochs", 1, *FILES)
    before = sha256(tmp_path / "c.npz"), (tmp_path / "m.jsonl").read_bytes()

    result = run(*TRAIN, "--epochs", 1, *FILES, "--seed", 3)

    assert result.returncode == 1
    assert "c.npz: it was made with seed 0, not 3" in one_line(result.stderr)
    assert (sha256(tmp_path / "c.npz"), (tmp_path / "m.jsonl").read_bytes()) == before


def test_a_divergence_keeps_the_last_good_checkpoint(run: Run, tmp_path: Path) -> None:
    command = [*TRAIN, "--epochs", 9, "--learning-rate", "1e6", "--batch-size", 700]
    (tmp_path / "model.npz").write_bytes(b"old")

    result = run(*command, *FILES, "--validation-size", 0)

    assert result.returncode == 1
    assert "diverged in epoch 1: lower the learning rate (1e+06)" in one_line(result.stderr)
    assert (tmp_path / "model.npz").read_bytes() == b"old"
    again = run(*command, *FILES, "--validation-size", 0)
    assert again.stderr == result.stderr


# What is written, how many bytes of it fit, and the options that ask for it.
KINDS: dict[str, tuple[int, list[str]]] = {
    "model.npz": (20_000, []),
    "c.npz": (50_000, ["-o", os.devnull, "--checkpoint", "c.npz"]),
    "m.jsonl": (300, ["-o", os.devnull, "--metrics-file", "m.jsonl"]),
    "p.svg": (5_000, ["-o", os.devnull, "--plot", "p.svg"]),
    "p.png": (5_000, ["-o", os.devnull, "--plot", "p.png"]),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_full_disk_is_told_and_the_old_file_stays(run: Run, tmp_path: Path, name: str) -> None:
    if name.startswith("p."):
        pytest.importorskip("matplotlib")
    room, options = KINDS[name]
    run(*TRAIN, "--epochs", 1, "--schedule", "constant", *options)
    (tmp_path / name).touch()
    old = (tmp_path / name).read_bytes()

    command = [*TRAIN, "--epochs", "3", "--schedule", "constant", "-q", *options]
    result = run(*command, **limited(FSIZE=room))

    assert result.returncode == 1
    assert one_line(result.stderr) == f"Error: cannot write {name}: File too large\n"
    if name == "m.jsonl":  # which grows line by line, and has been begun anew
        assert (tmp_path / name).read_bytes().startswith(b'{"epoch": 1, ')
    else:
        assert (tmp_path / name).read_bytes() == old
    assert not list(tmp_path.glob(".*.tmp"))


@pytest.mark.parametrize("option", ["-o", "--checkpoint", "--metrics-file"])
def test_what_cannot_be_written_is_told_before_anything_is_done(
    run: Run, tmp_path: Path, option: str
) -> None:
    """There is no data either, but that would be told later."""
    command = [*TRAIN, "--data-dir", "nowhere"]
    locked, protected = tmp_path / "locked", tmp_path / "protected.npz"
    locked.mkdir(mode=0o555)
    protected.touch(mode=0o444)

    for path, words in (
        ("missing/file.npz", "No such file or directory"),
        ("locked/file.npz", "Permission denied"),
        ("protected.npz", "it is write-protected"),
        ("data", "it is a directory"),
    ):
        result = run(*command, option, path, preexec_fn=unprivileged)
        assert result.returncode == 1
        assert one_line(result.stderr) == f"Error: cannot write {path}: {words}\n"
    assert {path.name for path in tmp_path.iterdir()} == {"data", "locked", "protected.npz"}


def test_devices_and_links_are_written_to_as_they_are(run: Run, tmp_path: Path) -> None:
    (tmp_path / "link.npz").symlink_to("real.npz")
    null = ["--checkpoint", os.devnull, "--metrics-file", os.devnull]

    assert run(*TRAIN, "--epochs", 2, *null, "-o", os.devnull).returncode == 0
    assert stat.S_ISCHR(Path(os.devnull).stat().st_mode)

    result = run(*TRAIN, "--epochs", 1, "-o", "link.npz", umask=0o077)
    assert result.stdout.endswith("link.npz holds the parameters of epoch 1.\n")
    assert (tmp_path / "link.npz").is_symlink()
    assert stat.S_IMODE((tmp_path / "real.npz").stat().st_mode) == 0o600


def test_metrics_can_go_to_standard_output(run: Run) -> None:
    result = run(*TRAIN, "--epochs", 2, "-q", "--metrics-file", "/dev/stdout")

    assert result.returncode == 0
    epochs = [json.loads(x)["epoch"] for x in result.stdout.splitlines() if x.startswith("{")]
    assert epochs == [1, 2]


HARM = [
    *("empty file", "npy instead of npz", "pickle instead of npz", "empty zip", "truncated"),
    *("directory", "fifo", "device", "link to itself", "9,000 members", "member twice"),
    *("escapes in a member's name", "encrypted member", "wrong checksum", "pickled W"),
    *("pickled metadata", "shape transposed", "integers", "nan", "logits that overflow"),
    *("terabyte header", "deep header", "header of code", "bomb inside an array"),
    *("bomb that says so", "bomb beside the arrays", "json 100,000 levels deep"),
    *("json 10,000 levels deep", "later format", "escapes in the data set"),
    "escapes in the config",
]


@pytest.mark.parametrize("kind", HARM)
def test_a_hostile_model_is_refused_in_little_time_and_memory(
    run: Run, tmp_path: Path, kind: str
) -> None:
    hostile.MODELS[kind](tmp_path / "hostile.npz")

    result = run("evaluate", "hostile.npz", **limited(AS=1500 << 20, CPU=5))

    assert result.returncode == 1
    assert result.stdout == ""
    assert "hostile.npz" in one_line(result.stderr)
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("change", [mutate_file, mutate_member])
def test_a_mutant_is_a_model_or_is_refused(
    run: Run, tmp_path: Path, change: Callable[[dict[str, bytes], random.Random], bytes]
) -> None:
    model_file.save(tmp_path / "good.npz", make())
    with np.load(tmp_path / "good.npz") as arrays:
        good = {f"{name}.npy": hostile.npy(arrays[name]) for name in arrays}
    rng = random.Random(8)
    for _ in range(6):
        (tmp_path / "mutant.npz").write_bytes(change(good, rng))
        result = run("evaluate", "mutant.npz", "--json", **limited(AS=1500 << 20, CPU=5))
        if result.returncode == 0:
            assert 0 <= json.loads(result.stdout)["accuracy"] <= 1
        else:
            assert result.returncode == 1
            one_line(result.stderr)
