"""The commands: each parses, calls and renders. Only this module and `console` import click.

What is slow to import is imported in the command that needs it, so that `--help` is quick.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import math
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mnist_cli import __version__, config
from mnist_cli.config import Config
from mnist_cli.errors import MissingDataError, MnistError
from mnist_cli.output import console

if TYPE_CHECKING:
    from mnist_cli.data.catalogue import Done
    from mnist_cli.data.loading import Split
    from mnist_cli.output.console import Output
    from mnist_cli.training import Epoch, State

Command = Callable[..., Any]
Decorator = Callable[[Command], Command]

# What tells the BLAS libraries how many threads to use. Products as small as these are fastest
# on one; see docs/performance.md.
THREADS = (
    *("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS"),
    "VECLIB_MAXIMUM_THREADS",
)


def _hyperparameters(command: Command) -> Command:
    """Give a command an option for each hyperparameter; it receives them all as `settings`."""

    @functools.wraps(command)
    def wrapped(**options: Any) -> Any:
        settings = Config(**{name: options.pop(name) for name in config.FIELDS})
        return command(settings=settings, **options)

    def check(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
        try:
            config.check(str(param.name), value)
        except MnistError as error:
            raise click.BadParameter(str(error).removeprefix(f"{param.name} ")) from error
        return value

    for field in reversed(config.FIELDS.values()):
        choices = field.metadata.get("choices")
        options: dict[str, Any] = {"type": click.Choice(choices) if choices else field.type}
        options |= {"default": field.default, "help": field.metadata["help"], "callback": check}
        wrapped = click.option("--" + field.name.replace("_", "-"), **options)(wrapped)
    return wrapped


def _output_options(command: Command) -> Command:
    """Give a command -q and --json; it receives the two as `out`."""

    @functools.wraps(command)
    def wrapped(*, quiet: bool, json: bool, **options: Any) -> int:
        out = console.Output(quiet=quiet, json=json)
        return command(out=out, **options) or out.exit_code

    json_help = "Print the result as one JSON document."
    wrapped = click.option("--json", is_flag=True, help=json_help)(wrapped)
    return click.option("-q", "--quiet", is_flag=True, help="Print only errors.")(wrapped)


def _read_config(ctx: click.Context, param: click.Parameter, path: Path | None) -> None:
    """Put a config file's values where Click looks for them after flags and environment."""
    try:
        ctx.default_map = {**(ctx.default_map or {}), **(config.load(path) if path else {})}
    except MnistError as error:
        raise click.BadParameter(str(error)) from error


