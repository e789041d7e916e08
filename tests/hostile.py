"""Model files that mean harm, or that something happened to."""

import dataclasses
import io
import json
import os
import random
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike


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


@dataclasses.dataclass
class Member:
    """A member of a zip, with what its headers say of it."""

    name: str
    stored: bytes
    size: int = -1
    method: int = 0
    flags: int = 0
    crc: int = -1
    extra: bytes = b""
    local_extra: bytes = b""

    def fields(self, extra: bytes) -> bytes:
        """Return what the header before the member and the entry in the directory share."""
        size = len(self.stored) if self.size < 0 else self.size
        crc = zlib.crc32(self.stored) if self.crc < 0 else self.crc
        lengths = (len(self.stored), size, len(self.name.encode()), len(extra))
        return struct.pack("<5H3I2H", 20, self.flags, self.method, 0, 33, crc, *lengths)


def forged(*members: Member, front: bytes = b"", gap: bytes = b"", comment: bytes = b"") -> bytes:
    """Return a zip of the members, with bytes in front of them, behind each, and as a comment."""
    content, directory = front, b""
    for member in members:
        name, offset = member.name.encode(), struct.pack("<12xI", len(content))[2:]
        fields = member.fields(member.local_extra)
        content += b"PK\3\4" + fields + name + member.local_extra + member.stored + gap
        fields = member.fields(member.extra)
        directory += b"PK\1\2\x14\0" + fields + offset + name + member.extra
    counts = (len(members), len(members), len(directory), len(content), len(comment))
    return content + directory + struct.pack("<4s4x2H2IH", b"PK\5\6", *counts) + comment


def archive(members: dict[str, bytes], **more: bytes) -> bytes:
    """Return a zip of these members as they are, and what `forged` adds."""
    return forged(*(Member(name, content) for name, content in members.items()), **more)


def compressed(members: dict[str, bytes], method: int) -> bytes:
    """Return a zip of these members as zipfile compresses them."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return stream.getvalue()


def bomb(content: bytes) -> bytes:
    """Return the content, and then 900 MiB of zeros, as a raw deflate stream."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    start = deflate.compress(content) + deflate.flush(zlib.Z_FULL_FLUSH)
    mebibyte = deflate.compress(bytes(1 << 20)) + deflate.flush(zlib.Z_FULL_FLUSH)
    return start + mebibyte * 900 + deflate.flush()


METADATA: dict[str, Any] = {
    "format": 1,
    "dataset": "mnist",
    "normalize": "none",
    "features": "pixels",
    "config": {},
    "metrics": {"epoch": 3, "train_loss": 0.25, "validation_loss": None},
    "versions": {"numpy": "2.0.0"},
}
W = npy(np.full((784, 10), 0.5, np.float32))
B = npy(np.zeros(10, np.float32))
GOOD = {"W.npy": W, "b.npy": B, "metadata.npy": npy(json.dumps(METADATA))}
BARE = Member("W.npy", W), Member("b.npy", B)


def with_(**members: bytes) -> bytes:
    """Return a good model with some members replaced or added."""
    return archive(GOOD | {f"{name}.npy": content for name, content in members.items()})


def metadata(**fields: Any) -> bytes:
    """Return a good model with some fields of the metadata replaced or added."""
    return with_(metadata=npy(json.dumps(METADATA | fields)))


def text(value: str) -> bytes:
    """Return a good model with that text as metadata."""
    return with_(metadata=npy(value))


def _pickle() -> bytes:
    class Harm:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return os.system, ("touch harm",)

    return npy(np.array(Harm(), object), pickle=True)


def _checkpoint() -> bytes:
    three = {"W.npy": npy(np.zeros((3, 784, 10), "f4")), "b.npy": npy(np.zeros((3, 10), "f4"))}
    return archive(three | {"metadata.npy": npy(json.dumps({"format": 1, "history": []}))})


ZEROS = np.zeros(10, np.float32)
EXTRA = struct.pack("<HH4s", 0xCAFE, 4, b"evil")
BEYOND_UNICODE = raw_npy(header("()", "'<U3'"), struct.pack("<3I", 34, 0x1FFFFF, 34))

