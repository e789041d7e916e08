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
from urllib3.util import Retry

from mnist_cli.data import download, idx, mirror, synthetic
from mnist_cli.data.catalogue import DATASETS, MNIST, NAMES, Dataset, Done, Event, Notice, Progress
from mnist_cli.errors import DataError, DownloadError, MissingDataError
from tests.faulty_server import MIB, PACKED, RAW, SMALL, FaultyServer, serving

IMAGES, LABELS = NAMES["train"]
FIRST = dataclasses.replace(SMALL, files=SMALL.files[:1])
SIZE = sum(map(len, PACKED.values()))
REPOSITORY = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for nothing long."""
    monkeypatch.setattr(mirror, "CONNECT_SECONDS", 1.0)
    monkeypatch.setattr(mirror, "STALL_SECONDS", 1.0)
    quick = Retry(3, backoff_factor=0.01, status_forcelist=mirror.RETRIES.status_forcelist)
    monkeypatch.setattr(mirror, "RETRIES", quick)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    with serving(FaultyServer()) as running:
        yield running


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "data" / "mnist"


def fetch(
    target: Path, *mirrors: str, force: bool = False, dataset: Dataset = SMALL
) -> list[Event]:
    return list(download.download(dataset, target, mirrors, force=force))


def notices(events: list[Event]) -> list[str]:
    return [event.message for event in events if isinstance(event, Notice)]


def statuses(events: list[Event]) -> list[str]:
    return [event.status for event in events if isinstance(event, Done)]


def leftovers(target: Path) -> set[str]:
    """What is in the directory apart from the official files and the lock."""
    return {path.name for path in target.iterdir()} - set(RAW) - {".lock"}


def assert_complete(target: Path, dataset: Dataset = SMALL) -> None:
    for file in dataset.files:
        assert RAW[file.name] == (target / file.name).read_bytes()
    assert leftovers(target) == set()


def assert_nothing_final(target: Path) -> None:
    assert not any((target / name).exists() for name in (*RAW, *PACKED))


def put(target: Path, contents: dict[str, bytes]) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (target / name).write_bytes(content)


# Mirrors


def test_good_mirror(server: FaultyServer, target: Path) -> None:
    """Four verified files, each fetched once, each reported with its size and digest."""
    events = fetch(target, server.url("good"))

    assert_complete(target)
    assert [
        Done(name, len(data), hashlib.sha256(data).hexdigest(), "downloaded")
        for name, data in RAW.items()
    ] == [event for event in events if isinstance(event, Done)]
    assert server.sent == SIZE
    assert notices(events) == []


def test_progress(server: FaultyServer, target: Path) -> None:
    """The bytes received grow to the length of the .gz."""
    events = fetch(target, server.url("good"))

    received = [e.received for e in events if isinstance(e, Progress) and e.name == IMAGES]
    assert sorted(received) == received
    assert len(PACKED[f"{IMAGES}.gz"]) == received[-1]
    assert len(received) > 3


FAULTS = {
    "forbidden": "HTTP 403 Forbidden",
    "missing": "HTTP 404 Not Found",
    "too_many": "HTTP 429 Too Many Requests",
    "retry_nonsense": "HTTP 429 Too Many Requests",
    "broken": "HTTP 500 Internal Server Error",
    "unknown_status": "HTTP 799",
    "html": "no .gz file: it begins with b'<!DOCTYPE html>'",
    "wrong_bytes": f"not the official file: {SMALL.files[0].gz_size} bytes with SHA-256",
    "too_long": f"announced {SMALL.files[0].gz_size + 64 * MIB}",
    "endless": f"expected {SMALL.files[0].gz_size} bytes, found more",
    "too_short": f"not the official file: {SMALL.files[0].gz_size // 2} bytes with SHA-256",
    "empty": "not the official file: 0 bytes",
    "silent": "timed out",
    "stalled": "timed out",
    "trickling": "stalled: ",
    "trickling_headers": "no answer in ",
    "cut_without_range": "cut at byte ",
    "cut_chunked": "IncompleteRead",
    "hang_up": "Remote end closed connection without response",
    "redirect_loop": "Exceeded 5 redirects",
    "nonsense": "220 ?[31mftp? ready",
    "rude": "HTTP 404 Not Found",
}


@pytest.mark.parametrize(("fault", "reason"), FAULTS.items(), ids=FAULTS)
def test_next_mirror(server: FaultyServer, target: Path, fault: str, reason: str) -> None:
    """A mirror with a fault is told of, with its reason, and passed over for the next."""
    events = fetch(target, server.url(fault), server.url("good"), dataset=FIRST)

    assert_complete(target, FIRST)
    [message] = notices(events)
    assert message.startswith(f"{IMAGES}: {server.url(fault)}: ")
    assert reason in message
    assert message.isprintable()
    assert server.sent < 20 * MIB  # what a connection buffers, not the 64 MiB of too_long


@pytest.mark.parametrize("fault", FAULTS)
def test_no_good_mirror(server: FaultyServer, target: Path, fault: str) -> None:
    """One error names the file and each mirror with its reason; nothing has a final name."""
    with pytest.raises(DownloadError) as error:
        fetch(target, server.url(fault), server.url("missing"), "/no/such/directory")

    message = str(error.value)
    assert message.startswith(f"cannot download {IMAGES}: {server.url(fault)}: ")
    assert FAULTS[fault] in message
    assert f"; {server.url('missing')}: HTTP 404 Not Found; " in message
    assert "; /no/such/directory: no such file; " in message
    assert message.isprintable()
    assert_nothing_final(target)


@pytest.mark.parametrize(
    ("mirror", "reason"),
    [
        ("http://127.0.0.1:{closed}/", "Connection refused"),
        ("http://no-such-host.invalid/", "ame"),
        ("https://127.0.0.1:{port}/good/", "SSL"),
        ("ftp://user:secret@127.0.0.1/", "No connection adapters"),
        ("http://:80/", "host"),
        ("http://[::1/", ""),
        ("http://" + "a" * 70 + "/", ""),
        ("http://user:secret@127.0.0.1:{closed}/", "http://127.0.0.1:"),
    ],
)
def test_unreachable(server: FaultyServer, target: Path, mirror: str, reason: str) -> None:
    """A mirror that cannot even be talked to is passed over, and its password not shown."""
    with FaultyServer() as other:
        closed = other.server_port
    mirror = mirror.format(closed=closed, port=server.server_port)

    events = fetch(target, mirror, server.url("good"))

    assert_complete(target)
    assert len(RAW) == len(notices(events))
    assert reason in notices(events)[0]
    assert "secret" not in notices(events)[0]


def test_reason_is_the_mirrors(target: Path) -> None:
    """What the caller is just handling is not taken for the mirror's reason."""
    with FaultyServer() as server:
        closed = server.url("good")
    try:
        raise FileNotFoundError("elsewhere")
    except FileNotFoundError:
        with pytest.raises(DownloadError, match=f"{closed}: Connection refused; "):
            fetch(target, closed)


