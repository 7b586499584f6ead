"""Decide from a folder of nnU-Net: `python examples/nnunet_folder.py`, two seconds, no download.

The folder is made here, as `nnUNetv2_predict --save_probabilities` would write it.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import nibabel
import numpy as np
import torch

from rankseg.integration.nnunet import decide_folders


def main() -> None:
    """Write what nnU-Net would, decide from it, and compare."""
    with tempfile.TemporaryDirectory() as place:
        predicted, decided = Path(place, "predicted"), Path(place, "decided")
        save_prediction(predicted, "case_001")
        outcome = decide_folders(predicted, decided, metric="dice", pruning_prob=0.3)
        print("written", *outcome.written)
        before, after = (nibabel.load(path / "case_001.nii.gz") for path in (predicted, decided))
        differ = np.mean(np.asarray(before.dataobj) != np.asarray(after.dataobj))
        print(f"{differ:.0%} of the voxels differ from nnU-Net's own")
        print("voxels of", after.header.get_zooms(), "mm, as before")


def save_prediction(folder: Path, case: str) -> None:
    """Save probabilities of smooth random maps, their argmax, and the labels' names."""
    torch.manual_seed(0)
    noise = torch.randn(1, 3, 4, 6, 6)
    logits = 2 * torch.nn.functional.interpolate(noise, size=(16, 48, 48), mode="trilinear")[0]
    probabilities = logits.softmax(0).numpy()
    folder.mkdir()
    np.savez_compressed(folder / f"{case}.npz", probabilities=probabilities)
    labels = probabilities.argmax(0).astype(np.uint8)
    image = nibabel.Nifti1Image(labels.T, np.diag([0.8, 0.8, 2.5, 1]))
    nibabel.save(image, folder / f"{case}.nii.gz")
    names = {"background": 0, "organ": 1, "tumour": 2}
    (folder / "dataset.json").write_text(json.dumps({"labels": names, "file_ending": ".nii.gz"}))


if __name__ == "__main__":
    main()
