"""Files published whole or not at all."""

import contextlib
import os
import platform
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from mnist_cli.errors import MnistError


@contextlib.contextmanager
def publish(path: Path) -> Iterator[IO[bytes]]:
    """Give a temporary file that becomes `path` if the block ends well, and is removed if not.

    A link stays a link, and an existing file keeps its permissions. A pipe, a device, and what
    /dev/stdout or /proc lead to are appended to. An OSError becomes a MnistError naming `path`.
    """
    with _naming(path) as raw:
        if raw:
            with stream(path) as file:
                yield file
            return
        target, temporary = _prepare(path)
        try:
            with temporary.open("xb") as file:  # never what somebody else put there
                if target.exists():
                    temporary.chmod(target.stat().st_mode & 0o7777)
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def stream(path: Path) -> Iterator[IO[bytes]]:
    """Open `path` to be written anew, line by line; a pipe and the like is appended to."""
    with _naming(path) as raw:  # noqa: SIM117
        with open(raw or path, "ab" if raw else "wb", closefd=not isinstance(raw, int)) as file:
            yield file


def check_writable(path: Path) -> None:
    """Raise MnistError if `path` could not be published; remove what a killed process left."""
    with _naming(path) as raw:
        if not raw:
            _, temporary = _prepare(path)
            temporary.touch(exist_ok=False)
            temporary.unlink()


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[Path | int | None]:
    """Name `path` in an OSError; give the path or descriptor to append to, if it is raw."""
    try:
        yield _raw(path)
    except OSError as error:
        raise MnistError(f"cannot write {path}: {error.strerror or error}") from error


def _raw(path: Path) -> Path | int | None:
    while path.exists():
        folder = os.path.realpath(path.parent)
        if folder in (f"/proc/{os.getpid()}/fd", "/dev/fd"):
            return int(path.name) or path  # a descriptor: goes on where its other users are
        if folder.startswith("/proc/"):
            return path
        if not path.is_symlink():
            return None if path.is_file() or path.is_dir() else path
        path = path.parent / path.readlink()
    return None


def _prepare(path: Path) -> tuple[Path, Path]:
    """Return where `path` leads and a name beside it; remove what a dead process left there."""
    target = Path(os.path.realpath(path))
    if target.exists():
        target.open("ab").close()  # it may be write-protected, or a directory
    start = f".{target.name}.{platform.node()}."
    with contextlib.suppress(OSError):
        for file in target.parent.iterdir():
            left = re.fullmatch(re.escape(start) + r"(\d{1,9})\.[0-9a-f]{8}\.tmp", file.name)
            if left and not _is_running(int(left[1])):
                file.unlink()
    return target, target.with_name(f"{start}{os.getpid()}.{os.urandom(4).hex()}.tmp")


def _is_running(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError):  # Windows keeps files that are open by itself
        return os.name != "nt" and pid != os.getpid() and os.getpgid(pid) >= 0
    return False