@pytest.mark.parametrize(
    "fault",
    [
        "too_many_once",
        "unavailable_twice",
        "cut_once",
        "cut_once_without_range",
        "redirect",
        "redirect_endless",
        "recompressed",
        "encoded",
        "slow",
    ],
)
def test_only_mirror(server: FaultyServer, target: Path, fault: str) -> None:
    """What passes, or can be put up with, is no failure of the mirror."""
    assert notices(fetch(target, server.url(fault))) == []
    assert_complete(target)
    assert server.sent < 40 * MIB


def test_slow_and_steady(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that takes longer than a stall may last, but sends on, is not given up."""
    monkeypatch.setattr(mirror, "STALL_SECONDS", 0.5)
    with serving(FaultyServer(chunk=4096)) as server:
        assert notices(fetch(target, server.url("slow"), dataset=FIRST)) == []
    assert_complete(target, FIRST)


def test_retries_end(server: FaultyServer, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that asks for more patience than there is, is not asked again."""
    with pytest.raises(DownloadError):
        fetch(target, server.url("too_many"))
    assert len(server.asked) == 1

    with pytest.raises(DownloadError):
        fetch(target, server.url("broken"))
    assert len(server.asked) == 1 + 4

    monkeypatch.setattr(mirror, "RETRY_SECONDS", 0.0)
    with pytest.raises(DownloadError):
        fetch(target, server.url("broken"))
    assert len(server.asked) in (1 + 4 + 1, 1 + 4 + 2)  # the first retry comes at once


def test_built_in_mirrors(server: FaultyServer, target: Path) -> None:
    """Without a mirror named, those of the data set are tried in turn."""
    dataset = dataclasses.replace(SMALL, mirrors=(server.url("missing"), server.url("good")))

    events = list(download.download(dataset, target))

    assert_complete(target)
    assert len(RAW) == len(notices(events))


def test_proxy(server: FaultyServer, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy in the environment is asked instead."""
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.server_port}")
    fetch(target, "http://no-such-host.invalid/good/")
    assert_complete(target)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl makes a certificate")
@pytest.mark.parametrize("secure", [True, False])
def test_no_downgrade(
    target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, secure: bool
) -> None:
    """A redirect from https to https is followed, one to http is not."""
    command = "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=localhost -days 2"
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "cert.pem"]
    subprocess.run([*command.split(), *names], cwd=tmp_path, check=True, capture_output=True)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "cert.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    server = FaultyServer()
    server.socket = context.wrap_socket(server.socket, server_side=True)
    with serving(server), serving(FaultyServer()) as plain:
        server.elsewhere = server if secure else plain
        server.scheme = "https"
        mirror = server.url("redirect_elsewhere")
        if secure:
            fetch(target, mirror)
            assert_complete(target)
        else:
            with pytest.raises(DownloadError, match="redirected from https to http"):
                fetch(target, mirror)
            assert plain.asked == []


# A directory as the mirror


@pytest.mark.parametrize("form", ["{}", "file://{}"])
@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("dotted", [True, False])
def test_directory(target: Path, tmp_path: Path, form: str, packed: bool, dotted: bool) -> None:
    """A directory or file:// URL gives .gz or plain files, with a dash or a dot."""
    mirror = tmp_path / "my mirror"
    contents = PACKED if packed else RAW
    put(mirror, {n.replace("-idx", ".idx") if dotted else n: c for n, c in contents.items()})

    url = form.format(mirror).replace(" ", "%20" if form != "{}" else " ")
    events = fetch(target, url)

    assert_complete(target)
    assert statuses(events) == ["downloaded"] * 4


def test_recompressed_directory(target: Path, tmp_path: Path) -> None:
    """Other .gz bytes are accepted when what they hold is right."""
    put(tmp_path / "mirror", {f"{n}.gz": gzip.compress(data, 1) for n, data in RAW.items()})
    fetch(target, str(tmp_path / "mirror"))
    assert_complete(target)


@pytest.mark.parametrize("fault", ["cut", "flipped", "other", "longer", "directory", "pipe"])
def test_bad_directory(target: Path, tmp_path: Path, server: FaultyServer, fault: str) -> None:
    """A directory with bad files is passed over like any other mirror."""
    mirror = tmp_path / "mirror"
    put(mirror, PACKED)
    path, good = mirror / f"{IMAGES}.gz", PACKED[f"{IMAGES}.gz"]
    if fault in ("directory", "pipe"):
        path.unlink()
    match fault:
        case "cut":
            path.write_bytes(good[:-9])
        case "flipped":
            path.write_bytes(good[:2000] + bytes([good[2000] ^ 1]) + good[2001:])
        case "other":
            path.write_bytes(gzip.compress(RAW[IMAGES][:-1] + b"\xff"))
        case "longer":
            path.write_bytes(gzip.compress(RAW[IMAGES] + bytes(64 * MIB)))
        case "directory":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)

    events = fetch(target, str(mirror), server.url("good"))

    assert_complete(target)
    assert [f"{IMAGES}: {mirror}: "] == [
        n[: len(f"{IMAGES}: {mirror}: ")] for n in notices(events)
    ]


# Resuming


def partial(target: Path, content: bytes) -> Path:
    put(target, {f".{IMAGES}.gz.part": content})
    return target / f".{IMAGES}.gz.part"


def asked_for_images(server: FaultyServer) -> list[tuple[str, str | None]]:
    return [(path.split("/")[1], span) for path, span in server.asked if IMAGES in path]


def test_resume(server: FaultyServer, target: Path) -> None:
    """What is there is not fetched again."""
    partial(target, PACKED[f"{IMAGES}.gz"][:300_000])
    fetch(target, server.url("good"))
    assert_complete(target)
    assert asked_for_images(server) == [("good", "bytes=300000-")]
    assert server.sent == SIZE - 300_000


def test_resume_elsewhere(server: FaultyServer, target: Path) -> None:
    """What one mirror sent before it stalled, the next one need not send."""
    half = len(PACKED[f"{IMAGES}.gz"]) // 2
    fetch(target, server.url("stalled"), server.url("good"), dataset=FIRST)
    assert_complete(target, FIRST)
    assert [("stalled", None), ("good", f"bytes={half}-")] == asked_for_images(server)


@pytest.mark.parametrize("fault", ["html", "missing", "broken", "too_long", "silent"])
def test_resume_after_fault(server: FaultyServer, target: Path, fault: str) -> None:
    """A mirror that gives nothing better does not cost what is there."""
    partial(target, PACKED[f"{IMAGES}.gz"][:300_000])
    fetch(target, server.url(fault), server.url("good"), dataset=FIRST)
    assert_complete(target, FIRST)
    assert asked_for_images(server)[-1] == ("good", "bytes=300000-")


def test_cut_always(server: FaultyServer, target: Path) -> None:
    """A server that cuts every answer is asked for the rest, a few times."""
    with pytest.raises(DownloadError, match="cut at byte 376989 of 402122"):
        fetch(target, server.url("cut_always"))
    assert len(server.asked) == 4
    size = (target / f".{IMAGES}.gz.part").stat().st_size
    assert size > 0.9 * len(PACKED[f"{IMAGES}.gz"])


@pytest.mark.parametrize("fault", ["unsatisfiable", "wrong_range", "recompressed", "wrong_rest"])
def test_resume_refused(server: FaultyServer, target: Path, fault: str) -> None:
    """Where there is no resuming, or it leads to a wrong digest, the file comes from zero."""
    partial(target, PACKED[f"{IMAGES}.gz"][:300_000])
    assert notices(fetch(target, server.url(fault))) == []
    assert_complete(target)
    assert asked_for_images(server)[0][1] == "bytes=300000-"


@pytest.mark.parametrize("size", [1000, 402_122, 500_000])
def test_rotten_partial(server: FaultyServer, target: Path, size: int) -> None:
    """A partial file of wrong bytes, of any length, is thrown away after one try."""
    assert len(PACKED[f"{IMAGES}.gz"]) == 402_122
    partial(target, b"\x1f\x8b" + bytes(size - 2))
    assert notices(fetch(target, server.url("good"))) == []
    assert_complete(target)


def test_wrong_from_zero_once(server: FaultyServer, target: Path) -> None:
    """A mirror whose bytes are wrong from zero as well is given up after that."""
    with pytest.raises(DownloadError, match="not the official file"):
        fetch(target, server.url("cut_and_wrong"))
    half = f"bytes={len(PACKED[f'{IMAGES}.gz']) // 2}-"
    assert [span for _, span in asked_for_images(server)] == [None, half, None, half]


def test_whole_partial(server: FaultyServer, target: Path) -> None:
    """A process killed before it unpacked has left all there is to know."""
    partial(target, PACKED[f"{IMAGES}.gz"])
    fetch(target, server.url("good"))
    assert_complete(target)
    assert asked_for_images(server) == []


# What is there already


def test_intact(server: FaultyServer, target: Path) -> None:
    """Nothing is fetched where all is right, whatever the spelling or the compression."""
    put(target, RAW)
    before = [(target / name).stat().st_mtime_ns for name in RAW]
    assert statuses(fetch(target, server.url("good"))) == ["verified"] * 4
    assert before == [(target / name).stat().st_mtime_ns for name in RAW]
    assert server.asked == []


@pytest.mark.parametrize("dotted", [True, False])
def test_recompressed_copies(server: FaultyServer, target: Path, dotted: bool) -> None:
    """Recompressed copies with the right content are accepted, and unpacked beside."""
    copies = {f"{n}.gz": gzip.compress(data, 1) for n, data in RAW.items()}
    put(target, {n.replace("-idx", ".idx") if dotted else n: c for n, c in copies.items()})
    assert statuses(fetch(target, server.url("good"))) == ["verified"] * 4
    assert {name: (target / name).read_bytes() for name in RAW} == RAW
    assert server.asked == []


def test_gzip_under_plain_name(server: FaultyServer, target: Path) -> None:
    """A .gz saved under the plain name is unpacked where it stands."""
    put(target, {name: PACKED[f"{name}.gz"] for name in RAW})
    assert statuses(fetch(target, server.url("good"))) == ["verified"] * 4
    assert_complete(target)
    assert server.asked == []


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "html", "longer", "gzip"])
def test_damaged(server: FaultyServer, target: Path, damage: str) -> None:
    """A damaged file is named and fetched again, the others are not."""
    good = RAW[LABELS]
    damaged = {
        "flipped": good[:99] + b"\x07" + good[100:],
        "cut": good[:-1],
        "empty": b"",
        "html": b"<!DOCTYPE html>",
        "longer": good + b"\0",
        "gzip": PACKED[f"{LABELS}.gz"][:-3],
    }
    put(target, RAW | {LABELS: damaged[damage]})

    events = fetch(target, server.url("good"))

    assert_complete(target)
    assert [f"{target / LABELS} is damaged; getting it again"] == notices(events)
    assert statuses(events) == ["verified", "downloaded", "verified", "verified"]
    assert [(f"/good/{LABELS}.gz", None)] == server.asked


