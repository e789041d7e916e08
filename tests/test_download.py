import base64
import contextlib
import dataclasses
import gzip
import hashlib
import json
import os
import pty
import resource
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mnist_cli.data import download, idx, mirror, synthetic
from mnist_cli.data.catalogue import DATASETS, MNIST, NAMES, Dataset, Done
from mnist_cli.data.loading import load
from mnist_cli.errors import DataError, DownloadError
from tests.faulty_server import MIB, PACKED, RAW, SMALL, FaultyServer, serving

IMAGES, LABELS = NAMES["train"]
FIRST = dataclasses.replace(SMALL, files=SMALL.files[:1])
GOOD = PACKED[f"{IMAGES}.gz"]
SIZE = sum(map(len, PACKED.values()))
REPOSITORY = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for nothing long, and let no setting of the user's decide."""
    monkeypatch.setattr(mirror, "CONNECT_SECONDS", 1.0)
    monkeypatch.setattr(mirror, "STALL_SECONDS", 1.0)
    monkeypatch.setattr(mirror, "OVERHEAD", 1 << 18)
    monkeypatch.setattr(mirror, "RETRIES", mirror.RETRIES.new(backoff_factor=0.01))
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    with serving(FaultyServer()) as running:
        yield running


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "data" / "mnist"


class Heard:
    """What a download reported and returned."""

    def __init__(self) -> None:
        self.done: list[Done] = []
        self.received: list[tuple[str, int]] = []
        self.notices: list[str] = []
        self.important: list[str] = []

    def progress(self, name: str, received: int, total: int) -> None:
        self.received.append((name, received))

    def notice(self, text: str, *, important: bool = False) -> None:
        (self.important if important else self.notices).append(text)

    @property
    def statuses(self) -> list[str]:
        return [done.status for done in self.done]


def fetch(
    target: Path, *mirrors: str, dataset: Dataset = SMALL, force: bool = False, move: bool = True
) -> Heard:
    heard = Heard()
    heard.done = download.download(dataset, target, mirrors, report=heard, force=force, move=move)
    return heard


def put(target: Path, contents: dict[str, bytes]) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (target / name).write_bytes(content)


def contents(target: Path) -> dict[str, bytes]:
    """Everything in a directory apart from the lock."""
    return {p.name: p.read_bytes() for p in target.iterdir() if p.name != ".lock"}


# Mirrors


def test_good_mirror(server: FaultyServer, target: Path) -> None:
    """Four verified files, each fetched once, reported while it comes and when it is there."""
    heard = fetch(target, server.url("good"))

    assert RAW == contents(target)
    assert [
        Done(name, len(data), hashlib.sha256(data).hexdigest(), "downloaded", None)
        for name, data in RAW.items()
    ] == heard.done
    assert SIZE == server.sent
    assert [] == heard.notices + heard.important
    received = [count for name, count in heard.received if name == IMAGES]
    assert sorted(received) == received
    assert (0, len(GOOD)) == (received[0], received[-1])
    assert len(received) > 3


FAULTS = {
    "forbidden": "HTTP 403 Forbidden",
    "missing": "HTTP 404 Not Found",
    "too_many": "HTTP 429 Too Many Requests",
    "broken": "HTTP 500 Internal Server Error",
    "broken_endlessly": "bytes received, 0 of them of the file",
    "unknown_status": "HTTP 799",
    "html": "no .gz file: it begins with b'<!DOCTYPE html>'",
    "wrong_bytes": f"not the official file: {SMALL.files[0].gz_size} bytes with SHA-256",
    "too_long": f"announced {SMALL.files[0].gz_size + 64 * MIB}",
    "too_short": f"not the official file: {SMALL.files[0].gz_size // 2} bytes with SHA-256",
    "empty": "not the official file: 0 bytes",
    "silent": "too slow: 0 bytes in 1 s",
    "stalled": "too slow: 201061 bytes in 1 s",
    "dripping": "too slow: ",
    "dripping_headers": "too slow: 0 bytes",
    "dripping_extension": "too slow: 0 bytes",
    "dripping_trailers": "too slow: ",
    "endless_trailers": "bytes received, 402121 of them of the file",
    "endless_interim": "bytes received, 0 of them of the file",
    "cut_without_range": "cut at byte ",
    "cut_chunked": "IncompleteRead",
    "hang_up": "Remote end closed connection without response",
    "redirect_loop": "Exceeded 5 redirects",
    "redirect_endless": "bytes received, 0 of them of the file",
    "nonsense": "220 ?[31mftp? ready!!!",
    "rude": "HTTP 404 Not Found",
}


