// CUDA on a CPU, as much of it as TVM's kernels need: every thread of a block is a coroutine.
//
// A coroutine runs until it meets a barrier (or a shuffle, which is one) and hands over to the
// next. In which order the threads of a block run between two barriers is up to the caller, so a
// kernel that lacks a barrier gives another result in another order. Threads that meet different
// barriers, or of which some end while others wait, are an error.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sys/mman.h>
#include <vector>

#define __global__
#define __device__
#define __forceinline__ inline
#define __shared__ static
#define __launch_bounds__(...)
#define uint unsigned int
#define uchar unsigned char
#define ushort unsigned short

struct Index3 { unsigned x, y, z; };
static Index3 threadIdx, blockIdx;
alignas(128) static unsigned char buf_dyn_shmem[232448];

// -- vectors and scalars ------------------------------------------------------------------------
#define HIOS_VECTOR2(T, N) \
  struct alignas(2 * sizeof(T)) N##2 { T x, y; }; \
  static inline N##2 make_##N##2(T x, T y) { return {x, y}; }
#define HIOS_VECTOR4(T, N) \
  struct alignas(4 * sizeof(T)) N##4 { T x, y, z, w; }; \
  static inline N##4 make_##N##4(T x, T y, T z, T w) { return {x, y, z, w}; }
HIOS_VECTOR2(float, float) HIOS_VECTOR4(float, float)
HIOS_VECTOR2(double, double) HIOS_VECTOR4(double, double)
HIOS_VECTOR2(int, int) HIOS_VECTOR4(int, int)
HIOS_VECTOR2(unsigned, uint) HIOS_VECTOR4(unsigned, uint)
HIOS_VECTOR2(long long, longlong) HIOS_VECTOR4(long long, longlong)

template <class A, class B> static inline auto max(A a, B b) -> decltype(a + b) { return a > b ? a : b; }
template <class A, class B> static inline auto min(A a, B b) -> decltype(a + b) { return a < b ? a : b; }
#define __expf(x) std::exp(x)
#define __logf(x) std::log(x)
static inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
template <class T> static inline T __ldg(const T* p) { return *p; }

// -- half precision and tensor cores ------------------------------------------------------------
typedef _Float16 half;
static inline half __float2half_rn(float x) { return (half)x; }
static inline float __half2float(half x) { return (float)x; }
static inline half __hmax(half a, half b) { return a > b ? a : b; }
static inline half __hmin(half a, half b) { return a < b ? a : b; }
HIOS_VECTOR2(half, half) HIOS_VECTOR4(half, half)
static inline uint __pack_half2(half x, half y) {
  half2 both{x, y};
  uint bits;
  std::memcpy(&bits, &both, 4);
  return bits;
}
static inline float __float_to_tf32(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  bits = (bits + 0x1000u) & ~0x1fffu;  // ten bits of mantissa stay
  std::memcpy(&x, &bits, 4);
  return x;
}
static inline unsigned linear();
namespace nvcuda { namespace wmma {
struct matrix_a {}; struct matrix_b {}; struct accumulator {};
struct row_major {}; struct col_major {};
namespace precision { struct tf32 {}; }
enum layout_t { mem_row_major, mem_col_major };
template <class U, int M, int N, int K> struct Extents;
template <int M, int N, int K> struct Extents<matrix_a, M, N, K> { enum { rows = M, columns = K }; };
template <int M, int N, int K> struct Extents<matrix_b, M, N, K> { enum { rows = K, columns = N }; };
template <int M, int N, int K> struct Extents<accumulator, M, N, K> { enum { rows = M, columns = N }; };
template <class T> struct Stored { typedef T type; };
template <> struct Stored<precision::tf32> { typedef float type; };
// Every thread of a warp holds the whole tile, so that none needs what another has; each stores its
// own part alone, so that reading another's without a barrier shows. Where tiles may begin and how
// far apart their rows may lie is what the CUDA C++ Programming Guide allows.
static bool misplaced;
template <class S> static inline void check_place(const S* p, unsigned ld) {
  misplaced |= (uintptr_t)p % 32 != 0 || ld * sizeof(S) % 16 != 0;
}
template <class U, int M, int N, int K, class T, class L = void> struct fragment {
  enum { rows = Extents<U, M, N, K>::rows, columns = Extents<U, M, N, K>::columns,
         num_elements = rows * columns };
  typedef typename Stored<T>::type element_type;
  element_type x[num_elements];
};
template <class U, int M, int N, int K, class T, class L, class V>
static inline void fill_fragment(fragment<U, M, N, K, T, L>& f, V v) {
  for (auto& e : f.x) e = v;
}
template <class U, int M, int N, int K, class T, class S>
static inline void load_matrix_sync(fragment<U, M, N, K, T, row_major>& f, const S* p, unsigned ld) {
  check_place(p, ld);
  for (int i = 0; i < f.rows; ++i) for (int j = 0; j < f.columns; ++j) f.x[i * f.columns + j] = p[i * ld + j];
}
template <class U, int M, int N, int K, class T, class S>
static inline void load_matrix_sync(fragment<U, M, N, K, T, col_major>& f, const S* p, unsigned ld) {
  check_place(p, ld);
  for (int i = 0; i < f.rows; ++i) for (int j = 0; j < f.columns; ++j) f.x[i * f.columns + j] = p[j * ld + i];
}
template <int M, int N, int K, class T, class S>
static inline void store_matrix_sync(S* p, const fragment<accumulator, M, N, K, T>& f, unsigned ld, layout_t) {
  check_place(p, ld);
  for (int i = 0; i < M; ++i) for (int j = 0; j < N; ++j)
    if ((i * N + j) % 32 == linear() % 32) p[i * ld + j] = f.x[i * N + j];
}
template <int M, int N, int K, class T, class LA, class LB, class C>
static inline void mma_sync(fragment<accumulator, M, N, K, C>& d, const fragment<matrix_a, M, N, K, T, LA>& a,
                            const fragment<matrix_b, M, N, K, T, LB>& b, const fragment<accumulator, M, N, K, C>& c) {
  for (int i = 0; i < M; ++i) for (int j = 0; j < N; ++j) {
    float total = (float)c.x[i * N + j];
    for (int k = 0; k < K; ++k) total += (float)a.x[i * K + k] * (float)b.x[k * N + j];
    d.x[i * N + j] = (C)total;
  }
}
}}

