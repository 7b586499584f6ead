"""Every configuration can be composed, and names what exists."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from conftest import REPOSITORY

hydra = pytest.importorskip("hydra")

from hydra.utils import get_class, get_method, instantiate  # noqa: E402

from experiments.models import monai_unet, with_encoder  # noqa: E402

CONFIGURATIONS = REPOSITORY / "experiments" / "conf"
GROUPS = [
    (path.parent.name, path.stem)
    for path in sorted(CONFIGURATIONS.glob("*/*.yaml"))
    if path.parent.name != "predict"
]


def composed(*overrides):
    with hydra.initialize("../../experiments/conf", version_base=None):
        return hydra.compose("experiment", [*overrides])


@pytest.mark.parametrize(("group", "name"), GROUPS)
def test_every_choice_of_a_group_can_be_composed(group, name):
    config = composed(f"{group}={name}", "data.folder=there" if name == "folder" else "seed=1")
    chosen = config[group]
    target = {"data": "reader", "model": "network", "loss": "loss"}.get(group)
    if group == "optim":
        assert issubclass(get_class(chosen._target_), torch.optim.Optimizer)
    elif target:
        assert get_method(chosen[target]._target_) is not None
        assert config.run.startswith(f"{config.data.name}/{config.model.name}-{config.loss.name}/")
    if group == "data":
        assert Path(chosen.reader.root)
        assert isinstance(chosen.background, bool)


@pytest.mark.parametrize("path", sorted(CONFIGURATIONS.glob("predict/*.yaml")))
def test_every_way_of_deciding_can_be_made(path):
    from experiments.methods import Calibrated, Methods
    from rankseg.evaluation import Case

    probs = torch.rand(3, 5, 6, generator=torch.Generator().manual_seed(0)).softmax(0)
    case = Case("a", probs, probs.argmax(0))
    chosen = composed(f"predict=[{path.stem}]").methods
    assert [*chosen] == [path.stem]
    methods = Methods(chosen, ["argmax"], Calibrated([case], None)).all()  # type: ignore[arg-type]
    assert methods[0].name == "argmax"
    assert {method.name.split()[0] for method in methods} == {"argmax", path.stem}
    for method in methods:
        assert method.decide(probs[None]).shape[-2:] == (5, 6)


def test_several_ways_of_deciding_are_chosen_at_once():
    config = composed("predict=[rankseg_rma,dep]", "data=lits", "data.fold=2")
    assert [*config.methods] == ["rankseg_rma", "dep"]
    assert config.run == "lits-fold2/small_unet-ce/seed0"
    assert config.data.reader.fold == 2


def test_networks_of_monai():
    pytest.importorskip("monai")
    network = monai_unet(1, 3, 3, [4, 8, 16])
    assert network(torch.rand(1, 1, 8, 12, 8)).shape == (1, 3, 8, 12, 8)
    swin = instantiate(composed("model=monai_swin_unetr").model.network, 1, 2, features=12)
    assert sum(one.numel() for one in swin.parameters()) > 1e6


def test_networks_with_encoders():
    smp = pytest.importorskip("segmentation_models_pytorch")
    timm = pytest.importorskip("timm")
    for group, name in GROUPS:
        network = composed(f"{group}={name}").model.network if group == "model" else {}
        if "encoder" in network:
            assert hasattr(smp, network.architecture)
            encoder = network.encoder
            known = timm.list_models() if encoder.startswith("tu-") else smp.encoders.encoders
            assert encoder.removeprefix("tu-") in known
    for architecture, encoder in (("UPerNet", "resnet18"), ("Segformer", "mit_b0")):
        network = with_encoder(3, 5, architecture, encoder, None).eval()
        assert network(torch.rand(1, 3, 64, 64)).shape == (1, 5, 64, 64)