@pytest.mark.parametrize(("fault", "reason"), FAULTS.items(), ids=FAULTS)
def test_next_mirror_is_asked(server: FaultyServer, target: Path, fault: str, reason: str) -> None:
    """A mirror with a fault is reported, with its reason, and passed over for the next."""
    heard = fetch(target, server.url(fault), server.url("good"), dataset=FIRST)

    assert {IMAGES: RAW[IMAGES]} == contents(target)
    [message] = heard.notices
    assert message.startswith(f"{IMAGES}: {server.url(fault)}: ")
    assert reason in message
    assert message.isprintable()
    assert len(message) < 400
    assert server.sent < 20 * MIB  # what a connection buffers, no more


def test_no_good_mirror(server: FaultyServer, target: Path, tmp_path: Path) -> None:
    """One error names the file and each mirror, once, with its reason; nothing is in place."""
    mirrors = [server.url("missing"), server.url("html"), str(tmp_path / "nowhere")]
    with pytest.raises(DownloadError) as error:
        fetch(target, *mirrors)

    assert str(error.value) == (
        f"cannot download {IMAGES}: {mirrors[0]}: HTTP 404 Not Found; "
        f"{mirrors[1]}: {FAULTS['html']}; {mirrors[2]}: no such folder; "
        "try again later or name another --mirror; --dataset synthetic needs no network, "
        "--offline uses the files there are"
    )
    assert {f".{IMAGES}.gz.part": b""} == contents(target)


def test_failed_mirror_is_asked_last_from_then_on(server: FaultyServer, target: Path) -> None:
    """Those of the data set are asked where none is named."""
    mirrors = tuple(map(server.url, ("stalled", "missing", "good")))
    heard = fetch(target, dataset=dataclasses.replace(SMALL, mirrors=mirrors))
    assert RAW == contents(target)
    assert 2 == len(heard.notices)
    assert ["stalled", "missing", "good", "good", "good", "good"] == [
        path.split("/")[1] for path, _ in server.asked
    ]
    assert f"bytes={len(GOOD) // 2}-" == server.asked[2][1]  # what stalled is continued


@pytest.mark.parametrize(
    ("mirror", "reason"),
    [
        ("http://127.0.0.1:{closed}/", "Connection refused"),
        ("http://no-such-host.invalid/", "ame"),
        ("https://127.0.0.1:{port}/good/", "SSL"),
        ("ftp://127.0.0.1/", "cannot use its URL"),
        ("http://:80/", "cannot use its URL"),
        ("http://[::1/", "cannot use its URL"),
        ("http://" + "a" * 70 + "/", "cannot use its URL"),
        ("file://[x", "no such folder"),
        ("file:///a%00b", "no such folder"),
    ],
)
def test_unreachable_mirror(server: FaultyServer, target: Path, mirror: str, reason: str) -> None:
    with FaultyServer() as other:
        closed = other.server_port
    mirror = mirror.format(closed=closed, port=server.server_port)
    heard = fetch(target, mirror, server.url("good"))
    assert RAW == contents(target)
    [message] = heard.notices
    assert message.startswith(f"{IMAGES}: {mirror}: ")
    assert reason in message


@pytest.mark.parametrize(
    "fault",
    [
        "too_many_once",
        "unavailable_once",
        "cut_always_once",
        "cut_without_length_once",
        "cut_once_without_range",
        "endless",
        "redirect",
        "recompressed",
        "encoded",
        "slow",
    ],
)
def test_passing_fault_is_put_up_with(server: FaultyServer, target: Path, fault: str) -> None:
    assert [] == fetch(target, server.url(fault)).notices
    assert RAW == contents(target)
    assert server.sent < 40 * MIB


@pytest.mark.parametrize(("rate", "notices"), [(10_240, 0), (1 << 20, 1)])
def test_mirror_is_given_up_by_its_mean_rate(
    server: FaultyServer, target: Path, monkeypatch: pytest.MonkeyPatch, rate: int, notices: int
) -> None:
    """Not for taking longer than it may be silent."""
    monkeypatch.setattr(mirror, "STALL_SECONDS", 0.5)
    monkeypatch.setattr(mirror, "RATE", rate)
    server.chunk = 4096
    heard = fetch(target, server.url("slow"), server.url("good"), dataset=FIRST)
    assert {IMAGES: RAW[IMAGES]} == contents(target)
    assert notices == len(heard.notices)


