"""Put the official files of a data set in a directory: verified, resumable, all of them or none.

A .gz is received into a partial file, which outlives a cut connection and a kill and is continued
from any mirror. Only what has the right SHA-256 is put in place, once all four files are there.
"""

import contextlib
import hashlib
import itertools
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Protocol
from urllib.request import url2pathname

from mnist_cli.data import idx, synthetic
from mnist_cli.data.catalogue import NAMES, Dataset, Done, File
from mnist_cli.data.loading import check_directory, find, hint
from mnist_cli.data.mirror import CutError, MirrorError, receive
from mnist_cli.errors import DataError, DownloadError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

Copies = dict[Path, bytes | bytearray]  # where a file is, and what it holds, uncompressed


class Report(Protocol):
    """Is told how a download goes."""

    def progress(self, name: str, received: int, total: int) -> None:
        """Hear how many bytes of a .gz are there; first, those of an earlier download."""

    def notice(self, text: str, *, important: bool = False) -> None:
        """Hear what goes wrong or takes longer or, `important` even to the quiet, is moved."""


def download(
    dataset: Dataset,
    directory: Path,
    mirrors: Sequence[str],
    *,
    report: Report,
    force: bool = False,
    move: bool = True,
) -> list[Done]:
    """Put the official files of `dataset`, uncompressed and verified, in `directory`.

    Official files that are there are left alone, unless `force`. Any others of these names are
    moved aside, or refused unless `move`. Of several processes one fetches while the others wait.

    Raises:
        DataError: `directory` is a file, or cannot be searched.
        DownloadError: no mirror has a file, it cannot be stored, or one that is there is refused.

    """
    check_directory(directory)
    job = _Download(dataset, directory, list(mirrors or dataset.mirrors), report)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with _locked(directory, report):
            return job.run(force=force, move=move)
    except OSError as error:
        needed = sum(file.size + file.gz_size for file in job.files)
        raise DownloadError(
            f"cannot write {error.filename or directory}: {error.strerror or error}; "
            f"{directory} has to be writable with {needed} bytes free"
        ) from error


class _Download:
    def __init__(
        self, dataset: Dataset, directory: Path, mirrors: list[str], report: Report
    ) -> None:
        self.dataset, self.directory, self.report = dataset, directory, report
        self.mirrors = mirrors  # one that failed is asked last from then on
        self.generated = {} if dataset.files else _generate()
        self.files = dataset.files or tuple(self.generated)

    def run(self, *, force: bool, move: bool) -> list[Done]:
        """Look at what is there, fetch what is not, and put all in place."""
        there = {file: find(self.directory, file.name) for file in self.files}
        official = {file: _official(paths, file) for file, paths in there.items()}
        own = [path for file in there for path in there[file] if path not in official[file]]
        if own and not move:
            raise DownloadError(f"{own[0]} is not the official file; {hint(self.directory)}")
        wanted = [file for file in self.files if force or not official[file]]
        new = {file: self.generated.get(file) or self._fetch(file) for file in wanted}
        moved = self._install(official, new, own)
        for file in new:
            self._partial(file).unlink(missing_ok=True)
        done, fetched = [], "generated" if self.generated else "downloaded"
        for file, copies in (official | new).items():
            sha256 = _sha256(next(iter(copies.values())))
            name = next((moved[path] for path in there[file] if path in moved), None)
            status = fetched if file in new else "verified"
            done.append(Done(file.name, file.size, sha256, status, name))
        return done

    def _install(
        self, official: dict[File, Copies], new: dict[File, Copies], own: list[Path]
    ) -> dict[Path, str]:
        """Write all beside, then move `own` aside and put all in place; return the new names."""
        contents, moved = _contents(self.directory, official, new), {}
        staged = {path: path.with_name(f".{path.name}.new") for path in contents}
        try:
            for path, beside in staged.items():
                with _open(beside) as out:
                    out.truncate()
                    out.write(contents[path])
                    out.flush()
                    os.fsync(out.fileno())
            for path in own:
                names = (f"{path.name}.moved-{n}" for n in itertools.count(1))
                moved[path] = next(n for n in names if not os.path.lexists(path.with_name(n)))
                path.rename(path.with_name(moved[path]))
                text = f"{path} is not official: moved to {moved[path]}"
                self.report.notice(text, important=True)
            for path, beside in staged.items():
                beside.replace(path)
        finally:
            for beside in staged.values():
                beside.unlink(missing_ok=True)
        return moved

    def _partial(self, file: File) -> Path:
        return self.directory / f".{file.name}.gz.part"

    def _fetch(self, file: File) -> Copies:
        """Return the official file from the first mirror that has it."""
        reasons = []
        for mirror in tuple(self.mirrors):
            remote = re.match(r"(?!file:)\w+://", mirror)
            try:
                copies = (self._receive if remote else self._look_up)(mirror, file)
            except (DataError, MirrorError) as error:
                reason = f"{_redact(mirror)}: {error}"
                reasons.append("".join(c if c.isprintable() else "?" for c in reason))
                self.mirrors.sort(key=mirror.__eq__)
                continue
            for reason in reasons:
                self.report.notice(f"{file.name}: {reason}")
            return copies
        raise DownloadError(
            f"cannot download {file.name}: {'; '.join(reasons)}; try again later or name another "
            "--mirror; --dataset synthetic needs no network, --offline uses the files there are"
        )

    def _look_up(self, mirror: str, file: File) -> Copies:
        """Find the file, plain or .gz, in a folder or in the data set's folder there."""
        folder = Path(url2pathname(mirror.removeprefix("file://").removeprefix("localhost")))
        if not folder.is_dir():
            raise MirrorError("no such folder")
        below = folder / self.dataset.name
        paths = find(folder, file.name) + find(below, file.name)
        if not paths:
            raise MirrorError(f"no {folder / file.name}, plain or .gz, nor in {below}")
        if copies := _official(paths, file):
            return copies
        raise MirrorError(f"{paths[0]} is not the official file")

    def _receive(self, mirror: str, file: File) -> Copies:
        """Receive the .gz; what was continued and is wrong is asked for from its beginning."""
        [(base, query)] = re.findall(r"^([^?#]*)(.*)$", mirror, re.DOTALL)
        url, partial = f"{base.rstrip('/')}/{file.name}.gz{query}", self._partial(file)
        for _ in range(4):
            reason = ""
            try:
                with _open(partial) as out:
                    start = there = out.seek(0, os.SEEK_END)
                    self.report.progress(file.name, there, file.gz_size)
                    for place, chunk in receive(url, file, there):
                        start = min(start, place)
                        out.seek(place)
                        out.truncate()
                        there = place + out.write(chunk)
                        self.report.progress(file.name, there, file.gz_size)
            except CutError as error:
                reason = str(error)
            if copies := _official([partial], file):
                return copies
            if not reason:
                sha256 = _sha256(partial.read_bytes())
                reason = f"not the official file: {there} bytes with SHA-256 {sha256[:16]}…"
                partial.unlink()
                if start == 0:
                    break
        raise MirrorError(reason)


