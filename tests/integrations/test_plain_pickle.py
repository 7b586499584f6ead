"""Pickles of plain data, read without unpickling."""

from __future__ import annotations

import os
import pickle
import random
import struct
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankseg.integration import _plain_pickle
from rankseg.integration._plain_pickle import read_plain_pickle

DATA = {
    "sitk_stuff": {
        "spacing": (0.5, 1.0, 2.5),
        "origin": (-3.0, 4.0, 1e300),
        "direction": (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
    },
    "nibabel_stuff": {"original_affine": np.diag([1.5, 2, 3, 1]), "other": np.eye(3)[::2].T},
    "spacing": [1, np.float64(2.5), np.int64(-3), np.float16(0.5), np.bool_(True), np.uint8(255)],
    "shape_before_cropping": (20, 30, 40),
    "bbox_used_for_cropping": [[0, 20], (1, 2), []],
    "arrays": [
        np.arange(6).reshape(2, 3),
        np.asfortranarray(np.arange(6).reshape(2, 3).astype(">f4")),
        np.zeros((0, 4), np.int16),
        np.array(3.5),
        np.array([True, False]),
    ],
    "more": {"empty": b"", "bytes": b"\x00\xff", "none": None, 1: -(2**63), "é": {"deep": [{}]}},
}

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("core", [b"numpy._core", b"numpy.core"])
def test_data_are_what_was_pickled(protocol, core):
    content = pickle.dumps(DATA, protocol)
    own = np.__name__.encode() + (b"._core" if b"numpy._core" in content else b".core")
    if protocol < 4:  # later ones store the length of the name
        content = content.replace(own, core)
    got = read_plain_pickle(content)
    np.testing.assert_equal(got, DATA)
    for array, expected in zip(got["arrays"], DATA["arrays"], strict=True):
        assert array.dtype == expected.dtype
        assert array.flags.writeable
    assert [type(number) for number in got["spacing"]] == [int, float, int, float, bool, int]


def test_names_of_older_numpy_in_later_protocols():
    content = pickle.dumps(np.float64(2.5), 4)
    old, new = b"\x8c\x16numpy._core.multiarray", b"\x8c\x15numpy.core.multiarray"
    start, size = content.index(b"\x95") + 1, struct.calcsize("<Q")
    frame = struct.unpack("<Q", content[start : start + size])[0]
    if old in content:
        content = content.replace(old, new)
        content = content[:start] + struct.pack("<Q", frame - 1) + content[start + size :]
    assert read_plain_pickle(content) == 2.5


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=5) | st.integers(0, 9), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(plain, st.sampled_from(PROTOCOLS))
def test_any_plain_data(data, protocol):
    np.testing.assert_equal(read_plain_pickle(pickle.dumps(data, protocol)), data)


class Call:
    def __init__(self, *reduced):
        self.reduced = reduced

    def __reduce__(self):
        return self.reduced


ZEROS = pickle.dumps(np.zeros(3), 2)

HARMFUL = {
    "a function": pickle.dumps(Call(os.system, ("exit 3",))),
    "a module": b"\x80\x02cnumpy.f2py.__main__\ndtype\n.",
    "a module of numpy": b"\x80\x02cnumpy.distutils._reconstruct\nscalar\n.",
    "a name that nothing is made of": b"cnumpy\ndtype\n.",
    "a name with dots": b"\x8c\x05numpy\x8c\x0ddtype.__new__\x93.",
    "an instance": b"(inumpy\ndtype\n.",
    "an object": b"(cnumpy\ndtype\no.",
    "a new object": b"cnumpy\nndarray\n)\x81.",
    "an extension": b"\x82\x01.",
    "a persistent id": b"Pid\n.",
    "a buffer from elsewhere": b"\x97.",
    "an array of objects": pickle.dumps(np.array([None, {}])),
    "an array of texts": pickle.dumps(np.array(["a"])),
    "a structured array": pickle.dumps(np.zeros(2, [("x", "f4")])),
    "a date": pickle.dumps(np.datetime64("2020-01-01")),
    "an array of complex numbers": pickle.dumps(np.zeros(2, complex)),
    "a class": pickle.dumps(dict),
    "a set": pickle.dumps({1}),
    "bytes as a pointer": pickle.dumps(np.array([1]), 2).replace(b"i8", b"O8"),
    "an array larger than its bytes": ZEROS.replace(b"K\x03\x85", b"K\x04\x85"),
    "an array without content": ZEROS[:-2] + b"0.",
    "a state of a list": b"](K\x01tb.",
    "too large an integer": pickle.dumps(10**400),
    "digits without end": b"I" + b"1" * 10_000 + b"\n.",
    "too deep": b"(" * 40 + b"l" * 40 + b".",
    "a list in itself": b"]q\x00h\x00a.",
    "a list of lists that are each other": b"]q\x00" + b"(h\x00h\x00lq\x00" * 30 + b".",
    "a tuple hashed for ever": b")q\x00" + b"h\x00h\x00\x86q\x00" * 90 + b"}h\x00\x8c\x00s.",
    "as many values as fit": b"](" + b"N" * 200_000 + b"e.",
    "too large": b"N" * _plain_pickle.LARGEST + b".",
    "no mark": b"t.",
    "an odd dictionary": b"(Nd.",
    "an empty stack": b"a.",
    "what was never stored": b"h\x07.",
    "nothing": b"",
    "no end": b"N",
}  # fmt: skip


