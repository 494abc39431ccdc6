// The tensor core's product of a 16 x 16 and a 16 x 8 matrix of float16, added to float32.
#ifndef BITHEADS_CUDA_MMA_CUH
#define BITHEADS_CUDA_MMA_CUH

#include <stdint.h>

#ifndef __CUDACC__
#include "mma_on_host.h"  // the same, from the fragment layouts of the PTX ISA: tests/cuda/host
#endif

namespace bitheads::cuda {

// c += a b, by the whole warp. With group = lane / 4 and t = lane % 4, a lane holds
//   a[0]: row group, k 2t and 2t + 1 (low half, high half); a[1]: row group + 8, the same k;
//   a[2], a[3]: the same rows, k + 8;
//   b0: k 2t and 2t + 1 of column group; b1: k + 8;
//   c[0], c[1]: row group, columns 2t and 2t + 1; c[2], c[3]: row group + 8.
// Products are exact; float16 subnormals count as what they are. Sums lose a few units in the last
// place of float32, for the tensor core truncates where IEEE rounds.
__device__ inline void mma_m16n8k16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0,
                                    uint32_t b1) {
#ifdef __CUDACC__
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
  host_cuda::mma_m16n8k16(c, a, b0, b1);
#endif
}

}  // namespace bitheads::cuda

#endif
