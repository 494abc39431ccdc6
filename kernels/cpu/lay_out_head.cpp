// bh_lay_out_head: the weights of a head as fixed-point numbers in the order of the kernels.
#include <cmath>
#include <cstring>
#include <limits>

#include "default_floating_point.h"
#include "dispatch.h"
#include "head_layout.h"
#include "lay_out_rows.h"

struct bh_head {
  uint64_t magic;
  int64_t bytes;
  bh_quantization quantization;
  bh_position_pooling position_pooling;
  int64_t dim;
  int64_t attention_heads;
  int64_t inner;
  int64_t classes;
};

namespace bitheads {
namespace {

constexpr uint64_t kMagic = 0x3164616568746962;  // "bithead1"
constexpr double kMaxWeight = 32767;
constexpr double kMaxRow = 1e30;
// A chunk's sum |q| stays below 2^18, 128 of it being what rounding may add.
constexpr double kMaxChunk = 262015;

// Hands out parts of the block, each at a multiple of 64 bytes.
class Parts {
 public:
  explicit Parts(const bh_head *head) noexcept
      : base_(reinterpret_cast<uint8_t *>(const_cast<bh_head *>(head))) {
    take<bh_head>(1);
  }

  template <class Item>
  Item *take(int64_t count) noexcept {
    uint8_t *part = base_ == nullptr ? nullptr : base_ + used_;
    used_ += round_up(count * static_cast<int64_t>(sizeof(Item)), kHeadAlignment);
    return reinterpret_cast<Item *>(part);
  }

  int64_t used() const noexcept { return used_; }

