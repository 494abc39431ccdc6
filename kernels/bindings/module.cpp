// engine._kernels: the C ABI for Python. Checks shapes and dtypes, with messages, before any memory
// is touched; then drops the interpreter lock and calls.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cstdlib>
#include <deque>

#include "arguments.h"
#include "bitheads/kernels.h"
#include "buffer.h"

namespace {

namespace nb = nanobind;
using bitheads::Buffer;
using bitheads::parse_level;
using bitheads::parse_order;
using bitheads::parse_quantization;
using bitheads::raise_type;
using bitheads::raise_value;
using bitheads::require_options;
using bitheads::require_rows;

#define BITHEADS_LEVEL(NAME, name, value) BH_LEVEL_##NAME,
constexpr bh_level kLevels[] = {BH_FOR_EACH_LEVEL(BITHEADS_LEVEL)};
#undef BITHEADS_LEVEL

std::vector<std::string> levels() {
  std::vector<std::string> names;
  for (bh_level level : kLevels) names.emplace_back(bh_level_name(level));
  return names;
}

std::vector<std::string> supported_levels() {
  std::vector<std::string> names;
  for (bh_level level : kLevels) {
    if (bh_level_supported(level)) names.emplace_back(bh_level_name(level));
  }
  return names;
}

std::string supported_text() {
  std::string text;
  for (const std::string &name : supported_levels()) text += (text.empty() ? "" : ", ") + name;
  return text;
}

[[noreturn]] void raise_environment_level(bh_status status) {
  const char *got = std::getenv("BITHEADS_KERNEL_LEVEL");
  raise_value("BITHEADS_KERNEL_LEVEL", std::string("'") + (got == nullptr ? "" : got) + "'",
              std::string(status == BH_UNKNOWN_LEVEL ? "a level" : "a level this machine can run") +
                  ": one of " + supported_text() + "; set it to one of them or unset it");
}

std::string active_level() {
  bh_level level = BH_LEVEL_ACTIVE;
  const bh_status status = bh_active_level(&level);
  if (status != BH_OK) raise_environment_level(status);
  return bh_level_name(level);
}

int64_t code_bytes(int64_t dim, const std::string &quantization) {
  const int64_t bytes = bh_code_bytes(dim, parse_quantization(quantization));
  if (bytes < 0) raise_value("dim", std::to_string(dim), "a positive number of features");
  return bytes;
}

bh_dtype parse_dtype(const Buffer &layer, bool bfloat16) {
  const char format = layer.format();
  if (bfloat16) {
    if (format == 'H') return BH_BFLOAT16;
    raise_type(layer.name(), std::string("format '") + format + "' with bfloat16=True",
               "the bit patterns as uint16; pass array.view(np.uint16)");
  }
  if (format == 'f') return BH_FLOAT32;
  if (format == 'e') return BH_FLOAT16;
  raise_type(layer.name(), std::string("format '") + format + "'",
             "float32 or float16 in native byte order, or uint16 with bfloat16=True");
}

void pool_and_pack(const std::vector<nb::object> &layers, bool bfloat16, nb::object lengths,
                   nb::object token_offsets, nb::object codes, const std::string &quantization,
                   const std::string &order, nb::object layer_weights, nb::object thresholds,
                   nb::object inverse_scale, nb::object zero_point, const std::string &level) {
  std::deque<Buffer> buffers;  // holds every array until the call is over
  bh_pool_and_pack_args args{};
  args.quantization = parse_quantization(quantization);
  args.order = parse_order(order);
  args.level = parse_level(level);

  if (layers.empty()) raise_value("layers", "none", "one [rows, seq, dim] array per layer");
  std::vector<bh_layer> layer_views;
  for (size_t i = 0; i < layers.size(); ++i) {
    const Buffer &layer = buffers.emplace_back(layers[i], "layers[" + std::to_string(i) + "]");
    const bh_dtype dtype = parse_dtype(layer, bfloat16);
    if (i == 0) {
      layer.require_shape({-1, -1, -1}, "rows, seq, dim");
      args.dtype = dtype;
      args.rows = layer.shape(0);
      args.seq = layer.shape(1);
      args.dim = layer.shape(2);
    }
    if (dtype != args.dtype) {
      raise_type(layer.name(), "another dtype than layers[0]", "one dtype for all layers");
    }
    layer.require_shape({args.rows, args.seq, args.dim}, "rows, seq, dim");
    if (args.dim > 1 && layer.stride_bytes(2) != (args.dtype == BH_FLOAT32 ? 4 : 2)) {
      raise_value(layer.name(),
                  "features " + std::to_string(layer.stride_bytes(2)) + " bytes apart",
                  "a contiguous last axis; pass np.ascontiguousarray(...)");
    }
    layer_views.push_back({layer.data(), layer.stride_bytes(0), layer.stride_bytes(1)});
  }
  args.layers = layer_views.data();
  args.num_layers = static_cast<int64_t>(layer_views.size());

  const auto int64_rows = [&](nb::handle array, const char *name) {
    return Buffer(array, name).copied<int64_t>(args.rows, "rows", "lq", "int64");
  };
  const std::vector<int64_t> its_lengths = int64_rows(lengths, "lengths");
  const std::vector<int64_t> its_token_offsets = int64_rows(token_offsets, "token_offsets");
  args.lengths = its_lengths.data();
  args.token_offsets = its_token_offsets.data();

  const auto float32_or_null = [&](nb::handle array, const char *name, int64_t size,
                                   const char *dimension) -> const float * {
    if (array.is_none()) return nullptr;
    return buffers.emplace_back(array, name).vector<float>(size, dimension, "f", "float32");
  };
  args.layer_weights = float32_or_null(layer_weights, "layer_weights", args.num_layers, "layers");
  args.thresholds = float32_or_null(thresholds, "thresholds", args.dim, "dim");
  args.inverse_scale = float32_or_null(inverse_scale, "inverse_scale", args.dim, "dim");
  args.zero_point = float32_or_null(zero_point, "zero_point", args.dim, "dim");
  require_options(args);

  const Buffer &out = buffers.emplace_back(codes, "codes", true);
  if (out.format() != 'B') {
    raise_type("codes", std::string("format '") + out.format() + "'", "a uint8 array");
  }
  out.require_shape({-1, code_bytes(args.dim, quantization)}, "num_tokens, code_bytes");
  out.require_contiguous();
  args.codes = static_cast<uint8_t *>(out.data());
  args.num_tokens = out.shape(0);
  require_rows(args, args.lengths, args.token_offsets);
  bitheads::Overlaps overlaps;
  for (const Buffer &buffer : buffers) overlaps.add(buffer, &buffer == &out);
  overlaps.require_none();

  bh_status status;
  {
    const nb::gil_scoped_release unlocked;
    status = bh_pool_and_pack(&args);
  }
  if (status != BH_OK) raise_value("pool_and_pack", "a refusal", bh_status_message(status));
}

}  // namespace

