"""MMSegmentation: the decision in place of argmax, in a config or on a model that was built.

Every segmentor decides in ``postprocess_result``, behind prediction, validation and testing alike,
on scores that are stitched, freed of padding and resized. There the decision is replaced.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from torch import Tensor, nn

from rankseg._common.arguments import choice, describe
from rankseg._common.warn import one_of_a_kind
from rankseg._decision.module import RankSEG
from rankseg.integration.common import (
    KINDS,
    keeps_dtype,
    require,
    to_probabilities,
    widened,
    with_settings,
)

__all__ = ["RankSEGEncoderDecoder", "disable", "enable", "kind_of"]

QUERY_HEADS = {"MaskFormerHead", "Mask2FormerHead", "SideAdapterCLIPHead"}
"""Heads whose scores are sums over queries, already of probabilities, by their class names."""

Model = TypeVar("Model")
Postprocess = Callable[..., Any]


def enable(
    model: Model, metric: str | None = None, *, kind: str | None = None, **rankseg_kwargs: Any
) -> Model:
    """Let a built segmentor decide with RankSEG, in prediction, validation and testing.

    Parameters
    ----------
    model : mmseg segmentor or MMSegInferencer
        Any segmentor of MMSegmentation: what ``init_model`` or ``MODELS.build`` returns, or an
        inferencer, of which the model is changed. Enabled again, it takes the new options.
    metric : {'dice', 'iou', 'acc'}, optional
        What is maximised: by default what ``settings`` says, or else Dice.
    kind : {'softmax', 'sigmoid', 'query_sums', 'probabilities'}, optional
        What the scores of more than one class are; by default what :func:`kind_of` says. Ignored
        for one channel, of which MMSegmentation makes probabilities itself.
    **rankseg_kwargs
        Further options of :class:`rankseg.RankSEG`, but for ``output_mode`` and ``from_logits``;
        ``settings``, a file that ``rankseg tune`` wrote.

    Returns
    -------
    model
        The same object. ``seg_logits`` are what they were, but half precision is widened to float32
        before it is resized, except for accuracy. ``pred_sem_seg.data`` has the shape and dtype of
        MMSegmentation: int64 ``(1, H, W)``, or for one channel 0 and 1 in the floating dtype of the
        scores. The ``threshold`` of the head is not used.

    Raises
    ------
    TypeError
        If ``model`` is no segmentor, or one that does not segment or decides elsewhere (depth
        estimation, test-time augmentation), or an option is of the wrong type.
    ValueError
        If an option is not allowed. When deciding: if one channel holds sums over queries.
    ImportError
        If MMSegmentation is not installed.

    Examples
    --------
    >>> from mmseg.apis import inference_model, init_model  # doctest: +SKIP
    >>> from rankseg.integration.mmseg import enable
    >>> model = enable(init_model(config, checkpoint), metric="dice")  # doctest: +SKIP
    >>> inference_model(model, "image.png").pred_sem_seg.data  # doctest: +SKIP
    """
    segmentor = _segmentor(model)
    decision = _Decision(metric, kind, rankseg_kwargs)
    segmentor.postprocess_result = _Postprocess(segmentor, decision)
    return model


def disable(model: Model) -> Model:
    """Give a segmentor back the decision of its class; without effect if none was enabled."""
    vars(_segmentor(model)).pop("postprocess_result", None)
    return model


def kind_of(model: Any) -> str:
    """Say what the scores of a segmentor are, of those that :func:`enable` takes.

    ``'query_sums'`` for the heads MaskFormer, Mask2Former and SAN, and those derived from them;
    ``'sigmoid'`` for a head trained with a loss that has ``use_sigmoid``; else ``'softmax'``.
    """
    head = _segmentor(model).decode_head
    if isinstance(head, nn.ModuleList):  # a cascade, which ends in the last
        head = head[-1]
    if QUERY_HEADS & {kind.__name__ for kind in type(head).__mro__}:
        return "query_sums"
    losses = getattr(head, "loss_decode", None)
    losses = losses if isinstance(losses, nn.ModuleList) else [losses]
    return "sigmoid" if any(getattr(loss, "use_sigmoid", False) for loss in losses) else "softmax"


def _segmentor(model: Any) -> Any:
    """Return the segmentor: the model itself, or the model of an inferencer."""
    segmentors = require("mmseg.models.segmentors", "mmseg", "deciding in MMSegmentation")
    segmentor = model if isinstance(model, nn.Module) else getattr(model, "model", model)
    refused = isinstance(segmentor, segmentors.DepthEstimator)
    if refused or not isinstance(segmentor, segmentors.BaseSegmentor):
        raise TypeError(
            "model must be a segmentor of MMSegmentation or an MMSegInferencer (a SegTTAModel "
            f"decides itself, after averaging; a DepthEstimator has no classes), got "
            f"{describe(model)}"
        )
    return segmentor


class _Decision:
    """The decision of one image from the scores that MMSegmentation stores."""

    def __init__(self, metric: str | None, kind: str | None, options: dict[str, Any]) -> None:
        options = with_settings(options if metric is None else {"metric": metric, **options})
        fixed = {"output_mode", "from_logits"} & options.keys()
        if fixed:
            raise ValueError(f"{sorted(fixed)} follow from the model and cannot be set")
        self.kind = None if kind is None else choice("kind", kind, KINDS)
        self.decide = partial(RankSEG, **options)
        self.keep_dtype = keeps_dtype(self.decide())  # building RankSEG refuses wrong options now

    def prepared(self, seg_logits: Tensor) -> Tensor:
        """Return the scores of the network in the dtype in which they are to be resized."""
        return seg_logits if self.keep_dtype else widened(seg_logits)

    def __call__(self, scores: Tensor, kind: str) -> Tensor:
        """Decide from scores ``(channels, H, W)``, to ``(1, H, W)``."""
        kind = self.kind or kind
        if len(scores) == 1:
            if kind == "query_sums":
                raise ValueError(
                    "kind='query_sums' needs two classes or more: of one channel MMSegmentation "
                    "takes the sigmoid, and that of a sum of probabilities is no probability"
                )
            mask: Tensor = self.decide()(scores[None])
            return mask.to(scores)
        link = kind if kind in ("softmax", "sigmoid") else None
        probs = scores[None] if link else to_probabilities(scores[None], kind)
        labels: Tensor = self.decide(from_logits=link)(probs)
        return labels


class _Postprocess:
    """``postprocess_result`` of one segmentor: a class, so models can be copied and pickled."""

    def __init__(self, segmentor: Any, decision: _Decision) -> None:
        self.segmentor = segmentor
        self.decision = decision

    def __call__(self, seg_logits: Tensor, data_samples: Any = None) -> Any:
        own = type(self.segmentor).postprocess_result
        samples = own(self.segmentor, self.decision.prepared(seg_logits), data_samples)
        return _decide(samples, self.decision, kind_of(self.segmentor))


@one_of_a_kind()
def _decide(samples: Any, decision: _Decision, kind: str) -> Any:
    """Replace the prediction in every sample by RankSEG's, from the scores in the sample."""
    for sample in samples:
        sample.pred_sem_seg.data = decision(sample.seg_logits.data, kind)
    return samples


