"""End a PyTorch network in the decision: `python examples/pytorch.py`, a second, no download."""

from __future__ import annotations

import torch
from torch import nn

from rankseg import RankSEG

CLASSES = 5


def main() -> None:
    """Decide with argmax and with RankSEG, and show what each is expected to score."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 16, 7, padding=3), nn.ReLU(), nn.Conv2d(16, CLASSES, 5, padding=2)
    )
    images = 4 * torch.rand(2, 3, 96, 128)

    model = nn.Sequential(network, RankSEG("dice", pruning_prob=0.2, from_logits="softmax")).eval()
    labels = model(images)  # int64 (2, 96, 128), as argmax gives
    print("labels", tuple(labels.shape), labels.dtype)

    told = model[1].decide(network(images))
    changed = (labels != network(images).argmax(1)).float().mean()
    print(f"{changed:.0%} of the pixels differ from argmax")
    for image, gain in enumerate(told.expected_gain.tolist()):
        print(f"image {image}: expected mean Dice rises by {100 * gain:.2f} points")


if __name__ == "__main__":
    main()
