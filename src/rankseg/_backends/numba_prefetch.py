"""Prefetch memory by an instruction of LLVM that numba does not expose.

The processor prefetches sequential reads by itself, but not across pages of 4 KiB, and not far
enough ahead if a loop works long on each value.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

READ, KEEP, DATA = 0, 3, 1


@intrinsic
def prefetch(_: Any, array: Any, index: Any) -> Any:
    """Prefetch an element of a one-dimensional contiguous array into the level-1 cache.

    No value is read, so the index may lie outside of the array.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        view = context.make_array(signature.args[0])(context, builder, arguments[0])
        address = builder.bitcast(builder.gep(view.data, [arguments[1]]), cgutils.voidptr_t)
        options = [ir.IntType(32)(option) for option in (READ, KEEP, DATA)]
        kind = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, *[o.type for o in options]])
        fetch = builder.module.declare_intrinsic("llvm.prefetch", [cgutils.voidptr_t], kind)
        builder.call(fetch, [address, *options])
        return context.get_dummy_value()

    return types.void(array, index), generate