@pytest.mark.parametrize("bypassed", [False, True])
def test_proxy_from_the_environment(
    server: FaultyServer, target: Path, monkeypatch: pytest.MonkeyPatch, bypassed: bool
) -> None:
    proxy = "no-such-host.invalid" if bypassed else f"127.0.0.1:{server.server_port}"
    monkeypatch.setenv("http_proxy", f"http://{proxy}")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    fetch(target, server.url("good") if bypassed else "http://no-such-host.invalid/good/")
    assert RAW == contents(target)


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make a certificate")
    command = "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=localhost -days 2"
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "cert.pem"]
    subprocess.run([*command.split(), *names], cwd=tmp_path, check=True, capture_output=True)
    return tmp_path / "cert.pem"


def secure(server: FaultyServer, certificate: Path) -> FaultyServer:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_name("key.pem"))
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.scheme = "https"
    return server


@pytest.mark.parametrize("downgrade", [False, True])
def test_redirect_from_https_to_http_is_refused(
    target: Path, certificate: Path, monkeypatch: pytest.MonkeyPatch, downgrade: bool
) -> None:
    """One from https to https is followed."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    with serving(secure(FaultyServer(), certificate)) as server, serving(FaultyServer()) as plain:
        server.elsewhere = plain if downgrade else server
        if downgrade:
            with pytest.raises(DownloadError, match="cannot use its URL, or that of a redirect"):
                fetch(target, server.url("redirect_elsewhere"))
        else:
            fetch(target, server.url("redirect_elsewhere"))
            assert RAW == contents(target)
        assert [] == plain.asked


@pytest.mark.parametrize("kind", ["missing", "invalid"])
def test_wrong_certificates_are_a_fault_of_the_mirror(
    server: FaultyServer, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Not of the disk: what is there is continued from the next mirror."""
    bundle = tmp_path / "bundle.pem"
    if kind == "invalid":
        bundle.write_text("rubbish")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bundle))
    partial(target, GOOD[:300_000])
    assert 1 == len(fetch(target, "https://127.0.0.1:1/", server.url("good")).notices)
    assert RAW == contents(target)
    assert ("good", "bytes=300000-") == asked_for_images(server)[0]


# Secrets


@pytest.mark.parametrize("character", "@ /#?\t:%&")
@pytest.mark.parametrize("place", ["http://user:{}@127.0.0.1:{}/missing/", "user:{}@127.0.0.1:{}"])
def test_passwords_are_never_shown(
    server: FaultyServer, target: Path, character: str, place: str
) -> None:
    secret = f"hush{character}hush"
    with pytest.raises(DownloadError) as error:
        fetch(target, place.format(secret, server.server_port), server.url("html"))
    assert "hush" not in str(error.value)


@pytest.mark.parametrize("query", ["?token=hush", "?a=b@hush", "#hush@hush", "?q#hush"])
@pytest.mark.parametrize("fault", ["missing", "html", "redirect_loop", "nonsense"])
def test_tokens_are_never_shown(
    server: FaultyServer, target: Path, fault: str, query: str
) -> None:
    heard = fetch(target, server.url(fault) + query, server.url("good"))
    assert "hush" not in "".join(heard.notices)


def test_query_comes_after_the_name_of_the_file(server: FaultyServer, target: Path) -> None:
    fetch(target, server.url("good").rstrip("/") + "?token=x")
    assert f"/good/{IMAGES}.gz?token=x" == server.asked[0][0]


