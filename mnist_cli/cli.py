"""The commands: each parses, calls and renders. Only here and in `console` click is imported.

Whatever is slow to import is imported in the command that needs it, so that `--help` is quick.
"""

import dataclasses
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from mnist_cli import __version__, config
from mnist_cli.config import Config
from mnist_cli.errors import MissingDataError, MnistError
from mnist_cli.output import console

if TYPE_CHECKING:
    from mnist_cli.data.catalogue import Event
    from mnist_cli.data.loading import Split
    from mnist_cli.training import Epoch, State

Command = TypeVar("Command", bound=Callable[..., Any])

# What tells the BLAS libraries how many threads to use. Products as small as these are fastest
# on one; see docs/performance.md.
THREADS = (
    *("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS"),
    "VECLIB_MAXIMUM_THREADS",
)


def _hyperparameters(command: Command) -> Command:
    """Give a command one option for each hyperparameter, checked as a config file is."""

    def check(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
        try:
            config.check(param.name or "", value)
        except MnistError as error:
            raise click.BadParameter(str(error)) from error
        return value

    for field in reversed(config.FIELDS.values()):
        choices = field.metadata.get("choices")
        command = click.option(
            "--" + field.name.replace("_", "-"),
            type=click.Choice(choices) if choices else field.type,
            default=field.default,
            show_default=True,
            callback=check,
            help=field.metadata["help"],
        )(command)
    return command


def _read_config(ctx: click.Context, param: click.Parameter, path: Path | None) -> None:
    """Put a config file's values where Click looks for them after flags and environment."""
    if path is not None:
        ctx.default_map = {**(ctx.default_map or {}), **config.load(path)}


def _no_resume(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    """Answer the option of earlier versions."""
    if value:
        raise click.UsageError("--resume is no longer needed: --checkpoint resumes by itself.")


def _share(ctx: click.Context, param: click.Parameter, value: float | None) -> float | None:
    if value is not None and not 0 <= value <= 1:
        raise click.BadParameter(f"{value} is not a share from 0 to 1.")
    return value


def _data_dir(command_name: str) -> Callable[[Command], Command]:
    return click.option(
        "--data-dir",
        type=click.Path(path_type=Path),
        metavar="DIRECTORY",
        default="data",
        show_default=True,
        envvar=[f"MNIST_CLI_{command_name}_DATA_DIR", "MNIST_CLI_DATA_DIR"],
        help="Directory that holds a directory for each data set.",
    )


def _path(*names: str, help: str, **extra: Any) -> Callable[[Command], Command]:  # noqa: A002
    path = click.Path(path_type=Path)
    return click.option(*names, type=path, metavar="FILE", help=help, **extra)


_mirror = click.option(
    "--mirror",
    multiple=True,
    metavar="URL",
    help="URL or directory to fetch from instead. Repeatable.",
)


def _output_options(command: Command) -> Command:
    """Give a command -q and --json."""
    for option in (
        click.option("--json", is_flag=True, help="Print the result as one JSON document."),
        click.option("-q", "--quiet", is_flag=True, help="Nothing on stderr but errors."),
    ):
        command = option(command)
    return command


@click.group(
    cls=console.Program,
    context_settings={
        "auto_envvar_prefix": "MNIST_CLI",
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
    },
)
@click.version_option(__version__, prog_name="mnist-cli")
def cli() -> None:
    """Train, evaluate and apply a linear softmax on MNIST.

    Every option can also come from the environment, as MNIST_CLI_<COMMAND>_<OPTION>.
    """


@cli.command()
@click.option(
    "--dataset",
    type=click.Choice(config.DATASETS),
    default="mnist",
    show_default=True,
    help="Data set to fetch.",
)
@_data_dir("DOWNLOAD")
@_mirror
@click.option("--force", is_flag=True, help="Fetch again what is there already.")
@_output_options
def download(
    dataset: str, data_dir: Path, mirror: tuple[str, ...], force: bool, quiet: bool, json: bool
) -> int:
    """Fetch and verify the four files of a data set."""
    from mnist_cli.data import catalogue
    from mnist_cli.data import download as fetching

    out = console.Output(quiet=quiet, json=json)
    files = []
    for done in _render(
        fetching.download(catalogue.DATASETS[dataset], data_dir / dataset, mirror, force=force),
        out,
    ):
        files.append(dataclasses.asdict(done))
        out.result(f"{done.name}  {done.bytes} bytes  {done.status}")
    directory = str(data_dir / dataset)
    out.document({"dataset": dataset, "directory": directory, "files": files})
    return out.exit_code


def _render(events: "Iterable[Event]", out: console.Output) -> Iterator[Any]:
    """Draw a bar for each file, pass on the notices, and yield what is done."""
    from mnist_cli.data.catalogue import Done, Notice, Progress

    bar: Any = None
    for event in events:
        if isinstance(event, Progress):
            if bar is None:
                bar = out.bar(desc=event.name, total=event.total, unit="B", unit_scale=True)
            bar.update(event.received - bar.n)
            continue
        if bar is not None:
            bar.close()
            bar = None
        if isinstance(event, Notice):
            out.note(event.message)
        elif isinstance(event, Done):
            yield event


@cli.command()
@_path(
    "--config",
    help="JSON file with hyperparameters.",
    is_eager=True,
    expose_value=False,
    callback=_read_config,
)
@_hyperparameters
@_data_dir("TRAIN")
@_mirror
@click.option("--offline", is_flag=True, help="Never download.")
@_path("-o", "--output", help="Model file to write.", default="model.npz", show_default=True)
@_path("--metrics-file", help="JSON Lines file, one object an epoch.")
@_path("--plot", help="Picture of the run to draw: .png, .svg or .pdf.")
@_path("--checkpoint", help="Save the state here after every epoch; resume from what is there.")
@click.option("--resume", is_flag=True, hidden=True, expose_value=False, callback=_no_resume)
@_output_options
def train(
    data_dir: Path,
    mirror: tuple[str, ...],
    offline: bool,
    output: Path,
    metrics_file: Path | None,
    plot: Path | None,
    checkpoint: Path | None,
    quiet: bool,
    json: bool,
    **hyperparameters: Any,
) -> int:
    """Train a model and write it to a file."""
    out = console.Output(quiet=quiet, json=json)
    settings = Config(**hyperparameters)
    context = click.get_current_context()
    _check_writable([path for path in (output, metrics_file, plot, checkpoint) if path])
    from mnist_cli.data import cache
    from mnist_cli.storage.checkpoint import run
    from mnist_cli.storage.model_file import Model, save

    if plot:
        from mnist_cli.output import plots

        plots.check(plot)
    split = _training_split(settings, data_dir, mirror, offline, out)
    images = cache.cached(split.images, settings.normalize, data_dir / settings.dataset)
    states = run(
        images,
        split.labels,
        settings,
        checkpoint_file=checkpoint,
        metrics_file=metrics_file,
    )
    if checkpoint:
        go_on = f"; to resume, run the same command again (state in {checkpoint})"
        context.meta[console.GO_ON] = go_on
    state, history = _show_epochs(states, settings.epochs, out)
    params, kept = state.final(settings)
    figures = {name: getattr(kept, name) for name in _FIGURES}
    metrics = {"epoch": kept.epoch} | figures
    save(output, Model(params, settings.dataset, settings.normalize, settings, metrics))
    if plot:
        plots.training(plot, history)
    begin = {"model": str(output), "dataset": settings.dataset, "epochs": len(history)}
    speed = _speed(history, len(images) - settings.validation_size)
    out.document(begin | figures | speed | {"config": dataclasses.asdict(settings)})
    out.result(f"{output} holds the parameters of epoch {kept.epoch}.")
    return out.exit_code


_FIGURES = ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy")


def _check_writable(paths: list[Path]) -> None:
    """Raise an error, before anything is done, if the files cannot be written or are not apart."""
    plain = [path.resolve() for path in paths if path.is_file() or not path.exists()]
    if len(set(plain)) < len(plain):
        context = click.get_current_context()
        raise click.UsageError("Two of the files to write are the same.", context)
    from mnist_cli import files

    for path in paths:
        files.check_writable(path)


def _speed(history: "list[Epoch]", examples: int) -> dict[str, float]:
    """Return the seconds of all epochs, and how many of the `examples` went by in one."""
    seconds = math.fsum(epoch.seconds for epoch in history)
    return {"seconds": seconds, "images_per_second": len(history) * examples / seconds}


def _training_split(
    settings: Config, data_dir: Path, mirror: tuple[str, ...], offline: bool, out: console.Output
) -> "Split":
    """Load the training images, after downloading them if need be."""
    from mnist_cli.data import catalogue, loading

    try:
        return loading.load(settings.dataset, "train", data_dir)
    except MissingDataError:
        if offline:
            raise
    from mnist_cli.data import download as fetching

    source = catalogue.DATASETS[settings.dataset]
    for done in _render(fetching.download(source, data_dir / source.name, mirror), out):
        out.note(f"{done.name}: {done.status}")
    return loading.load(settings.dataset, "train", data_dir)


def _show_epochs(
    states: "Iterator[tuple[State, list[Epoch]]]", epochs: int, out: console.Output
) -> "tuple[State, list[Epoch]]":
    """Print a line an epoch, below it a bar; return the last state, and all epochs."""
    meta = click.get_current_context().meta
    state, history = next(states)
    if history:
        out.note(f"Going on after epoch {len(history)}.")
    with out.bar(total=epochs, initial=len(history), unit="epoch") as bar:
        for state, history in states:  # noqa: B007
            meta[console.DONE] = f" after epoch {len(history)}"
            bar.clear()
            out.result(_epoch_line(history[-1], epochs))
            bar.update()
    return state, history


def _epoch_line(epoch: "Epoch", epochs: int) -> str:
    line = (
        f"epoch {epoch.epoch:{len(str(epochs))}}/{epochs}  "
        f"train loss {epoch.train_loss:.4f} accuracy {epoch.train_accuracy:.2%}"
    )
    if epoch.validation_loss is not None:
        line += f"  validation loss {epoch.validation_loss:.4f}"
        line += f" accuracy {epoch.validation_accuracy:.2%}"
    return line + f"  {epoch.seconds:.2f} s"


_model = click.argument("model", type=click.Path(path_type=Path))


@cli.command()
@_model
@click.option(
    "--dataset", type=click.Choice(config.DATASETS), help="Data set, if not the model's own."
)
@_data_dir("EVALUATE")
@click.option(
    "--split",
    type=click.Choice(["test", "train"]),
    default="test",
    show_default=True,
    help="Images to judge by.",
)
@click.option(
    "--normalize",
    type=click.Choice(config.NORMALIZATIONS),
    help="Input normalisation, if not the model's own.",
)
@click.option(
    "--min-accuracy",
    type=float,
    callback=_share,
    help="Exit with 3 if the accuracy is lower, from 0 to 1.",
)
@_path("--plot", help="Picture of the evaluation to draw: .png, .svg or .pdf.")
@_output_options
def evaluate(
    model: Path,
    dataset: str | None,
    data_dir: Path,
    split: str,
    normalize: str | None,
    min_accuracy: float | None,
    plot: Path | None,
    quiet: bool,
    json: bool,
) -> int:
    """Judge a model by the test images."""
    out = console.Output(quiet=quiet, json=json)
    from mnist_cli import evaluation, files
    from mnist_cli.data import catalogue, loading
    from mnist_cli.inputs import normalize as normalization
    from mnist_cli.output import report
    from mnist_cli.storage import model_file

    if plot:
        from mnist_cli.output import plots

        plots.check(plot)
        files.check_writable(plot)
    loaded = model_file.load(model)
    for name, wanted in (("dataset", dataset), ("normalize", normalize)):
        own = getattr(loaded, name)
        if wanted not in (None, own):
            out.note(f"Warning: the model was trained with {name} {own}, not {wanted}.")
    dataset, normalize = dataset or loaded.dataset, normalize or loaded.normalize
    data = loading.load(dataset, split, data_dir)
    images = normalization.normalize(data.images, normalize)
    figures = evaluation.evaluate(loaded.params, images, data.labels)
    names = catalogue.DATASETS[dataset].label_names
    for warning in report.warnings(figures):
        out.note(f"Warning: {warning}")
    out.document({"model": str(model), "dataset": dataset, "split": split} | figures.to_json())
    out.result(
        report.report(str(model), dataset, split, figures, names, color=console.wants_color())
    )
    if plot:
        title = f"{model} on {dataset}, {split} split"
        plots.evaluation(plot, title, figures, data.images, loaded.params.W, names)
    if min_accuracy is not None and figures.accuracy < min_accuracy:
        out.note(f"The accuracy {figures.accuracy:.4f} is below {min_accuracy}.")
        return 3
    return out.exit_code


@cli.command()
@_model
@click.argument(
    "images", nargs=-1, required=True, type=click.Path(path_type=Path, allow_dash=True)
)
@click.option("--show", is_flag=True, help="Draw the 28×28 picture that the network saw.")
@_output_options
def predict(model: Path, images: tuple[Path, ...], show: bool, quiet: bool, json: bool) -> int:
    """Tell which digit each picture shows; - reads a picture from standard input."""
    out = console.Output(quiet=quiet, json=json)
    from mnist_cli import network
    from mnist_cli.data import catalogue
    from mnist_cli.inputs import pictures
    from mnist_cli.inputs.normalize import normalize
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
        [seen] = normalize(prepared[None], loaded.normalize)
        probs = network.predict(loaded.params, seen[None])[0].tolist()
        label = probs.index(max(probs))
        answer = {"image": str(path), "label": label, "probability": probs[label]}
        answer |= {"probabilities": probs}
        answer |= {"label_name": names[label]} if names else {}
        answers.append(answer)
        out.result(f"{path}: {answer.get('label_name', label)} ({probs[label]:.1%})")
        if show:
            out.result(pictures.render(seen, color=console.wants_color()))
    out.document(answers)
    return int(len(answers) < len(images)) or out.exit_code


def main() -> None:
    """Run the program on the arguments of its command line, and exit."""
    if not any(name in os.environ for name in THREADS):
        os.environ.update(dict.fromkeys(THREADS, "1"))
    console.set_up()
    cli()
