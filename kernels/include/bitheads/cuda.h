/* bitheads CUDA kernels: the C ABI of their host side.
 *
 * Nothing here needs CUDA, a driver or a GPU: a function of this header turns the arguments of one
 * operation into a launch, and the host hands that to the driver (cuModuleGetFunction and
 * cuLaunchKernel, with `args` as the kernel's single argument). The device code is one fat binary,
 * made by `bitheads device-code`. The rules of kernels.h hold here, too.
 */
#ifndef BITHEADS_CUDA_H
#define BITHEADS_CUDA_H

#include "bitheads/kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

#define BH_CUDA_ARGS_BYTES 2048

typedef struct bh_cuda_launch {
  const char *kernel; /* its name in the device code; static storage */
  uint32_t grid[3];   /* with a zero in it there is nothing to launch */
  uint32_t block[3];
  uint32_t
      shared_bytes; /* dynamic shared memory per block; beyond 48 KiB the function must be told */
  uint32_t args_bytes;
  unsigned char args[BH_CUDA_ARGS_BYTES]; /* the kernel's one argument, passed by value */
} bh_cuda_launch;

/* Plans bh_pool_and_pack for the device. `args->layers` and `args->layer_weights` are read here;
 * everything they and the other pointers lead to is device memory and is not touched. `lengths` and
 * `token_offsets` are the host's copies of what args->lengths and args->token_offsets hold: they
 * are checked as bh_pool_and_pack checks them, for the device checks nothing. args->level is
 * ignored. BH_INVALID_ARGUMENT as bh_pool_and_pack gives it, and beyond what one launch can do
 * (SPEC.md, CUDA). */
bh_status bh_cuda_plan_pool_and_pack(const bh_pool_and_pack_args *args, const int64_t *lengths,
                                     const int64_t *token_offsets, bh_cuda_launch *launch);

/* ---- Embeddings: one hidden state, pooled over a text's positions. ---- */

typedef enum bh_embedding_pooling {
  BH_EMBEDDING_CLS = 0,
  BH_EMBEDDING_MAX = 1,
  BH_EMBEDDING_MEAN = 2,
  BH_EMBEDDING_MEAN_SQRT_LEN = 3,
  BH_EMBEDDING_WEIGHTEDMEAN = 4,
  BH_EMBEDDING_LASTTOKEN = 5,
} bh_embedding_pooling;

typedef struct bh_pool_positions_args {
  bh_layer states; /* [rows, seq, dim], at multiples of an item, as are the strides */
  bh_dtype dtype;
  int64_t rows;
  int64_t seq;
  int64_t dim;
  const int64_t *lengths; /* [rows]: tokens of each row, which come first */
  bh_embedding_pooling pooling;
  float *pooled;         /* [rows, dim] */
  int64_t pooled_stride; /* floats from one row to the next, at least dim */
} bh_pool_positions_args;

/* All pointers in `args` are the device's and are not read. `lengths` is the host's copy of what
 * args->lengths holds: it is checked, for the device checks nothing. BH_INVALID_ARGUMENT for what
 * makes no sense and beyond what one launch can do (SPEC.md, CUDA). */
bh_status bh_cuda_plan_pool_positions(const bh_pool_positions_args *args, const int64_t *lengths,
                                      bh_cuda_launch *launch);

/* ---- Task heads. A column is one query: an attention head of a task. ----
 *
 * packed_attention_pool pools each text's codes by every column, three stages of grouped_dense make
 * logits of that: value projections (a group per attention head), dense with tanh (a group per
 * task), output (a group per task). Position pooling `mean` is a column of zeros, `cls` and
 * `last` ones of zeros with an end_bias of 1e30 for their token. */

typedef struct bh_attention_pool_args {
  const uint8_t *codes;   /* [tokens, code_bytes], anywhere */
  const int64_t *offsets; /* [texts + 1], ascending; equal ones are a text without tokens */
  int64_t texts;
  bh_quantization quantization;
  int64_t dim;
  int64_t columns;
  const void *queries;       /* of bh_cuda_lay_out_queries, at a multiple of 16 */
  const float *column_scale; /* [columns], of bh_cuda_lay_out_queries */
  const float *end_bias;     /* [columns, 2]: what a text's first and last tokens score more */
  void *pooled; /* float16 [texts, columns, bh_cuda_pooled_dim(dim)], at a multiple of 16 */
} bh_attention_pool_args;

/* One matrix product: output = activation(scale * (weights input) + bias). Strides are in items. */
typedef struct bh_dense_group {
  const void *input;   /* float16 [texts, k] */
  const void *weights; /* float16 [n, bh_cuda_dense_row(k)], of bh_cuda_lay_out_dense */
  const float *scale;  /* [n], of bh_cuda_lay_out_dense */
  const float *bias;   /* [n] or null: 0 */
  void *output;        /* [texts, n] */
  int64_t input_stride;
  int64_t output_stride;
  int32_t n;
  int32_t k;
} bh_dense_group;

typedef enum bh_dense_kind {
  BH_DENSE_VALUE = 0,  /* no activation, float16 */
  BH_DENSE_HIDDEN = 1, /* tanh, float16 */
  BH_DENSE_OUTPUT = 2, /* no activation, float32 */
} bh_dense_kind;

typedef struct bh_grouped_dense_args {
  const bh_dense_group *groups; /* [num_groups], in device memory */
  int64_t num_groups;
  int64_t largest_n; /* of any group */
  int64_t texts;
  bh_dense_kind kind;
} bh_grouped_dense_args;

/* Items of a pooled row, and of a row of laid-out weights: the size rounded up; -1 for bad ones. */
int64_t bh_cuda_pooled_dim(int64_t dim);
int64_t bh_cuda_dense_row(int64_t k);

/* Bytes of the queries as the device reads them, or -1 for bad arguments. */
int64_t bh_cuda_query_bytes(int64_t columns, int64_t dim, bh_quantization quantization);

/* Host memory to host memory: queries float32 [columns, dim], finite, become `fragments`
 * (bh_cuda_query_bytes of them) and column_scale [columns]. */
bh_status bh_cuda_lay_out_queries(const float *queries, int64_t columns, int64_t dim,
                                  bh_quantization quantization, void *fragments,
                                  float *column_scale);

/* Host memory to host memory: weights float32 [n, k], finite, become float16
 * [n, bh_cuda_dense_row(k)] and scale [n]. */
bh_status bh_cuda_lay_out_dense(const float *weights, int64_t n, int64_t k, void *laid_out,
                                float *scale);

/* All pointers in `args` are the device's and are not read. BH_INVALID_ARGUMENT for unaligned ones
 * and beyond what one launch can do (SPEC.md, CUDA). */
bh_status bh_cuda_plan_attention_pool(const bh_attention_pool_args *args, bh_cuda_launch *launch);
bh_status bh_cuda_plan_grouped_dense(const bh_grouped_dense_args *args, bh_cuda_launch *launch);

#ifdef __cplusplus
}
#endif

#endif
