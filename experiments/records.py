"""Comparisons as files: exact counts of every method, case and class."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch

from rankseg._files.whole import write_whole
from rankseg.evaluation import Comparison
from rankseg.metrics import Counts

__all__ = ["read_comparison", "write_comparison"]


def write_comparison(comparison: Comparison, path: Path, background: bool) -> None:
    """Write the counts and seconds of a comparison to an ``.npz`` file.

    ``background`` tells to leave class 0 out of all scores.
    """
    counts = comparison.counts.values()
    content = io.BytesIO()
    np.savez_compressed(
        content,
        classes=np.array(comparison.classes),
        background=np.array(background),
        cases=np.array(comparison.cases),
        clusters=np.array(comparison.clusters or ()),
        methods=np.array(comparison.methods),
        counts=torch.stack([torch.stack((one.tp, one.fp, one.fn)) for one in counts]).numpy(),
        seconds=np.stack([*comparison.seconds.values()]),
    )
    write_whole(path, content.getvalue())


def read_comparison(path: Path) -> Comparison:
    """Read what `write_comparison` wrote, without the background if it is not scored."""
    with np.load(path) as arrays:
        first = int(arrays["background"])
        counts = torch.from_numpy(arrays["counts"])[..., first:]
        methods = arrays["methods"].tolist()
        return Comparison(
            classes=tuple(arrays["classes"].tolist()[first:]),
            cases=tuple(arrays["cases"].tolist()),
            counts={name: Counts(*one) for name, one in zip(methods, counts, strict=True)},
            seconds=dict(zip(methods, arrays["seconds"], strict=True)),
            clusters=tuple(arrays["clusters"].tolist()) or None,
        )
