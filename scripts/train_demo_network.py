"""Draw synthetic images, train a small U-Net on them, write the sample of ``rankseg demo``.

Run ``python scripts/train_demo_network.py`` to rebuild ``sample.npz`` and the network's weights,
``network.npz``, in ``src/rankseg/_demo``; it takes about twelve minutes on one CPU core.
Both are made here from start to finish: no outside images, no outside weights.

The network is trained with plain unweighted cross-entropy on a stream of freshly drawn images, and
the sample comes from seeds it never saw. No decision rule is evaluated while training, other than
the argmax reported at the end, so that nothing in the data is chosen to favour one.
"""

from __future__ import annotations

import argparse
import io
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from rankseg._demo.network import MID_GREY, SmallUNet, centred
from rankseg._files.whole import write_whole

FloatArray = npt.NDArray[np.float32]
ByteArray = npt.NDArray[np.uint8]

SIZE = 128
CLASSES = ("background", "organ", "gland", "tumour", "vessel", "lesion")
BACKGROUND, ORGAN, GLAND, TUMOUR, VESSEL, LESION = range(len(CLASSES))

# Mean RGB in [0, 1]. The shades are close on purpose: with the jitter, the translucency and the
# uneven light, tissue is told apart by texture, shape and place as well as by colour.
PALETTE = {
    BACKGROUND: (0.30, 0.25, 0.27),
    ORGAN: (0.60, 0.37, 0.35),
    GLAND: (0.62, 0.52, 0.34),
    TUMOUR: (0.52, 0.38, 0.50),
    VESSEL: (0.60, 0.20, 0.24),
    LESION: (0.88, 0.74, 0.58),
}
FAR_OUTSIDE = -100.0  # a depth in pixels at which no object shows, whatever its margin
DEBRIS_COLOUR = (0.76, 0.76, 0.74)

# The chance that an image holds at least one object of the class.
PRESENCE = {ORGAN: 0.85, GLAND: 0.55, TUMOUR: 0.55, VESSEL: 0.65, LESION: 0.65}

# The first word of every image's seed: the three streams never share an image.
TRAIN_STREAM, VALIDATION_STREAM, SAMPLE_STREAM = range(3)

BATCH_SIZE = 8
PEAK_LEARNING_RATE = 1e-2
VALIDATION_IMAGES = 128
SAMPLE_IMAGES = 28
# Probabilities are stored to the nearest multiple of this. It is the spacing of float16 between 1/4
# and 1/2, so only smaller values are touched; their digits are most of what compression cannot
# shrink.
PROBABILITY_STEP = 2.0**-12
DEFAULT_OUTPUT = Path(__file__).resolve().parents[1] / "src" / "rankseg" / "_demo"

ROWS, COLUMNS = np.mgrid[:SIZE, :SIZE].astype(np.float32)


# The image generator


@dataclass
class Scene:
    """An image being painted, ``pixels`` (H, W, 3) in [0, 1], and its ``labels`` (H, W)."""

    pixels: FloatArray
    labels: ByteArray


@dataclass(frozen=True)
class Paint:
    """How an object looks: its mean colour, how opaque it is, and its margin and texture.

    ``margin`` is the width, in pixels, over which the object fades into what lies beneath; the
    label's contour is where it has faded by half. ``texture`` is the standard deviation of its
    noise and ``grain`` that noise's spectral exponent: the larger, the smoother.
    """

    colour: tuple[float, float, float]
    opacity: float
    margin: float
    texture: float = 0.0
    grain: float = 1.0


def smooth_noise(rng: np.random.Generator, grain: float) -> FloatArray:
    """Gaussian noise (H, W) of unit variance whose spectrum falls as frequency ** -grain."""
    spectrum = np.fft.rfft2(rng.standard_normal((SIZE, SIZE)))
    radius = np.hypot(np.fft.fftfreq(SIZE)[:, None], np.fft.rfftfreq(SIZE)[None, :])
    radius[0, 0] = np.inf  # no constant term: textures do not change the mean colour
    noise = np.fft.irfft2(spectrum * radius**-grain, s=(SIZE, SIZE))
    return np.asarray(noise / noise.std(), dtype=np.float32)


