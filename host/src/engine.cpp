#include <algorithm>
#include <cstdlib>
#include <map>
#include <mutex>
#include <openvino/openvino.hpp>
#include <set>

#include "bundle.h"
#include "cores.h"
#include "encoder.h"
#include "error.h"
#include "forms.h"
#include "head_file.h"
#include "heads.h"
#include "parallel.h"
#include "process.h"
#include "tokenizer.h"

namespace bitheads {
namespace {

using HeadMap = std::map<std::string, std::shared_ptr<const LaidOutHead>>;

std::string find_tokenizers_library(const Options &options) {
  if (!options.tokenizers_library.empty()) return options.tokenizers_library;
  const char *named = std::getenv("BITHEADS_TOKENIZERS_LIBRARY");
  return named != nullptr && *named != '\0' ? named : BITHEADS_DEFAULT_TOKENIZERS_LIBRARY;
}

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

// Adds each library once: the core keeps a library as often as it is given it.
void add_operations(ov::Core &core, const std::string &library) {
  static std::mutex lock;
  static auto *const added = new std::set<std::string>;
  const std::lock_guard<std::mutex> hold(lock);
  if (added->count(library) == 0) {
    core.add_extension(library);
    added->insert(library);
  }
}

std::vector<bool> forms_of(const std::vector<Text> &texts) {
  std::vector<bool> is_pair;
  for (const Text &text : texts) is_pair.push_back(text.is_pair);
  return is_pair;
}

}  // namespace

struct Engine::Impl {
  Impl(const fs::path &folder, const Options &given)
      : options(with_quota(given)),
        manifest(read_checked(folder, options)),
        encoder(core, folder, manifest, options),
        threads(options.threads > 0 ? options.threads : count_cores()),
        head_threads(threads) {
    open_tokenizer(folder);
    read_heads(find_heads(folder));
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

  // A missing tokenizer is an error only when texts come in: token ids need none.
  void open_tokenizer(const fs::path &folder) {
    if (!Tokenizer::is_in(folder)) {
      no_tokenizer = "bundle " + folder.string() +
                     ": no tokenizer for this library in it. Make it once: bitheads "
                     "host-tokenizer --bundle " +
                     folder.string();
      return;
    }
    const std::string library = find_tokenizers_library(options);
    try {
      add_operations(core, library);
    } catch (const std::exception &error) {
      no_tokenizer = "tokenizer: " + library + " cannot be loaded (" + error.what() +
                     "). Set BITHEADS_TOKENIZERS_LIBRARY to libopenvino_tokenizers.so of the "
                     "package openvino-tokenizers.";
      return;
    }
    tokenizer =
        std::make_unique<Tokenizer>(core, folder, manifest, options.verify, options.threads);
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
    const FoldedHead head = read_head(path);
    check_spec(what, head.spec, manifest.spec);
    return lay_out(head, what);
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

  PackedFeatures encode(const std::vector<Text> &texts) {
    if (!tokenizer) fail(Status::backend, no_tokenizer);
    std::vector<Tokens> tokens;
    int64_t num_truncated = 0;
    for (CutTokens &text : (*tokenizer)(texts)) {
      num_truncated += text.truncated ? 1 : 0;
      tokens.push_back(std::move(text.tokens));
    }
    PackedFeatures features = encoder.encode(tokens);
    features.num_truncated = num_truncated;
    features.is_pair = forms_of(texts);
    return features;
  }

  OwnProcess process;
  Options options;  // with as few threads as a quota gives
  ov::Core &core = the_core();
  Manifest manifest;
  Encoder encoder;
  std::unique_ptr<Tokenizer> tokenizer;
  std::string no_tokenizer;  // why there is no tokenizer
  int threads;
  HeadThreads head_threads;
  std::mutex heads_lock;
  HeadMap heads;
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

int64_t Engine::code_bytes() const {
  return impl_->manifest.spec.code_bytes;
}

std::vector<TaskInfo> Engine::tasks() const {
  std::vector<TaskInfo> tasks;
  for (const auto &head : impl_->here().choose({})) {
    tasks.push_back({head->task, head->labels, head->is_pair,
                     static_cast<size_t>(head->block.size()), head->kind->name,
                     head->decision.can_refuse()});
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

PackedFeatures Engine::encode(const std::vector<Text> &texts) const {
  return impl_->here().encode(texts);
}

PackedFeatures Engine::encode_tokens(const std::vector<Tokens> &texts) const {
  return impl_->here().encoder.encode(texts);
}

std::vector<Prediction> Engine::predict(const std::vector<Text> &texts,
                                        const std::vector<std::string> &tasks) const {
  const Heads chosen = impl_->here().choose(tasks);  // first, so that a wrong task costs no pass
  const Heads heads = choose_fitting(chosen, forms_of(texts), !tasks.empty());
  const PackedFeatures features = impl_->encode(texts);
  return impl_->head_threads.predict(features, impl_->manifest.spec, heads);
}

std::vector<Prediction> Engine::predict_features(const PackedFeatures &features,
                                                 const std::vector<std::string> &tasks) const {
  const Heads chosen = impl_->here().choose(tasks);
  const FeatureSpec &spec = impl_->manifest.spec;
  if (features.spec_id != spec.id) {
    fail(Status::spec_mismatch, "features: got feature spec ", features.spec_id, ", expected ",
         spec.shown(), ". Encode the texts with the bundle at hand.");
  }
  int64_t end = 0;
  bool is_rising = !features.offsets.empty() && features.offsets[0] == 0;
  for (const int64_t offset : features.offsets) {
    is_rising = is_rising && offset >= end;
    end = offset;
  }
  if (!is_rising || features.code_bytes != spec.code_bytes ||
      end > static_cast<int64_t>(features.codes.size()) / spec.code_bytes ||
      static_cast<size_t>(end * spec.code_bytes) != features.codes.size()) {
    fail(Status::invalid_input, "features: got ", features.codes.size(), " bytes of codes of ",
         features.code_bytes,
         " bytes, expected offsets that rise from 0 to the number of codes, of ", spec.code_bytes,
         " bytes each.");
  }
  if (!features.is_pair.empty() && features.is_pair.size() != features.size()) {
    fail(Status::invalid_input, "features: got the forms of ", features.is_pair.size(),
         " texts, expected those of ", features.size(), ", or none.");
  }
  const Heads heads = choose_fitting(chosen, features.is_pair, !tasks.empty());
  return impl_->head_threads.predict(features, spec, heads);
}

}  // namespace bitheads
