"""The classes that carry the decision into the worker processes of nnU-Net, which import them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import Tensor

from rankseg._decision.module import RankSEG

__all__ = ["RankSEGLabelManager", "RankSEGPlansManager"]


class RankSEGLabelManager(LabelManager):
    """Labels of nnU-Net, decided by RankSEG."""

    decide: RankSEG

    def convert_probabilities_to_segmentation(self, predicted_probabilities: Any) -> Any:
        """Decide, and return the labels in the type and dtype of nnU-Net."""
        if len(predicted_probabilities) != self.num_segmentation_heads:
            raise ValueError(
                f"predicted_probabilities must have {self.num_segmentation_heads} channels, got "
                f"{len(predicted_probabilities)}"
            )
        decided = self.decide(predicted_probabilities[None])[0]
        if not self.has_regions:
            return decided
        painted: Any
        if isinstance(decided, Tensor):
            painted = decided.new_zeros(decided.shape[1:], dtype=torch.int16)
        else:
            painted = np.zeros(decided.shape[1:], np.uint16)
        for label, mask in zip(self.regions_class_order, decided, strict=True):
            painted[mask] = label
        return painted

    def convert_logits_to_segmentation(self, predicted_logits: Any) -> Any:
        """Decide by probabilities: argmax would do without, and nnU-Net leaves them out."""
        probabilities = self.apply_inference_nonlin(predicted_logits)
        if isinstance(predicted_logits, np.ndarray) and isinstance(probabilities, Tensor):
            probabilities = probabilities.numpy()
        return self.convert_probabilities_to_segmentation(probabilities)


class RankSEGPlansManager(PlansManager):
    """Plans of nnU-Net whose label manager is `RankSEGLabelManager`."""

    def __init__(self, plans: Any, decide: RankSEG) -> None:
        super().__init__(plans)
        self.decide = decide
        if self.label_manager_class is not LabelManager:
            raise ValueError(
                "predictor must convert labels by nnU-Net's LabelManager, got "
                f"{self.label_manager_class.__name__}, which its plans name"
            )

    def get_label_manager(self, dataset_json: Any, **kwargs: Any) -> LabelManager:
        """Return the label manager that decides by RankSEG.

        With more arguments it is one of other maps, and stays that of nnU-Net.
        """
        if kwargs:
            return super().get_label_manager(dataset_json, **kwargs)
        manager = RankSEGLabelManager(
            dataset_json["labels"], dataset_json.get("regions_class_order")
        )
        manager.decide = self.decide
        return manager
