"""The decision as MONAI transforms: in MONAI's pipelines, and the same as its own with argmax."""

from __future__ import annotations

import copy
import pickle
import re
import runpy
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch

import rankseg
from conftest import REPOSITORY
from support.frameworks import framework

framework("monai")

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from monai import transforms
    from monai.bundle import ConfigParser
    from monai.data import (
        DataLoader,
        Dataset,
        MetaTensor,
        ThreadDataLoader,
        decollate_batch,
        list_data_collate,
        set_track_meta,
    )
    from monai.inferers import sliding_window_inference
    from monai.metrics import DiceMetric
    from monai.networks.nets import UNet

    from rankseg.integration.monai import RankSEG, RankSEGD, RankSEGd, RankSEGDict

AFFINE = torch.diag(torch.tensor([2.0, 3.0, 4.0, 1.0], dtype=torch.float64))


def scores(classes=4, size=(10, 11, 12), seed=0):
    """Return logits, smooth enough for regions, as a MetaTensor that remembers where it is from."""
    noise = torch.randn(1, classes, *size, generator=torch.manual_seed(seed))
    pool = torch.nn.functional.avg_pool3d if len(size) == 3 else torch.nn.functional.avg_pool2d
    given = MetaTensor(8 * pool(noise, 3, 1, 1)[0], affine=AFFINE, meta={"filename": "a.nii"})
    given.applied_operations = [{"class": "Flip", "id": 1}]
    return given


def probabilities(classes=4, size=(10, 11, 12), seed=0):
    return scores(classes, size, seed).softmax(0)


def plain(given):
    return given.as_tensor() if isinstance(given, MetaTensor) else torch.as_tensor(given)


def assert_same(ours, theirs):
    """Compare type, dtype, values, device and everything that a MetaTensor carries."""
    assert type(ours) is type(theirs)
    assert ours.dtype == theirs.dtype
    assert ours.device == theirs.device
    assert torch.equal(plain(ours), plain(theirs))
    if isinstance(ours, MetaTensor):
        assert torch.equal(ours.affine, theirs.affine)
        assert ours.applied_operations == theirs.applied_operations
        assert ours.meta.keys() == theirs.meta.keys()
        assert ours.meta.get("filename") == theirs.meta.get("filename")


LABELS = [{}, {"to_onehot": 4}, {"to_onehot": 6}, {"dtype": torch.uint8}, {"dtype": np.int32}]


# With accuracy for the metric: MONAI's own post-processing.


@pytest.mark.parametrize("size", [(10, 11, 12), (20, 21)])
@pytest.mark.parametrize("options", LABELS, ids=str)
def test_accuracy_is_argmax(options, size):
    given = probabilities(size=size)
    theirs = transforms.AsDiscrete(argmax=True, **options)
    assert_same(RankSEG("acc", **options)(given), theirs(given))
    assert RankSEG("acc", **options)(given).applied_operations == [{"class": "Flip", "id": 1}]
    assert_same(RankSEG("acc", **options)(plain(given)), theirs(plain(given)))


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_accuracy_is_the_threshold_one_half_and_ties_are_in(dtype, classes):
    given = scores(classes).sigmoid().to(dtype)
    given[:, 2:4] = 0.5
    ours = RankSEG("acc", output_mode="multilabel")(given)
    assert_same(ours, transforms.AsDiscrete(threshold=0.5)(given))
    assert ours[:, 2:4].all()


def test_accuracy_of_one_channel_is_the_threshold_too():
    given = scores(1).sigmoid()
    given[:, 2:4] = 0.5
    theirs = transforms.AsDiscrete(threshold=0.5)(given)
    assert_same(RankSEG("acc")(given), theirs)
    assert_same(RankSEG("acc", to_onehot=2)(given), transforms.AsDiscrete(to_onehot=2)(theirs))


