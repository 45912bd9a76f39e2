"""Reading torch's zip format: files that torch wrote, and bad ones made here without torch."""

import struct
import zipfile
from collections import OrderedDict
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from carcls.errors import UserError
from carcls.models.torch_files import read_pth
from tests.torch_writer import Evil, Storage, Tensor, floats, whole, write_zip

FIXTURES = Path(__file__).parent / "fixtures"  # of make_torch_fixtures.py
SHARED = np.arange(24, dtype=np.float32)
ODD = {
    "channels_last": SHARED.reshape(1, 2, 3, 4),
    "transposed": SHARED.reshape(4, 6).T,
    "shared_part": floats(5, 8, 11, 14),
    "half": np.array([0.5, -65504], np.float16),
    "bfloat16": floats(1, -2.5, 1.5 * 2.0**127),
    "double": np.array([[1 / 3]]),
    "scalar": np.array(7),
    "bytes": np.array([0, 255], np.uint8),
    "flags": np.array([True, False, True]),
    "empty": np.empty((3, 0), np.float32),
    "parameter": floats(1.5, 2.5),
}


@pytest.fixture
def write_pth(tmp_path):
    return partial(write_zip, tmp_path / "weights.pth")


def refusal(path) -> str:
    with pytest.raises(UserError) as error:
        read_pth(path)
    message = str(error.value)
    assert message.startswith(f"Expected {path} to be a state dict as torch.save(model.state_dict")
    assert message.endswith("Nothing in it was run. Give another file, or fetch this one again.")
    return message


@pytest.mark.parametrize("file_name", ["odd_tensors.pth", "odd_tensors_legacy.pth"])
def test_what_torch_wrote_is_read_to_the_bit(file_name):
    tensors = read_pth(FIXTURES / file_name)
    assert list(tensors) == list(ODD)
    for name, expected in ODD.items():
        assert tensors[name].dtype == expected.dtype
        np.testing.assert_array_equal(tensors[name], expected)
        assert not tensors[name].flags.writeable or tensors[name].size == 0
    assert np.shares_memory(tensors["transposed"], tensors["shared_part"])
    assert tensors["channels_last"].strides == (96, 4, 32, 8)  # as torch had it


def test_a_program_of_torchscript_is_refused():
    assert "it is a TorchScript program, of torch.jit.save" in refusal(FIXTURES / "torchscript.pth")


@pytest.mark.parametrize("left", [5, 300, 2000, 3500, -1])
def test_a_truncated_file_is_refused(tmp_path, left):
    path = tmp_path / "weights.pth"
    path.write_bytes((FIXTURES / "odd_tensors.pth").read_bytes()[:left])
    assert "it begins as a zip file, but is truncated or damaged" in refusal(path)


def test_a_changed_number_is_noticed(tmp_path):
    content = (FIXTURES / "odd_tensors.pth").read_bytes()
    path = tmp_path / "weights.pth"
    path.write_bytes(content.replace(struct.pack("<d", 1 / 3), struct.pack("<d", 1 / 5)))
    assert "Bad CRC-32 for file 'odd_tensors/data/" in refusal(path)


def test_what_the_tests_write_is_read_like_what_torch_writes(write_pth):
    array = floats([1, 2, 3], [4, 5, 6])
    tensors = read_pth(write_pth(OrderedDict(b=whole("0", array), a=whole("1", np.array([9])))))
    assert list(tensors) == ["b", "a"]
    np.testing.assert_array_equal(tensors["b"], array)
    assert tensors["a"] == [9]


def test_a_file_of_before_torch_told_the_byte_order_is_little_endian(write_pth):
    path = write_pth({"a": whole("0", floats(1, 2))}, parts={"byteorder": None})
    np.testing.assert_array_equal(read_pth(path)["a"], [1, 2])


def test_no_function_that_its_pickle_names_is_run(write_pth, tmp_path):
    marker = tmp_path / "marker"
    path = write_pth({"a": whole("0", floats(1)), "b": Evil(f"touch {marker}")})
    assert "which no state dict needs" in refusal(path)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ({"byteorder": b"big"}, "its numbers are big-endian"),
        ({"data/0": floats(1, 2).tobytes()}, "storage 0 has 8 bytes instead of 12"),
        ({"data/0": floats(1, 2, 3, 4).tobytes()}, "storage 0 has 16 bytes instead of 12"),
        ({"data/0": None}, "storage 0 has no bytes instead of 12"),
        ({"data.pkl": None}, "a zip file with something else than one state dict in it"),
        ({"more/data.pkl": b""}, "a zip file with something else than one state dict in it"),
        ({"data.pkl": b"\x80\x02K\x05."}, "it holds something else than a dict of tensors"),
        ({"data.pkl": b"\x80\x02}q"}, "cannot be read so"),
        ({"data.pkl": b""}, "cannot be read so"),
        ({"data.pkl": b"\x80\x02}r\xff\xff\xff\xff."}, "its pickle is no ordinary one"),  # 64 GB
    ],
)
def test_a_file_with_a_wrong_part_is_refused(write_pth, parts, reason):
    path = write_pth({"a": whole("0", floats(1, 2, 3))}, parts=parts)
    assert reason in refusal(path)


@pytest.mark.parametrize(
    ("tensor", "reason"),
    [
        (Tensor(Storage("0", floats(1, 2)), 0, (3,), (1,)), "beyond its storage"),
        (Tensor(Storage("0", floats(1, 2)), 0, (2,), (-1,)), "impossible shape"),
        (Tensor(Storage("0", floats(1, 2), size=-2), 0, (2,), (1,)), "8 bytes instead of -8"),
        (Tensor("no storage", 0, (2,), (1,)), "something else than a dict of tensors"),
        ({"weight": 1}, "something else than a dict of tensors"),  # {"model": state dict}
    ],
)
def test_what_is_no_tensor_within_its_storage_is_refused(write_pth, tensor, reason):
    assert reason in refusal(write_pth({"a": tensor}))


def test_tensors_that_see_one_storage_differently_are_refused(write_pth):
    storages = Storage("0", floats(1, 2)), Storage("0", floats(1, 2), size=1)
    path = write_pth(
        {name: Tensor(s, 0, (1,), (1,)) for name, s in zip("ab", storages, strict=True)}
    )
    assert "tensor a has another idea of its storage" in refusal(path)


def test_compressed_parts_are_refused_before_they_are_unpacked(write_pth):
    bomb = Tensor(Storage("0", np.zeros(10**6, np.float32)), 0, (10**6,), (1,))
    path = write_pth({"a": bomb}, compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 10**4
    assert "its part weights/data.pkl is compressed, which torch never does" in refusal(path)


def test_parts_that_lie_over_each_other_are_refused_before_they_are_read(write_pth):
    """Each part claims the same bytes: a small file that would be many times as much in memory."""
    path = write_pth({"a": whole("0", np.zeros(1000, np.float32))})
    with zipfile.ZipFile(path, "a") as archive:
        big = archive.getinfo("weights/data/0")
        for number in range(9):
            archive.filelist.append(copy_of(big, f"weights/data/{number + 1}"))
        archive._didModify = True
    assert path.stat().st_size < 6000
    assert "its parts are larger than the file" in refusal(path)


def copy_of(entry: zipfile.ZipInfo, name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.file_size = info.compress_size = entry.file_size
    info.CRC, info.header_offset = entry.CRC, entry.header_offset
    return info
