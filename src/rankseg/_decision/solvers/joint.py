"""``solver='joint'``: labels by a local search for the largest sum of the class objectives."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from rankseg._common.tracing import is_traced
from rankseg._decision.settings import Settings
from rankseg._decision.solvers.models import Model
from rankseg._decision.solvers.presence import eligible_classes, present_classes
from rankseg._decision.solvers.rma import model_of, share_out
from rankseg._decision.solvers.unsettled import Unsettled, split_off
from rankseg._formulas.loop import Best, while_rising
from rankseg._formulas.objectives import OBJECTIVES
from rankseg._formulas.records import UNASSIGNED, State, Survey

ROUNDING = 1e-12
"""A relative rise of the objective up to this is rounding, and changes no label."""

NOTICEABLE = 1e-5
"""A relative rise of the objective up to this ends the passes over an image.

Later passes rise by less and less. On CamVid maps of ENet 20 passes instead of 7 would add 2e-5."""

MARGIN = 0.1
"""Pixels whose probability is within this relative distance of the cut of a class are relabelled.

As labels change, the probability from which a class gains moves by 0.01 on most images, and by 0.06
with 140 classes. 3 to 8 % of the pixels are within 0.1 of a cut."""


def joint_labels(backend: ModuleType, maps: Any, survey: Survey, settings: Settings) -> Tensor:
    """Return labels that no pass improves in the sum of class objectives, ``(batch, *spatial)``.

    The iteration starts from the labels of the published rule. A pass gives every pixel to the
    class whose objective rises fastest as the pixel joins. Passes repeat for an image as long as
    its sum over classes rises. So the result never scores less than the published rule.

    The first passes relabel only the pixels within ``MARGIN`` of a cut. Afterwards, if some class
    of an image gains below its margin or loses above it, further passes relabel all pixels of that
    image.
    """
    leaves_void = settings.unassigned_policy == "void"
    present = present_classes(backend, maps, survey, settings)
    eligible = present if leaves_void else eligible_classes(present)
    model = model_of(backend, maps, survey, settings, present)
    cuts = model.cuts(present)
    bracket = model.bracket(cuts, MARGIN)
    unsettled = Unsettled.all_of(maps, survey)
    if not is_traced() and len(cuts):  # a traced graph cannot choose
        unsettled = split_off(backend, maps, survey, bracket, eligible, settings.void_index)
    labels = share_out(model.of(unsettled), cuts, present, settings)
    # Tensors, because a traced loop cannot refer to a number that may change between calls.
    smooth, rounding, noticeable = (
        torch.full((), number, dtype=torch.float64, device=survey.mass.device)
        for number in (settings.smooth, ROUNDING, NOTICEABLE)
    )
    model = model.with_objective(OBJECTIVES[settings.metric](smooth))
    relabelling = _Relabelling(
        model, eligible, leaves_void, settings.void_index, rounding, noticeable
    )
    of_unsettled = replace(relabelling, model=model.of(unsettled))
    rising = torch.ones_like(survey.peak[:, 0], dtype=torch.bool)
    best = labels, *of_unsettled.model.tally(labels)
    labels, *state = while_rising(of_unsettled.step, best, rising, survey.is_invalid)
    if unsettled.labels is None:
        return labels
    labels = unsettled.joined(backend, labels)
    outside = of_unsettled.gains_outside(bracket, tuple(state))
    if not outside.any():
        return labels
    return while_rising(relabelling.step, (labels, *state), outside, survey.is_invalid)[0]


@dataclass(frozen=True)
class _Relabelling:
    """One pass of `joint_labels` over the pixels of ``model.maps``: `step` relabels them."""

    model: Model
    eligible: Tensor
    leaves_void: bool
    void: int
    rounding: Tensor
    noticeable: Tensor

    def step(self, best: Best, rising: Tensor) -> tuple[Best, Tensor]:
        """Relabel all images; keep the new labels of those ``rising`` images that score more.

        ``best`` is ``(labels, *state)``. Returns the new ``best``, and for which images another
        pass may be worth its time: ``(batch,)`` boolean.
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
            0.0 if self.leaves_void else -torch.inf,  # a pixel is void if no class gains from it
            self.void,
        )
        new_state = model.tally(proposed, rising)
        old, new = model.score(state).sum(1), model.score(new_state).sum(1)
        better = rising & (new > old + self.rounding * old.abs())
        image = better.view(-1, *[1] * (labels.dim() - 1))
        chosen = model.choose(better, new_state, state)
        goes_on = better & (new > old + self.noticeable * old.abs())
        return (torch.where(image, proposed, labels), *chosen), goes_on

    def gains_outside(self, bracket: tuple[Tensor, Tensor], state: State) -> Tensor:
        """Return the images, ``(batch,)``, where some class gains at ``low`` or loses at ``high``.

        There the pixels outside of the bracket must be relabelled too.
        """
        gains = self.model.slope(state)
        low, high = bracket
        inside = (gains.at(low) <= 0) & (gains.at(high) > 0)
        return (~inside & torch.isfinite(high)).any(1)
