"""
What if the score sums over the data set?
=========================================

Cityscapes, ADE20K and Pascal VOC count pixels of a class over all images, and divide once. That
score needs another decision than the mean over images: ``rankseg.dataset.DatasetRule`` fits one,
without labels, from the maps that it then decides.
"""

import matplotlib.pyplot as plt
import torch

from rankseg import RankSEG
from rankseg.dataset import DatasetRule
from rankseg.metrics import count

torch.manual_seed(0)
noise = torch.nn.functional.interpolate(torch.randn(40, 4, 6, 6), (48, 48), mode="bicubic")
probs = (1.5 * noise + torch.tensor([2.0, 1.0, 0.0, -1.0]).view(4, 1, 1)).softmax(1)
truth = torch.distributions.Categorical(probs.permute(0, 2, 3, 1)).sample()

rule = DatasetRule.fit(list(probs), "iou")
decisions = {
    "argmax": probs.argmax(1),
    "RankSEG, by image": RankSEG("iou")(probs),
    "RankSEG, data-set rule": RankSEG("iou", rule=rule)(probs),
}


def dataset_iou(labels):
    """Return the IoU of every class, of counts summed over the images."""
    counts = count(labels, truth, num_classes=4)
    tp, fp, fn = (term.sum(0).double() for term in (counts.tp, counts.fp, counts.fn))
    return tp / (tp + fp + fn)


scores = {name: dataset_iou(labels) for name, labels in decisions.items()}
figure, axis = plt.subplots(figsize=(7, 3.6), layout="constrained")
for number, (name, values) in enumerate(scores.items()):
    mean = f"{name}: mIoU {100 * values.mean():.1f}"
    axis.bar(torch.arange(4) + 0.25 * number, values, 0.25, label=mean)
axis.set(xticks=torch.arange(4) + 0.25, xticklabels=[f"class {number}" for number in range(4)])
axis.set(ylabel="IoU over the data set")
axis.legend()

# %%
# The rule gives up a little of the common classes for more of the rare one.

means = {name: values.mean() for name, values in scores.items()}
assert means["RankSEG, data-set rule"] == max(means.values())
