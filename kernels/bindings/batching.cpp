// Batches of texts for Python: which go through the encoder together, and how long they are then.
#include <nanobind/nanobind.h>

#include <algorithm>

#include "arguments.h"
#include "bitheads/kernels.h"
#include "buffer.h"

namespace bitheads {
namespace {

int64_t *written(const Buffer &buffer, int64_t size, const char *dimension) {
  buffer.vector<int64_t>(size, dimension, "lq", "int64");
  return static_cast<int64_t *>(buffer.data());
}

// A copy, which no other thread changes while it is sorted.
std::vector<int64_t> valid_lengths(nb::handle array) {
  const Buffer buffer(array, "lengths");
  buffer.require_shape({-1}, "texts");
  std::vector<int64_t> lengths = buffer.copied<int64_t>(buffer.shape(0), "texts", "lq", "int64");
  for (size_t text = 0; text < lengths.size(); ++text) {
    if (lengths[text] < 0 || lengths[text] > BH_MAX_BATCH_LENGTH) {
      raise_value("lengths[" + std::to_string(text) + "]", std::to_string(lengths[text]),
                  "0 to " + std::to_string(BH_MAX_BATCH_LENGTH) + " tokens");
    }
  }
  return lengths;
}

void round_lengths(nb::object lengths, int64_t max_length, nb::object rounded) {
  const std::vector<int64_t> its_lengths = valid_lengths(lengths);
  const auto texts = static_cast<int64_t>(its_lengths.size());
  const Buffer out(rounded, "rounded", true);
  const bh_status status =
      bh_round_lengths(its_lengths.data(), texts, max_length, written(out, texts, "texts"));
  if (status != BH_OK) raise_value("round_lengths", "a refusal", bh_status_message(status));
}

int64_t cut_batches(nb::object lengths, int64_t max_batch_tokens, int64_t call_tokens,
                    nb::object order, nb::object batch_offsets) {
  if (max_batch_tokens < 1) {
    raise_value("max_batch_tokens", std::to_string(max_batch_tokens), "at least 1");
  }
  if (call_tokens < 0 || call_tokens > BH_MAX_BATCH_LENGTH) {
    raise_value("call_tokens", std::to_string(call_tokens),
                "0 to " + std::to_string(BH_MAX_BATCH_LENGTH));
  }
  const std::vector<int64_t> its_lengths = valid_lengths(lengths);
  const auto texts = static_cast<int64_t>(its_lengths.size());
  const Buffer order_out(order, "order", true);
  const Buffer offsets_out(batch_offsets, "batch_offsets", true);
  // What is sorted and read back is nobody else's either.
  std::vector<int64_t> its_order(its_lengths.size());
  std::vector<int64_t> its_offsets(its_lengths.size() + 1);
  std::vector<int64_t> workspace(its_lengths.size() + 1);
  int64_t num_batches = 0;
  bh_cut_batches_args args{};
  args.lengths = its_lengths.data();
  args.texts = texts;
  args.max_batch_tokens = max_batch_tokens;
  args.call_tokens = call_tokens;
  args.order = its_order.data();
  args.batch_offsets = its_offsets.data();
  args.num_batches = &num_batches;
  args.workspace = workspace.data();
  int64_t *to_order = written(order_out, texts, "texts");
  int64_t *to_offsets = written(offsets_out, texts + 1, "texts + 1");
  bh_status status;
  {
    const nb::gil_scoped_release unlocked;
    status = bh_cut_batches(&args);
  }
  if (status != BH_OK) raise_value("cut_batches", "a refusal", bh_status_message(status));
  std::copy(its_order.begin(), its_order.end(), to_order);
  std::copy(its_offsets.begin(), its_offsets.begin() + num_batches + 1, to_offsets);
  return num_batches;
}

}  // namespace

void define_batching(nb::module_ &m) {
  m.def("round_lengths", round_lengths, nb::arg("lengths"), nb::arg("max_length"),
        nb::arg("rounded"));
  m.def("cut_batches", cut_batches, nb::arg("lengths"), nb::arg("max_batch_tokens"),
        nb::arg("call_tokens"), nb::arg("order"), nb::arg("batch_offsets"));
}

}  // namespace bitheads
