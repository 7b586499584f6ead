"""
Where did my rare class go?
===========================

A class can win pixels with a probability of 0.45. The published rule takes a class for absent if
its largest probability does not exceed 0.5, so it gives that class no pixel. ``presence="argmax"``
keeps every class that argmax predicts.
"""

import matplotlib.pyplot as plt
import torch

from rankseg import RankSEG

rows, columns = torch.meshgrid(torch.arange(64.0), torch.arange(96.0), indexing="ij")


def bump(row, column, width):
    """Return a smooth hill of height 1."""
    return torch.exp(-((rows - row) ** 2 + (columns - column) ** 2) / (2 * width**2))


on_the_left, on_the_right = bump(32, 30, 12), bump(32, 66, 9)
cat = 4 * on_the_left + 2.7 * on_the_right - 2  # on the right the network hesitates
dog = 3 * on_the_right - 2
probs = torch.stack([0 * rows, cat, dog]).softmax(0)[None]
names = ["background", "cat", "dog"]

decisions = {
    "argmax": probs.argmax(1),
    'presence="peak" (published)': RankSEG("dice", presence="peak")(probs),
    'presence="argmax"': RankSEG("dice", presence="argmax")(probs),
}
peak = probs.amax((0, 2, 3))

figure, axes = plt.subplots(1, 3, figsize=(10, 3), layout="constrained")
for axis, (title, labels) in zip(axes, decisions.items(), strict=True):
    picture = axis.imshow(labels[0], cmap="viridis", vmin=0, vmax=2)
    axis.set(title=title, xticks=[], yticks=[])
figure.colorbar(picture, ax=axes, ticks=[0, 1, 2]).set_ticklabels(
    [f"{name} ({value:.2f})" for name, value in zip(names, peak, strict=True)]
)

# %%
# The numbers beside the names are the largest probabilities. The class "dog" wins pixels with less
# than 0.5, so the published rule loses it.

lost, kept = (decisions[name] for name in ('presence="peak" (published)', 'presence="argmax"'))
assert peak[2] < 0.5
assert (decisions["argmax"] == 2).any()
assert not (lost == 2).any()
assert (kept == 2).any()