 private:
  uint8_t *base_;
  int64_t used_ = 0;
};

struct Sizes {
  bh_position_pooling position_pooling;
  int64_t dim;
  int64_t attention_heads;
  int64_t inner;
  int64_t classes;
};

MatrixView view_matrix(Parts &parts, int64_t groups, int64_t rows, int64_t depth) noexcept {
  MatrixView view{};
  view.panels = round_up(rows, kPanelRows) / kPanelRows;
  view.padded_depth = round_up(depth, kDepthMultiple);
  const int64_t padded_rows = groups * view.panels * kPanelRows;
  view.weights = parts.take<int16_t>(padded_rows * view.padded_depth);
  view.step = parts.take<float>(padded_rows);
  view.row_sum = parts.take<float>(padded_rows);
  view.bias = parts.take<float>(padded_rows);
  return view;
}

HeadView view_parts(Parts &parts, const Sizes &sizes) noexcept {
  HeadView view{};
  view.position_pooling = sizes.position_pooling;
  view.inner = sizes.inner;
  view.classes = sizes.classes;
  view.columns = 1;
  if (sizes.position_pooling == BH_ATTENTION) {
    view.columns = sizes.attention_heads;
    view.query = parts.take<int16_t>(view.columns * round_up(sizes.dim, kDepthMultiple));
    view.log2_step = parts.take<float>(view.columns);
    view.value = view_matrix(parts, view.columns, sizes.dim / view.columns, sizes.dim);
  }
  view.dense = view_matrix(parts, 1, sizes.inner, sizes.dim);
  view.output = view_matrix(parts, 1, sizes.classes, sizes.inner);
  return view;
}

bool is_size(int64_t n) noexcept {
  return n >= 1 && n <= kMaxHeadDim;
}

bool sizes_are_valid(bh_quantization quantization, const Sizes &sizes) noexcept {
  if (quantization != BH_SIGN && quantization != BH_UINT8) return false;
  if (!is_size(sizes.dim) || !is_size(sizes.inner) || !is_size(sizes.classes)) return false;
  const int64_t heads = sizes.attention_heads;
  switch (sizes.position_pooling) {
    case BH_ATTENTION:
      return is_size(heads) && sizes.dim % heads == 0;
    case BH_MEAN:
    case BH_CLS:
    case BH_LAST:
      return heads == 0;
  }
  return false;
}

bool pointers_are_valid(const bh_head_weights &weights) noexcept {
  const bool attends = weights.position_pooling == BH_ATTENTION;
  return (weights.query != nullptr) == attends && (weights.value != nullptr) == attends &&
         weights.dense != nullptr && weights.dense_bias != nullptr && weights.output != nullptr &&
         weights.output_bias != nullptr;
}

float round_up_to_float(double x) noexcept {
  const float nearest = static_cast<float>(x);
  return static_cast<double>(nearest) < x
             ? std::nextafterf(nearest, std::numeric_limits<float>::infinity())
             : nearest;
}

// Row `first` of `count` and those after it, as many as a panel takes.
Rows some_rows(const float *matrix, int64_t first, int64_t count, int64_t depth) noexcept {
  const int64_t rest = count - first;
  return {matrix + first * depth, rest < kPanelRows ? rest : kPanelRows, depth, depth};
}

bool lay_out_queries(const bh_head_weights &weights, const LayOutLoops &loops,
                     const HeadView &view) noexcept {
  const double code_size = weights.quantization == BH_SIGN ? 1 : 128;
  const double largest_score = 1073741823.0 - code_size * static_cast<double>(weights.dim);
  for (int64_t head = 0; head < weights.attention_heads; head += kPanelRows) {
    const Rows rows = some_rows(weights.query, head, weights.attention_heads, weights.dim);
    RowSums sums;
    loops.sum_rows(rows, sums);
    float step[kPanelRows] = {};
    for (int64_t i = 0; i < rows.count; ++i) {
      if (!(sums.absolute[i] <= kMaxRow)) return false;
      const double for_weight = sums.largest[i] / kMaxWeight;
      const double for_score = code_size * sums.absolute[i] / largest_score;
      step[i] = round_up_to_float(for_weight > for_score ? for_weight : for_score);
      const_cast<float *>(view.log2_step)[head + i] =
          static_cast<float>(static_cast<double>(step[i]) * 1.4426950408889634);
    }
    // Queries lie closer than the rows of a panel.
    int16_t *out = const_cast<int16_t *>(view.query) + 2 * head;
    for (int64_t first = 0; first < rows.depth; first += kChunk) {
      const int64_t count = first + kChunk < rows.depth ? kChunk : rows.depth - first;
      int16_t fixed[(kChunk / 2) * 2 * kPanelRows];
      loops.quantize_rows({rows.weights + first, rows.count, rows.stride, count}, step, fixed);
      for (int64_t i = 0; i < count; i += 2, out += 2 * view.columns) {
        std::memcpy(out, fixed + i * kPanelRows,
                    static_cast<size_t>(rows.count) * 2 * sizeof(int16_t));
      }
    }
  }
  return true;
}

bool lay_out_matrix(const float *matrix, const float *bias, int64_t groups, int64_t group_rows,
                    int64_t depth, const LayOutLoops &loops, const MatrixView &view) noexcept {
  for (int64_t panel = 0; panel < groups * view.panels; ++panel) {
    const int64_t first = panel % view.panels * kPanelRows;  // of its group
    const float *group = matrix + panel / view.panels * group_rows * depth;
    const Rows rows = some_rows(group, first, group_rows, depth);
    RowSums sums;
    loops.sum_rows(rows, sums);
    float *step = const_cast<float *>(view.step) + panel * kPanelRows;
    for (int64_t i = 0; i < rows.count; ++i) {
      if (!(sums.absolute[i] <= kMaxRow)) return false;
      const double for_weight = sums.largest[i] / kMaxWeight;
      const double for_chunk = sums.largest_chunk[i] / kMaxChunk;
      step[i] = round_up_to_float(for_weight > for_chunk ? for_weight : for_chunk);
      const_cast<float *>(view.row_sum)[panel * kPanelRows + i] = static_cast<float>(sums.plain[i]);
      if (bias != nullptr) {
        if (!std::isfinite(bias[first + i])) return false;
        const_cast<float *>(view.bias)[panel * kPanelRows + i] = bias[first + i];
      }
    }
    loops.quantize_rows(
        rows, step, const_cast<int16_t *>(view.weights) + panel * kPanelRows * view.padded_depth);
  }
  return true;
}

int64_t laid_out_bytes(const Sizes &sizes) noexcept {
  Parts parts(nullptr);
  view_parts(parts, sizes);
  return parts.used();
}

Sizes sizes_of(const bh_head_weights &weights) noexcept {
  return {weights.position_pooling, weights.dim, weights.attention_heads, weights.inner,
          weights.classes};
}

Sizes sizes_of(const bh_head &head) noexcept {
  return {head.position_pooling, head.dim, head.attention_heads, head.inner, head.classes};
}

bool weights_are_valid(const bh_head_weights *weights) noexcept {
  return weights != nullptr && sizes_are_valid(weights->quantization, sizes_of(*weights));
}

bool is_laid_out(const bh_head *head) noexcept {
  return head != nullptr && reinterpret_cast<uintptr_t>(head) % kHeadAlignment == 0 &&
         head->magic == kMagic && sizes_are_valid(head->quantization, sizes_of(*head)) &&
         head->bytes == laid_out_bytes(sizes_of(*head));
}

}  // namespace

int64_t round_up(int64_t n, int64_t multiple) noexcept {
  return (n + multiple - 1) / multiple * multiple;
}

bool head_fits(const bh_head *head, int64_t dim, bh_quantization quantization) noexcept {
  return is_laid_out(head) && head->dim == dim && head->quantization == quantization;
}

HeadView view_head(const bh_head *head) noexcept {
  Parts parts(head);
  return view_parts(parts, sizes_of(*head));
}

}  // namespace bitheads

