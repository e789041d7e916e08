"""Receive a file from a mirror over HTTP: bounded in time and size, continued where it was cut.

The only importer of requests.
"""

import contextlib
import http
import math
import os
import threading
import time
from collections.abc import Generator, Iterator
from concurrent.futures import Future
from typing import IO, Any
from urllib.parse import urljoin, urlsplit

import requests
from requests import Session as Session  # for those who pass it on
from urllib3.exceptions import HTTPError, MaxRetryError, ProtocolError
from urllib3.util import Retry

from mnist_cli import __version__
from mnist_cli.data.catalogue import File, Progress

CONNECT_SECONDS = 5.0
STALL_SECONDS = 10.0
STALL_BYTES = 10_240  # less than this in STALL_SECONDS is a stall as well
RETRY_SECONDS = 10.0  # the retries of one file at one mirror begin within
RETRIES = Retry(3, backoff_factor=0.5, status_forcelist=(429, 500, 502, 503, 504))
_CHUNK = 1 << 16  # bytes


class MirrorError(Exception):
    """A mirror does not give the file; the text says why."""


class _TryAgainError(MirrorError):
    """Another try at this mirror may do, `wait` seconds from now at the earliest."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


def receive(
    session: Session, url: str, file: File, out: IO[bytes]
) -> Generator[Progress, None, bool]:
    """Continue `out` until the server has sent it all; return whether a part was there before.

    Raises:
        MirrorError: the server does not give the file; it may have been tried several times.

    """
    retries, deadline = RETRIES, math.inf
    while (offset := out.seek(0, os.SEEK_END)) != file.gz_size:
        try:
            return (yield from _transfer(session, url, file, out, offset)) > 0
        except _TryAgainError as error:
            deadline = min(deadline, time.monotonic() + RETRY_SECONDS)
            try:
                retries = retries.increment("GET", url)
            except MaxRetryError:
                raise error from None
            wait = max(error.wait, retries.get_backoff_time())
            if time.monotonic() + wait > deadline:
                raise
            time.sleep(wait)
    return True


def _transfer(
    session: Session, url: str, file: File, out: IO[bytes], offset: int
) -> Generator[Progress, None, int]:
    """Ask once for what is missing from `offset` on; return where the answer really began."""
    with _get(session, url, offset) as response:
        code, content_range = response.status_code, response.headers.get("Content-Range", "")
        if code == 416 or (code == 206 and not content_range.startswith(f"bytes {offset}-")):
            out.truncate(0)
            raise _TryAgainError(f"HTTP {code}: nothing from byte {offset} on")
        if code not in (200, 206):
            raise _refusal(response)
        start = offset = offset if code == 206 else 0
        announced = response.raw.length_remaining
        response.raw.enforce_content_length = False  # done below: not every urllib3 does it
        if announced is not None and start + announced > file.gz_size:
            raise MirrorError(f"expected {file.gz_size} bytes, announced {start + announced}")
        for chunk in _body(response):
            if offset == 0 and chunk[:1] != b"\x1f":
                raise MirrorError(f"no .gz file: it begins with {chunk[:15]!r}")
            if offset + len(chunk) > file.gz_size:
                out.truncate(0)
                raise MirrorError(f"expected {file.gz_size} bytes, found more")
            out.truncate(offset)  # only now, when there is something to take its place
            offset += out.write(chunk)
            yield Progress(file.name, offset, file.gz_size)
        if announced is not None and offset < start + announced:
            raise _TryAgainError(f"cut at byte {offset} of {start + announced}")
    return start


def _get(session: Session, url: str, offset: int) -> requests.Response:
    """Ask in a thread that is left behind when it takes too long.

    The timeouts bound each step of an answer alone: no time is set to a name server, nor to
    headers that come byte by byte.
    """
    headers = {"Range": f"bytes={offset}-"} if offset else {}
    timeout = (CONNECT_SECONDS, STALL_SECONDS)
    answer: Future[requests.Response] = Future()

    def ask() -> None:
        """Leave the response in `answer`, or what was raised in its place."""
        try:
            answer.set_result(session.get(url, headers=headers, stream=True, timeout=timeout))
        except BaseException as error:
            answer.set_exception(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        return answer.result(sum(timeout))
    except TimeoutError:
        raise MirrorError(f"no answer in {sum(timeout):g} s") from None
    except (requests.RequestException, HTTPError, ValueError) as error:
        raise _failure(error) from error


def _body(response: requests.Response) -> Iterator[bytes]:
    """Yield the bytes as they come, and give up when too few do."""
    since, received = time.monotonic(), 0
    while True:
        try:
            chunk = response.raw.read1(_CHUNK, decode_content=False)  # what is there, up to _CHUNK
        except HTTPError as error:
            raise _failure(error) from error
        if not chunk:
            return
        received += len(chunk)
        if time.monotonic() > since + STALL_SECONDS:
            if received < STALL_BYTES:
                raise MirrorError(f"stalled: {received} bytes in {STALL_SECONDS:g} s")
            since, received = time.monotonic(), 0
        yield chunk


def _refusal(response: requests.Response) -> MirrorError:
    """Name the status in our own words: the server's might hold anything."""
    code = response.status_code
    reason = f"HTTP {code}"
    with contextlib.suppress(ValueError):
        reason += f" {http.HTTPStatus(code).phrase}"
    if not RETRIES.is_retry("GET", code, "Retry-After" in response.headers):
        return MirrorError(reason)
    wait = 0.0
    with contextlib.suppress(HTTPError, ValueError, OverflowError):
        wait = RETRIES.get_retry_after(response.raw) or 0.0
    return _TryAgainError(reason, wait)


def _failure(error: Exception) -> MirrorError:
    """Give the reason of a failed request; only after a cut connection another try may do."""
    cut = any(isinstance(layer, ProtocolError) for layer in (error, *error.args))
    root = _innermost(error)
    reason = getattr(root, "strerror", None) or str(root) or type(root).__name__
    return _TryAgainError(reason) if cut else MirrorError(reason)


def _innermost(error: BaseException) -> BaseException:
    """Unwrap what requests wraps in layers, in `__cause__`, `reason` or the arguments."""
    for layer in (error.__cause__, getattr(error, "reason", None), *reversed(error.args)):
        if isinstance(layer, BaseException):
            return _innermost(layer)
    return error


def open_session() -> Session:
    """Return a session that takes files as they are and follows redirects, but never to http."""
    session = Session()
    # The .gz as it is: an encoding on top would be undone or not, by whoever is in between.
    session.headers["Accept-Encoding"] = "identity"
    session.headers["User-Agent"] = f"mnist-cli/{__version__}"
    session.max_redirects = 5
    session.hooks["response"].append(_check_redirect)
    return session


def _check_redirect(response: requests.Response, **_: Any) -> None:
    if response.is_redirect:
        response.close()  # or requests would read all of it
        target = urlsplit(urljoin(response.url, response.headers["Location"]))
        if response.url.startswith("https:") and target.scheme != "https":
            raise requests.exceptions.InvalidSchema("redirected from https to http")
