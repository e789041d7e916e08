"""Model files and checkpoints that mean harm, or that something happened to."""

import io
import json
import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

Maker = Callable[[Path], None]


def npy(array: ArrayLike, *, pickle: bool = False) -> bytes:
    """Return the array as the bytes of an .npy file."""
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.asarray(array), allow_pickle=pickle)
    return stream.getvalue()


def raw_npy(header: str, body: bytes = b"") -> bytes:
    """Return an .npy file with that header, whatever it says."""
    padded = header.encode("latin1") + b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(padded)) + padded + body


def header(shape: str, descr: str = "'<f4'") -> str:
    """Return an .npy header as numpy writes it."""
    return f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}"


METADATA: dict[str, Any] = {
    "format": 1,
    "dataset": "mnist",
    "normalize": "none",
    "config": {},
    "metrics": {"epoch": 3, "train_loss": 0.25, "validation_loss": None},
    "versions": {"numpy": "2.0.0"},
}
W = npy(np.full((784, 10), 0.5, np.float32))
B = npy(np.zeros(10, np.float32))
GOOD = {"W.npy": W, "b.npy": B, "metadata.npy": npy(json.dumps(METADATA))}


def archive(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    """Return a zip with these members."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as file:
        for name, content in members.items():
            file.writestr(zipfile.ZipInfo(name), content, method)
    return stream.getvalue()


def forged(*members: tuple[str, bytes, int, int, int, int]) -> bytes:
    """Return a zip of (name, bytes as stored, claimed size, CRC-32, method, flags)."""
    local, central = b"", b""
    for name, stored, size, crc, method, flags in members:
        fields = struct.pack(
            "<HHHHHIIIHH", 20, flags, method, 0, 33, crc, len(stored), size, len(name), 0
        )
        rest = struct.pack("<HHHII", 0, 0, 0, 0, len(local))
        central += b"PK\x01\x02\x14\x00" + fields + rest + name.encode()
        local += b"PK\x03\x04" + fields + name.encode() + stored
    count = len(members)
    end = struct.pack("<HHHHIIH", 0, 0, count, count, len(central), len(local), 0)
    return local + central + b"PK\x05\x06" + end


def deflated(content: bytes, zeros: int) -> bytes:
    """Return the content, and then so many MiB of zeros, as a raw deflate stream."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    start = deflate.compress(content) + deflate.flush(zlib.Z_FULL_FLUSH)
    mebibyte = deflate.compress(bytes(1 << 20)) + deflate.flush(zlib.Z_FULL_FLUSH)
    return start + mebibyte * zeros + deflate.flush()


def plain(name: str, content: bytes, flags: int = 0) -> tuple[str, bytes, int, int, int, int]:
    """Return a member for `forged` that is all right, but for its flags."""
    return name, content, len(content), zlib.crc32(content), 0, flags


def with_(**members: bytes) -> Maker:
    """Return what writes a good model with some members replaced or added."""
    changed = {f"{name}.npy": content for name, content in members.items()}
    return lambda path: void(path.write_bytes(archive(GOOD | changed)))


def void(_: object) -> None:
    """Do nothing more."""


def content(data: bytes) -> Maker:
    """Return what writes a file with that content."""
    return lambda path: void(path.write_bytes(data))


def metadata(**fields: Any) -> Maker:
    """Return what writes a good model with some fields of the metadata replaced or added."""
    return with_(metadata=npy(json.dumps(METADATA | fields)))


def text(value: str) -> Maker:
    """Return what writes a good model with that text as metadata."""
    return with_(metadata=npy(value))


def _pickle() -> bytes:
    class Harm:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return os.system, ("touch harm",)

    return npy(np.array(Harm(), object), pickle=True)


def _many_members() -> bytes:
    return archive({f"{number}": b"" for number in range(9000)})


BOMB = raw_npy(header("(784, 10)"), bytes(31_360))
ZEROS = np.zeros(10, np.float32)

MODELS: dict[str, Maker] = {
    "empty file": content(b""),
    "text": content(b"W = 1\n" * 100),
    "npy instead of npz": content(W),
    "pickle instead of npz": content(b"\x80\x04\x95" + b"K\x01" * 50),
    "empty zip": content(archive({})),
    "truncated": content(archive(GOOD)[:-400]),
    "head cut off": content(archive(GOOD)[30_000:]),
    "larger than any model": content(archive(GOOD) + bytes(1 << 20)),
    "directory": Path.mkdir,
    "fifo": lambda path: os.mkfifo(path),
    "device": lambda path: path.symlink_to("/dev/zero"),
    "link to itself": lambda path: path.symlink_to(path.name),
    "no W": content(archive({"b.npy": B})),
    "no b": content(archive({"W.npy": W})),
    "unknown member": with_(extra=W),
    "9,000 members": content(_many_members()),
    "path as a member": content(archive(GOOD | {"../../W.npy": W})),
    "escapes in a member's name": content(archive(GOOD | {"\x1b[31m\x07.npy": W})),
    "member twice": content(forged(plain("W.npy", W), plain("W.npy", W), plain("b.npy", B))),
    "encrypted member": content(forged(plain("W.npy", W, flags=1), plain("b.npy", B))),
    "lzma": content(archive(GOOD, zipfile.ZIP_LZMA)),
    "wrong checksum": content(forged(("W.npy", W, len(W), 1, 0, 0), plain("b.npy", B))),
    "pickled W": with_(W=_pickle()),
    "pickled metadata": with_(metadata=_pickle()),
    "shape transposed": with_(W=npy(np.zeros((10, 784), np.float32))),
    "shape flat": with_(W=npy(np.zeros(7840, np.float32))),
    "b of one number": with_(b=npy(np.float32(0))),
    "b as a column": with_(b=npy(ZEROS[:, None])),
    "integers": with_(W=npy(np.zeros((784, 10), np.int32))),
    "complex": with_(b=npy(ZEROS.astype(np.complex64))),
    "text as weights": with_(b=npy(["0"] * 10)),
    "records": with_(b=npy(np.zeros(10, [("x", "<f4")]))),
    "long double": with_(b=raw_npy(header("(10,)", "'<f16'"), bytes(160))),
    "nan": with_(b=npy(ZEROS + np.float32(np.nan))),
    "infinity": with_(W=npy(np.full((784, 10), -np.inf, np.float32))),
    "beyond float32": with_(b=npy(np.full(10, 1e300))),
    "logits that overflow": with_(W=npy(np.full((784, 10), 3e38, np.float32))),
    "terabyte header": with_(W=raw_npy(header("(1000000000000, 10)"), bytes(31_360))),
    "negative shape": with_(W=raw_npy(header("(-784, -10)"), bytes(31_360))),
    "shape of enormous numbers": with_(W=raw_npy(header(f"({'9' * 200}, 10)"), bytes(31_360))),
    "200 dimensions": with_(b=raw_npy(header(f"({'1,' * 200})"), bytes(4))),
    "4,900 dimensions": with_(W=raw_npy(header(f"({'1,' * 4900})"), bytes(4))),
    "deep header": with_(W=raw_npy("(" * 9000 + ")" * 900)),
    "header of operators": with_(W=raw_npy("-" * 9900 + "1")),
    "header of code": with_(W=raw_npy(header("__import__('os').system('touch harm')"))),
    "other version of npy": with_(b=b"\x93NUMPY\x09\x00" + B[8:]),
    "text of no length": with_(metadata=raw_npy(header("()", "'<U0'"))),
    "text of no character": with_(metadata=raw_npy(header("()", "'<U2'"), b"\xff" * 8)),
    "bomb inside an array": content(
        forged(
            ("W.npy", deflated(BOMB, 900), len(BOMB), zlib.crc32(BOMB), 8, 0), plain("b.npy", B)
        )
    ),
    "bomb that says so": content(
        forged(("W.npy", deflated(BOMB, 900), 900 << 20, 0, 8, 0), plain("b.npy", B))
    ),
    "bomb beside the arrays": content(
        forged(
            plain("W.npy", W), plain("b.npy", B), ("c.npy", deflated(b"", 900), 900 << 20, 0, 8, 0)
        )
    ),
    "json 100,000 levels deep": text("[" * 100_000),
    "json 10,000 levels deep": text('{"a":' * 10_000),
    "no json": text("format: 1"),
    "json, no object": text("[1]"),
    "json with nan": text(json.dumps(METADATA | {"metrics": {"train_loss": np.nan}})),
    "json with an infinity": text(json.dumps(METADATA).replace("0.25", "1e999")),
    "json with a number of 5,000 digits": text(json.dumps(METADATA).replace("0.25", "9" * 5000)),
    "json with a number of 4,000 digits": text(json.dumps(METADATA).replace("0.25", "9" * 4000)),
    "later format": metadata(format=2),
    "format true": metadata(format=True),
    "unknown data set": metadata(dataset="cifar-10"),
    "data set a list": metadata(dataset=["mnist"]),
    "escapes in the data set": metadata(dataset="\x1b]0;owned\x07\x1b[2J\r\nmnist"),
    "unknown normalisation": metadata(normalize="whiten"),
    "unknown field": metadata(**{"\x1b[31m": 1}),
    "config a list": metadata(config=[]),
    "escapes in the config": metadata(config={"\x1b[31m\n": 1}),
    "metrics a string": metadata(metrics="good"),
    "metrics of strings": metadata(metrics={"epoch": "\x1b[31m"}),
    "versions of numbers": metadata(versions={"numpy": 2}),
}
