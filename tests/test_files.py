import contextlib
import os
import platform
import signal
import stat
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mnist_cli import files
from mnist_cli.errors import MnistError


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    return path


def write(path: Path, content: bytes = b"new") -> None:
    with files.publish(path) as file:
        file.write(content)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_publish_replaces_the_whole_file(old: Path) -> None:
    with files.publish(old) as file:
        file.write(b"new")
        file.flush()
        assert old.read_bytes() == b"old"

    assert old.read_bytes() == b"new"
    assert names(old.parent) == ["file"]


def test_failing_block_leaves_the_old_file(old: Path) -> None:
    with contextlib.suppress(ZeroDivisionError), files.publish(old) as file:
        file.write(b"new")
        raise ZeroDivisionError

    assert old.read_bytes() == b"old"
    assert names(old.parent) == ["file"]


def interrupted_at(step: int, action: Callable[[], None]) -> bool:
    """Send SIGINT before the given line that `action` runs; return whether it had so many."""
    left = step

    def trace(frame: types.FrameType, event: str, arg: object) -> Any:
        nonlocal left
        if event == "line":
            left -= 1
            if not left:
                sys.settrace(None)
                signal.raise_signal(signal.SIGINT)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        action()
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(before)
    return left <= 0


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # a file not closed
def test_interruption_at_any_line_leaves_one_whole_file(old: Path) -> None:
    step = 1
    while interrupted_at(step, lambda: write(old)):
        assert old.read_bytes() in (b"old", b"new"), step
        assert names(old.parent) == ["file"], step
        old.write_bytes(b"old")
        step += 3  # each takes an fsync
    assert step > 50


@pytest.mark.parametrize("leads_to", ["file", "folder/new"])
def test_link_stays_a_link(old: Path, leads_to: str) -> None:
    (old.parent / "folder").mkdir()
    link = old.with_name("link")
    link.symlink_to(leads_to)

    write(link)

    assert link.is_symlink()
    assert (old.parent / leads_to).read_bytes() == b"new"
    assert names(old.parent) == ["file", "folder", "link"]


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o666, 0o755])
def test_umask_rules_new_permissions_and_old_ones_stay(old: Path, mode: int) -> None:
    old.chmod(mode)
    new = old.with_name("new")
    before = os.umask(0o077)
    try:
        write(old)
        write(new)
    finally:
        os.umask(before)

    assert [stat.S_IMODE(path.stat().st_mode) for path in (old, new)] == [mode, 0o600]


@pytest.mark.parametrize("action", [write, files.check_writable])
def test_obstacle_is_named(old: Path, action: Callable[[Path], None]) -> None:
    with pytest.raises(MnistError, match=r"cannot write .*/no/file: No such file or directory"):
        action(old.parent / "no" / "file")
    with pytest.raises(MnistError, match=r"cannot write .*/file/file: Not a directory"):
        action(old / "file")
    with pytest.raises(MnistError, match=r"cannot write .*: Is a directory"):
        action(old.parent)
    assert names(old.parent) == ["file"]


