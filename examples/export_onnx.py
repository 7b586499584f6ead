"""Export a network with its decision, and the decision alone: `python examples/export_onnx.py`.

Needs `pip install 'rankseg[onnx]' onnxruntime`. Takes some 20 seconds, mostly torch's exporter.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import nn

from rankseg import RankSEG
from rankseg.integration.onnx import export

CLASSES = 5


def run(path: Path, array: np.ndarray) -> np.ndarray:
    """Run a graph of one input and one output."""
    session = onnxruntime.InferenceSession(str(path))
    output: np.ndarray = session.run(None, {session.get_inputs()[0].name: array})[0]
    return output


def main() -> None:
    """Write both graphs, run them, and compare with torch."""
    torch.manual_seed(0)
    network = nn.Conv2d(3, CLASSES, 5, padding=2)
    decide = RankSEG("iou", from_logits="softmax")
    images = 3 * torch.rand(2, 3, 64, 80)
    expected = decide(network(images)).numpy()

    with tempfile.TemporaryDirectory() as folder:
        whole, alone = Path(folder, "model.onnx"), Path(folder, "decision.onnx")
        axes = {0: torch.export.Dim("batch"), 2: torch.export.Dim("h"), 3: torch.export.Dim("w")}
        program = torch.onnx.export(
            nn.Sequential(network, decide).eval(), (images,), dynamo=True, dynamic_shapes=(axes,)
        )
        program.save(whole)
        print(
            "the whole model gives torch's labels:", (run(whole, images.numpy()) == expected).all()
        )

        export(alone, decide, CLASSES)
        with torch.no_grad():
            logits = network(images).numpy()
        same = (run(alone, logits) == expected).all()
        print("the decision alone does too:", same)


if __name__ == "__main__":
    main()
