"""
What if the image does not fit in memory?
=========================================

A cut depends on the whole image, but only through a small summary: the class profile. Take the
profile of every tile, add them up, and cut every tile at the cut of the sum.
"""

import matplotlib.pyplot as plt
import torch

from rankseg import ClassProfile, RankSEG

torch.manual_seed(0)
noise = torch.nn.functional.interpolate(torch.randn(1, 1, 12, 16), (384, 512), mode="bicubic")
probs = torch.sigmoid(2 * noise - 1.5)
tiles = [tile for row in probs.split(128, 2) for tile in row.split(128, 3)]

profiles = [ClassProfile.from_probs(tile) for tile in tiles]
profile = sum(profiles[1:], profiles[0])
cut = profile.cut("dice")
alone = [one.cut("dice").item() for one in profiles]

figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
axes[0].imshow(probs[0, 0] > cut, cmap="gray")
axes[0].set(title=f"one cut, {cut.item():.3f}, for all 12 tiles", xticks=[], yticks=[])
by_tile = torch.tensor(alone).view(3, 4).repeat_interleave(128, 0).repeat_interleave(128, 1)
axes[1].imshow(probs[0, 0] > by_tile, cmap="gray")
axes[1].set(title="a cut of its own for each tile: seams", xticks=[], yticks=[])

# %%
# The masks are those of one call on the whole image, but for pixels in one bin of the profile.

whole = RankSEG("dice", output_mode="multilabel", solver="RMA")(probs)
assert ((probs > cut) == whole).float().mean() > 0.999
assert ((probs > by_tile) == whole).float().mean() < 0.999
