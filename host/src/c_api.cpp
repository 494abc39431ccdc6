#include <algorithm>
#include <chrono>
#include <exception>
#include <functional>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <tuple>

#include "bitheads/bitheads.h"
#include "bitheads/bitheads.hpp"
#include "error.h"
#include "kinds.h"

struct bitheads_engine {
  bitheads::Engine engine;
};

struct bitheads_tasks {
  std::vector<bitheads::TaskInfo> tasks;
};

struct bitheads_features {
  bitheads::PackedFeatures features;
};

// One of the two.
struct bitheads_pending {
  std::optional<bitheads::Pending<bitheads::PackedFeatures>> features;
  std::optional<bitheads::Pending<std::vector<bitheads::Prediction>>> predictions;
};

struct bitheads_predictions {
  // What is made of a task's logits; null is given for what stays empty.
  struct Answers {
    std::vector<float> probabilities;
    std::vector<int64_t> best;
    std::vector<uint8_t> selected;
    std::vector<float> values;
    std::vector<uint8_t> accepted;
    std::vector<float> out_of_domain;
    std::vector<bitheads_span> spans;
    std::vector<int64_t> span_offsets;
  };

  std::vector<bitheads::Prediction> predictions;
  std::vector<Answers> answers;
};

namespace {

using bitheads::fail;
using bitheads::Status;

thread_local std::string last_error = "no call of this thread has failed";

bitheads_status keep(bitheads_status status, const char *message) noexcept {
  try {
    last_error = message;
  } catch (...) {
    last_error.clear();
  }
  return status;
}

// Runs work that may throw; an exception becomes a status and a message.
template <class Work>
bitheads_status guarded(const Work &work) noexcept {
  try {
    work();
    return BITHEADS_OK;
  } catch (const bitheads::Error &error) {
    return keep(static_cast<bitheads_status>(error.status()), error.what());
  } catch (const std::bad_alloc &) {
    return keep(BITHEADS_INTERNAL, bitheads::kNoMemory);
  } catch (const std::exception &error) {
    return keep(BITHEADS_INTERNAL, error.what());
  } catch (...) {
    return keep(BITHEADS_INTERNAL, "an exception that is no std::exception");
  }
}

template <class... Pointers>
void check_not_null(const char *what, const Pointers *...pointers) {
  if (((pointers == nullptr) || ...)) fail(Status::invalid_input, what, ": got a null pointer.");
}

std::vector<bitheads::Text> as_texts(const bitheads_text *texts, size_t num_texts) {
  std::vector<bitheads::Text> result;
  result.reserve(num_texts);
  for (size_t i = 0; i < num_texts; ++i) {
    check_not_null("texts", texts);
    check_not_null("texts", texts[i].first);
    std::string first(texts[i].first, texts[i].first_bytes);
    if (texts[i].second == nullptr) {
      result.emplace_back(std::move(first));
    } else {
      result.emplace_back(std::move(first), std::string(texts[i].second, texts[i].second_bytes));
    }
  }
  return result;
}

std::vector<std::string> as_tasks(const char *const *tasks, size_t num_tasks) {
  std::vector<std::string> names;
  for (size_t i = 0; tasks != nullptr && i < num_tasks; ++i) {
    check_not_null("tasks", tasks[i]);
    names.emplace_back(tasks[i]);
  }
  return names;
}

// Checks sizes of memory for which there is only the caller's word.
void check_offsets(const int64_t *offsets, size_t num_texts) {
  check_not_null("offsets", offsets);
  for (size_t i = 0; i < num_texts; ++i) {
    if (offsets[0] != 0 || offsets[i + 1] < offsets[i]) {
      fail(Status::invalid_input, "offsets: expected 0 first, and none that falls.");
    }
  }
}

std::vector<bitheads::Tokens> as_tokens(const int32_t *ids, const int64_t *offsets,
                                        const int64_t *num_first, size_t num_texts) {
  check_offsets(offsets, num_texts);
  std::vector<bitheads::Tokens> tokens(num_texts);
  for (size_t i = 0; i < num_texts; ++i) {
    tokens[i].ids.assign(ids + offsets[i], ids + offsets[i + 1]);
    if (num_first != nullptr) {
      if (num_first[i] < 0) {
        fail(Status::invalid_input, "num_first: got ", num_first[i], ", expected 0 or more.");
      }
      tokens[i].num_first = static_cast<size_t>(num_first[i]);
    }
  }
  return tokens;
}

using Answers = bitheads_predictions::Answers;

void add_spans(const bitheads::Prediction &prediction, Answers &found) {
  found.span_offsets.push_back(0);
  for (size_t text = 0; text < prediction.size(); ++text) {
    for (const bitheads::Span &span : prediction.spans(text)) {
      found.spans.push_back({static_cast<int64_t>(span.start), static_cast<int64_t>(span.end),
                             static_cast<int64_t>(span.start_byte),
                             static_cast<int64_t>(span.end_byte), static_cast<int64_t>(span.label),
                             span.probability});
      found.selected[text * prediction.labels.size() + span.label] = 1;
    }
    found.span_offsets.push_back(static_cast<int64_t>(found.spans.size()));
  }
}

Answers answers_of(const bitheads::Prediction &prediction) {
  Answers found;
  const bitheads::Kind &kind = *bitheads::find_kind(prediction.kind);
  const auto &[labels, decision] = std::tie(prediction.labels, prediction.decision);
  const float *row = prediction.logits.data();
  found.probabilities = prediction.probabilities();
  found.selected.resize(prediction.size() * labels.size());
  if (prediction.words) {
    add_spans(prediction, found);
    found.best.assign(prediction.size(), -1);
    found.accepted.assign(prediction.size(), 1);
    return found;
  }
  for (size_t text = 0; text < prediction.size(); ++text, row += kind.num_logits(labels)) {
    const auto best = kind.best(row, labels, decision);
    found.best.push_back(best ? static_cast<int64_t>(*best) : -1);
    kind.select(row, labels, decision, found.selected.data() + text * labels.size());
    if (const auto value = kind.value(row, labels, decision)) found.values.push_back(*value);
    if (const auto out = prediction.out_of_domain(text)) found.out_of_domain.push_back(*out);
    found.accepted.push_back(prediction.accepted(text) ? 1 : 0);
  }
  return found;
}

bitheads_predictions *with_answers(std::vector<bitheads::Prediction> predictions) {
  std::vector<Answers> answers;
  for (const bitheads::Prediction &prediction : predictions) {
    answers.push_back(answers_of(prediction));
  }
  return new bitheads_predictions{std::move(predictions), std::move(answers)};
}

// Null where the caller wants none.
template <class Answer>
bitheads::Done<Answer> as_done(bitheads_done done, void *context) {
  if (done == nullptr) return {};
  return [done, context](const bitheads::Pending<Answer> &) { done(context); };
}

[[noreturn]] void fail_other_answer(const char *made, const char *asked) {
  fail(Status::invalid_input, "pending: got a call of ", made, ", expected one of ", asked,
       ". Ask for the answer that the call was made for.");
}

// Null for a task out of range, and for a kind that reads no words.
const bitheads::Words *words_of(const bitheads_predictions *predictions, size_t task) {
  return task < predictions->predictions.size() ? predictions->predictions[task].words.get()
                                                : nullptr;
}

const bitheads::Prediction *find(const bitheads_predictions *predictions, size_t task) {
  return task < predictions->predictions.size() ? &predictions->predictions[task] : nullptr;
}

// Null for a task out of range, and for an array of nothing.
template <class Value>
const Value *find(const bitheads_predictions *predictions, size_t task,
                  std::vector<Value> Answers::*array) {
  if (task >= predictions->answers.size()) return nullptr;
  const std::vector<Value> &found = predictions->answers[task].*array;
  return found.empty() ? nullptr : found.data();
}

}  // namespace

