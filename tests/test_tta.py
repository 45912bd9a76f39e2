"""What a network is shown of a photo, and how its answers are averaged."""

import numpy as np
import pytest
from PIL import Image

from carcls.config import to_predict_config
from carcls.data.images import resize
from carcls.errors import UserError
from carcls.prediction.ensemble import Ensemble
from carcls.prediction.predictor import Predictor
from carcls.prediction.tta import larger_size, num_views
from carcls.run import ModelInfo
from tests.test_config import composed


class LeftAndRight:
    """A network in NumPy: the shares of light in the left and in the right half of a photo."""

    input_shape = (None, None, None, 3)

    def __init__(self) -> None:
        self.seen: list[np.ndarray] = []

    def predict_on_batch(self, images: np.ndarray) -> np.ndarray:
        self.seen += list(images)
        half = images.shape[2] // 2
        light = images.astype(np.float32).mean((1, 3)) + 1  # (batch, width)
        sides = np.stack([light[:, :half].sum(1), light[:, -half:].sum(1)], axis=1)
        return sides / sides.sum(1, keepdims=True)


def predictor_of(network: LeftAndRight, image_size: int = 32, resize: str = "squash") -> Predictor:
    info = ModelInfo(
        class_names=["left", "right"], class_counts=[1, 1], image_size=image_size, resize=resize,
        config={},
    )  # fmt: skip
    return Predictor(name="halves", info=info, load=lambda: network)


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), np.uint8)


def probs_of(photo: np.ndarray, size: int) -> np.ndarray:
    return LeftAndRight().predict_on_batch(resize(photo, size)[None])[0]


@pytest.mark.parametrize(
    ("image_size", "larger"),
    [(32, 64), (75, 96), (96, 128), (150, 192), (224, 256), (240, 288), (300, 352), (512, 608)],
)
def test_the_second_scale_is_a_multiple_of_32_about_a_fifth_larger(image_size, larger):
    assert larger_size(image_size) == larger


def test_the_second_scale_is_always_larger():
    for image_size in range(1, 2000):
        assert image_size < larger_size(image_size) <= max(1.4 * image_size, image_size + 32)


def test_none_shows_the_photo_once():
    network, photo = LeftAndRight(), noise(50, 70)
    probs = predictor_of(network)([photo]).probs
    np.testing.assert_array_equal(network.seen, [resize(photo, 32)])
    np.testing.assert_array_equal(probs, [probs_of(photo, 32)])


def test_flip_is_the_mean_of_a_photo_and_its_mirror_image():
    network, photo = LeftAndRight(), noise(50, 70)
    photo[:, :35] //= 3  # the left half darker
    probs = predictor_of(network)([photo], tta="flip").probs
    square = resize(photo, 32)
    np.testing.assert_array_equal(network.seen, [square, square[:, ::-1]])
    assert probs_of(photo, 32)[1] > 0.6
    np.testing.assert_allclose(probs, [[0.5, 0.5]], atol=1e-6)


def test_flip_and_scale_is_the_mean_of_both_at_two_sizes():
    network, photo = LeftAndRight(), noise(200, 90)
    probs = predictor_of(network)([photo], tta="flip+scale").probs
    small, large = resize(photo, 32), resize(photo, 64)
    assert [image.shape for image in network.seen] == [(32, 32, 3)] * 2 + [(64, 64, 3)] * 2
    for seen, view in zip(
        network.seen, [small, small[:, ::-1], large, large[:, ::-1]], strict=True
    ):
        np.testing.assert_array_equal(seen, view)
    of_views = [LeftAndRight().predict_on_batch(image[None])[0] for image in network.seen]
    np.testing.assert_allclose(probs, [np.mean(of_views, axis=0)], atol=1e-6)


def test_the_mirror_image_of_a_symmetric_photo_changes_nothing():
    half = noise(32, 16)
    photo = np.concatenate([half, half[:, ::-1]], axis=1)
    predictor = predictor_of(LeftAndRight())
    flipped = predictor([photo], tta="flip").probs
    np.testing.assert_array_equal(flipped, predictor([photo]).probs)


@pytest.mark.parametrize("tta", ["none", "flip", "flip+scale"])
def test_rows_stay_in_the_order_of_the_photos(tta):
    photos = noise(11, 40, 40)
    for i, photo in enumerate(photos):
        photo[:, : 3 * i] = 0
    predictor = predictor_of(LeftAndRight())
    together = predictor(photos, tta=tta, batch_size=4, workers=3).probs
    alone = [predictor([photo], tta=tta).probs[0] for photo in photos]
    np.testing.assert_allclose(together, alone, atol=1e-6)
    assert together.dtype == np.float32


