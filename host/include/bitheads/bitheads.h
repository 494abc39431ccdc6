/* bitheads for C and everything that calls C: C99. docs/cpp.md.
 *
 * Every call that can fail returns a status and writes its result through a pointer, only on
 * success. bitheads_last_error() is the message of this thread's last failed call: what, got,
 * expected and the fix. No exception leaves the library, nothing is printed, nothing aborts.
 *
 * An engine may be used from any number of threads at a time, and so may calls that go on by
 * themselves; other objects from one at a time. It belongs to the process that loaded it: a forked
 * child loads its own. What a getter returns belongs to the object it was asked of and lives as
 * long. Objects are freed by their _free, which takes null.
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
  BITHEADS_BACKEND = 6,       /* OpenVINO, its tokenizers or a GPU refused what they were given */
  BITHEADS_INTERNAL = 7,      /* no memory, or a mistake in bitheads */
  BITHEADS_FORKED = 8,        /* the engine was loaded in another process, this is a fork of it */
  BITHEADS_QUEUE_FULL = 9,    /* too much waits for the encoder already */
  BITHEADS_CANCELLED = 10,    /* the caller cancelled the call */
  BITHEADS_CLOSED = 11,       /* the engine was freed before the call had ended */
  BITHEADS_DEVICE_MEMORY = 12 /* the GPU has no memory left; a smaller call may succeed */
} bitheads_status;

typedef struct bitheads_engine bitheads_engine;
typedef struct bitheads_tasks bitheads_tasks;
typedef struct bitheads_features bitheads_features;
typedef struct bitheads_predictions bitheads_predictions;
typedef struct bitheads_pending bitheads_pending;

typedef struct bitheads_options {
  const char *precision;          /* "auto", "fp32", "bf16", "int8_dynamic" or "int8", on a GPU the
                                     graph's; null: "auto" */
  int32_t threads;                /* 0: all cores, or as many as a container's quota comes to */
  int32_t skip_verify;            /* not 0: files are not compared with their hashes */
  int64_t max_batch_tokens;       /* bound on an encoder call's tokens; 0: 1024, on a GPU 16,384 */
  const char *tokenizers_library; /* libopenvino_tokenizers.so; null: found, see docs/cpp.md */
  int32_t share_batches;          /* not 0: the texts of all calls share encoder batches */
  int64_t max_queue_tokens;       /* with that: tokens that a call waits for at most; 0: 65,536 */
  const char *backend;            /* "openvino", "auto" or that of a plugin, see docs/cpp.md; null:
                                     "openvino" */
  int32_t device;                 /* which GPU */
  const char *plugins;            /* their folder; null: that of this library */
  const char *device_code;        /* bitheads.fatbin; null: the one beside this library */
  double min_sign_agreement; /* with "auto": the fastest precision that kept this share of signs
                                when the bundle was built, such as 0.99; 0: floating point */
  int64_t cache_bytes;       /* with share_batches: of codes of texts that are kept; 0: none */
} bitheads_options;

/* Texts that calls of an engine with share_batches asked for, since it was loaded; of others all
 * are 0. What the cache has is a hit, and the first two are misses. */
typedef struct bitheads_statistics {
  uint64_t encoded_texts;
  uint64_t joined_texts; /* answered with an equal one that waited or ran */
  uint64_t cached_texts; /* answered from the cache */
  uint64_t cache_texts;  /* that are in the cache now */
  int64_t cache_bytes;   /* of memory that it takes now */
} bitheads_statistics;

/* UTF-8, not ended by a NUL. Not a pair: `second` is null. */
typedef struct bitheads_text {
  const char *first;
  size_t first_bytes;
  const char *second;
  size_t second_bytes;
} bitheads_text;

/* A part of a text, and what it is: from `start` up to `end` in Unicode code points, as Python
 * counts, and from `start_byte` up to `end_byte` in bytes of UTF-8. */
typedef struct bitheads_span {
  int64_t start;
  int64_t end;
  int64_t start_byte;
  int64_t end_byte;
  int64_t label;     /* index of its label */
  float probability; /* the least that one of its words has of being the label's */
} bitheads_span;

typedef struct bitheads_embed_options {
  int64_t dim;             /* the first so many numbers; 0: all, bitheads_engine_embedding_dim */
  int32_t normalize;       /* not 0: to a length of 1, after that */
  const char *prompt;      /* put before each text; null: a prompt of the checkpoint */
  const char *prompt_name; /* which of those; null: its default one, if it has any */
} bitheads_embed_options;

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
/* Where "auto" took the processor: what each backend for a GPU failed with; else empty. */
BITHEADS_C_API const char *bitheads_engine_why_not_gpu(const bitheads_engine *engine);
BITHEADS_C_API int64_t bitheads_engine_code_bytes(const bitheads_engine *engine);
/* Numbers of a text's embedding; 0: the bundle gives none. */
BITHEADS_C_API int64_t bitheads_engine_embedding_dim(const bitheads_engine *engine);