def test_damaged_with_copy(server: FaultyServer, target: Path) -> None:
    """A good .gz beside a damaged file saves the fetching."""
    put(target, RAW | {IMAGES: b"", f"{IMAGES}.gz": PACKED[f"{IMAGES}.gz"]})
    events = fetch(target, server.url("good"))
    assert RAW[IMAGES] == (target / IMAGES).read_bytes()
    assert [f"{target / IMAGES} is damaged; getting it again"] == notices(events)
    assert server.asked == []


def test_damaged_stays_until_replaced(server: FaultyServer, target: Path) -> None:
    """Even a damaged file is not taken away before there is a better one."""
    put(target, RAW | {LABELS: b"damaged"})
    with pytest.raises(DownloadError):
        fetch(target, server.url("missing"))
    assert (target / LABELS).read_bytes() == b"damaged"


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("force", [True, False])
def test_own_data(server: FaultyServer, target: Path, suffix: str, force: bool) -> None:
    """Images of the user's own, another number than the official, are left as they are."""
    own = RAW[IMAGES][:4] + (3).to_bytes(4, "big") + RAW[IMAGES][8 : 16 + 3 * 784]
    own = gzip.compress(own) if suffix else own
    put(target, {f"{IMAGES}{suffix}": own})

    with pytest.raises(DownloadError, match=f"{IMAGES}{suffix} has 3 items where .* has 900"):
        fetch(target, server.url("good"), force=force)

    assert own == (target / f"{IMAGES}{suffix}").read_bytes()
    assert server.asked == []


