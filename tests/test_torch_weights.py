"""Reading torch's old file format: files as torch wrote them, made here without torch."""

import os
import pickle
import struct
from collections import OrderedDict
from functools import partial

import numpy as np
import pytest

from carcls.catalogue import BACKBONES
from carcls.errors import UserError
from carcls.models.backbones import packaged_weights
from carcls.models.efficientnet_lite import efficientnet_lite
from carcls.models.torch_files import read_pth
from carcls.models.torch_weights import load_efficientnet_lite
from tests.torch_writer import Evil, Storage, Tensor, floats, whole, write_legacy


@pytest.fixture
def write_pth(tmp_path):
    return partial(write_legacy, tmp_path / "weights.pth")


def test_tensors_are_read_by_their_strides_and_offsets(write_pth):
    storage = Storage("b", floats(0, 1, 2, 3, 4, 5, 6))
    path = write_pth(
        OrderedDict(
            by_rows=Tensor(storage, 1, (2, 3), (3, 1)),
            by_columns=Tensor(storage, 1, (2, 3), (1, 2)),
            count=Tensor(Storage("a", np.array([7], np.int64)), 0, (), ()),
        )
    )
    tensors = read_pth(path)
    assert list(tensors) == ["by_rows", "by_columns", "count"]
    np.testing.assert_array_equal(tensors["by_rows"], floats([1, 2, 3], [4, 5, 6]))
    np.testing.assert_array_equal(tensors["by_columns"], floats([1, 3, 5], [2, 4, 6]))
    assert tensors["by_rows"].dtype == np.float32
    assert tensors["count"].dtype == np.int64
    assert tensors["count"] == 7


@pytest.mark.parametrize("part", ["magic", "system", "tensors", "keys"])
def test_no_function_that_a_pickle_names_is_run(write_pth, tmp_path, part):
    marker = tmp_path / "marker"
    parts = {"tensors": OrderedDict(a=whole("a", floats(1))), part: Evil(f"touch {marker}")}
    path = write_pth(**parts)
    with pytest.raises(UserError, match="which no state dict needs") as error:
        read_pth(path)
    assert not marker.exists()
    assert str(path) in str(error.value)
    assert f"it asks for {os.system.__module__}.system" in str(error.value)


def test_the_attack_that_is_refused_is_a_real_one(tmp_path):
    marker = tmp_path / "marker"
    pickle.loads(pickle.dumps(Evil(f"touch {marker}")))
    assert marker.exists()


@pytest.mark.parametrize(
    "name", ["builtins.eval", "torch.load", "torch._utils._rebuild", "collections.Counter"]
)
def test_only_the_names_of_a_state_dict_are_known(tmp_path, name):
    module, _, function = name.rpartition(".")
    path = tmp_path / "weights.pth"
    path.write_bytes(f"c{module}\n{function}\n.".encode())
    with pytest.raises(UserError, match=f"it asks for {name}"):
        read_pth(path)


@pytest.mark.parametrize(
    ("tensor", "reason"),
    [
        (Tensor(Storage("a", floats(1, 2)), 0, (3,), (1,)), "beyond its storage"),
        (Tensor(Storage("a", floats(1, 2)), 1, (2,), (1,)), "beyond its storage"),
        (Tensor(Storage("a", floats(1, 2)), 0, (2,), (1000,)), "beyond its storage"),
        (Tensor(Storage("a", floats(1, 2)), 0, (10**12,), (0,)), "beyond its storage"),
        (Tensor(Storage("a", floats(1, 2)), 0, (2,), (-1,)), "impossible shape"),
        (Tensor(Storage("a", floats(1, 2)), -8, (2,), (1,)), "impossible shape"),
        (Tensor(Storage("a", floats(1, 2)), 0, (2,), ()), "impossible shape"),
        (Tensor(Storage("a", floats(1, 2), size=3), 0, (2,), (1,)), "2 numbers instead of 3"),
    ],
)
def test_a_tensor_that_is_not_within_its_storage_is_refused(write_pth, tensor, reason):
    path = write_pth({"a": tensor})
    with pytest.raises(UserError, match=reason) as error:
        read_pth(path)
    assert str(path) in str(error.value)


def test_a_count_beyond_the_end_of_the_file_takes_no_memory(write_pth):
    path = write_pth({"a": Tensor(Storage("a", floats(1, 2), size=2**60), 0, (2,), (1,))})
    path.write_bytes(path.read_bytes()[:-16] + struct.pack("<q", 2**60) + bytes(8))
    with pytest.raises(UserError, match="it ends within storage a: it is truncated"):
        read_pth(path)