BITHEADS_C_API bitheads_status bitheads_engine_statistics(const bitheads_engine *engine,
                                                          bitheads_statistics *statistics);

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
/* 1 if the head reads pairs, of either form, 0 if it reads single texts. */
BITHEADS_C_API int32_t bitheads_tasks_is_pair(const bitheads_tasks *tasks, size_t task);
/* "single_label", "multi_label", "ordinal", "regression" or "token_label"; null for an index out of
 * range. */
BITHEADS_C_API const char *bitheads_tasks_kind(const bitheads_tasks *tasks, size_t task);
/* "single"; of pairs "pair" if the encoder reads both texts as one, "two_texts" if it reads each by
 * itself; null for an index out of range. */
BITHEADS_C_API const char *bitheads_tasks_form(const bitheads_tasks *tasks, size_t task);
/* 1 if an answer may be one that is not accepted. */
BITHEADS_C_API int32_t bitheads_tasks_can_refuse(const bitheads_tasks *tasks, size_t task);

/* One encoder pass: the codes of every real token, in the order of the texts. */
BITHEADS_C_API bitheads_status bitheads_encode(const bitheads_engine *engine,
                                               const bitheads_text *texts, size_t num_texts,
                                               bitheads_features **features);
/* The same, and which tokens are those of which words, as heads of the kind token_label want; it
 * takes longer. */
BITHEADS_C_API bitheads_status bitheads_encode_words(const bitheads_engine *engine,
                                                     const bitheads_text *texts, size_t num_texts,
                                                     bitheads_features **features);
/* As bitheads_encode, or bitheads_encode_words unless words is 0, and each text's embedding beside
 * its codes; no prompt is put before the texts. */
BITHEADS_C_API bitheads_status bitheads_encode_with_embeddings(const bitheads_engine *engine,
                                                               const bitheads_text *texts,
                                                               size_t num_texts, int32_t words,
                                                               bitheads_features **features);
/* The embeddings alone, as sentence-transformers gives them of the checkpoint, to `vectors`, float
 * [num_texts, dim]. `options` may be null; all zero is the default. */
BITHEADS_C_API bitheads_status bitheads_embed(const bitheads_engine *engine,
                                              const bitheads_text *texts, size_t num_texts,
                                              const bitheads_embed_options *options,
                                              float *vectors);
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
/* float [texts, embedding_dim]; null, and 0, of features that were made without. */
BITHEADS_C_API const float *bitheads_features_embeddings(const bitheads_features *features);
BITHEADS_C_API int64_t bitheads_features_embedding_dim(const bitheads_features *features);

/* Every task's answers. A head answers texts of the form that it was made for, see
 * bitheads_tasks_is_pair; tasks null or num_tasks 0: all that were made for texts of this form.
 * Single texts and pairs in one call are BITHEADS_INVALID_INPUT, and so is a task of the other
 * form. For tasks of the form two_texts each different text is encoded once, by itself.
 */
BITHEADS_C_API bitheads_status bitheads_predict(const bitheads_engine *engine,
                                                const bitheads_text *texts, size_t num_texts,
                                                const char *const *tasks, size_t num_tasks,
                                                bitheads_predictions **predictions);
/* From codes alone: no encoder runs. Of texts that bitheads_encode was given the forms are known,
 * of others not, and every head answers but those of the form two_texts, of which one that is named
 * is BITHEADS_INVALID_INPUT. Those of the kind token_label want what
 * bitheads_encode_words was given: of other features, one that is named is BITHEADS_INVALID_INPUT,
 * and one that is not does not answer. */
BITHEADS_C_API bitheads_status bitheads_predict_features(const bitheads_engine *engine,
                                                         const bitheads_features *features,
                                                         const char *const *tasks, size_t num_tasks,
                                                         bitheads_predictions **predictions);
/* The answers of tasks of the form two_texts to pairs of single texts, from their codes: int64
 * [num_pairs, 2], rows of the features. The same as bitheads_predict gives of these texts. A task
 * of another form is BITHEADS_INVALID_INPUT, and so is a row that is not there or is of a pair. */
BITHEADS_C_API bitheads_status bitheads_predict_pairs(const bitheads_engine *engine,
                                                      const bitheads_features *features,
                                                      const int64_t *pairs, size_t num_pairs,
                                                      const char *const *tasks, size_t num_tasks,
                                                      bitheads_predictions **predictions);

