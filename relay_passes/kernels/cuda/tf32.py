"""The tensor intrinsic for products of float32 in TF32, a device function of our own.

TF32 is float32 with ten bits of mantissa instead of 23; products of it are exact and added up in
float32. The hardware takes fragments of 16 × 16 × 8 (``wmma`` with ``precision::tf32``, CUDA C++
Programming Guide, "Alternate Floating Point"), and what they hold must have been rounded by
``__float_to_tf32``.

TVM 0.27 refuses fragments of float32 as factors ("Matrix_a and matrix_b only support half or
char ..."), so none stand in its IR. One intrinsic multiplies all that a warp has of one step of
the depth, straight from shared memory into the accumulators, which TVM does know; its code is
handed to TVM as text (``cuda_func_call``) and stands in the generated source before the kernels.
"""

# The decorators of TVM's script have no types.
# mypy: disable-error-code="untyped-decorator"

from functools import cache
from typing import Any

from tvm.backend.cuda.op import cuda_func_call
from tvm.s_tir import TensorIntrin
from tvm.script import tirx as T  # noqa: N812 (as TVM prints it)

from relay_passes.kernels.cuda.fragments import (
    ACCUMULATOR,
    FACTORS,
    FRAGMENT,
    fill_intrinsic,
    fragment_number,
    store_intrinsic,
)

__all__ = ["TF32_DEPTH", "tf32_intrinsics"]

TF32_DEPTH = 8
"""Depth of a fragment; rows and columns are those of any other."""

_FUNCTION = """
// Adds a product of {m} x {n} fragments, of depth 8, to the accumulators of a warp.
__device__ __forceinline__ void {name}(
    nvcuda::wmma::fragment<nvcuda::wmma::accumulator, 16, 16, 8, float>* sums, int first, int pitch,
    const float* left, int left_pitch, const float* right, int right_pitch) {{
  using namespace nvcuda::wmma;
  fragment<matrix_b, 16, 16, 8, precision::tf32, row_major> b[{n}];
  #pragma unroll
  for (int j = 0; j < {n}; ++j) {{
    load_matrix_sync(b[j], right + 16 * j, right_pitch);
    #pragma unroll
    for (int i = 0; i < b[j].num_elements; ++i) b[j].x[i] = __float_to_tf32(b[j].x[i]);
  }}
  #pragma unroll
  for (int k = 0; k < {m}; ++k) {{
    fragment<matrix_a, 16, 16, 8, precision::tf32, row_major> a;
    load_matrix_sync(a, left + 16 * k * left_pitch, left_pitch);
    #pragma unroll
    for (int i = 0; i < a.num_elements; ++i) a.x[i] = __float_to_tf32(a.x[i]);
    #pragma unroll
    for (int j = 0; j < {n}; ++j) {{
      const int at = first + k * pitch + j;
      mma_sync(sums[at], a, b[j], sums[at]);
    }}
  }}
}}
"""


@cache
def tf32_intrinsics(rows: int, columns: int) -> dict[str, str]:
    """Register the intrinsics with TVM, once, and return their names.

    Parameters
    ----------
    rows, columns : int
        Of the product, computed by one warp; multiples of a fragment.

    Returns
    -------
    dict
        ``fill`` and ``store`` for one fragment, ``multiply`` for all of the warp.
    """
    made = {
        "fill": fill_intrinsic(TF32_DEPTH),
        "multiply": _multiply(rows, columns),
        "store": store_intrinsic(TF32_DEPTH),
    }
    names = {}
    for name, (computes, call) in made.items():
        names[name] = f"hios.tf32_{name}_{rows}_{columns}"
        TensorIntrin.register(names[name], computes, call)
    return names


def _multiply(rows: int, columns: int) -> tuple[Any, Any]:
    n, depth = FRAGMENT, TF32_DEPTH
    name = f"hios_multiply_tf32_{rows}x{columns}"
    source = _FUNCTION.format(name=name, m=rows // n, n=columns // n)

    @T.prim_func(s_tir=True)
    def computes(a: T.handle, b: T.handle, c: T.handle) -> None:
        A = T.match_buffer(
            a, (rows, depth), "float32", align=64, offset_factor=depth, scope=FACTORS
        )
        B = T.match_buffer(
            b, (depth, columns), "float32", align=64, offset_factor=depth, scope=FACTORS
        )
        C = T.match_buffer(
            c, (rows, columns), "float32", align=64, offset_factor=n, scope=ACCUMULATOR
        )
        with T.sblock("root"):
            T.reads(C[0:rows, 0:columns], A[0:rows, 0:depth], B[0:depth, 0:columns])
            T.writes(C[0:rows, 0:columns])
            for i, j, k in T.grid(rows, columns, depth):
                with T.sblock("multiply"):
                    vi, vj, vk = T.axis.remap("SSR", [i, j, k])
                    C[vi, vj] = C[vi, vj] + A[vi, vk] * B[vk, vj]

    @T.prim_func(s_tir=True)
    def call(a: T.handle, b: T.handle, c: T.handle) -> None:
        a1 = T.int32()
        a0 = T.int32()
        b1 = T.int32()
        b0 = T.int32()
        c1 = T.int32()
        c0 = T.int32()
        A = T.match_buffer(
            a,
            (rows, depth),
            "float32",
            align=64,
            offset_factor=depth,
            scope=FACTORS,
            strides=[a1, a0],
        )
        B = T.match_buffer(
            b,
            (depth, columns),
            "float32",
            align=64,
            offset_factor=depth,
            scope=FACTORS,
            strides=[b1, b0],
        )
        C = T.match_buffer(
            c,
            (rows, columns),
            "float32",
            align=64,
            offset_factor=n,
            scope=ACCUMULATOR,
            strides=[c1, c0],
        )
        with T.sblock("root"):
            T.reads(C[0:rows, 0:columns], A[0:rows, 0:depth], B[0:depth, 0:columns])
            T.writes(C[0:rows, 0:columns])
            T.evaluate(
                cuda_func_call(
                    name,
                    C.data,
                    fragment_number(C, c1),
                    c1 // n,
                    A.access_ptr("r", ptr_type="float32"),
                    a1,
                    B.access_ptr("r", ptr_type="float32"),
                    b1,
                    source_code=source,
                )
            )

    return computes, call
