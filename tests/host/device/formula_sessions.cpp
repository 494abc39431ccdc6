// A plugin for tests: hidden states are a formula of token ids, computed when the stream gets
// there.
//
// Its library is libbitheads_formula.so. Tests change what it is, and what it fails with, through
// formula_set, before an engine is loaded or between its calls. formula_sessions.py has the same
// formula in Python.
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "bitheads/device_session.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

constexpr uint32_t kPoison = 0x7E00;  // what is at padding: not a number, as float16 and bfloat16

// Of what is set: everything by name, 0 if nothing was said.
std::map<std::string, int64_t> &settings() {
  static auto *const kept = new std::map<std::string, int64_t>;
  return *kept;
}

int64_t setting(const char *name, int64_t otherwise) {
  const auto found = settings().find(name);
  return found == settings().end() ? otherwise : found->second;
}

// Whether to fail now: as often as it was set.
bool takes(const char *name) {
  int64_t &left = settings()[name];
  return left > 0 && left-- > 0;
}

std::string &failure() {
  thread_local std::string kept = "nothing has failed";
  return kept;
}

bitheads_device_status fail(bitheads_device_status status, const char *why) {
  failure() = why;
  return status;
}

// -127.5 to 127.5 in steps of 1/64 of that: exact in float16 and float32.
float formula(int64_t id, int64_t type, int64_t position, int64_t layer, int64_t feature) {
  uint32_t h = static_cast<uint32_t>(id) * 2654435761U;
  h ^= static_cast<uint32_t>(position) * 40503U + static_cast<uint32_t>(type) * 7919U;
  h = h * 2246822519U + static_cast<uint32_t>(layer) * 374761393U;
  h ^= h >> 15;
  h = h * 3266489917U + static_cast<uint32_t>(feature) * 668265263U;
  h ^= h >> 13;
  h *= 2246822519U;
  return (static_cast<float>(h >> 24) - 127.5F) / 64.0F;
}

uint16_t half_of(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  const uint32_t exponent = (bits >> 23) & 255;
  return static_cast<uint16_t>((bits >> 16 & 0x8000) | (exponent - 112) << 10 |
                               (bits >> 13 & 0x3FF));
}

// What a call works on: as it was when it was enqueued.
struct Work {
  std::vector<std::string> names;
  std::vector<uint64_t> inputs, outputs;
  std::vector<int64_t> layers;
  int64_t rows, seq, dim;
  bitheads_device_type type;
  bool is_kept;
};

void compute(void *argument) {
  auto *work = static_cast<Work *>(argument);
  const auto read = [&](const char *name, int64_t i) -> int64_t {
    for (size_t k = 0; k < work->names.size(); ++k) {
      if (work->names[k] == name) return reinterpret_cast<const int64_t *>(work->inputs[k])[i];
    }
    return 0;
  };
  for (size_t l = 0; l < work->layers.size(); ++l) {
    for (int64_t i = 0; i < work->rows * work->seq; ++i) {
      const bool is_real = read("attention_mask", i) != 0;
      for (int64_t j = 0; j < work->dim; ++j) {
        const float value = formula(read("input_ids", i), read("token_type_ids", i), i % work->seq,
                                    work->layers[l], j);
        const int64_t at = i * work->dim + j;
        if (work->type == BITHEADS_DEVICE_FLOAT16) {
          reinterpret_cast<uint16_t *>(work->outputs[l])[at] =
              is_real ? half_of(value) : static_cast<uint16_t>(kPoison);
        } else {
          const uint32_t poison = kPoison << 16 | 1;
          std::memcpy(reinterpret_cast<float *>(work->outputs[l]) + at,
                      is_real ? static_cast<const void *>(&value) : &poison, 4);
        }
      }
    }
  }
  if (!work->is_kept) delete work;
}

const char *const kInputs[] = {"input_ids", "attention_mask", "token_type_ids"};
const char *const kBackends[] = {"formula", "formula-other", nullptr};

}  // namespace

struct bitheads_device_session {
  const bitheads_device *device;
  uint64_t scratch = 0;
  bitheads_device_limits limits = {};
  std::vector<bitheads_device_profile> profiles;
  Work bound = {};
  std::map<std::pair<int64_t, int64_t>, std::unique_ptr<Work>> kept;
};

