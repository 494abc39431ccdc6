// The host side of the CUDA kernels for Python. Device memory is an address, an int.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "arguments.h"
#include "bitheads/cuda.h"

namespace bitheads {
namespace {

template <class Pointee>
Pointee *device(uintptr_t address) {
  return reinterpret_cast<Pointee *>(address);
}

bh_dtype parse_dtype(const std::string &name) {
  if (name == "float32") return BH_FLOAT32;
  if (name == "float16") return BH_FLOAT16;
  if (name == "bfloat16") return BH_BFLOAT16;
  raise_value("dtype", "'" + name + "'", "float32, float16 or bfloat16");
}

// (kernel, grid, block, shared_bytes, argument)
nb::tuple to_python(const bh_cuda_launch &launch) {
  const auto three = [](const uint32_t (&sizes)[3]) {
    return nb::make_tuple(sizes[0], sizes[1], sizes[2]);
  };
  return nb::make_tuple(launch.kernel, three(launch.grid), three(launch.block), launch.shared_bytes,
                        nb::bytes(launch.args, launch.args_bytes));
}

nb::tuple plan_pool_and_pack(const std::vector<uintptr_t> &layers, const std::string &dtype,
                             int64_t rows, int64_t seq, int64_t dim, nb::object lengths,
                             nb::object token_offsets, uintptr_t device_lengths,
                             uintptr_t device_token_offsets, uintptr_t codes, int64_t num_tokens,
                             const std::string &quantization, const std::string &order,
                             nb::object layer_weights, uintptr_t thresholds,
                             uintptr_t inverse_scale, uintptr_t zero_point) {
  bh_pool_and_pack_args args{};
  args.dtype = parse_dtype(dtype);
  args.quantization = parse_quantization(quantization);
  args.order = parse_order(order);
  if (layers.empty()) raise_value("layers", "none", "one address a layer");
  for (const auto &[name, size] : {std::pair{"rows", rows}, {"seq", seq}, {"dim", dim}}) {
    if (size < 1) raise_value(name, std::to_string(size), "at least 1");
  }
  const int64_t token_bytes = dim * (args.dtype == BH_FLOAT32 ? 4 : 2);
  std::vector<bh_layer> tables;
  for (uintptr_t address : layers) {
    tables.push_back({device<void>(address), seq * token_bytes, token_bytes});
  }
  args.layers = tables.data();
  args.num_layers = static_cast<int64_t>(tables.size());
  args.rows = rows;
  args.seq = seq;
  args.dim = dim;
  args.lengths = device<int64_t>(device_lengths);
  args.token_offsets = device<int64_t>(device_token_offsets);
  args.thresholds = device<float>(thresholds);
  args.inverse_scale = device<float>(inverse_scale);
  args.zero_point = device<float>(zero_point);
  args.codes = device<uint8_t>(codes);
  args.num_tokens = num_tokens;

  const Buffer host_lengths(lengths, "lengths");
  const Buffer host_token_offsets(token_offsets, "token_offsets");
  const auto *its_lengths = host_lengths.vector<int64_t>(rows, "rows", "lq", "int64");
  const auto *its_offsets = host_token_offsets.vector<int64_t>(rows, "rows", "lq", "int64");
  std::vector<float> weights;
  if (!layer_weights.is_none()) {
    const Buffer buffer(layer_weights, "layer_weights");
    const auto *values = buffer.vector<float>(args.num_layers, "layers", "f", "float32");
    weights.assign(values, values + args.num_layers);
    args.layer_weights = weights.data();
  }
  require_options(args);
  require_rows(args, its_lengths, its_offsets);

  bh_cuda_launch launch;
  const bh_status status = bh_cuda_plan_pool_and_pack(&args, its_lengths, its_offsets, &launch);
  if (status != BH_OK) {
    raise_value("pool_and_pack", "arguments that one launch cannot take",
                "what kernels/SPEC.md says under CUDA; pass fewer rows");
  }
  return to_python(launch);
}

bh_embedding_pooling parse_embedding_pooling(const std::string &name) {
  if (name == "cls") return BH_EMBEDDING_CLS;
  if (name == "max") return BH_EMBEDDING_MAX;
  if (name == "mean") return BH_EMBEDDING_MEAN;
  if (name == "mean_sqrt_len_tokens") return BH_EMBEDDING_MEAN_SQRT_LEN;
  if (name == "weightedmean") return BH_EMBEDDING_WEIGHTEDMEAN;
  if (name == "lasttoken") return BH_EMBEDDING_LASTTOKEN;
  raise_value("pooling", "'" + name + "'",
              "cls, max, mean, mean_sqrt_len_tokens, weightedmean or lasttoken");
}

nb::tuple plan_pool_positions(uintptr_t states, const std::string &dtype, int64_t rows, int64_t seq,
                              int64_t dim, nb::object lengths, uintptr_t device_lengths,
                              const std::string &pooling, uintptr_t pooled, int64_t pooled_stride) {
  bh_pool_positions_args args{};
  args.dtype = parse_dtype(dtype);
  for (const auto &[name, size] : {std::pair{"rows", rows}, {"seq", seq}, {"dim", dim}}) {
    if (size < 1) raise_value(name, std::to_string(size), "at least 1");
  }
  const int64_t token_bytes = dim * (args.dtype == BH_FLOAT32 ? 4 : 2);
  args.states = {device<void>(states), seq * token_bytes, token_bytes};
  args.rows = rows;
  args.seq = seq;
  args.dim = dim;
  args.lengths = device<int64_t>(device_lengths);
  args.pooling = parse_embedding_pooling(pooling);
  args.pooled = device<float>(pooled);
  args.pooled_stride = pooled_stride;
  const Buffer host_lengths(lengths, "lengths");
  const auto *its_lengths = host_lengths.vector<int64_t>(rows, "rows", "lq", "int64");
  bh_cuda_launch launch;
  if (bh_cuda_plan_pool_positions(&args, its_lengths, &launch) != BH_OK) {
    raise_value("pool_positions", "arguments that one launch cannot take",
                "what kernels/SPEC.md says under CUDA; pass fewer rows");
  }
  return to_python(launch);
}

// float32 [first, second], contiguous.
const float *matrix(const Buffer &buffer, const char *dimensions) {
  if (buffer.format() != 'f') {
    raise_type(buffer.name(), std::string("format '") + buffer.format() + "'", "a float32 array");
  }
  buffer.require_shape({-1, -1}, dimensions);
  buffer.require_contiguous();
  return static_cast<const float *>(buffer.data());
}

int64_t pooled_dim(int64_t dim) {
  const int64_t padded = bh_cuda_pooled_dim(dim);
  if (padded < 0) raise_value("dim", std::to_string(dim), "a positive number of features");
  return padded;
}

// (fragments, column_scale) as bytes
nb::tuple lay_out_queries(nb::object queries, const std::string &quantization) {
  const Buffer buffer(queries, "queries");
  const float *values = matrix(buffer, "columns, dim");
  const int64_t columns = buffer.shape(0), dim = buffer.shape(1);
  const bh_quantization its_quantization = parse_quantization(quantization);
  const int64_t bytes = bh_cuda_query_bytes(columns, dim, its_quantization);
  if (bytes < 0) raise_value("queries", buffer.shape_text(), "[columns, dim] with dim at least 1");
  std::vector<unsigned char> fragments(static_cast<size_t>(bytes));
  std::vector<float> scale(static_cast<size_t>(columns));
  const bh_status status = bh_cuda_lay_out_queries(values, columns, dim, its_quantization,
                                                   fragments.data(), scale.data());
  if (status != BH_OK) raise_value("queries", "numbers beyond 2^117 or none", "finite ones");
  return nb::make_tuple(nb::bytes(fragments.data(), fragments.size()),
                        nb::bytes(scale.data(), scale.size() * sizeof(float)));
}

// (laid out weights, scale) as bytes
nb::tuple lay_out_dense(nb::object weights) {
  const Buffer buffer(weights, "weights");
  const float *values = matrix(buffer, "n, k");
  const int64_t n = buffer.shape(0), k = buffer.shape(1);
  if (n < 1 || k < 1) raise_value("weights", buffer.shape_text(), "[n, k], both at least 1");
  std::vector<uint16_t> halves(static_cast<size_t>(n * bh_cuda_dense_row(k)));
  std::vector<float> scale(static_cast<size_t>(n));
  const bh_status status = bh_cuda_lay_out_dense(values, n, k, halves.data(), scale.data());
  if (status != BH_OK) raise_value("weights", "numbers that are not finite", "finite ones");
  return nb::make_tuple(nb::bytes(halves.data(), halves.size() * sizeof(uint16_t)),
                        nb::bytes(scale.data(), scale.size() * sizeof(float)));
}

nb::tuple plan_attention_pool(uintptr_t codes, uintptr_t offsets, int64_t texts,
                              const std::string &quantization, int64_t dim, int64_t columns,
                              uintptr_t queries, uintptr_t column_scale, uintptr_t end_bias,
                              uintptr_t pooled) {
  const bh_attention_pool_args args{device<uint8_t>(codes),
                                    device<int64_t>(offsets),
                                    texts,
                                    parse_quantization(quantization),
                                    dim,
                                    columns,
                                    device<void>(queries),
                                    device<float>(column_scale),
                                    device<float>(end_bias),
                                    device<void>(pooled)};
  bh_cuda_launch launch;
  if (bh_cuda_plan_attention_pool(&args, &launch) != BH_OK) {
    raise_value("attention_pool", "arguments that one launch cannot take",
                "what kernels/SPEC.md says under CUDA; pass fewer texts or columns");
  }
  return to_python(launch);
}

bh_dense_kind parse_kind(const std::string &name) {
  if (name == "value") return BH_DENSE_VALUE;
  if (name == "hidden") return BH_DENSE_HIDDEN;
  if (name == "output") return BH_DENSE_OUTPUT;
  raise_value("kind", "'" + name + "'", "value, hidden or output");
}

nb::tuple plan_grouped_dense(uintptr_t groups, int64_t num_groups, int64_t largest_n, int64_t texts,
                             const std::string &kind) {
  const bh_grouped_dense_args args{device<bh_dense_group>(groups), num_groups, largest_n, texts,
                                   parse_kind(kind)};
  bh_cuda_launch launch;
  if (bh_cuda_plan_grouped_dense(&args, &launch) != BH_OK) {
    raise_value("grouped_dense", "arguments that one launch cannot take",
                "what kernels/SPEC.md says under CUDA; pass fewer texts or groups");
  }
  return to_python(launch);
}

}  // namespace

void define_launches(nb::module_ &m) {
  m.def("plan_pool_and_pack", plan_pool_and_pack, nb::arg("layers"), nb::arg("dtype"),
        nb::arg("rows"), nb::arg("seq"), nb::arg("dim"), nb::arg("lengths"),
        nb::arg("token_offsets"), nb::arg("device_lengths"), nb::arg("device_token_offsets"),
        nb::arg("codes"), nb::arg("num_tokens"), nb::arg("quantization"), nb::arg("order"),
        nb::arg("layer_weights") = nb::none(), nb::arg("thresholds") = 0,
        nb::arg("inverse_scale") = 0, nb::arg("zero_point") = 0);
  m.def("plan_pool_positions", plan_pool_positions, nb::arg("states"), nb::arg("dtype"),
        nb::arg("rows"), nb::arg("seq"), nb::arg("dim"), nb::arg("lengths"),
        nb::arg("device_lengths"), nb::arg("pooling"), nb::arg("pooled"), nb::arg("pooled_stride"));
  m.def("pooled_dim", pooled_dim, nb::arg("dim"));
  m.def("lay_out_queries", lay_out_queries, nb::arg("queries"), nb::arg("quantization"));
  m.def("lay_out_dense", lay_out_dense, nb::arg("weights"));
  m.def("plan_attention_pool", plan_attention_pool, nb::arg("codes"), nb::arg("offsets"),
        nb::arg("texts"), nb::arg("quantization"), nb::arg("dim"), nb::arg("columns"),
        nb::arg("queries"), nb::arg("column_scale"), nb::arg("end_bias"), nb::arg("pooled"));
  m.def("plan_grouped_dense", plan_grouped_dense, nb::arg("groups"), nb::arg("num_groups"),
        nb::arg("largest_n"), nb::arg("texts"), nb::arg("kind"));
}

}  // namespace bitheads