def test_accuracy_of_logits():
    given = scores()
    given[:, 2:4] = 0
    masks = RankSEG("acc", output_mode="multilabel", from_logits="sigmoid")(given)
    softly = transforms.Activations(sigmoid=True)(given)
    assert_same(masks, transforms.AsDiscrete(threshold=0.5)(softly))
    labels = RankSEG("acc", from_logits="softmax")(scores())
    softly = transforms.Activations(softmax=True)(scores())
    assert_same(labels, transforms.AsDiscrete(argmax=True)(softly))


def test_without_tracking_a_plain_tensor_comes_out():
    set_track_meta(False)
    try:
        given = probabilities()
        assert_same(RankSEG("acc")(given), transforms.AsDiscrete(argmax=True)(given))
        assert type(RankSEG()(given)) is torch.Tensor
    finally:
        set_track_meta(True)


def test_an_array_gives_an_array():
    given = probabilities().numpy()
    given.flags.writeable = False
    labels = RankSEG("acc")(given)
    assert type(labels) is np.ndarray
    assert labels.dtype == np.float32
    assert np.array_equal(labels, given.argmax(0)[None])
    masks = RankSEG(output_mode="multilabel", dtype="uint8")(given)
    assert masks.dtype == np.uint8
    expected = rankseg.RankSEG(output_mode="multilabel")(given[None])[0]
    assert np.array_equal(masks, expected)


# With Dice and IoU: rankseg on the probabilities.


@pytest.mark.parametrize("metric", ["dice", "iou"])
@pytest.mark.parametrize("solver", ["RMA", "joint", "exact"])
def test_labels_are_those_of_rankseg(metric, solver):
    given = probabilities()
    options = {"metric": metric, "solver": solver, "smooth": 1.0, "pruning_prob": 0.3}
    labels = RankSEG(**options)(given)
    expected = rankseg.RankSEG(**options)(plain(given)[None])
    assert labels.dtype == torch.float32
    assert torch.equal(plain(labels), expected.float())
    assert (expected != plain(given).argmax(0)).any()
    channels = RankSEG(**options, to_onehot=4, dtype=bool)(given)
    assert channels.dtype == torch.bool
    assert torch.equal(plain(channels).int().argmax(0), expected[0])
    assert (plain(channels).sum(0) == 1).all()


@pytest.mark.parametrize("solver", ["RMA", "exact", "BA"])
def test_masks_are_those_of_rankseg(solver):
    given = scores(3).sigmoid()
    decide = rankseg.RankSEG(output_mode="multilabel", solver=solver)
    masks = RankSEG(output_mode="multilabel", solver=solver)(given)
    assert torch.equal(plain(masks), decide(plain(given)[None])[0].float())


def test_logits_are_what_activations_make_of_them():
    activated = transforms.Compose([transforms.Activations(softmax=True), RankSEG("iou")])
    for given in (scores(), scores().half()):
        assert_same(RankSEG("iou", from_logits="softmax")(given), activated(given))


def test_void_pixels_are_in_no_channel():
    given = 0.4 * probabilities()
    options = {"pruning_prob": 0.2, "unassigned_policy": "void"}
    labels, channels = RankSEG(**options)(given), RankSEG(**options, to_onehot=4)(given)
    assert (labels == 255).any()
    assert torch.equal(plain(channels).sum(0) == 0, plain(labels)[0] == 255)


def test_every_image_is_decided_alone():
    batch = [probabilities(seed=seed) for seed in range(3)]
    together = rankseg.RankSEG()(torch.stack([plain(image) for image in batch]))
    for image, expected in zip(batch, together, strict=True):
        assert torch.equal(plain(RankSEG()(image))[0], expected.float())


# Without the background.


def foreground_labels(probs, **options):
    """Decide the foreground classes as masks that may be void, by other means than the adapter."""
    decide = rankseg.RankSEG(**options, unassigned_policy="void", void_index=99)
    labels = decide(probs[None, 1:])
    return (labels + 1).where(labels != 99, 0)