def test_only_the_password_of_the_url_is_sent(
    server: FaultyServer, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None from ~/.netrc, neither at once nor after a redirect."""
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login user password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    fetch(target, server.url("redirect"))
    assert {None} == set(server.authorizations)

    server.authorizations.clear()
    fetch(target, server.url("good").replace("//", "//me:p@ss%2F@"), force=True)
    assert {"Basic " + base64.b64encode(b"me:p@ss/").decode()} == set(server.authorizations)


# A folder as the mirror


@pytest.mark.parametrize("form", ["{}", "file://{}", "file://localhost{}"])
@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("dotted", [True, False])
@pytest.mark.parametrize("parent", [True, False])
def test_folder(
    target: Path, tmp_path: Path, form: str, packed: bool, dotted: bool, parent: bool
) -> None:
    """The data set's folder or its parent gives .gz or plain files, with a dash or a dot."""
    mirror = tmp_path / "my mirror"
    files = PACKED if packed else RAW
    put(
        mirror / "mnist" if parent else mirror,
        {n.replace("-idx", ".idx") if dotted else n: c for n, c in files.items()},
    )
    url = form.format(mirror).replace(" ", "%20" if form != "{}" else " ")
    assert ["downloaded"] * 4 == fetch(target, url).statuses
    assert RAW == contents(target)


def test_missing_file_of_a_folder_is_named_with_its_path(target: Path, tmp_path: Path) -> None:
    expected = f"{tmp_path}: no {tmp_path / IMAGES}, plain or .gz, nor in {tmp_path / 'mnist'}; "
    with pytest.raises(DownloadError) as error:
        fetch(target, str(tmp_path))
    assert expected in str(error.value)


BAD = {
    "cut": GOOD[:-9],
    "flipped": GOOD[:2000] + bytes([GOOD[2000] ^ 1]) + GOOD[2001:],
    "other": gzip.compress(RAW[IMAGES][:-1] + b"\xff"),
    "longer": gzip.compress(RAW[IMAGES] + bytes(64 * MIB)),
}


@pytest.mark.parametrize("content", BAD.values(), ids=BAD)
def test_bad_file_of_a_folder_is_passed_over(
    target: Path, tmp_path: Path, server: FaultyServer, content: bytes
) -> None:
    mirror = tmp_path / "mirror"
    put(mirror, PACKED | {f"{IMAGES}.gz": content})
    heard = fetch(target, str(mirror), server.url("good"))
    assert RAW == contents(target)
    expected = f"{IMAGES}: {mirror}: {mirror / IMAGES}.gz is not the official file"
    assert [expected] == heard.notices


# Resuming


def partial(target: Path, content: bytes) -> Path:
    put(target, {f".{IMAGES}.gz.part": content})
    return target / f".{IMAGES}.gz.part"


def asked_for_images(server: FaultyServer) -> list[tuple[str, str | None]]:
    return [(path.split("/")[1], span) for path, span in server.asked if IMAGES in path]


def test_partial_file_is_continued(server: FaultyServer, target: Path) -> None:
    partial(target, GOOD[:300_000])
    heard = fetch(target, server.url("good"))
    assert RAW == contents(target)
    assert [("good", "bytes=300000-")] == asked_for_images(server)
    assert SIZE - 300_000 == server.sent
    assert (IMAGES, 300_000) == heard.received[0]


@pytest.mark.parametrize("fault", ["html", "missing", "broken", "too_long", "silent"])
def test_worthless_answer_costs_no_partial_file(
    server: FaultyServer, target: Path, fault: str
) -> None:
    partial(target, GOOD[:300_000])
    fetch(target, server.url(fault), server.url("good"), dataset=FIRST)
    assert {IMAGES: RAW[IMAGES]} == contents(target)
    assert ("good", "bytes=300000-") == asked_for_images(server)[-1]


def test_mirror_that_always_cuts_is_asked_four_times(server: FaultyServer, target: Path) -> None:
    with pytest.raises(DownloadError, match="cut at byte 376989 of 402122"):
        fetch(target, server.url("cut_always"))
    assert 4 == len(server.asked)
    assert GOOD[:376989] == contents(target)[f".{IMAGES}.gz.part"]


@pytest.mark.parametrize("fault", ["unsatisfiable", "wrong_range", "recompressed", "wrong_rest"])
def test_file_comes_from_zero_where_it_cannot_be_continued(
    server: FaultyServer, target: Path, fault: str
) -> None:
    partial(target, GOOD[:300_000])
    assert [] == fetch(target, server.url(fault)).notices
    assert RAW == contents(target)
    assert "bytes=300000-" == asked_for_images(server)[0][1]


@pytest.mark.parametrize("size", [1000, 402_122, 500_000])
def test_rotten_partial_file_is_discarded(server: FaultyServer, target: Path, size: int) -> None:
    assert 402_122 == len(GOOD)
    partial(target, b"\x1f\x8b" + bytes(size - 2))
    assert [] == fetch(target, server.url("good")).notices
    assert RAW == contents(target)


def test_mirror_with_wrong_bytes_is_given_up(server: FaultyServer, target: Path) -> None:
    with pytest.raises(DownloadError, match="not the official file"):
        fetch(target, server.url("cut_and_wrong"))
    half = f"bytes={len(PACKED[f'{IMAGES}.gz']) // 2}-"
    assert [None, half, None, half] == [span for _, span in asked_for_images(server)]


def test_whole_partial_file_is_not_fetched(server: FaultyServer, target: Path) -> None:
    partial(target, GOOD)
    fetch(target, server.url("good"))
    assert RAW == contents(target)
    assert [] == asked_for_images(server)


@pytest.mark.parametrize("name", [f".{IMAGES}.gz.part", f".{IMAGES}.new", ".lock"])
@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_planted_entry_is_not_followed(
    server: FaultyServer, target: Path, tmp_path: Path, name: str, kind: str
) -> None:
    target.mkdir(parents=True)
    if kind == "link":
        (target / name).symlink_to(tmp_path / "victim")
        (tmp_path / "victim").write_bytes(b"mine")
    else:
        os.mkfifo(target / name)
    fetch(target, server.url("good"))
    assert RAW == contents(target)
    if kind == "link":
        assert b"mine" == (tmp_path / "victim").read_bytes()


# What is there already


def test_intact_files_are_left_alone(server: FaultyServer, target: Path) -> None:
    put(target, RAW)
    before = [(target / name).stat().st_mtime_ns for name in RAW]
    assert ["verified"] * 4 == fetch(target, server.url("good")).statuses
    assert before == [(target / name).stat().st_mtime_ns for name in RAW]
    assert [] == server.asked


@pytest.mark.parametrize("form", ["{}-idx{}", "{}-idx{}.gz", "{}.idx{}.gz"])
def test_recompressed_copies_are_unpacked(server: FaultyServer, target: Path, form: str) -> None:
    names = {name: form.format(*name.split("-idx")) for name in RAW}
    copies = {names[name]: gzip.compress(data, 1) for name, data in RAW.items()}
    put(target, copies)
    assert ["verified"] * 4 == fetch(target, server.url("good")).statuses
    assert copies | RAW == contents(target)
    assert [] == server.asked


OWN = {
    "other labels": (LABELS, RAW[LABELS][:99] + b"\x07\x07\x07" + RAW[LABELS][102:]),
    "fewer": (LABELS, b"\0\0\x08\x01\0\0\0\x03\1\2\3"),
    "truncated": (LABELS, RAW[LABELS][:-1]),
    "empty": (LABELS, b""),
    "html": (LABELS, b"<!DOCTYPE html>"),
    "damaged gzip": (f"{LABELS}.gz", PACKED[f"{LABELS}.gz"][:-3]),
    "dotted": (LABELS.replace("-idx", ".idx"), b"mine"),
}


@pytest.mark.parametrize("force", [True, False])
@pytest.mark.parametrize(("name", "own"), OWN.values(), ids=OWN)
def test_other_file_is_moved_aside(
    server: FaultyServer, target: Path, name: str, own: bytes, force: bool
) -> None:
    """Never overwritten, and its new name is told; the others are not fetched again."""
    put(target, {n: data for n, data in RAW.items() if n != LABELS} | {name: own})

    heard = fetch(target, server.url("good"), force=force)

    assert RAW | {f"{name}.moved-1": own} == contents(target)
    assert [None, f"{name}.moved-1", None, None] == [done.moved for done in heard.done]
    assert [f"{target / name} is not official: moved to {name}.moved-1"] == heard.important
    assert (force or [(f"/good/{LABELS}.gz", None)]) in (True, server.asked)


def test_moved_files_do_not_replace_each_other(server: FaultyServer, target: Path) -> None:
    for own in (b"first", b"second"):
        put(target, {LABELS: own})
        fetch(target, server.url("good"))
    moved = {f"{LABELS}.moved-1": b"first", f"{LABELS}.moved-2": b"second"}
    assert RAW | moved == contents(target)


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("own")])
def test_anything_but_a_file_is_moved_aside(
    server: FaultyServer, target: Path, make: Callable[[Path], None]
) -> None:
    put(target, {"own": b"mine"})
    make(target / LABELS)
    before = (target / LABELS).lstat().st_ino
    fetch(target, server.url("good"))
    assert RAW[LABELS] == (target / LABELS).read_bytes()
    assert before == (target / f"{LABELS}.moved-1").lstat().st_ino
    assert b"mine" == (target / "own").read_bytes()


