"""Kill a training run at random moments, rerun it until done, and compare with an unbroken run.

    python benchmarks/trust.py --data-dir data [--epochs 150] [--kills 6]

The data set must be in the data directory. For SIGKILL, SIGTERM, and SIGINT, each sent to the
process group, it prints the exit codes, the epochs that each rerun finds done, and whether the
model's SHA-256 and the metrics, apart from the seconds, are those of the unbroken run.
"""

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def start(folder: Path, options: list[str]) -> subprocess.Popen[bytes]:
    """Start the training in `folder`, in a process group of its own."""
    command = [sys.executable, "-m", "mnist_cli", "train", "--offline", *options]
    command += ["--checkpoint", "state.npz", "--metrics-file", "metrics.jsonl"]
    return subprocess.Popen(
        command,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=(folder / "stderr").open("ab"),
        start_new_session=True,
    )


def outcome(folder: Path) -> tuple[str, list[dict[str, float]]]:
    """Return the model's SHA-256, and the metrics without the seconds."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    epochs = [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]
    return hashlib.sha256((folder / "model.npz").read_bytes()).hexdigest(), epochs


def torment(
    folder: Path, options: list[str], number: int, kills: int, span: float, rng: random.Random
) -> list[int]:
    """Send the signal `kills` times at random moments within `span` seconds, then let it end."""
    codes: list[int] = []
    while not codes or codes[-1] != 0:
        process = start(folder, options)
        if len(codes) < kills:
            if number != signal.SIGKILL:
                assert process.stdout
                process.stdout.readline()  # the program has installed its handlers
            time.sleep(rng.uniform(0.05, span))
            os.killpg(process.pid, number)
        process.communicate()
        codes.append(process.returncode)
        left = sorted({p.name for p in folder.iterdir()} - {"stderr"})
        print(f"  exit {process.returncode}, files: {', '.join(left)}", flush=True)
    return codes


def main() -> None:
    """Run the unbroken training, then the three broken ones."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    parser.add_argument("--epochs", type=int, default=150)
    parser.add_argument("--kills", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # or a background job ignores it
    options = ["--data-dir", str(args.data_dir.resolve()), "--epochs", str(args.epochs)]
    rng = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as scratch:
        unbroken = Path(scratch, "unbroken")
        unbroken.mkdir()
        started = time.perf_counter()
        start(unbroken, options).communicate()
        seconds = time.perf_counter() - started
        expected = outcome(unbroken)
        print(f"unbroken: {seconds:.1f} s, {len(expected[1])} epochs, {expected[0]}", flush=True)
        for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT):
            folder = Path(scratch, number.name)
            folder.mkdir()
            print(number.name, flush=True)
            torment(folder, options, number, args.kills, 0.7 * seconds / args.kills, rng)
            found = outcome(folder)
            print(
                f"  same model {found[0] == expected[0]}, same metrics {found[1] == expected[1]}"
            )
            print("  " + (folder / "stderr").read_text().replace("\n", "\n  ").rstrip())


if __name__ == "__main__":
    main()