@pytest.mark.parametrize("kind", ["directory", "pipe", "link"])
def test_no_file(server: FaultyServer, target: Path, kind: str) -> None:
    """What is no file at all is left alone, and does not block."""
    put(target, {})
    path = target / LABELS
    match kind:
        case "directory":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case "link":
            path.symlink_to("nowhere")
    with pytest.raises(DownloadError, match="is not a regular file"):
        fetch(target, server.url("good"))


def test_force(server: FaultyServer, target: Path) -> None:
    """Intact files are fetched again, and stay while that fails."""
    put(target, RAW)
    with pytest.raises(DownloadError):
        fetch(target, server.url("wrong_bytes"), force=True)
    assert_complete(target)

    server.sent = 0
    assert statuses(fetch(target, server.url("good"), force=True)) == ["downloaded"] * 4
    assert_complete(target)
    assert server.sent == SIZE


@pytest.mark.parametrize("place", ["data", "data/mnist"])
def test_directory_is_a_file(tmp_path: Path, target: Path, place: str) -> None:
    """A file where the directory should be is said to be one."""
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).write_bytes(b"")
    with pytest.raises(DataError, match=f"{place} is not a directory"):
        fetch(target, "/no/such/directory")


# A data set of which only the digests of the .gz are known (KMNIST)


