"""The door of the ``rankseg`` command; the commands themselves need the extra ``cli``."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line, or say how to install what it needs and exit with 1."""
    try:
        import matplotlib  # noqa: F401
        import rich  # noqa: F401
        import typer  # noqa: F401
    except ImportError as error:
        print(
            f"The rankseg command needs packages that are not installed ({error}). Run:\n\n"
            "    pip install 'rankseg[cli]'\n",
            file=sys.stderr,
        )
        raise SystemExit(1) from None
    from rankseg._commands import app

    app()
