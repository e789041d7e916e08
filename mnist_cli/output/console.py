"""Where the program's words go and how it ends: streams, exit codes, signals, progress bars."""

import json
import os
import signal
import sys
from typing import Any, NoReturn

import click

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
        except click.ClickException as error:
            ctx = getattr(error, "ctx", None)
            hint = f"; try '{ctx.command_path} --help'" if ctx else ""
            code = fail(error.format_message().rstrip(".") + hint, error.exit_code)
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


class Output:
    """Where a command's words go: results to stdout, the rest to stderr."""

    def __init__(self, *, quiet: bool, json: bool) -> None:
        self.quiet, self.json = quiet, json
        self.exit_code = 0  # 1 once the reader of stdout is gone

    def result(self, text: str) -> None:
        """Print a part of the result for people."""
        if not self.json and not self.exit_code:
            self.exit_code = 1 - _say(text)

    def document(self, value: object) -> None:
        """Print the result for programs."""
        if self.json:
            self.exit_code = 1 - _say(json.dumps(value, allow_nan=False, indent=2))

    def note(self, text: str) -> None:
        """Report on what is going on."""
        if not self.quiet:
            _say(text, err=True)

    def bar(self, **options: Any) -> Any:
        """Return a progress bar that is drawn on a terminal only."""
        from tqdm import tqdm

        return tqdm(disable=True if self.quiet else None, leave=False, **options)


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
            self.bar.set_description(name)
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
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def set_up() -> None:
    """Let SIGINT and SIGTERM interrupt, and escape characters that a stream cannot encode."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)
    for stream in filter(None, (sys.stdout, sys.stderr)):
        stream.reconfigure(errors="backslashreplace")


def _interrupt(number: int, frame: object) -> NoReturn:
    signal.signal(number, signal.SIG_DFL)  # a second one ends at once
    interrupted = Interrupted()
    interrupted.exit_code = 128 + number
    raise interrupted
