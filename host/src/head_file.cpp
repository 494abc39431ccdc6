#include "head_file.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <stdexcept>

#include "decision.h"
#include "error.h"
#include "safetensors.h"

namespace bitheads {
namespace {

constexpr int kFormatVersions = 3;   // 1 to this
constexpr int kOfTwoTexts = 3;       // the version of heads of that form, and of no others
constexpr size_t kMaxSize = 65'536;  // what the kernels' fixed-point numbers have room for
constexpr std::pair<const char *, Form> kForms[] = {
    {"single", Form::single}, {"pair", Form::pair}, {"two_texts", Form::two_texts}};

using Shape = std::vector<int64_t>;

// Python's repr of a tuple of whole numbers: the hash is of that text.
std::string python_tuple(const Shape &shape) {
  std::string text = "(";
  for (size_t i = 0; i < shape.size(); ++i) text += (i > 0 ? ", " : "") + std::to_string(shape[i]);
  return text + (shape.size() == 1 ? ",)" : ")");
}

std::string hash_of(const Json &meta, const SafeTensors &file) {
  Sha256 digest;
  digest.update(python_json(meta) + "\n");
  for (const auto &[name, tensor] : file.tensors()) {  // in the order of their names
    const char *dtype = tensor.dtype == "F32" ? "<f4" : "<f2";
    digest.update(name + " " + dtype + " " + python_tuple(tensor.shape) + "\n");
    digest.update(file.data(tensor));
  }
  return digest.finish();
}

bool is_task_name(const std::string &task) {
  bool is_name = !task.empty() && task.size() <= 100;
  for (size_t i = 0; i < task.size(); ++i) {
    const char c = task[i];
    const bool is_alphanumeric =
        (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    is_name = is_name && (is_alphanumeric || (i > 0 && (c == '_' || c == '.' || c == '-')));
  }
  return is_name;
}

// Takes the tensor out of the file, once its shape is the expected one.
std::vector<float> read_weights(const SafeTensors &file, const std::string &name,
                                const Shape &expected) {
  const auto found = file.tensors().find(name);
  if (found == file.tensors().end()) throw std::invalid_argument("has no " + name);
  if (found->second.shape != expected) {
    throw std::invalid_argument("its " + name + " has the shape " +
                                python_tuple(found->second.shape) + ", expected " +
                                python_tuple(expected));
  }
  std::vector<float> weights = file.floats(found->second);
  for (const float weight : weights) {
    if (!std::isfinite(weight)) {
      throw std::invalid_argument("its " + name + " holds values that are not finite");
    }
  }
  return weights;
}

// The length of the first axis of a tensor that has so many axes.
int64_t rows_of(const SafeTensors &file, const std::string &name, size_t axes) {
  const auto found = file.tensors().find(name);
  if (found == file.tensors().end() || found->second.shape.size() != axes ||
      found->second.shape[0] < 1) {
    throw std::invalid_argument("has no " + name + " of " + std::to_string(axes) + " axes");
  }
  return found->second.shape[0];
}

// At least 1 and at most `limit`.
int64_t check_size(int64_t size, const char *name, size_t limit = kMaxSize) {
  if (size < 1 || size > static_cast<int64_t>(limit)) {
    throw std::invalid_argument("its " + std::string(name) + " is " + std::to_string(size) +
                                ", expected 1 to " + std::to_string(limit));
  }
  return size;
}

// Checks what this library does not use, but Python reads.
void check_notes(const Json &meta) {
  if (!meta.at("metrics").is_object() || !meta.at("training").is_object()) {
    throw std::invalid_argument("its metrics and its training are to be objects");
  }
  for (const auto &[name, value] : meta.at("metrics").items()) {
    if (!value.is_number()) throw std::invalid_argument("its metric '" + name + "' is no number");
  }
}

// The kind, the decision and the number of outputs that follows from them; before version 2 a head
// gave one of its labels, and stood by it.
void read_kind(FoldedHead &head, const Json &meta) {
  std::string kind = "single_label";
  if (meta.at("format_version") > 1) {
    kind = meta.at("kind").get<std::string>();
    head.decision = read_decision(meta.at("decision"));
  }
  head.kind = find_kind(kind);
  if (head.kind == nullptr) {
    throw std::invalid_argument("its kind is '" + kind + "', expected one of " + names_of_kinds());
  }
  head.kind->check(head.labels, head.decision);
  if (head.kind->is_of_words() && head.decision.reject_above) {
    throw std::invalid_argument("has a reject output, expected none of a " + kind + " head");
  }
  head.num_outputs = head.kind->num_logits(head.labels) + (head.decision.reject_above ? 1 : 0);
  check_size(static_cast<int64_t>(head.num_outputs), "number of outputs");
}

void read_form(FoldedHead &head, const Json &meta) {
  const std::string form = meta.at("form").get<std::string>();
  const auto *found = std::find_if(std::begin(kForms), std::end(kForms),
                                   [&](const auto &row) { return row.first == form; });
  if (found == std::end(kForms)) {
    throw std::invalid_argument("its form is '" + form + "', expected single, pair or two_texts");
  }
  head.form = found->second;
  if ((head.form == Form::two_texts) != (meta.at("format_version") == kOfTwoTexts)) {
    throw std::invalid_argument("its form is '" + form + "' in format version " +
                                meta.at("format_version").dump() +
                                ", expected two_texts in version 3, and only there");
  }
}

// Checks all that must hold of a head; `engine/heads/head_file.py` has the same list.
void read_meta(FoldedHead &head, const Json &meta) {
  check_notes(meta);
  head.task = meta.at("task").get<std::string>();
  head.labels = meta.at("labels").get<std::vector<std::string>>();
  const std::string pooling = meta.at("position_pooling").get<std::string>();
  if (!is_task_name(head.task)) {
    throw std::invalid_argument("its task name is '" + head.task + "', no name of a file");
  }
  read_form(head, meta);
  if (pooling != "attention" && pooling != "mean" && pooling != "cls" && pooling != "last") {
    throw std::invalid_argument("its position pooling is '" + pooling +
                                "', expected attention, mean, cls or last");
  }
  for (const std::string &label : head.labels) {
    if (label.find('\0') != std::string::npos) {
      throw std::invalid_argument("a label has a NUL, at which C ends a text");
    }
  }
  read_kind(head, meta);
  if (head.kind->is_of_words() && head.form != Form::single) {
    throw std::invalid_argument("its form is '" + std::string(name_of(head.form)) +
                                "', expected 'single' of a " + head.kind->name +
                                " head, which reads words of one text");
  }
  head.position_pooling = pooling == "attention" ? BH_ATTENTION
                          : pooling == "mean"    ? BH_MEAN
                          : pooling == "cls"     ? BH_CLS
                                                 : BH_LAST;
  head.spec = FeatureSpec::read(meta.at("spec"));
  check_size(head.spec.dim, "dim");
}

PairHalf read_pair_half(const FoldedHead &head, const SafeTensors &file) {
  const auto outputs = static_cast<int64_t>(head.num_outputs);
  const auto dim = static_cast<int64_t>(combined_size(head.vector_size));
  const int64_t inner = check_size(rows_of(file, "pair_dense_bias", 1), "pair half's inner size");
  return {read_weights(file, "pair_dense", {inner, dim}),
          read_weights(file, "pair_dense_bias", {inner}),
          read_weights(file, "pair_output", {outputs, inner}),
          read_weights(file, "pair_output_bias", {outputs})};
}

void read_tensors(FoldedHead &head, const SafeTensors &file) {
  const int64_t dim = head.spec.dim;
  const bool attends = head.position_pooling == BH_ATTENTION;
  const bool is_of_two_texts = head.form == Form::two_texts;
  if (file.tensors().size() != (attends ? 6U : 4U) + (is_of_two_texts ? 4U : 0U)) {
    throw std::invalid_argument("has other weights than its form and its position pooling want");
  }
  if (attends) {
    head.attention_heads = rows_of(file, "query", 2);
    if (dim % head.attention_heads != 0) {
      throw std::invalid_argument("its attention heads do not divide its dim");
    }
    head.query = read_weights(file, "query", {head.attention_heads, dim});
    head.value = read_weights(file, "value", {dim, dim});
  }
  const int64_t inner = check_size(rows_of(file, "dense_bias", 1), "inner size");
  auto outputs = static_cast<int64_t>(head.num_outputs);
  if (is_of_two_texts) {
    outputs = check_size(rows_of(file, "output_bias", 1), "vector size", BH_MAX_VECTOR_SIZE);
    head.vector_size = static_cast<size_t>(outputs);
    head.pair = read_pair_half(head, file);
  }
  head.dense = read_weights(file, "dense", {inner, dim});
  head.dense_bias = read_weights(file, "dense_bias", {inner});
  head.output = read_weights(file, "output", {outputs, inner});
  head.output_bias = read_weights(file, "output_bias", {outputs});
}

FoldedHead parse_head(const SafeTensors &file, const std::string &what) {
  if (!file.metadata().contains("bitheads_head")) {
    fail(Status::head, what,
         ": a safetensors file without 'bitheads_head' in its header, so not a head. Write heads "
         "with `bitheads train-head`.");
  }
  Json meta = parse_json(file.metadata().at("bitheads_head").get_ref<const std::string &>());
  if (!meta.at("format_version").is_number_integer()) {
    throw std::invalid_argument("its format version is no whole number");
  }
  const auto version = meta.at("format_version").get<int64_t>();
  if (version < 1 || version > kFormatVersions) {
    fail(Status::head, what, ": got format version ", version, ", expected 1 to ", kFormatVersions,
         ". Train it again, or install the version of bitheads that wrote it.");
  }
  const std::string expected = meta.at("sha256").get<std::string>();
  meta.erase("sha256");
  if (const std::string got = hash_of(meta, file); got != expected) {
    fail(Status::head, what, ": was changed since it was written: got sha256 ", got.substr(0, 12),
         "..., expected ", expected.substr(0, 12), ".... Copy or train it again.");
  }
  FoldedHead head;
  read_meta(head, meta);
  read_tensors(head, file);
  return head;
}

}  // namespace

const char *name_of(Form form) {
  return kForms[static_cast<size_t>(form)].first;
}

FoldedHead read_head(const fs::path &path) {
  const std::string what = "head " + path.string();
  const SafeTensors file = SafeTensors::read(path, Status::head, what);
  try {
    return parse_head(file, what);
  } catch (const Json::exception &error) {
    fail(Status::head, what, ": its header is malformed (", error.what(), "). Train it again.");
  } catch (const std::invalid_argument &error) {
    fail(Status::head, what, ": ", error.what(), ". Train it again.");
  }
}

}  // namespace bitheads
