"""Decide with MONAI transforms: `python examples/monai_transforms.py`, ten seconds, no download.

Needs `pip install 'rankseg[monai]'`. The network is random; what is shown is where the lines go.
"""

from __future__ import annotations

import torch
from monai.data import MetaTensor, decollate_batch
from monai.inferers import sliding_window_inference
from monai.metrics import DiceMetric
from monai.networks.nets import UNet
from monai.transforms import Activationsd, AsDiscreted, Compose

from rankseg.integration.monai import RankSEGd

CLASSES = 3


def main() -> None:
    """Decide two volumes with argmax and with RankSEG, and compare the two."""
    torch.manual_seed(0)
    network = UNet(3, in_channels=1, out_channels=CLASSES, channels=(8, 16), strides=(2,)).eval()
    images = MetaTensor(torch.rand(2, 1, 32, 32, 32))
    with torch.no_grad():
        logits = 4 * sliding_window_inference(images, (16, 16, 16), 4, network, overlap=0.5)

    softly = Activationsd(keys="pred", softmax=True)
    before = Compose([softly, AsDiscreted(keys="pred", argmax=True, to_onehot=CLASSES)])
    after = Compose([softly, RankSEGd(keys="pred", to_onehot=CLASSES, include_background=False)])

    items = decollate_batch({"pred": logits})
    argmax = [before(item)["pred"] for item in items]
    ranked = [after(item)["pred"] for item in items]
    print(type(ranked[0]).__name__, tuple(ranked[0].shape), ranked[0].dtype)

    agreement = DiceMetric(include_background=False)(y_pred=ranked, y=argmax)
    print("Dice between the two, for each volume and class of the foreground:")
    print(agreement)


if __name__ == "__main__":
    main()
