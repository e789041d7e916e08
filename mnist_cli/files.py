"""Files published whole or not at all."""

import contextlib
import errno
import os
import signal
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from mnist_cli.errors import MnistError

try:
    import fcntl
except ImportError:  # Windows: an open file cannot be removed there, which is lock enough
    fcntl = None  # type: ignore[assignment]


@contextlib.contextmanager
def publish(path: Path) -> Iterator[IO[bytes]]:
    """Give a temporary file beside `path` that becomes `path` when the block ends well.

    When it does not, the temporary file is removed and an old file at `path` stays as it was.
    The temporary name is always the same, so that what a killed process left is removed by the
    next one; a lock makes two processes take turns. SIGINT and SIGTERM wait for the block to
    end. A link stays a link, an existing file keeps its permissions, and what is no regular file
    (`/dev/null`, a pipe) is written to as it is.

    Raises:
        MnistError: the file cannot be written; it names the file and the reason.

    """
    with _told_of(path):
        if _is_special(path):
            with path.open("wb") as file:
                yield file
            return
        target, temporary = _names(path)
        _discard(temporary, wait=True)
        with _undisturbed():
            try:
                with _held(temporary) as file:
                    yield file
                    file.flush()
                    if target.exists():
                        temporary.chmod(stat.S_IMODE(target.stat().st_mode))
                    os.fsync(file.fileno())
                    if fcntl is None:
                        file.close()  # Windows renames no open file
                    temporary.replace(target)
            except BaseException:
                with contextlib.suppress(OSError):
                    _discard(temporary, wait=False)
                raise


@contextlib.contextmanager
def append(path: Path, begin: bytes) -> Iterator[IO[bytes]]:
    """Publish a file that holds `begin`, and give it to append to.

    Raises:
        MnistError: the file cannot be written; it names the file and the reason.

    """
    with _told_of(path):
        special = _is_special(path)
        if not special:
            with publish(path) as file:
                file.write(begin)
        with path.open("wb" if special else "ab") as file:
            if special:
                file.write(begin)
            yield file


def check_writable(path: Path) -> None:
    """Raise MnistError if `path` could not be published; remove what a killed process left."""
    with _told_of(path):
        if not _is_special(path):
            _, temporary = _names(path)
            _discard(temporary, wait=True)
            with _undisturbed(), _held(temporary):
                temporary.unlink()


def _is_special(path: Path) -> bool:
    """Tell whether there is something at `path` that is neither a regular file nor a directory."""
    return path.exists() and not path.is_file() and not path.is_dir()


@contextlib.contextmanager
def _told_of(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise MnistError(f"cannot write {path}: {error.strerror or error}") from error


def _names(path: Path) -> tuple[Path, Path]:
    """Return where `path` leads, and the name of the temporary file beside that."""
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, "it is a directory")
    if target.exists() and not os.access(target, os.W_OK):
        raise PermissionError(errno.EACCES, "it is write-protected")
    return target, target.with_name(f".{target.name}.tmp")


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Let the handlers of SIGINT and SIGTERM wait for the end; a second signal kills at once."""
    came: list[int] = []

    def remember(number: int, frame: object) -> None:
        """Keep the signal for later, and let a second one kill."""
        came.append(number)
        signal.signal(number, signal.SIG_DFL)

    in_main = threading.current_thread() is threading.main_thread()  # where handlers run
    both = (signal.SIGINT, signal.SIGTERM) if in_main else ()
    handlers = {signum: old for signum in both if callable(old := signal.getsignal(signum))}
    try:
        for signum in handlers:
            signal.signal(signum, remember)
        yield
    finally:
        for signum, old in handlers.items():
            signal.signal(signum, old)
        for number in came:
            signal.raise_signal(number)


@contextlib.contextmanager
def _held(path: Path) -> Iterator[IO[bytes]]:
    """Give a new file at `path`, locked, once no other process has one there."""
    while True:
        try:
            file = path.open("xb")
        except FileExistsError:
            _discard(path, wait=True)
            continue
        with file:
            if fcntl:
                fcntl.flock(file, fcntl.LOCK_EX)
            if _is_at(path, file):
                yield file
                return


def _discard(path: Path, *, wait: bool) -> None:
    """Remove a temporary file, after the process that holds it is done with it, if `wait`."""
    with contextlib.suppress(FileNotFoundError):
        if fcntl is None or path.is_symlink():
            path.unlink()
            return
        with path.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            if _is_at(path, file):
                path.unlink()


def _is_at(path: Path, file: IO[bytes]) -> bool:
    """Tell whether the open `file` still has the name `path`."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
