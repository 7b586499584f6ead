"""Train a network: ``python -m experiments.train data=... model=... loss=... seed=...``.

On several GPUs: ``torchrun --nproc-per-node 4 -m experiments.train device=cuda ...``. What is
trained depends on the configuration, the seed and the number of processes alone. A run that was
interrupted goes on where it stopped when the same command is given again.
"""

from __future__ import annotations

import csv
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hydra
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from experiments.batches import Cropped, Draws, Resized, batches
from experiments.data import DataSet

NETWORK, CHECKPOINT, LOG = "network.pt", "checkpoint.pt", "training.csv"


def input_of(images: Tensor, config: DictConfig) -> Tensor:
    """Return images as the network takes them: centred and scaled, by channel if it says so."""
    scaling = config.model if "centre" in config.model else config.data
    channels = (-1, *[1] * (images.dim() - 2))
    centre, spread = (
        images.new_tensor(value if isinstance(value, float) else [*value]).view(channels)
        for value in (scaling.centre, scaling.spread)
    )
    return (images - centre) / spread


def crops(config: DictConfig) -> bool:
    """Return whether the network is trained on crops instead of whole images made smaller."""
    return bool(config.data.get("crop", False))


def build_network(config: DictConfig, data: DataSet, *, trained: bool = False) -> nn.Module:
    """Return a network for the channels and classes of a data set.

    If its trained weights are to be loaded, those of its encoder are not fetched.
    """
    torch.manual_seed(config.seed)
    sizes: dict[str, Any] = {"channels": config.data.channels, "classes": len(data.classes)}
    if trained and "weights" in config.model.network:
        sizes["weights"] = None
    return instantiate(config.model.network, **sizes).to(config.device)  # type: ignore[no-any-return]


def build_loss(config: DictConfig, data: DataSet) -> nn.Module:
    """Return the loss; if it weighs the classes, by their frequencies in the training images."""
    given = {}
    if config.loss.get("needs_frequencies", False):
        given["frequencies"] = data.frequencies()
    return instantiate(config.loss.loss, **given).to(config.device)  # type: ignore[no-any-return]


def run_folder(config: DictConfig) -> Path:
    """Return the folder of the run that a configuration describes."""
    return Path(config.runs, config.run)


def learning_rate(step: int, steps: int, warm_up: int) -> float:
    """Return the factor of the peak rate: rising for ``warm_up`` steps, then falling to 0."""
    if step < warm_up:
        return (step + 1) / warm_up
    return float((1 - (step - warm_up) / max(1, steps - warm_up)) ** 0.9)


def steps_of(config: DictConfig, data: DataSet) -> int:
    """Return the number of steps, of a schedule by epochs from the size of the data set."""
    schedule = config.schedule
    if schedule.steps is not None:
        return int(schedule.steps)
    return int(schedule.epochs * math.ceil(len(data.splits["train"]) / schedule.batch_size))


class Run:
    """A training under way: network, optimiser, learning rate and the step it is at."""

    def __init__(self, config: DictConfig, data: DataSet) -> None:
        self.config, self.device = config, config.device
        self.network = build_network(config, data).train()
        self.loss = build_loss(config, data)
        self.optimiser = instantiate(config.optim)(self.network.parameters())
        self.steps = steps_of(config, data)
        self.rate = torch.optim.lr_scheduler.LambdaLR(
            self.optimiser,
            lambda step: learning_rate(step, self.steps, config.schedule.warm_up),
        )
        self.step = 0
        self.seconds = 0.0

    def _parts(self) -> dict[str, Any]:
        return {"network": self.network, "optimiser": self.optimiser, "rate": self.rate}

    def save(self, path: Path) -> None:
        """Write everything that training goes on from."""
        state = {name: part.state_dict() for name, part in self._parts().items()}
        save(state | {"step": self.step, "seconds": self.seconds}, path)

    def load(self, path: Path) -> None:
        """Go on from what `save` wrote."""
        state = torch.load(path, weights_only=True, map_location=self.device)
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        self.step, self.seconds = state["step"], state["seconds"]

    def losses(self, data: DataSet, rank: int, processes: int) -> Iterator[float]:
        """Train step by step and yield the loss of each, on this process's part of the batches."""
        config = self.config
        images = (
            Cropped(data, "train", config.data.shape)
            if crops(config)
            else Resized(data, "train", config.data.shape, config.data.in_memory)
        )
        steps = range(self.step, self.steps)
        draws = Draws(len(images), config.schedule.batch_size, config.seed, steps, rank, processes)
        network = DistributedDataParallel(self.network) if processes > 1 else self.network
        start = time.perf_counter() - self.seconds
        for batch, labels in batches(images, draws, config.workers):
            logits = network(input_of(batch.to(self.device), config))
            error = self.loss(logits, labels.to(self.device))
            self.optimiser.zero_grad()
            error.backward()
            self.optimiser.step()
            self.rate.step()
            self.step += 1
            self.seconds = time.perf_counter() - start
            yield error.item()