const char *bitheads_last_error(void) {
  return last_error.c_str();
}

const char *bitheads_version(void) {
  return BITHEADS_VERSION;
}

bitheads_status bitheads_engine_load(const char *folder, const bitheads_options *options,
                                     bitheads_engine **engine) {
  return guarded([&] {
    check_not_null("bitheads_engine_load", folder, engine);
    bitheads::Options chosen;
    if (options != nullptr) {
      chosen.precision = options->precision == nullptr ? "auto" : options->precision;
      chosen.threads = options->threads;
      chosen.verify = options->skip_verify == 0;
      chosen.max_batch_tokens = options->max_batch_tokens;
      if (options->tokenizers_library != nullptr) {
        chosen.tokenizers_library = options->tokenizers_library;
      }
      chosen.share_batches = options->share_batches != 0;
      if (options->max_queue_tokens != 0) chosen.max_queue_tokens = options->max_queue_tokens;
      if (options->backend != nullptr) chosen.backend = options->backend;
      chosen.device = options->device;
      if (options->plugins != nullptr) chosen.plugins = options->plugins;
      if (options->device_code != nullptr) chosen.device_code = options->device_code;
      if (options->min_sign_agreement != 0) {
        chosen.min_sign_agreement = options->min_sign_agreement;
      }
      chosen.cache_bytes = options->cache_bytes;
    }
    *engine = new bitheads_engine{bitheads::Engine::load(folder, chosen)};
  });
}

