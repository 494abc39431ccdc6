// bh_lay_out_head: the weights of a head as fixed-point numbers in the order of the kernels.
#include <cmath>
#include <cstring>
#include <limits>

#include "default_floating_point.h"
#include "head_layout.h"

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

struct RowSums {
  double largest = 0;        // max |w|
  double largest_chunk = 0;  // max over chunks of sum |w|
  double absolute = 0;       // sum |w|
  double plain = 0;          // sum w
};

// max |w|, NaN above all: the magnitudes of floats are in the order of their bits.
float largest_of(const float *row, int64_t depth) noexcept {
  uint32_t largest = 0;
  for (int64_t j = 0; j < depth; ++j) {
    uint32_t bits;
    std::memcpy(&bits, row + j, sizeof bits);
    bits &= 0x7FFFFFFF;
    largest = bits > largest ? bits : largest;
  }
  float size;
  std::memcpy(&size, &largest, sizeof size);
  return size;
}

RowSums sum_row(const float *row, int64_t depth) noexcept {
  RowSums sums;
  sums.largest = largest_of(row, depth);
  for (int64_t first = 0; first < depth; first += kChunk) {
    const int64_t last = first + kChunk < depth ? first + kChunk : depth;
    double chunk = 0;
    for (int64_t j = first; j < last; ++j) {
      const double weight = row[j];
      const double size = std::fabs(weight);
      chunk += size;
      sums.absolute += size;
      sums.plain += weight;
    }
    sums.largest_chunk = chunk > sums.largest_chunk ? chunk : sums.largest_chunk;
  }
  return sums;
}

float round_up_to_float(double x) noexcept {
  const float nearest = static_cast<float>(x);
  return static_cast<double>(nearest) < x
             ? std::nextafterf(nearest, std::numeric_limits<float>::infinity())
             : nearest;
}

// Half to even, |x| < 2^51: what is added leaves no bits for a fraction.
double round_to_integer(double x) noexcept {
  constexpr double kNoFraction = 6755399441055744.0;  // 1.5 * 2^52
  return (x + kNoFraction) - kNoFraction;
}

// Pair i of the row's features goes to out + i * pair_stride.
void quantize_row(const float *row, int64_t depth, float step, int16_t *out,
                  int64_t pair_stride) noexcept {
  if (step == 0) return;  // the block is zeros already
  const double divisor = step;
  for (int64_t first = 0; first < depth; first += kChunk) {
    const int64_t count = first + kChunk < depth ? kChunk : depth - first;
    int16_t fixed[kChunk + 1] = {};  // the partner of an odd last one is 0
    for (int64_t i = 0; i < count; ++i) {
      const double quotient = static_cast<double>(row[first + i]) / divisor;
      fixed[i] = static_cast<int16_t>(static_cast<int32_t>(round_to_integer(quotient)));
    }
    for (int64_t i = 0; i < count; i += 2, out += pair_stride) {
      std::memcpy(out, fixed + i, 2 * sizeof(int16_t));
    }
  }
}

bool lay_out_queries(const bh_head_weights &weights, const HeadView &view) noexcept {
  const double code_size = weights.quantization == BH_SIGN ? 1 : 128;
  const double largest_score = 1073741823.0 - code_size * static_cast<double>(weights.dim);
  for (int64_t head = 0; head < weights.attention_heads; ++head) {
    const float *row = weights.query + head * weights.dim;
    const RowSums sums = sum_row(row, weights.dim);
    if (!(sums.absolute <= kMaxRow)) return false;
    const double for_weight = sums.largest / kMaxWeight;
    const double for_score = code_size * sums.absolute / largest_score;
    const float step = round_up_to_float(for_weight > for_score ? for_weight : for_score);
    const_cast<float *>(view.log2_step)[head] =
        static_cast<float>(static_cast<double>(step) * 1.4426950408889634);
    quantize_row(row, weights.dim, step, const_cast<int16_t *>(view.query) + 2 * head,
                 2 * view.columns);
  }
  return true;
}

bool lay_out_matrix(const float *rows, const float *bias, int64_t groups, int64_t group_rows,
                    int64_t depth, const MatrixView &view) noexcept {
  for (int64_t group = 0; group < groups; ++group) {
    for (int64_t i = 0; i < group_rows; ++i) {
      const float *row = rows + (group * group_rows + i) * depth;
      const RowSums sums = sum_row(row, depth);
      if (!(sums.absolute <= kMaxRow)) return false;
      const double for_weight = sums.largest / kMaxWeight;
      const double for_chunk = sums.largest_chunk / kMaxChunk;
      const float step = round_up_to_float(for_weight > for_chunk ? for_weight : for_chunk);
      const int64_t panel = group * view.panels + i / kPanelRows;
      const int64_t lane = panel * kPanelRows + i % kPanelRows;
      const_cast<float *>(view.step)[lane] = step;
      const_cast<float *>(view.row_sum)[lane] = static_cast<float>(sums.plain);
      if (bias != nullptr) {
        if (!std::isfinite(bias[i])) return false;
        const_cast<float *>(view.bias)[lane] = bias[i];
      }
      quantize_row(row, depth, step,
                   const_cast<int16_t *>(view.weights) + panel * kPanelRows * view.padded_depth +
                       2 * (i % kPanelRows),
                   2 * kPanelRows);
    }
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
  const bitheads::DefaultFloatingPoint scope;
  const bitheads::Sizes sizes = bitheads::sizes_of(*weights);
  const int64_t bytes = bitheads::laid_out_bytes(sizes);
  std::memset(static_cast<void *>(head), 0, static_cast<size_t>(bytes));
  bitheads::Parts parts(head);
  const bitheads::HeadView view = bitheads::view_parts(parts, sizes);
  if (weights->position_pooling == BH_ATTENTION) {
    if (!bitheads::lay_out_queries(*weights, view) ||
        !bitheads::lay_out_matrix(weights->value, nullptr, weights->attention_heads,
                                  weights->dim / weights->attention_heads, weights->dim,
                                  view.value)) {
      return BH_INVALID_ARGUMENT;
    }
  }
  if (!bitheads::lay_out_matrix(weights->dense, weights->dense_bias, 1, weights->inner,
                                weights->dim, view.dense) ||
      !bitheads::lay_out_matrix(weights->output, weights->output_bias, 1, weights->classes,
                                weights->inner, view.output)) {
    return BH_INVALID_ARGUMENT;
  }
  // Last: a block that was refused half way is no head.
  *head = {bitheads::kMagic,      bytes,
           weights->quantization, weights->position_pooling,
           weights->dim,          weights->attention_heads,
           weights->inner,        weights->classes};
  return BH_OK;
}

}  // extern "C"
