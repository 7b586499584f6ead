"""Labels decided for all classes at once: a higher sum of objectives than class by class."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from rankseg._decision.settings import Settings
from rankseg._decision.solvers.models import Model
from rankseg._decision.solvers.presence import eligible_classes, present_classes
from rankseg._decision.solvers.rma import model_of, share_out
from rankseg._decision.solvers.unsettled import Unsettled, split_off
from rankseg._formulas.loop import Best, while_rising
from rankseg._formulas.objectives import OBJECTIVES
from rankseg._formulas.records import UNASSIGNED, State, Survey

NOTICEABLE = 1e-12
"""Relative rise of the objective below which another pass would chase rounding."""

MARGIN = 0.1
"""How far from its best cut, relatively, a class is followed as pixels change their labels.

The probability at which it gains moves by 0.01 on most images, and by 0.06 where 140 classes meet;
3 to 8 % of the pixels are within 0.1 of a cut."""


def joint_labels(backend: ModuleType, maps: Any, survey: Survey, settings: Settings) -> Tensor:
    """Return labels that maximise the sum of the class objectives together.

    Starting from the labels of the published rule, every pixel is given anew to the class whose
    objective rises fastest as the pixel joins it, and again as long as the sum over classes rises,
    image by image. The labels returned never score less than those it started from.

    Far from all cuts a pixel keeps its label, so that only the others are looked at: unless
    some class gained from a probability outside of the ``MARGIN`` in the end, in which case all
    pixels of the image are looked at from there on.
    """
    leaves_void = settings.unassigned_policy == "void"
    kept = present_classes(backend, maps, survey, settings)
    eligible = kept if leaves_void else eligible_classes(kept)
    model = model_of(backend, maps, survey, settings, kept)
    cuts = model.cuts(kept)
    bracket = model.bracket(cuts, MARGIN)
    part = Unsettled.all_of(maps, survey)
    if not torch.compiler.is_compiling() and len(cuts):  # a traced graph cannot choose
        part = split_off(backend, maps, survey, bracket, eligible, settings.void_index)
    labels = share_out(model.of(part), cuts, kept, settings)
    # Tensors, because a traced loop cannot refer to a number that may change between calls.
    smooth, noticeable = (
        torch.full((), number, dtype=torch.float64, device=survey.mass.device)
        for number in (settings.smooth, NOTICEABLE)
    )
    model = model.with_objective(OBJECTIVES[settings.metric](smooth))
    relabelling = _Relabelling(model, eligible, leaves_void, settings.void_index, noticeable)
    of_part = replace(relabelling, model=model.of(part))
    rising = torch.ones_like(survey.peak[:, 0], dtype=torch.bool)
    best = labels, *of_part.model.tally(labels)
    labels, *state = while_rising(of_part.step, best, rising, survey.fault)
    if part.labels is None:
        return labels
    labels = part.joined(backend, labels)
    outside = of_part.gains_outside(bracket, tuple(state))
    if not outside.any():
        return labels
    return while_rising(relabelling.step, (labels, *state), outside, survey.fault)[0]


@dataclass(frozen=True)
class _Relabelling:
    """One pass over all pixels: from labels to labels that score more."""

    model: Model
    eligible: Tensor
    leaves_void: bool
    void: int
    noticeable: Tensor

    def step(self, best: Best, rising: Tensor) -> tuple[Best, Tensor]:
        """Relabel the images that are ``rising``; keep what scores more, image by image.

        ``best`` is the labels, then their state.
        """
        model, (labels, *old_state) = self.model, best
        state = tuple(old_state)
        proposed = model.backend.resolve(
            model.maps,
            model.survey,
            torch.full_like(labels, UNASSIGNED),
            torch.full_like(model.survey.mass, torch.inf),  # nothing is contested
            model.slope(state, rising),
            self.eligible,
            0.0 if self.leaves_void else -torch.inf,  # void is a pixel that all classes lose by
            self.void,
        )
        new_state = model.tally(proposed, rising)
        old, new = model.score(state).sum(1), model.score(new_state).sum(1)
        rising = rising & (new > old + self.noticeable * old.abs())
        image = rising.view(-1, *[1] * (labels.dim() - 1))
        kept = model.choose(rising, new_state, state)
        return (torch.where(image, proposed, labels), *kept), rising

    def gains_outside(self, bracket: tuple[Tensor, Tensor], state: State) -> Tensor:
        """Tell in which images a class gains below the lower end, or loses above the upper one."""
        gains = self.model.slope(state)
        low, high = bracket
        inside = (gains.at(low) <= 0) & (gains.at(high) > 0)
        return (~inside & torch.isfinite(high)).any(1)
