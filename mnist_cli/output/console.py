"""Where the program's words go and how it ends: streams, exit codes, signals, progress bars."""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

import click
from click.core import ParameterSource

from mnist_cli.errors import MnistError


class Interrupted(KeyboardInterrupt):
    """SIGINT or SIGTERM came; whoever was at work may add to `when`, for people to read."""

    exit_code = 130
    when = ""


class Program(click.Group):
    """The one place where what was raised becomes one line on stderr and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; give an interruption its exit code."""
        try:
            return super().invoke(ctx)
        except Interrupted as interrupted:
            _say(f"Interrupted{interrupted.when}", err=True)
            raise click.exceptions.Exit(interrupted.exit_code) from interrupted

    def main(self, *args: Any, **extra: Any) -> NoReturn:
        """Run the program and exit."""
        try:
            code = super().main(*args, **extra | {"standalone_mode": False})
        except MnistError as error:
            code = fail(str(error), error.exit_code)
        except click.exceptions.NoArgsIsHelpError as error:
            code = 1 - _say(error.format_message())
        except click.UsageError as error:
            code = fail(_usage(error), error.exit_code)
        except (click.Abort, KeyboardInterrupt):  # before or after the command itself
            code = 130
        except MemoryError:
            code = fail("out of memory", 1)
        except OSError as error:
            code = fail(f"{error.filename or 'input/output'}: {error.strerror or error}", 1)
        for number in (signal.SIGINT, signal.SIGTERM):  # they would find Python half taken down
            if signal.getsignal(number) is _interrupt:
                signal.signal(number, signal.SIG_IGN)
        sys.exit(code)


def _usage(error: click.UsageError) -> str:
    """Say what was wrong, in which variable if it came from the environment, and what to try."""
    message, ctx = error.format_message().rstrip("."), error.ctx
    param = getattr(error, "param", None)
    if ctx and param and ctx.get_parameter_source(param.name) is ParameterSource.ENVIRONMENT:
        names = param.envvar or [f"{ctx.auto_envvar_prefix}_{param.name.upper()}"]
        message += f" (from {next(name for name in names if os.environ.get(name))})"
    return f"{message}; try '{ctx.command_path} --help'" if ctx else message


class Output:
    """Where a command's words go: results to stdout, the rest to stderr.

    `quiet` silences both but for JSON and for errors; the sentence that explains an exit code is
    one of these.
    """

    def __init__(self, *, quiet: bool, json: bool) -> None:
        self.quiet, self.json = quiet, json
        self.exit_code = 0  # 1 once the reader of stdout is gone

    def result(self, text: str) -> None:
        """Print a part of the result for people."""
        if not self.json and not self.quiet and not self.exit_code:
            self.exit_code = 1 - _say(text)

    def document(self, value: object) -> None:
        """Print the result for programs."""
        if self.json:
            self.exit_code = 1 - _say(json.dumps(value, allow_nan=False, indent=2))

    def written(self, path: Path | None, content: str) -> None:
        """Name a file that was written, if there is one."""
        if path:
            self.result(f"{path} holds {content}.")

    def explain(self, text: str) -> None:
        """Print the sentence that explains a non-zero exit code, to the quiet as well."""
        _say(text, err=True)

    def note(self, text: str) -> None:
        """Report on what is going on."""
        if not self.quiet:
            _say(text, err=True)

    def bar(self, **options: Any) -> Any:
        """Return a progress bar that is drawn on a terminal only.

        It is so short that no window wraps it, and of constant width, with the cursor left at its
        beginning: the next line, like the ^C of an interruption, is written over it.
        """
        for name in [name for name in os.environ if name.startswith("TQDM_")]:
            del os.environ[name]  # a wrong value would end the import with a traceback
        from tqdm import tqdm

        form = "{percentage:3.0f}%|{bar:8}| {n_fmt}/{total_fmt} {remaining:>8} left\r"
        disable = True if self.quiet else None
        return tqdm(disable=disable, leave=False, bar_format=form, **options)


class Transfers:
    """Reports a download: one bar, which starts again with each file, and notices above it."""

    def __init__(self, out: Output, bar: Any) -> None:
        self.out, self.bar, self.name = out, bar, ""

    def progress(self, name: str, received: int, total: int) -> None:
        """Show that so many bytes of a file are there; the rate leaves out the first."""
        if name != self.name:
            self.name = name
            self.bar.reset(total)
            self.bar.initial = self.bar.n = received
        self.bar.update(received - self.bar.n)

    def notice(self, text: str, *, important: bool = False) -> None:
        """Print a line; an important one even to the quiet."""
        self.bar.clear()
        if important or not self.out.quiet:
            _say(text, err=True)


def _say(text: str, *, err: bool = False) -> bool:
    """Print a line; return False if the reader is gone, and write nothing to it from then on.

    Raises:
        MnistError: stdout cannot be written. What stderr cannot take is lost.

    """
    try:
        click.echo(text, err=err)
    except OSError as error:
        stream = sys.stderr if err else sys.stdout
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        if not err and not isinstance(error, BrokenPipeError):
            raise MnistError(f"cannot write the output: {error.strerror}") from error
        return False
    return True


def fail(message: str, exit_code: int) -> int:
    """Print the one line of an error; return its exit code."""
    _say("Error: " + " ".join(message.split()), err=True)
    return exit_code


def wants_color() -> bool:
    """Return whether stdout is a terminal that wants colors (no-color.org)."""
    wanted = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return wanted and sys.stdout.isatty()


def set_up() -> None:
    """Let SIGINT and SIGTERM interrupt, and make each stream one that can take every text."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed: the next file opened would take its place
            setattr(sys, name, open(os.devnull, mode))  # noqa: PTH123, SIM115
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def _interrupt(number: int, frame: object) -> NoReturn:
    signal.signal(number, signal.SIG_DFL)  # a second one ends at once
    interrupted = Interrupted()
    interrupted.exit_code = 128 + number
    raise interrupted