def _no_resume(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    """Answer the option of earlier versions."""
    if value:
        raise click.UsageError("--resume is no longer needed: --checkpoint resumes by itself.")


def _choice(name: str, choices: tuple[str, ...], **extra: Any) -> Decorator:
    return click.option(name, type=click.Choice(choices), **extra)


def _data_dir(command: str) -> Decorator:
    variables = [f"MNIST_CLI_{command}_DATA_DIR", "MNIST_CLI_DATA_DIR"]
    text = "Directory with a subdirectory for each data set."
    return _path("--data-dir", metavar="DIRECTORY", default="data", envvar=variables, help=text)


_path = functools.partial(click.option, type=click.Path(path_type=Path), metavar="FILE")


class _Lines(click.types.StringParamType):
    """Texts; in the environment, one per line."""

    def split_envvar_value(self, rv: str) -> list[str]:
        return [line for line in rv.splitlines() if line.strip()]


_mirror = click.option(
    "--mirror",
    type=_Lines(),
    multiple=True,
    metavar="URL",
    help="URL or directory to download from. Repeatable; in the environment, one per line.",
)
_model = click.argument("model", type=click.Path(path_type=Path))


@click.group(
    cls=console.Program,
    context_settings={
        "auto_envvar_prefix": "MNIST_CLI",
        "help_option_names": ["-h", "--help"],
        "show_default": True,
    },
)
@click.version_option(__version__, prog_name="mnist-cli", allow_from_autoenv=False)
def cli() -> None:
    """Train, evaluate and apply softmax regression on MNIST.

    Every option can also come from the environment, as MNIST_CLI_<COMMAND>_<OPTION>.
    """


@cli.command()
@_choice("--dataset", config.DATASETS, default="mnist", help="Data set to download.")
@_data_dir("DOWNLOAD")
@_mirror
@click.option("--force", is_flag=True, help="Download even if the files exist.")
@_output_options
def download(
    out: Output, dataset: str, data_dir: Path, mirror: tuple[str, ...], force: bool
) -> None:
    """Download and verify the four files of a data set."""
    files = _download(dataset, data_dir, mirror, out, force=force)
    for done in files:
        out.result(f"{done.name}  {done.bytes} bytes  {done.status}")
    document = {"dataset": dataset, "directory": str(data_dir / dataset)}
    out.document(document | {"files": [dataclasses.asdict(done) for done in files]})


def _download(
    dataset: str, data_dir: Path, mirrors: tuple[str, ...], out: Output, **options: bool
) -> list[Done]:
    """Download a data set below a bar of the bytes received."""
    from mnist_cli.data import catalogue
    from mnist_cli.data import download as downloading

    with out.bar(unit="B", unit_scale=True, delay=0.1) as bar:
        report = console.Transfers(out, bar)
        source = catalogue.DATASETS[dataset]
        return downloading.download(source, data_dir / dataset, mirrors, report=report, **options)


@cli.command()
@_path(
    "--config", is_eager=True, expose_value=False, callback=_read_config, help="JSON config file."
)
@_hyperparameters
@_data_dir("TRAIN")
@_mirror
@click.option("--offline", is_flag=True, help="Never download.")
@_path("-o", "--output", help="Model file to write.", default="model.npz")
@_path("--metrics-file", help="JSON Lines file to write, one object per epoch.")
@_path("--plot", help="Figure of the run to draw: .png, .svg or .pdf.")
@_path("--checkpoint", help="Save the state here after every epoch; resume from what is there.")
@click.option("--resume", is_flag=True, hidden=True, expose_value=False, callback=_no_resume)
@_output_options
def train(
    out: Output,
    settings: Config,
    data_dir: Path,
    mirror: tuple[str, ...],
    offline: bool,
    output: Path,
    metrics_file: Path | None,
    plot: Path | None,
    checkpoint: Path | None,
) -> None:
    """Train a model and write it to a file."""
    _check_outputs(output, metrics_file, checkpoint, plot=plot)
    from mnist_cli.data import cache
    from mnist_cli.storage import model_file
    from mnist_cli.storage.checkpoint import run

    split = _training_split(settings, data_dir, mirror, offline, out)
    with out.bar(desc="inputs", total=len(split.images), unit="image", delay=0.2) as bar:
        directory = data_dir / settings.dataset
        images = cache.cached(split.images, settings, directory, bar.update)
    states = run(
        images, split.labels, settings, checkpoint_file=checkpoint, metrics_file=metrics_file
    )
    state, history = _show_epochs(states, settings.epochs, checkpoint, out)
    model = model_file.trained(state, settings)
    kept = model.metrics["epoch"]
    model_file.save(output, model)
    if plot:
        from mnist_cli.output import plots

        plots.training(plot, f"{output} on {settings.dataset}", history, kept)
    seconds = math.fsum(epoch.seconds for epoch in history)
    images_seen = len(history) * (len(images) - settings.validation_size)
    document = {"model": str(output), "dataset": settings.dataset, "epochs": len(history)}
    document |= model.metrics | {"seconds": seconds, "images_per_second": images_seen / seconds}
    out.document(document | {"config": dataclasses.asdict(settings)})
    out.written(metrics_file, "the figures of each epoch")
    out.written(checkpoint, f"the state after epoch {len(history)}")
    out.written(plot, "the loss and accuracy curves")
    out.written(output, f"the parameters of epoch {kept}")


def _check_outputs(*paths: Path | None, plot: Path | None) -> None:
    """Raise an error, before anything is done, if the files cannot be written or are the same."""
    from mnist_cli import files

    outputs = [path for path in (*paths, plot) if path]
    plain = [path.resolve() for path in outputs if path.is_file() or not path.exists()]
    if len(set(plain)) < len(plain):
        raise click.UsageError("Two of the files to write are the same.")
    for path in outputs:
        files.check_writable(path)
    if plot:
        from mnist_cli.output import plots

        plots.check(plot)


def _training_split(
    settings: Config, data_dir: Path, mirror: tuple[str, ...], offline: bool, out: Output
) -> Split:
    """Load the training images, after downloading them if need be."""
    from mnist_cli.data import loading

    try:
        return loading.load(settings.dataset, "train", data_dir)
    except MissingDataError:
        if offline:
            raise
    for done in _download(settings.dataset, data_dir, mirror, out, move=False):
        out.note(f"{done.name}: {done.status}")
    return loading.load(settings.dataset, "train", data_dir)


def _show_epochs(
    states: Iterator[tuple[State, list[Epoch]]], epochs: int, checkpoint: Path | None, out: Output
) -> tuple[State, list[Epoch]]:
    """Print a line per epoch, below it a bar; return the last state, and all epochs."""
    from mnist_cli.output import report

    state, history = next(states)
    if history:
        out.note(f"Resuming after epoch {len(history)}.")
    resumed = len(history)
    try:
        with out.bar(total=epochs, initial=resumed) as bar:
            for state, history in states:  # noqa: B007
                head, row = report.epoch_lines(history[-1], epochs)
                bar.n = len(history)
                out.result(f"{head}\n{row}" if bar.n == resumed + 1 else row)  # over the bar
                bar.refresh()
    except console.Interrupted as interrupted:
        saved = "nothing was saved: use --checkpoint FILE to resume"
        if checkpoint:
            saved = f"state saved in {checkpoint}: the same command resumes"
        interrupted.when = f" after epoch {len(history)}; {saved}"
        raise
    return state, history


@cli.command()
@_model
@_choice("--dataset", config.DATASETS, help="Data set. Default: the model's own.")
@_data_dir("EVALUATE")
@_choice("--split", ("test", "train"), default="test", help="Images to evaluate on.")
@_choice("--normalize", config.NORMALIZATIONS, help="Normalization. Default: the model's own.")
@_choice("--features", config.FEATURES, help="Features. Default: the model's own.")
@click.option(
    "--min-accuracy",
    type=click.FloatRange(0, 1),
    metavar="FRACTION",
    help="Exit with 3 if the accuracy is lower.",
)
@_path("--mistakes", help="JSON Lines file to write, one object per mistake.")
@_path("--plot", help="Figure of the evaluation to draw: .png, .svg or .pdf.")
@_output_options
def evaluate(
    out: Output,
    model: Path,
    dataset: str | None,
    data_dir: Path,
    split: str,
    normalize: str | None,
    features: str | None,
    min_accuracy: float | None,
    mistakes: Path | None,
    plot: Path | None,
) -> int | None:
    """Evaluate a model on the test images."""
    _check_outputs(mistakes, plot=plot)
    from mnist_cli import evaluation, files, inputs
    from mnist_cli.data import catalogue, loading
    from mnist_cli.output import report
    from mnist_cli.storage import model_file

    loaded = model_file.load(model)
    asked = {"dataset": dataset, "normalize": normalize, "features": features}
    for name, wanted in asked.items():
        if wanted not in (None, own := getattr(loaded, name)):
            out.note(f"Warning: the model was trained with {name} {own}, not {wanted}.")
    dataset = dataset or loaded.dataset
    data = loading.load(dataset, split, data_dir)
    stages = (normalize or loaded.normalize, features or loaded.features)
    images = data.images
    if stages != ("none", "pixels"):
        with out.bar(desc="inputs", total=len(images), unit="image") as bar:
            images = inputs.apply(images, *stages, bar.update)
    result = evaluation.evaluate(loaded.params, images, data.labels)
    names = catalogue.DATASETS[dataset].label_names
    for warning in report.warnings(result):
        out.note(f"Warning: {warning}")
    out.document({"model": str(model), "dataset": dataset, "split": split} | result.to_json())
    title = f"{model} on {dataset}, {split} split"
    out.result(report.report(title, result, names, color=console.wants_color()))
    if mistakes:
        with files.publish(mistakes) as file:
            file.writelines(report.json_line(mistake) for mistake in result.mistakes)
        out.written(mistakes, f"{len(result.mistakes)} mistakes")
    if plot:
        from mnist_cli.output import plots

        plots.evaluation(plot, title, result, data.images, loaded.params.W, names)
        out.written(plot, "the figure")
    if min_accuracy is not None and not result.accuracy >= min_accuracy:  # NaN fails, too
        out.explain(f"The accuracy {result.accuracy} is below {min_accuracy}.")
        return 3
    return None


@cli.command()
@_model
@click.argument(
    "images", nargs=-1, required=True, type=click.Path(path_type=Path, allow_dash=True)
)
@click.option("--show", is_flag=True, help="Draw the 28×28 image that the network saw.")
@_output_options
def predict(out: Output, model: Path, images: tuple[Path, ...], show: bool) -> int:
    """Recognize the digit in each picture; - reads a picture from standard input."""
    from mnist_cli import inputs, network
    from mnist_cli.data import catalogue
    from mnist_cli.inputs import pictures
    from mnist_cli.output.report import below_one
    from mnist_cli.storage import model_file

    loaded = model_file.load(model)
    names = catalogue.DATASETS[loaded.dataset].label_names
    answers = []
    for path in images:
        try:
            prepared = pictures.prepare(sys.stdin.buffer if str(path) == "-" else path, str(path))
        except MnistError as error:
            console.fail(str(error), error.exit_code)
            continue
        upright = inputs.apply(prepared[None], loaded.normalize, "pixels")
        seen = inputs.apply(upright, "none", loaded.features)
        probs = network.predict(loaded.params, seen)[0].tolist()
        label = probs.index(max(probs))
        answer = {"image": str(path), "label": label, "probability": probs[label]}
        answer |= {"probabilities": probs}
        answer |= {"label_name": names[label]} if names else {}
        answers.append(answer)
        out.result(f"{path}: {answer.get('label_name', label)} ({below_one(probs[label], 3):.1%})")
        if show:
            out.result(pictures.render(upright[0], color=console.wants_color()))
    out.document(answers)
    return int(len(answers) < len(images))


@cli.command()
@click.argument("file", type=click.Path(path_type=Path))
@_output_options
def gradcheck(out: Output, file: Path) -> int | None:
    """Check a softmax derivative of your own, and name the mistake in a wrong one."""
    from mnist_cli import gradcheck as checker

    checks, name = [], str(file)
    try:
        with contextlib.redirect_stdout(io.StringIO() if out.quiet else sys.stderr):
            for name, function in checker.load(file).items():
                checks += checker.check(function, name)
    except console.Interrupted as interrupted:
        interrupted.when = f" in {name}"
        raise
    wrong: dict[str, list[str]] = {}
    for name, passed, _, mistake, message in checks:
        line = f"{name}: {message}" if passed else f"{name}: {mistake}. {message}"
        out.result(click.wrap_text(line, 80, subsequent_indent="    "))
        if mistake:
            wrong.setdefault(name, []).append(mistake)
    for name, mistakes in wrong.items():
        line = f"docs/softmax-jacobian.md explains {' and '.join(mistakes)}. Better:"
        out.result(f"{click.wrap_text(line, 80)}\n    {checker.FUNCTIONS[name][1]}")
    verdicts = [check._asdict() for check in checks]
    out.document({"file": str(file), "passed": not wrong, "checks": verdicts})
    if wrong:
        out.explain(f"Mistakes found in {' and '.join(wrong)}.")
        return 3
    return None


@cli.command()
@_model
@_path("-o", "--output", help="Web page to write.", default="page.html")
@_data_dir("PAGE")
@_output_options
def page(out: Output, model: Path, output: Path, data_dir: Path) -> None:
    """Write a web page to draw on that shows the model and its Jacobian at work."""
    from mnist_cli.output import page
    from mnist_cli.storage import model_file

    size = page.write(output, model_file.load(model), str(model), data_dir)
    out.document({"model": str(model), "page": str(output), "bytes": size})
    out.result(f"{output} holds the page: open it in a browser and draw.")


def main() -> None:
    """Run the program on the arguments of its command line, and exit."""
    if not any(map(os.environ.get, THREADS)):
        os.environ.update(dict.fromkeys(THREADS, "1"))
    console.set_up()
    cli()