def blurred(pixels: FloatArray, sigma: float) -> FloatArray:
    """Convolve every channel with a Gaussian of ``sigma`` pixels, reflecting at the border."""
    pad = 8  # over four sigmas: the wrap-around of the Fourier product stays outside the image
    padded = np.pad(pixels, ((pad, pad), (pad, pad), (0, 0)), mode="reflect")
    side = SIZE + 2 * pad
    row_frequency, column_frequency = np.fft.fftfreq(side), np.fft.rfftfreq(side)
    squared = row_frequency[:, None] ** 2 + column_frequency[None, :] ** 2
    transfer = np.exp(-2 * (np.pi * sigma) ** 2 * squared)
    spectrum = np.fft.rfft2(padded, axes=(0, 1)) * transfer[..., None]
    result = np.fft.irfft2(spectrum, s=(side, side), axes=(0, 1))
    return result[pad:-pad, pad:-pad].astype(np.float32)


def window(centre: tuple[float, float], reach: int) -> tuple[slice, slice]:
    """Slice the square of ``reach`` pixels around a point, cut at (or wholly off) the border."""
    first = [max(int(at) - reach, 0) for at in centre]
    last = [max(int(at) + reach + 1, 0) for at in centre]
    return slice(first[0], last[0]), slice(first[1], last[1])


def blob_depth(
    rng: np.random.Generator, centre: tuple[float, float], radius: float, roughness: float
) -> FloatArray:
    """Depth in pixels (H, W), positive inside, of an ellipse with a wavy contour."""
    stretch = np.exp(rng.uniform(-0.3, 0.3))
    turn = rng.uniform(0, np.pi)
    near = window(centre, int(2.2 * radius) + 20)
    down, right = ROWS[near] - centre[0], COLUMNS[near] - centre[1]
    along = (np.cos(turn) * right + np.sin(turn) * down) / stretch
    across = (np.cos(turn) * down - np.sin(turn) * right) * stretch
    angle = np.arctan2(across, along)
    contour = np.ones_like(angle)
    for harmonic in range(2, 7):
        amplitude = roughness * rng.normal() / harmonic
        contour += amplitude * np.cos(harmonic * angle + rng.uniform(0, 2 * np.pi))
    depth = np.full((SIZE, SIZE), FAR_OUTSIDE, dtype=np.float32)
    depth[near] = radius * contour - np.hypot(along, across)
    return depth


def tube_depth(rng: np.random.Generator) -> FloatArray:
    """Depth in pixels (H, W), positive inside, of a thin curved tube that tapers."""
    count, stride = int(rng.integers(25, 75)), 2.0
    # A moving sum over nine points makes the curvature drift instead of jitter.
    turns = np.convolve(rng.normal(0, 0.04, count + 8), np.ones(9), mode="valid")
    heading = rng.uniform(0, 2 * np.pi) + np.cumsum(turns)
    row = rng.uniform(0.1, 0.9) * SIZE + np.cumsum(np.sin(heading)) * stride
    column = rng.uniform(0.1, 0.9) * SIZE + np.cumsum(np.cos(heading)) * stride
    half_width = np.linspace(rng.uniform(1.4, 2.8), rng.uniform(0.6, 1.2), count)
    depth = np.full((SIZE, SIZE), FAR_OUTSIDE, dtype=np.float32)
    for k in range(count):
        near = window((row[k], column[k]), 12)
        distance = np.hypot(ROWS[near] - row[k], COLUMNS[near] - column[k])
        depth[near] = np.maximum(depth[near], half_width[k] - distance)
    return depth


def paint_object(rng: np.random.Generator, scene: Scene, depth: FloatArray, paint: Paint) -> None:
    """Blend an object of the given ``depth`` (H, W) into the pixels of ``scene``."""
    faded = np.clip(depth / paint.margin, -30, 30)  # exp must not overflow
    alpha = paint.opacity / (1 + np.exp(-faded))
    colour = np.asarray(paint.colour) + rng.normal(0, 0.025, 3)
    target = np.broadcast_to(colour.astype(np.float32), scene.pixels.shape)
    if paint.texture > 0:
        target = target + paint.texture * smooth_noise(rng, paint.grain)[..., None]
    scene.pixels += alpha[..., None] * (target - scene.pixels)


