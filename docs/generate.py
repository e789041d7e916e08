"""Print docs/commands.md, made from the commands themselves.

Run `python docs/generate.py > docs/commands.md` after changing an option.
"""

import inspect

import click

from mnist_cli.cli import cli

INTRODUCTION = """\
# Commands

This page is made from the commands themselves by `python docs/generate.py`.

Results go to stdout; progress, log lines and warnings go to stderr. Values are looked for on the
command line, then in the environment, then in the config file, then in the defaults.

| exit code | meaning |
| ---: | --- |
| 0 | done |
| 1 | it could not be done; one line `Error: …` says what was wrong, where, and what to do |
| 2 | wrong usage, a bad config included |
| 3 | judged and found wanting: accuracy below `--min-accuracy`, a mistake by `gradcheck` |
| 135 | killed by SIGBUS: a data file became shorter while it was in use |
| 130, 143 | interrupted by SIGINT (Ctrl-C), terminated by SIGTERM |
"""


def main() -> None:
    """Print the page."""
    print(INTRODUCTION)
    for name, command in cli.commands.items():
        context = click.Context(command, info_name=f"mnist-cli {name}")
        arguments = " ".join(
            parameter.make_metavar(context)
            for parameter in command.params
            if isinstance(parameter, click.Argument)
        )
        print(f"## mnist-cli {name}\n\n    mnist-cli {name} [OPTIONS] {arguments}".rstrip())
        print(f"\n{inspect.cleandoc(command.help or '')}\n")
        print("| option | | environment |\n| --- | --- | --- |")
        for option in command.params:
            if isinstance(option, click.Option) and not option.hidden:
                print(row(name, option))
        print()


def row(name: str, option: click.Option) -> str:
    """Return an option's row of the table."""
    names = ", ".join(f"`{spelling}`" for spelling in option.opts)
    if isinstance(option.type, click.Choice):
        names += " " + " \\| ".join(option.type.choices)
    elif not option.is_flag:
        names += f" {option.metavar or option.type.name.upper()}"
    text = option.help or ""
    if isinstance(option.default, str | int | float) and not option.is_flag:
        text += f" Default: `{option.default}`."
    variables = option.envvar or f"MNIST_CLI_{name}_{option.name}".upper()
    variables = [variables] if isinstance(variables, str) else variables
    return f"| {names} | {text} | {', '.join(f'`{variable}`' for variable in variables)} |"


if __name__ == "__main__":
    main()
