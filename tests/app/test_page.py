"""The page without Gradio; with it, in a browser, it is in ``tests/integrations/test_app.py``."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from rankseg.app import build
from rankseg.app.page import _without_folders


def test_without_gradio_the_error_says_what_to_install():
    try:
        import gradio  # noqa: F401
    except ImportError:
        with pytest.raises(ImportError, match=r"pip install 'rankseg\[app\]'"):
            build()


def test_messages_do_not_name_temporary_folders():
    place = Path(tempfile.gettempdir(), "rankseg-x", "gradio", "1f", "my maps.npz")
    text = _without_folders(f"{place} cannot be read as .npz: a/b")
    assert text == "my maps.npz cannot be read as .npz: a/b"
