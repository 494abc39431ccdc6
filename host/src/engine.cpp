#include <algorithm>
#include <map>
#include <mutex>
#include <openvino/openvino.hpp>

#include "apart.h"
#include "bundle.h"
#include "call.h"
#include "cores.h"
#include "embedding.h"
#include "error.h"
#include "forms.h"
#include "head_file.h"
#include "heads.h"
#include "open_encoder.h"
#include "packed.h"
#include "parallel.h"
#include "process.h"
#include "scheduler.h"
#include "text_passes.h"

namespace bitheads {
namespace {

using HeadMap = std::map<std::string, std::shared_ptr<const LaidOutHead>>;

// Files in the order of their names, which decides which of two heads of one task is the second.
std::vector<fs::path> find_heads(const fs::path &folder) {
  std::vector<fs::path> paths;
  std::error_code error;
  for (fs::directory_iterator it(folder / "heads", error), end; !error && it != end;
       it.increment(error)) {
    const bool is_hidden = it->path().filename().string()[0] == '.';
    if (it->path().extension() == ".safetensors" && !is_hidden) paths.push_back(it->path());
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

// The only core of this process, which is never destroyed. A core with the CPU's plugin gives its
// thread a stack for signals and takes the stack back when the core is destroyed, though a later
// core may put it in place again at its own end. Then a signal whose handler wants that stack, such
// as Python's, is a segfault.
ov::Core &the_core() {
  static ov::Core *const core = new ov::Core;
  return *core;
}

}  // namespace

struct Engine::Impl {
  Impl(const fs::path &folder, const Options &given)
      : options(with_quota(given)),
        manifest(read_checked(folder, options)),
        opened(open_encoder(core, folder, manifest, options)),
        encoder(*opened.encoder),
        passes(core, folder, manifest, options, encoder),
        threads(options.threads > 0 ? options.threads : count_cores()),
        head_threads(threads, encoder.head_runner()) {
    read_heads(find_heads(folder));
    check_scheduling(options);
    if (options.share_batches) {
      scheduler = std::make_shared<Scheduler>(encoder, head_threads, manifest.spec,
                                              options.max_queue_tokens, options.cache_bytes);
    }
  }

  ~Impl() {
    if (scheduler) scheduler->close();
  }

  static Options with_quota(Options options) {
    options.threads = obey_quota(options.threads);
    return options;
  }

  static Manifest read_checked(const fs::path &folder, const Options &options) {
    Manifest manifest = read_manifest(folder);
    if (options.verify) verify_artifacts(folder, manifest);
    return manifest;
  }

  // As if one after the other, but what takes time, reading, is done in parallel.
  void read_heads(const std::vector<fs::path> &paths) {
    std::vector<std::shared_ptr<const LaidOutHead>> read(paths.size());
    for_each_on_threads(std::min(threads, 8), paths.size(),
                        [&](size_t i) { read[i] = read_one(paths[i]); });
    for (size_t i = 0; i < paths.size(); ++i) add(paths[i], read[i], false);
  }

  std::shared_ptr<const LaidOutHead> read_one(const fs::path &path) const {
    const std::string what = "head " + path.string();
    FoldedHead head = read_head(path);
    check_spec(what, head.spec, manifest.spec);
    return encoder.head_runner() == nullptr ? lay_out(head, what)
                                            : keep_folded(std::move(head), what);
  }

  void add(const fs::path &path, const std::shared_ptr<const LaidOutHead> &head, bool replace) {
    const std::lock_guard<std::mutex> hold(heads_lock);
    if (!replace && heads.count(head->task) > 0) {
      fail(Status::head, "head ", path, ": task '", head->task,
           "' is loaded already. Remove it first, or pass replace.");
    }
    heads[head->task] = head;
  }

  Heads choose(const std::vector<std::string> &tasks) {
    const std::lock_guard<std::mutex> hold(heads_lock);
    Heads chosen;
    for (const std::string &task : tasks) {
      const auto found = heads.find(task);
      if (found == heads.end()) fail_unknown(task);
      if (std::find(chosen.begin(), chosen.end(), found->second) == chosen.end()) {
        chosen.push_back(found->second);
      }
    }
    if (tasks.empty()) {
      for (const auto &[task, head] : heads) chosen.push_back(head);
    }
    return chosen;
  }

  [[noreturn]] void fail_unknown(const std::string &task) const {
    std::string loaded;
    for (const auto &[name, head] : heads) loaded += (loaded.empty() ? "" : ", ") + name;
    fail(Status::unknown_task, "task '", task, "': no such head is loaded, expected one of ",
         loaded.empty() ? "none (no head is loaded)" : loaded,
         ". Add it with add_head, or train it with `bitheads train-head`.");
  }

  // *this; throws Error(forked) if it was loaded in another process.
  Impl &here() {
    process.check();
    return *this;
  }

  // Whether codes need not come back from the encoder.
  bool predicts_itself(const Heads &heads) const {
    return encoder.head_runner() != nullptr && !read_words(heads);
  }

  // Of heads that read a text, or both texts of a pair, as one.
  std::vector<Prediction> predict_joint(const std::vector<Text> &texts, const Heads &heads) {
    if (predicts_itself(heads)) return answers_of(heads, passes.encode_and_predict(texts, heads));
    return head_threads.predict(passes.encode(texts, read_words(heads), false), manifest.spec,
                                heads);
  }

  // Of heads of two texts; all texts are pairs.
  std::vector<Prediction> predict_two_texts(const std::vector<Text> &texts, const Heads &heads) {
    Tokenizer::check(texts);  // while they have the numbers that the caller knows
    const TextsApart apart = take_apart(texts);
    if (predicts_itself(heads)) {
      const Outputs vectors = passes.encode_and_predict(apart.texts, heads);
      return answers_of(heads, head_threads.run_pair_blocks(vectors, apart.pairs, heads));
    }
    const PackedFeatures features = passes.encode(apart.texts, false, false);
    return head_threads.predict_pairs(features, apart.pairs, manifest.spec, heads);
  }

  std::shared_ptr<Call> make_call() {
    auto call = std::make_shared<Call>();
    call->features.code_bytes = manifest.spec.code_bytes;
    call->features.spec_id = manifest.spec.id;
    call->scheduler = scheduler;
    return call;
  }

  // Whatever is wrong with a call's texts is found here, before they are in anyone's batch.
  void add(Call &call, std::vector<Tokens> tokens, const Heads &heads) const {
    encoder.check(tokens);
    call.add(std::move(tokens), heads);
  }

  std::shared_ptr<Call> encode_call(std::vector<Tokens> tokens, PackedFeatures known = {}) {
    auto call = make_call();
    call->features.num_truncated = known.num_truncated;
    call->features.is_pair = std::move(known.is_pair);
    call->features.words = std::move(known.words);
    call->features.embedding_dim = known.embedding_dim;
    call->keeps_codes = true;
    add(*call, std::move(tokens), {});
    call->prepare();
    return call;
  }

  std::shared_ptr<Call> encode_call(const std::vector<Text> &texts, bool words, bool embeddings) {
    PackedFeatures known;
    std::vector<Tokens> tokens = passes.tokenize(texts, words, known);
    if (embeddings) known.embedding_dim = manifest.embedding->dim;
    return encode_call(std::move(tokens), std::move(known));
  }

  PackedFeatures encode(const std::vector<Text> &texts, bool words, bool embeddings) {
    if (!scheduler) return passes.encode(texts, words, embeddings);
    const Scheduler::Visit here = visit();
    const auto call = encode_call(texts, words, embeddings);
    scheduler->run(call);
    return std::move(call->features);
  }

  void check_embeddings() const {
    if (manifest.embedding) return;
    fail(Status::invalid_input,
         "embeddings: this bundle gives none. Build it again with --embedding and a pooling, such "
         "as: bitheads build --embedding mean");
  }

  std::shared_ptr<Call> predict_call(const std::vector<Text> &texts,
                                     const std::vector<std::string> &tasks) {
    auto call = make_call();
    call->heads = choose_fitting(choose(tasks), forms_of(texts), !tasks.empty());
    const Heads two_texts = choose_of_two_texts(call->heads, false);
    const Heads joint = choose_of_codes(call->heads, false);
    PackedFeatures ignored;
    if (!two_texts.empty()) {
      Tokenizer::check(texts);  // while they have the numbers that the caller knows
      TextsApart apart = take_apart(texts);
      call->pairs = std::move(apart.pairs);
      add(*call, passes.tokenize(apart.texts, false, ignored), two_texts);
    }
    if (two_texts.empty() || !joint.empty()) {
      const bool words = read_words(joint);
      add(*call, passes.tokenize(texts, words, words ? call->features : ignored), joint);
    }
    call->prepare();
    return call;
  }

  // Queues a call that goes on by itself.
  template <class Answer>
  Pending<Answer> submit(const std::shared_ptr<Call> &call, const Done<Answer> &done) const {
    if (done) call->done = [done](const auto &ended) { done(Pending<Answer>(ended)); };
    scheduler->submit(call);
    return Pending<Answer>(call);
  }

  // To be kept while a call of these kinds is made.
  Scheduler::Visit visit() {
    if (!scheduler) {
      fail(Status::invalid_input,
           "engine: got a call that goes on by itself, but its callers share no batches. Load it "
           "with share_batches.");
    }
    return Scheduler::Visit(*scheduler);
  }

  OwnProcess process;
  Options options;  // with as few threads as a quota gives
  ov::Core &core = the_core();
  Manifest manifest;
  OpenedEncoder opened;
  Encoder &encoder;
  TextPasses passes;
  int threads;
  HeadThreads head_threads;
  std::mutex heads_lock;
  HeadMap heads;
  std::shared_ptr<Scheduler> scheduler;  // null: each call makes batches of its own
};

// In a forked child, destroying the engine could wait for threads that the child does not have: it
// is left until the child ends, as is all memory that the child shares with its parent.
void Engine::Free::operator()(Impl *impl) const {
  if (impl->process.is_this()) delete impl;
}

Engine::Engine(std::unique_ptr<Impl, Free> impl) : impl_(std::move(impl)) {}
Engine::Engine(Engine &&) noexcept = default;
Engine &Engine::operator=(Engine &&) noexcept = default;
Engine::~Engine() = default;

Engine Engine::load(const std::string &folder, const Options &options) {
  return Engine(std::unique_ptr<Impl, Free>(new Impl(folder, options)));
}

const std::string &Engine::spec_id() const {
  return impl_->manifest.spec.id;
}

const std::string &Engine::backend() const {
  return impl_->encoder.name();
}

const std::string &Engine::why_not_gpu() const {
  return impl_->opened.why_not_gpu;
}

int64_t Engine::code_bytes() const {
  return impl_->manifest.spec.code_bytes;
}

Statistics Engine::statistics() const {
  Impl &impl = impl_->here();
  return impl.scheduler ? impl.scheduler->statistics() : Statistics{};
}

std::vector<TaskInfo> Engine::tasks() const {
  std::vector<TaskInfo> tasks;
  for (const auto &head : impl_->here().choose({})) {
    tasks.push_back({head->task, head->labels, reads_pairs(head->form), head->bytes(),
                     head->kind->name, head->decision.can_refuse(), name_of(head->form)});
  }
  return tasks;
}

std::string Engine::add_head(const std::string &path, bool replace) {
  const auto head = impl_->here().read_one(path);
  impl_->add(path, head, replace);
  return head->task;
}

void Engine::remove_head(const std::string &task) {
  const std::lock_guard<std::mutex> hold(impl_->here().heads_lock);
  if (impl_->heads.erase(task) == 0) impl_->fail_unknown(task);
}

PackedFeatures Engine::encode(const std::vector<Text> &texts, bool words) const {
  return impl_->here().encode(texts, words, false);
}

PackedFeatures Engine::encode_with_embeddings(const std::vector<Text> &texts, bool words) const {
  impl_->here().check_embeddings();
  return impl_->encode(texts, words, true);
}

Embeddings Engine::embed(const std::vector<Text> &texts, const EmbedOptions &options) const {
  impl_->here().check_embeddings();
  check_asked(options, embedding_dim());
  const std::string prompt = impl_->manifest.embedding->prompt(options);
  if (prompt.empty()) return finish(impl_->encode(texts, false, true), options);
  std::vector<Text> prompted = texts;
  for (Text &text : prompted) text.first = prompt + text.first;
  return finish(impl_->encode(prompted, false, true), options);
}

int64_t Engine::embedding_dim() const {
  return impl_->manifest.embedding ? impl_->manifest.embedding->dim : 0;
}

PackedFeatures Engine::encode_tokens(const std::vector<Tokens> &texts) const {
  Impl &impl = impl_->here();
  if (!impl.scheduler) return impl.encoder.encode(texts, false);
  const Scheduler::Visit visit = impl.visit();
  const auto call = impl.encode_call(texts);
  impl.scheduler->run(call);
  return std::move(call->features);
}

std::vector<Prediction> Engine::predict(const std::vector<Text> &texts,
                                        const std::vector<std::string> &tasks) const {
  Impl &impl = impl_->here();
  if (impl.scheduler) {
    const Scheduler::Visit visit = impl.visit();
    const auto call = impl.predict_call(texts, tasks);
    impl.scheduler->run(call);
    return call->predictions();
  }
  const Heads chosen = impl.choose(tasks);  // first, so that a wrong task costs no pass
  const Heads heads = choose_fitting(chosen, forms_of(texts), !tasks.empty());
  const Heads two_texts = choose_of_two_texts(heads, false);
  if (two_texts.empty()) return impl.predict_joint(texts, heads);
  const Heads joint = choose_of_codes(heads, false);
  std::vector<Prediction> of_two_texts = impl.predict_two_texts(texts, two_texts);
  if (joint.empty()) return of_two_texts;
  std::vector<Prediction> of_joint = impl.predict_joint(texts, joint);
  auto next_of_two_texts = of_two_texts.begin();
  auto next_of_joint = of_joint.begin();
  std::vector<Prediction> answers;
  for (const auto &head : heads) {
    const bool is_of_two = head->form == Form::two_texts;
    answers.push_back(std::move(is_of_two ? *next_of_two_texts++ : *next_of_joint++));
  }
  return answers;
}

Pending<PackedFeatures> Engine::encode_later(const std::vector<Text> &texts, bool words,
                                             const Done<PackedFeatures> &done) const {
  Impl &impl = impl_->here();
  const Scheduler::Visit visit = impl.visit();
  return impl.submit(impl.encode_call(texts, words, false), done);
}

Pending<PackedFeatures> Engine::encode_tokens_later(const std::vector<Tokens> &texts,
                                                    const Done<PackedFeatures> &done) const {
  Impl &impl = impl_->here();
  const Scheduler::Visit visit = impl.visit();
  return impl.submit(impl.encode_call(texts), done);
}

Pending<std::vector<Prediction>> Engine::predict_later(
    const std::vector<Text> &texts, const std::vector<std::string> &tasks,
    const Done<std::vector<Prediction>> &done) const {
  Impl &impl = impl_->here();
  const Scheduler::Visit visit = impl.visit();
  return impl.submit(impl.predict_call(texts, tasks), done);
}

std::vector<Prediction> Engine::predict_features(const PackedFeatures &features,
                                                 const std::vector<std::string> &tasks) const {
  const Heads chosen = choose_of_codes(impl_->here().choose(tasks), !tasks.empty());
  const FeatureSpec &spec = impl_->manifest.spec;
  check_features(features, spec);
  Heads heads = choose_fitting(chosen, features.is_pair, !tasks.empty());
  if (!features.words && tasks.empty()) {
    heads.erase(std::remove_if(heads.begin(), heads.end(),
                               [](const auto &head) { return head->kind->is_of_words(); }),
                heads.end());
  }
  return impl_->head_threads.predict(features, spec, heads);
}

std::vector<Prediction> Engine::predict_pairs(const PackedFeatures &features,
                                              const std::vector<RowPair> &pairs,
                                              const std::vector<std::string> &tasks) const {
  const Heads heads = choose_of_two_texts(impl_->here().choose(tasks), !tasks.empty());
  const FeatureSpec &spec = impl_->manifest.spec;
  check_features(features, spec);
  check_pairs(features, pairs);
  return impl_->head_threads.predict_pairs(features, pairs, spec, heads);
}

}  // namespace bitheads
