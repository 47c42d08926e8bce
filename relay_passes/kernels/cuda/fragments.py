"""Tensor intrinsics for fragments of 16 × 16 × 16, float16 added up in float32.

Clearing and storing accumulators serves products of TF32 too, which have another depth.

Each has two forms: what it computes, which a schedule's loops are compared with, and the call
that takes their place. TVM brings such intrinsics too, among those of every other type and form,
in one module whose import alone takes longer than the compilation of most networks.

A buffer of fragments has one fragment in the place of each 16 × 16 elements, numbered row by row.
"""

# The decorators of TVM's script have no types.
# mypy: disable-error-code="untyped-decorator"

from functools import cache
from typing import Any

from tvm.s_tir import TensorIntrin
from tvm.script import tirx as T  # noqa: N812 (as TVM prints it)

__all__ = [
    "ACCUMULATOR",
    "FACTORS",
    "FRAGMENT",
    "RESULTS",
    "fill_intrinsic",
    "fragment_intrinsics",
    "fragment_number",
    "store_intrinsic",
]

FRAGMENT = 16
"""Rows, columns and depth of a fragment."""

FACTORS, RESULTS = "shared", "shared.dyn"
"""Where fragments come from and go to. Within one kind of shared memory TVM would give results the
place of a factor, of another type, and then refuses the address of it."""

ACCUMULATOR = "wmma.accumulator"


@cache
def fragment_intrinsics() -> dict[str, str]:
    """Register the intrinsics with TVM, once, and return their names.

    Returns
    -------
    dict
        ``fill``, ``load_a``, ``load_b``, ``multiply`` and ``store``.
    """
    made = {
        "fill": fill_intrinsic(FRAGMENT),
        "load_a": _load("wmma.matrix_a"),
        "load_b": _load("wmma.matrix_b"),
        "multiply": _multiply(),
        "store": store_intrinsic(FRAGMENT),
    }
    names = {}
    for name, (computes, call) in made.items():
        names[name] = f"hios.fragment_{name}"
        TensorIntrin.register(names[name], computes, call)
    return names


