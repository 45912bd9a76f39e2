"""What a run trains on and validates with: the cache, the sizes, the split. Without Keras."""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from carcls.config import to_config
from carcls.data.images import open_photo, resize
from carcls.data.photos import Photos, near_duplicates
from carcls.errors import UserError
from carcls.training import inputs as module
from carcls.training.inputs import prepare_inputs
from tests.conftest import draw_competition, draw_photo, write_csv
from tests.test_config import composed


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return draw_competition(tmp_path_factory.mktemp("data"), per_class=5)


def small(root, *overrides: str):
    return to_config(
        composed(
            f"data.root='{root}'",
            "backbone=efficientnetlite0",
            "image_size=32",
            "batch_size=4",
            *overrides,
        )
    )


def test_photos_are_larger_where_the_policy_cuts_from_them_and_validation_is_not(root):
    config = small(root, "augmentation=strong", "augmentation.cutmix=1")
    inputs = prepare_inputs(config)
    stage = config.finetune.stages["head"]
    images, labels = next(inputs.train(stage).epoch())
    assert images.shape == (4, 32, 32, 3) and labels.shape == (4, 3)
    (images, labels), *_ = inputs.val(stage).epoch()
    assert images.shape == (3, 32, 32, 3)
    whole = [
        resize(open_photo(inputs.records.table.path[i]), 32) for i in inputs.val(stage).indices
    ]
    np.testing.assert_array_equal(images, whole)
    np.testing.assert_array_equal(labels, np.eye(3)[inputs.records.table.label[inputs.is_val]])
    assert [(report.size, report.num_bytes) for report in inputs.cache] == [
        (37, 15 * 37 * 37 * 3),
        (32, 3 * 32 * 32 * 3),
    ]


def test_a_stage_may_train_on_smaller_photos_than_it_validates_with_and_mix_them_its_own_way(root):
    config = small(
        root, "augmentation=moderate", "augmentation.cutmix=0", "augmentation.mix_probability=1",
        "finetune.stages.all.train_scale=0.85",
        "finetune.stages.all.mixup=0.2", "finetune.stages.head.mix_probability=0",
    )  # fmt: skip
    head, whole = (config.finetune.stages[name] for name in ("head", "all"))
    assert config.mixing(head) is None
    assert config.mixing(whole) == {"mixup": 0.2, "cutmix": 0.0, "mix_probability": 1.0}
    inputs = prepare_inputs(config)
    loader = inputs.train(whole)
    images, labels = next(loader.epoch())
    assert images.shape == (4, 27, 27, 3) and labels.shape == (4, 3)
    assert loader.photos.size == 31  # 1.15 times as large, to crop from
    assert next(inputs.val(whole).epoch())[0].shape == (3, 32, 32, 3)
    images, labels = next(inputs.train(head).epoch())
    assert images.shape == (4, 32, 32, 3) and labels.shape == (4,)


@pytest.mark.parametrize("limit", [50, 0])
def test_training_is_the_same_with_and_without_the_cache(root, limit):
    config = small(root, f"data.cache_limit={limit}")
    inputs = prepare_inputs(config)
    assert (inputs.cache[0].state == "off") == (limit == 0)
    reference = prepare_inputs(small(root, "runtime.workers=2"))
    loaders = [i.train(config.finetune.stages["head"]) for i in (inputs, reference)]
    for (images, labels), (others, other_labels) in zip(
        *(x.epoch(1) for x in loaders), strict=True
    ):
        np.testing.assert_array_equal(images, others)
        np.testing.assert_array_equal(labels, other_labels)
    loaders[1].close()


def test_near_duplicates_are_on_one_side_of_the_split(tmp_path, caplog):
    root = draw_competition(tmp_path / "data", per_class=12)
    rows = pd.read_csv(root / "train.csv", dtype=str)
    copies = []
    for photo_id, name in rows.itertuples(index=False):
        photo = open_photo(root / "train" / name / photo_id)
        larger = cv2.resize(photo, None, fx=1.5, fy=1.5, interpolation=cv2.INTER_CUBIC)
        copies.append((f"copy_{photo_id}", name))
        Image.fromarray(larger).save(root / "train" / name / copies[-1][0])
    write_csv(root / "train.csv", [*rows.itertuples(index=False, name=None), *copies])
    with caplog.at_level("INFO"):
        inputs = prepare_inputs(small(root, "data.group_near_duplicates=true", "image_size=64"))
    sides = dict(zip(inputs.records.table.id, inputs.is_val, strict=True))
    together = [sides[i] == sides[f"copy_{i}"] for i in rows.Id]
    assert all(together)
    assert "of 72 photos have near duplicates: in" in caplog.text
    sides = prepare_inputs(small(root))
    sides = dict(zip(sides.records.table.id, sides.is_val, strict=True))
    assert not all(sides[i] == sides[f"copy_{i}"] for i in rows.Id)  # by chance they are not