@pytest.fixture
def packed_only(monkeypatch: pytest.MonkeyPatch) -> Dataset:
    files = tuple(dataclasses.replace(file, sha256=None) for file in SMALL.files)
    return dataclasses.replace(SMALL, files=files)


def test_keep_gz(server: FaultyServer, target: Path, packed_only: Dataset) -> None:
    """The .gz is kept beside the plain file, and verifies it."""
    list(download.download(packed_only, target, [server.url("good")]))
    assert {n: (target / n).read_bytes() for n in (*RAW, *PACKED)} == {**RAW, **PACKED}
    asked = len(server.asked)

    events = list(download.download(packed_only, target, [server.url("good")]))
    assert statuses(events) == ["verified"] * 4
    assert asked == len(server.asked)

    (target / IMAGES).write_bytes(RAW[IMAGES][:-1] + b"\xff")
    events = list(download.download(packed_only, target, [server.url("good")]))
    assert [f"{target / IMAGES} is damaged; getting it again"] == notices(events)
    assert RAW[IMAGES] == (target / IMAGES).read_bytes()
    assert asked == len(server.asked)


def test_plain_only(server: FaultyServer, target: Path, packed_only: Dataset) -> None:
    """A plain file alone proves nothing, neither in place nor at a mirror."""
    put(target, RAW)
    put(target.parent / "mirror", RAW)
    mirrors = [str(target.parent / "mirror"), server.url("recompressed"), server.url("good")]
    events = list(download.download(packed_only, target, mirrors))
    assert statuses(events) == ["downloaded"] * 4
    unproved = f"{target / IMAGES} is damaged or lacks its official {IMAGES}.gz; getting it again"
    assert unproved == notices(events)[0]
    assert len(notices(events)) == 3 * 4


