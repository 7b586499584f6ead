"""Pickles that hold plain data, read without unpickling: nothing that a file names is run.

The standard library lists the opcodes of a pickle. The interpreter here knows those of containers,
strings and numbers, and the calls by which NumPy stores arrays and scalars. It imports and calls
nothing; every other opcode or name is an error.
"""

from __future__ import annotations

import math
import pickletools
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["LARGEST", "read_plain_pickle"]

LARGEST: Final = 1 << 20  # bytes of a file
MOST_VALUES: Final = 100_000  # of what is returned, each counted as often as it is held
DEEPEST: Final = 32  # containers in containers
WIDEST: Final = 64  # bits of an integer
MOST_AXES: Final = 8

LITERALS: Final = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
"""Opcodes whose argument is the value."""

CONSTANTS: Final[dict[str, Callable[[], Any]]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
}
"""Opcodes that push a value of their own."""

TUPLES: Final = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
PUTS: Final = ("PUT", "BINPUT", "LONG_BINPUT")
GETS: Final = ("GET", "BINGET", "LONG_BINGET")

_MULTIARRAY: Final = ("numpy.core.multiarray", "numpy._core.multiarray")
_NUMERIC: Final = ("numpy.core.numeric", "numpy._core.numeric")
NAMES: Final = {
    ("numpy", "dtype"): "dtype",
    ("numpy", "ndarray"): "ndarray",
    ("_codecs", "encode"): "encode",  # bytes, in protocols that lack them
    ("__builtin__", "bytes"): "bytes",
    ("builtins", "bytes"): "bytes",
    **{(module, "_reconstruct"): "reconstruct" for module in _MULTIARRAY},
    **{(module, "scalar"): "scalar" for module in _MULTIARRAY},
    **{(module, "_frombuffer"): "frombuffer" for module in _NUMERIC},
}
"""What a pickle of arrays names, and which of the calls here it stands for."""

PLAIN_DTYPE: Final = re.compile("b1|[iu][1248]|f[248]")


@dataclass(frozen=True)
class _Name:
    """One of `NAMES`, which is no data until it is called."""

    call: str


@dataclass
class _Dtype:
    """A dtype; its byte order comes later."""

    code: str
    order: str = "="

    def array(self, content: Any, shape: Any, in_fortran_order: Any) -> NDArray[Any]:
        """Return an array of this dtype, as a view of ``content``."""
        dtype = np.dtype(self.order + self.code)
        _demand(
            type(content) is bytes
            and type(shape) is tuple
            and len(shape) <= MOST_AXES
            and all(type(size) is int and 0 <= size <= LARGEST for size in shape)
            and len(content) == math.prod(shape) * dtype.itemsize,
            "an array",
        )
        flat = np.frombuffer(content, dtype) if content else np.empty(0, dtype)
        return flat.reshape(shape, order="F" if in_fortran_order is True else "C")


@dataclass
class _Array:
    """An array whose content comes later, or never."""

    content: NDArray[Any] | None = None


def read_plain_pickle(content: bytes) -> Any:
    """Return the data in a pickle of protocol 0 to 5.

    Returns
    -------
    object
        None, bools, integers of up to 64 bits, floats, strings, bytes, arrays of numbers, and
        lists, tuples and dictionaries of these, which share nothing.

    Raises
    ------
    ValueError
        If the pickle is damaged, holds anything else, or is too large or too deep.
    """
    _demand(len(content) <= LARGEST, f"more than {LARGEST} bytes")
    machine = _Machine()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd escapes in names
        for opcode, argument, _ in pickletools.genops(content):  # a ValueError without STOP
            if opcode.name == "STOP":
                break
            machine.step(opcode.name, argument)
    return _Copy().of(machine.pop(), DEEPEST)


