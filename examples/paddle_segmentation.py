"""Let PaddleSeg decide with RankSEG: `python examples/paddle_segmentation.py`, seconds."""

from __future__ import annotations

import paddle
from paddleseg.core import infer
from paddleseg.models import UNet

from rankseg.integration.paddleseg import enable


def main() -> None:
    """Decide as PaddleSeg does, and with RankSEG, by the function its commands call."""
    paddle.seed(0)
    model = UNet(num_classes=4)
    model.eval()
    image = paddle.rand([1, 3, 64, 96])
    size = [("resize", (50, 75))]  # that of the image before it was resized for the network
    with paddle.no_grad():
        argmax, _ = infer.inference(model, image, trans_info=size)
        with enable(metric="dice", pruning_prob=0.2):
            labels, _ = infer.inference(model, image, trans_info=size)
    print("labels", labels.shape, labels.dtype)
    changed = (labels != argmax).astype("float32").mean().item()
    print(f"{changed:.0%} of the pixels differ from argmax")


if __name__ == "__main__":
    main()