// -- coroutines ---------------------------------------------------------------------------------
struct Thread { void* stack; Index3 index; int waits; bool ended; };
static void* scheduler_stack;
static Thread* current;
static std::vector<Thread> threads;
static std::vector<unsigned char*> stacks;
static void (*kernel)(void**);
static void** kernel_args;
enum { kNothing, kBarrier, kShuffle };
static const size_t kStack = 256 << 10;

extern "C" void hios_switch(void** from, void* to);
__asm__(
    ".text\n.globl hios_switch\n.type hios_switch,@function\nhios_switch:\n"
    "push %rbp\npush %rbx\npush %r12\npush %r13\npush %r14\npush %r15\n"
    "mov %rsp,(%rdi)\nmov %rsi,%rsp\n"
    "pop %r15\npop %r14\npop %r13\npop %r12\npop %rbx\npop %rbp\nret\n"
    ".size hios_switch,.-hios_switch\n");

static void __attribute__((noinline)) yield(int why) {
  current->waits = why;
  hios_switch(&current->stack, scheduler_stack);
}
static void begin_thread() {
  kernel(kernel_args);
  current->ended = true;
  yield(kNothing);
}
static inline void __syncthreads() { yield(kBarrier); }
static inline void __syncwarp(unsigned = 0) { yield(kShuffle); }
static unsigned long long exchanged[1024];
static Index3 extent;
static inline unsigned linear() { return (threadIdx.z * extent.y + threadIdx.y) * extent.x + threadIdx.x; }
template <class T> static T exchange(T value, unsigned lane) {
  unsigned own = linear();
  std::memcpy(&exchanged[own], &value, sizeof(T));
  yield(kShuffle);
  std::memcpy(&value, &exchanged[own / 32 * 32 + lane % 32], sizeof(T));
  yield(kShuffle);
  return value;
}
static inline unsigned __activemask() { return 0xffffffffu; }
template <class T> static T __shfl_sync(unsigned, T v, int lane, int = 32) { return exchange(v, lane); }
template <class T> static T __shfl_down_sync(unsigned, T v, unsigned by, int width = 32) {
  unsigned lane = linear() % 32;
  return exchange(v, lane % width + by < (unsigned)width ? lane + by : lane);
}
template <class T> static T __shfl_xor_sync(unsigned, T v, int by, int = 32) { return exchange(v, (linear() % 32) ^ by); }

// Runs one launch. Order 0: threads ascending, 1: descending. Returns 0, 1 where threads part,
// or 2 where a tile is misplaced.
static int launch(void (*body)(void**), void** args, const unsigned* grid, const unsigned* block, int order) {
  kernel = body;
  kernel_args = args;
  nvcuda::wmma::misplaced = false;
  extent = {block[0], block[1], block[2]};
  unsigned count = block[0] * block[1] * block[2];
  threads.resize(count);
  while (stacks.size() < count)
    stacks.push_back((unsigned char*)mmap(0, kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  for (unsigned bz = 0; bz < grid[2]; ++bz) for (unsigned by = 0; by < grid[1]; ++by) for (unsigned bx = 0; bx < grid[0]; ++bx) {
    blockIdx = {bx, by, bz};
    for (unsigned t = 0; t < count; ++t) {
      void** top = (void**)(stacks[t] + kStack - 64);
      *--top = 0;                      // keeps the stack aligned as after a call
      *--top = (void*)begin_thread;
      for (int i = 0; i < 6; ++i) *--top = 0;
      threads[t] = {top, {t % block[0], t / block[0] % block[1], t / block[0] / block[1]}, kNothing, false};
    }
    for (bool any = true; any;) {
      for (unsigned i = 0; i < count; ++i) {
        current = &threads[order ? count - 1 - i : i];
        threadIdx = current->index;
        hios_switch(&scheduler_stack, current->stack);
      }
      any = !threads[0].ended;
      for (auto& t : threads)
        if (t.ended != threads[0].ended || t.waits != threads[0].waits) return 1;
    }
  }
  return nvcuda::wmma::misplaced ? 2 : 0;
}
