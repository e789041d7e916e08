"""Streams, exit codes, signals and bars, each of a real process."""

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from mnist_cli.cli import THREADS
from mnist_cli.storage import model_file
from tests.conftest import QUICK, Run, one_error

TRAIN = ["train", *map(str, QUICK)]
LONG = ["train", "--offline", "--validation-size=100", "--epochs=9999"]


def shell(command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run `command`, in which $mnist is the program, in bash."""
    mnist = f"mnist='{sys.executable} -m mnist_cli'"
    bash = ["bash", "-c", f"{mnist}; {command}"]
    return subprocess.run(bash, cwd=cwd, capture_output=True, text=True, check=False)


def test_program_alone_prints_its_help(run: Run) -> None:
    result = run()
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == run("--help").stdout
    assert re.search(r"^Commands:\n  download +\S", result.stdout, re.MULTILINE)


def test_closed_pipe_is_silent_and_the_model_is_written(data_dir: Path, tmp_path: Path) -> None:
    train = "$mnist train --offline --epochs 200 --validation-size 100"
    result = shell(f"{train} | head -1; exit ${{PIPESTATUS[0]}}", tmp_path)
    assert (result.returncode, result.stderr) == (1, "")
    assert result.stdout.count("\n") == 1
    assert model_file.load(tmp_path / "model.npz").metrics["epoch"] == 200


def test_full_stdout_is_an_error(model: Path) -> None:
    result = shell("$mnist evaluate model.npz > /dev/full", model.parent)
    assert result.returncode == 1
    assert one_error(result) == "Error: cannot write the output: No space left on device\n"


def test_full_stderr_changes_nothing(data_dir: Path, tmp_path: Path) -> None:
    result = shell("$mnist evaluate m.npz --dataset kmnist 2> /dev/full", tmp_path)
    assert (result.returncode, result.stderr) == (1, "")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_change_nothing(data_dir: Path, tmp_path: Path, closed: str) -> None:
    result = shell(f"$mnist {' '.join(TRAIN)} {closed}", tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert ("epoch 2." in result.stdout) == (">&-" not in closed or closed == "2>&-")
    assert model_file.load(tmp_path / "model.npz").metrics["epoch"] == 2


def test_closed_stdin_is_no_picture(model: Path) -> None:
    result = shell("$mnist predict model.npz - <&-", model.parent)
    assert result.returncode == 1
    assert one_error(result).startswith("Error: -: not a picture")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("options", "files", "saved"),
    [
        (["--checkpoint=c.npz"], {"c.npz"}, r"state saved in c\.npz: the same command resumes"),
        (["-q"], set(), r"nothing was saved: use --checkpoint FILE to resume"),
    ],
    ids=["checkpoint", "none"],
)
def test_signal_ends_training_and_says_what_was_saved(
    data_dir: Path,
    tmp_path: Path,
    number: signal.Signals,
    options: list[str],
    files: set[str],
    saved: str,
) -> None:
    command = [sys.executable, "-m", "mnist_cli", *LONG, *options, "--metrics-file=m.jsonl"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    metrics = tmp_path / "m.jsonl"
    while not (metrics.exists() and metrics.read_text()):
        assert process.poll() is None
    process.send_signal(number)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 128 + number
    assert re.fullmatch(rf"Interrupted after epoch \d+; {saved}\n", errors)
    assert {path.name for path in tmp_path.iterdir()} == {"data", "m.jsonl"} | files


@pytest.mark.parametrize(
    ("when", "code"),
    [("sys.meta_path.insert(0, Finder())", 130), ("atexit.register(interrupt)", 0)],
    ids=["import", "exit"],
)
def test_interruption_at_either_end_shows_no_traceback(
    tmp_path: Path, when: str, code: int
) -> None:
    """Ctrl-C while Click is imported, and when all is done and Python takes itself down."""
    script = f"""if True:
        import atexit, os, signal, sys
        def interrupt(): os.kill(os.getpid(), signal.SIGINT)
        class Finder:
            def find_spec(self, name, *_): name == "click" and interrupt()
        {when}
        from mnist_cli.__main__ import main
        main()
    """
    command = [sys.executable, "-c", script, "download", "--dataset", "synthetic", "-q"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (code, "")
    assert (tmp_path / "data" / "synthetic").exists() == (code == 0)


def on_a_terminal(args: list[str], cwd: Path, *, keys: bytes = b"", **env: str) -> str:
    """Run the program on a terminal of 80 columns, press `keys` at the first epoch."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
    with subprocess.Popen(
        [sys.executable, "-m", "mnist_cli", *args],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=cwd,
        env=os.environ | {"TERM": "xterm"} | env,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # whose ^C is a signal
    ):
        os.close(theirs)
        text = b""
        while True:
            try:
                text += os.read(ours, 4096)
            except OSError:  # the last process has closed it
                os.close(ours)
                return text.decode()
            if keys and b" 1/" in text:
                os.write(ours, keys)
                keys = b""


def screen(text: str) -> list[str]:
    """Return the lines that `text` leaves on a terminal."""
    lines, x = [""], 0
    for character in text:
        if character == "\n":
            lines.append("")
        elif character == "\r":
            x = 0
        else:
            lines[-1] = lines[-1][:x].ljust(x) + character + lines[-1][x + 1 :]
            x += 1
    return [line.rstrip() for line in lines]


def test_bar_is_drawn_on_a_terminal_and_leaves_nothing(data_dir: Path, tmp_path: Path) -> None:
    """It is narrow, the epochs are written over it, and wrong settings of tqdm do no harm."""
    text = on_a_terminal(TRAIN, tmp_path, TQDM_MININTERVAL="abc", TQDM_BAR_FORMAT="{")
    bars = re.findall(r"\r( *\d+%\|.*?)\r", text)
    assert "0/2" in bars[0]
    assert max(map(len, bars)) <= 40
    head, *rows, model, last = screen(text)
    assert head.startswith("epoch  train loss")
    assert [row.split()[0] for row in rows] == ["1/2", "2/2"]
    assert (model, last) == ("model.npz holds the parameters of epoch 2.", "")
    assert on_a_terminal([*TRAIN, "-q"], tmp_path) == ""


def test_interruption_on_a_terminal_leaves_no_trace_of_the_bar(
    data_dir: Path, tmp_path: Path
) -> None:
    text = on_a_terminal(LONG, tmp_path, keys=b"\x03")
    assert "^C" in text
    *rows, sentence, last = screen(text)
    assert (sentence.startswith("Interrupted after epoch "), last) == (True, "")
    assert not [
        row for row in rows if not re.fullmatch(r" *epoch .* seconds| +\d+/9999 .*\d", row)
    ]


def test_colors_are_for_terminals_that_have_them(model: Path) -> None:
    report = ["evaluate", "model.npz"]
    assert "\x1b[" in on_a_terminal(report, model.parent)
    assert "\x1b[" not in on_a_terminal(report, model.parent, TERM="dumb")
    assert "\x1b[" not in on_a_terminal(report, model.parent, NO_COLOR="1")


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ({}, dict.fromkeys(THREADS, "1")),
        ({"OMP_NUM_THREADS": ""}, dict.fromkeys(THREADS, "1")),
        ({"OMP_NUM_THREADS": "2"}, {"OMP_NUM_THREADS": "2"}),
    ],
)
def test_one_blas_thread_unless_the_user_chooses(
    chosen: dict[str, str], expected: dict[str, str]
) -> None:
    script = "import os, mnist_cli.cli as c; c.cli = lambda: print(dict(os.environ)); c.main()"
    clean = {name: value for name, value in os.environ.items() if name not in THREADS}
    output = subprocess.check_output([sys.executable, "-c", script], env=clean | chosen)
    assert expected == {name: value for name, value in eval(output).items() if name in THREADS}