@pytest.mark.parametrize("force", [True, False])
def test_nothing_is_moved_before_all_files_are_there(target: Path, force: bool) -> None:
    """Half of another set is not mixed with half of the official one."""
    own = dict.fromkeys(NAMES["train"], b"mine")
    put(target, own)
    half = {name: data for name, data in PACKED.items() if name.startswith("train")}
    put(target.parent / "mirror", half)
    with pytest.raises(DownloadError, match=f"cannot download {NAMES['test'][0]}"):
        fetch(target, str(target.parent / "mirror"), force=force)
    assert own == contents(target)


def test_force_fetches_official_files_again(server: FaultyServer, target: Path) -> None:
    """They stay while that fails."""
    put(target, RAW)
    with pytest.raises(DownloadError):
        fetch(target, server.url("wrong_bytes"), force=True)
    assert RAW == contents(target)
    server.sent = 0
    assert ["downloaded"] * 4 == fetch(target, server.url("good"), force=True).statuses
    assert RAW == contents(target)
    assert SIZE == server.sent


def test_other_files_are_refused_where_none_may_be_moved(
    server: FaultyServer, target: Path
) -> None:
    put(target, {LABELS: b"mine"})
    with pytest.raises(DownloadError) as error:
        fetch(target, server.url("good"), move=False)
    expected = f": mnist-cli download --dataset mnist --data-dir {target.parent}"
    assert str(error.value).startswith(f"{target / LABELS} is not the official file")
    assert str(error.value).endswith(expected)
    assert {LABELS: b"mine"} == contents(target)
    assert [] == server.asked


