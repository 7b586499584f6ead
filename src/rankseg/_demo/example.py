"""The embedded sample of ``rankseg demo``: images, labels, and what a small network predicts.

``scripts/train_demo_network.py`` draws the images, trains the network on other images of the same
generator, and writes the file read here.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

_SAMPLE_FILE = "sample.npz"


@dataclass(frozen=True, eq=False)
class DemoSample:
    """Held-out images with the softmax maps of a network trained by plain cross-entropy.

    Attributes
    ----------
    images : numpy.ndarray
        RGB pixels, uint8 of shape (N, H, W, 3).
    probs : Tensor
        Class probabilities, float32 of shape (N, C, H, W). They are stored as float16, to the
        nearest multiple of 2**-12, so that they sum to one within 1e-3.
    labels : Tensor
        The class drawn at every pixel, int64 of shape (N, H, W).
    classes : tuple of str
        The C class names; class 0 is the background.
    """

    images: npt.NDArray[np.uint8]
    probs: Tensor
    labels: Tensor
    classes: tuple[str, ...]


def load_sample() -> DemoSample:
    """Read the sample that ships with the package.

    Returns
    -------
    DemoSample
        The images, labels, probabilities and class names; a fresh copy at every call.

    Examples
    --------
    >>> sample = load_sample()
    >>> sample.classes
    ('background', 'organ', 'gland', 'tumour', 'vessel', 'lesion')
    >>> sample.probs.argmax(dim=1).shape == sample.labels.shape
    True
    """
    path = resources.files("rankseg._demo").joinpath(_SAMPLE_FILE)
    with path.open("rb") as file, np.load(file) as arrays:
        return DemoSample(
            images=arrays["images"],
            probs=torch.from_numpy(arrays["probs"]).float(),
            labels=torch.from_numpy(arrays["labels"]).long(),
            classes=tuple(str(name) for name in arrays["classes"]),
        )
