"""``rankseg app``."""

from __future__ import annotations

import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from rankseg._commands._terminal import fail, open_console

__all__ = ["app"]

ENDED_BY_SIGNAL = 128  # added to the number of the signal, as shells have it


def app(
    host: Annotated[
        str, typer.Option(metavar="HOST", help="where; 0.0.0.0 for other machines too")
    ] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, max=65535, help="else the first free from 7860"),
    ] = None,
    max_upload: Annotated[
        int | None,
        typer.Option(metavar="MB", min=1, help="to host it: largest upload, no models"),
    ] = None,
) -> None:
    """Serve a page to look at decisions in a browser.

    Nothing is sent anywhere; a model is fetched from the hub only if one is named. Uploads are
    removed when the page ends.
    """
    from rankseg.app import build
    from rankseg.app.page import launch

    _check_address(host, port)
    for name in ("SIGTERM", "SIGHUP"):  # ends like any other, so that uploads are removed
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), _exit)
    with _temporary_files_removed():
        page = build(max_upload=max_upload)
        address = launch(page, host, port, max_upload)
        try:
            open_console().print(f"Serving at {address} until Ctrl-C.")
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            raise KeyboardInterrupt("Stopped; uploads are removed.") from None
        finally:
            page.close(verbose=False)


@contextmanager
def _temporary_files_removed() -> Iterator[None]:
    """Let all temporary files of the process be in one folder that is removed at the end.

    The folder is where the user wants uploads to be, if Gradio's variable says so.
    """
    before, place = tempfile.tempdir, os.environ.pop("GRADIO_TEMP_DIR", None)
    with tempfile.TemporaryDirectory(prefix="rankseg-", dir=place) as folder:
        tempfile.tempdir = folder
        try:
            yield
        finally:
            tempfile.tempdir = before


def _check_address(host: str, port: int | None) -> None:
    """Exit with the reason if nothing can be served at an address."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port or 0, type=socket.SOCK_STREAM
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            if os.name == "posix":  # or a server that has just ended would still hold the port
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        where = f"--host {host}" if port is None else f"--host {host} --port {port}"
        fail(f"cannot serve at {where}: {error.strerror}; name another, or leave both out")


def _exit(number: int, _: object) -> None:
    sys.exit(ENDED_BY_SIGNAL + number)
