"""Networks in files or on the Hugging Face Hub, from images to decisions."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rankseg._common.arguments import number
from rankseg._common.warn import warn
from rankseg._decision.module import RankSEG
from rankseg.integration.common import check_channels_first, require, resize
from rankseg.integration.transformers import postprocess

__all__ = ["Decider", "load_network", "load_transformers", "run_transformers", "to_pixels"]

Decider: TypeAlias = Callable[..., Tensor]
"""From an image or maps ``(channels, *spatial)`` to labels or masks.

Maps may come with where they have data, boolean ``(*spatial)``.
"""

SCRIPTED: Final = (".pt", ".torchscript")
EXPORTED: Final = ".pt2"
WEIGHTS: Final = (".pth", ".ckpt", ".bin", ".safetensors", ".onnx", ".h5", ".keras", ".pkl")
"""Endings of files that hold weights alone, or a network of another framework."""

MODES: Final = ("train", "training", "use_input_stats")
"""What operations call the argument that is true in training."""

RANDOM: Final = ("aten::rand", "aten::rand_like", "aten::bernoulli", "aten::bernoulli_")
"""Operations by which stochastic depth skips layers; a network in evaluation has none of them."""

DIFFER_IN_TRAINING: Final = (
    *("aten::dropout", "aten::feature_dropout", "aten::alpha_dropout"),
    *("aten::batch_norm", "aten::instance_norm"),
)
"""Operations of TorchScript; in a traced network their mode is a constant."""

MOST_OF_UNIT: Final = 4.0
"""A larger mean or standard deviation is one of images in [0, 255]."""

SCORES: Final = ("out", "logits")
"""The names under which networks that return a dictionary have their scores."""


def load_network(
    model: str,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    options: Mapping[str, Any],
) -> Decider:
    """Load a network; what it returns decides images ``(3, height, width)`` in [0, 1]."""
    suffix = Path(model).suffix.lower()
    if suffix not in (*SCRIPTED, EXPORTED):
        if suffix in WEIGHTS or Path(model).is_file():
            raise ValueError(
                f"model must be a file of torch.jit.save ({' or '.join(SCRIPTED)}) or of "
                f"torch.export.save ({EXPORTED}), or a folder or the id of a model on the Hugging "
                f"Face Hub, got {model}: weights alone do not say what to compute, so load them "
                "into their network and save that with torch.export.save; a file of torch.jit.save "
                "needs the ending .pt"
            )
        if mean is not None or std is not None:
            raise ValueError("mean and std follow from a model of Transformers: leave them out")
        return _transformers(model, options)
    if not Path(model).is_file():
        raise FileNotFoundError(f"there is no file {model} to load the model from")
    decide = RankSEG(**options)
    shift, scale = _channels("mean", mean, 0.0), _channels("std", std, 1.0)
    if not (scale > 0).all():
        raise ValueError(f"std must be positive, got {std}")
    if max(shift.abs().max(), scale.max()) > MOST_OF_UNIT:
        raise ValueError(
            f"mean and std must be those of images in [0, 1], got {mean} and {std}: divide them by "
            "255"
        )
    network = _load(model, exported=suffix == EXPORTED)

    @torch.inference_mode()
    def decide_image(image: Tensor) -> Tensor:
        scores = _scores(_run(network, ((image - shift) / scale)[None]))
        check_channels_first("what the model returns", scores, [image.shape[1:]])
        decided: Tensor = decide(resize(scores, image.shape[1:]))[0]
        return decided

    return decide_image


def _load(model: str, exported: bool) -> Any:
    try:
        if exported:
            with _silent("torch.export"):
                program = torch.export.load(model)
            _warn_of_training(model, _exported_calls(program))
            return program.module()
        with warnings.catch_warnings():  # it is deprecated, and files of it are there all the same
            warnings.simplefilter("ignore", DeprecationWarning)
            network = torch.jit.load(model, map_location="cpu").eval()
        _warn_of_training(model, _scripted_calls(network))
        return network
    except Exception as error:  # a broken file may raise anything
        kind = "torch.export.save" if exported else "torch.jit.save"
        raise ValueError(
            f"{model} cannot be loaded as a file of {kind}: it is damaged, or of another kind "
            f"({_last_line(error).partition('. ')[0]})"
        ) from error


def _warn_of_training(model: str, calls: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
    """Warn of a network that was saved in training mode, which ``eval()`` cannot change."""
    found = {
        name
        for name, given in calls
        if (name in RANDOM or any(given.get(mode) is True for mode in MODES))
        and given.get("p") != 0  # dropout of nothing
        and given.get("running_mean", model) is not None  # normalises so in evaluation, too
    }
    if found:
        warn(
            f"{model} was saved in training mode, in which its {sorted(found)} give other scores "
            "at every run or for every image; call eval() on the network and save it again"
        )


def _exported_calls(program: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the operations of an exported program and their arguments by name."""
    for node in program.graph.nodes:
        schema = getattr(node.target, "_schema", None)
        if schema is not None:
            names = (argument.name for argument in schema.arguments)
            yield schema.name, dict(zip(names, node.args, strict=False)) | node.kwargs