/* Calls that go on by themselves, of an engine with share_batches: as bitheads_encode,
 * bitheads_encode_words, bitheads_encode_tokens and bitheads_predict, but they return when the
 * texts are tokenized and in the queue, or with BITHEADS_QUEUE_FULL. Unless it is null, `done` is
 * called once when the call has ended, however it did, from a thread of the engine or from that
 * which ended it, maybe before these return, or after others had the answer; not if they fail. It
 * is to be quick, batches wait for it, and not to free the engine. */
typedef void (*bitheads_done)(void *context);
BITHEADS_C_API bitheads_status bitheads_encode_later(const bitheads_engine *engine,
                                                     const bitheads_text *texts, size_t num_texts,
                                                     int32_t words, bitheads_done done,
                                                     void *context, bitheads_pending **pending);
BITHEADS_C_API bitheads_status
bitheads_encode_tokens_later(const bitheads_engine *engine, const int32_t *ids,
                             const int64_t *offsets, const int64_t *num_first, size_t num_texts,
                             bitheads_done done, void *context, bitheads_pending **pending);
BITHEADS_C_API bitheads_status bitheads_predict_later(const bitheads_engine *engine,
                                                      const bitheads_text *texts, size_t num_texts,
                                                      const char *const *tasks, size_t num_tasks,
                                                      bitheads_done done, void *context,
                                                      bitheads_pending **pending);
/* 1 if the call has ended; waits so long for it. */
BITHEADS_C_API int32_t bitheads_pending_wait(const bitheads_pending *pending, int64_t timeout_ms);
/* Wait for the answer, which is of the kind that was asked for; the other one is
 * BITHEADS_INVALID_INPUT. They fail with what the call ended with. */
BITHEADS_C_API bitheads_status bitheads_pending_features(const bitheads_pending *pending,
                                                         bitheads_features **features);
BITHEADS_C_API bitheads_status bitheads_pending_predictions(const bitheads_pending *pending,
                                                            bitheads_predictions **predictions);
/* Ends the call with BITHEADS_CANCELLED and takes its texts out of the queue; nothing if it has
 * ended. */
BITHEADS_C_API void bitheads_pending_cancel(const bitheads_pending *pending);
/* Lets go of the answer. A call that has not ended goes on; cancel it first. */
BITHEADS_C_API void bitheads_pending_free(bitheads_pending *pending);

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
/* "single_label", "multi_label", "ordinal", "regression" or "token_label". */
BITHEADS_C_API const char *bitheads_predictions_kind(const bitheads_predictions *predictions,
                                                     size_t task);
/* As many as labels; 1 of an ordinal and of a regression, which has no labels; of a token_label
 * 1 + 2 * labels. */
BITHEADS_C_API size_t bitheads_predictions_num_logits(const bitheads_predictions *predictions,
                                                      size_t task);
/* float [texts, num_logits]; of a token_label [words, num_logits]. */
BITHEADS_C_API const float *bitheads_predictions_logits(const bitheads_predictions *predictions,
                                                        size_t task);
/* float [texts, labels]; they sum to 1 but for multi_label. Of a token_label those of each word to
 * be of a span, [words, labels]. */
BITHEADS_C_API const float *bitheads_predictions_probabilities(
    const bitheads_predictions *predictions, size_t task);
/* int64 [texts]: index of the label that is the answer, -1 for a kind that does not give one. */
BITHEADS_C_API const int64_t *bitheads_predictions_best(const bitheads_predictions *predictions,
                                                        size_t task);
/* uint8 [texts, labels]: 1 for a label that the text has, of a token_label that a span has; null
 * for a regression. */
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
/* Of a token_label, null for other kinds: the spans of all texts, in order; int64 [texts + 1], text
 * i owns the spans from span_offsets[i] up to span_offsets[i + 1]. */
BITHEADS_C_API const bitheads_span *bitheads_predictions_spans(
    const bitheads_predictions *predictions, size_t task);
BITHEADS_C_API const int64_t *bitheads_predictions_span_offsets(
    const bitheads_predictions *predictions, size_t task);
/* int64 [texts]: the code point, and the byte, from which on a text was not looked for spans, -1
 * where all of it was; null for other kinds. */
BITHEADS_C_API const int64_t *bitheads_predictions_truncated_at(
    const bitheads_predictions *predictions, size_t task);
BITHEADS_C_API const int64_t *bitheads_predictions_truncated_at_byte(
    const bitheads_predictions *predictions, size_t task);
/* int64 [texts + 1]: text i owns the words, of which the logits are, from word_offsets[i] up to
 * word_offsets[i + 1]; null for other kinds. */
BITHEADS_C_API const int64_t *bitheads_predictions_word_offsets(
    const bitheads_predictions *predictions, size_t task);

#ifdef __cplusplus
}
#endif

#endif
