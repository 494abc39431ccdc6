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

}  // namespace

void define_launches(nb::module_ &m) {
  m.def("plan_pool_and_pack", plan_pool_and_pack, nb::arg("layers"), nb::arg("dtype"),
        nb::arg("rows"), nb::arg("seq"), nb::arg("dim"), nb::arg("lengths"),
        nb::arg("token_offsets"), nb::arg("device_lengths"), nb::arg("device_token_offsets"),
        nb::arg("codes"), nb::arg("num_tokens"), nb::arg("quantization"), nb::arg("order"),
        nb::arg("layer_weights") = nb::none(), nb::arg("thresholds") = 0,
        nb::arg("inverse_scale") = 0, nb::arg("zero_point") = 0);
}

}  // namespace bitheads