void bitheads_engine_free(bitheads_engine *engine) {
  delete engine;
}

const char *bitheads_engine_spec_id(const bitheads_engine *engine) {
  return engine->engine.spec_id().c_str();
}

const char *bitheads_engine_backend(const bitheads_engine *engine) {
  return engine->engine.backend().c_str();
}

const char *bitheads_engine_why_not_gpu(const bitheads_engine *engine) {
  return engine->engine.why_not_gpu().c_str();
}

bitheads_status bitheads_engine_statistics(const bitheads_engine *engine,
                                           bitheads_statistics *statistics) {
  return guarded([&] {
    check_not_null("bitheads_engine_statistics", engine, statistics);
    const bitheads::Statistics found = engine->engine.statistics();
    *statistics = {found.encoded_texts, found.joined_texts, found.cached_texts, found.cache_texts,
                   found.cache_bytes};
  });
}

int64_t bitheads_engine_embedding_dim(const bitheads_engine *engine) {
  return engine->engine.embedding_dim();
}

int64_t bitheads_engine_code_bytes(const bitheads_engine *engine) {
  return engine->engine.code_bytes();
}

bitheads_status bitheads_engine_add_head(bitheads_engine *engine, const char *path,
                                         int32_t replace) {
  return guarded([&] {
    check_not_null("bitheads_engine_add_head", engine, path);
    engine->engine.add_head(path, replace != 0);
  });
}

bitheads_status bitheads_engine_remove_head(bitheads_engine *engine, const char *task) {
  return guarded([&] {
    check_not_null("bitheads_engine_remove_head", engine, task);
    engine->engine.remove_head(task);
  });
}

bitheads_status bitheads_engine_tasks(const bitheads_engine *engine, bitheads_tasks **tasks) {
  return guarded([&] {
    check_not_null("bitheads_engine_tasks", engine, tasks);
    *tasks = new bitheads_tasks{engine->engine.tasks()};
  });
}

void bitheads_tasks_free(bitheads_tasks *tasks) {
  delete tasks;
}

size_t bitheads_tasks_count(const bitheads_tasks *tasks) {
  return tasks->tasks.size();
}

const char *bitheads_tasks_name(const bitheads_tasks *tasks, size_t task) {
  return task < tasks->tasks.size() ? tasks->tasks[task].task.c_str() : nullptr;
}

int32_t bitheads_tasks_is_pair(const bitheads_tasks *tasks, size_t task) {
  return task < tasks->tasks.size() && tasks->tasks[task].is_pair ? 1 : 0;
}

const char *bitheads_tasks_kind(const bitheads_tasks *tasks, size_t task) {
  return task < tasks->tasks.size() ? tasks->tasks[task].kind.c_str() : nullptr;
}

const char *bitheads_tasks_form(const bitheads_tasks *tasks, size_t task) {
  return task < tasks->tasks.size() ? tasks->tasks[task].form.c_str() : nullptr;
}

int32_t bitheads_tasks_can_refuse(const bitheads_tasks *tasks, size_t task) {
  return task < tasks->tasks.size() && tasks->tasks[task].can_refuse ? 1 : 0;
}

bitheads_status bitheads_encode(const bitheads_engine *engine, const bitheads_text *texts,
                                size_t num_texts, bitheads_features **features) {
  return guarded([&] {
    check_not_null("bitheads_encode", engine, features);
    *features = new bitheads_features{engine->engine.encode(as_texts(texts, num_texts))};
  });
}

