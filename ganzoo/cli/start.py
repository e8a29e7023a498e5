"""Where the `ganzoo` command begins: errors become one sentence and an exit code, never a traceback."""

from __future__ import annotations

import os
import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line and exit with the code that docs/cli.md lists."""
    try:
        code = _run()
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("stopped; what was saved is kept, and the same command goes on", file=sys.stderr)
        code = 130
    except BrokenPipeError:  # the reader of a pipe, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code)


def _run() -> int:
    import click

    from ..errors import GanzooError
    from .commands import cli

    try:
        result = cli.main(prog_name="ganzoo", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.Abort:
        return 130
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except GanzooError as error:
        from ..console import err, plain

        err().print(f"error: {plain(str(error))}")
        return error.exit_code
    except MemoryError:
        print("error: out of memory; use --set train.micro_batch=auto or a smaller --set train.batch", file=sys.stderr)
        return 7


if __name__ == "__main__":
    main()