def anywhere(rng: np.random.Generator, border: float) -> tuple[float, float]:
    """Draw a point uniformly, at least ``border`` pixels inside the image."""
    row, column = rng.uniform(border, SIZE - border, 2)
    return float(row), float(column)


def draw_background(rng: np.random.Generator) -> Scene:
    texture = rng.uniform(0.03, 0.07) * smooth_noise(rng, 1.6)
    colour = np.asarray(PALETTE[BACKGROUND]) + rng.normal(0, 0.02, 3)
    pixels = colour.astype(np.float32) + texture[..., None]
    return Scene(pixels.astype(np.float32), np.zeros((SIZE, SIZE), dtype=np.uint8))


def draw_organs(rng: np.random.Generator, scene: Scene) -> None:
    """Draw one or two large regions, often cut by the border."""
    for _ in range(int(rng.integers(1, 3))):
        depth = blob_depth(rng, anywhere(rng, 20), rng.uniform(20, 42), 0.18)
        margin = rng.uniform(0.8, 3.5)
        paint = Paint(PALETTE[ORGAN], rng.uniform(0.5, 1.0), margin, 0.04, 1.5)
        paint_object(rng, scene, depth, paint)
        scene.labels[depth > 0] = ORGAN


def draw_glands(rng: np.random.Generator, scene: Scene) -> None:
    """Draw one or two objects of medium size, rather round and of smooth texture."""
    for _ in range(int(rng.integers(1, 3))):
        depth = blob_depth(rng, anywhere(rng, 12), rng.uniform(8, 18), 0.1)
        margin = rng.uniform(0.6, 2.0)
        paint = Paint(PALETTE[GLAND], rng.uniform(0.5, 1.0), margin, 0.03, 2.0)
        paint_object(rng, scene, depth, paint)
        scene.labels[depth > 0] = GLAND


def draw_tumour(rng: np.random.Generator, scene: Scene) -> None:
    """Draw one ragged object of medium size, of coarse texture and infiltrating margin."""
    depth = blob_depth(rng, anywhere(rng, 16), rng.uniform(6, 17), 0.35)
    margin = rng.uniform(1.0, 4.0)
    paint = Paint(PALETTE[TUMOUR], rng.uniform(0.5, 1.0), margin, 0.08, 1.0)
    paint_object(rng, scene, depth, paint)
    scene.labels[depth > 0] = TUMOUR


def draw_vessels(rng: np.random.Generator, scene: Scene) -> None:
    """Draw one to three tubes, two to six pixels wide."""
    for _ in range(int(rng.integers(1, 4))):
        depth = tube_depth(rng)
        margin = rng.uniform(0.4, 0.9)
        paint = Paint(PALETTE[VESSEL], rng.uniform(0.4, 1.0), margin, 0.02, 1.5)
        paint_object(rng, scene, depth, paint)
        scene.labels[depth > 0] = VESSEL


def draw_lesions(rng: np.random.Generator, scene: Scene) -> None:
    """Draw one to six blobs of about 4 to 60 pixels."""
    for _ in range(int(rng.integers(1, 7))):
        depth = blob_depth(rng, anywhere(rng, 4), rng.uniform(1.3, 4.3), 0.12)
        margin = rng.uniform(0.4, 1.2)
        paint = Paint(PALETTE[LESION], rng.uniform(0.4, 1.0), margin)
        paint_object(rng, scene, depth, paint)
        scene.labels[depth > 0] = LESION


def draw_debris(rng: np.random.Generator, scene: Scene) -> None:
    """Draw up to three specks that look much like lesions and are not labelled."""
    for _ in range(int(rng.integers(0, 4))):
        depth = blob_depth(rng, anywhere(rng, 4), rng.uniform(0.8, 2.5), 0.12)
        margin = rng.uniform(0.4, 1.2)
        paint = Paint(DEBRIS_COLOUR, rng.uniform(0.2, 0.8), margin)
        paint_object(rng, scene, depth, paint)