@pytest.mark.parametrize("solver", ["RMA", "joint", "exact"])
def test_without_background_what_no_class_claims_is_background(solver):
    given = probabilities()
    ours = RankSEG("dice", solver=solver, include_background=False)(given)
    expected = foreground_labels(plain(given), metric="dice", solver=solver)
    assert torch.equal(plain(ours), expected.float())
    assert set(plain(ours).unique().tolist()) == {0, 1, 2, 3}
    changed = given.clone()
    changed[0] = 0.5
    assert_same(RankSEG("dice", solver=solver, include_background=False)(changed), ours)
    channels = RankSEG("dice", solver=solver, include_background=False, to_onehot=4)(given)
    assert torch.equal(plain(channels).argmax(0), expected[0])


@pytest.mark.parametrize("metric", ["dice", "iou"])
def test_without_background_the_foreground_is_expected_to_score_more(metric):
    given = probabilities()

    def expected_score(**options):
        labels = plain(RankSEG(metric, pruning_prob=0, solver="joint", **options)(given)).long()
        return rankseg.expected_score(plain(given)[None], labels, metric)[0, 1:].mean()

    assert expected_score(include_background=False) > expected_score()


@pytest.mark.parametrize("solver", ["RMA", "exact", "BA"])
def test_one_foreground_class_is_binary(solver):
    given = probabilities(2)
    ours = RankSEG("dice", solver=solver, include_background=False)(given)
    expected = rankseg.RankSEG("dice", solver=solver)(plain(given)[None, 1:])
    assert torch.equal(plain(ours), expected.float())
    assert 0 < plain(ours).mean() < 1


def test_without_background_masks_keep_a_channel_for_it():
    given = probabilities()
    masks = plain(RankSEG("dice", output_mode="multilabel", include_background=False)(given)).bool()
    expected = rankseg.RankSEG("dice", output_mode="multilabel")(plain(given)[None, 1:])[0]
    assert torch.equal(masks[1:], expected)
    assert torch.equal(masks[0], ~expected.any(0))
    assert masks[0].any()


def test_without_background_logits_are_softened_over_all_classes():
    ours = RankSEG("iou", include_background=False, from_logits="softmax")(scores())
    assert_same(ours, RankSEG("iou", include_background=False)(probabilities()))
    masks = {"output_mode": "multilabel", "include_background": False}
    ours = RankSEG("iou", from_logits="sigmoid", **masks)(scores())
    assert_same(ours, RankSEG("iou", **masks)(scores().sigmoid()))


@pytest.mark.parametrize("link", [None, "softmax", "sigmoid"])
def test_all_channels_tell_which_classes_are_present(link):
    """A class is there by argmax if it is likelier somewhere than all others, background too."""
    given = torch.tensor([[0.30, 0.60], [0.36, 0.10], [0.34, 0.30]]).view(3, 1, 2)
    shown = given if link is None else given.log() if link == "softmax" else given.logit()
    options = {"solver": "joint", "from_logits": link, "include_background": False}
    labels = RankSEG(presence="argmax", **options)(shown)
    assert set(labels.unique().tolist()) == {0, 1} == set(labels[0, 0].tolist())
    assert RankSEG(presence="all", **options)(shown)[0, 0, 1] == 2
    assert not RankSEG(presence="peak", **options)(shown).any()


@pytest.mark.parametrize(
    "options", [{"from_logits": "softmax"}, {"from_logits": "sigmoid", "output_mode": "multilabel"}]
)
def test_logits_of_the_shape_of_a_batch_are_told(options):
    batch = torch.randn(2, 4, 32, 40, generator=torch.manual_seed(0))
    with pytest.warns(UserWarning, match="read as 2 channels of a volume 4 x 32 x 40; if axis 0"):
        RankSEG(**options)(batch)
    RankSEG(**options)(batch.movedim(1, -1))  # as MONAI has volumes, depth last
    if "output_mode" in options:
        with pytest.warns(UserWarning, match="read as 1 channel of a volume 4 x 32 x 40; if ax"):
            RankSEG(**options)(batch[:1])
        for volume in (batch[:1, :1], torch.cat([batch[:1]] * 2, 1)):  # one class, or one channel
            RankSEG(**options)(volume)


