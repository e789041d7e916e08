"""A real web server on the loopback whose every fault is one method, and a small data set."""

import contextlib
import gzip
import hashlib
import re
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

from mnist_cli.data.catalogue import NAMES, Dataset, File

MIB = 1 << 20


def _raw(name: str, count: int) -> bytes:
    """An IDX file of noise: written out here, independently of the package."""
    rng = np.random.default_rng(len(name))
    if "labels" in name:
        return b"\0\0\x08\x01" + count.to_bytes(4, "big") + bytes(i % 10 for i in range(count))
    size = (28).to_bytes(4, "big")
    pixels = rng.integers(0, 16, count * 784, np.uint8).tobytes()
    return b"\0\0\x08\x03" + count.to_bytes(4, "big") + size + size + pixels


RAW = {
    name: _raw(name, count)
    for names, count in zip(NAMES.values(), (900, 300), strict=True)
    for name in names
}
PACKED = {f"{name}.gz": gzip.compress(data, 6, mtime=0) for name, data in RAW.items()}
SMALL = Dataset(
    "mnist",
    files=tuple(
        File(
            name,
            len(data),
            len(PACKED[f"{name}.gz"]),
            hashlib.sha256(PACKED[f"{name}.gz"]).hexdigest(),
            hashlib.sha256(data).hexdigest(),
        )
        for name, data in RAW.items()
    ),
)


class FaultyServer(ThreadingHTTPServer):
    """Serves `files` at `/FAULT/NAME`, each fault in its own way, and keeps count."""

    daemon_threads = True

    def __init__(self, files: dict[str, bytes] = PACKED, *, chunk: int = 16_384) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = files
        self.chunk = chunk
        self.scheme = "http"
        self.elsewhere = self
        self.sent = 0  # bytes of bodies
        self.asked: list[tuple[str, str | None]] = []  # path and Range
        self.authorizations: list[str | None] = []
        self.times: Counter[str] = Counter()
        self.closing = threading.Event()
        self.lock = threading.Lock()

    def url(self, fault: str) -> str:
        return f"{self.scheme}://127.0.0.1:{self.server_port}/{fault}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is nothing to report."""


@contextlib.contextmanager
def serving(server: FaultyServer) -> Iterator[FaultyServer]:
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()