namespace bitheads {

bh_level parse_level(const std::string &name) {
  if (name == "active") {
    active_level();
    return BH_LEVEL_ACTIVE;
  }
  for (bh_level level : kLevels) {
    if (name == bh_level_name(level) && bh_level_supported(level)) return level;
  }
  raise_value("level", "'" + name + "'",
              "active, or one this machine can run: " + supported_text());
}

}  // namespace bitheads

NB_MODULE(_kernels, m) {
  m.doc() = "Native kernels over the C ABI of kernels/include/bitheads/kernels.h.";
  m.def("abi_version", [] { return bh_abi_version(); });
  m.def("active_level", active_level);
  m.def("levels", levels);
  m.def("supported_levels", supported_levels);
  m.def("code_bytes", code_bytes, nb::arg("dim"), nb::arg("quantization"));
  m.def("pool_and_pack", pool_and_pack, nb::arg("layers"), nb::arg("bfloat16"), nb::arg("lengths"),
        nb::arg("token_offsets"), nb::arg("codes"), nb::arg("quantization"), nb::arg("order"),
        nb::arg("layer_weights") = nb::none(), nb::arg("thresholds") = nb::none(),
        nb::arg("inverse_scale") = nb::none(), nb::arg("zero_point") = nb::none(),
        nb::arg("level") = "active");
  bitheads::define_batching(m);
  bitheads::define_combine_texts(m);
  bitheads::define_heads(m);
  bitheads::define_launches(m);
  bitheads::define_tag_sequences(m);
}