def _demand(holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(f"it holds what is no plain data, or is damaged: {what}")


class _Machine:
    """The stack and the memo of a pickle that is being read."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # the stacks below each mark
        self.memo: dict[int, Any] = {}
        self.room = LARGEST  # for bytes that are stored as text

    def step(self, name: str, argument: Any) -> None:
        """Do what an opcode says."""
        if name in LITERALS:
            self.push(_literal(argument))
        elif name in CONSTANTS:
            self.push(CONSTANTS[name]())
        elif name in TUPLES:
            self.push(tuple(self.pop() for _ in range(TUPLES[name]))[::-1])
        elif name in PUTS:
            self.memo[argument] = self.top()
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = self.top()
        elif name in GETS:
            _demand(argument in self.memo, "a value that was not stored")
            self.push(self.memo[argument])
        elif name in ("GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD"):
            self.call(name, argument)
        elif name not in ("PROTO", "FRAME"):
            self.contain(name)

    def contain(self, name: str) -> None:
        """Do what an opcode says that is about containers."""
        if name == "MARK":
            self.below.append(self.stack)
            self.stack = []
        elif name == "POP":
            self.pop()
        elif name == "POP_MARK":
            self.pop_marked()
        elif name == "TUPLE":
            self.push(tuple(self.pop_marked()))
        elif name == "LIST":
            self.push(self.pop_marked())
        elif name == "DICT":
            self.push(_with_items({}, self.pop_marked()))
        elif name in ("APPEND", "APPENDS"):
            items = self.pop_marked() if name == "APPENDS" else [self.pop()]
            _demand(type(self.top()) is list, name)
            self.top().extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            items = self.pop_marked() if name == "SETITEMS" else [self.pop(), self.pop()][::-1]
            _with_items(self.top(), items)
        else:
            _demand(False, f"opcode {name}")

    def call(self, name: str, argument: Any) -> None:
        """Do what an opcode says that names or calls something."""
        if name == "BUILD":
            state = self.pop()
            _build(self.top(), state)
            return
        if name == "REDUCE":
            arguments, called = self.pop(), self.pop()
            _demand(type(called) is _Name and type(arguments) is tuple, name)
            self.push(self.reduce(called.call, arguments))
            return
        if name == "STACK_GLOBAL":
            last, module = self.pop(), self.pop()
            _demand(type(module) is str and type(last) is str, name)
        else:
            module, _, last = argument.partition(" ")
        _demand((module, last) in NAMES, f"the name {module[:80]}.{last[:80]}")
        self.push(_Name(NAMES[module, last]))

    def reduce(self, call: str, arguments: tuple[Any, ...]) -> Any:
        """Return what one of `NAMES` gives for arguments."""
        match call, arguments:
            case "dtype", (str(code), False | 0, True | 1) if PLAIN_DTYPE.fullmatch(code):
                return _Dtype(code)
            case "reconstruct", (_Name("ndarray"), (0,), b"b"):
                return _Array()
            case "frombuffer", (bytes(content), _Dtype() as dtype, shape, "C" | "F" as order):
                return _Array(dtype.array(content, shape, order == "F"))
            case "scalar", (_Dtype() as dtype, bytes(content)):
                return dtype.array(content, (), False).item()
            case "bytes", ():
                return b""
            case "encode", (str(text), "latin1"):
                self.room -= len(text)
                _demand(self.room >= 0, f"more than {LARGEST} bytes")
                return text.encode("latin1")
            case _:
                raise ValueError(f"it holds what is no plain data, or is damaged: a call of {call}")

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def top(self) -> Any:
        _demand(bool(self.stack), "an empty stack")
        return self.stack[-1]

    def pop(self) -> Any:
        _demand(bool(self.stack), "an empty stack")
        return self.stack.pop()

    def pop_marked(self) -> list[Any]:
        """Return what is on the stack above the last mark."""
        _demand(bool(self.below), "no mark")
        items, self.stack = self.stack, self.below.pop()
        return items


def _literal(value: Any) -> Any:
    if type(value) is int:
        _demand(value.bit_length() <= WIDEST, f"an integer of {value.bit_length()} bits")
    return bytes(value) if type(value) is bytearray else value


def _with_items(held: Any, items: list[Any]) -> dict[Any, Any]:
    """Return a dictionary after keys and values in turn are put into it."""
    _demand(type(held) is dict and len(items) % 2 == 0, "items of a dictionary")
    keys = items[::2]
    # Hashing a tuple of tuples may take for ever.
    _demand(all(type(key) in (str, bytes, int, float, bool) for key in keys), "a key")
    held.update(zip(keys, items[1::2], strict=True))
    return held  # type: ignore[no-any-return]


def _build(held: Any, state: Any) -> None:
    """Complete a dtype by its byte order, or an array by its content."""
    match held, state:
        case _Dtype(), (3, "<" | ">" | "|" | "=" as order, None, None, None, -1, -1, 0):
            held.order = order
        case _Array(None), (1, shape, _Dtype() as dtype, bool(in_fortran_order), bytes(content)):
            held.content = dtype.array(content, shape, in_fortran_order)
        case _:
            raise ValueError("it holds what is no plain data, or is damaged: a state")


class _Copy:
    """Copies data so that it shares nothing, and is a tree of limited size."""

    def __init__(self) -> None:
        self.room = MOST_VALUES

    def of(self, value: Any, depth: int) -> Any:
        """Return a copy, of at most ``depth`` containers in each other."""
        size = value.content.size if type(value) is _Array and value.content is not None else 1
        self.room -= size
        _demand(self.room >= 0, f"more than {MOST_VALUES} values")
        _demand(depth >= 0, f"more than {DEEPEST} containers in each other")
        if value is None or type(value) in (bool, int, float, str, bytes):
            return value
        if type(value) in (list, tuple):
            return type(value)(self.of(item, depth - 1) for item in value)
        if type(value) is dict:
            return {key: self.of(item, depth - 1) for key, item in value.items()}
        _demand(
            type(value) is _Array and value.content is not None, type(value).__name__.strip("_")
        )
        return value.content.copy()
