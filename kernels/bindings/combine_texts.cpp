// Pairs of texts for Python: their vectors become codes.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>

#include "arguments.h"
#include "bitheads/kernels.h"
#include "buffer.h"

namespace bitheads {
namespace {

// The rows of both texts of each pair, as they are now, whatever other threads do to them later.
std::vector<int64_t> valid_pairs(const Buffer &pairs, int64_t texts) {
  const auto *items = pairs.items<int64_t>({-1, 2}, "pairs, 2", "lq", "int64");
  std::vector<int64_t> rows(items, items + 2 * pairs.shape(0));
  for (size_t i = 0; i < rows.size(); ++i) {
    if (rows[i] < 0 || rows[i] >= texts) {
      raise_value("pairs[" + std::to_string(i / 2) + "]", std::to_string(rows[i]),
                  "rows of vectors, 0 to " + std::to_string(texts - 1));
    }
  }
  return rows;
}

void combine_texts(nb::object vectors, nb::object pairs, nb::object codes) {
  const Buffer from(vectors, "vectors");
  bh_combine_texts_args args{};
  args.vectors = from.items<float>({-1, -1}, "texts, size", "f", "float32");
  args.texts = from.shape(0);
  args.size = from.shape(1);
  if (args.size < 1 || args.size > BH_MAX_VECTOR_SIZE) {
    raise_value("vectors", from.shape_text(),
                "1 to " + std::to_string(BH_MAX_VECTOR_SIZE) + " numbers a text");
  }
  const std::vector<int64_t> rows = valid_pairs(Buffer(pairs, "pairs"), args.texts);
  args.pairs = rows.data();
  args.num_pairs = static_cast<int64_t>(rows.size() / 2);
  const Buffer to(codes, "codes", true);
  args.codes = const_cast<uint8_t *>(
      to.items<uint8_t>({args.num_pairs, 4 * args.size + 2}, "pairs, 4 * size + 2", "B", "uint8"));
  Overlaps overlaps;
  overlaps.add(from, false);
  overlaps.add(to, true);
  overlaps.require_none();
  std::vector<int16_t> workspace(static_cast<size_t>(2 * args.size));
  args.workspace = workspace.data();
  bh_status status;
  {
    const nb::gil_scoped_release unlocked;
    status = bh_combine_texts(&args);
  }
  if (status != BH_OK) raise_value("combine_texts", "a refusal", bh_status_message(status));
}

}  // namespace

void define_combine_texts(nb::module_ &m) {
  m.attr("MAX_VECTOR_SIZE") = BH_MAX_VECTOR_SIZE;
  m.def("combine_texts", combine_texts, nb::arg("vectors"), nb::arg("pairs"), nb::arg("codes"));
}

}  // namespace bitheads
