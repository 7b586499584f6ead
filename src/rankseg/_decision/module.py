"""The module that ends a network, and the one place where its parameters are described."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from os import PathLike
from typing import Any, Literal

import torch
from torch import nn
from typing_extensions import Self, Unpack

from rankseg._common.arguments import choice, metric_name, shown
from rankseg._common.public import public
from rankseg._common.tracing import REFUSAL, is_traced
from rankseg._common.warn import warn
from rankseg._decision.calibration import Calibration
from rankseg._decision.decision import Decision, decide
from rankseg._decision.options import checked, combined, parse, refuse_misspelt
from rankseg._decision.presence_model import ABSENT
from rankseg._decision.problem import Maps, Problem
from rankseg._decision.settings import PRUNING_PROB, Settings, SolverOptions
from rankseg._decision.solve import solve

__all__ = ["RankSEG"]


def _option(name: str) -> property:
    """Let an option be read as it was checked, and be set to what some other options allow."""

    def set_checked(module: RankSEG, value: Any) -> None:
        module._options[name] = checked(name, value)

    return property(lambda module: module._options[name], set_checked)


def _solver_option(name: str, default: Any) -> property:
    """Let an item of ``solver_params`` be read and set as an attribute, too."""

    def set_checked(module: RankSEG, value: Any) -> None:
        module.solver_params[name] = checked(name, value)

    def used(module: RankSEG) -> Any:
        if module.solver_params.get(name) is not None:
            return module.solver_params[name]
        return getattr(module.settings, name, default)

    return property(used, set_checked)


@public("rankseg")
class RankSEG(nn.Module):
    r"""Decide the masks or labels that maximise the expected Dice or IoU of each image.

    The line that replaces ``probs.argmax(1)``: no retraining, no parameters, no gradient.

    Parameters
    ----------
    metric : {'dice', 'iou', 'acc'}
        What is maximised. ``'f1'`` and ``'dsc'`` are other names of ``'dice'``, ``'jaccard'`` and
        ``'miou'`` of ``'iou'``, ``'accuracy'`` of ``'acc'``. Case and surrounding blanks are
        ignored here and in every option that is a string.
    smooth : float
        Added to numerator and denominator of the metric, at least 0. With 0 the empty
        prediction scores 0.
    output_mode : {'multiclass', 'multilabel'}
        One label per pixel, or one mask per class. One channel is binary in both: a mask, or
        the same as labels 0 and 1.
    solver : str
        ``'RMA'`` maximises the reciprocal moment approximation of the expected metric for each
        class, then resolves pixels claimed by several classes or by none as published.
        ``'joint'`` (multiclass) goes on to maximise the sum over classes and never scores less.
        ``'exact'`` maximises the expected metric itself for each class. It shares pixels out as
        ``'RMA'`` does, but to classes that expect fewer than 100 pixels by what they add to the
        expected metric itself (at most 256 classes of an image, and not in a traced graph). It
        differs from RMA where a class expects few pixels. It takes 1.2 to 2.5 times the time of
        RMA, and about 2 ms of one thread for each such class.
        ``'DEP'`` [3]_ lets the labels of two pixels depend on each other, less so with their
        distance (``theta``, ``amplitude``). It starts from the decision of RMA, and changes it as
        long as its own objective rises. It cannot be exported, nor be in a traced graph.
        ``'BA'`` and ``'TRNA'`` (Dice; multilabel, or one channel) approximate the distribution of
        a class's volume instead, by a refined normal [1]_: the same for every pixel, or without
        the pixel looked at, which is closer for small regions. ``'BA+TRNA'`` takes the first for
        classes whose volume has a standard deviation above 5, else the second.
        ``'TR'`` (a threshold of 1/2, multilabel) and ``'argmax'`` are optimal for ``'acc'``.
        ``'auto'`` is ``'joint'``, or for masks ``'RMA'``, with a ``correlation`` of 0.5 for Dice
        and IoU, and ``'argmax'`` or ``'TR'`` for accuracy. The published rule is ``'RMA'``.
        ``'dataset'`` (``'auto'`` if ``rule`` is given) decides by a rule fitted to the score of a
        whole data set, in place of the mean score of the images; ``smooth`` has no effect.
    pruning_prob : float, optional
        In [0, 1], 0.5 by default. What ``presence='peak'`` asks of the largest probability of a
        class. Not used for ``'acc'``; an error beside another ``presence``.
    from_logits : {'softmax', 'sigmoid'}, optional
        What makes probabilities of the maps, which then hold logits, any finite numbers: softmax
        of classes that exclude each other, sigmoid of one channel or of classes that do not. By
        default the maps hold probabilities. The result is that of the probabilities, computed in
        float32 (in float64 for float64 logits), up to their rounding; but they are computed as
        they are read, and never all in memory.
    calibration : rankseg.calibration.Calibration or path, optional
        Makes better probabilities of the maps first: all of them, in memory, float32 or wider.
        Made by :func:`rankseg.calibration.fit`, or the file that it was saved to.
    presence : {'peak', 'argmax', 'all'} or rankseg.calibration.PresenceModel
        For RMA, joint, DEP, exact and dataset. Which classes are taken to be in an image; the
        others are given no pixel, unless there is no class at all. This is a decision, not an
        economy: it changes results. ``'peak'`` (published, the default but for dataset) takes a
        class whose largest probability exceeds ``pruning_prob``. ``'argmax'`` takes one that the
        plain decision predicts: with multiclass output the likeliest in some valid pixel (of
        equally likely classes the first), else a mask with a probability above 0.5. ``'all'``, the
        default of dataset, takes every class. A fitted model takes those that it says are likely
        enough.
        Without ``presence`` and ``pruning_prob``, the model that the calibration holds decides, if
        it holds one.
    unassigned_policy : {'max_score', 'void'}
        For RMA, joint, DEP and exact with multiclass output. What becomes of a pixel that is in no
        mask: it goes to the class, among those present, that gains most (the default), or is
        left void. With joint, a void pixel is one that would lower the objective of every class.
    void_index : int
        With multiclass output: the label of void pixels and of pixels that are not valid, 255
        by default. Must not be the label of a class.
    correlation : float
        For RMA and joint. In [0, 1): how far the labels of an image are right or wrong
        together; by default 0.5 with ``solver='auto'``, else 0, the published rule. The published
        model takes pixels to be independent, and so includes too many doubtful ones; towards 1 a
        mask comes near that of the threshold 1/2, unless most of the region is doubtful. See the
        notes.
    theta : float or sequence of float
        For DEP. The width of the kernel in pixels, above 0: the standard deviation of a Gaussian. A
        sequence holds a number for every spatial axis. ``inf`` is a kernel that does not fall with
        the distance. 300 by default, as published.
    amplitude : float
        For DEP. In [0, 1]: the kernel at distance 0. 1 by default, as published. With 0, the
        objective is that of RMA, but for the 1 in the denominator of Dice.
    eps : float
        For BA, TRNA and BA+TRNA: the probability that the volumes left out of the sums have, half
        of it at either end; between 0 and 1, 1e-4 by default.
    rule : rankseg.dataset.DatasetRule or path
        For dataset, which needs it: a rule for the same metric and output mode, or the file that it
        was saved to. Made by :meth:`rankseg.dataset.DatasetRule.fit`.
    safe_screening : bool or 'auto'
        Taken for programs written for rankseg 0.0.8 and without effect: no class is screened
        by approximate means here, and nothing needs to be.

    Raises
    ------
    TypeError
        If an option is of the wrong type, or is not one that the solver takes.
    ValueError
        If an option is not allowed, or solver, metric and output mode do not combine.

    Notes
    -----
    Options are attributes that can be set; those of some solvers are the items of the dictionary
    ``solver_params``, too. A wrong value is an error when it is set, and a misspelt name too. How
    options combine is checked at construction and at the next call.

    Given the image, labels are modelled as independent with the probabilities given. For a mask
    :math:`T` of :math:`n` pixels, with :math:`S = \sum_{i \in T} p_i`, :math:`\mu = \sum_i p_i`
    and :math:`g` = ``smooth``, RMA maximises

    .. math::
        \frac{2 S}{n + \mu + 1 + g} + \frac{g}{n + \mu + g}
        \quad\text{(Dice)},\qquad
        \frac{S + g}{n + \mu - S + g}
        \quad\text{(IoU)}

    exactly. With a ``correlation`` :math:`r`, labels share a standard normal factor :math:`z`
    (a one-factor Gaussian copula): given it they are independent with

    .. math:: p_i(z) = \Phi\Bigl(\frac{\Phi^{-1}(p_i) + \sqrt r z}{\sqrt{1 - r}}\Bigr)

    and what is maximised is the mean of the objective over 15 Gauss-Hermite values of :math:`z`,
    the sums being those of :math:`p_i(z)`. Cuts are found on a :class:`rankseg.ClassProfile`, and
    reach the largest mean but for 1e-5 for :math:`r` up to 0.9.

    Float64 sets limits. IoU with a ``smooth`` between 0 and 1e-32 may give an empty mask if all
    probabilities of the class are below 1e-16. With a ``correlation``, no pixel whose probability
    is ``2 ** -24`` or less is in a mask, but for the likeliest.

    See :func:`rankseg.expected_score` for what ``'exact'`` maximises. Linear time in pixels and
    classes. BA and TRNA are equations (13) and (12) of [1]_ with every
    term of their sums, in the time of a sort of the likelier pixels. On the CPU kernels, labels do
    not depend on the number of threads, on how images are batched, or on the layout in memory.

    References
    ----------
    .. [1] Dai and Li, "RankSEG: a consistent ranking-based framework for segmentation",
       JMLR 24(224), 2023.
    .. [2] Wang and Dai, "RankSEG-RMA", NeurIPS 2025, arXiv 2510.15362.
    .. [3] Wang and Dai, "On the Relaxation of Conditional Independence Assumption for Image
       Segmentation", NeurIPS 2026.

    Examples
    --------
    >>> import torch
    >>> from rankseg import RankSEG
    >>> probs = torch.tensor([[[0.9, 0.45, 0.4, 0.1]]])  # one image, one channel, four pixels
    >>> (probs > 0.5).int()
    tensor([[[1, 0, 0, 0]]], dtype=torch.int32)
    >>> RankSEG(metric="dice", output_mode="multilabel")(probs).int()
    tensor([[[1, 1, 1, 0]]], dtype=torch.int32)

    It can end a network:

    >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 5, 1), torch.nn.Softmax(1), RankSEG())
    >>> model(torch.rand(2, 3, 8, 8)).shape
    torch.Size([2, 8, 8])

    which may also end in its logits:

    >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 5, 1), RankSEG(from_logits="softmax"))
    >>> model(torch.rand(2, 3, 8, 8)).shape
    torch.Size([2, 8, 8])
    """

    def __init__(
        self,
        metric: str = "dice",
        smooth: float = 0.0,
        output_mode: str = "multiclass",
        solver: str = "auto",
        pruning_prob: float | None = None,
        *,
        from_logits: str | None = None,
        calibration: Calibration | str | PathLike[str] | None = None,
        **options: Unpack[SolverOptions],
    ) -> None:
        super().__init__()
        if "rule" in options:  # a file is read once, and a copy or pickle does without it
            options["rule"] = checked("rule", options["rule"])
        self.solver_params = dict(options)
        given = {
            "metric": metric,
            "smooth": smooth,
            "output_mode": output_mode,
            "solver": solver,
            "pruning_prob": pruning_prob,
            "from_logits": from_logits,
            "calibration": calibration,
        }
        self._options = {name: checked(name, value) for name, value in given.items()}
        self._parsed: tuple[object, Settings | None] = None, None
        _ = self.settings  # checks how the options combine

    metric = _option("metric")
    smooth = _option("smooth")
    output_mode = _option("output_mode")
    from_logits = _option("from_logits")
    calibration = _option("calibration")
    unassigned_policy = _solver_option("unassigned_policy", Settings.unassigned_policy)
    void_index = _solver_option("void_index", Settings.void_index)
    presence = _solver_option("presence", Settings.presence)
    correlation = _solver_option("correlation", Settings.correlation)
    theta = _solver_option("theta", Settings.theta)
    amplitude = _solver_option("amplitude", Settings.amplitude)
    eps = _solver_option("eps", Settings.eps)
    rule = _solver_option("rule", Settings.rule)
    safe_screening = _solver_option("safe_screening", False)

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute; one that is new and public is likely to be a misspelt option."""
        known = name.startswith("_") or hasattr(type(self), name) or hasattr(self, name)
        if type(self) is RankSEG and not known:  # a subclass may have attributes of its own
            refuse_misspelt(name)
        super().__setattr__(name, value)

    def __getstate__(self) -> dict[str, Any]:
        """Return what copies and pickles hold: options of their own, also in shallow copies.

        Not the settings made of them: a pickle must not name private classes.
        """
        own = {"_options": dict(self._options), "solver_params": dict(self.solver_params)}
        return self.__dict__ | own | {"_parsed": (None, None)}

    @property
    def solver_params(self) -> dict[str, Any]:
        """The options given that only some solvers take, by name."""
        params: dict[str, Any] = self.__dict__["solver_params"]
        return params

    @solver_params.setter
    def solver_params(self, value: dict[str, Any]) -> None:
        if not isinstance(value, dict):
            raise TypeError(f"solver_params must be a dict of options by name, got {shown(value)}")
        self.__dict__["solver_params"] = value

    @property
    def pruning_prob(self) -> float:
        """What a peak must exceed, 0.5 if it was not given; it matters to ``presence='peak'``."""
        given: float | None = self._options["pruning_prob"]
        return PRUNING_PROB if given is None else given

    @pruning_prob.setter
    def pruning_prob(self, value: float | None) -> None:
        self._options["pruning_prob"] = checked("pruning_prob", value)

    @property
    def solver(self) -> str:
        """The solver, ``'auto'`` replaced by the one it stands for."""
        named: str = self._options["solver"]
        if named != "auto":
            return named
        return combined(named, self.metric, self.output_mode, self.solver_params)

    @solver.setter
    def solver(self, value: str) -> None:
        self._options["solver"] = checked("solver", value)

    @property
    def settings(self) -> Settings:
        """All options as they are now, checked together.

        Raises
        ------
        TypeError, ValueError
            As at construction, if options that were changed since do not combine.
        """
        # Copied first: what another thread changes meanwhile must not seem to be checked.
        own, params = dict(self._options), dict(self.solver_params)
        # Types first: an array compares to no truth value, and True is no number.
        given = own, {name: type(value) for name, value in params.items()}, params
        before, settings = self._parsed
        if settings is None or before != given:
            settings = parse(**own, options=params)
            self._parsed = given, settings
        return settings

    @classmethod
    def recommended(
        cls, metric: str = "dice", *, absent: Literal["ignored", "zero"] = "zero", **options: Any
    ) -> Self:
        """Return the decision that scored best of those that need no labels to fit anything.

        It is the default solver with the rule of presence that suits how absent classes are scored.
        Measured on eight sets (``docs/presence.md``), mean change of Dice by image against argmax,
        in points, and the worst set: ``'zero'`` +1.06 (-0.01), ``'ignored'`` +0.99 (-0.01). IoU:
        +0.92 (-0.01) and +0.69 (-0.00). With some eighty labelled images ``rankseg calibrate`` and
        ``rankseg tune`` find more.

        Parameters
        ----------
        metric : {'dice', 'iou'}
            What is maximised.
        absent : {'zero', 'ignored'}
            How a class is scored that an image does not hold. ``'zero'``: 0 if it is predicted;
            then ``presence='peak'``. ``'ignored'``: not at all; then ``presence='argmax'``.
        **options
            Other options, such as ``from_logits``.

        Raises
        ------
        TypeError, ValueError
            If an option is not allowed.

        Examples
        --------
        >>> from rankseg import RankSEG
        >>> decide = RankSEG.recommended("iou", absent="ignored")
        >>> decide.solver, decide.correlation, decide.presence
        ('joint', 0.5, 'argmax')
        """
        options["presence"] = "peak" if choice("absent", absent, ABSENT) == "zero" else "argmax"
        return cls(metric_name(metric, ("dice", "iou")), **options)

    def save(self, path: str | PathLike[str], about: Mapping[str, Any] | None = None) -> None:
        """Write the options as JSON, with calibration, rule and model of presence inside.

        The file is there whole or not at all. `load`, ``rankseg predict --settings`` and other
        commands decide by it.

        Parameters
        ----------
        path : path-like
            The file, ``settings.json`` say.
        about : mapping, optional
            Where the options come from: what JSON can hold. ``rankseg tune`` writes cases, date and
            gain.

        Raises
        ------
        OSError
            If the file cannot be written.
        """
        from rankseg._decision.settings_file import write_settings  # few programs need it

        write_settings(path, {**self._options, **self.solver_params}, about)

    @classmethod
    def load(cls, path: str | PathLike[str], **options: Any) -> Self:
        """Return the RankSEG of the options that `save` or ``rankseg tune`` wrote.

        Parameters
        ----------
        path : path-like
            The file.
        **options
            Options that replace those of the file.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If it holds something else, or options that do not combine.

        Examples
        --------
        >>> from rankseg import RankSEG
        >>> RankSEG("iou", correlation=0.3, solver="RMA").save("settings.json")  # doctest: +SKIP
        >>> decide = RankSEG.load("settings.json", from_logits="softmax")  # doctest: +SKIP
        """
        from rankseg._decision.settings_file import read_settings  # few programs need it

        return cls(**{**read_settings(path, cls), **options})

    @torch.no_grad()
    def forward(self, probs: Maps, valid: Maps | None = None) -> Maps:
        """Decide a batch of probability maps.

        Parameters
        ----------
        probs : torch.Tensor or numpy.ndarray
            ``(batch, classes, *spatial)`` probabilities with any number of spatial axes, at
            least one; float16, bfloat16, float32 or float64; any device and strides. The batch
            may be empty. Values may exceed 1 by rounding (four units in the last place). Logits
            if ``from_logits`` says what makes probabilities of them.
        valid : torch.Tensor or numpy.ndarray, optional
            ``(batch, *spatial)`` boolean. Pixels outside (padding, ignored regions) count in no
            sum and come out as ``void_index`` or False; their probabilities are not looked at.

        Returns
        -------
        torch.Tensor or numpy.ndarray
            Of the kind that came in, on its device. Multiclass: int64 ``(batch, *spatial)``.
            Multilabel: bool ``(batch, classes, *spatial)``.

        Raises
        ------
        TypeError
            If ``probs`` is not a dense floating tensor or array, or ``valid`` not boolean.
        ValueError
            If options set since do not combine, if a shape does not fit, if the solver decides one
            channel only and there are more, if ``void_index`` is a class, if a probability is NaN,
            infinite or outside [0, 1], if ``theta`` is for another number of axes, if a logit is
            not finite or is to be softmax over one channel, or if labels are decided and
            probabilities sum to 1 over another axis than the
            classes. A traced graph (``torch.compile``, ``torch.export``) cannot look at values, and
            does not.
        RuntimeError
            If a graph is to hold DEP, BA, TRNA or BA+TRNA, which cannot be traced.

        Warns
        -----
        UserWarning
            If some 64 sampled pixels tell that the classes are on another axis, that labels are
            decided from probabilities that do not sum to 1 over the classes, or that the maps are
            probabilities though ``from_logits`` is given. If ``'argmax'`` decides masks.
        """
        settings = self.settings
        masks_of_labels = settings.solver == "argmax" and settings.output_mode == "multilabel"
        if masks_of_labels and not is_traced():
            warn(
                "solver='argmax' with output_mode='multilabel' puts every pixel into one mask; to "
                "threshold every class at 1/2, pass solver='TR'"
            )
        decision: Maps = solve(Problem.parse(probs, valid, settings))
        return decision

    def predict(self, probs: Maps, valid: Maps | None = None) -> Maps:
        """Decide a batch of probability maps: the same as calling the module."""
        decision: Maps = self(probs, valid)
        return decision

    @torch.no_grad()
    def decide(self, probs: Maps, valid: Maps | None = None) -> Decision:
        """Decide, and tell what the decision is expected to score, without any labels.

        Takes some hundred times as long as a call: every probability is looked at more than once,
        in float64. Arguments and errors are those of a call; the metric must not be ``'acc'``, nor
        the correlation exceed 0.999999.

        Examples
        --------
        >>> import torch
        >>> from rankseg import RankSEG
        >>> probs = torch.tensor([[[0.9, 0.45, 0.4, 0.1]]])
        >>> decision = RankSEG("dice", output_mode="multilabel").decide(probs)
        >>> decision.prediction.int(), decision.volume, decision.cut
        (tensor([[[1, 1, 1, 0]]], dtype=torch.int32), tensor([[3]]), tensor([[0.1000]]...))
        >>> f"{decision.expected.item():.3f} instead of {decision.expected_argmax.item():.3f}"
        '0.670 instead of 0.654'
        """
        return decide(probs, valid, self.settings)

    def __prepare_scriptable__(self) -> None:
        """Refuse ``torch.jit.script``, which asks for what it is to compile."""
        raise RuntimeError(REFUSAL.format("torch.jit.script"))

    def extra_repr(self) -> str:
        """Show the options in ``repr``, ``'auto'`` replaced by the solver it stands for."""
        options = self._options | {"solver": self.solver, "pruning_prob": self.pruning_prob}
        with contextlib.suppress(TypeError, ValueError):  # options that do not combine
            if self.settings.correlation:
                options["correlation"] = self.settings.correlation
            if self.settings.presence != "peak":
                del options["pruning_prob"]  # of no effect, and refused beside this
        options |= self.solver_params
        return ", ".join(f"{name}={value!r}" for name, value in options.items())