bitheads_status bitheads_encode_words(const bitheads_engine *engine, const bitheads_text *texts,
                                      size_t num_texts, bitheads_features **features) {
  return guarded([&] {
    check_not_null("bitheads_encode_words", engine, features);
    *features = new bitheads_features{engine->engine.encode(as_texts(texts, num_texts), true)};
  });
}

bitheads_status bitheads_encode_with_embeddings(const bitheads_engine *engine,
                                                const bitheads_text *texts, size_t num_texts,
                                                int32_t words, bitheads_features **features) {
  return guarded([&] {
    check_not_null("bitheads_encode_with_embeddings", engine, features);
    *features = new bitheads_features{
        engine->engine.encode_with_embeddings(as_texts(texts, num_texts), words != 0)};
  });
}

bitheads_status bitheads_embed(const bitheads_engine *engine, const bitheads_text *texts,
                               size_t num_texts, const bitheads_embed_options *options,
                               float *vectors) {
  return guarded([&] {
    check_not_null("bitheads_embed", engine);
    if (num_texts > 0) check_not_null("bitheads_embed", vectors);
    bitheads::EmbedOptions asked;
    if (options != nullptr) {
      asked.dim = options->dim;
      asked.normalize = options->normalize != 0;
      if (options->prompt != nullptr) asked.prompt = options->prompt;
      if (options->prompt_name != nullptr) asked.prompt_name = options->prompt_name;
    }
    const bitheads::Embeddings found = engine->engine.embed(as_texts(texts, num_texts), asked);
    std::copy(found.values.begin(), found.values.end(), vectors);
  });
}

bitheads_status bitheads_encode_tokens(const bitheads_engine *engine, const int32_t *ids,
                                       const int64_t *offsets, const int64_t *num_first,
                                       size_t num_texts, bitheads_features **features) {
  return guarded([&] {
    check_not_null("bitheads_encode_tokens", engine, ids, features);
    *features = new bitheads_features{
        engine->engine.encode_tokens(as_tokens(ids, offsets, num_first, num_texts))};
  });
}

bitheads_status bitheads_features_make(const char *spec_id, const uint8_t *codes,
                                       int64_t code_bytes, const int64_t *offsets, size_t num_texts,
                                       bitheads_features **features) {
  return guarded([&] {
    check_not_null("bitheads_features_make", spec_id, codes, features);
    check_offsets(offsets, num_texts);
    if (code_bytes < 1) {
      fail(Status::invalid_input, "code_bytes: got ", code_bytes, ", expected 1 or more.");
    }
    bitheads::PackedFeatures made;
    made.codes.assign(codes, codes + (num_texts > 0 ? offsets[num_texts] * code_bytes : 0));
    made.offsets.assign(offsets, offsets + num_texts + 1);
    made.offsets[0] = 0;
    made.code_bytes = code_bytes;
    made.spec_id = spec_id;
    *features = new bitheads_features{std::move(made)};
  });
}

void bitheads_features_free(bitheads_features *features) {
  delete features;
}

size_t bitheads_features_count(const bitheads_features *features) {
  return features->features.size();
}

const uint8_t *bitheads_features_codes(const bitheads_features *features) {
  return features->features.codes.data();
}

int64_t bitheads_features_code_bytes(const bitheads_features *features) {
  return features->features.code_bytes;
}

const int64_t *bitheads_features_offsets(const bitheads_features *features) {
  return features->features.offsets.data();
}

const float *bitheads_features_embeddings(const bitheads_features *features) {
  const std::vector<float> &embeddings = features->features.embeddings;
  return embeddings.empty() ? nullptr : embeddings.data();
}

int64_t bitheads_features_embedding_dim(const bitheads_features *features) {
  return features->features.embedding_dim;
}

int64_t bitheads_features_num_truncated(const bitheads_features *features) {
  return features->features.num_truncated;
}

bitheads_status bitheads_predict(const bitheads_engine *engine, const bitheads_text *texts,
                                 size_t num_texts, const char *const *tasks, size_t num_tasks,
                                 bitheads_predictions **predictions) {
  return guarded([&] {
    check_not_null("bitheads_predict", engine, predictions);
    *predictions = with_answers(
        engine->engine.predict(as_texts(texts, num_texts), as_tasks(tasks, num_tasks)));
  });
}