if importlib.util.find_spec("mmseg"):  # a config imports this module to register the class
    from mmseg.models.segmentors import EncoderDecoder
    from mmseg.registry import MODELS

    @MODELS.register_module()
    class RankSEGEncoderDecoder(EncoderDecoder):  # type: ignore[misc]
        """The segmentor ``EncoderDecoder`` with the decision replaced, for configs.

        Parameters
        ----------
        rankseg : dict, optional
            The options of :func:`enable`, ``dict(metric="dice")`` by default.
        **kwargs
            The arguments of ``EncoderDecoder``.

        Examples
        --------
        In a config:

        >>> custom_imports = dict(imports=["rankseg.integration.mmseg"])
        >>> model = dict(type="RankSEGEncoderDecoder", rankseg=dict(metric="iou"))
        """

        def __init__(self, *args: Any, rankseg: dict[str, Any] | None = None, **kwargs: Any):
            super().__init__(*args, **kwargs)
            options = dict(rankseg or {})
            self._decision = _Decision(
                options.pop("metric", None), options.pop("kind", None), options
            )

        def postprocess_result(self, seg_logits: Tensor, data_samples: Any = None) -> Any:
            """Return the result of ``EncoderDecoder``, with ``pred_sem_seg`` decided by RankSEG."""
            seg_logits = self._decision.prepared(seg_logits)
            samples = super().postprocess_result(seg_logits, data_samples)
            return _decide(samples, self._decision, kind_of(self))

else:

    def __getattr__(name: str) -> Any:
        if name == "RankSEGEncoderDecoder":
            require("mmseg", "mmseg", "RankSEGEncoderDecoder")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
