"""The commands as their users see them: streams, exit codes, precedence, errors."""

import dataclasses
import functools
import hashlib
import http.server
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mnist_cli import __version__, config, load_data, load_model
from mnist_cli.config import Config
from mnist_cli.data import catalogue
from mnist_cli.inputs.pictures import prepare
from mnist_cli.storage import model_file
from tests.conftest import QUICK, Invoke, Run, one_error


def test_train_prints_a_table_and_the_files_it_wrote(invoke: Invoke, data_dir: Path) -> None:
    files = ("--metrics-file", "m.jsonl", "--checkpoint", "c.npz", "--plot", "run.svg")
    result = invoke("train", *QUICK, *files)
    assert (result.exit_code, result.stderr) == (0, "")
    head, *rows, metrics, checkpoint, plot, model = result.stdout.splitlines()
    assert head == "epoch  train loss  accuracy  validation loss  accuracy  seconds"
    figures = r" +\d\.\d{4} +\d+\.\d\d%" * 2
    for number, row in enumerate(rows, start=1):
        assert re.fullmatch(rf" +{number}/2{figures} +\d+\.\d\d", row)
    assert metrics == "m.jsonl holds the figures of each epoch."
    assert checkpoint == "c.npz holds the state after epoch 2."
    assert plot == "run.svg holds the loss and accuracy curves."
    assert model == "model.npz holds the parameters of epoch 2."


def test_quiet_prints_only_json_and_errors(invoke: Invoke, data_dir: Path) -> None:
    for command in (("train", *QUICK), ("evaluate", "model.npz", "--dataset", "mnist")):
        assert invoke(*command, "-q").output == ""
    document = json.loads(invoke("evaluate", "model.npz", "-q", "--json").stdout)
    failed = invoke("evaluate", "model.npz", "-q", "--min-accuracy", 1)
    sentence = f"The accuracy {document['accuracy']} is below 1.0.\n"
    assert (failed.exit_code, failed.stdout, failed.stderr) == (3, "", sentence)
    missing = invoke("evaluate", "nothing.npz", "-q")
    assert missing.exit_code == 1
    assert "nothing.npz" in one_error(missing)