def test_absent_classes_leave_all_to_the_background():
    given = torch.tensor([0.6, 0.2, 0.2]).view(3, 1, 1).expand(3, 4, 5)
    assert not RankSEG(include_background=False)(given).any()


# In pipelines.


def test_the_dictionary_transform():
    data = {"pred": probabilities(), "other": probabilities(seed=1), "image": scores(1)}
    decided = RankSEGd(("pred", "other"), "iou")(data)
    for key in ("pred", "other"):
        assert_same(decided[key], RankSEG("iou")(data[key]))
    assert decided["image"] is data["image"]
    assert data["pred"].shape[0] == 4
    assert RankSEGD is RankSEGd is RankSEGDict


def test_every_key_may_have_arguments_of_its_own():
    data = {"organs": probabilities(), "lesions": scores(2, seed=1)}
    decide = RankSEGd(
        ["organs", "lesions"],
        metric=["iou", "dice"],
        output_mode=["multiclass", "multilabel"],
        to_onehot=(4, None),
        from_logits=[None, "sigmoid"],
        dtype=[torch.uint8, torch.float],
        unassigned_policy=["void", None],
        correlation=0.5,
    )
    decided = decide(data)
    organs = {"to_onehot": 4, "dtype": torch.uint8, "unassigned_policy": "void"}
    assert_same(decided["organs"], RankSEG("iou", correlation=0.5, **organs)(data["organs"]))
    lesions = {"output_mode": "multilabel", "from_logits": "sigmoid"}
    assert_same(decided["lesions"], RankSEG("dice", correlation=0.5, **lesions)(data["lesions"]))


def test_a_missing_key_is_an_error_or_passed_over():
    data = {"pred": probabilities()}
    with pytest.raises(KeyError, match="other"):
        RankSEGd(["pred", "other"])(data)
    decide = RankSEGd(["other", "pred"], ["dice", "iou"], allow_missing_keys=True)
    assert_same(decide(data)["pred"], RankSEG("iou")(data["pred"]))


def test_accuracy_in_a_dictionary_is_asdiscreted():
    data = {"pred": probabilities(), "label": probabilities(seed=1)}
    theirs = transforms.AsDiscreted(["pred", "label"], argmax=True, to_onehot=[4, None])
    ours = RankSEGd(["pred", "label"], "acc", to_onehot=[4, None])
    for key in data:
        assert_same(ours(data)[key], theirs(data)[key])


def test_from_sliding_windows_to_the_metric():
    torch.manual_seed(0)
    network = UNet(3, 1, 3, (8, 16), (2,)).eval()
    images = list_data_collate([MetaTensor(torch.rand(1, 24, 24, 24), affine=AFFINE)] * 2)
    with torch.no_grad():
        logits = sliding_window_inference(images, (16, 16, 16), 2, network, overlap=0.25)
    after = transforms.Compose([transforms.Activations(softmax=True), RankSEG("dice", to_onehot=3)])
    decided = [after(image) for image in decollate_batch(logits)]
    expected = rankseg.RankSEG("dice")(plain(logits).softmax(1))
    for masks, labels in zip(decided, expected, strict=True):
        assert isinstance(masks, MetaTensor)
        assert torch.equal(masks.affine, AFFINE)
        assert masks.dtype == torch.float32
        assert torch.equal(plain(masks).argmax(0), labels)
    metric = DiceMetric(include_background=False)
    assert torch.equal(metric(y_pred=decided, y=decided).nanmean(), torch.tensor(1.0))
    assert metric.aggregate().item() == 1