def test_load_and_download_agree_on_a_truncated_file(server: FaultyServer, target: Path) -> None:
    put(target, RAW | {IMAGES: RAW[IMAGES][:-1]})
    with pytest.raises(DataError, match="with any others moved aside: mnist-cli download"):
        load("mnist", "train", target.parent)
    fetch(target, server.url("good"))
    assert 900 == len(load("mnist", "train", target.parent).labels)
    assert RAW[IMAGES][:-1] == (target / f"{IMAGES}.moved-1").read_bytes()


@pytest.mark.parametrize("place", ["data", "data/mnist"])
def test_file_in_place_of_the_directory_is_refused(
    tmp_path: Path, target: Path, place: str
) -> None:
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).write_bytes(b"")
    with pytest.raises(DataError, match=f"{place} is not a directory"):
        fetch(target, "/no/such/directory")


# A data set of which only the digests of the .gz are known (KMNIST)

PACKED_ONLY = dataclasses.replace(
    SMALL, files=tuple(dataclasses.replace(file, sha256=None) for file in SMALL.files)
)


@pytest.mark.parametrize("local", [True, False])
def test_gz_is_kept_where_it_alone_can_be_verified(
    server: FaultyServer, target: Path, local: bool
) -> None:
    put(target.parent / "mirror", PACKED | RAW)
    source = str(target.parent / "mirror") if local else server.url("good")
    fetch(target, source, dataset=PACKED_ONLY)
    assert RAW | PACKED == contents(target)

    damaged = RAW[IMAGES][:-1] + b"\xff"
    (target / IMAGES).write_bytes(damaged)
    assert ["verified"] * 4 == fetch(target, dataset=PACKED_ONLY).statuses
    assert RAW | PACKED | {f"{IMAGES}.moved-1": damaged} == contents(target)


def test_plain_file_alone_proves_nothing(server: FaultyServer, target: Path) -> None:
    """Neither in place nor at a mirror, nor does another .gz."""
    put(target, RAW)
    put(target.parent / "mirror", RAW)
    mirrors = [str(target.parent / "mirror"), server.url("recompressed"), server.url("good")]
    heard = fetch(target, *mirrors, dataset=PACKED_ONLY)
    assert ["downloaded"] * 4 == heard.statuses
    assert 2 == len(heard.notices)
    assert 4 == len(heard.important)


def test_synthetic_files_are_generated(target: Path) -> None:
    """Verified the next time, and replaced where they are not."""
    dataset = DATASETS["synthetic"]
    assert ["generated"] * 4 == fetch(target, dataset=dataset).statuses
    for expected, name in zip(synthetic.generate("train"), NAMES["train"], strict=True):
        assert (expected == idx.read(target / name)).all()
    (target / LABELS).write_bytes(b"")
    heard = fetch(target, dataset=dataset)
    assert ["verified", "generated", "verified", "verified"] == heard.statuses


# Real processes: the program itself, with the small data set in the place of MNIST