WRITER = """
import pathlib, sys
from mnist_cli import files
with files.publish(pathlib.Path(sys.argv[1])) as file:
    file.write(b"torn, and longer than what is written next")
    file.flush()
    print(flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def writer(path: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """Give a process that has half written `path`, and its temporary file."""
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        process.stdout.readline()
        [temporary] = path.parent.glob(".*")
        yield process, temporary
        process.kill()


@pytest.mark.parametrize("action", [write, files.check_writable])
def test_file_of_a_killed_process_is_removed(old: Path, action: Callable[[Path], None]) -> None:
    with writer(old) as (process, temporary):
        process.kill()
        process.wait()
        assert names(old.parent) == [temporary.name, "file"]

        action(old)

    assert names(old.parent) == ["file"]
    assert old.read_bytes() == (b"new" if action is write else b"old")


def test_file_of_a_running_process_is_left_alone(old: Path) -> None:
    with writer(old) as (process, temporary):
        write(old)

        assert temporary.exists()
        process.communicate(b"")
    assert old.read_bytes().startswith(b"torn")
    assert names(old.parent) == ["file"]


def test_file_of_another_host_and_files_of_the_user_are_left_alone(old: Path) -> None:
    host = platform.node()
    kept = [
        f".file.{host}x.999999999.0123abcd.tmp",
        f".file.{host}.999999999.backup.tmp",
        f".file.{host}.notes.0123abcd.tmp",
        f".other.{host}.999999999.0123abcd.tmp",
        ".file.gz.part",
        ".file.tmp",
    ]
    for name in [*kept, f".file.{host}.999999999.0123abcd.tmp"]:  # beyond any process id
        old.with_name(name).touch()

    write(old)

    assert names(old.parent) == sorted([*kept, "file"])


@pytest.mark.parametrize("plant", [lambda path: path.symlink_to("victim"), os.mkfifo])
def test_what_is_planted_under_the_temporary_name_is_not_opened(
    old: Path, monkeypatch: pytest.MonkeyPatch, plant: Callable[[Path], None]
) -> None:
    """Neither before the temporary file gets its name nor after."""
    planted = old.with_name(f".file.{platform.node()}.{os.getpid()}.abababab.tmp")
    victim = old.with_name("victim")
    victim.write_bytes(b"precious")
    plant(planted)

    def name(size: int) -> bytes:
        plant(planted)
        return b"\xab" * size

    monkeypatch.setattr(os, "urandom", name)
    with pytest.raises(MnistError, match=r"cannot write .*/file: File exists"):
        write(old)

    assert old.read_bytes() == b"old"
    assert victim.read_bytes() == b"precious"
    assert names(old.parent) == ["file", "victim"]


STREAMER = """
import pathlib, sys
from mnist_cli import files
files.check_writable(pathlib.Path(sys.argv[1]))
with files.{}(pathlib.Path(sys.argv[1])) as file:
    for number in range(3):
        print("printed", number, flush=True)
        file.write(b"streamed %d\\n" % number)
        file.flush()
print("done")
"""
LINES = [f"{word} {number}" for number in range(3) for word in ("printed", "streamed")] + ["done"]


@pytest.mark.parametrize("way", ["stream", "publish"])
@pytest.mark.parametrize("path", ["/dev/stdout", "/proc/self/fd/1", "/dev/fd/1", "link"])
def test_redirected_stdout_is_written_in_turn(tmp_path: Path, path: str, way: str) -> None:
    """Neither replaced nor truncated, with > and with >>."""
    (tmp_path / "link").symlink_to("/dev/stdout")
    command = f'echo old > log; "{sys.executable}" -c "$SCRIPT" {path}'
    for redirection, expected in ((">>", ["old", *LINES]), (">", LINES)):
        subprocess.run(
            f"{command} {redirection} log",
            shell=True,
            cwd=tmp_path,
            env=os.environ | {"SCRIPT": STREAMER.format(way)},
            check=True,
        )
        assert expected == (tmp_path / "log").read_text().splitlines()
    assert names(tmp_path) == ["link", "log"]


def test_descriptor_of_another_process_is_appended_to(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("w") as file, subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=file) as p:
        write(Path(f"/proc/{p.pid}/fd/1"), b"first ")
        write(Path(f"/proc/{p.pid}/fd/1"), b"second")
        p.communicate(b"")

    assert log.read_bytes() == b"first second"


def test_device_is_written_to_as_it_is() -> None:
    files.check_writable(Path(os.devnull))
    write(Path(os.devnull))

    assert stat.S_ISCHR(Path(os.devnull).stat().st_mode)
    with pytest.raises(MnistError, match="cannot write /dev/full: No space left on device"):
        write(Path("/dev/full"))


def test_pipe_gets_everything_that_is_streamed(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with subprocess.Popen(["cat", fifo], stdout=subprocess.PIPE) as reader:
        with files.stream(fifo) as file:
            file.write(b"begin ")
            file.write(b"end")
        assert reader.stdout
        assert reader.stdout.read() == b"begin end"
    assert stat.S_ISFIFO(fifo.stat().st_mode)
