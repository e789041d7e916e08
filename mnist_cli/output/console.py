"""Where the program's words go and how it ends: streams, exit codes, signals, progress bars."""

import json
import os
import signal
import sys
from typing import Any, NoReturn

import click

from mnist_cli.errors import MnistError

# What a command may leave in its context for an interruption to tell.
DONE, GO_ON = "mnist_cli.done", "mnist_cli.go_on"


class Interrupted(KeyboardInterrupt):
    """SIGINT or SIGTERM came."""

    exit_code = 130


class Program(click.Group):
    """The one place where what was raised becomes one line on stderr and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; give an interruption its exit code."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            how = "".join(ctx.meta.get(key, "") for key in (DONE, GO_ON))
            _say(f"Interrupted{how}", err=True)
            raise click.exceptions.Exit(getattr(error, "exit_code", 130)) from error

    def main(self, *args: Any, **extra: Any) -> NoReturn:
        """Run the program and exit."""
        try:
            code = super().main(*args, **extra | {"standalone_mode": False})
        except MnistError as error:
            code = fail(str(error), error.exit_code)
        except click.ClickException as error:
            ctx = getattr(error, "ctx", None)
            hint = f"; try '{ctx.command_path} --help'" if ctx else ""
            code = fail(error.format_message().rstrip(".") + hint, error.exit_code)
        except (click.Abort, KeyboardInterrupt):  # before or after the command itself
            code = 130
        except MemoryError:
            code = fail("there is not enough memory for this", 1)
        except OSError as error:
            _silence(sys.stdout)
            code = fail(f"cannot write the output: {error.strerror}", 1)
        _let_finish()
        sys.exit(code)


class Output:
    """Where a command's words go: results to stdout, the rest to stderr."""

    def __init__(self, *, quiet: bool, json: bool) -> None:
        self.quiet = quiet
        self.json = json
        self.cut_off = False

    def result(self, text: str) -> None:
        """Print a part of the result that people read."""
        if not self.json and not self.cut_off:
            self.cut_off = not _say(text)

    def document(self, value: object) -> None:
        """Print the result that programs read."""
        if self.json:
            self.cut_off = not _say(json.dumps(value, allow_nan=False, indent=2))

    def note(self, text: str) -> None:
        """Tell what goes on."""
        if not self.quiet:
            _say(text, err=True)

    @property
    def exit_code(self) -> int:
        """1 where the reader of stdout went away before the end."""
        return int(self.cut_off)

    def bar(self, **options: Any) -> Any:
        """Return a progress bar that is drawn on a terminal only."""
        from tqdm import tqdm

        return tqdm(disable=True if self.quiet else None, leave=False, **options)


def _say(text: str, *, err: bool = False) -> bool:
    """Print a line; return False where the reader is gone, who then is not written to again."""
    try:
        click.echo(text, err=err)
    except BrokenPipeError:
        _silence(sys.stderr if err else sys.stdout)
        return False
    return True


def _silence(stream: Any) -> None:
    """Let all that is still written to `stream` go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def fail(message: str, exit_code: int) -> int:
    """Print the one line of an error; return its exit code."""
    _say("Error: " + " ".join(message.split()), err=True)
    return exit_code


def wants_color() -> bool:
    """Tell whether stdout is a terminal that wants colours (no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def set_up() -> None:
    """Let SIGINT and SIGTERM interrupt, and let no character be too much for a stream."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)
    for stream in filter(None, (sys.stdout, sys.stderr)):
        stream.reconfigure(errors="backslashreplace")


def _let_finish() -> None:
    """Ignore what comes once all is done: it would find an interpreter half taken down."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is _interrupt:
            signal.signal(number, signal.SIG_IGN)


def _interrupt(number: int, frame: object) -> NoReturn:
    signal.signal(number, signal.SIG_DFL)  # a second one ends at once
    interrupted = Interrupted()
    interrupted.exit_code = 128 + number
    raise interrupted
