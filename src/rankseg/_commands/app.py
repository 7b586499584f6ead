"""``rankseg app``."""

from __future__ import annotations

from typing import Annotated

import typer

from rankseg._commands._terminal import fail
from rankseg.app import build

__all__ = ["app"]


def app(
    host: Annotated[
        str, typer.Option(help="Address to serve at; 0.0.0.0 for other machines too.")
    ] = "127.0.0.1",
    port: Annotated[int | None, typer.Option(help="By default the first free from 7860.")] = None,
) -> None:
    """Serve a page to look at decisions in a browser: argmax and RankSEG side by side.

    Nothing is sent anywhere; a model is fetched from the hub only if one is named.
    """
    try:
        build().launch(server_name=host, server_port=port)
    except (ImportError, OSError) as error:
        fail(error)