# The synthetic data set


def test_synthetic(target: Path) -> None:
    """It is written as four IDX files, verified the next time, and mended."""
    dataset = DATASETS["synthetic"]
    events = list(download.download(dataset, target))
    assert statuses(events) == ["generated"] * 4
    assert (idx.read(target / IMAGES) == synthetic.generate("train")[0]).all()

    (target / LABELS).write_bytes(b"")
    assert statuses(list(download.download(dataset, target))) == [
        "verified",
        "generated",
        "verified",
        "verified",
    ]
    assert (idx.read(target / LABELS) == synthetic.generate("train")[1]).all()


# Real processes: the program itself, with the small data set in the place of MNIST

PROGRAM = """
from mnist_cli import cli
from mnist_cli.data import catalogue, download as fetching
from tests.faulty_server import SMALL
catalogue.DATASETS["mnist"] = SMALL
cli.main()
"""


def command(target: Path, *mirrors: str) -> list[str]:
    chosen = [f"--mirror={mirror}" for mirror in mirrors]
    args = ["download", "--json", f"--data-dir={target.parent}", *chosen]
    return [sys.executable, "-c", PROGRAM, *args]


def run(args: list[str], limit: Callable[[], None] | None = None) -> tuple[int, str, str]:
    result = subprocess.run(
        args, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, preexec_fn=limit
    )
    return result.returncode, result.stdout, result.stderr


