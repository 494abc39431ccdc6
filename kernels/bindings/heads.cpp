// The task heads for Python: laying a head out once, and predicting with many.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <deque>

#include "arguments.h"
#include "bitheads/kernels.h"
#include "buffer.h"

namespace bitheads {
namespace {

constexpr int64_t kAlignment = 64;

// Bytes that start at a multiple of 64.
const Buffer &aligned_bytes(std::deque<Buffer> &buffers, nb::handle array, const std::string &name,
                            bool writable) {
  const Buffer &buffer = buffers.emplace_back(array, name, writable);
  if (buffer.format() != 'B') {
    raise_type(name, std::string("format '") + buffer.format() + "'", "a uint8 array");
  }
  buffer.require_shape({-1}, "bytes");
  buffer.require_contiguous();
  if (reinterpret_cast<uintptr_t>(buffer.data()) % kAlignment != 0 && buffer.shape(0) > 0) {
    raise_value(name, "an array at no multiple of 64 bytes", "one at a multiple of 64");
  }
  return buffer;
}

// All arrays of a call, and those of them that it writes.
void require_no_overlaps(const std::deque<Buffer> &buffers,
                         const std::vector<const Buffer *> &written) {
  Overlaps overlaps;
  auto next = written.begin();  // both are in the order in which they came
  for (const Buffer &buffer : buffers) {
    const bool is_written = next != written.end() && *next == &buffer;
    overlaps.add(buffer, is_written);
    if (is_written) ++next;
  }
  overlaps.require_none();
}

int64_t bytes_of(const bh_head_weights &weights) {
  const int64_t bytes = bh_head_bytes(&weights);
  if (bytes >= 0) return bytes;
  const std::string sizes = "dim " + std::to_string(weights.dim) + ", attention_heads " +
                            std::to_string(weights.attention_heads) + ", inner " +
                            std::to_string(weights.inner) + ", classes " +
                            std::to_string(weights.classes);
  raise_value("head", sizes,
              "codes of sign or uint8, sizes of 1 to 65,536, attention_heads that divide dim with "
              "attention and 0 without");
}

bh_head_weights head_sizes(const std::string &quantization, const std::string &position_pooling,
                           int64_t dim, int64_t attention_heads, int64_t inner, int64_t classes) {
  bh_head_weights weights{};
  weights.quantization = parse_quantization(quantization);
  weights.position_pooling = parse_position_pooling(position_pooling);
  weights.dim = dim;
  weights.attention_heads = attention_heads;
  weights.inner = inner;
  weights.classes = classes;
  return weights;
}

int64_t head_bytes(const std::string &quantization, const std::string &position_pooling,
                   int64_t dim, int64_t attention_heads, int64_t inner, int64_t classes) {
  return bytes_of(head_sizes(quantization, position_pooling, dim, attention_heads, inner, classes));
}

// A C-contiguous float32 matrix; with `rows` or `columns` of -1, of any size there.
float *matrix(std::deque<Buffer> &buffers, nb::handle array, const std::string &name, int64_t rows,
              int64_t columns, const char *dimensions, bool writable = false) {
  const Buffer &buffer = buffers.emplace_back(array, name, writable);
  if (buffer.format() != 'f') {
    raise_type(name, std::string("format '") + buffer.format() + "'",
               "a float32 array; convert it with astype");
  }
  buffer.require_shape({rows, columns}, dimensions);
  buffer.require_contiguous();
  if (reinterpret_cast<uintptr_t>(buffer.data()) % alignof(float) != 0) {
    raise_value(name, "an unaligned array", "an aligned one; pass a copy");
  }
  return static_cast<float *>(buffer.data());
}

void lay_out_head(nb::object head, const std::string &quantization,
                  const std::string &position_pooling, nb::object query, nb::object value,
                  nb::object dense, nb::object dense_bias, nb::object output,
                  nb::object output_bias, const std::string &level) {
  std::deque<Buffer> buffers;  // holds every array until the call is over
  bh_head_weights weights = head_sizes(quantization, position_pooling, 0, 0, 0, 0);
  weights.level = parse_level(level);
  weights.dense = matrix(buffers, dense, "dense", -1, -1, "inner, dim");
  weights.inner = buffers.back().shape(0);
  weights.dim = buffers.back().shape(1);
  weights.output = matrix(buffers, output, "output", -1, weights.inner, "classes, inner");
  weights.classes = buffers.back().shape(0);
  const auto bias = [&](nb::handle array, const char *name, int64_t size, const char *dimension) {
    return buffers.emplace_back(array, name).vector<float>(size, dimension, "f", "float32");
  };
  weights.dense_bias = bias(dense_bias, "dense_bias", weights.inner, "inner");
  weights.output_bias = bias(output_bias, "output_bias", weights.classes, "classes");
  const bool attends = weights.position_pooling == BH_ATTENTION;
  if (query.is_none() == attends || value.is_none() == attends) {
    raise_value("query, value", "one, none or both of them",
                attends ? "both with attention" : "none without attention");
  }
  if (attends) {
    weights.query = matrix(buffers, query, "query", -1, weights.dim, "attention_heads, dim");
    weights.attention_heads = buffers.back().shape(0);
    weights.value = matrix(buffers, value, "value", weights.dim, weights.dim, "dim, dim");
  }
  const int64_t bytes = bytes_of(weights);
  const Buffer &out = aligned_bytes(buffers, head, "head", true);
  out.require_shape({bytes}, "bytes");
  require_no_overlaps(buffers, {&out});
  bh_status status;
  {
    const nb::gil_scoped_release unlocked;
    status = bh_lay_out_head(&weights, static_cast<bh_head *>(out.data()));
  }
  if (status == BH_INVALID_ARGUMENT) {
    raise_value("head", "weights that are not finite, or a row of more than 1e30 in all",
                "finite ones; train it again");
  }
  if (status != BH_OK) raise_value("lay_out_head", "a refusal", bh_status_message(status));
}

void floats_of_halves(nb::object halves, nb::object floats, const std::string &level) {
  const Buffer from(halves, "halves");
  const Buffer to(floats, "floats", true);
  from.require_shape({-1}, "numbers");
  const int64_t count = from.shape(0);
  const auto *its_halves = from.vector<uint16_t>(count, "numbers", "e", "float16");
  const auto *its_floats = to.vector<float>(count, "numbers", "f", "float32");
  const bh_level its_level = parse_level(level);
  Overlaps overlaps;
  overlaps.add(from, false);
  overlaps.add(to, true);
  overlaps.require_none();
  bh_status status;
  {
    const nb::gil_scoped_release unlocked;
    status = bh_floats_of_halves(its_halves, count, const_cast<float *>(its_floats), its_level);
  }
  if (status != BH_OK) raise_value("floats_of_halves", "a refusal", bh_status_message(status));
}

// The arguments of a call, and what keeps them alive.
struct Call {
  std::deque<Buffer> buffers;
  std::vector<int64_t> offsets;
  std::vector<const bh_head *> heads;
  std::vector<int64_t> classes;
  bh_predict_heads_args args{};
};

void add_texts(Call &call, nb::handle codes, nb::handle offsets, int64_t dim,
               const std::string &quantization) {
  call.args.dim = dim;
  call.args.quantization = parse_quantization(quantization);
  const int64_t code_bytes = bh_code_bytes(dim, call.args.quantization);
  if (code_bytes < 0) raise_value("dim", std::to_string(dim), "a positive number of features");
  if (call.args.quantization == BH_HALF) {
    raise_value("quantization", "'float16'", "sign or uint8: others have no native heads");
  }
  const Buffer &all_codes = call.buffers.emplace_back(codes, "codes");
  if (all_codes.format() != 'B') {
    raise_type("codes", std::string("format '") + all_codes.format() + "'", "a uint8 array");
  }
  all_codes.require_shape({-1, code_bytes}, "tokens, code_bytes");
  all_codes.require_contiguous();
  call.args.codes = static_cast<const uint8_t *>(all_codes.data());
  call.args.num_tokens = all_codes.shape(0);

  const Buffer bounds(offsets, "offsets");
  bounds.require_shape({-1}, "texts + 1");
  if (bounds.shape(0) < 1) raise_value("offsets", "none", "one more than there are texts");
  call.args.texts = bounds.shape(0) - 1;
  call.offsets = bounds.copied<int64_t>(bounds.shape(0), "texts + 1", "lq", "int64");
  call.args.offsets = call.offsets.data();
  for (int64_t text = 0; text < call.args.texts; ++text) {
    const int64_t first = call.args.offsets[text];
    const int64_t last = call.args.offsets[text + 1];
    if (first < 0 || last > call.args.num_tokens || last <= first ||
        last - first > BH_MAX_TEXT_TOKENS) {
      raise_value("offsets[" + std::to_string(text) + ":]",
                  std::to_string(first) + ", " + std::to_string(last),
                  "1 to " + std::to_string(BH_MAX_TEXT_TOKENS) + " tokens a text, inside the " +
                      std::to_string(call.args.num_tokens) + " of codes");
    }
  }
}

void add_heads(Call &call, const std::vector<nb::object> &heads) {
  for (size_t i = 0; i < heads.size(); ++i) {
    const std::string name = "heads[" + std::to_string(i) + "]";
    const Buffer &block = aligned_bytes(call.buffers, heads[i], name, false);
    const auto *head = static_cast<const bh_head *>(block.data());
    bh_head_weights sizes{};
    if (block.shape(0) < kAlignment || bh_laid_out_head_sizes(head, &sizes) != BH_OK ||
        bh_head_bytes(&sizes) != block.shape(0)) {
      raise_value(name, std::to_string(block.shape(0)) + " bytes that are no head",
                  "what lay_out_head wrote");
    }
    if (sizes.dim != call.args.dim || sizes.quantization != call.args.quantization) {
      raise_value(
          name, "a head for other codes, of dim " + std::to_string(sizes.dim),
          "one for codes of dim " + std::to_string(call.args.dim) + " and of their quantization");
    }
    call.heads.push_back(head);
    call.classes.push_back(sizes.classes);
  }
  call.args.heads = call.heads.data();
  call.args.num_heads = static_cast<int64_t>(call.heads.size());
}

int64_t predict_heads_workspace(nb::object codes, nb::object offsets, int64_t dim,
                                const std::string &quantization,
                                const std::vector<nb::object> &heads) {
  Call call;
  add_texts(call, codes, offsets, dim, quantization);
  add_heads(call, heads);
  return bh_predict_heads_workspace(&call.args);
}

void predict_heads(nb::object codes, nb::object offsets, int64_t dim,
                   const std::string &quantization, const std::vector<nb::object> &heads,
                   const std::vector<nb::object> &logits, nb::object workspace,
                   const std::string &level) {
  Call call;
  add_texts(call, codes, offsets, dim, quantization);
  add_heads(call, heads);
  call.args.level = parse_level(level);
  if (logits.size() != heads.size()) {
    raise_value("logits", std::to_string(logits.size()) + " arrays",
                "one a head, " + std::to_string(heads.size()));
  }
  std::vector<float *> answers;
  std::vector<const Buffer *> written;
  for (size_t i = 0; i < logits.size(); ++i) {
    const std::string name = "logits[" + std::to_string(i) + "]";
    answers.push_back(matrix(call.buffers, logits[i], name, call.args.texts, call.classes[i],
                             "texts, classes", true));
    written.push_back(&call.buffers.back());
  }
  call.args.logits = answers.data();
  const Buffer &room = aligned_bytes(call.buffers, workspace, "workspace", true);
  written.push_back(&room);
  require_no_overlaps(call.buffers, written);
  call.args.workspace = room.data();
  call.args.workspace_bytes = room.shape(0);
  const int64_t needed = bh_predict_heads_workspace(&call.args);
  if (room.shape(0) < needed) {
    raise_value("workspace", std::to_string(room.shape(0)) + " bytes",
                std::to_string(needed) + ", see predict_heads_workspace");
  }
  bh_status status;
  {
    const nb::gil_scoped_release unlocked;
    status = bh_predict_heads(&call.args);
  }
  if (status != BH_OK) raise_value("predict_heads", "a refusal", bh_status_message(status));
}

int64_t run_dot_products(const std::string &level, int64_t multiply_adds) {
  const bh_level parsed = parse_level(level);
  const nb::gil_scoped_release unlocked;
  return bh_run_dot_products(parsed, multiply_adds);
}

}  // namespace

void define_heads(nb::module_ &m) {
  m.attr("MAX_TEXT_TOKENS") = BH_MAX_TEXT_TOKENS;
  m.def("head_bytes", head_bytes, nb::arg("quantization"), nb::arg("position_pooling"),
        nb::arg("dim"), nb::arg("attention_heads"), nb::arg("inner"), nb::arg("classes"));
  m.def("lay_out_head", lay_out_head, nb::arg("head"), nb::arg("quantization"),
        nb::arg("position_pooling"), nb::arg("query").none(), nb::arg("value").none(),
        nb::arg("dense"), nb::arg("dense_bias"), nb::arg("output"), nb::arg("output_bias"),
        nb::arg("level") = "active");
  m.def("floats_of_halves", floats_of_halves, nb::arg("halves"), nb::arg("floats"),
        nb::arg("level") = "active");
  m.def("predict_heads_workspace", predict_heads_workspace, nb::arg("codes"), nb::arg("offsets"),
        nb::arg("dim"), nb::arg("quantization"), nb::arg("heads"));
  m.def("predict_heads", predict_heads, nb::arg("codes"), nb::arg("offsets"), nb::arg("dim"),
        nb::arg("quantization"), nb::arg("heads"), nb::arg("logits"), nb::arg("workspace"),
        nb::arg("level") = "active");
  m.def("run_dot_products", run_dot_products, nb::arg("level"), nb::arg("multiply_adds"));
}

}  // namespace bitheads
