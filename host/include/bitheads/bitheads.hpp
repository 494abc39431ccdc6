// bitheads for C++: a bundle, texts or token ids in, codes and predictions out. docs/cpp.md.
//
// Every function throws bitheads::Error and nothing else of ours. An Engine may be used from any
// number of threads at a time. The library and its user must be built with one C++ standard
// library, as always in C++; bitheads.h is the same for everybody else.
#ifndef BITHEADS_BITHEADS_HPP
#define BITHEADS_BITHEADS_HPP

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#define BITHEADS_API __attribute__((visibility("default")))

namespace bitheads {

// What kind of error it is; the numbers are those of bitheads_status in bitheads.h.
enum class Status {
  ok = 0,
  invalid_input = 1,  // a text, token ids, features or an option cannot be used as they are
  bundle = 2,         // a bundle is missing, incomplete, edited or of another format version
  head = 3,           // a head file is missing, malformed, edited, or its task name is taken
  spec_mismatch = 4,  // features or a head belong to another feature spec
  unknown_task = 5,   // no loaded head answers this task
  backend = 6,        // OpenVINO or its tokenizers refused what they were given
  internal = 7,       // no memory, or a mistake in bitheads
  forked = 8,         // the engine was loaded in another process, of which this one is a fork
};

// what() says what, got, expected and the fix.
class BITHEADS_API Error : public std::runtime_error {
 public:
  Error(Status status, const std::string &message) : std::runtime_error(message), status_(status) {}
  Status status() const noexcept { return status_; }

 private:
  Status status_;
};

// What a task reads, in UTF-8: one text, or a pair joined as the encoder's tokenizer joins pairs. A
// bundle's prefix is put before it here; it is no part of what a caller passes.
struct Text {
  Text(std::string text) : first(std::move(text)) {}
  Text(const char *text) : first(text) {}
  Text(std::string text, std::string other)
      : first(std::move(text)), second(std::move(other)), is_pair(true) {}

  std::string first;
  std::string second;
  bool is_pair = false;
};

// A text's token ids, with the tokenizer's own ([CLS], [SEP]) in their places, and of the bundle's
// prefix, if it has one.
struct Tokens {
  // NOLINTNEXTLINE(readability-identifier-naming): programs have this name.
  static constexpr std::size_t all = static_cast<std::size_t>(-1);

  std::vector<std::int32_t> ids;
  std::size_t num_first = all;  // tokens with type id 0; those of a pair's second text have 1
};

// Codes of the real tokens of some texts, ragged: no padding is stored.
struct PackedFeatures {
  std::vector<std::uint8_t> codes;       // [tokens, code_bytes]
  std::vector<std::int64_t> offsets{0};  // [texts + 1]: text i owns tokens offsets[i] and on
  std::int64_t code_bytes = 0;
  std::string spec_id;             // of the feature spec that says what the codes mean
  std::int64_t num_truncated = 0;  // texts of which tokens were dropped
  std::vector<bool> is_pair;       // [texts], or empty: not known, as of token ids

  std::size_t size() const { return offsets.size() - 1; }
};

// What turns a head's logits into an answer, beside its weights; which of these a kind wants is for
// the kind to say. Compared as float with logits that are the same bits in every host.
struct Decision {
  std::vector<float> thresholds = {};  // multi_label: of each label, the logit from which on it is
  std::vector<float> cuts = {};        // ordinal: between one label and the next, rising
  std::optional<std::pair<float, float>> value_range = {};  // regression: least, largest value
  std::optional<float> abstain_below = {};  // single_label, ordinal: least accepted probability
  std::optional<float> reject_above = {};   // any kind: largest accepted reject score
  float reject_scale = 1;  // the sigmoid of so many times the score is how likely it is

  // Whether an answer may be one that is not accepted.
  bool can_refuse() const { return abstain_below.has_value() || reject_above.has_value(); }
};

// One task's answers for some texts. Those of a text throw std::out_of_range where it is not there.
struct BITHEADS_API Prediction {
  std::string task;
  std::vector<std::string> labels;    // none of a regression
  std::vector<float> logits;          // [texts, num_logits()]
  std::string kind = "single_label";  // or "multi_label", "ordinal", "regression"
  Decision decision = {};
  // Of the reject output, [texts], or empty: the head has none. A text's reject score is that
  // logit, and of a single_label head how far it is above the largest of the text's others.
  std::vector<float> reject_logits = {};