def start(args: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        args, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_until_sent(server: FaultyServer, size: int, process: subprocess.Popen[str]) -> None:
    while server.sent < size and process.poll() is None:
        time.sleep(0.002)


def test_killed(target: Path) -> None:
    """Six SIGKILLs in a row during the first file cost hardly more than what was in flight."""
    first = SMALL.files[0].gz_size
    with serving(FaultyServer(chunk=4096)) as server:
        args = command(target, server.url("slow"))
        for kill in range(6):
            process = start(args)
            wait_until_sent(server, first * (kill + 1) // 7, process)
            process.kill()
            process.communicate()
            assert process.returncode == -signal.SIGKILL
            assert_nothing_final(target)
        code, _, err = run(args)
        assert (code, err) == (0, "")
        assert_complete(target)
        assert server.sent < 1.35 * SIZE


@pytest.fixture
def real_files(real_data: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (real_data / "mnist").glob("*.gz")}


def real_command(target: Path, mirror: str) -> list[str]:
    args = ["download", "--json", "--data-dir", str(target.parent), "--mirror", mirror]
    return [sys.executable, "-m", "mnist_cli", *args]


def test_many_at_once(target: Path, real_files: dict[str, bytes]) -> None:
    """Eight processes all succeed, and one of them fetches."""
    with serving(FaultyServer(real_files, chunk=65_536)) as server:
        processes = [start(real_command(target, server.url("good"))) for _ in range(8)]
        outputs = [process.communicate(timeout=60) for process in processes]
        assert [process.returncode for process in processes] == [0] * 8
        assert len(server.asked) == 4
    found = [[file["sha256"] for file in json.loads(out)["files"]] for out, _ in outputs]
    assert [[file.sha256 for file in MNIST.files]] * 8 == found
    assert {"", f"waiting for another download into {target}\n"} >= {err for _, err in outputs}


def test_killed_holder(server: FaultyServer, target: Path) -> None:
    """A killed process does not leave the directory locked."""
    process = start(command(target, server.url("silent")))
    while not server.asked:
        time.sleep(0.002)
    process.kill()
    process.communicate()
    assert (target / ".lock").exists()
    assert run(command(target, server.url("good")))[0] == 0
    assert_complete(target)


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted(target: Path, sent: signal.Signals, code: int) -> None:
    """Ctrl-C ends it at once and in one line, and what came is not lost."""
    with serving(FaultyServer(chunk=4096)) as server:
        process = start(command(target, server.url("slow")))
        wait_until_sent(server, 200_000, process)
        process.send_signal(sent)
        out, err = process.communicate(timeout=30)
        assert (code, "", 1) == (process.returncode, out, err.count("\n"))
        assert "Traceback" not in err
        assert_nothing_final(target)
        assert run(command(target, server.url("good")))[0] == 0
        assert_complete(target)
        assert server.sent < 1.35 * SIZE


def assert_refused(result: tuple[int, str, str], *words: str) -> None:
    code, out, err = result
    assert (code, out) == (1, "")
    assert err.splitlines()[-1].startswith("Error: ")
    assert "Traceback" not in err
    for word in words:
        assert word in err.splitlines()[-1]


@pytest.mark.parametrize("limit", [100_000, 500_000])
def test_full_disk(server: FaultyServer, target: Path, limit: int) -> None:
    """With room for a part of the .gz, or for it alone, old files stay and no scraps are left."""
    put(target, {LABELS: RAW[LABELS], IMAGES: b"damaged"})
    result = run(
        command(target, server.url("good")),
        lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    needed = sum(file.size + file.gz_size for file in SMALL.files)
    assert_refused(
        result, "File too large", f"{target} has to be writable with {needed} bytes free"
    )
    assert (target / IMAGES).read_bytes() == b"damaged"
    assert RAW[LABELS] == (target / LABELS).read_bytes()
    whole = limit > SMALL.files[0].gz_size
    assert leftovers(target) == ({f".{IMAGES}.gz.part"} if whole else set())


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


def test_read_only(server: FaultyServer, open_directory: Path, as_nobody: list[str]) -> None:
    """An unwritable directory is an error that names it and says how much it should hold."""
    open_directory.chmod(0o555)
    target = open_directory / "data" / "mnist"
    result = run([*as_nobody, *command(target, server.url("good"))])
    assert_refused(result, "Permission denied", str(target), "bytes free")

    open_directory.chmod(0o755)
    put(target, {LABELS: RAW[LABELS]})
    target.chmod(0o555)
    result = run([*as_nobody, *command(target, server.url("good"))])
    assert_refused(result, "Permission denied", str(target), "bytes free")
    assert {LABELS} == {path.name for path in target.iterdir()}
    assert server.asked == []


@pytest.mark.parametrize("contents", [RAW, PACKED], ids=["plain", "gz"])
def test_read_only_intact(
    open_directory: Path, as_nobody: list[str], contents: dict[str, bytes]
) -> None:
    """What is right in an unwritable directory is verified where it is."""
    target = open_directory / "mnist"
    put(target, contents)
    target.chmod(0o555)
    code, out, err = run([*as_nobody, *command(target, "/no/such/directory")])
    assert (code, err) == (0, "")
    assert [file["status"] for file in json.loads(out)["files"]] == ["verified"] * 4
    assert set(contents) == {path.name for path in target.iterdir()}


def test_streams(server: FaultyServer, target: Path) -> None:
    """On a pipe a notice is one line on stderr, with -q none; stdout is one JSON document."""
    args = command(target, server.url("missing"), server.url("good"))
    code, out, err = run(args)
    assert code == 0
    assert [f"{name}: {server.url('missing')}: HTTP 404 Not Found" for name in RAW] == (
        err.splitlines()
    )
    assert {"dataset", "directory", "files"} == set(json.loads(out))

    shutil.rmtree(target)
    code, out, err = run([*args, "-q"])
    assert (code, err) == (0, "")
    assert [file["status"] for file in json.loads(out)["files"]] == ["downloaded"] * 4


def test_bar(target: Path) -> None:
    """On a terminal each file has a bar with its bytes."""
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
    assert process.returncode == 0
    assert len(json.loads(out)["files"]) == 4
    for name in RAW:
        assert f"{name}: ".encode() in shown
    assert b"B/s" in shown


# What a missing data set leads to


def test_missing_then_downloaded(server: FaultyServer, tmp_path: Path) -> None:
    """The error of a missing data set holds the command that gets it."""
    from mnist_cli.data.loading import load

    with pytest.raises(MissingDataError, match="mnist-cli download --dataset mnist --data-dir"):
        load("mnist", "train", tmp_path)
    fetch(tmp_path / "mnist", server.url("good"))
    assert len(load("mnist", "train", tmp_path).labels) == 900
