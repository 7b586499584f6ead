"""A page to look at decisions in a browser. Needs ``pip install 'rankseg[app]'``.

`show` decides one case and returns what the page shows; `build` makes the page.
"""

from __future__ import annotations

from rankseg.app.page import build
from rankseg.app.shown import Shown, show

__all__ = ["Shown", "build", "show"]
