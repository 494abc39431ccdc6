/* bitheads kernels: the C ABI. What each function computes, to the bit, is in kernels/SPEC.md.
 *
 * Rules of this boundary: raw pointers and byte strides, a status code, no exceptions, no printing,
 * no allocation kept; the caller owns all memory. Every function may be called from any thread.
 */
#ifndef BITHEADS_KERNELS_H
#define BITHEADS_KERNELS_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Raised whenever a struct, the meaning of a call, or what calls there are changes. */
#define BH_KERNELS_ABI_VERSION 7

typedef enum bh_status {
  BH_OK = 0,
  BH_INVALID_ARGUMENT = 1,  /* a null pointer, a negative size, an unknown enum, length > seq ... */
  BH_UNKNOWN_LEVEL = 2,     /* BITHEADS_KERNEL_LEVEL names no level */
  BH_UNSUPPORTED_LEVEL = 3, /* the level exists, but not on this machine or in this build */
} bh_status;

/* SIMD levels, slowest first within a processor family: BH_LEVEL_SERIAL, BH_LEVEL_AVX2 and so on,
 * each with its name and its value, which never changes. Whatever has to know all levels expands
 * this list. */
#define BH_FOR_EACH_LEVEL(X)     \
  X(SERIAL, serial, 1)           \
  X(AVX2, avx2, 2)               \
  X(AVX2_VNNI, avx2_vnni, 7)     \
  X(AVX512, avx512, 3)           \
  X(AVX512_VNNI, avx512_vnni, 4) \
  X(NEON, neon, 5)               \
  X(NEON_DOTPROD, neon_dotprod, 6)

/* BH_LEVEL_ACTIVE is the level chosen once, when the library is first used: the fastest that this
 * machine has, or the one that BITHEADS_KERNEL_LEVEL names. */
#define BH_LEVEL_ENUMERATOR(NAME, name, value) BH_LEVEL_##NAME = (value),
typedef enum bh_level { BH_LEVEL_ACTIVE = 0, BH_FOR_EACH_LEVEL(BH_LEVEL_ENUMERATOR) } bh_level;
#undef BH_LEVEL_ENUMERATOR

typedef enum bh_dtype {
  BH_FLOAT32 = 0,
  BH_FLOAT16 = 1,
  BH_BFLOAT16 = 2,
} bh_dtype;

typedef enum bh_quantization {
  BH_SIGN = 0,  /* 1 bit per feature, (dim + 7) / 8 bytes per token */
  BH_UINT8 = 1, /* 1 byte per feature, dim bytes per token */
  BH_HALF = 2,  /* IEEE float16, little endian, 2 * dim bytes per token */
} bh_quantization;

typedef enum bh_order {
  BH_POOL_THEN_SIGN = 0,
  BH_SIGN_THEN_VOTE = 1, /* only with BH_SIGN, and without layer weights */
} bh_order;

/* One layer's hidden states, [rows, seq, dim]; features of a token are contiguous. */
typedef struct bh_layer {
  const void *data;
  int64_t row_stride_bytes;
  int64_t token_stride_bytes;
} bh_layer;

typedef struct bh_pool_and_pack_args {
  const bh_layer *layers; /* [num_layers], ascending */
  int64_t num_layers;
  bh_dtype dtype;
  int64_t rows;
  int64_t seq;
  int64_t dim;
  const int64_t *lengths;       /* [rows]: real tokens of each row, 0 <= length <= seq */
  const int64_t *token_offsets; /* [rows]: where in `codes` the row's first token goes */
  bh_quantization quantization;
  bh_order order;
  const float *layer_weights; /* [num_layers], or null: the plain mean */
  const float *thresholds;    /* [dim], BH_SIGN only, or null: 0 */
  const float *inverse_scale; /* [dim], BH_UINT8 only */
  const float *zero_point;    /* [dim], BH_UINT8 only */
  uint8_t *codes;             /* [num_tokens, code_bytes], contiguous */
  int64_t num_tokens;         /* room in `codes`; token_offsets[r] + lengths[r] <= num_tokens */
  bh_level level;             /* BH_LEVEL_ACTIVE except in tests and benchmarks */
} bh_pool_and_pack_args;