extern "C" {

int64_t bh_head_bytes(const bh_head_weights *weights) {
  if (!bitheads::weights_are_valid(weights)) return -1;
  return bitheads::laid_out_bytes(bitheads::sizes_of(*weights));
}

bh_status bh_laid_out_head_sizes(const bh_head *head, bh_head_weights *sizes) {
  if (sizes == nullptr || !bitheads::is_laid_out(head)) return BH_INVALID_ARGUMENT;
  *sizes = {};
  sizes->quantization = head->quantization;
  sizes->position_pooling = head->position_pooling;
  sizes->dim = head->dim;
  sizes->attention_heads = head->attention_heads;
  sizes->inner = head->inner;
  sizes->classes = head->classes;
  return BH_OK;
}

bh_status bh_lay_out_head(const bh_head_weights *weights, bh_head *head) {
  if (head == nullptr || !bitheads::weights_are_valid(weights) ||
      !bitheads::pointers_are_valid(*weights) ||
      reinterpret_cast<uintptr_t>(head) % bitheads::kHeadAlignment != 0) {
    return BH_INVALID_ARGUMENT;
  }
  const bitheads::KernelTable *kernels;
  const bh_status status = bitheads::find_kernels(weights->level, &kernels);
  if (status != BH_OK) return status;
  const bitheads::LayOutLoops &loops = *kernels->lay_out;
  const bitheads::DefaultFloatingPoint scope;
  const bitheads::Sizes sizes = bitheads::sizes_of(*weights);
  const int64_t bytes = bitheads::laid_out_bytes(sizes);
  std::memset(static_cast<void *>(head), 0, static_cast<size_t>(bytes));
  bitheads::Parts parts(head);
  const bitheads::HeadView view = bitheads::view_parts(parts, sizes);
  if (weights->position_pooling == BH_ATTENTION) {
    if (!bitheads::lay_out_queries(*weights, loops, view) ||
        !bitheads::lay_out_matrix(weights->value, nullptr, weights->attention_heads,
                                  weights->dim / weights->attention_heads, weights->dim, loops,
                                  view.value)) {
      return BH_INVALID_ARGUMENT;
    }
  }
  if (!bitheads::lay_out_matrix(weights->dense, weights->dense_bias, 1, weights->inner,
                                weights->dim, loops, view.dense) ||
      !bitheads::lay_out_matrix(weights->output, weights->output_bias, 1, weights->classes,
                                weights->inner, loops, view.output)) {
    return BH_INVALID_ARGUMENT;
  }
  // Last: a block that was refused half way is no head.
  *head = {bitheads::kMagic,      bytes,
           weights->quantization, weights->position_pooling,
           weights->dim,          weights->attention_heads,
           weights->inner,        weights->classes};
  return BH_OK;
}

bh_status bh_floats_of_halves(const uint16_t *halves, int64_t count, float *floats,
                              bh_level level) {
  if (count < 0 || (count > 0 && (halves == nullptr || floats == nullptr))) {
    return BH_INVALID_ARGUMENT;
  }
  const bitheads::KernelTable *kernels;
  const bh_status status = bitheads::find_kernels(level, &kernels);
  if (status != BH_OK) return status;
  const bitheads::DefaultFloatingPoint scope;
  kernels->lay_out->floats_of_halves(halves, count, floats);
  return BH_OK;
}

}  // extern "C"
