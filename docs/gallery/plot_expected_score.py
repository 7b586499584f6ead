"""
What will this prediction score?
================================

``RankSEG.decide`` says, without labels, what the decision and argmax are expected to score. Where
the probabilities can be trusted, this agrees with what is scored once the labels are known. So
images can be sorted by expected Dice, and the worst shown to a person first.
"""

import matplotlib.pyplot as plt
import torch

from rankseg import RankSEG
from rankseg.metrics import count, dice

torch.manual_seed(0)
centres = torch.randn(60, 1, 5, 5)
noise = torch.nn.functional.interpolate(centres, (64, 64), mode="bicubic")
sharpness = torch.linspace(1, 8, 60).view(-1, 1, 1, 1)
probs = torch.sigmoid(sharpness * (noise - 0.8))
truth = torch.rand_like(probs) < probs

decision = RankSEG("dice", output_mode="multilabel", solver="RMA", pruning_prob=0.0).decide(probs)
expected = decision.expected[:, 0]
achieved = dice(count(decision.prediction, truth))[:, 0]

figure, axis = plt.subplots(figsize=(4.6, 4.4), layout="constrained")
axis.scatter(expected, achieved, c=sharpness.flatten(), cmap="viridis")
axis.plot([0, 1], [0, 1], color="black", linewidth=0.8)
axis.set(xlabel="expected Dice, without labels", ylabel="achieved Dice", aspect="equal")

# %%
# Each point is one image; light ones have sharp outlines.

there = ~achieved.isnan()
assert (expected[there] - achieved[there]).abs().mean() < 0.02
assert decision.expected.mean() > decision.expected_argmax.mean()
