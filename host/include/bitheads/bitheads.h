/* bitheads for C and everything that calls C: C99. docs/cpp.md.
 *
 * Every call that can fail returns a status and writes its result through a pointer, only on
 * success. bitheads_last_error() is the message of this thread's last failed call: what, got,
 * expected and the fix. No exception leaves the library, nothing is printed, nothing aborts.
 *
 * An engine may be used from any number of threads at a time; other objects from one at a time. It
 * belongs to the process that loaded it: a forked child loads its own.
 * What a getter returns belongs to the object it was asked of and lives as long. Objects are freed
 * by their _free, which takes null.
 */
#ifndef BITHEADS_BITHEADS_H
#define BITHEADS_BITHEADS_H

#include <stddef.h>
#include <stdint.h>

#define BITHEADS_C_API __attribute__((visibility("default")))

#ifdef __cplusplus
extern "C" {
#endif

typedef enum bitheads_status {
  BITHEADS_OK = 0,
  BITHEADS_INVALID_INPUT = 1, /* a text, token ids, features, an option, a null pointer */
  BITHEADS_BUNDLE = 2,        /* a bundle is missing, incomplete, edited or of another version */
  BITHEADS_HEAD = 3,          /* a head file is missing, malformed, edited, or its name is taken */
  BITHEADS_SPEC_MISMATCH = 4, /* features or a head belong to another feature spec */
  BITHEADS_UNKNOWN_TASK = 5,  /* no loaded head answers this task */
  BITHEADS_BACKEND = 6,       /* OpenVINO or its tokenizers refused what they were given */
  BITHEADS_INTERNAL = 7,      /* no memory, or a mistake in bitheads */
  BITHEADS_FORKED = 8         /* the engine was loaded in another process, this is a fork of it */
} bitheads_status;

typedef struct bitheads_engine bitheads_engine;
typedef struct bitheads_tasks bitheads_tasks;
typedef struct bitheads_features bitheads_features;
typedef struct bitheads_predictions bitheads_predictions;

typedef struct bitheads_options {
  const char *precision;          /* "auto", "fp32", "bf16" or "int8"; null: "auto" */
  int32_t threads;                /* 0: all cores, or as many as a container's quota comes to */
  int32_t skip_verify;            /* not 0: files are not compared with their hashes */
  int64_t max_batch_tokens;       /* bound on an encoder call's tokens; 0: 1024 */
  const char *tokenizers_library; /* libopenvino_tokenizers.so; null: found, see docs/cpp.md */
} bitheads_options;

/* UTF-8, not ended by a NUL. Not a pair: `second` is null. */
typedef struct bitheads_text {
  const char *first;
  size_t first_bytes;
  const char *second;
  size_t second_bytes;
} bitheads_text;

/* Never null; valid until the next failed call of this thread. */
BITHEADS_C_API const char *bitheads_last_error(void);
/* "0.1.0" */
BITHEADS_C_API const char *bitheads_version(void);

/* A bundle's folder and the heads in it. `options` may be null; all zero is the default. */
BITHEADS_C_API bitheads_status bitheads_engine_load(const char *folder,
                                                    const bitheads_options *options,
                                                    bitheads_engine **engine);
BITHEADS_C_API void bitheads_engine_free(bitheads_engine *engine);
BITHEADS_C_API const char *bitheads_engine_spec_id(const bitheads_engine *engine);
BITHEADS_C_API const char *bitheads_engine_backend(const bitheads_engine *engine);
BITHEADS_C_API int64_t bitheads_engine_code_bytes(const bitheads_engine *engine);

/* Heads may come and go at any time: a call answers with those there were when it began. */
BITHEADS_C_API bitheads_status bitheads_engine_add_head(bitheads_engine *engine, const char *path,
                                                        int32_t replace);
BITHEADS_C_API bitheads_status bitheads_engine_remove_head(bitheads_engine *engine,
                                                           const char *task);

/* The loaded heads, a snapshot. */
BITHEADS_C_API bitheads_status bitheads_engine_tasks(const bitheads_engine *engine,
                                                     bitheads_tasks **tasks);
BITHEADS_C_API void bitheads_tasks_free(bitheads_tasks *tasks);
BITHEADS_C_API size_t bitheads_tasks_count(const bitheads_tasks *tasks);
/* Null for an index out of range. */
BITHEADS_C_API const char *bitheads_tasks_name(const bitheads_tasks *tasks, size_t task);
/* 1 if the head reads pairs, 0 if it reads single texts. */
BITHEADS_C_API int32_t bitheads_tasks_is_pair(const bitheads_tasks *tasks, size_t task);
/* "single_label", "multi_label", "ordinal" or "regression"; null for an index out of range. */
BITHEADS_C_API const char *bitheads_tasks_kind(const bitheads_tasks *tasks, size_t task);
/* 1 if an answer may be one that is not accepted. */
BITHEADS_C_API int32_t bitheads_tasks_can_refuse(const bitheads_tasks *tasks, size_t task);

/* One encoder pass: the codes of every real token, in the order of the texts. */
BITHEADS_C_API bitheads_status bitheads_encode(const bitheads_engine *engine,
                                               const bitheads_text *texts, size_t num_texts,
                                               bitheads_features **features);
/* Text i is ids[offsets[i]] up to ids[offsets[i + 1]], the tokenizer's own tokens and those of the
 * bundle's prefix included, of which the first num_first[i] have type id 0; null: all have. */
BITHEADS_C_API bitheads_status bitheads_encode_tokens(const bitheads_engine *engine,
                                                      const int32_t *ids, const int64_t *offsets,
                                                      const int64_t *num_first, size_t num_texts,
                                                      bitheads_features **features);
/* Codes from elsewhere, copied: [offsets[num_texts], code_bytes], of the spec with this id. */
BITHEADS_C_API bitheads_status bitheads_features_make(const char *spec_id, const uint8_t *codes,
                                                      int64_t code_bytes, const int64_t *offsets,
                                                      size_t num_texts,
                                                      bitheads_features **features);
BITHEADS_C_API void bitheads_features_free(bitheads_features *features);
BITHEADS_C_API size_t bitheads_features_count(const bitheads_features *features);
BITHEADS_C_API const uint8_t *bitheads_features_codes(const bitheads_features *features);
BITHEADS_C_API int64_t bitheads_features_code_bytes(const bitheads_features *features);
BITHEADS_C_API const int64_t *bitheads_features_offsets(const bitheads_features *features);
BITHEADS_C_API int64_t bitheads_features_num_truncated(const bitheads_features *features);

/* Every task's answers. A head answers texts of the form that it was made for, see
 * bitheads_tasks_is_pair; tasks null or num_tasks 0: all that were made for texts of this form.
 * Single texts and pairs in one call are BITHEADS_INVALID_INPUT, and so is a task of the other
 * form.
 */
BITHEADS_C_API bitheads_status bitheads_predict(const bitheads_engine *engine,
                                                const bitheads_text *texts, size_t num_texts,
                                                const char *const *tasks, size_t num_tasks,
                                                bitheads_predictions **predictions);
/* From codes alone: no encoder runs. Of texts that bitheads_encode was given the forms are known,
 * of others not, and every head answers. */
BITHEADS_C_API bitheads_status bitheads_predict_features(const bitheads_engine *engine,
                                                         const bitheads_features *features,
                                                         const char *const *tasks, size_t num_tasks,
                                                         bitheads_predictions **predictions);
BITHEADS_C_API void bitheads_predictions_free(bitheads_predictions *predictions);
/* Tasks that answered. The getters return null, or 0, for an index out of range, and null for
 * arrays of nothing. */
BITHEADS_C_API size_t bitheads_predictions_count(const bitheads_predictions *predictions);
BITHEADS_C_API const char *bitheads_predictions_task(const bitheads_predictions *predictions,
                                                     size_t task);
BITHEADS_C_API size_t bitheads_predictions_num_labels(const bitheads_predictions *predictions,
                                                      size_t task);
BITHEADS_C_API const char *bitheads_predictions_label(const bitheads_predictions *predictions,
                                                      size_t task, size_t label);
/* "single_label", "multi_label", "ordinal" or "regression". */
BITHEADS_C_API const char *bitheads_predictions_kind(const bitheads_predictions *predictions,
                                                     size_t task);
/* As many as labels; 1 of an ordinal and of a regression, which has no labels. */
BITHEADS_C_API size_t bitheads_predictions_num_logits(const bitheads_predictions *predictions,
                                                      size_t task);
/* float [texts, num_logits]. */
BITHEADS_C_API const float *bitheads_predictions_logits(const bitheads_predictions *predictions,
                                                        size_t task);
/* float [texts, labels]; they sum to 1 but for multi_label. */
BITHEADS_C_API const float *bitheads_predictions_probabilities(
    const bitheads_predictions *predictions, size_t task);
/* int64 [texts]: index of the label that is the answer, -1 for a kind that does not give one. */
BITHEADS_C_API const int64_t *bitheads_predictions_best(const bitheads_predictions *predictions,
                                                        size_t task);
/* uint8 [texts, labels]: 1 for a label that the text has; null for a regression. */
BITHEADS_C_API const uint8_t *bitheads_predictions_selected(const bitheads_predictions *predictions,
                                                            size_t task);
/* float [texts]: the number that is the answer, or of an ordinal the mean of its labels; null for a
 * kind that gives none. */
BITHEADS_C_API const float *bitheads_predictions_values(const bitheads_predictions *predictions,
                                                        size_t task);
/* uint8 [texts]: 1 for an answer that the head stands by, all if it was not trained to refuse. */
BITHEADS_C_API const uint8_t *bitheads_predictions_accepted(const bitheads_predictions *predictions,
                                                            size_t task);
/* float [texts]: logits of the reject output, and how likely it is by them, and of a single_label
 * head by the others, that a text is none of the head's business; null for a head without that
 * output. */
BITHEADS_C_API const float *bitheads_predictions_reject_logits(
    const bitheads_predictions *predictions, size_t task);
BITHEADS_C_API const float *bitheads_predictions_out_of_domain(
    const bitheads_predictions *predictions, size_t task);

#ifdef __cplusplus
}
#endif

#endif
