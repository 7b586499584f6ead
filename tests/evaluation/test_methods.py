"""Ways of deciding: the baselines against plainer code, RankSEG's options, and the clock."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch

from rankseg import RankSEG
from rankseg.evaluation import (
    Method,
    argmax,
    pruned_argmax,
    standard_methods,
    time_methods,
)
from rankseg.evaluation import methods as _methods
from support.maps import labelled


class TestPrunedArgmax:
    def test_is_argmax_over_the_classes_that_are_present(self):
        rng = np.random.default_rng(3)
        probs = rng.dirichlet([0.5, 1, 2, 4], (5, 3, 2)).transpose(0, 3, 1, 2)  # (5, 4, 3, 2)
        expected = np.empty((5, 3, 2), int)
        pruned_something = False
        for image, maps in enumerate(probs):
            present = [c for c in range(4) if maps[c].max() > 0.8] or list(range(4))
            pruned_something |= len(present) < 4
            for pixel in np.ndindex(3, 2):
                expected[(image, *pixel)] = max(present, key=lambda c: maps[(c, *pixel)])
        assert pruned_something
        assert pruned_argmax(torch.tensor(probs), 0.8).tolist() == expected.tolist()

    def test_a_class_that_only_reaches_the_limit_is_absent(self):
        probs = torch.tensor([[[0.5, 0.1, 0.4], [0.25, 0.75, 0.25], [0.25, 0.15, 0.35]]])
        assert argmax(probs).tolist() == [[0, 1, 0]]
        assert pruned_argmax(probs, 0.5).tolist() == [[1, 1, 1]]

    def test_all_classes_take_part_if_none_is_present(self):
        probs = torch.tensor([[[0.4, 0.3], [0.3, 0.4], [0.3, 0.3]]])
        assert pruned_argmax(probs, 0.5).tolist() == [[0, 1]]

    def test_a_single_class_is_left_empty_unless_its_peak_exceeds_the_limit(self):
        probs = torch.tensor([[[0.2, 0.6, 0.7]], [[0.55, 0.9, 0.5]]])
        assert pruned_argmax(probs, 0.5).tolist() == [[[False, True, True]], [[True, True, False]]]
        assert pruned_argmax(probs, 0.7).tolist() == [[[False] * 3], [[True, True, False]]]
        assert pruned_argmax(probs, 0.2).tolist() == argmax(probs).tolist()

    def test_leaves_the_maps_as_they_are(self):
        probs = torch.rand(1, 3, 4, 4)
        before = probs.clone()
        pruned_argmax(probs, 0.9999)
        assert torch.equal(probs, before)


class TestStandardMethods:
    def test_names_say_metric_and_solver(self):
        names = [method.name for method in standard_methods(solvers=["RMA", "joint"])]
        assert names[:2] == ["argmax", "pruned argmax"]
        assert names[2:4] == ["RankSEG dice RMA", "RankSEG iou RMA"]
        assert names[4:] == ["RankSEG dice joint", "RankSEG iou joint"]

    def test_names_say_the_correlation_unless_it_is_the_published_rule(self):
        methods = standard_methods(
            metrics=["iou"], solvers=["RMA", "joint"], correlations=[0, 0.5, 0.25]
        )
        names = [" RMA", " joint", " RMA r=0.5", "", " RMA r=0.25", " joint r=0.25"]
        assert [method.name for method in methods[2:]] == ["RankSEG iou" + name for name in names]

    def test_rules_of_presence_are_named_and_arrive(self):
        methods = standard_methods(
            0.3, metrics=["iou"], solvers=["joint"], presences=["peak", "argmax", "all"]
        )
        names = [" joint", " joint presence=argmax", " joint presence=all"]
        assert [method.name for method in methods[2:]] == ["RankSEG iou" + name for name in names]
        rules = [method.decide.settings.presence for method in methods[2:]]
        assert rules == ["peak", "argmax", "all"]
        assert methods[2].decide.settings.pruning_prob == 0.3

    @pytest.mark.parametrize("pruning_prob", [0.0, 0.9])
    def test_options_arrive(self, pruning_prob):
        probs = torch.tensor(np.stack([labelled(seed)[0] for seed in range(3)])).float()
        solvers, correlations = ["RMA", "joint"], [0.0, 0.5]
        standard = standard_methods(pruning_prob, solvers=solvers, correlations=correlations)
        methods = {method.name: method for method in standard}
        for metric, solver, correlation in product(("dice", "iou"), solvers, correlations):
            name = f"RankSEG {metric}"
            if (solver, correlation) != ("joint", 0.5):
                name += f" {solver} r=0.5" if correlation else f" {solver}"
            options = {"solver": solver, "pruning_prob": pruning_prob, "correlation": correlation}
            expected = RankSEG(metric, **options)(probs)
            assert torch.equal(methods[name].decide(probs), expected)
            if correlation:  # or a name could stand for another's decision
                assert not torch.equal(
                    expected, RankSEG(metric, **options | {"correlation": 0})(probs)
                )
        pruned = methods["pruned argmax"].decide(probs)
        assert torch.equal(pruned, pruned_argmax(probs, pruning_prob))

    def test_the_correlation_is_told(self):
        methods = standard_methods(solvers=["RMA", "joint"], correlations=[0.0, 0.5])
        assert [method.correlation for method in methods] == [0] * 6 + [0.5] * 4

    def test_a_correlation_that_is_none_is_refused(self):
        with pytest.raises(ValueError, match=r"correlation must be in \[0, 1\), got 1"):
            Method("a", argmax, correlation=1)
        with pytest.raises(TypeError, match="correlation"):
            Method("a", argmax, correlation="0.5")

    def test_bad_options_are_refused(self):
        with pytest.raises(ValueError, match="pruning_prob"):
            standard_methods(pruning_prob=1.5)
        with pytest.raises(ValueError, match="metric"):
            standard_methods(metrics=["dise"])
        with pytest.raises(ValueError, match="correlation"):
            standard_methods(correlations=[1.0])


class TestTimeMethods:
    def test_methods_take_turns_and_the_first_call_is_apart(self, monkeypatch):
        calls = []
        clock = [0.0]

        def decide_in(name, seconds):
            durations = iter(seconds)

            def decide(probs):
                calls.append(name)
                clock[0] += next(durations)
                return probs

            return Method(name, decide)

        monkeypatch.setattr(_methods.time, "perf_counter", lambda: clock[0])
        methods = [decide_in("a", [9, 1, 7, 2]), decide_in("b", [8, 3, 3, 5])]
        timings = time_methods(methods, torch.zeros(1, 1, 1), repeats=3)
        assert calls == ["a", "b"] * 4
        assert (timings["a"].first, timings["a"].median) == (9, 2)
        assert (timings["b"].first, timings["b"].median) == (8, 3)
