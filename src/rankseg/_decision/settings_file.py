"""The file of settings: options of RankSEG, with calibration, rule and model of presence inside."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import asdict, is_dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Final

from rankseg._decision.calibration import calibration_of
from rankseg._decision.dataset_rule import DatasetRule
from rankseg._decision.presence_model import PresenceModel
from rankseg._files.small import read_as, write_fields
from rankseg._version import __version__

__all__ = ["FORMAT", "read_settings", "write_settings"]

FORMAT: Final = "rankseg settings 1"

FIELDS: Final = ("rankseg", "options", "about")

FITTED: Final[dict[str, Callable[[Any], Any]]] = {
    "calibration": calibration_of,
    "presence": lambda content: PresenceModel(**content),
    "rule": lambda content: DatasetRule(**content),
}
"""What makes the value of an option of its fields in the file."""


def write_settings(
    path: str | PathLike[str], options: Mapping[str, Any], about: Mapping[str, Any] | None
) -> None:
    """Write keyword arguments of RankSEG as JSON, whole or not at all.

    ``about`` says where they come from: any JSON object, or None.
    """
    plain = {
        name: asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
        for name, value in options.items()
        if value is not None
    }
    content = {"rankseg": __version__, "options": plain, "about": dict(about or {})}
    write_fields(Path(path), FORMAT, content)


def read_settings(path: str | PathLike[str], check: Callable[..., object]) -> dict[str, Any]:
    """Return the keyword arguments of RankSEG that a file holds, if ``check`` takes them.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file holds something else, or options that ``check``, which is RankSEG, refuses.
    """
    make = functools.partial(_options_of, check)
    return read_as(make, "file of settings", path, FORMAT, FIELDS)


def _options_of(check: Callable[..., object], content: Mapping[str, Any]) -> dict[str, Any]:
    options = content["options"]
    if not isinstance(options, dict):
        raise TypeError(f"options must be an object, got {options!r}")
    for name in FITTED.keys() & options:
        if isinstance(options[name], dict):
            options[name] = FITTED[name](options[name])
    check(**options)
    return options
