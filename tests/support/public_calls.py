"""Every public function that decides, scores or counts, as a function of probability maps.

For tests of what must hold wherever a caller comes in.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import torch

from rankseg import ClassProfile, RankSEG, RefinedNormalPB, expected_score, metrics
from rankseg._decision.solvers import SOLVERS
from rankseg.calibration import Calibration, calibrate, fit, prior_correction, reliability
from rankseg.dataset import DatasetRule
from rankseg.distribution import PoissonBinomial
from rankseg.evaluation import Case, Method, argmax, compare, pruned_argmax
from rankseg.functional import rankseg
from rankseg.integration.sam import Sam1, Sam2, Sam3, decide_logits
from rankseg.integration.transformers import postprocess, restore_semantic_probs
from support.frameworks import framework

CALIBRATION = Calibration("softmax", [0.5, 0.6, 0.7], [0.0, 0.1, 0.2])


def decisions():
    """Yield a name and options of every solver with every metric and output, and of the rest."""
    for solver, row in SOLVERS.items():
        for mode in row.several_classes:
            options = row.options[mode]
            for metric in row.metrics:
                chosen = {"metric": metric, "output_mode": mode, "solver": solver}
                if row.needs == "rule":
                    chosen["rule"] = DatasetRule(metric, [0.9, 1.0, 1.1], [0.3, 0.4, 0.5], mode)
                yield f"{solver}-{metric}-{mode}", chosen
                if "correlation" in options:
                    yield f"{solver}-{metric}-{mode}-correlated", chosen | {"correlation": 0.5}
    yield "smooth", {"smooth": 0.5}
    yield "void", {"unassigned_policy": "void"}
    yield "logits", {"from_logits": "softmax"}
    yield "calibrated", {"calibration": CALIBRATION}


DECISIONS = dict(decisions())


def one_function(probs):
    return rankseg(probs, "iou", output_mode="multilabel")


def binary(probs):
    return RankSEG()(probs[:, :1])


def valid(probs):
    return RankSEG()(probs, probs[:, 0] < 0.9)


def decide(probs):
    return RankSEG("iou", solver="exact", output_mode="multilabel").decide(probs)


def decide_labels(probs):
    return RankSEG(solver="joint").decide(probs)


def score(probs):
    return expected_score(probs, probs.argmax(1))


def score_correlated(probs):
    return expected_score(probs, probs > 0.5, "iou", 1.0, correlation=0.5)


def count_labels(probs):
    return metrics.count(probs.argmax(1), probs.argmin(1), num_classes=probs.shape[1])


def count_masks(probs):
    counts = metrics.count(probs > 0.4, probs > 0.5)
    scores = metrics.dice(counts)
    return [counts, scores, metrics.mean_by_image(scores), metrics.mean_by_class(scores)]


def profile(probs):
    made = ClassProfile.from_probs(probs) + ClassProfile.from_probs(probs)
    return [made, made.pooled().volume, made.cut("iou", correlation=0.5)]


def calibrated_maps(probs):
    return [calibrate(probs, CALIBRATION), prior_correction(probs, [1.0, 2.0, 3.0])]


def fitted(probs):
    return [fit(cases(probs), "vector", pixels=50), reliability(cases(probs)).loss]


def compared(probs):
    methods = [Method("argmax", argmax), Method("RankSEG", RankSEG())]
    return compare(cases(probs), methods).counts


def baselines(probs):
    maps = tensor(probs)
    return [argmax(maps), pruned_argmax(maps), CALIBRATION.of(maps.double())]


def transformers_models(probs):
    logits = {"logits": logits_of(probs)}
    queries = torch.from_numpy(np.ones((len(probs), 3, 4), np.float32))
    masks = {"class_queries_logits": queries, "masks_queries_logits": logits_of(probs)}
    return [
        postprocess(given, target_sizes=[(210, 200)] * len(probs)) for given in (logits, masks)
    ] + restore_semantic_probs(logits, target_sizes=[(210, 200)] * len(probs))


def segment_anything(probs):
    logits = logits_of(probs)
    sizes = [(210, 200)] * len(probs)
    prompted = {"pred_masks": logits[:, None]}
    instances = {
        "pred_masks": logits,
        "pred_logits": logits[:, :, 0, 0],
        "pred_boxes": logits[:, :, 0, :4],
        "semantic_seg": logits[:, :1],
    }
    first, third = Sam1(pad_size=250), Sam3(threshold=0.0)
    inner = {"original_sizes": sizes, "reshaped_input_sizes": [(230, 220)] * len(probs)}
    return [
        first.postprocess(prompted, **inner),
        first.restore_mask_probs(prompted, **inner),
        Sam2(apply_non_overlapping_constraints=True).postprocess(prompted, original_sizes=sizes),
        third.postprocess_instance(instances, target_sizes=sizes),
        third.postprocess_semantic(instances, target_sizes=sizes),
        decide_logits(logits),
    ]


def medical(probs):
    transform = framework("rankseg.integration.monai").RankSEG
    foreground = transform(include_background=False, from_logits="softmax")
    return [foreground(logits_of(probs)[0]), transform("acc", to_onehot=3)(tensor(probs)[0])]


def tensor(probs):
    """Return maps as a tensor, made without an operation of torch."""
    return torch.from_numpy(np.asarray(probs))


def logits_of(probs):
    return torch.from_numpy(8 * np.asarray(probs, np.float64) - 4)


def cases(probs):
    """Return the maps as cases, made without an operation of torch."""
    return [
        Case(str(number), torch.from_numpy(one), torch.from_numpy(one.argmax(0)))
        for number, one in enumerate(np.asarray(probs))
    ]


def volumes(probs):
    pixels = np.asarray(probs)[:, 0].reshape(len(probs), -1).astype(np.float64)
    refined = RefinedNormalPB.from_probs(torch.from_numpy(pixels))
    exact = PoissonBinomial(torch.from_numpy(pixels[:, :300]))
    torch.manual_seed(0)
    return [exact.mean, exact.cdf(3), exact.sample((2,)), refined.cdf(40), *refined.interval(0.9)]


OTHERS = {
    function.__name__: function
    for function in (
        *(one_function, binary, valid, decide, decide_labels, score, score_correlated),
        *(count_labels, count_masks, profile, calibrated_maps, fitted, compared, volumes),
        *(baselines, transformers_models, segment_anything, medical),
    )
}

NAMES = [*DECISIONS, *OTHERS]


def call(name, probs):
    """Call what has this name on maps of three classes."""
    return OTHERS[name](probs) if name in OTHERS else RankSEG(**DECISIONS[name])(probs)


def assert_same(ours, expected):
    """Compare results of whatever kind, without an operation of torch."""
    if dataclasses.is_dataclass(ours):
        ours, expected = vars(ours), vars(expected)
    if isinstance(ours, dict):
        assert list(ours) == list(expected)
        ours, expected = list(ours.values()), list(expected.values())
    if isinstance(ours, list | tuple):
        assert len(ours) == len(expected)
        for one, other in zip(ours, expected, strict=True):
            assert_same(one, other)
    elif isinstance(ours, torch.Tensor):
        assert ours.device == expected.device
        assert_same(ours.numpy(), expected.numpy())
    elif isinstance(ours, np.ndarray):
        assert ours.dtype == expected.dtype
        np.testing.assert_allclose(ours.astype(float), expected.astype(float), rtol=1e-12)
    elif isinstance(ours, float):
        assert math.isclose(ours, expected, rel_tol=1e-6)  # of a fit, whose sums threads share
    else:
        assert ours == expected
