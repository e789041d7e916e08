"""What the command `mnist-cli` and `python -m mnist_cli` start."""

import sys


def main() -> None:
    """Run the program; end quietly where an interruption comes before it can tell of one."""
    try:
        from mnist_cli import cli

        cli.main()
    except KeyboardInterrupt as error:
        sys.exit(getattr(error, "exit_code", 130))


if __name__ == "__main__":
    main()