def cast_shadow(rng: np.random.Generator, scene: Scene) -> None:
    """Darken a band, as behind bone in ultrasound; the labels beneath stay what was drawn."""
    turn = rng.uniform(0, np.pi)
    row, column = anywhere(rng, 0)
    offset = np.cos(turn) * (ROWS - row) + np.sin(turn) * (COLUMNS - column)
    depth = rng.uniform(4, 12) - np.abs(offset)
    alpha = rng.uniform(0.4, 0.85) / (1 + np.exp(-np.clip(depth / 2.5, -30, 30)))
    scene.pixels += alpha[..., None].astype(np.float32) * (np.float32(0.08) - scene.pixels)


def acquire(rng: np.random.Generator, pixels: FloatArray) -> ByteArray:
    """Blur, uneven light, contrast loss and noise of a camera: the uint8 image (H, W, 3)."""
    soft = blurred(pixels, rng.uniform(0.5, 1.5))
    slope = rng.uniform(-0.3, 0.3, 2)
    light = 1 + slope[0] * (ROWS / SIZE - 0.5) + slope[1] * (COLUMNS / SIZE - 0.5)
    light = np.asarray(light + 0.06 * smooth_noise(rng, 3.0), dtype=np.float32)
    contrast = rng.uniform(0.7, 1.3)
    brightness = MID_GREY + rng.uniform(0.0, 0.12)
    exposed = brightness + contrast * (soft * light[..., None] - MID_GREY)
    strength = rng.uniform(0.015, 0.06)
    grey_noise = rng.standard_normal((SIZE, SIZE, 1), dtype=np.float32)
    colour_noise = rng.standard_normal((SIZE, SIZE, 3), dtype=np.float32)
    noisy = exposed + strength * (grey_noise + 0.4 * colour_noise)
    levels: ByteArray = np.round(np.clip(noisy, 0, 1) * 255).astype(np.uint8)
    return levels


def draw_image(stream: int, index: int) -> tuple[ByteArray, ByteArray]:
    """Draw image number ``index`` of a stream: uint8 pixels (H, W, 3) and labels (H, W)."""
    rng = np.random.default_rng((stream, index))
    scene = draw_background(rng)
    draw_class = {
        ORGAN: draw_organs,
        GLAND: draw_glands,
        TUMOUR: draw_tumour,
        VESSEL: draw_vessels,
        LESION: draw_lesions,
    }
    for label, draw in draw_class.items():
        if rng.random() < PRESENCE[label]:
            draw(rng, scene)
    draw_debris(rng, scene)
    if rng.random() < 0.3:
        cast_shadow(rng, scene)
    return acquire(rng, scene.pixels), scene.labels


def draw_batch(stream: int, first: int, count: int) -> tuple[ByteArray, ByteArray]:
    """Draw consecutive images of a stream: pixels (N, H, W, 3) and labels (N, H, W)."""
    drawn = [draw_image(stream, index) for index in range(first, first + count)]
    return np.stack([image for image, _ in drawn]), np.stack([labels for _, labels in drawn])


# The network and its training


def network_input(images: ByteArray) -> Tensor:
    """Turn uint8 images (N, H, W, 3) into centred float32 (N, 3, H, W)."""
    scaled = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    return centred(scaled / 255)


@torch.inference_mode()
def predict(network: SmallUNet, images: ByteArray) -> Tensor:
    """Log-probabilities (N, C, H, W) of uint8 images (N, H, W, 3)."""
    network.eval()
    chunks = [network(network_input(images[k : k + 16])) for k in range(0, len(images), 16)]
    return F.log_softmax(torch.cat(chunks), dim=1)


def validation_loss(network: SmallUNet, images: ByteArray, labels: ByteArray) -> float:
    """Mean negative log-likelihood per pixel, in nats."""
    target = torch.from_numpy(labels).long()
    return float(F.nll_loss(predict(network, images), target))