def save(content: Any, path: Path) -> None:
    """Write a file whole or not at all."""
    partial = path.with_suffix(".partial")
    torch.save(content, partial)
    os.replace(partial, path)


def train(config: DictConfig, rank: int = 0, processes: int = 1) -> None:
    """Train the network of a configuration, or what is left of it to train.

    Process 0 of several writes all files.
    """
    folder = run_folder(config)
    if (folder / NETWORK).exists():
        print(f"{folder} is trained already")
        return
    data = instantiate(config.data.reader)
    run = Run(config, data)
    if (folder / CHECKPOINT).exists():
        run.load(folder / CHECKPOINT)
        print(f"{folder}: going on from step {run.step}")
    log = Log(folder, config, run.step) if rank == 0 else None
    recent: list[float] = []
    for loss in run.losses(data, rank, processes):
        recent.append(loss)
        if log is not None and (run.step % config.log_every == 0 or run.step == run.steps):
            log.add(run, sum(recent) / len(recent))
            run.save(folder / CHECKPOINT)
            recent.clear()
    if log is not None:
        save(run.network.state_dict(), folder / NETWORK)
        (folder / CHECKPOINT).unlink()


class Log:
    """The configuration, loss and learning rate of a run, on the terminal and in its folder."""

    def __init__(self, folder: Path, config: DictConfig, step: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(config, folder / "config.yaml", resolve=True)
        self.name, self.path = config.run, folder / LOG
        self.board = open_board(folder, step)
        if not self.path.exists():
            self._write("step", "loss", "learning_rate", "seconds")

    def _write(self, *cells: object) -> None:
        with self.path.open("a", newline="") as file:
            csv.writer(file).writerow(cells)

    def add(self, run: Run, loss: float) -> None:
        """Print a line of progress and write it down."""
        rate = run.rate.get_last_lr()[0]
        self._write(run.step, f"{loss:.5f}", f"{rate:.3e}", f"{run.seconds:.1f}")
        if self.board is not None:
            self.board.add_scalar("loss", loss, run.step)
        left = run.seconds / run.step * (run.steps - run.step)
        print(
            f"{self.name}: step {run.step} of {run.steps}, loss {loss:.4f}, {run.seconds:.0f} s, "
            f"{left:.0f} s left",
            flush=True,
        )


def open_board(folder: Path, step: int) -> Any:
    """Return a writer of TensorBoard that goes on from a step; None if it is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder / "tensorboard"), purge_step=step)


def train_in_processes(config: DictConfig) -> None:
    """Train in as many processes as torchrun has started, each on its part of every batch."""
    rank, processes = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if config.schedule.batch_size % processes:
        raise ValueError(
            f"schedule.batch_size must be a multiple of the {processes} processes, got "
            f"{config.schedule.batch_size}"
        )
    if config.device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group("nccl" if config.device == "cuda" else "gloo")
    train(config, rank, processes)
    distributed.destroy_process_group()


@hydra.main(version_base=None, config_path="conf", config_name="experiment")
def main(config: DictConfig) -> None:
    """Train."""
    torch.set_num_threads(config.threads)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        train_in_processes(config)
    else:
        train(config)


if __name__ == "__main__":
    main()
