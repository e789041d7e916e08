"""Fetch the official files: verified, resumable, published whole or not at all.

A file is received as .gz into a partial file beside its destination, which outlives a cut
connection and a kill and is continued wherever there is a mirror. Only what has the right
SHA-256 is published.
"""

import contextlib
import hashlib
import io
import os
import re
import shutil
import sys
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit
from urllib.request import url2pathname

from mnist_cli.data import idx, synthetic
from mnist_cli.data.catalogue import NAMES, Dataset, Done, Event, File, Notice
from mnist_cli.data.loading import check_directory, find
from mnist_cli.data.mirror import MirrorError, Session, open_session, receive
from mnist_cli.errors import DataError, DownloadError, MnistError
from mnist_cli.files import publish


def download(
    dataset: Dataset, directory: Path, mirrors: Sequence[str] = (), *, force: bool = False
) -> Iterator[Event]:
    """Put the official files of `dataset`, uncompressed and verified, in `directory`.

    What is there already and right is left alone, unless `force`. Of several processes one
    fetches while the others wait.

    Raises:
        DataError: `directory` is a file, or may not be looked into.
        DownloadError: a file could not be had from any mirror, or not be stored, or one of that
            name is there that is the user's own.

    """
    check_directory(directory)
    left = [(file, b"") for file in dataset.files] or _generate()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        yield from _get_all(left, directory, mirrors or dataset.mirrors, force)
    except (DownloadError, DataError):
        raise
    except (OSError, MnistError) as error:
        reason = str(error)
        if isinstance(error, OSError):
            reason = f"cannot write {error.filename or directory}: {error.strerror}"
        needed = sum(file.size + file.gz_size for file, _ in left)
        raise DownloadError(
            f"{reason}; {directory} has to be writable with {needed} bytes free"
        ) from error


def _get_all(
    left: list[tuple[File, bytes]], directory: Path, mirrors: Sequence[str], force: bool
) -> Iterator[Event]:
    """Put the files in place, holding the directory's lock; take out of `left` what is done."""
    with contextlib.ExitStack() as stack:
        # Where no lock can be written, no other process writes either.
        with contextlib.suppress(OSError):
            lock = stack.enter_context((directory / ".lock").open("ab"))
            yield from _wait_for(lock, directory)
        for file, _ in left:
            _refuse_own(file, directory)
        session = stack.enter_context(open_session())
        while left:
            file, content = left[0]
            sha256 = None if force else (yield from _verify(file, directory))
            status = "verified"
            if sha256 is None and content:
                sha256, status = _store(file, directory, [content]), "generated"
            elif sha256 is None:
                sha256 = yield from _fetch(session, file, directory, mirrors)
                status = "downloaded"
            del left[0]
            yield Done(file.name, file.size, sha256, status)


def _generate() -> list[tuple[File, bytes]]:
    """Make the files of the synthetic data set, and say what tells them from others."""
    files = []
    for split, names in NAMES.items():
        for name, array in zip(names, synthetic.generate(split), strict=True):
            buffer = io.BytesIO()
            idx.write(buffer, array)
            content = buffer.getvalue()
            sha256 = hashlib.sha256(content).hexdigest()
            files.append((File(name, array.shape, 0, "", sha256), content))
    return files


def _wait_for(lock: IO[bytes], directory: Path) -> Iterator[Notice]:
    """Hold the lock file, which a killed process does not leave locked, until it is closed."""
    if not _try_lock(lock):
        yield Notice(f"waiting for another download into {directory}")
        while not _try_lock(lock):
            time.sleep(0.1)


if sys.platform == "win32":  # pragma: no cover
    import msvcrt

    def _try_lock(file: IO[bytes]) -> bool:
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
else:
    import fcntl

    def _try_lock(file: IO[bytes]) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


# What is there already


def _refuse_own(file: File, directory: Path) -> None:
    """Raise DownloadError where a file of that name is not an official one, even a damaged one."""
    for path in find(directory, file.name):
        if not path.is_file():
            raise DownloadError(f"{path} is not a regular file; move it away")
        with contextlib.suppress(DataError):
            count = next(iter(idx.read_header(path).shape), 1)
            if count != file.shape[0]:
                raise DownloadError(
                    f"{path} has {count} items where the official file has {file.shape[0]}: it is "
                    "yours and left alone; move it away or choose another --data-dir"
                )