def _redact(url: str) -> str:
    """Leave out what may be a password or a token in a URL, whatever characters it has."""
    [(scheme, secret, rest)] = re.findall(r"^(\w+://)?(.*@)?([^?#]*)", url, re.DOTALL)
    if not scheme and ":" not in secret:
        return url  # a folder
    return scheme + ("…" if set("?#") & set(secret) else rest)


def _generate() -> dict[File, Copies]:
    """Make the files of the synthetic data set."""
    arrays = itertools.chain(*map(synthetic.generate, NAMES))
    contents = dict(zip(itertools.chain(*NAMES.values()), map(idx.to_bytes, arrays), strict=True))
    return {File(n, len(c), 0, "", _sha256(c)): {Path(n): c} for n, c in contents.items()}


def _official(paths: Iterable[Path], file: File) -> Copies:
    """Return those of `paths` that hold the official file, in whatever form."""
    copies: Copies = {}
    for path in paths:
        with contextlib.suppress(DataError):  # not a file, unreadable or damaged
            copies[path] = idx.read_bytes(path, file.size + 1)
    proved = (_sha256(content) for path, content in copies.items() if _is_gz(path, file))
    sha256 = file.sha256 or next(proved, None)
    return {path: content for path, content in copies.items() if _sha256(content) == sha256}


def _is_gz(path: Path, file: File) -> bool:
    """Return whether `path` is the official .gz itself."""
    same_size = path.stat().st_size == file.gz_size
    return same_size and _sha256(path.read_bytes()) == file.gz_sha256


def _contents(directory: Path, official: dict[File, Copies], new: dict[File, Copies]) -> Copies:
    """Return what is to be written, and where."""
    contents: Copies = {}
    for file, copies in (official | new).items():
        plain = directory / file.name
        unpacked = plain in copies and plain.stat().st_size == file.size
        if file in new or (not unpacked and os.access(directory, os.W_OK)):
            contents[plain] = next(iter(copies.values()))
        if file in new and file.sha256 is None:  # the .gz alone can be verified: keep it
            packed = next(path for path in copies if _is_gz(path, file))
            contents[directory / f"{file.name}.gz"] = packed.read_bytes()
    return contents


def _sha256(content: bytes | bytearray) -> str:
    return hashlib.sha256(content).hexdigest()


@contextlib.contextmanager
def _locked(directory: Path, report: Report) -> Iterator[None]:
    """Hold the directory's lock, which a killed process does not leave locked."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # a read-only directory or a file system without locks
            lock = stack.enter_context(_open(directory / ".lock"))
            if fcntl:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    report.notice(f"waiting for another download into {directory}")
                    fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _open(path: Path) -> IO[bytes]:
    """Open a file of our own, but no link or pipe that somebody else put there."""
    if path.is_symlink() or path.is_fifo():
        path.unlink()
    flags = os.O_RDWR | os.O_CREAT
    for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"):  # where there are such
        flags |= getattr(os, name, 0)
    return os.fdopen(os.open(path, flags, 0o666), "r+b")