@pytest.mark.parametrize("left", [0, 3, 40, 200, -1])
def test_a_truncated_file_is_refused_by_name(write_pth, left):
    path = write_pth({"a": whole("a", floats(*range(50)))})
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(UserError, match=r"Expected .*weights\.pth to be a state dict"):
        read_pth(path)


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ({"magic": 5}, "it does not begin as torch's files do"),
        ({"system": {"little_endian": False}}, "its numbers are big-endian"),
        ({"tensors": [1, 2]}, "it holds something else than a dict of tensors"),
        ({"keys": []}, "its list of storages is not that of its tensors"),
    ],
)
def test_a_file_with_a_wrong_part_is_refused(write_pth, parts, reason):
    path = write_pth(**{"tensors": {"a": whole("a", floats(1))}, **parts})
    with pytest.raises(UserError, match=reason):
        read_pth(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"PK\x03\x04 and so on", "is truncated or"), (b"<html>404</html>", "cannot be read")],
)
def test_other_files_are_refused(tmp_path, content, reason):
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(UserError, match=reason):
        read_pth(path)


def test_a_missing_file_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match=r"Expected .*no\.pth to be a torch weights file"):
        read_pth(tmp_path / "no.pth")


@pytest.fixture(scope="module")
def lite0_tensors():
    return read_pth(packaged_weights(BACKBONES["efficientnetlite0"]))


@pytest.fixture(scope="module")
def lite0():
    return efficientnet_lite("efficientnetlite0", include_top=True)


def rewritten(write_pth, tensors):
    return write_pth({name: whole(name, array) for name, array in tensors.items()})


def test_kernels_are_transposed_and_batch_norm_keeps_its_order(lite0, lite0_tensors):
    load_efficientnet_lite(lite0, packaged_weights(BACKBONES["efficientnetlite0"]))

    def weights(layer):
        return lite0.get_layer(layer).get_weights()

    stem = lite0_tensors["_conv_stem.weight"]  # (out, in, h, w)
    assert weights("stem_conv")[0].shape == (3, 3, 3, 32)
    assert weights("stem_conv")[0][0, 2, 1, 31] == stem[31, 1, 0, 2]
    depthwise = lite0_tensors["_blocks.3._depthwise_conv.weight"]  # block 3 is the first of stage 3
    assert weights("block3a_dwconv")[0].shape == (5, 5, 144, 1)
    assert weights("block3a_dwconv")[0][0, 4, 143, 0] == depthwise[143, 0, 0, 4]
    gamma, beta, mean, variance = weights("block7a_project_bn")
    np.testing.assert_array_equal(gamma, lite0_tensors["_blocks.15._bn2.weight"])
    np.testing.assert_array_equal(beta, lite0_tensors["_blocks.15._bn2.bias"])
    np.testing.assert_array_equal(mean, lite0_tensors["_blocks.15._bn2.running_mean"])
    np.testing.assert_array_equal(variance, lite0_tensors["_blocks.15._bn2.running_var"])
    kernel, bias = weights("predictions")
    assert kernel[5, 281] == lite0_tensors["_fc.weight"][281, 5]
    np.testing.assert_array_equal(bias, lite0_tensors["_fc.bias"])


def test_a_missing_tensor_is_told_and_nothing_is_loaded(lite0, lite0_tensors, write_pth):
    before = lite0.get_weights()
    tensors = {name: 2 * array for name, array in lite0_tensors.items()}
    del tensors["_bn1.running_var"]
    with pytest.raises(UserError, match=r"it has no tensor _bn1\.running_var for layer top_bn"):
        load_efficientnet_lite(lite0, rewritten(write_pth, tensors))
    for weight, was in zip(lite0.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, was)


def test_a_tensor_without_a_place_is_told(lite0, lite0_tensors, write_pth):
    tensors = {**lite0_tensors, "_blocks.16._bn2.bias": floats(1, 2)}
    with pytest.raises(UserError, match=r"1 tensors too many, among them _blocks\.16\._bn2\.bias"):
        load_efficientnet_lite(lite0, rewritten(write_pth, tensors))


def test_a_tensor_of_another_shape_is_told(lite0, lite0_tensors, write_pth):
    tensors = {**lite0_tensors, "_fc.weight": np.zeros((10, 1280), np.float32)}
    with pytest.raises(UserError, match=r"makes \(1280, 10\), while layer predictions has"):
        load_efficientnet_lite(lite0, rewritten(write_pth, tensors))


def test_weights_of_another_variant_are_refused_by_file_and_model(lite0):
    path = packaged_weights(BACKBONES["efficientnetlite1"])
    with pytest.raises(UserError, match="those of another network") as error:
        load_efficientnet_lite(lite0, path)
    assert str(path) in str(error.value)
    assert "made for efficientnetlite0" in str(error.value)