def train(steps: int) -> SmallUNet:
    """Train with cross-entropy on an endless stream of images, printing validation losses."""
    torch.manual_seed(0)
    network = SmallUNet(len(CLASSES))
    optimiser = torch.optim.Adam(network.parameters(), lr=PEAK_LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=PEAK_LEARNING_RATE, total_steps=steps, pct_start=0.1
    )
    images, labels = draw_batch(VALIDATION_STREAM, 0, VALIDATION_IMAGES)
    print(f"{sum(p.numel() for p in network.parameters())} parameters", flush=True)
    start = time.perf_counter()
    for step in range(1, steps + 1):
        network.train()
        batch, target = draw_batch(TRAIN_STREAM, (step - 1) * BATCH_SIZE, BATCH_SIZE)
        loss = F.cross_entropy(network(network_input(batch)), torch.from_numpy(target).long())
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        if step % 150 == 0 or step == steps:
            nll = validation_loss(network, images, labels)
            seconds = time.perf_counter() - start
            print(f"step {step:5d}  validation NLL {nll:.4f}  {seconds:6.1f} s", flush=True)
    return network


# The report and the sample


def mean_dice(predicted: Tensor, labels: Tensor, label: int) -> float:
    """Dice of one class averaged over the images where truth or prediction holds it."""
    mask, truth = predicted == label, labels == label
    overlap = (mask & truth).sum(dim=(1, 2)).double()
    volume = mask.sum(dim=(1, 2)).double() + truth.sum(dim=(1, 2)).double()
    return float((2 * overlap / volume)[volume > 0].mean())


def report(title: str, probs: Tensor, labels: ByteArray) -> None:
    """Print how the argmax of ``probs`` (N, C, H, W) does, and how calibrated they are."""
    truth = torch.from_numpy(labels)
    predicted = probs.argmax(dim=1)
    accuracy = float((predicted == truth).double().mean())
    print(f"\n{title}: {len(labels)} images, pixel accuracy of argmax {accuracy:.4f}")
    print(f"{'class':<12}{'images':>7}{'pixels':>9}{'Dice':>8}{'sum p / volume':>16}")
    scores = []
    for label, name in enumerate(CLASSES):
        held = truth == label
        pixels = int(held.sum())
        scores.append(mean_dice(predicted, truth, label))
        expected = float(probs[:, label].double().sum()) / max(pixels, 1)
        images = int(held.any(dim=2).any(dim=1).sum())
        print(f"{name:<12}{images:>7}{pixels:>9}{scores[-1]:>8.4f}{expected:>16.3f}")
    print(f"mean Dice of argmax over the {len(CLASSES)} classes {np.mean(scores):.4f}")


def stored_probabilities(log_probs: Tensor) -> Tensor:
    """Round to multiples of ``PROBABILITY_STEP``, then to float16."""
    return ((log_probs.exp() / PROBABILITY_STEP).round() * PROBABILITY_STEP).half()


def write_arrays(path: Path, arrays: dict[str, npt.NDArray[Any]]) -> None:
    content = io.BytesIO()
    np.savez_compressed(content, allow_pickle=False, **arrays)
    write_whole(path, content.getvalue())
    print(f"\nwrote {path.name}, {path.stat().st_size / 1e6:.2f} MB")


def stored_weights(network: SmallUNet) -> dict[str, npt.NDArray[Any]]:
    """Weights as float16, which moves no probability by more than 0.01; counters stay int64."""
    return {
        name: (value.half() if value.is_floating_point() else value).numpy()
        for name, value in network.state_dict().items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--steps", type=int, default=2400, help="training steps")
    parser.add_argument("--output", type=Path, default=DEFAULT_OUTPUT, help="folder to write to")
    options = parser.parse_args()
    torch.set_num_threads(1)  # so that every run sums in the same order
    network = train(options.steps)
    images, labels = draw_batch(VALIDATION_STREAM, 0, VALIDATION_IMAGES)
    report("validation", predict(network, images).exp(), labels)
    images, labels = draw_batch(SAMPLE_STREAM, 0, SAMPLE_IMAGES)
    probs = stored_probabilities(predict(network, images))
    report("held-out sample", probs.float(), labels)
    sample = {"images": images, "labels": labels, "probs": probs.numpy()}
    write_arrays(options.output / "sample.npz", sample | {"classes": np.array(CLASSES)})
    write_arrays(options.output / "network.npz", stored_weights(network))


if __name__ == "__main__":
    main()