namespace {

bitheads_device_status open(const bitheads_device_model *model, const bitheads_device *device,
                            bitheads_device_session **session) {
  if (takes("fail_open")) return fail(BITHEADS_DEVICE_FAILED, "no such kernel");
  if (takes("misfit_open")) return fail(BITHEADS_DEVICE_MISFIT, "the plan is of another library");
  const bool has_plan = model->plan != nullptr;
  if (has_plan && std::string(static_cast<const char *>(model->plan), model->plan_bytes) !=
                      "a plan of the formula") {
    return fail(BITHEADS_DEVICE_FAILED, "these are not the bytes of the plan");
  }
  auto made = std::make_unique<bitheads_device_session>();
  made->device = device;
  if (device->allocate(device->host, 4096, &made->scratch) != 0) {
    return fail(BITHEADS_DEVICE_NO_MEMORY, "no scratch memory");
  }
  made->profiles.assign(model->profiles, model->profiles + model->num_profiles);
  made->limits.precision = "fp16";
  made->limits.type = static_cast<bitheads_device_type>(setting("type", BITHEADS_DEVICE_FLOAT16));
  made->limits.is_capturable = static_cast<int32_t>(setting("capturable", 1));
  made->limits.inputs = kInputs;
  made->limits.num_inputs = 3;
  made->limits.max_tokens = setting("max_tokens", 1 << 20);
  made->limits.max_seq = model->max_seq;
  for (const auto &profile : made->profiles) {
    made->limits.max_tokens = profile.max[0] * profile.max[1];
    made->limits.max_seq = profile.max[1];
  }
  for (size_t i = 0; i < 3; ++i) made->bound.names.emplace_back(kInputs[i]);
  for (size_t i = 0; i < model->num_outputs; ++i) {
    made->bound.layers.push_back(std::stoll(std::string(model->outputs[i]).substr(7)));
  }
  made->bound.dim = model->dim;
  made->bound.type = made->limits.type;
  *session = made.release();
  return BITHEADS_DEVICE_OK;
}

int64_t max_rows(const bitheads_device_session *session, int64_t seq) {
  if (seq > session->limits.max_seq) return 0;
  return session->profiles.empty() ? session->limits.max_tokens / seq
                                   : session->profiles.back().max[0];
}

bitheads_device_status bind(bitheads_device_session *session, const uint64_t *inputs,
                            const uint64_t *outputs) {
  Work &bound = session->bound;
  bound.inputs.assign(inputs, inputs + bound.names.size());
  bound.outputs.assign(outputs, outputs + bound.layers.size());
  return BITHEADS_DEVICE_OK;
}

bitheads_device_status enqueue(bitheads_device_session *session, int64_t rows, int64_t seq,
                               int32_t keep) {
  if (takes("no_memory")) return fail(BITHEADS_DEVICE_NO_MEMORY, "the arena is full");
  if (takes("fail_enqueue")) return fail(BITHEADS_DEVICE_FAILED, "an unsupported shape");
  auto work = std::make_unique<Work>(session->bound);
  work->rows = rows;
  work->seq = seq;
  work->is_kept = keep != 0;
  Work *argument = work.get();
  if (keep != 0) {
    auto &place = session->kept[{rows, seq}];
    if (place == nullptr) place = std::move(work);
    argument = place.get();
  } else {
    work.release();  // NOLINT: `compute` deletes it
  }
  const bitheads_device *device = session->device;
  if (device->enqueue_function(device->host, compute, argument) != 0) {
    if (keep == 0) delete argument;
    return fail(BITHEADS_DEVICE_FAILED, "the stream takes no work");
  }
  return BITHEADS_DEVICE_OK;
}

void close(bitheads_device_session *session) {
  if (session == nullptr) return;
  session->device->free(session->device->host, session->scratch);
  delete session;
}

bitheads_device_sessions table = {
    BITHEADS_DEVICE_SESSION_VERSION,
    kBackends,
    "formula-soft",
    nullptr,
    [] { return setting("no_library", 0) != 0 ? nullptr : "10.99.0.1"; },
    [] { return failure().c_str(); },
    open,
    [](const bitheads_device_session *session) { return &session->limits; },
    max_rows,
    bind,
    enqueue,
    [](bitheads_device_session *session, int64_t rows, int64_t seq) {
      session->kept.erase({rows, seq});
    },
    close,
};

}  // namespace

EXPORT const bitheads_device_sessions *bitheads_device_sessions_v1(void) {
  if (setting("null", 0) != 0) return nullptr;
  table.version = static_cast<uint32_t>(setting("version", BITHEADS_DEVICE_SESSION_VERSION));
  table.plan_flavour = setting("plans", 0) != 0 ? "tensorrt" : nullptr;
  return &table;
}

EXPORT void formula_set(const char *name, int64_t value) {
  settings()[name] = value;
}

EXPORT void formula_reset() {
  settings().clear();
}
