// bitheads for C++: a bundle, texts or token ids in, codes and predictions out. docs/cpp.md.
//
// Every function throws bitheads::Error and nothing else of ours. An Engine may be used from any
// number of threads at a time. The library and its user must be built with one C++ standard
// library, as always in C++; bitheads.h is the same for everybody else.
#ifndef BITHEADS_BITHEADS_HPP
#define BITHEADS_BITHEADS_HPP

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
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
  invalid_input = 1,   // a text, token ids, features or an option cannot be used as they are
  bundle = 2,          // a bundle is missing, incomplete, edited or of another format version
  head = 3,            // a head file is missing, malformed, edited, or its task name is taken
  spec_mismatch = 4,   // features or a head belong to another feature spec
  unknown_task = 5,    // no loaded head answers this task
  backend = 6,         // OpenVINO, its tokenizers or a GPU refused what they were given
  internal = 7,        // no memory, or a mistake in bitheads
  forked = 8,          // the engine was loaded in another process, of which this one is a fork
  queue_full = 9,      // too much waits for the encoder already
  cancelled = 10,      // the caller cancelled the call
  closed = 11,         // the engine was destroyed before the call had ended
  device_memory = 12,  // the GPU has no memory left; a smaller call may succeed
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

// A word of a text, which heads of the kind token_label answer.
struct Word {
  std::int32_t token = 0;       // its first among the text's, the tokenizer's own counted
  std::int32_t num_tokens = 0;  // one after the other
  std::int32_t start = 0;       // where it is in the text, in Unicode code points
  std::int32_t end = 0;
  std::int32_t start_byte = 0;  // and in bytes of UTF-8
  std::int32_t end_byte = 0;
};

// The words of some texts that have a token, ragged, as far as a text was read; pairs have none.
struct Words {
  std::vector<Word> table;               // [words]
  std::vector<std::int64_t> offsets{0};  // [texts + 1]: text i owns words offsets[i] and on
  // [texts]: the code point, and the byte, from which on a text was not read; -1: it was read
  // whole.
  std::vector<std::int64_t> truncated_at;
  std::vector<std::int64_t> truncated_at_byte;
};

// Codes of the real tokens of some texts, ragged: no padding is stored.
struct BITHEADS_API PackedFeatures {
  std::vector<std::uint8_t> codes;       // [tokens, code_bytes]
  std::vector<std::int64_t> offsets{0};  // [texts + 1]: text i owns tokens offsets[i] and on
  std::int64_t code_bytes = 0;
  std::string spec_id;                 // of the feature spec that says what the codes mean
  std::int64_t num_truncated = 0;      // texts of which tokens were dropped
  std::vector<bool> is_pair;           // [texts], or empty: not known, as of token ids
  std::shared_ptr<const Words> words;  // of the texts; null: `encode` was not asked for them
  // [texts, embedding_dim], as the checkpoint makes them, of encode_with_embeddings; else empty.
  std::vector<float> embeddings;
  std::int64_t embedding_dim = 0;

  std::size_t size() const { return offsets.size() - 1; }
};

// What of embeddings is asked for.
struct EmbedOptions {
  std::int64_t dim = 0;    // the first so many numbers; 0: all
  bool normalize = false;  // to a length of 1, after that; many checkpoints do so anyway
  // Put before each text: this, or a prompt of the checkpoint by its name; neither: its default
  // one, if it has any.
  std::optional<std::string> prompt;
  std::string prompt_name;
};

// One float vector per text.
struct Embeddings {
  std::vector<float> values;  // [texts, dim]
  std::int64_t dim = 0;
};

// A pair of texts that were encoded each by itself: two rows of the features, the same even.
struct RowPair {
  std::int64_t first = 0;
  std::int64_t second = 0;
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

// A part of a text, and what it is: text.substr(start_byte, end_byte - start_byte).
struct Span {
  std::size_t start = 0;  // in Unicode code points, as Python counts
  std::size_t end = 0;
  std::size_t start_byte = 0;  // in bytes of UTF-8
  std::size_t end_byte = 0;
  std::size_t label = 0;  // index of its label
  float probability = 0;
};

// One task's answers for some texts. Those of a text throw std::out_of_range where it is not there.
struct BITHEADS_API Prediction {
  std::string task;
  std::vector<std::string> labels;    // none of a regression
  std::vector<float> logits;          // [texts, num_logits()]; of a token_label [words, ...]
  std::string kind = "single_label";  // or "multi_label", "ordinal", "regression", "token_label"
  Decision decision = {};
  // Of the reject output, [texts], or empty: the head has none. A text's reject score is that
  // logit, and of a single_label head how far it is above the largest of the text's others.
  std::vector<float> reject_logits = {};
  std::shared_ptr<const Words> words = {};  // of a token_label, of which the logits are

