"""Receive a file over HTTP, bounded in time and size from the first byte to the last.

The only importer of requests.
"""

import contextlib
import http
import os
import socket
import time
from collections.abc import Iterator
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from requests.utils import get_environ_proxies
from urllib3 import Retry
from urllib3.exceptions import HTTPError, ProtocolError

from mnist_cli import __version__
from mnist_cli.data.catalogue import File

CONNECT_SECONDS = 3.0  # for each address of a host
STALL_SECONDS = 10.0  # without a byte of the file: redirects, retries and framing do not count
RATE = 10_240  # bytes of the file a second, on average, once STALL_SECONDS are over
OVERHEAD = 1 << 20  # bytes that may come on top of twice the file
RETRIES = Retry(
    3,
    connect=0,
    backoff_factor=0.5,
    status_forcelist=(429, 500, 502, 503, 504),
    raise_on_status=False,
    respect_retry_after_header=False,
)


class MirrorError(Exception):
    """A mirror does not give the file; the text says why."""


class CutError(MirrorError):
    """The answer is not whole: it may help to ask again."""


class _Adapter(HTTPAdapter):
    """Limits the time and the bytes of an exchange, redirects and retries included."""

    def __init__(self) -> None:
        super().__init__(max_retries=RETRIES)
        self.start = self.last = time.monotonic()
        self.total = self.of_file = 0  # bytes received

    def get_connection_with_tls_context(self, *args: Any, **options: Any) -> Any:
        """Return connections whose every read is limited, of headers, framing and trailers too."""
        pool: Any = super().get_connection_with_tls_context(*args, **options)
        kind: Any = type(pool).ConnectionCls

        def response_class(connection: socket.socket, *args: Any, **options: Any) -> Any:
            response = kind.response_class(connection, *args, **options)
            readinto = response.fp.raw.readinto

            def limited(buffer: Any) -> int:
                connection.settimeout(self._seconds_left())
                with contextlib.suppress(TimeoutError):
                    self.total += (count := readinto(buffer))
                    return int(count)
                raise self._too_slow()

            response.fp.raw.readinto = limited
            return response

        pool.ConnectionCls = type("_", (kind,), {"response_class": staticmethod(response_class)})
        return pool

    def _seconds_left(self) -> float:
        if self.total > 2 * self.of_file + OVERHEAD:
            raise MirrorError(f"{self.total} bytes received, {self.of_file} of them of the file")
        end = STALL_SECONDS + min(self.last, self.start + self.of_file / RATE)
        if time.monotonic() >= end:
            raise self._too_slow()
        return end - time.monotonic()

    def _too_slow(self) -> MirrorError:
        seconds = time.monotonic() - self.start
        return MirrorError(f"too slow: {self.of_file} bytes in {seconds:.0f} s")


def receive(url: str, file: File, offset: int) -> Iterator[tuple[int, bytes]]:
    """Ask for a .gz from `offset` on; yield its pieces, each with its place in the file.

    Raises:
        CutError: the answer is not whole.
        MirrorError: the mirror does not give the file.

    """
    if offset == file.gz_size:
        return
    limits = _Adapter()
    try:
        with requests.Session() as session, _ask(session, limits, url, offset) as response:
            code, span = response.status_code, response.headers.get("Content-Range", "")
            if offset and code in (206, 416) and not span.startswith(f"bytes {offset}-"):
                yield 0, b""  # what is there cannot be continued
                raise CutError(f"HTTP {code}: nothing from byte {offset} on")
            if code not in (200, 206):
                phrases = {status.value: f" {status.phrase}" for status in http.HTTPStatus}
                raise MirrorError(f"HTTP {code}{phrases.get(code, '')}")
            place, length = offset if code == 206 else 0, response.raw.length_remaining
            end = file.gz_size if length is None else place + length
            if end > file.gz_size:
                raise MirrorError(f"expected {file.gz_size} bytes, announced {end}")
            response.raw.enforce_content_length = False  # done below, for what is there is kept
            while chunk := response.raw.read1(min(1 << 16, end - place), decode_content=False):
                limits.of_file, limits.last = limits.of_file + len(chunk), time.monotonic()
                if place == 0 and chunk[:1] != b"\x1f":
                    raise MirrorError(f"no .gz file: it begins with {chunk[:15]!r}")
                yield place, chunk
                place += len(chunk)
            if place < end and not response.raw.chunked:
                raise CutError(f"cut at byte {place} of {end}")
    except ProtocolError as error:
        raise CutError(_reason(error)) from error
    except ValueError as error:
        raise MirrorError("cannot use its URL, or that of a redirect or proxy") from error
    except (OSError, HTTPError, MemoryError) as error:
        raise MirrorError(_reason(error)) from error


def _ask(
    session: requests.Session, adapter: HTTPAdapter, url: str, offset: int
) -> requests.Response:
    schemes = ("https://",) if url.lower().startswith("https:") else ("https://", "http://")
    session.adapters = dict.fromkeys(schemes, adapter)  # no redirect from https to http
    session.trust_env = False  # or what ~/.netrc holds would be sent
    session.max_redirects = 5
    # The .gz as it is: an encoding on top would be undone or not, by whoever is in between.
    headers = {"Accept-Encoding": "identity", "User-Agent": f"mnist-cli/{__version__}"}
    return session.get(
        url,
        headers=headers | ({"Range": f"bytes={offset}-"} if offset else {}),
        stream=True,
        timeout=CONNECT_SECONDS,
        proxies=get_environ_proxies(url),
        verify=os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or True,
    )


def _reason(error: BaseException) -> str:
    """Unwrap what requests wraps in layers, in `__cause__`, `reason` or the arguments."""
    for layer in (error.__cause__, getattr(error, "reason", None), *reversed(error.args)):
        if isinstance(layer, BaseException):
            return _reason(layer)
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__)[:200]