def test_train_json_has_the_promised_keys(invoke: Invoke, data_dir: Path) -> None:
    result = invoke("train", *QUICK, "--json", "-o", "other.npz", "--metrics-file", "m.jsonl")
    document = json.loads(result.stdout)
    assert list(document) == [
        *("model", "dataset", "epochs", "epoch", "train_loss", "train_accuracy"),
        *("validation_loss", "validation_accuracy", "seconds", "images_per_second", "config"),
    ]
    assert document["model"] == "other.npz"
    assert (document["epochs"], document["epoch"]) == (2, 2)
    assert document["config"] == dataclasses.asdict(Config(epochs=2, validation_size=100))
    lines = [json.loads(line) for line in Path("m.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]
    assert list(lines[0]) == [
        *("epoch", "learning_rate", "train_loss", "train_accuracy"),
        *("validation_loss", "validation_accuracy", "seconds"),
    ]
    assert lines[-1]["validation_loss"] == document["validation_loss"]
    assert document["seconds"] == pytest.approx(sum(line["seconds"] for line in lines))
    assert document["images_per_second"] == pytest.approx(2 * 700 / document["seconds"])


def test_no_validation_images_give_null(invoke: Invoke, data_dir: Path) -> None:
    options = ("--epochs", 1, "--validation-size", 0, "--metrics-file", "m.jsonl")
    document = json.loads(invoke("train", "--json", *options).stdout)
    line = json.loads(Path("m.jsonl").read_text())
    for figures in (document, line):
        assert figures["validation_loss"] is None
        assert figures["validation_accuracy"] is None
    assert "validation" not in invoke("train", *options).stdout


def test_model_file_records_how_it_was_made(model: Path) -> None:
    with np.load(model, allow_pickle=False) as archive:
        assert archive["W"].shape == (784, 10)
        assert archive["W"].dtype == archive["b"].dtype == np.float32
        metadata = json.loads(str(archive["metadata"]))
    assert metadata["format"] == 1
    assert metadata["dataset"] == "mnist"
    assert metadata["normalize"] == "none"
    assert metadata["config"]["epochs"] == 2
    assert metadata["metrics"]["epoch"] == 2
    assert metadata["versions"]["mnist_cli"] == __version__


def test_evaluate_json_has_the_promised_keys(invoke: Invoke, model: Path) -> None:
    document = json.loads(invoke("evaluate", "model.npz", "--json").stdout)
    assert list(document) == [
        *("model", "dataset", "split", "examples", "correct", "accuracy", "loss", "brier_score"),
        *("expected_calibration_error", "confusion_matrix", "per_class", "macro_average"),
    ]
    assert document["examples"] == 200
    assert document["correct"] == np.trace(document["confusion_matrix"])
    assert document["accuracy"] == document["correct"] / 200
    train = json.loads(invoke("evaluate", "model.npz", "--json", "--split", "train").stdout)
    assert (train["split"], train["examples"]) == ("train", 800)


def test_mistakes_are_the_wrong_answers_most_confident_first(invoke: Invoke, model: Path) -> None:
    result = invoke("evaluate", "model.npz", "--mistakes", "wrong.jsonl")
    mistakes = [json.loads(line) for line in Path("wrong.jsonl").read_text().splitlines()]
    assert f"wrong.jsonl holds {len(mistakes)} mistakes.\n" in result.stdout
    document = json.loads(invoke("evaluate", "model.npz", "--json").stdout)
    assert len(mistakes) == 200 - document["correct"] > 24
    assert mistakes == sorted(mistakes, key=lambda mistake: -mistake["probability"])
    images, labels = load_data("mnist", "test")
    probs = load_model("model.npz").predict(images)
    for mistake in mistakes:
        assert list(mistake) == ["index", "label", "predicted", "probability"]
        row = probs[mistake["index"]]
        assert (labels[mistake["index"]], row.argmax()) == (mistake["label"], mistake["predicted"])
        assert mistake["label"] != mistake["predicted"]
        assert row.max() == pytest.approx(mistake["probability"])


def test_evaluate_accepts_bare_arrays(invoke: Invoke, model: Path) -> None:
    """An .npz of just W and b means mnist and no normalisation."""
    with np.load(model, allow_pickle=False) as archive:
        np.savez("bare.npz", W=archive["W"].astype(np.float64), b=archive["b"])
    whole, bare = (
        json.loads(invoke("evaluate", name, "--json").stdout) for name in (model, "bare.npz")
    )
    assert whole | {"model": ""} == bare | {"model": ""}


def test_minimum_accuracy_passes_at_equality_and_fails_above(invoke: Invoke, model: Path) -> None:
    accuracy = json.loads(invoke("evaluate", "model.npz", "--json").stdout)["accuracy"]
    assert invoke("evaluate", "model.npz", "--min-accuracy", repr(accuracy)).exit_code == 0
    for higher in (accuracy + 1e-9, "nan"):
        failed = invoke("evaluate", "model.npz", "--min-accuracy", higher)
        assert failed.exit_code == 3
    assert failed.stdout == invoke("evaluate", "model.npz").stdout


@pytest.mark.parametrize("limit", ["1.01", "-0.1"])
def test_minimum_accuracy_is_a_fraction(invoke: Invoke, limit: str) -> None:
    result = invoke("evaluate", "model.npz", f"--min-accuracy={limit}")
    assert result.exit_code == 2
    assert "'--min-accuracy': " in one_error(result)


def test_evaluate_warns_if_the_model_was_trained_otherwise(
    invoke: Invoke, model: Path, data_dir: Path
) -> None:
    (data_dir / "fashion-mnist").symlink_to("mnist")
    for options, words in (
        (("--dataset", "fashion-mnist"), "dataset mnist, not fashion-mnist"),
        (("--normalize", "deskew"), "normalize none, not deskew"),
    ):
        result = invoke("evaluate", "model.npz", *options)
        assert result.exit_code == 0
        assert result.stderr == f"Warning: the model was trained with {words}.\n"


def test_synthetic_needs_no_files(invoke: Invoke, tmp_path: Path) -> None:
    """The embedded data set trains and is judged with no network and no data directory."""
    assert invoke("train", "--dataset", "synthetic", "--offline").exit_code == 0
    document = json.loads(invoke("evaluate", "model.npz", "--json").stdout)
    assert document["dataset"] == "synthetic"
    assert document["examples"] == 2000
    assert 0.85 <= document["accuracy"] <= 0.98
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.npz"]


def test_plots_are_drawn(invoke: Invoke, data_dir: Path) -> None:
    assert invoke("train", *QUICK, "--plot", "run.svg").exit_code == 0
    assert invoke("evaluate", "model.npz", "--plot", "page.png").exit_code == 0
    assert "<svg" in Path("run.svg").read_text()
    assert Path("page.png").read_bytes().startswith(b"\x89PNG")


def test_download_writes_the_synthetic_files(invoke: Invoke) -> None:
    document = json.loads(invoke("download", "--dataset", "synthetic", "--json").stdout)
    assert (document["dataset"], document["directory"]) == ("synthetic", "data/synthetic")
    keys = ["name", "bytes", "sha256", "status", "moved"]
    assert [list(file) for file in document["files"]] == [keys] * 4
    for file in document["files"]:
        content = Path("data/synthetic", file["name"]).read_bytes()
        assert len(content) == file["bytes"]
        assert hashlib.sha256(content).hexdigest() == file["sha256"]
        assert file["status"] == "generated"
    again = invoke("download", "--dataset", "synthetic")
    assert again.stdout.count("verified\n") == 4
    assert again.stderr == ""


def test_failed_mirrors_are_reported(invoke: Invoke) -> None:
    result = invoke("download", "--mirror", "nowhere")
    assert result.exit_code == 1
    [error] = result.stderr.splitlines()
    assert error.startswith(
        "Error: cannot download train-images-idx3-ubyte: nowhere: no such folder; "
    )


@pytest.fixture
def pictures(data_dir: Path, digits: tuple[Any, Any], tmp_path: Path) -> list[Path]:
    """Save three test digits as pictures: their names are their labels."""
    paths = []
    for number in (800, 801, 802):
        paths.append(tmp_path / f"{number}-{digits[1][number]}.png")
        Image.fromarray(digits[0][number]).save(paths[-1])
    return paths


def test_predict_prints_a_line_an_image(invoke: Invoke, model: Path, pictures: list[Path]) -> None:
    result = invoke("predict", "model.npz", *pictures)
    assert (result.exit_code, result.stderr) == (0, "")
    for line, path in zip(result.stdout.splitlines(), pictures, strict=True):
        assert re.fullmatch(rf"{re.escape(str(path))}: \d \(\d+\.\d%\)", line)


def test_predict_json_is_what_the_network_says(
    invoke: Invoke, model: Path, pictures: list[Path]
) -> None:
    answers = json.loads(invoke("predict", "model.npz", *pictures, "--json").stdout)
    params = model_file.load(model).params
    for answer, path in zip(answers, pictures, strict=True):
        assert list(answer) == ["image", "label", "probability", "probabilities"]
        logits = prepare(path, "").reshape(-1) / 255 @ params.W + params.b
        probs = np.exp(logits) / np.exp(logits).sum()
        np.testing.assert_allclose(answer["probabilities"], probs, atol=1e-6)
        assert answer["image"] == str(path)
        assert answer["label"] == probs.argmax()
        assert answer["probability"] == max(answer["probabilities"])


def test_bad_picture_spoils_only_itself(invoke: Invoke, model: Path, pictures: list[Path]) -> None:
    Path("bad.png").write_text("no picture")
    good, bad = pictures[0], "bad.png"
    result = invoke("predict", "model.npz", bad, good, "missing.png")
    assert result.exit_code == 1
    assert result.stdout.count("\n") == 1
    assert re.fullmatch(r"Error: bad\.png: [^\n]+\nError: missing\.png: [^\n]+\n", result.stderr)
    answers = json.loads(invoke("predict", "model.npz", bad, good, "--json").stdout)
    assert [answer["image"] for answer in answers] == [str(good)]


def test_predict_shows_what_the_network_saw(
    invoke: Invoke, model: Path, pictures: list[Path]
) -> None:
    result = invoke("predict", "model.npz", pictures[0], "--show")
    lines = result.stdout.split("\n")
    assert len(lines) == 1 + 14 + 1
    assert set("".join(lines[1:])) <= set(" ▀▄█")
    assert "█" in result.stdout


def test_predict_reads_standard_input(invoke: Invoke, model: Path, pictures: list[Path]) -> None:
    named = json.loads(invoke("predict", "model.npz", pictures[0], "--json").stdout)
    piped = invoke("predict", "model.npz", "-", "--json", input=pictures[0].read_bytes())
    assert json.loads(piped.stdout) == [named[0] | {"image": "-"}]


def test_fashion_models_name_their_labels(
    invoke: Invoke, data_dir: Path, pictures: list[Path]
) -> None:
    (data_dir / "fashion-mnist").symlink_to("mnist")
    assert invoke("train", *QUICK, "--dataset", "fashion-mnist").exit_code == 0
    [answer] = json.loads(invoke("predict", "model.npz", pictures[0], "--json").stdout)
    names = catalogue.DATASETS["fashion-mnist"].label_names
    assert answer["label_name"] == names[answer["label"]]
    assert answer["label_name"] in invoke("predict", "model.npz", pictures[0]).stdout


@pytest.mark.parametrize(
    ("package", "extra", "command"),
    [
        ("PIL", "image", ["predict", "model.npz", "a.png"]),
        ("matplotlib", "plot", ["evaluate", "model.npz", "--plot", "a.png"]),
        ("matplotlib", "plot", ["train", "--offline", "--plot", "a.png"]),
    ],
)
def test_missing_extras_are_named(
    model: Path, package: str, extra: str, command: list[str]
) -> None:
    script = (
        f"import sys; sys.modules[{package!r}] = None; sys.argv[1:] = {command!r};"
        "from mnist_cli.cli import main; main()"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=model.parent, capture_output=True, text=True
    )
    assert (result.returncode, result.stdout) == (1, "")
    assert f"pip install 'mnist-cli[{extra}]'" in one_error(result)


def test_precedence(invoke: Invoke, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line comes before the environment, the config file and the defaults."""

    def epochs(*options: object) -> int:
        result = invoke("train", "--json", "--validation-size", 100, *options)
        found: int = json.loads(result.stdout)["config"]["epochs"]
        return found

    Path("c.json").write_text('{"epochs": 2, "learning_rate": 1}')
    assert epochs() == 10
    assert epochs("--config", "c.json") == 2
    monkeypatch.setenv("MNIST_CLI_TRAIN_EPOCHS", "3")
    assert epochs("--config", "c.json") == 3
    assert epochs("--config", "c.json", "--epochs", 1) == 1
    monkeypatch.setenv("MNIST_CLI_TRAIN_CONFIG", "c.json")
    monkeypatch.delenv("MNIST_CLI_TRAIN_EPOCHS")
    assert epochs() == 2


def test_every_option_comes_from_the_environment(
    invoke: Invoke, model: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MNIST_CLI_EVALUATE_JSON", "1")
    monkeypatch.setenv("MNIST_CLI_EVALUATE_MIN_ACCURACY", "1")
    result = invoke("evaluate", "model.npz", "-q")
    assert result.exit_code == 3
    assert json.loads(result.stdout)["examples"] == 200


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("EPOCHS", "0", "'--epochs': must be at least 1, not 0"),
        ("LEARNING_RATE", "fast", "'--learning-rate': 'fast' is not a valid float"),
        ("QUIET", "maybe", "'maybe' is not a valid boolean"),
        ("CONFIG", "nowhere.json", "cannot read the config nowhere.json"),
    ],
)
def test_wrong_value_from_the_environment_names_the_variable(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, words: str
) -> None:
    monkeypatch.setenv(f"MNIST_CLI_TRAIN_{variable}", value)
    result = invoke("train", "--offline")
    assert result.exit_code == 2
    assert words in one_error(result)
    assert f"(from MNIST_CLI_TRAIN_{variable})" in one_error(result)


@pytest.mark.parametrize("option", ["VERSION", "HELP", "TRAIN_HELP"])
def test_environment_does_not_ask_for_version_or_help(
    invoke: Invoke, data_dir: Path, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    monkeypatch.setenv(f"MNIST_CLI_{option}", "1")
    assert "model.npz holds" in invoke("train", *QUICK).stdout


def test_data_directory_from_the_environment(
    invoke: Invoke, model: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data_dir.rename("elsewhere")
    assert invoke("evaluate", "model.npz").exit_code == 1
    monkeypatch.setenv("MNIST_CLI_DATA_DIR", "elsewhere")
    assert invoke("evaluate", "model.npz").exit_code == 0
    monkeypatch.setenv("MNIST_CLI_EVALUATE_DATA_DIR", "nowhere")
    assert invoke("evaluate", "model.npz").exit_code == 1


@pytest.mark.parametrize("path", sorted(Path("configs").glob("*.json")), ids=lambda p: p.name)
def test_shipped_configs_are_valid(path: Path) -> None:
    Config(**config.load(path))


def test_default_config_is_written_out() -> None:
    defaults = json.loads(Path("configs/mnist.json").read_text())
    assert defaults == dataclasses.asdict(Config())
    assert list(defaults) == list(config.FIELDS)


def test_catalogue_and_config_name_the_same_data_sets() -> None:
    assert tuple(catalogue.DATASETS) == config.DATASETS


def test_missing_data_offline(invoke: Invoke) -> None:
    for command in (("train", "--offline"), ("evaluate", "m.npz")):
        np.savez("m.npz", W=np.zeros((784, 10)), b=np.zeros(10))
        result = invoke(*command)
        assert result.exit_code == 1
        assert "mnist-cli download --dataset mnist --data-dir data" in one_error(result)
        assert not Path("model.npz").exists()


def test_missing_model(invoke: Invoke, data_dir: Path) -> None:
    result = invoke("evaluate", "nothing.npz")
    assert result.exit_code == 1
    assert "nothing.npz: No such file" in one_error(result)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--epochs", "0"), "'--epochs': must be at least 1, not 0"),
        (("--epochs", "1.5"), "'1.5' is not a valid integer"),
        (
            ("--learning-rate", "nan"),
            "'--learning-rate': must be above 0 and at most 1000, not NaN",
        ),
        (("--schedule", "linear"), "'linear' is not one of 'cosine', 'constant'"),
        (("--patience", "2", "--validation-size", "0"), "patience needs validation images"),
        (("--resume",), "--resume is no longer needed: --checkpoint resumes by itself"),
        (("--epoch", "3"), "No such option"),
        (("--config", "nowhere.json"), "cannot read the config nowhere.json"),
    ],
)
def test_wrong_usage(invoke: Invoke, options: tuple[str, ...], words: str) -> None:
    result = invoke("train", *options)
    assert (result.exit_code, result.stdout) == (2, "")
    assert words in one_error(result)


def test_wrong_command(invoke: Invoke) -> None:
    result = invoke("trian")
    assert result.exit_code == 2
    assert "trian" in one_error(result)


def test_wrong_config(invoke: Invoke) -> None:
    Path("c.json").write_text('{"learning_rat": 0.1}')
    result = invoke("train", "--config", "c.json")
    assert result.exit_code == 2
    assert "c.json: unknown key \"learning_rat\"; did you mean 'learning_rate'?" in one_error(
        result
    )


def test_divergence_names_the_epoch_and_a_remedy(invoke: Invoke, data_dir: Path) -> None:
    result = invoke("train", *QUICK, "--learning-rate", 1000)
    assert result.exit_code == 1
    assert "diverged in epoch 1: lower the learning rate (1000)" in one_error(result)
    assert not Path("model.npz").exists()


def test_module_version_and_help(run: Run) -> None:
    assert run("--version").stdout == f"mnist-cli, version {__version__}\n"
    for command in ("download", "train", "evaluate", "predict"):
        assert run(command, "-h").stdout.startswith(f"Usage: python -m mnist_cli {command} ")


def test_start_up_imports_only_what_it_needs(run: Run, model: Path) -> None:
    """Help and usage errors wait for no numpy, evaluate for neither requests nor tqdm."""

    def imported(*args: object) -> set[str]:
        result = run(*args, env={"PYTHONPROFILEIMPORTTIME": "1"})
        return set(re.findall(r"\| +(\w+)$", result.stderr, re.MULTILINE))

    for args in (("--help",), ("train", "--help"), ("train", "--epochs", "x"), ("trian",)):
        assert not imported(*args) & {"numpy", "requests", "tqdm", "matplotlib", "PIL"}
    found = imported("evaluate", "model.npz")
    assert "numpy" in found
    assert not found & {"requests", "tqdm", "matplotlib", "PIL"}
    assert "requests" not in imported("train", *QUICK)


@pytest.fixture
def mirror(real_data: Path) -> Iterator[str]:
    """Serve the official .gz files of MNIST on the loopback."""
    handler = functools.partial(
        http.server.SimpleHTTPRequestHandler, directory=str(real_data / "mnist")
    )
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()
    thread.join()


def test_main_job_on_the_real_mnist(run: Run, mirror: str, tmp_path: Path) -> None:
    """Download, train and evaluate reach the promised accuracy."""
    downloaded = json.loads(run("download", "--mirror", mirror, "--json").stdout)
    assert [file["status"] for file in downloaded["files"]] == ["downloaded"] * 4
    assert run("train", "--epochs", 10).returncode == 0
    document = json.loads(run("evaluate", "model.npz", "--json").stdout)
    assert document["examples"] == 10_000
    assert document["accuracy"] >= 0.925
    assert run("evaluate", "model.npz", "--min-accuracy", 0.92).returncode == 0
    assert run("evaluate", "model.npz", "--min-accuracy", 0.99).returncode == 3


def test_fashion_from_a_read_only_folder_of_gz_files(run: Run, real_data: Path) -> None:
    config_file = Path("configs/fashion-mnist.json").resolve()
    options = ("--data-dir", real_data)
    assert run("train", "--config", config_file, *options, "--offline").returncode == 0
    document = json.loads(run("evaluate", "model.npz", *options, "--json").stdout)
    assert document["dataset"] == "fashion-mnist"
    assert document["accuracy"] >= 0.844