typedef enum bh_position_pooling {
  BH_ATTENTION = 0,
  BH_MEAN = 1,
  BH_CLS = 2,
  BH_LAST = 3,
} bh_position_pooling;

/* A folded head: rows are contiguous, sizes as in SPEC.md, predict_heads. */
typedef struct bh_head_weights {
  bh_quantization quantization; /* BH_SIGN or BH_UINT8: of the codes it reads */
  bh_position_pooling position_pooling;
  int64_t dim;
  int64_t attention_heads; /* 0 unless BH_ATTENTION */
  int64_t inner;
  int64_t classes;
  const float *query;       /* [attention_heads, dim], or null unless BH_ATTENTION */
  const float *value;       /* [dim, dim], or null unless BH_ATTENTION */
  const float *dense;       /* [inner, dim] */
  const float *dense_bias;  /* [inner] */
  const float *output;      /* [classes, inner] */
  const float *output_bias; /* [classes] */
  bh_level level;           /* BH_LEVEL_ACTIVE except in tests and benchmarks */
} bh_head_weights;

/* A head as bh_predict_heads reads it: one block of memory without pointers, which may be copied.
 */
typedef struct bh_head bh_head;

/* The most tokens that a text may have: softmax weights are integers of 15 or 16 bits. */
#define BH_MAX_TEXT_TOKENS 16384

typedef struct bh_predict_heads_args {
  const uint8_t *codes; /* [num_tokens, code_bytes], contiguous */
  int64_t num_tokens;
  const int64_t *offsets; /* [texts + 1]: of the texts' tokens in `codes` */
  int64_t texts;
  int64_t dim;
  bh_quantization quantization;
  const bh_head *const *heads; /* [num_heads], each at a multiple of 64 bytes */
  int64_t num_heads;
  float *const *logits; /* [num_heads], each [texts, classes], contiguous */
  void *workspace;      /* at a multiple of 64 bytes */
  int64_t workspace_bytes;
  bh_level level; /* BH_LEVEL_ACTIVE except in tests and benchmarks */
} bh_predict_heads_args;

/* The most numbers of a text's vector: a pair's codes, four for each and two more, are a head's
 * dim.
 */
#define BH_MAX_VECTOR_SIZE 16383

typedef struct bh_combine_texts_args {
  const float *vectors; /* [texts, size], contiguous: logits of a text half */
  int64_t texts;
  int64_t size;         /* 1 to BH_MAX_VECTOR_SIZE */
  const int64_t *pairs; /* [num_pairs, 2]: rows of `vectors` */
  int64_t num_pairs;
  uint8_t *codes;     /* [num_pairs, 4 * size + 2], contiguous, written */
  int16_t *workspace; /* [2, size] */
} bh_combine_texts_args;

/* The most labels of a head of spans: it has a logit for none and two for each. */
#define BH_MAX_SPAN_LABELS 32767

/* The words of some texts, and what a head of spans says of each. */
typedef struct bh_word_logits {
  const float *logits; /* [words, 1 + 2 * labels], contiguous */
  int64_t words;
  int64_t labels;         /* 1 to BH_MAX_SPAN_LABELS */
  const int64_t *offsets; /* [texts + 1]: of the texts' words, from 0 to `words` */
  int64_t texts;
} bh_word_logits;

typedef struct bh_cut_batches_args {
  const int64_t *lengths;   /* [texts]: tokens of each text, 0 to BH_MAX_BATCH_LENGTH */
  int64_t texts;            /* 0 to BH_MAX_BATCH_TEXTS */
  int64_t max_batch_tokens; /* 1 or more: bounds rows * longest of a batch of several texts */
  int64_t call_tokens;      /* 0 to BH_MAX_BATCH_LENGTH: what a batch costs whatever its size */
  int64_t *order;           /* [texts], written: the texts, longest first */
  int64_t *batch_offsets;   /* [texts + 1], written: where in `order` each batch begins */
  int64_t *num_batches;     /* written: batch b is batch_offsets[b] up to batch_offsets[b + 1] */
  int64_t *workspace;       /* [texts + 1] */
} bh_cut_batches_args;

