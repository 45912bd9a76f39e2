"""Which photos the report shows, and that what it says of them is what was asked."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from carcls.config import RuntimeConfig
from carcls.evaluation.cases import BOX, Case, confused_photos, fitted, in_turn, look
from carcls.evaluation.metrics import measure, most_confused
from carcls.evaluation.sheets import WRONG, draw_attention, draw_confused, overlay, write_sheets
from carcls.prediction.predictor import Predictor
from carcls.run import ModelInfo
from tests.conftest import draw_photo
from tests.test_attention import told_by_colour

NAMES = ["red", "green", "blue"]
AUTO = RuntimeConfig()


def said(*of_photos: tuple[int, float]) -> np.ndarray:
    """Probabilities of photos of which this class was said with this confidence."""
    probs = np.array([[(1 - sure) / 2] * 3 for _, sure in of_photos])
    for row, (number, sure) in zip(probs, of_photos, strict=True):
        row[number] = sure
    return probs


# label, and what was said of it
PHOTOS = [
    (0, 0, 0.9), (0, 1, 0.6), (0, 1, 0.8), (0, 1, 0.7), (0, 1, 0.5), (0, 2, 0.99),
    (1, 1, 0.5), (1, 1, 0.95), (1, 1, 0.7), (1, 1, 0.8), (1, 0, 0.6), (2, 0, 0.6),
]  # fmt: skip
LABELS = np.array([label for label, _, _ in PHOTOS])
PROBS = said(*[(number, sure) for _, number, sure in PHOTOS])
PATHS = [f"{index}.png" for index in range(len(PHOTOS))]


def test_a_pair_shows_the_surest_mistakes_beside_the_surest_right_ones():
    metrics = measure(PROBS, LABELS, NAMES, seed=0, resamples=0)
    found = confused_photos(most_confused(metrics, NAMES), PATHS, LABELS, PROBS, NAMES)
    first = found[0]
    assert (first.label, first.predicted, first.count, first.of) == ("red", "green", 4, 6)
    assert first.taken == [("2.png", 0.8), ("3.png", 0.7), ("1.png", 0.6)]
    assert first.typical == [("7.png", 0.95), ("9.png", 0.8), ("8.png", 0.7)]
    others = {(pair.label, pair.predicted): pair for pair in found[1:]}
    assert set(others) == {("red", "blue"), ("green", "red"), ("blue", "red")}
    assert others["red", "blue"].typical == [], "no blue one was told right"
    assert others["green", "red"].taken == [("10.png", 0.6)]


def test_wrong_photos_come_by_confidence_and_right_ones_by_lot():
    wrong, right = in_turn(LABELS, PROBS, seed=1)
    assert wrong.tolist() == [5, 2, 3, 1, 10, 11, 4]
    assert sorted(right) == [0, 6, 7, 8, 9]
    again, other = (in_turn(LABELS, PROBS, seed=seed)[1].tolist() for seed in (1, 2))
    assert right.tolist() == again != other


@pytest.fixture
def red_photos(tmp_path):
    """Paths of four photos; the second is not there."""
    paths = [tmp_path / f"{number}.png" for number in range(4)]
    for number, path in enumerate(paths):
        draw_photo(path, (200, 40, 40), number, size=(48, 24))
    paths[1].unlink()
    return np.array([str(path) for path in paths])


def colour_network(class_names: list[str], resize: str = "squash") -> Predictor:
    info = ModelInfo(
        class_names=class_names, class_counts=[1, 1, 1], image_size=16, resize=resize, config={}
    )
    return Predictor(name="colours", info=info, load=told_by_colour)


def test_maps_are_of_what_was_said_and_of_the_label(red_photos):
    labels, probs = np.array([1, 1, 0, 0]), said((0, 0.9), (0, 0.95), (0, 0.8), (2, 0.7))
    wrong, right = look(
        colour_network(NAMES), red_photos, labels, probs, NAMES, seed=0, machine=AUTO
    )
    assert [case.classes for case in wrong] == [["red", "green"], ["blue", "red"]], "1 is gone"
    assert wrong[0].probs == pytest.approx([0.9, 0.05])
    assert wrong[0].photo.shape == (104, 208, 3), "its aspect is kept"
    assert [case.classes for case in right] == [["red"]]
    for case in wrong + right:
        assert case.maps.shape == (len(case.classes), 4, 4)
        assert case.maps[case.classes.index("red")].sum() > 0, "they are red"
    assert wrong[0].maps[1].sum() < 0


def test_maps_are_of_the_class_whatever_its_number_in_the_network(red_photos):
    labels, probs = np.array([1, 1, 0, 0]), said((0, 0.9), (0, 0.95), (0, 0.8), (0, 0.7))
    expected, _ = look(
        colour_network(NAMES), red_photos, labels, probs, NAMES, seed=0, machine=AUTO
    )
    order = [2, 0, 1]  # blue, red, green
    found, _ = look(
        colour_network(NAMES), red_photos, np.argsort(order)[labels], probs[:, order],
        [NAMES[number] for number in order], seed=0, machine=AUTO,
    )  # fmt: skip
    assert found[0].classes == expected[0].classes
    np.testing.assert_array_equal(found[0].maps, expected[0].maps)


def test_a_cropped_photo_is_shown_as_the_network_sees_it(red_photos):
    labels, probs = np.zeros(4, int), said(*[(0, 0.9)] * 4)
    network = colour_network(NAMES, resize="crop")
    wrong, right = look(network, red_photos, labels, probs, NAMES, seed=0, machine=AUTO)
    assert wrong == []
    assert {case.photo.shape for case in right} == {(156, 156, 3)}


def test_where_there_are_no_maps_the_report_says_why(red_photos, tmp_path, caplog):
    photos = pd.DataFrame({"id": ["a"], "path": [red_photos[1]], "label": [1]})
    probs = said((0, 0.9))
    metrics = measure(probs, np.array([1]), NAMES, seed=0, resamples=0)
    with caplog.at_level("INFO"):
        drawn, told = write_sheets(
            tmp_path, colour_network(NAMES), photos, probs, most_confused(metrics, NAMES),
            title="x", seed=0, is_out_of_fold=False, machine=AUTO,
        )  # fmt: skip
    assert told == (
        "There is no picture of what the network looked at: there is no photo that opens."
    )
    assert told in caplog.text
    assert set(drawn) == {"confused"}
    assert (tmp_path / "confused.png").is_file() and not (tmp_path / WRONG).exists()


@pytest.mark.parametrize("shape", [(10, 1000), (3000, 20), (7, 5)])
def test_any_photo_fits_into_its_box(shape):
    height, width, _ = fitted(np.zeros((*shape, 3), np.uint8)).shape
    assert 1 <= height <= BOX[1] and 1 <= width <= BOX[0]
    assert height == BOX[1] or width == BOX[0]


def test_a_photo_stays_grey_where_its_map_is_dark_and_is_bright_where_it_is_not():
    photo = np.full((80, 80, 3), 90, np.uint8)
    brightness = np.full((4, 4), -0.5, np.float32)
    brightness[0, 0] = 1
    shown = overlay(photo, brightness).astype(int)
    assert (shown[40:, 40:] == 90).all()
    assert shown[8, 8, 0] - shown[8, 8, 2] > 80, "yellow"


def test_a_sheet_has_a_place_for_each_photo(tmp_path):
    tile = np.zeros((156, 208, 3), np.uint8)
    cases = [
        Case(photo=tile[:100], label="b" * 80, classes=["a", "b" * 80], probs=[0.9, 0.1],
             maps=np.zeros((2, 3, 3), np.float32))
        for _ in range(5)
    ]  # fmt: skip
    cases[0].photo = tile
    draw_attention(cases, "five").savefig(tmp_path / "five.png")
    pixels = np.asarray(Image.open(tmp_path / "five.png").convert("L"))
    black = (pixels < 5).mean() * pixels.size / (208 * 100)
    assert black == pytest.approx(12 + 3 * 1.56, abs=0.2)
    assert pixels.shape == (44 + 3 * (20 + 12) + 156 + 2 * 100, 2 * 14 + 6 * 208 + 4 * 8 + 28)
    metrics = measure(PROBS, LABELS, NAMES, seed=0, resamples=0)
    pairs = confused_photos(most_confused(metrics, NAMES), PATHS, LABELS, PROBS, NAMES)
    picture = draw_confused(pairs, "none of them is there")
    texts = [text.get_text() for text in picture.axes[0].texts]
    assert {"red taken for green (4 of 6)", "green, told right", "No blue was told right"} <= set(
        texts
    )
    assert texts.count("gone") == 3 + 3 + 1 + 0 + 1 + 1 + 1 + 1