STATUSES = {
    "forbidden": 403,
    "missing": 404,
    "broken": 500,
    "unavailable": 503,
    "unknown_status": 799,
}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: FaultyServer

    def do_GET(self) -> None:
        # A client behind a proxy asks with the whole URL.
        path = re.sub("^http://[^/]*", "", self.path)
        fault, self.name = path.partition("?")[0].strip("/").split("/")
        self.content = self.server.files[self.name]
        with self.server.lock:
            self.server.asked.append((path, self.headers["Range"]))
            self.server.authorizations.append(self.headers["Authorization"])
            self.server.times[path] += 1
            self.time = self.server.times[path]
        if fault.endswith("_once"):
            fault = fault.removesuffix("_once") if self.time == 1 else "good"
        if fault in STATUSES:
            self.error(STATUSES[fault])
        else:
            getattr(self, fault)()

    def log_message(self, *args: Any) -> None:
        """Say nothing."""

    # What the faults are made of

    def answer(self, code: int, length: int | None = None, **headers: str) -> None:
        self.send_response(code)
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()

    def body(self, data: bytes, pause: float = 0.0) -> None:
        for start in range(0, len(data), self.server.chunk):
            if pause and self.server.closing.wait(pause):
                return
            chunk = data[start : start + self.server.chunk]
            self.wfile.write(chunk)
            with self.server.lock:
                self.server.sent += len(chunk)

    def offset(self) -> int:
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
        return int(asked[1]) if asked else 0

    def whole(self, data: bytes, **headers: str) -> None:
        self.answer(200, len(data), **headers)
        self.body(data)

    def forever(self, data: bytes, pause: float = 0.0) -> None:
        while not self.server.closing.wait(pause):
            self.body(data)

    def hang(self) -> None:
        self.server.closing.wait()
        self.close_connection = True

    def cut(self, data: bytes) -> None:
        self.body(data)
        self.close_connection = True

    def error(self, code: int, **headers: str) -> None:
        self.answer(code, 4, **headers)
        self.body(b"Sad.")

    # The faults

    def good(self, pause: float = 0.0) -> None:
        start = self.offset()
        if start >= len(self.content):
            self.error(416)
            return
        if start:
            total = len(self.content)
            span = f"bytes {start}-{total - 1}/{total}"
            self.answer(206, total - start, Content_Range=span)
        else:
            self.answer(200, len(self.content))
        self.body(self.content[start:], pause)

    def slow(self) -> None:
        self.good(pause=0.01)

    def too_many(self) -> None:
        self.error(429, Retry_After="3600" if self.time % 2 else "9" * 5000)

    def broken_endlessly(self) -> None:
        self.answer(500, 16 * MIB)
        self.forever(bytes(self.server.chunk))

    def html(self) -> None:
        page = b"<!DOCTYPE html><title>Moved</title>" + b"<p>We have moved.</p>" * 50
        self.whole(page, Content_Type="text/html")

    def wrong_bytes(self) -> None:
        middle = len(self.content) // 2
        flipped = bytes([self.content[middle] ^ 1])
        self.whole(self.content[:middle] + flipped + self.content[middle + 1 :])

    def wrong_rest(self) -> None:
        """A right length but wrong bytes, to one who resumes; all is well from zero."""
        if self.offset():
            self.content = self.content[:10] + bytes(len(self.content) - 10)
        self.good()

    def cut_and_wrong(self) -> None:
        """Only half of the file, and a wrong rest to one who asks for it."""
        if self.offset():
            self.wrong_rest()
        else:
            self.cut_without_range()

    def too_long(self) -> None:
        self.answer(200, len(self.content) + 64 * MIB)
        self.body(self.content + bytes(64 * MIB))

    def endless(self) -> None:
        """The file over and over."""
        self.answer(200, Transfer_Encoding="chunked")
        self.forever(b"%x\r\n%b\r\n" % (len(self.content), self.content))

    def too_short(self) -> None:
        self.whole(self.content[: len(self.content) // 2])

    def empty(self) -> None:
        self.whole(b"")

    def silent(self) -> None:
        self.hang()

    def stalled(self) -> None:
        self.answer(200, len(self.content))
        self.body(self.content[: len(self.content) // 2])
        self.hang()

    def dripping(self) -> None:
        self.answer(200, len(self.content))
        self.body(self.content[:1])
        self.forever(b"x", pause=0.02)

    def dripping_headers(self) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Endless: ")
        self.forever(b"x", pause=0.02)

    def dripping_extension(self) -> None:
        self.answer(200, Transfer_Encoding="chunked")
        self.wfile.write(b"%x;x=" % len(self.content))
        self.forever(b"x", pause=0.02)

    def trailers(self) -> None:
        """All of the file but its last byte, which might be the official one, and no end."""
        self.answer(200, Transfer_Encoding="chunked")
        self.wfile.write(b"%x\r\n" % (len(self.content) - 1))
        self.body(self.content[:-1])
        self.wfile.write(b"\r\n0\r\n")

    def dripping_trailers(self) -> None:
        self.trailers()
        self.forever(b"X: x\r\n", pause=0.02)

    def endless_trailers(self) -> None:
        self.trailers()
        self.forever(b"X: %b\r\n" % (b"x" * 10_000))

    def endless_interim(self) -> None:
        self.forever(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000)

    def cut_always(self) -> None:
        start = self.offset()
        left = len(self.content) - start
        self.answer(206 if start else 200, left, Content_Range=f"bytes {start}-/*")
        self.cut(self.content[start : start + left // 2])

    def cut_without_range(self) -> None:
        self.answer(200, len(self.content))
        self.cut(self.content[: len(self.content) // 2])

    def cut_without_length(self) -> None:
        self.answer(200, Connection="close")
        self.cut(self.content[: len(self.content) // 2])

    def cut_once_without_range(self) -> None:
        if self.time == 1:
            self.cut_without_range()
        else:
            self.whole(self.content)

    def cut_chunked(self) -> None:
        self.answer(200, Transfer_Encoding="chunked")
        self.wfile.write(b"%x\r\n" % len(self.content))
        self.cut(self.content[: len(self.content) // 2])

    def hang_up(self) -> None:
        self.close_connection = True

    def wrong_range(self) -> None:
        """The first bytes, whatever is asked for."""
        if self.offset():
            span = f"bytes 0-{len(self.content) - 1}/{len(self.content)}"
            self.answer(206, len(self.content), Content_Range=span)
            self.body(self.content)
        else:
            self.good()

    def unsatisfiable(self) -> None:
        if self.offset():
            self.error(416)
        else:
            self.good()

    def redirect(self) -> None:
        self.answer(302, 0, Location=f"/good/{self.name}")

    def redirect_elsewhere(self) -> None:
        self.answer(302, 0, Location=f"{self.server.elsewhere.url('good')}{self.name}")

    def redirect_loop(self) -> None:
        self.answer(302, 0, Location=self.path)

    def redirect_endless(self) -> None:
        self.answer(302, 1 << 40, Location=f"/good/{self.name}")
        self.forever(bytes(self.server.chunk))

    def recompressed(self) -> None:
        self.whole(gzip.compress(gzip.decompress(self.content), 9, mtime=1))

    def encoded(self) -> None:
        """An encoding that is to be undone on the way, put on top for those who accept it."""
        on_top = "gzip" in self.headers["Accept-Encoding"]
        data = gzip.compress(self.content) if on_top else self.content
        self.whole(data, Content_Encoding="gzip")

    def nonsense(self) -> None:
        self.wfile.write(b"220 \x1b[31mftp\x07 ready" + b"!" * 60_000 + b"\r\n\r\n")
        self.close_connection = True

    def rude(self) -> None:
        self.wfile.write(b"HTTP/1.1 404 \x1b[2J\x07Gone\r\nContent-Length: 0\r\n\r\n")