  // As many as labels; 1 of an ordinal and of a regression; of a token_label 1 + 2 * labels.
  std::size_t num_logits() const;
  // Number of texts.
  std::size_t size() const;
  // Of each label, [texts, labels]. They sum to 1 but for multi_label, and suppose that the text is
  // the task's business. Of a token_label those of each word to be of a span, [words, labels].
  std::vector<float> probabilities() const;
  // Index of the label that is a text's answer; nothing for a kind that does not give one label.
  std::optional<std::size_t> best(std::size_t text) const;
  // That label. Throws Error(invalid_input) for a kind that does not give one label.
  const std::string &top(std::size_t text) const;
  // The labels that a text has, in the order of the labels; of a token_label those of its spans.
  std::vector<std::string> selected(std::size_t text) const;
  // The number that is the answer, or of an ordinal the mean of its labels; nothing for a kind that
  // gives none.
  std::optional<float> value(std::size_t text) const;
  // How likely it is that a text is none of the head's business; nothing for a head that has no
  // reject output.
  std::optional<float> out_of_domain(std::size_t text) const;
  // Whether the head stands by its answer: always, if it was not trained to refuse.
  bool accepted(std::size_t text) const;
  // The spans of a text, in order; none of other kinds than token_label.
  std::vector<Span> spans(std::size_t text) const;
  // The code point, and the byte, from which on a text was not looked for spans; nothing where all
  // of it was, and of other kinds than token_label.
  std::optional<std::size_t> truncated_at(std::size_t text) const;
  std::optional<std::size_t> truncated_at_byte(std::size_t text) const;
};

struct TaskInfo {
  std::string task;
  std::vector<std::string> labels;
  bool is_pair = false;   // whether the head reads pairs, of either form
  std::size_t bytes = 0;  // of memory that its weights take
  std::string kind = "single_label";
  bool can_refuse = false;  // whether an answer may be one that is not accepted
  // "single"; of pairs "pair" if the encoder reads both texts as one, "two_texts" if it reads each
  // by itself.
  std::string form = "single";
};

struct Options {
  // "auto": the fastest floating-point type of the processor; "fp32", "bf16"; or "int8_dynamic" or
  // "int8", which only bundles built with that --precision have. On a GPU the graph's own type,
  // "fp16" or "fp32".
  std::string precision = "auto";
  // Threads of the encoder, the tokenizer and the heads; 0: all cores that the process may run on,
  // or as many as the processor quota of its control group (of a container) comes to.
  int threads = 0;
  bool verify = true;  // compare every file with its hash first; 0.1 s per 100 MB
  // Bound on an encoder call's tokens, padding included; 0: 1,024, and 16,384 on a GPU.
  std::int64_t max_batch_tokens = 0;
  // libopenvino_tokenizers.so; empty: BITHEADS_TOKENIZERS_LIBRARY of the environment, or what the
  // library was configured with. Not needed where only token ids come in.
  std::string tokenizers_library;
  // Whether the texts of all calls, of whatever threads, wait in one queue and share encoder
  // batches: what many callers want who ask few texts each. Nothing waits for a batch to fill.
  bool share_batches = false;
  // With share_batches: tokens that a call waits for at most, its own included. Past that it is an
  // Error(queue_full); a call of more is taken if nothing else is there.
  std::int64_t max_queue_tokens = 65536;
  // What runs the encoder: "openvino", on the processor; that of a plugin for a GPU, such as
  // "tensorrt", "tensorrt-rtx", "onnxruntime-tensorrt" or "onnxruntime-cuda"; or "auto": the first
  // of these that works, or else "openvino". docs/cpp.md, On a GPU.
  std::string backend = "openvino";
  int device = 0;           // which GPU
  std::string plugins;      // the folder of the plugins; empty: that of this library
  std::string device_code;  // bitheads.fatbin; empty: the one beside this library
  // With precision "auto", in place of floating point: the share of signs, over 0 and up to 1, that
  // an encoder on the processor must have kept when the bundle was built, such as 0.99. The fastest
  // precision that did is taken, int8 too; each is timed while the engine loads.
  std::optional<double> min_sign_agreement;
  // With share_batches: bytes of memory for the codes, and embeddings, of texts that were encoded,
  // for when one comes again, whatever heads are asked then. 0: none are kept.
  std::int64_t cache_bytes = 0;
};

// Texts that calls of an engine with share_batches asked for, since it was loaded; of others all
// are 0. What the cache has is a hit, and the other two are misses.
struct Statistics {
  std::uint64_t encoded_texts = 0;
  std::uint64_t joined_texts = 0;  // answered with an equal one that waited or ran
  std::uint64_t cached_texts = 0;  // answered from the cache
  std::uint64_t cache_texts = 0;   // that are in the cache now
  std::int64_t cache_bytes = 0;    // of memory that it takes now
};

class Call;

// The answer to a call that goes on by itself, of an engine with share_batches: `Answer` is
// PackedFeatures or std::vector<Prediction>. Copies are of the same call. It may outlive the
// engine, and be used from any number of threads.
template <class Answer>
class BITHEADS_API Pending {
 public:
  // Whether the call has ended: with an answer, with an error, or because it was cancelled.
  bool is_done() const { return wait_for(std::chrono::nanoseconds(0)); }
  // The same; waits so long for it.
  bool wait_for(std::chrono::nanoseconds time) const;
  // Waits for the answer. Throws what the call ended with.
  Answer get() const;
  // Ends the call with Error(cancelled) and takes its texts out of the queue; nothing if it has
  // ended.
  void cancel() const;

