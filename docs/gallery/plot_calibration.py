"""
What if the probabilities are wrong?
====================================

RankSEG takes probabilities at their word. A network trained with class weights overstates rare
classes. Ten labelled images are enough here to mend that: ``rankseg.calibration.fit`` finds a scale
and an offset for each class, and twenty other images show what it changes.
"""

import matplotlib.pyplot as plt
import torch

from rankseg import RankSEG
from rankseg.calibration import fit, reliability
from rankseg.evaluation import Case, Method, argmax, compare
from rankseg.plots import reliability_diagram

torch.manual_seed(0)
blur = torch.nn.AvgPool2d(15, stride=1, padding=7)


def labelled(name):
    """Return a case: the label is drawn from a map, and the network overstates class 2."""
    logits = 30 * blur(torch.randn(1, 3, 64, 64))[0] + torch.tensor([2.0, 0.5, -1.0])[:, None, None]
    label = torch.distributions.Categorical(logits.permute(1, 2, 0).softmax(-1)).sample()
    logits[2] += 1.5
    return Case(name, logits.softmax(0), label)


cases = [labelled(f"image {number}") for number in range(30)]
calibration = fit(cases[:10], kind="vector")

methods = [
    Method("argmax", argmax),
    Method("as it is", RankSEG("dice")),
    Method("calibrated", RankSEG("dice", calibration=calibration)),
]
comparison = compare(cases[10:], methods)
gains = {name: comparison.difference(name).mean for name in ("as it is", "calibrated")}

before = reliability_diagram(reliability(cases[10:]))
after = reliability_diagram(reliability(cases[10:], calibration=calibration))
plt.show()

# %%
# The change of Dice against argmax on the twenty images that calibration has not seen:

print({name: f"{100 * gain:+.2f} points" for name, gain in gains.items()})
assert gains["calibrated"] > max(gains["as it is"], 0)