PROGRAM = """
import sys
from mnist_cli import cli
from mnist_cli.data import catalogue
from tests.faulty_server import SMALL
catalogue.DATASETS["mnist"] = SMALL
cli.main()
"""


def command(target: Path, *mirrors: str, name: str = "download") -> list[str]:
    chosen = [f"--mirror={mirror}" for mirror in mirrors]
    return [sys.executable, "-c", PROGRAM, name, "--json", f"--data-dir={target.parent}", *chosen]


def run(
    args: list[str], limit: Callable[[], None] | None = None, **env: str
) -> tuple[int, str, str]:
    result = subprocess.run(
        args,
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        preexec_fn=limit,
        env=os.environ | env,
    )
    return result.returncode, result.stdout, result.stderr


def start(args: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        args, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_until_sent(server: FaultyServer, size: int, process: subprocess.Popen[str]) -> None:
    while server.sent < size and process.poll() is None:
        time.sleep(0.002)


def test_six_kills_cost_hardly_more_than_what_was_in_flight(target: Path) -> None:
    first = SMALL.files[0].gz_size
    with serving(FaultyServer(chunk=4096)) as server:
        args = command(target, server.url("slow"))
        for kill in range(6):
            process = start(args)
            wait_until_sent(server, first * (kill + 1) // 7, process)
            process.kill()
            process.communicate()
            assert -signal.SIGKILL == process.returncode
            assert {f".{IMAGES}.gz.part"} >= set(contents(target))
        assert (0, "") == run(args)[::2]
        assert RAW == contents(target)
        assert server.sent < 1.35 * SIZE


def test_eight_processes_at_once_fetch_once(target: Path, real_data: Path) -> None:
    files = {path.name: path.read_bytes() for path in (real_data / "mnist").glob("*.gz")}
    program = [sys.executable, "-m", "mnist_cli", "download", "--json"]
    with serving(FaultyServer(files, chunk=65_536)) as server:
        args = [*program, f"--data-dir={target.parent}", f"--mirror={server.url('good')}"]
        processes = [start(args) for _ in range(8)]
        outputs = [process.communicate(timeout=60) for process in processes]
        assert [0] * 8 == [process.returncode for process in processes]
        assert 4 == len(server.asked)
    found = [[file["sha256"] for file in json.loads(out)["files"]] for out, _ in outputs]
    assert [[file.sha256 for file in MNIST.files]] * 8 == found
    assert {"", f"waiting for another download into {target}\n"} >= {err for _, err in outputs}


def test_download_works_without_fcntl(server: FaultyServer, target: Path) -> None:
    """As on Windows."""
    args = command(target, server.url("good"))
    args[2] = "import sys; sys.modules['fcntl'] = None\n" + PROGRAM
    assert (0, "") == run(args)[::2]
    assert RAW == contents(target)


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interruption_is_one_line_and_loses_nothing(
    target: Path, sent: signal.Signals, code: int
) -> None:
    with serving(FaultyServer(chunk=4096)) as server:
        process = start(command(target, server.url("slow")))
        wait_until_sent(server, 200_000, process)
        process.send_signal(sent)
        out, err = process.communicate(timeout=30)
        assert (code, "", 1) == (process.returncode, out, err.count("\n"))
        assert "Traceback" not in err
        assert [f".{IMAGES}.gz.part"] == list(contents(target))
        assert 0 == run(command(target, server.url("good")))[0]
        assert RAW == contents(target)
        assert server.sent < 1.35 * SIZE


def assert_refused(result: tuple[int, str, str], *words: str) -> None:
    code, out, err = result
    assert (1, "", 1) == (code, out, err.count("\n"))
    assert err.startswith("Error: ")
    for word in words:
        assert word in err


@pytest.mark.parametrize("limit", [100_000, 500_000])
def test_full_disk(server: FaultyServer, target: Path, limit: int) -> None:
    """With room for a part of the .gz, or for it alone, old files and what has come stay."""
    there = {LABELS: RAW[LABELS], IMAGES: b"damaged"}
    put(target, there)
    result = run(
        command(target, server.url("good")),
        lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    needed = sum(file.size + file.gz_size for file in SMALL.files)
    space = f"{target} has to be writable with {needed} bytes free"
    assert_refused(result, "File too large", space)
    left = contents(target)
    assert GOOD.startswith(left[f".{IMAGES}.gz.part"])
    assert there == {name: data for name, data in left.items() if not name.endswith(".part")}


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that everybody can reach, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)
        for path in Path(directory).rglob("*"):
            path.chmod(0o755)


@pytest.fixture
def as_nobody() -> list[str]:
    """What starts a process that may not write everywhere."""
    if os.geteuid() != 0:
        return []
    unmeasured = ["env", "-u", "COVERAGE_PROCESS_CONFIG", "-u", "COVERAGE_PROCESS_START"]
    prefix = [*unmeasured, "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    with contextlib.suppress(FileNotFoundError):
        if run([*prefix, sys.executable, "-c", "import mnist_cli, tests.faulty_server"])[0] == 0:
            return prefix
    pytest.skip("root, and no way to be somebody else")


def test_read_only_directory_is_refused(
    server: FaultyServer, open_directory: Path, as_nobody: list[str]
) -> None:
    """The error names it and says how much it should hold."""
    open_directory.chmod(0o555)
    target = open_directory / "data" / "mnist"
    result = run([*as_nobody, *command(target, server.url("good"))])
    assert_refused(result, "Permission denied", str(target), "bytes free")

    open_directory.chmod(0o755)
    put(target, {LABELS: RAW[LABELS]})
    target.chmod(0o555)
    result = run([*as_nobody, *command(target, server.url("good"))])
    assert_refused(result, "Permission denied", str(target), "bytes free")
    assert {LABELS: RAW[LABELS]} == contents(target)
    assert [] == server.asked


@pytest.mark.parametrize("files", [RAW, PACKED], ids=["plain", "gz"])
def test_intact_files_in_a_read_only_directory_are_verified(
    open_directory: Path, as_nobody: list[str], files: dict[str, bytes]
) -> None:
    target = open_directory / "mnist"
    put(target, files)
    target.chmod(0o555)
    code, out, err = run([*as_nobody, *command(target, "/no/such/directory")])
    assert (0, "") == (code, err)
    assert ["verified"] * 4 == [file["status"] for file in json.loads(out)["files"]]
    assert files == contents(target)


def test_streams(server: FaultyServer, target: Path) -> None:
    """A notice is one line on stderr, none with -q, which still tells what was moved."""
    args = command(target, server.url("missing"), server.url("good"))
    code, out, err = run(args)
    assert (0, f"{IMAGES}: {server.url('missing')}: HTTP 404 Not Found\n") == (code, err)
    assert {"dataset", "directory", "files"} == set(json.loads(out))

    put(target, {LABELS: b"mine"})
    code, out, err = run([*args, "-q"])
    assert (0, f"{target / LABELS} is not official: moved to {LABELS}.moved-1\n") == (code, err)
    moved = [file["moved"] for file in json.loads(out)["files"]]
    assert [None, f"{LABELS}.moved-1", None, None] == moved


def test_bar_of_the_bytes_on_a_terminal(target: Path) -> None:
    with serving(FaultyServer(chunk=4096)) as server:
        leader, follower = pty.openpty()
        termios.tcsetwinsize(leader, (24, 80))
        args = command(target, server.url("slow"))
        process = subprocess.Popen(args, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=follower)
        os.close(follower)
        shown = b""
        with contextlib.suppress(OSError):  # the other end is closed
            while data := os.read(leader, 4096):
                shown += data
        os.close(leader)
        out = process.communicate()[0]
    assert 0 == process.returncode
    assert 4 == len(json.loads(out)["files"])
    for packed in (b"/402k", b"/134k"):
        assert packed in shown
    assert b" left" in shown


def test_mirrors_in_the_environment_stand_one_a_line(target: Path, tmp_path: Path) -> None:
    put(tmp_path / "my mirror", PACKED)
    mirrors = f"{tmp_path}/no mirror\n{tmp_path}/my mirror\n"
    code, _, err = run(command(target), MNIST_CLI_DOWNLOAD_MIRROR=mirrors)
    assert (0, f"{IMAGES}: {tmp_path}/no mirror: no such folder\n") == (code, err)
    assert RAW == contents(target)


def test_train_downloads_what_is_missing_but_moves_nothing(
    server: FaultyServer, target: Path
) -> None:
    args = command(target, server.url("good"), name="train")
    args += ["--epochs=1", "--validation-size=0", f"--output={target.parent}/model.npz"]
    put(target, {LABELS: b"mine"})
    assert_refused(run(args), f"{target / LABELS} is not the official file", "mnist-cli download")
    assert {LABELS: b"mine"} == contents(target)
    (target / LABELS).unlink()
    assert 0 == run(args)[0]
    assert RAW == contents(target)