 private:
  friend class Engine;
  explicit Pending(std::shared_ptr<Call> call) : call_(std::move(call)) {}
  std::shared_ptr<Call> call_;
};

// Called once, when the call has ended, from a thread of the engine or from that which ended it,
// maybe before the function that began it has returned, or after others had the answer: it is to
// keep what it uses. `get` does not wait then. It is to be quick, batches wait for it, and not to
// destroy the engine. What it throws is dropped.
template <class Answer>
using Done = std::function<void(const Pending<Answer> &)>;

// One frozen encoder and any number of task heads.
//
// It belongs to the process that loaded it: in a forked child every call that works is an Error,
// and the child loads an engine of its own. One with share_batches may be destroyed while calls
// wait or run: they end with Error(closed). Otherwise, and for calls that begin then, it is the
// caller's to wait.
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
  // Where the backend "auto" took the processor: what each backend for a GPU failed with; else
  // empty.
  const std::string &why_not_gpu() const;
  std::int64_t code_bytes() const;
  Statistics statistics() const;
  // The loaded heads, a snapshot.
  std::vector<TaskInfo> tasks() const;

  // Loads a head file and returns its task. Heads may come and go at any time: a call answers with
  // those there were when it began.
  std::string add_head(const std::string &path, bool replace = false);
  void remove_head(const std::string &task);

  // One encoder pass: the codes of every real token, in the order of the texts. Texts over the
  // encoder's maximum length are cut, pairs longest text first. With `words` the features know
  // which tokens are those of which words, as heads of the kind token_label want; it takes longer.
  PackedFeatures encode(const std::vector<Text> &texts, bool words = false) const;
  PackedFeatures encode_tokens(const std::vector<Tokens> &texts) const;
  // The same pass, and each text's embedding beside its codes; no prompt is put before the texts.
  // Throws Error(invalid_input) for a bundle without embeddings.
  PackedFeatures encode_with_embeddings(const std::vector<Text> &texts, bool words = false) const;
  // The embeddings alone, as sentence-transformers gives them of the checkpoint. Throws the same.
  Embeddings embed(const std::vector<Text> &texts, const EmbedOptions &options = {}) const;
  // Numbers of an embedding; 0: the bundle gives none.
  std::int64_t embedding_dim() const;

  // Every task's answers, from one encoder pass. A head answers texts of the form that it was made
  // for. No tasks named: all that were made for texts of this form answer. Single texts and pairs
  // in one call are an Error(invalid_input), and so is a task of the other form. For tasks of the
  // form two_texts each different text is encoded once, by itself; pairs are encoded as such only
  // if there are tasks of the form pair.
  std::vector<Prediction> predict(const std::vector<Text> &texts,
                                  const std::vector<std::string> &tasks = {}) const;
  // From codes alone: no encoder runs. Where the texts' forms are not known every head answers, but
  // for those of the form two_texts, of which one that is named is an Error(invalid_input).
  // Heads of the kind token_label want features with words: of others, one that is named is an
  // Error(invalid_input), and one that is not does not answer.
  std::vector<Prediction> predict_features(const PackedFeatures &features,
                                           const std::vector<std::string> &tasks = {}) const;
  // The answers of tasks of the form two_texts to pairs of single texts, from their codes: to n
  // candidates for text 0, say, the pairs {0, 1}, {0, 2} and so on. The same as `predict` gives of
  // these texts. A task of another form is an Error(invalid_input), and so is a row that is not
  // there or is itself of a pair.
  std::vector<Prediction> predict_pairs(const PackedFeatures &features,
                                        const std::vector<RowPair> &pairs,
                                        const std::vector<std::string> &tasks = {}) const;

  // As `encode`, `encode_tokens` and `predict`, but they return when the texts are tokenized and in
  // the queue. Want an engine with share_batches. Throw what is wrong with the texts or tasks,
  // Error(queue_full).
  Pending<PackedFeatures> encode_later(const std::vector<Text> &texts, bool words = false,
                                       const Done<PackedFeatures> &done = {}) const;
  Pending<PackedFeatures> encode_tokens_later(const std::vector<Tokens> &texts,
                                              const Done<PackedFeatures> &done = {}) const;
  Pending<std::vector<Prediction>> predict_later(
      const std::vector<Text> &texts, const std::vector<std::string> &tasks = {},
      const Done<std::vector<Prediction>> &done = {}) const;

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