bitheads_status bitheads_predict_features(const bitheads_engine *engine,
                                          const bitheads_features *features,
                                          const char *const *tasks, size_t num_tasks,
                                          bitheads_predictions **predictions) {
  return guarded([&] {
    check_not_null("bitheads_predict_features", engine, features, predictions);
    *predictions = with_answers(
        engine->engine.predict_features(features->features, as_tasks(tasks, num_tasks)));
  });
}

bitheads_status bitheads_predict_pairs(const bitheads_engine *engine,
                                       const bitheads_features *features, const int64_t *pairs,
                                       size_t num_pairs, const char *const *tasks, size_t num_tasks,
                                       bitheads_predictions **predictions) {
  return guarded([&] {
    check_not_null("bitheads_predict_pairs", engine, features, predictions);
    if (num_pairs > 0) check_not_null("pairs", pairs);
    std::vector<bitheads::RowPair> rows(num_pairs);
    for (size_t i = 0; i < num_pairs; ++i) rows[i] = {pairs[2 * i], pairs[2 * i + 1]};
    *predictions = with_answers(
        engine->engine.predict_pairs(features->features, rows, as_tasks(tasks, num_tasks)));
  });
}

bitheads_status bitheads_encode_later(const bitheads_engine *engine, const bitheads_text *texts,
                                      size_t num_texts, int32_t words, bitheads_done done,
                                      void *context, bitheads_pending **pending) {
  return guarded([&] {
    check_not_null("bitheads_encode_later", engine, pending);
    auto made = std::make_unique<bitheads_pending>();
    made->features = engine->engine.encode_later(as_texts(texts, num_texts), words != 0,
                                                 as_done<bitheads::PackedFeatures>(done, context));
    *pending = made.release();
  });
}

bitheads_status bitheads_encode_tokens_later(const bitheads_engine *engine, const int32_t *ids,
                                             const int64_t *offsets, const int64_t *num_first,
                                             size_t num_texts, bitheads_done done, void *context,
                                             bitheads_pending **pending) {
  return guarded([&] {
    check_not_null("bitheads_encode_tokens_later", engine, ids, pending);
    auto made = std::make_unique<bitheads_pending>();
    made->features =
        engine->engine.encode_tokens_later(as_tokens(ids, offsets, num_first, num_texts),
                                           as_done<bitheads::PackedFeatures>(done, context));
    *pending = made.release();
  });
}

bitheads_status bitheads_predict_later(const bitheads_engine *engine, const bitheads_text *texts,
                                       size_t num_texts, const char *const *tasks, size_t num_tasks,
                                       bitheads_done done, void *context,
                                       bitheads_pending **pending) {
  return guarded([&] {
    check_not_null("bitheads_predict_later", engine, pending);
    auto made = std::make_unique<bitheads_pending>();
    made->predictions =
        engine->engine.predict_later(as_texts(texts, num_texts), as_tasks(tasks, num_tasks),
                                     as_done<std::vector<bitheads::Prediction>>(done, context));
    *pending = made.release();
  });
}

int32_t bitheads_pending_wait(const bitheads_pending *pending, int64_t timeout_ms) {
  int32_t is_done = 0;
  constexpr int64_t kForever = int64_t{1} << 40;  // about 35 years, which nanoseconds can say
  const std::chrono::milliseconds time(std::clamp<int64_t>(timeout_ms, 0, kForever));
  guarded([&] {
    is_done = pending->features ? pending->features->wait_for(time)
                                : pending->predictions->wait_for(time);
  });
  return is_done;
}

bitheads_status bitheads_pending_features(const bitheads_pending *pending,
                                          bitheads_features **features) {
  return guarded([&] {
    check_not_null("bitheads_pending_features", pending, features);
    if (!pending->features) fail_other_answer("bitheads_predict_later", "bitheads_encode_later");
    *features = new bitheads_features{pending->features->get()};
  });
}