  // As many as labels; 1 of an ordinal and of a regression.
  std::size_t num_logits() const;
  std::size_t size() const;
  // Of each label, [texts, labels]. They sum to 1 but for multi_label, and suppose that the text is
  // the task's business.
  std::vector<float> probabilities() const;
  // Index of the label that is a text's answer; nothing for a kind that does not give one label.
  std::optional<std::size_t> best(std::size_t text) const;
  // That label. Throws Error(invalid_input) for a kind that does not give one label.
  const std::string &top(std::size_t text) const;
  // The labels that a text has, in the order of the labels.
  std::vector<std::string> selected(std::size_t text) const;
  // The number that is the answer, or of an ordinal the mean of its labels; nothing for a kind that
  // gives none.
  std::optional<float> value(std::size_t text) const;
  // How likely it is that a text is none of the head's business; nothing for a head that has no
  // reject output.
  std::optional<float> out_of_domain(std::size_t text) const;
  // Whether the head stands by its answer: always, if it was not trained to refuse.
  bool accepted(std::size_t text) const;
};

struct TaskInfo {
  std::string task;
  std::vector<std::string> labels;
  bool is_pair = false;   // whether the head reads pairs
  std::size_t bytes = 0;  // of memory that its weights take
  std::string kind = "single_label";
  bool can_refuse = false;  // whether an answer may be one that is not accepted
};

struct Options {
  // "auto": the fastest floating-point type of the processor; "fp32", "bf16"; or "int8", which
  // only bundles built with --precision int8 have.
  std::string precision = "auto";
  // Threads of the encoder, the tokenizer and the heads; 0: all cores that the process may run on,
  // or as many as the processor quota of its control group (of a container) comes to.
  int threads = 0;
  bool verify = true;  // compare every file with its hash first; 0.1 s per 100 MB
  // Bound on an encoder call's tokens, padding included.
  std::int64_t max_batch_tokens = 1024;
  // libopenvino_tokenizers.so; empty: BITHEADS_TOKENIZERS_LIBRARY of the environment, or what the
  // library was configured with. Not needed where only token ids come in.
  std::string tokenizers_library;
};

// One frozen encoder and any number of task heads.
//
// It belongs to the process that loaded it: in a forked child every call that works is an Error,
// and the child loads an engine of its own.
class BITHEADS_API Engine {
 public:
  // Loads a bundle's folder and the heads in it.
  static Engine load(const std::string &folder, const Options &options = {});

  Engine(Engine &&) noexcept;
  Engine &operator=(Engine &&) noexcept;
  ~Engine();

  // 16 hexadecimal digits: codes of one id can be used in each other's place.
  const std::string &spec_id() const;
  // Backend and precision, such as "openvino bf16".
  const std::string &backend() const;
  std::int64_t code_bytes() const;
  // The loaded heads, a snapshot.
  std::vector<TaskInfo> tasks() const;

  // Loads a head file and returns its task. Heads may come and go at any time: a call answers with
  // those there were when it began.
  std::string add_head(const std::string &path, bool replace = false);
  void remove_head(const std::string &task);

  // One encoder pass: the codes of every real token, in the order of the texts. Texts over the
  // encoder's maximum length are cut, pairs longest text first.
  PackedFeatures encode(const std::vector<Text> &texts) const;
  PackedFeatures encode_tokens(const std::vector<Tokens> &texts) const;

  // Every task's answers, from one encoder pass. A head answers texts of the form that it was made
  // for. No tasks named: all that were made for texts of this form answer. Single texts and pairs
  // in one call are an Error(invalid_input), and so is a task of the other form.
  std::vector<Prediction> predict(const std::vector<Text> &texts,
                                  const std::vector<std::string> &tasks = {}) const;
  // From codes alone: no encoder runs. Where the texts' forms are not known every head answers.
  std::vector<Prediction> predict_features(const PackedFeatures &features,
                                           const std::vector<std::string> &tasks = {}) const;

 private:
  struct Impl;
  struct Free {
    void operator()(Impl *impl) const;
  };
  explicit Engine(std::unique_ptr<Impl, Free> impl);
  std::unique_ptr<Impl, Free> impl_;
};

}  // namespace bitheads

#endif
