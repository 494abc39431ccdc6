/* What libbitheads asks of an encoder on a GPU: the table of functions that a plugin gives it. C99.
 *
 * A plugin is a shared library, libbitheads_NAME.so, which exports bitheads_device_sessions_v1. It
 * is opened where a GPU is asked for, so libbitheads itself links nothing of NVIDIA's, and a plugin
 * links the library of its encoder alone: what it needs of the driver comes with the call that
 * opens a session. engine/device/session.py is the same seam in Python.
 *
 * Calls of a session come from one thread at a time, with the GPU's primary context current.
 * Nothing throws through this table, nothing prints, nothing aborts.
 */
#ifndef BITHEADS_DEVICE_SESSION_H
#define BITHEADS_DEVICE_SESSION_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define BITHEADS_DEVICE_SESSION_VERSION 1

typedef enum bitheads_device_status {
  BITHEADS_DEVICE_OK = 0,
  BITHEADS_DEVICE_FAILED = 1,
  BITHEADS_DEVICE_NO_MEMORY = 2, /* the device's memory; a smaller call may succeed */
  BITHEADS_DEVICE_MISFIT = 3     /* a plan, or a library, that is of another version */
} bitheads_device_status;

typedef enum bitheads_device_type {
  BITHEADS_DEVICE_FLOAT32 = 0,
  BITHEADS_DEVICE_FLOAT16 = 1
} bitheads_device_type;

typedef struct bitheads_device_session bitheads_device_session;

/* The device as the host has it. Functions return 0, or a CUDA driver error. */
typedef struct bitheads_device {
  int32_t index;
  void *stream; /* a CUstream: all work of the session goes there */
  void *host;   /* first argument of the functions */
  int32_t (*allocate)(void *host, size_t bytes, uint64_t *address);
  void (*free)(void *host, uint64_t address);
  /* Calls function(argument) on the stream, in its turn: cuLaunchHostFunc. */
  int32_t (*enqueue_function)(void *host, void (*function)(void *argument), void *argument);
} bitheads_device;

/* Batches that a plan's optimization profile serves: rows, then tokens per row. */
typedef struct bitheads_device_profile {
  int64_t min[2];
  int64_t opt[2];
  int64_t max[2];
} bitheads_device_profile;

/* What a session is made of. It is valid during `open` only; the device is, until `close`. */
typedef struct bitheads_device_model {
  const char *graph;     /* path of the bundle's encoder.onnx, in UTF-8 */
  const char *plan_path; /* for messages; null without a plan */
  const void *plan;      /* what TensorRT deserializes, compared with its hash; null without one */
  size_t plan_bytes;
  const bitheads_device_profile *profiles; /* of the plan, in its order */
  size_t num_profiles;
  const char *const *inputs; /* of the plan, each int64 [rows, seq]; null without one */
  size_t num_inputs;
  const char *const *outputs; /* the pooled layers' hidden states, each [rows, seq, dim] */
  size_t num_outputs;
  int64_t dim;
  int64_t max_seq;     /* the longest text of the encoder */
  const char *backend; /* of those that the plugin has, such as "onnxruntime-cuda" */
} bitheads_device_model;

/* Of an open session; valid until it is closed. */
typedef struct bitheads_device_limits {
  const char *precision;     /* "fp16" or "fp32" */
  bitheads_device_type type; /* of its outputs */
  int32_t is_capturable;     /* not 0: `enqueue` can be recorded into a CUDA graph */
  const char *const *inputs; /* in the order of their addresses in `bind` */
  size_t num_inputs;
  int64_t max_tokens; /* the largest rows * seq of a call */
  int64_t max_seq;    /* the longest text of a call */
} bitheads_device_limits;

typedef struct bitheads_device_sessions {
  uint32_t version; /* BITHEADS_DEVICE_SESSION_VERSION; a host refuses any other */
  /* Backends that it has, in the order in which `auto` tries them; ended by null. */
  const char *const *backends;
  /* A backend that computes on the host, by `enqueue_function`, at addresses that can be read
   * there: for a driver in software alone. Null without one. */
  const char *software_backend;
  /* "tensorrt" or "tensorrt-rtx" if it runs plans of these, else null. */
  const char *plan_flavour;
  /* Of the library that runs the encoder, in full, such as "10.14.1.48": a plan runs on the version
   * that made it. Null if the library cannot be used; last_error says why. */
  const char *(*library_version)(void);
  /* Why this thread's last failed call did; never null. */
  const char *(*last_error)(void);

  bitheads_device_status (*open)(const bitheads_device_model *model, const bitheads_device *device,
                                 bitheads_device_session **session);
  const bitheads_device_limits *(*limits)(const bitheads_device_session *session);
  /* Most rows of a call of this length, 0 if none is possible. */
  int64_t (*max_rows)(const bitheads_device_session *session, int64_t seq);
  /* Sets the addresses that all calls use from now on. */
  bitheads_device_status (*bind)(bitheads_device_session *session, const uint64_t *inputs,
                                 const uint64_t *outputs);
  /* Enqueues one call. `keep` gives this shape state of its own, which a CUDA graph needs. */
  bitheads_device_status (*enqueue)(bitheads_device_session *session, int64_t rows, int64_t seq,
                                    int32_t keep);
  /* Frees what `keep` kept; none of it may be running. */
  void (*forget)(bitheads_device_session *session, int64_t rows, int64_t seq);
  /* Takes null. Frees everything; nothing may be running. */
  void (*close)(bitheads_device_session *session);
} bitheads_device_sessions;

/* What a plugin exports; null if it cannot be used at all. */
const bitheads_device_sessions *bitheads_device_sessions_v1(void);
typedef const bitheads_device_sessions *(*bitheads_device_sessions_function)(void);

#ifdef __cplusplus
}
#endif

#endif