@pytest.mark.parametrize("opened_first", [True, False])
def test_photos_that_cannot_be_opened_are_told_before_the_split_or_when_they_are_met(
    tmp_path, caplog, monkeypatch, opened_first
):
    root = draw_competition(tmp_path / "data", per_class=5)
    photo = sorted((root / "train" / "12").iterdir())[0]
    photo.write_bytes(b"<html>")
    if not opened_first:
        monkeypatch.setattr(module, "_OPENED_FIRST", 10)
    with caplog.at_level("INFO"):
        inputs = prepare_inputs(small(root, "data.cache_limit=0"))
    assert (
        "decoded to 32 px they would take 0.0 GB, more than data.cache_limit allows" in caplog.text
    )
    stage = inputs.config.finetune.stages["head"]
    assert len(inputs.records.table) == 15 - opened_first
    assert inputs.lost == {}
    for loader in (inputs.train(stage), inputs.val(stage)):
        for images, _ in loader.epoch():
            assert images.any(axis=(1, 2, 3)).all()
    if opened_first:
        assert inputs.records.skipped == [(photo.name, "not an image but a web page")]
        assert inputs.lost == {}
    else:
        assert "These are more than 10 photos: those that cannot be opened are told" in caplog.text
        ((index, why),) = inputs.lost.items()
        assert (inputs.records.table.id[index], why) == (photo.name, "not an image but a web page")
        assert index not in inputs.train(stage).indices  # of the next stage
        assert index not in inputs.val(stage).indices


def test_a_size_to_cut_from_means_nothing_to_a_policy_without_steps(root):
    inputs = prepare_inputs(small(root, "augmentation=none", "augmentation.working_scale=1.2"))
    images, _ = next(inputs.train(inputs.config.finetune.stages["head"]).epoch())
    assert images.shape == (4, 32, 32, 3) and len(inputs.cache) == 1


def test_photos_with_black_bars_are_no_near_duplicates_for_that(tmp_path):
    paths = []
    for number in range(6):
        paths.append(str(tmp_path / f"{number}.png"))
        draw_photo(
            tmp_path / paths[-1], (40 * number, 200 - 30 * number, 90), number, size=(90, 22)
        )
    photos = Photos([*paths, paths[0]], 64, "pad")
    photos.decode_all(keep=True, workers=0, progress=lambda count: None)
    groups = near_duplicates(photos, 0, lambda count: None)
    assert groups.tolist() == [0, 1, 2, 3, 4, 5, 0]


@pytest.mark.parametrize("override", ["data.refit=true", "data.val_ids=ids.txt"])
def test_near_duplicates_need_a_split_that_is_drawn(root, override):
    with pytest.raises(UserError, match=r"Expected data\.group_near_duplicates=true with a split"):
        small(root, "data.group_near_duplicates=true", override)


def test_near_duplicates_change_nothing_where_the_data_has_its_own_split(tmp_path, caplog):
    for part in ("train", "val"):
        for name in ("a", "b"):
            draw_photo(tmp_path / part / name / f"{part}.png", (90, 60, 30), seed=1)
    config = small(
        tmp_path, "data=folder", f"data.root='{tmp_path}'", "data.group_near_duplicates=true"
    )
    assert prepare_inputs(config).is_val.sum() == 2
    assert "WARNING: data.group_near_duplicates has no effect: the data says" in caplog.text


def test_a_photo_that_is_gone_at_another_size_stops_a_run_that_asks_for_it(tmp_path):
    root = draw_competition(tmp_path / "data", per_class=5)
    overrides = ("finetune.stages.all.image_size=48", "augmentation=none")
    configs = [small(root, *overrides), small(root, *overrides, "data.on_error=raise")]
    skips, raises = (prepare_inputs(config) for config in configs)
    for path in skips.records.table.path[~skips.is_val]:
        Path(path).unlink()
    with pytest.raises(UserError, match=r"Received 12 of 15 that cannot: .*no such file.*on_error"):
        raises.train(configs[1].finetune.stages["all"])
    with pytest.raises(UserError, match=r"Received 12 of 15 that cannot"):
        skips.train(configs[0].finetune.stages["all"])