def fragment_number(buffer: Any, stride: Any) -> Any:
    """Return which fragment of its whole buffer the matched one is."""
    offset = buffer.elem_offset
    row, column = offset // stride // FRAGMENT, offset % stride // FRAGMENT
    return row * (stride // FRAGMENT) + column


def fill_intrinsic(depth: int) -> tuple[Any, Any]:
    """Return both forms of clearing an accumulator of products of `depth`."""
    n = FRAGMENT

    @T.prim_func(s_tir=True)
    def computes(c: T.handle) -> None:
        C = T.match_buffer(c, (n, n), "float32", align=64, offset_factor=n, scope=ACCUMULATOR)
        with T.sblock("root"):
            T.reads()
            T.writes(C[0:n, 0:n])
            for i, j in T.grid(n, n):
                with T.sblock("fill"):
                    vi, vj = T.axis.remap("SS", [i, j])
                    C[vi, vj] = T.float32(0)

    @T.prim_func(s_tir=True)
    def call(c: T.handle) -> None:
        s1 = T.int32()
        s0 = T.int32()
        C = T.match_buffer(
            c, (n, n), "float32", align=64, offset_factor=n, scope=ACCUMULATOR, strides=[s1, s0]
        )
        with T.sblock("root"):
            T.reads()
            T.writes(C[0:n, 0:n])
            T.evaluate(
                T.tvm_fill_fragment(
                    C.data, n, n, depth, fragment_number(C, s1), T.float32(0), dtype="void"
                )
            )

    return computes, call


def _load(scope: str) -> tuple[Any, Any]:
    n = FRAGMENT

    @T.prim_func(s_tir=True)
    def computes(a: T.handle, c: T.handle) -> None:
        A = T.match_buffer(a, (n, n), "float16", align=64, offset_factor=n, scope=FACTORS)
        C = T.match_buffer(c, (n, n), "float16", align=64, offset_factor=n, scope=scope)
        with T.sblock("root"):
            T.reads(A[0:n, 0:n])
            T.writes(C[0:n, 0:n])
            for i, j in T.grid(n, n):
                with T.sblock("load"):
                    vi, vj = T.axis.remap("SS", [i, j])
                    C[vi, vj] = A[vi, vj]

    @T.prim_func(s_tir=True)
    def call(a: T.handle, c: T.handle) -> None:
        a1 = T.int32()
        a0 = T.int32()
        c1 = T.int32()
        c0 = T.int32()
        A = T.match_buffer(
            a, (n, n), "float16", align=64, offset_factor=n, scope=FACTORS, strides=[a1, a0]
        )
        C = T.match_buffer(
            c, (n, n), "float16", align=64, offset_factor=n, scope=scope, strides=[c1, c0]
        )
        with T.sblock("root"):
            T.reads(A[0:n, 0:n])
            T.writes(C[0:n, 0:n])
            T.evaluate(
                T.tvm_load_matrix_sync(
                    C.data,
                    n,
                    n,
                    n,
                    fragment_number(C, c1),
                    A.access_ptr("r", ptr_type="float16"),
                    a1,
                    "row_major",
                    dtype="void",
                )
            )

    return computes, call


def store_intrinsic(depth: int) -> tuple[Any, Any]:
    """Return both forms of storing an accumulator of products of `depth`."""
    n = FRAGMENT

    @T.prim_func(s_tir=True)
    def computes(a: T.handle, c: T.handle) -> None:
        A = T.match_buffer(a, (n, n), "float32", align=64, offset_factor=n, scope=ACCUMULATOR)
        C = T.match_buffer(c, (n, n), "float32", align=64, offset_factor=n, scope=RESULTS)
        with T.sblock("root"):
            T.reads(A[0:n, 0:n])
            T.writes(C[0:n, 0:n])
            for i, j in T.grid(n, n):
                with T.sblock("store"):
                    vi, vj = T.axis.remap("SS", [i, j])
                    C[vi, vj] = A[vi, vj]

    @T.prim_func(s_tir=True)
    def call(a: T.handle, c: T.handle) -> None:
        a1 = T.int32()
        a0 = T.int32()
        c1 = T.int32()
        c0 = T.int32()
        A = T.match_buffer(
            a, (n, n), "float32", align=64, offset_factor=n, scope=ACCUMULATOR, strides=[a1, a0]
        )
        C = T.match_buffer(
            c, (n, n), "float32", align=64, offset_factor=n, scope=RESULTS, strides=[c1, c0]
        )
        with T.sblock("root"):
            T.reads(A[0:n, 0:n])
            T.writes(C[0:n, 0:n])
            T.evaluate(
                T.tvm_store_matrix_sync(
                    A.data,
                    n,
                    n,
                    depth,
                    fragment_number(A, a1),
                    C.access_ptr("w", ptr_type="float32"),
                    c1,
                    "row_major",
                    dtype="void",
                )
            )

    return computes, call


def _multiply() -> tuple[Any, Any]:
    n = FRAGMENT

    @T.prim_func(s_tir=True)
    def computes(a: T.handle, b: T.handle, c: T.handle) -> None:
        A = T.match_buffer(a, (n, n), "float16", align=64, offset_factor=n, scope="wmma.matrix_a")
        B = T.match_buffer(b, (n, n), "float16", align=64, offset_factor=n, scope="wmma.matrix_b")
        C = T.match_buffer(c, (n, n), "float32", align=64, offset_factor=n, scope=ACCUMULATOR)
        with T.sblock("root"):
            T.reads(C[0:n, 0:n], A[0:n, 0:n], B[0:n, 0:n])
            T.writes(C[0:n, 0:n])
            for i, j, k in T.grid(n, n, n):
                with T.sblock("multiply"):
                    vi, vj, vk = T.axis.remap("SSR", [i, j, k])
                    C[vi, vj] = C[vi, vj] + T.Cast("float32", A[vi, vk]) * T.Cast(
                        "float32", B[vk, vj]
                    )

    @T.prim_func(s_tir=True)
    def call(a: T.handle, b: T.handle, c: T.handle) -> None:
        a1 = T.int32()
        a0 = T.int32()
        b1 = T.int32()
        b0 = T.int32()
        c1 = T.int32()
        c0 = T.int32()
        A = T.match_buffer(
            a, (n, n), "float16", align=64, offset_factor=n, scope="wmma.matrix_a", strides=[a1, a0]
        )
        B = T.match_buffer(
            b, (n, n), "float16", align=64, offset_factor=n, scope="wmma.matrix_b", strides=[b1, b0]
        )
        C = T.match_buffer(
            c, (n, n), "float32", align=64, offset_factor=n, scope=ACCUMULATOR, strides=[c1, c0]
        )
        with T.sblock("root"):
            T.reads(C[0:n, 0:n], A[0:n, 0:n], B[0:n, 0:n])
            T.writes(C[0:n, 0:n])
            T.evaluate(
                T.tvm_mma_sync(
                    C.data,
                    fragment_number(C, c1),
                    A.data,
                    fragment_number(A, a1),
                    B.data,
                    fragment_number(B, b1),
                    C.data,
                    fragment_number(C, c1),
                    dtype="void",
                )
            )

    return computes, call