/* Bounds that keep every cost inside an int64. */
#define BH_MAX_BATCH_LENGTH INT32_MAX
#define BH_MAX_BATCH_TEXTS (INT64_C(1) << 30)

int32_t bh_abi_version(void);
const char *bh_status_message(bh_status status);

/* The active level; BH_UNKNOWN_LEVEL or BH_UNSUPPORTED_LEVEL when the environment asks for one that
 * cannot be had. */
bh_status bh_active_level(bh_level *level);
/* 1 if this machine and this build can run the level, else 0. */
int32_t bh_level_supported(bh_level level);
/* The level's name in lower case, such as "avx2", or null. Static storage. */
const char *bh_level_name(bh_level level);

/* Bytes of one token's code, or -1 for bad arguments. */
int64_t bh_code_bytes(int64_t dim, bh_quantization quantization);

/* Pool the layers of each real token and quantize the result into ragged codes. Padded tokens are
 * never read. Checks every argument before it writes. */
bh_status bh_pool_and_pack(const bh_pool_and_pack_args *args);

/* Bytes of the laid out head, or -1 for bad sizes; reads no weights. */
int64_t bh_head_bytes(const bh_head_weights *weights);
/* Writes the laid out head to `head`, bh_head_bytes at a multiple of 64. BH_INVALID_ARGUMENT also
 * for weights that are not finite or have a row of more than 1e30. */
bh_status bh_lay_out_head(const bh_head_weights *weights, bh_head *head);

/* The weights of a head file as bh_lay_out_head wants them: `count` float16 numbers as float32. */
bh_status bh_floats_of_halves(const uint16_t *halves, int64_t count, float *floats, bh_level level);

/* The sizes of a laid out head, its pointers null; BH_INVALID_ARGUMENT for memory that holds none.
 * Reads the first 64 bytes. */
bh_status bh_laid_out_head_sizes(const bh_head *head, bh_head_weights *sizes);

/* Bytes of workspace that a call with these codes, offsets and heads needs; -1 for bad arguments.
 * Does not look at logits, workspace and level. */
int64_t bh_predict_heads_workspace(const bh_predict_heads_args *args);
/* Every head's logits for every text. Checks every argument before it writes. */
bh_status bh_predict_heads(const bh_predict_heads_args *args);

/* The codes of pairs of texts, which the pair half of a head of the form two_texts reads: uint8
 * codes of dim 4 * size + 2, one token per pair. Checks every argument before it writes. */
bh_status bh_combine_texts(const bh_combine_texts_args *args);

/* The tag of each word, in `tags` [words]: those of the likeliest sequence of each text. Workspace:
 * `sums` [1 + 2 * labels] and `came_from` [words of the longest text, 1 + labels]. Checks every
 * argument before it writes. */
bh_status bh_best_tags(const bh_word_logits *of, int64_t *tags, double *sums, uint16_t *came_from);

/* How likely each word is of a span with each label, in `probabilities` [words, labels]. For the
 * longest text's n words `workspace` is [n * (2 + 3 * labels) + 1 + labels]. Checks every argument
 * before it writes. */
bh_status bh_label_probabilities(const bh_word_logits *of, float *probabilities, double *workspace);

/* The lengths that texts are padded to, so that an encoder sees few shapes. `rounded` [texts] may
 * be `lengths`. BH_INVALID_ARGUMENT for a length outside 0 to BH_MAX_BATCH_LENGTH. */
bh_status bh_round_lengths(const int64_t *lengths, int64_t texts, int64_t max_length,
                           int64_t *rounded);

/* Which texts go through the encoder together, at the least cost in total. Checks every argument
 * before it writes. */
bh_status bh_cut_batches(const bh_cut_batches_args *args);

/* For benchmarks: runs at least so many 16-bit multiply-adds as the level's dot products would at
 * best, from registers, and returns how many it ran; -1 for a level that cannot run. */
int64_t bh_run_dot_products(bh_level level, int64_t multiply_adds);

#ifdef __cplusplus
}
#endif

#endif