PREPARE = [
    transforms.Zoomd("image", zoom=0.5, mode="bilinear", keep_size=False),
    transforms.Flipd("image", spatial_axis=0),
    transforms.CenterSpatialCropd("image", roi_size=(8, 8)),
]


def prepared():
    """Return a pipeline with an image of 20 x 24 that went through it, and its prediction."""
    prepare = transforms.Compose(PREPARE)
    image = MetaTensor(torch.rand(1, 20, 24, generator=torch.manual_seed(0)))
    data = prepare({"image": image})
    data["pred"] = MetaTensor(plain(probabilities(3, (8, 8))))
    return prepare, data


def test_inverted_probabilities_are_decided_at_the_original_size():
    prepare, data = prepared()
    invert = transforms.Invertd("pred", prepare, orig_keys="image", nearest_interp=False)
    probs = invert(data)["pred"]
    decided = transforms.Compose([invert, RankSEGd("pred", "dice", include_background=False)])(data)
    assert decided["pred"].shape == (1, 20, 24)
    expected = foreground_labels(plain(probs), metric="dice")
    assert torch.equal(plain(decided["pred"]), expected.float())
    outside = plain(probs).sum(0) == 0  # which is what the crop cut off
    assert outside.any()
    assert not plain(decided["pred"])[0][outside].any()


def test_decided_labels_are_inverted_as_labels():
    prepare, data = prepared()
    invert = transforms.Invertd("pred", prepare, orig_keys="image", nearest_interp=True)
    decided = transforms.Compose([RankSEGd("pred", "dice"), invert])(data)["pred"]
    assert decided.shape == (1, 20, 24)
    assert set(plain(decided).unique().tolist()) <= {0, 1, 2}
    theirs = transforms.Compose([transforms.AsDiscreted("pred", argmax=True), invert])(data)["pred"]
    ours = transforms.Compose([RankSEGd("pred", "acc"), invert])(data)["pred"]
    assert_same(ours, theirs)


def test_probabilities_inverted_by_their_neighbours_are_blocks():
    """Why nearest_interp=True before the decision, MONAI's default, is a trap."""
    prepare, data = prepared()
    blocky = transforms.Invertd("pred", prepare, orig_keys="image")(data)["pred"]
    fine = transforms.Invertd("pred", prepare, orig_keys="image", nearest_interp=False)(data)
    assert len(blocky.unique()) < len(fine["pred"].unique())


def test_a_bundle_names_the_transform(tmp_path):
    page = (REPOSITORY / "docs" / "integrations" / "monai.md").read_text()
    (tmp_path / "inference.json").write_text(re.search(r"```json\n(.*?)```", page, re.S)[1])
    parser = ConfigParser()
    parser.read_config(str(tmp_path / "inference.json"))
    after = parser.get_parsed_content("postprocessing")
    decided = after({"pred": scores()})["pred"]
    expected = RankSEG("dice", include_background=False, dtype=torch.uint8)
    assert_same(decided, expected(transforms.Activations(softmax=True)(scores())))


@pytest.mark.parametrize("decide", [RankSEG("iou", to_onehot=4), RankSEGd("pred", "iou")])
def test_transforms_can_be_pickled_and_copied(decide):
    given = probabilities()
    expected = RankSEG("iou", to_onehot=getattr(decide, "to_onehot", None))(given)
    for again in (pickle.loads(pickle.dumps(decide)), copy.deepcopy(decide)):
        if isinstance(decide, RankSEGd):
            assert_same(again({"pred": given})["pred"], expected)
        else:
            assert_same(again(given), expected)


@pytest.mark.parametrize("loader", [DataLoader, ThreadDataLoader])
def test_in_a_data_loader(loader):
    items = [{"pred": plain(probabilities(seed=seed))} for seed in range(3)]
    after = transforms.Compose([RankSEGd("pred")])
    batches = list(loader(Dataset(items, after), batch_size=2))
    decided = torch.cat([plain(batch["pred"]) for batch in batches])
    expected = rankseg.RankSEG()(torch.stack([item["pred"] for item in items]))
    assert torch.equal(decided[:, 0], expected.float())