def _verify(file: File, directory: Path) -> Generator[Notice, None, str | None]:
    """Return the SHA-256 of the file if it is there and right, unpacking a right .gz copy."""
    paths = find(directory, file.name)
    sha256 = file.sha256
    if sha256 is None:
        packed = [path for path in paths if path.suffix == ".gz"]
        official = [path for path in packed if _file_sha256(path) == file.gz_sha256]
        sha256 = _content_sha256(official[0], file) if official else None
    for path in paths:
        if sha256 is None or _content_sha256(path, file) != sha256:
            unless = "" if sha256 else f" or lacks its official {file.name}.gz"
            yield Notice(f"{path} is damaged{unless}; getting it again")
            continue
        in_place = path == directory / file.name and path.stat().st_size == file.size
        if not in_place and os.access(directory, os.W_OK):
            _store(file, directory, idx.chunks(path, file.size))
        return sha256
    return None


def _content_sha256(path: Path, file: File) -> str | None:
    """Digest the uncompressed bytes, up to one more than there may be; None for damaged .gz."""
    digest = hashlib.sha256()
    with contextlib.suppress(DataError):
        for chunk in idx.chunks(path, file.size + 1):
            digest.update(chunk)
        return digest.hexdigest()
    return None


def _file_sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path}: cannot read it: {error.strerror}") from error


# Putting it in place


def _install(source: Path, file: File, directory: Path) -> str:
    """Publish what `source`, plain or .gz, holds if it is official; return its SHA-256.

    Raises:
        MirrorError: it is not.
        MnistError: it cannot be written.

    """
    found = _file_sha256(source)
    try:
        if file.sha256 is None and found != file.gz_sha256:
            raise DataError("only the .gz can be verified")
        sha256 = _store(file, directory, idx.chunks(source, file.size + 1))
    except DataError as error:
        raise MirrorError(
            f"not the official file: {source.stat().st_size} bytes with SHA-256 {found[:16]}…, "
            f"expected {file.gz_size} with {file.gz_sha256[:16]}…"
        ) from error
    kept = directory / f"{file.name}.gz"
    if file.sha256 is None and source != kept:
        with source.open("rb") as packed, publish(kept) as out:
            shutil.copyfileobj(packed, out)
    _partial(file, directory).unlink(missing_ok=True)
    return sha256


def _partial(file: File, directory: Path) -> Path:
    """Name what holds the .gz while it is received."""
    return directory / f".{file.name}.gz.part"


def _store(file: File, directory: Path, chunks: Iterable[bytes]) -> str:
    """Publish `chunks` under the file's name if they have its SHA-256, where that is known."""
    digest = hashlib.sha256()
    with publish(directory / file.name) as out:
        for chunk in chunks:
            digest.update(chunk)
            out.write(chunk)
        if file.sha256 not in (None, digest.hexdigest()):
            raise DataError("wrong SHA-256")
    return digest.hexdigest()


# From a mirror


def _fetch(
    session: Session, file: File, directory: Path, mirrors: Sequence[str]
) -> Generator[Event, None, str]:
    """Try each mirror in turn; return the SHA-256 of the file once it is in place."""
    reasons = []
    for mirror in mirrors:
        try:
            if "://" in mirror and not mirror.startswith("file://"):
                url = f"{mirror.rstrip('/')}/{file.name}.gz"
                return (yield from _fetch_url(session, url, file, directory))
            local = url2pathname(urlsplit(mirror).path) if "://" in mirror else mirror
            return _fetch_local(Path(local), file, directory)
        except (DataError, MirrorError) as error:
            reasons.append(_presentable(f"{mirror}: {error}"))
            yield Notice(f"{file.name}: {reasons[-1]}")
    raise DownloadError(
        f"cannot download {file.name}: {'; '.join(reasons)}; "
        "try again later or name another --mirror"
    )


def _fetch_local(source: Path, file: File, directory: Path) -> str:
    """Install the file from a directory that holds it, plain or .gz."""
    reason = MirrorError("no such file")
    for path in find(source, file.name):
        if path.is_file():
            try:
                return _install(path, file, directory)
            except MirrorError as error:
                reason = error
    raise reason


def _fetch_url(
    session: Session, url: str, file: File, directory: Path
) -> Generator[Event, None, str]:
    """Receive the .gz and install it; what was resumed and is wrong is fetched once from zero."""
    partial = _partial(file, directory)
    once_more = True
    while True:
        try:
            with partial.open("ab") as out:
                resumed = yield from receive(session, url, file, out)
        except OSError:
            partial.unlink(missing_ok=True)  # so that a full disk does not stay full
            raise
        try:
            return _install(partial, file, directory)
        except MirrorError:
            partial.unlink()
            if not (resumed and once_more):
                raise
            once_more = False


def _presentable(text: str) -> str:
    """Leave out passwords in URLs, and characters that would do things to a terminal."""
    text = re.sub(r"//[^/@\s]*@", "//", text)
    return "".join(c if c.isprintable() else "?" for c in text)
