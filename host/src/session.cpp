#include "session.h"

#include <algorithm>
#include <limits>

#include "error.h"

namespace bitheads {
namespace {

// How many kernels OpenVINO keeps, one per shape; see engine/sessions/openvino.py.
constexpr int kKeptShapes = 96;

// Features of a token that share a step in int8_dynamic: INT8_GROUP of engine/bundle.py.
constexpr uint64_t kInt8Group = 64;

bool is_quantized(const std::string &precision) {
  return precision == "int8" || precision == "int8_dynamic";
}

// A lookup past a table's end is undefined, so token ids are compared with its rows.
int64_t find_vocabulary(const ov::Output<const ov::Node> &ids) {
  int64_t rows = std::numeric_limits<int64_t>::max();
  for (const auto &target : ids.get_target_inputs()) {
    const ov::Node *node = target.get_node();
    const std::string type = node->get_type_name();
    if (type == "Convert") {
      rows = std::min(rows, find_vocabulary(node->output(0)));
    } else if (type == "Gather" && target.get_index() == 1 &&
               node->get_input_partial_shape(0).rank().is_static() &&
               node->get_input_partial_shape(0)[0].is_static()) {
      rows = std::min(rows, node->get_input_partial_shape(0)[0].get_length());
    }
  }
  return rows;
}

TableRows find_table_rows(const ov::Model &model) {
  TableRows rows;
  for (const auto &input : model.inputs()) {
    if (input.get_any_name() == "input_ids") {
      rows.vocabulary = find_vocabulary(input);
    } else if (input.get_any_name() == "token_type_ids") {
      rows.token_types = find_vocabulary(input);
    }
  }
  return rows;
}

ov::AnyMap find_properties(ov::Core &core, const GraphOptions &options) {
  ov::AnyMap properties = cpu_properties(options.threads);
  properties.insert(ov::hint::performance_mode(options.has_lanes
                                                   ? ov::hint::PerformanceMode::THROUGHPUT
                                                   : ov::hint::PerformanceMode::LATENCY));
  properties["CPU_RUNTIME_CACHE_CAPACITY"] = kKeptShapes;
  if (options.precision == "fp32") {
    properties.insert(ov::hint::inference_precision(ov::element::f32));
  } else if (options.precision == "bf16") {
    if (!has_bf16(core)) {
      fail(Status::backend,
           "precision: got 'bf16', but this processor has no bfloat16 arithmetic. Pass 'auto' or "
           "'fp32'.");
    }
    properties.insert(ov::hint::inference_precision(ov::element::bf16));
  } else if (options.precision == "int8") {
    properties.insert(
        ov::hint::inference_precision(has_bf16(core) ? ov::element::bf16 : ov::element::f32));
  } else if (options.precision == "int8_dynamic") {  // see engine/sessions/openvino.py
    properties.insert(ov::hint::inference_precision(ov::element::f32));
    properties.insert(ov::hint::dynamic_quantization_group_size(kInt8Group));
  }
  return properties;
}

std::string find_precision(const ov::CompiledModel &compiled, const std::string &asked) {
  if (is_quantized(asked)) return asked;
  const std::string type = compiled.get_property(ov::hint::inference_precision).to_string();
  return type == "f32" ? "fp32" : type == "f16" ? "fp16" : type;
}

}  // namespace

bool has_bf16(ov::Core &core) {
  const auto can = core.get_property("CPU", ov::device::capabilities);
  return std::find(can.begin(), can.end(), "BF16") != can.end();
}

ov::AnyMap cpu_properties(int threads) {
  ov::AnyMap properties{ov::hint::enable_cpu_pinning(false)};
  if (threads > 0) properties.insert(ov::inference_num_threads(threads));
  return properties;
}

TableRows find_table_rows(ov::Core &core, const fs::path &graph) {
  try {
    return find_table_rows(*core.read_model(graph.string()));
  } catch (const std::exception &error) {
    fail(Status::backend, "openvino cannot load ", graph, ": ", error.what(),
         ". Export the bundle again.");
  }
}

Session::Session(ov::Core &core, const GraphOptions &options) {
  const ov::AnyMap properties = find_properties(core, options);
  try {
    const std::shared_ptr<const ov::Model> model = core.read_model(options.graph.string());
    for (const auto &input : model->inputs()) inputs_.push_back(input.get_any_name());
    rows_ = find_table_rows(*model);
    compiled_ = core.compile_model(model, "CPU", properties);
    precision_ = find_precision(compiled_, options.precision);
    const uint32_t count =
        options.has_lanes ? compiled_.get_property(ov::optimal_number_of_infer_requests) : 1;
    for (uint32_t i = 0; i < std::max(1U, count); ++i) {
      requests_.push_back(compiled_.create_infer_request());
      free_.push_back(i);
    }
  } catch (const std::exception &error) {
    fail(Status::backend, "openvino cannot load ", options.graph, ": ", error.what(),
         ". Export the bundle again.");
  }
}

void Session::with_request(const std::function<void(ov::InferRequest &)> &work) {
  std::unique_lock<std::mutex> hold(lock_);
  is_free_.wait(hold, [&] { return !free_.empty(); });
  const size_t chosen = free_.back();
  free_.pop_back();
  hold.unlock();
  const auto give_back = [&] {
    const std::lock_guard<std::mutex> again(lock_);
    free_.push_back(chosen);
    is_free_.notify_one();
  };
  try {
    work(requests_[chosen]);
  } catch (...) {
    give_back();
    throw;
  }
  give_back();
}

}  // namespace bitheads
