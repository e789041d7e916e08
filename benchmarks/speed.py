"""Compare mnist-cli with what people would use instead, side by side on this machine.

    python benchmarks/speed.py --data-dir data [--runs 5] [--output docs/performance]

It builds an environment of its own with the peers, then runs all of them in turn, again and
again, so that a change in the machine's speed meets everyone, and writes the medians as a table
in Markdown and as JSON. `data` must hold the uncompressed files of MNIST, as `mnist-cli
download` leaves them. Batch 120, 10 epochs, all 60,000 images, momentum, cosine schedule.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
FLOOR = "numpy floor: gather, cast, two products"  # it learns nothing
PEERS = {
    "mnist-cli": None,
    FLOOR: "floor",
    "PyTorch, loop over a tensor": "torch_tensor",
    "PyTorch, DataLoader": "torch_dataloader",
    "scikit-learn LogisticRegression": "sklearn_lbfgs",
    "scikit-learn SGDClassifier": "sklearn_sgd",
    "numpy tutorial, p − y": "numpy_tutorial",
    "numpy tutorial, Jacobian in a loop": "numpy_loop_jacobian",
}
LEAST_ACCURACY = {"scikit-learn SGDClassifier": 0.90, FLOOR: 0}
THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")


def main() -> None:
    """Measure, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("performance"))
    parser.add_argument("--environment", type=Path, default=Path(".venv-benchmarks"))
    args = parser.parse_args()
    python = prepare(args.environment)
    data = str(args.data_dir.resolve())
    with tempfile.TemporaryDirectory() as scratch:
        threads = {name: best_threads(python, name, data, scratch) for name in PEERS}
        accuracy = {name: judged(python, name, data, scratch, threads[name]) for name in PEERS}
        for name, reached in accuracy.items():
            if reached < LEAST_ACCURACY.get(name, 0.92):
                sys.exit(f"{name} reached only {reached:.2%}")
        runs = {name: [] for name in PEERS}
        for number in range(args.runs):
            for name in PEERS:
                runs[name].append(run(python, name, data, scratch, threads[name]))
            print(f"round {number + 1} of {args.runs} done", file=sys.stderr)
        starts = start_up(python, data, scratch, max(args.runs, 11))
    result = summary(runs, accuracy, threads) | {"start_up": starts}
    args.output.with_suffix(".json").write_text(json.dumps(result, indent=2) + "\n")
    args.output.with_suffix(".table.md").write_text(table(result))
    print(table(result))


def prepare(environment: Path) -> str:
    """Build the environment, once, and return its Python."""
    python = environment.resolve() / "bin" / "python"
    if not python.exists():
        venv.create(environment, with_pip=True)
    install = [str(python), "-m", "pip", "install", "-q"]
    subprocess.run([*install, "torch==2.13.0", "scikit-learn"], check=True)
    subprocess.run([*install, str(HERE.parent)], check=True)
    return str(python)


def command(python: str, name: str, data: str, scratch: str, threads: int, judge: bool) -> list:
    """Return the command of a peer."""
    model = f"{scratch}/model.npz"
    if PEERS[name] is None:
        program = str(Path(python).with_name("mnist-cli"))
        options = ["--data-dir", data, "--offline", "--validation-size", "0", "-o", model]
        return [program, "train", "--epochs", "10", "--json", *options]
    script = str(HERE / "peers" / f"{PEERS[name]}.py")
    return [python, script, data, model, *(["judge"] if judge else []), str(threads)]


def run(python: str, name: str, data: str, scratch: str, threads: int, judge=False) -> dict:
    """Run a peer once; return seconds of its loop, of its whole process, and its peak memory."""
    environment = {key: value for key, value in os.environ.items() if key not in THREADS}
    if PEERS[name]:  # mnist-cli runs as its users run it
        environment |= dict.fromkeys(THREADS, str(threads))
    started = time.perf_counter()
    process = subprocess.Popen(
        command(python, name, data, scratch, threads, judge),
        stdout=subprocess.PIPE,
        env=environment,
    )
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = status
    whole = time.perf_counter() - started
    if status:
        sys.exit(f"{name} failed")
    printed = json.loads(output)
    found = {"loop": printed["seconds"], "whole": whole, "memory": usage.ru_maxrss / 1024}
    return found | {"accuracy": printed.get("accuracy")}


def best_threads(python: str, name: str, data: str, scratch: str) -> int:
    """Return the number of threads with which a peer's loop is fastest, 1 or all."""
    if PEERS[name] is None:
        return 1
    loops = {1: [], os.cpu_count(): []}
    for _ in range(3):
        for threads, seconds in loops.items():
            seconds.append(run(python, name, data, scratch, threads)["loop"])
    return min(loops, key=lambda threads: statistics.median(loops[threads]))


def judged(python: str, name: str, data: str, scratch: str, threads: int) -> float:
    """Return a peer's accuracy on the test images."""
    found = run(python, name, data, scratch, threads, judge=True)["accuracy"]
    if found is None:
        program = str(Path(python).with_name("mnist-cli"))
        options = ["--data-dir", data, "--json"]
        output = subprocess.check_output([program, "evaluate", f"{scratch}/model.npz", *options])
        found = json.loads(output)["accuracy"]
    return found


def start_up(python: str, data: str, scratch: str, runs: int) -> dict:
    """Return median seconds of the quick commands and of what they are measured against."""
    bare = Path(scratch) / "bare.py"
    bare.write_text(
        "import click\n@click.group()\ndef cli():\n    pass\n"
        + "".join(f"@cli.command()\ndef {name}():\n    pass\n" for name in "abc")
        + "cli()\n"
    )
    program = str(Path(python).with_name("mnist-cli"))
    run(python, "mnist-cli", data, scratch, 1)
    commands = {
        "mnist-cli --help": [program, "--help"],
        "bare Click program --help": [python, str(bare), "--help"],
        "mnist-cli evaluate": [program, "evaluate", f"{scratch}/model.npz", "--data-dir", data],
        "python -c 'import numpy, click'": [python, "-c", "import numpy, click"],
    }
    seconds = {name: [] for name in commands}
    for _ in range(runs):
        for name, words in commands.items():
            started = time.perf_counter()
            subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
            seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


def summary(runs: dict, accuracy: dict, threads: dict) -> dict:
    """Return medians, and ratios of mnist-cli to each peer taken round by round."""
    ours = runs["mnist-cli"]
    peers = {}
    for name, theirs in runs.items():
        row = {key: statistics.median(r[key] for r in theirs) for key in ("loop", "whole")}
        row["memory"] = statistics.median(r["memory"] for r in theirs)
        for key in ("loop", "whole"):
            pairs = zip(ours, theirs, strict=True)
            row[f"{key}_ratio"] = statistics.median(a[key] / b[key] for a, b in pairs)
        peers[name] = row | {"accuracy": accuracy[name], "threads": threads[name]}
    return {"runs": len(ours), "peers": peers}


def table(result: dict) -> str:
    """Return the result as tables in Markdown."""
    lines = [
        "| program | loop, s | mnist-cli / it | process, s | mnist-cli / it | MiB | accuracy |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, row in result["peers"].items():
        accuracy = "–" if name == FLOOR else f"{row['accuracy']:.2%}"
        lines.append(
            f"| {name} | {row['loop']:.2f} | {row['loop_ratio']:.2f} | {row['whole']:.2f} "
            f"| {row['whole_ratio']:.2f} | {row['memory']:.0f} | {accuracy} |"
        )
    lines += ["", "| command | ms |", "| --- | ---: |"]
    lines += [f"| {name} | {1000 * s:.0f} |" for name, s in result["start_up"].items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