@pytest.mark.parametrize("kind", HARMFUL)
def test_anything_else_is_a_value_error(kind):
    with pytest.raises(ValueError, match=r"^.{1,200}$"):
        read_plain_pickle(HARMFUL[kind])


def test_bytes_stored_as_text_are_limited():
    text = b"X\x00\x04\x00\x00" + b"a" * 1024
    content = b"](c_codecs\nencode\nq\x00" + text + b"q\x01X\x06\x00\x00\x00latin1q\x02\x86R"
    content += b"h\x00h\x01h\x02\x86R" * 2000 + b"e."
    with pytest.raises(ValueError, match="more than 1048576 bytes"):
        read_plain_pickle(content)


def assert_plain(value):
    if type(value) in (list, tuple):
        for item in value:
            assert_plain(item)
    elif type(value) is dict:
        for item in (*value, *value.values()):
            assert_plain(item)
    elif type(value) is np.ndarray:
        assert value.dtype.kind in "biuf"
    else:
        assert value is None or type(value) in (bool, int, float, str, bytes)


def mutated(rng, content, others):
    """Return a pickle with some bytes changed, removed, repeated, or taken from another one."""
    content = bytearray(content)
    for _ in range(rng.randint(1, 6)):
        start = rng.randrange(len(content))
        stop = start + rng.randint(1, 12)
        match rng.randrange(5):
            case 0:
                content[start] = rng.randrange(256)
            case 1:
                del content[start : min(stop, len(content) - 1)]
            case 2:
                content[start:start] = content[start:stop]
            case 3:
                other = rng.choice(others)
                first = rng.randrange(len(other))
                content[start:stop] = other[first : first + rng.randint(1, 40)]
            case 4:
                content[start] = rng.choice(
                    b"(.0123IJKLMNRSTUVX]abcdeghijlopqrstu}\x85\x86\x87\x93\x94"
                )
    return bytes(content)


def test_mutated_pickles_give_plain_data_or_a_value_error():
    rng = random.Random(0)
    seeds = [pickle.dumps(DATA, protocol) for protocol in PROTOCOLS]
    seeds += [pickle.dumps(part, protocol) for part in DATA.values() for protocol in PROTOCOLS]
    others = [*seeds, *(content for content in HARMFUL.values() if 0 < len(content) < 1000)]
    before = set(sys.modules)
    read = 0
    for turn in range(6000):
        content = mutated(rng, seeds[turn % len(seeds)], others)
        try:
            value = read_plain_pickle(content)
        except ValueError:
            continue
        assert_plain(value)
        read += 1
    assert 200 < read < 5800  # some are damaged where it shows, some are not
    assert set(sys.modules) == before


def test_reading_imports_nothing():
    code = (
        "import sys, pickletools, numpy\n"
        "from rankseg.integration._plain_pickle import read_plain_pickle\n"
        "before = set(sys.modules)\n"
        "read_plain_pickle(bytes.fromhex(sys.argv[1]))\n"
        "assert set(sys.modules) == before"
    )
    subprocess.run([sys.executable, "-c", code, pickle.dumps(DATA).hex()], check=True)