def _scripted_calls(network: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the operations of TorchScript that differ in training, as `_exported_calls` does."""
    graph = network.inlined_graph
    for name in (*DIFFER_IN_TRAINING, *RANDOM):  # a branch of a script may not be taken
        for node in graph.findAllNodes(name, recurse=name not in RANDOM):
            names = [argument.name for argument in torch._C.parse_schema(node.schema()).arguments]
            values = map(_constant, node.inputs())
            yield name, dict(zip(names, values, strict=True))


def _constant(value: Any) -> Any:
    """Return what a value of TorchScript is, if its graph says it; else the value."""
    return value.toIValue() if value.node().kind() == "prim::Constant" else value


@contextlib.contextmanager
def _silent(name: str) -> Iterator[None]:
    """Hold back what torch logs of an error that it raises, too."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _last_line(error: Exception) -> str:
    """Return the line of a message that says what is wrong, after the traceback of a model."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _channels(name: str, values: Sequence[float] | None, default: float) -> Tensor:
    """Return one number for each colour, to be broadcast over an image."""
    given = [default] if values is None else list(values)
    if len(given) not in (1, 3):
        raise ValueError(f"{name} must be one number or three, got {given}")
    checked = [number(name, value, -1e9, 1e9) for value in given]
    return torch.tensor(checked, dtype=torch.float32, device="cpu").view(-1, 1, 1)


def _run(network: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    try:
        return network(*args, **kwargs)
    except Exception as error:  # whatever its operations raise
        reason = _last_line(error)
        if reason.startswith("Guard failed"):
            reason += "; it was exported for images of other sizes: export it with dynamic ones"
        raise ValueError(f"the model failed: {reason}") from error


def _scores(outputs: Any) -> Tensor:
    """Return the scores ``(1, classes, height, width)`` of what a network returned."""
    if isinstance(outputs, Mapping):
        names = [name for name in SCORES if name in outputs]
        if not names:
            raise ValueError(f"the model must return one of {SCORES}, got {list(outputs)}")
        outputs = outputs[names[0]]
    if not isinstance(outputs, Tensor) or outputs.ndim != 4 or len(outputs) != 1:
        shape = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise ValueError(f"the model must return (1, classes, height, width), got {shape}")
    return outputs


def load_transformers(model: str) -> tuple[Any, Any]:
    """Load a model of Transformers and its processor, from a folder or by its id."""
    transformers = require("transformers", "transformers", "a model of Hugging Face")
    try:
        config = transformers.AutoConfig.from_pretrained(model)
        known = transformers.AutoModelForSemanticSegmentation
        if type(config) not in transformers.MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING:  # Mask2Former
            known = transformers.AutoModelForUniversalSegmentation
        network = known.from_pretrained(model).eval()
        processor = transformers.AutoImageProcessor.from_pretrained(model)
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(
            f"model must be a .pt or .pt2 file, or a folder or the id of a segmentation model on "
            f"the Hugging Face Hub, got {model}: {error}"
        ) from error
    return network, processor


def to_pixels(image: Tensor) -> NDArray[np.uint8]:
    """Return an image ``(3, height, width)`` in [0, 1] as ``(height, width, 3)`` of bytes."""
    pixels: NDArray[np.uint8] = (image * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    return pixels


@torch.inference_mode()
def run_transformers(network: Any, processor: Any, image: Tensor) -> Any:
    """Return what a model of Transformers gives for an image ``(3, height, width)`` in [0, 1].

    Of processors that crop the centre (MobileViT, MobileNetV2) the whole image is taken: scores of
    a crop would be stretched over the image.
    """
    whole = {"do_center_crop": False} if getattr(processor, "do_center_crop", None) else {}
    inputs = processor(
        images=to_pixels(image), return_tensors="pt", input_data_format="channels_last", **whole
    )
    return _run(network, **inputs)


def _transformers(model: str, options: Mapping[str, Any]) -> Decider:
    """Return what decides images by a model of Transformers."""
    RankSEG(**options)  # before the work
    if "from_logits" in options:
        raise TypeError("from_logits follows from a model of Transformers: leave it out")
    network, processor = load_transformers(model)

    def decide_image(image: Tensor) -> Tensor:
        (decided,) = postprocess(
            run_transformers(network, processor, image),
            model=network,
            target_sizes=[tuple(image.shape[1:])],
            rankseg_kwargs=options,
        )
        return decided

    return decide_image