bitheads_status bitheads_pending_predictions(const bitheads_pending *pending,
                                             bitheads_predictions **predictions) {
  return guarded([&] {
    check_not_null("bitheads_pending_predictions", pending, predictions);
    if (!pending->predictions) fail_other_answer("bitheads_encode_later", "bitheads_predict_later");
    *predictions = with_answers(pending->predictions->get());
  });
}

void bitheads_pending_cancel(const bitheads_pending *pending) {
  guarded(
      [&] { pending->features ? pending->features->cancel() : pending->predictions->cancel(); });
}

void bitheads_pending_free(bitheads_pending *pending) {
  delete pending;
}

void bitheads_predictions_free(bitheads_predictions *predictions) {
  delete predictions;
}

size_t bitheads_predictions_count(const bitheads_predictions *predictions) {
  return predictions->predictions.size();
}

const char *bitheads_predictions_task(const bitheads_predictions *predictions, size_t task) {
  const auto *found = find(predictions, task);
  return found == nullptr ? nullptr : found->task.c_str();
}

size_t bitheads_predictions_num_labels(const bitheads_predictions *predictions, size_t task) {
  const auto *found = find(predictions, task);
  return found == nullptr ? 0 : found->labels.size();
}

const char *bitheads_predictions_label(const bitheads_predictions *predictions, size_t task,
                                       size_t label) {
  const auto *found = find(predictions, task);
  return found == nullptr || label >= found->labels.size() ? nullptr : found->labels[label].c_str();
}

const char *bitheads_predictions_kind(const bitheads_predictions *predictions, size_t task) {
  const auto *found = find(predictions, task);
  return found == nullptr ? nullptr : found->kind.c_str();
}

size_t bitheads_predictions_num_logits(const bitheads_predictions *predictions, size_t task) {
  const auto *found = find(predictions, task);
  return found == nullptr ? 0 : found->num_logits();
}

const float *bitheads_predictions_logits(const bitheads_predictions *predictions, size_t task) {
  const auto *found = find(predictions, task);
  return found == nullptr ? nullptr : found->logits.data();
}

const float *bitheads_predictions_probabilities(const bitheads_predictions *predictions,
                                                size_t task) {
  return find(predictions, task, &Answers::probabilities);
}

const int64_t *bitheads_predictions_best(const bitheads_predictions *predictions, size_t task) {
  return find(predictions, task, &Answers::best);
}

const uint8_t *bitheads_predictions_selected(const bitheads_predictions *predictions, size_t task) {
  return find(predictions, task, &Answers::selected);
}

const float *bitheads_predictions_values(const bitheads_predictions *predictions, size_t task) {
  return find(predictions, task, &Answers::values);
}

const uint8_t *bitheads_predictions_accepted(const bitheads_predictions *predictions, size_t task) {
  return find(predictions, task, &Answers::accepted);
}

const float *bitheads_predictions_reject_logits(const bitheads_predictions *predictions,
                                                size_t task) {
  const auto *found = find(predictions, task);
  return found == nullptr || found->reject_logits.empty() ? nullptr : found->reject_logits.data();
}

const float *bitheads_predictions_out_of_domain(const bitheads_predictions *predictions,
                                                size_t task) {
  return find(predictions, task, &Answers::out_of_domain);
}

const bitheads_span *bitheads_predictions_spans(const bitheads_predictions *predictions,
                                                size_t task) {
  return find(predictions, task, &Answers::spans);
}

const int64_t *bitheads_predictions_span_offsets(const bitheads_predictions *predictions,
                                                 size_t task) {
  return find(predictions, task, &Answers::span_offsets);
}

const int64_t *bitheads_predictions_truncated_at(const bitheads_predictions *predictions,
                                                 size_t task) {
  const auto *words = words_of(predictions, task);
  return words == nullptr || words->truncated_at.empty() ? nullptr : words->truncated_at.data();
}

const int64_t *bitheads_predictions_truncated_at_byte(const bitheads_predictions *predictions,
                                                      size_t task) {
  const auto *words = words_of(predictions, task);
  return words == nullptr || words->truncated_at.empty() ? nullptr
                                                         : words->truncated_at_byte.data();
}

const int64_t *bitheads_predictions_word_offsets(const bitheads_predictions *predictions,
                                                 size_t task) {
  const auto *words = words_of(predictions, task);
  return words == nullptr ? nullptr : words->offsets.data();
}