def test_it_is_a_transform_of_monai():
    assert isinstance(RankSEG(), transforms.Transform)
    assert isinstance(RankSEGd("pred"), transforms.MapTransform)


# What is refused.


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"metric": "hd95"}, ValueError, "metric must be one of"),
        ({"to_onehot": True}, TypeError, "to_onehot must be an integer"),
        ({"to_onehot": 3, "output_mode": "multilabel"}, ValueError, "to_onehot must be None"),
        ({"include_background": 0}, TypeError, "include_background must be a bool"),
        ({"include_background": False, "metric": "acc"}, ValueError, "accuracy counts pixels"),
        (
            {"include_background": False, "void_index": 9},
            ValueError,
            r"nothing to say for \['void_index'\]",
        ),
        ({"dtype": "floaty"}, TypeError, "dtype must be .*'floaty'"),
        ({"dtype": None}, TypeError, "dtype must be .*None"),
        *(
            (
                {"dtype": dtype, "unassigned_policy": "void", "void_index": index},
                ValueError,
                f"dtype must hold void_index, {index}, which torch.{dtype} does not",
            )
            for dtype, index in [("uint8", -100), ("bool", 255), ("int8", 255), ("float16", 4097)]
        ),
        ({"softmax": True}, TypeError, "takes the options"),
    ],
)
def test_options_that_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        RankSEG(**options)
    with pytest.raises(error, match=message):
        RankSEGd("pred", **options)


@pytest.mark.parametrize(
    ("dtype", "fits", "fails"),
    [("bool", 2, 3), ("uint8", 256, 257), ("int8", 128, 129), ("float16", 2049, 2051)],
)
def test_a_dtype_holds_all_labels(dtype, fits, fails):
    decide = RankSEG("acc", dtype=dtype)
    labels = [decide(torch.eye(classes)).double() for classes in (1, fits)]
    assert [one.max() for one in labels] == [1, fits - 1]
    with pytest.raises(ValueError, match=f"dtype must hold the labels, .* torch.{dtype} does not"):
        decide(torch.eye(fails))
    assert RankSEG("acc", dtype=dtype, to_onehot=fails)(torch.eye(fails)).sum() == fails
    assert RankSEG("acc", output_mode="multilabel", dtype=dtype)(torch.eye(fails)).any()


def test_a_list_must_have_an_entry_for_every_key():
    with pytest.raises(ValueError, match=r"metric must be one value or a list of 1.*got 2"):
        RankSEGd("pred", metric=["dice", "iou"])


WITHOUT_VALUE = torch.tensor([[torch.nan, 0.5], [0.1, 0.6]])  # in the background


@pytest.mark.parametrize(
    ("options", "given", "error", "message"),
    [
        ({}, [[0.5]], TypeError, "img must be a dense"),
        ({}, torch.rand(4), ValueError, r"img must be \(channels, \*spatial\)"),
        *(
            (options, torch.zeros(2, 3).to(dtype), TypeError, "img must be of a floating dtype")
            for options in ({}, {"include_background": False, "from_logits": "softmax"})
            for dtype in (torch.int64, torch.complex64, torch.bool)
        ),
        ({}, torch.rand(2, 0), ValueError, "must not be empty"),
        ({}, torch.full((2, 3), torch.nan), ValueError, "must be finite"),
        ({"metric": "acc"}, torch.full((2, 3), torch.nan), ValueError, "must be finite"),
        ({"include_background": False}, WITHOUT_VALUE, ValueError, "img must be finite, got 1"),
        (
            {"include_background": False, "from_logits": "softmax"},
            WITHOUT_VALUE.nan_to_num(nan=-torch.inf),
            ValueError,
            "img must be finite, got 1",
        ),
        ({}, torch.full((2, 3), 7.0), ValueError, "look like logits|largest value"),
        ({"to_onehot": 2}, torch.rand(3, 4), ValueError, "to_onehot must be at least .* 3"),
        ({"to_onehot": 1}, torch.rand(1, 4), ValueError, "to_onehot must be at least .* 2"),
        ({"include_background": False}, torch.rand(1, 4), ValueError, "needs a channel"),
    ],
)
def test_images_that_are_refused(options, given, error, message):
    with pytest.raises(error, match=message):
        RankSEG(**options)(given)