CODE = "__import__('os').system('touch harm')"
NOT_ALONE = "first byte to its last"

# Kind → what the file holds, or what makes it, and the words that refuse it.
MODELS: dict[str, tuple[bytes | Callable[[Path], object], str]] = {
    "missing": (lambda path: None, "No such file or directory"),
    "empty file": (b"", "not a zip file"),
    "npy instead of npz": (W, "not a zip file"),
    "empty zip": (archive({}), r"no W of float32 or float64 and shape \(784, 10\)"),
    "truncated": (archive(GOOD)[:-400], "not a zip file"),
    "directory": (Path.mkdir, "not a regular file"),
    "fifo": (os.mkfifo, "not a regular file"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "not a regular file"),
    "link to itself": (lambda path: path.symlink_to(path.name), "symbolic links"),
    "script in front": (b"#!/bin/sh\n" + archive(GOOD), NOT_ALONE),
    "picture in front": (archive(GOOD, front=b"\x89PNG\r\n\x1a\n"), NOT_ALONE),
    "page behind": (archive(GOOD) + b"<html>", NOT_ALONE),
    "zeros behind": (archive(GOOD) + bytes(1 << 20), "not a zip file"),
    "comment": (archive(GOOD, comment=b"<html>"), NOT_ALONE),
    "gaps": (archive(GOOD, gap=b"<html>"), NOT_ALONE),
    "zip behind a zip": (archive(GOOD) * 2, NOT_ALONE),
    "extra field": (forged(Member("W.npy", W, extra=EXTRA), BARE[1]), NOT_ALONE),
    "local extra field": (forged(Member("W.npy", W, local_extra=EXTRA), BARE[1]), NOT_ALONE),
    "more than claimed": (forged(Member("W.npy", W + b"<html>", len(W)), BARE[1]), "too large"),
    "no W": (archive({"b.npy": B}), "no W of float32"),
    "no b": (archive({"W.npy": W}), r"no b of float32 or float64 and shape \(10,\)"),
    "unknown member": (with_(extra=W), "'extra.npy' is unknown"),
    "member with a NUL": (archive({"W.npy\0.png": W, "b.npy": B}), r"is unknown"),
    "member without a suffix": (archive({"W": W, "b": B}), "'W' is unknown"),
    "9,000 members": (archive({f"{number}": b"" for number in range(9000)}), "too many members"),
    "path as a member": (archive(GOOD | {"../../W.npy": W}), "is unknown"),
    "escapes in a member's name": (archive(GOOD | {"\x1b[31m\x07.npy": W}), "is unknown"),
    "member twice": (forged(*BARE, BARE[0]), "'W.npy' is unknown, duplicate or too large"),
    "encrypted member": (forged(Member("W.npy", W, flags=1), BARE[1]), "is encrypted"),
    "lzma": (compressed(GOOD, zipfile.ZIP_LZMA), "'W.npy' is unknown"),
    "wrong checksum": (forged(Member("W.npy", W, crc=1), BARE[1]), "Bad CRC-32"),
    "pickled W": (with_(W=_pickle()), "Object arrays cannot be loaded"),
    "pickled metadata": (with_(metadata=_pickle()), "Object arrays cannot be loaded"),
    "b of one number": (with_(b=npy(np.float32(0))), "no b of float32"),
    **{
        f"b of type {dtype}": (with_(b=npy(ZEROS.astype(dtype))), "no b of float32 or float64")
        for dtype in ("f2", "i4", "c8", "U1", "V4")
    },
    "long double": (with_(b=raw_npy(header("(10,)", "'<f16'"), bytes(160))), "no b of float32"),
    "nan": (with_(b=npy(ZEROS + np.float32(np.nan))), "b has values that are not finite"),
    "beyond float32": (with_(b=npy(np.full(10, 1e300))), "b has values"),
    "logits that overflow": (with_(W=npy(np.full((784, 10), 3e38, np.float32))), "W has values"),
    "terabyte header": (with_(W=raw_npy(header("(1000000000000, 10)"), b"1")), "Unable|EOF"),
    "negative shape": (with_(W=raw_npy(header("(-784, -10)"), bytes(31_360))), "cannot read"),
    "enormous shape": (with_(W=raw_npy(header(f"({'9' * 200}, 10)"), bytes(31_360))), "too large"),
    "200 dimensions": (with_(b=raw_npy(header(f"({'1,' * 200})"), bytes(4))), "dimension"),
    "deep header": (with_(W=raw_npy("(" * 9000 + ")" * 900)), "Header info length"),
    "header of code": (with_(W=raw_npy(header(CODE))), "malformed node"),
    "header of Python 2": (with_(b=raw_npy(header("(10L,)"), bytes(40))), "Python 2"),
    "other version of npy": (with_(b=b"\x93NUMPY\x09\x00" + B[8:]), "format version"),
    "metadata of numbers": (with_(metadata=npy(ZEROS)), "it is not one string"),
    "text of no length": (with_(metadata=raw_npy(header("()", "'<U0'"))), "metadata is invalid"),
    "text beyond Unicode": (with_(metadata=BEYOND_UNICODE), "metadata is invalid"),
    "bomb in a member": (forged(Member("W.npy", bomb(W), len(W), 8), BARE[1]), "too large"),
    "bomb that says so": (forged(Member("W.npy", bomb(W), 900 << 20, 8), BARE[1]), "too large"),
    "json 100,000 levels deep": (text("[" * 100_000), "metadata is invalid"),
    "json of 2,000,000 lists": (
        lambda path: path.write_bytes(
            text('{"format": 1, "metrics": [' + "[]," * 2_000_000 + "1]}")
        ),
        "invalid config or metrics",
    ),
    "no json": (text("format: 1"), "metadata is invalid: Expecting value"),
    "json, no object": (text("[1]"), "it is not an object"),
    "number of 5,000 digits": (text(json.dumps(METADATA).replace("0.25", "9" * 5000)), "invalid"),
    "key twice": (
        text(json.dumps(METADATA)[:-1] + ', "dataset": "kmnist"}'),
        '"dataset" is given twice',
    ),
    "later format": (metadata(format=2), "its format is 2: upgrade mnist-cli"),
    "format true": (metadata(format=True), "not an object with a format number"),
    "unknown data set": (metadata(dataset="cifar-10"), "dataset must be one of mnist, "),
    "data set a list": (metadata(dataset=["mnist"]), "dataset must be a string, one of"),
    "escapes in the data set": (
        metadata(dataset="\x1b]0;owned\x07\r\n"),
        r"\\u001b\]0;owned",
    ),
    "unknown normalization": (metadata(normalize="whiten"), "must be one of none, deskew, not"),
    "unknown features": (metadata(features="sift"), "features must be one of pixels, directions"),
    "config a list": (metadata(config=[1]), "invalid config or metrics"),
    "escapes in the config": (metadata(config={"\x1b[31m\n": 1}), "invalid config or metrics"),
    "metrics a string": (metadata(metrics="good"), "invalid config or metrics"),
    "checkpoint": (_checkpoint(), "is a checkpoint, not a model; finish the training"),
}


def put(kind: str, path: Path) -> None:
    """Make the hostile file of that kind at `path`."""
    made, _ = MODELS[kind]
    path.write_bytes(made) if isinstance(made, bytes) else made(path)


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Change, insert, remove or double some bytes, mostly where the structure is."""
    mutant = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 5, 20])):
        place = rng.choice([rng.randrange(len(data)), rng.randrange(300), -rng.randrange(1, 3000)])
        place %= len(mutant)
        length = rng.choice([1, 1, 2, 4, 50])
        match rng.randrange(5):
            case 0:
                mutant[place] ^= 1 << rng.randrange(8)
            case 1:
                mutant[place : place + length] = rng.randbytes(length)
            case 2:
                del mutant[place : place + length]
            case 3:
                mutant[place:place] = mutant[place : place + length]
            case 4:
                mutant[place : place + length] = rng.choice([b"\xff", b"\x00", b"9"]) * length
    return bytes(mutant)


def mutant(good: dict[str, bytes], rng: random.Random) -> bytes:
    """Return the archive with one member mutated, so that the checksums are right."""
    name = rng.choice(list(good))
    return archive(good | {name: mutate(good[name], rng)})