def test_every_batch_has_the_shape_of_the_first():
    """Of another shape the network would be compiled anew."""
    network = LeftAndRight()
    shapes, predict = [], network.predict_on_batch
    network.predict_on_batch = lambda images: shapes.append(images.shape) or predict(images)
    photos, predictor = noise(7, 40, 40), predictor_of(network)
    probs = predictor(photos, tta="flip", batch_size=4).probs
    assert shapes == [(4, 32, 32, 3)] * 4
    np.testing.assert_allclose(probs[6], predictor(photos[6:], tta="flip").probs[0], atol=1e-6)
    assert shapes[4:] == [(1, 32, 32, 3)] * 2, "one photo stays one"


@pytest.mark.parametrize(("tta", "views"), [("none", 1), ("flip", 2), ("flip+scale", 4)])
def test_progress_counts_every_view_of_every_member(tta, views):
    assert num_views(tta) == views
    members = [predictor_of(LeftAndRight()), predictor_of(LeftAndRight(), image_size=48)]
    members[1].name = "the other"
    ensemble, done = Ensemble(members=members), []
    ensemble(noise(5, 40, 40), tta=tta, batch_size=2, progress=done.append)
    assert sum(done) == 5 * ensemble.num_views(tta) == 5 * 2 * views


def test_an_unknown_tta_is_told():
    text = "Expected tta to be one of none, flip, flip+scale. Received: tta=rotate"
    with pytest.raises(UserError, match=text.replace("+", r"\+")):
        predictor_of(LeftAndRight())([noise(9, 9)], tta="rotate")
    with pytest.raises(UserError, match=text.replace("+", r"\+")):
        to_predict_config(composed("tta=rotate", name="predict"))


@pytest.mark.parametrize("tta", ["none", "flip", "flip+scale"])
def test_tta_is_asked_for_without_quotes(tta):
    assert to_predict_config(composed(f"tta={tta}", name="predict")).tta == tta


def test_an_array_is_predicted_as_the_photo_that_it_came_from(tmp_path):
    photos = [noise(50, 70), noise(20, 16, seed=1), noise(90, 31, seed=2)]
    for i, photo in enumerate(photos):
        Image.fromarray(photo).save(tmp_path / f"{i}.png")
    for mode in ("squash", "crop", "pad"):
        predictor = predictor_of(LeftAndRight(), resize=mode)
        of_files = predictor([tmp_path / f"{i}.png" for i in range(3)], tta="flip+scale")
        np.testing.assert_array_equal(predictor(photos, tta="flip+scale").probs, of_files.probs)


def test_photos_that_cannot_be_opened_keep_their_row(tmp_path):
    Image.fromarray(noise(40, 40)).save(tmp_path / "good.png")
    (tmp_path / "empty.png").touch()
    names = ["gone.png", "good.png", "empty.png"]
    predictor = predictor_of(LeftAndRight())
    predicted = predictor([str(tmp_path / name) for name in names], tta="flip+scale")
    assert predicted.errors == {0: "no such file", 2: "an empty file"}
    np.testing.assert_array_equal(
        predicted.probs[1], predictor([noise(40, 40)], tta="flip+scale").probs[0]
    )


def test_no_photos_give_no_rows_and_load_no_network():
    predictor = Predictor(name="x", info=predictor_of(LeftAndRight()).info, load=lambda: 1 / 0)
    assert predictor([]).probs.shape == (0, 2)
    assert predictor(np.zeros((0, 8, 8, 3), np.uint8)).probs.shape == (0, 2)


@pytest.mark.parametrize(
    ("photos", "text"),
    [
        (np.zeros((8, 8, 3), np.uint8), r"Received: shape \(8, 3\), uint8 at index 0"),
        (np.zeros((2, 8, 8, 3)), r"Received: shape \(8, 8, 3\), float64 at index 0"),
        ([noise(8, 8), np.zeros((8, 8), np.uint8)], r"Received: shape \(8, 8\), uint8 at index 1"),
        ([np.zeros((0, 8, 3), np.uint8)], r"Received: shape \(0, 8, 3\), uint8 at index 0"),
        ([noise(8, 8), "a.png"], r"Received: shape \(\), str at index 1"),
        ("a.png", "Expected a list of photos. Received: one path, a.png"),
    ],
)
def test_what_is_no_photo_is_told(photos, text):
    with pytest.raises(UserError, match=text):
        predictor_of(LeftAndRight())(photos)