def test_only_this_module_needs_monai_and_says_how_to_install_it():
    code = "import sys; sys.modules['monai'] = None; import rankseg.integration; print('fine')"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; import rankseg.integration.monai"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "fine"
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ImportError: RankSEG as a transform needs monai")
    assert last.endswith("pip install 'rankseg[monai]'")


def test_example(capsys):
    runpy.run_path(str(REPOSITORY / "examples" / "monai_transforms.py"), run_name="__main__")
    assert "Dice" in capsys.readouterr().out


@pytest.mark.parametrize("include_background", [True, False])
def test_probabilities_in_place_of_logits_warn_once(include_background):
    decide = RankSEG(from_logits="softmax", include_background=include_background)
    with pytest.warns(UserWarning, match="look like probabilities, of which") as told:
        decide(probabilities())
    assert len(told) == 1


@pytest.mark.parametrize("output_mode", ["multiclass", "multilabel"])
def test_a_batch_is_refused_with_what_makes_images_of_it(output_mode):
    batch = torch.stack([plain(probabilities(seed=seed)) for seed in range(3)])
    for given in (batch, batch[..., 0]):
        with pytest.raises(ValueError, match=r"got a batch of shape .*decollate_batch gives them"):
            RankSEG(output_mode=output_mode)(given)


@pytest.mark.parametrize(
    "options",
    [{"from_logits": "softmax"}, {"output_mode": "multilabel"}, {"include_background": False}],
    ids=str,
)
def test_a_batch_of_a_loader_is_refused_whatever_its_values(options):
    rng = np.random.default_rng(0)
    one = MetaTensor(torch.from_numpy(rng.random((3, 8, 8))))
    batch = list_data_collate([one, one])
    if "from_logits" in options:
        batch = 9 * batch - 4
    with pytest.raises(ValueError, match=r"got a batch of shape .*decollate_batch gives them"):
        RankSEG(**options)(batch)


@pytest.mark.parametrize("images", [1, 2])
@pytest.mark.parametrize("options", [{"output_mode": "multilabel"}, {"from_logits": "softmax"}])
def test_a_batch_of_volumes_is_refused_whatever_its_values(options, images):
    batch = torch.rand(images, 3, 8, 8, 8, generator=torch.manual_seed(0))
    with pytest.raises(ValueError, match=r"got a batch of shape .*decollate_batch gives them"):
        RankSEG(**options)(batch)


def test_an_image_without_the_axis_of_its_batch_is_decided():
    batch = list_data_collate([MetaTensor(torch.randn(3, 8, 8))])
    decide = RankSEG(from_logits="softmax")
    for image in (batch[0], batch.squeeze(0), *decollate_batch(batch)):
        assert decide(image).shape == (1, 8, 8)


@pytest.mark.parametrize("name", ["metric", "correlation", "include_background", "dtype", "smoth"])
@pytest.mark.parametrize("kind", [RankSEG, lambda: RankSEGd("pred")], ids=["array", "dictionary"])
def test_options_of_a_transform_cannot_be_changed(kind, name):
    for decide in (kind(), copy.copy(kind()), pickle.loads(pickle.dumps(kind()))):
        with pytest.raises(AttributeError, match=f"'{name}' cannot be set once .* make a new"):
            setattr(decide, name, False)


def test_a_subclass_of_a_transform_may_have_attributes():
    class Own(RankSEG):
        def __init__(self):
            super().__init__()
            self.mine = 3

    assert Own().mine == 3
