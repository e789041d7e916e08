import os
import signal
import stat
import subprocess
import sys
import threading
import types
from collections.abc import Callable
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


def test_a_block_that_fails_leaves_the_old_file_alone(old: Path) -> None:
    def fail() -> None:
        with files.publish(old) as file:
            file.write(b"new")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()

    assert old.read_bytes() == b"old"
    assert names(old.parent) == ["file"]


def interrupted_at(step: int, action: Callable[[], None]) -> bool:
    """Send SIGINT before the given line that `action` runs; tell whether it had so many."""
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


def test_an_interruption_anywhere_leaves_one_whole_file(old: Path) -> None:
    """Whatever line SIGINT hits, the file is the old or the new one, and it is alone."""
    step = 1
    while interrupted_at(step, lambda: write(old)):
        assert old.read_bytes() in (b"old", b"new"), step
        assert names(old.parent) == ["file"], step
        old.write_bytes(b"old")
        step += 3  # each takes an fsync
    assert step > 50


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_waits_for_the_block_and_is_not_lost(old: Path, number: signal.Signals) -> None:
    def handler(number: int, frame: object) -> None:
        raise KeyboardInterrupt(number)

    def disturbed() -> None:
        with files.publish(old) as file:
            signal.raise_signal(number)
            file.write(b"new")

    before = signal.signal(number, handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            disturbed()
        assert signal.getsignal(number) is handler
    finally:
        signal.signal(number, before)
    assert old.read_bytes() == b"new"


def test_a_second_signal_in_the_block_kills_at_once(old: Path) -> None:
    script = f"""
import pathlib, signal
from mnist_cli import files
with files.publish(pathlib.Path({str(old)!r})) as file:
    signal.raise_signal(signal.SIGINT)
    print("alive", flush=True)
    signal.raise_signal(signal.SIGINT)
    print("still alive")
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)

    assert result.returncode == -signal.SIGINT
    assert result.stdout == "alive\n"
    assert old.read_bytes() == b"old"
    files.check_writable(old)
    assert names(old.parent) == ["file"]


def test_publish_works_in_a_thread(old: Path) -> None:
    """Only the main thread may set signal handlers."""
    thread = threading.Thread(target=write, args=(old,))
    thread.start()
    thread.join()

    assert old.read_bytes() == b"new"


def test_a_link_stays_a_link(old: Path) -> None:
    link = old.with_name("link")
    link.symlink_to("file")

    write(link)

    assert link.is_symlink()
    assert old.read_bytes() == b"new"
    assert names(old.parent) == ["file", "link"]


def test_a_link_to_nothing_makes_what_it_names(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    link = tmp_path / "link"
    link.symlink_to("folder/file")

    write(link)

    assert link.is_symlink()
    assert (tmp_path / "folder" / "file").read_bytes() == b"new"


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_the_umask_holds_for_a_new_file(tmp_path: Path, umask: int) -> None:
    """Even where a process with another umask was killed before."""
    leftover = tmp_path / ".file.tmp"
    leftover.touch()
    leftover.chmod(0o666)
    before = os.umask(umask)
    try:
        write(tmp_path / "file")
    finally:
        os.umask(before)

    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o666 & ~umask


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o666, 0o755])
def test_an_old_file_keeps_its_permissions(old: Path, mode: int) -> None:
    old.chmod(mode)

    write(old)

    assert stat.S_IMODE(old.stat().st_mode) == mode


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
def test_a_write_protected_file_is_not_replaced(old: Path) -> None:
    old.chmod(0o444)

    with pytest.raises(MnistError, match=r"cannot write .*: it is write-protected"):
        write(old)
    with pytest.raises(MnistError, match="write-protected"):
        files.check_writable(old)


@pytest.mark.parametrize("action", [write, files.check_writable])
def test_what_is_in_the_way_is_told(tmp_path: Path, action: Callable[[Path], None]) -> None:
    with pytest.raises(MnistError, match=r"cannot write .*/no/file: No such file or directory"):
        action(tmp_path / "no" / "file")
    with pytest.raises(MnistError, match=r"cannot write .*: it is a directory"):
        action(tmp_path)
    (tmp_path / ".file.tmp").mkdir()
    with pytest.raises(MnistError, match=r"cannot write .*/file: Is a directory"):
        action(tmp_path / "file")
    assert names(tmp_path) == [".file.tmp"]


@pytest.mark.parametrize("action", [write, files.check_writable])
def test_what_a_killed_process_left_is_removed(old: Path, action: Callable[[Path], None]) -> None:
    (old.parent / ".file.tmp").write_bytes(b"torn, and longer than what is written next")

    action(old)

    assert names(old.parent) == ["file"]
    assert old.read_bytes() == (b"new" if action is write else b"old")


@pytest.mark.parametrize("target", ["victim", "nothing"])
def test_a_link_in_the_place_of_the_temporary_file_is_not_followed(old: Path, target: str) -> None:
    victim = old.with_name("victim")
    victim.write_bytes(b"precious")
    old.with_name(".file.tmp").symlink_to(target)

    write(old)

    assert old.read_bytes() == b"new"
    assert victim.read_bytes() == b"precious"
    assert names(old.parent) == ["file", "victim"]


def test_a_device_is_written_to_as_it_is() -> None:
    write(Path(os.devnull))
    files.check_writable(Path(os.devnull))

    assert stat.S_ISCHR(Path(os.devnull).stat().st_mode)


def test_a_full_device_is_told() -> None:
    with pytest.raises(MnistError, match="cannot write /dev/full: No space left on device"):
        write(Path("/dev/full"))


def test_a_pipe_gets_everything_that_is_appended(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with subprocess.Popen(["cat", fifo], stdout=subprocess.PIPE) as reader:
        with files.append(fifo, b"begin ") as file:
            file.write(b"end")
        assert reader.stdout
        assert reader.stdout.read() == b"begin end"
    assert stat.S_ISFIFO(fifo.stat().st_mode)


def test_append_begins_anew(old: Path) -> None:
    with files.append(old, b"begin ") as file:
        assert old.read_bytes() == b"begin "
        file.write(b"end")

    assert old.read_bytes() == b"begin end"


WRITER = """
import pathlib, sys
from mnist_cli import files
for _ in range(15):
    with files.publish(pathlib.Path(sys.argv[1])) as file:
        for _ in range(40):
            file.write(sys.argv[2].encode() * 5000)
"""


def test_processes_that_write_one_file_take_turns(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write(path, b"0" * 200_000)
    processes = [
        subprocess.Popen([sys.executable, "-c", WRITER, path, letter]) for letter in "abc"
    ]
    while any(process.poll() is None for process in processes):
        content = path.read_bytes()
        assert content == content[:1] * 200_000
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert names(tmp_path) == ["file"]
