// bh_predict_heads: every argument is checked here, once, and the call is cut into blocks.
#include "default_floating_point.h"
#include "dispatch.h"
#include "head_layout.h"
#include "predict_heads_plan.h"

namespace bitheads {
namespace {

// Enough texts that reading a head's weights once per block costs little beside the arithmetic, few
// enough that what they pool stays in the cache; a multiple of the rows of every level's tiles.
constexpr int64_t kBlockTexts = 60;
constexpr int64_t kBlockTokens = 8192;
constexpr int64_t kBlockCodes = int64_t{8} << 20;  // bytes of unpacked rows, and of pooled codes
constexpr int64_t kGroupColumns = 128;

// Where the next array goes in the workspace.
class Offsets {
 public:
  int64_t take(int64_t items, int64_t item_bytes) noexcept {
    const int64_t offset = used_;
    used_ += round_up(items * item_bytes, kHeadAlignment);
    return offset;
  }
  int64_t used() const noexcept { return used_; }

 private:
  int64_t used_ = 0;
};

int64_t smaller(int64_t a, int64_t b) noexcept {
  return a < b ? a : b;
}

int64_t larger(int64_t a, int64_t b) noexcept {
  return a > b ? a : b;
}

PredictHeadsPlan make_plan(const bh_predict_heads_args &args) noexcept {
  const bool is_sign = args.quantization == BH_SIGN;
  int64_t longest = 1;
  for (int64_t text = 0; text < args.texts; ++text) {
    longest = larger(longest, args.offsets[text + 1] - args.offsets[text]);
  }
  int64_t columns = 0;
  int64_t widest = 1;
  int64_t inner = 1;
  for (int64_t i = 0; i < args.num_heads; ++i) {
    const HeadView head = view_head(args.heads[i]);
    columns += head.columns;
    widest = larger(widest, head.columns);
    inner = larger(inner, head.inner);
  }
  PredictHeadsPlan plan{};
  plan.padded_dim = round_up(args.dim, kDepthMultiple);
  plan.row_stride = plan.padded_dim + kRowPadding;
  plan.padded_inner = round_up(inner, kDepthMultiple);
  plan.row_bytes = is_sign ? plan.padded_dim / 8 : plan.padded_dim;
  plan.pass_columns = is_sign ? kSignColumns : kUint8Columns;
  plan.group_columns = round_up(larger(widest, smaller(columns, kGroupColumns)), kPanelRows);
  const int64_t text_bytes = 2 * (plan.pass_columns + 4) * (plan.padded_dim + plan.padded_inner);
  plan.block_texts = larger(1, smaller(smaller(args.texts, kBlockTexts), kBlockCodes / text_bytes));
  const int64_t token_bytes = plan.row_bytes + 4 * plan.group_columns;
  plan.block_tokens = smaller(kBlockTokens, kBlockCodes / token_bytes);
  plan.block_tokens = larger(longest, smaller(plan.block_tokens, plan.block_texts * longest));

  const int64_t block = plan.block_texts;
  const int64_t block_columns = block * plan.group_columns;
  const int64_t words = plan.block_tokens / (is_sign ? kWordTokens : 2) + block;
  const int64_t table_items = is_sign ? (longest / kWordTokens + 1) * 5 * 16 : (longest + 1) / 2;
  Offsets offsets;
  plan.rows = offsets.take(plan.block_tokens * plan.row_bytes, 1);
  plan.transposed = offsets.take(words * plan.padded_dim, 2);
  plan.wide = offsets.take(smaller(kWideTokens, longest) * plan.row_stride, 2);
  plan.queries = offsets.take(plan.group_columns * plan.padded_dim, 2);
  plan.log2_step = offsets.take(plan.group_columns, 4);
  plan.scores = offsets.take(longest * plan.group_columns, 4);
  plan.weights = offsets.take((plan.block_tokens + 1) * plan.group_columns, 4);
  plan.half = offsets.take(block_columns, 4);
  plan.shift = offsets.take(block_columns, 4);
  plan.alpha = offsets.take(block_columns, 4);
  plan.beta = offsets.take(block_columns, 4);
  plan.tables = offsets.take(table_items * plan.pass_columns, 4);
  plan.pooled = offsets.take(block * plan.pass_columns * plan.row_stride, 2);
  plan.values = offsets.take(block * (plan.padded_dim + kPanelRows), 4);
  plan.fixed = offsets.take(block * plan.row_stride, 2);
  plan.hidden = offsets.take(block * (plan.padded_inner + kRowPadding), 2);
  plan.row_alpha = offsets.take(block, 4);
  plan.row_beta = offsets.take(block, 4);
  plan.sums = offsets.take(block * 2 * kPanelRows, 4);
  plan.bytes = offsets.used();
  return plan;
}

bool sizes_are_valid(const bh_predict_heads_args &args) noexcept {
  return (args.quantization == BH_SIGN || args.quantization == BH_UINT8) && args.dim >= 1 &&
         args.dim <= kMaxHeadDim && args.num_tokens >= 0 && args.texts >= 0 && args.num_heads >= 0;
}

bool texts_are_valid(const bh_predict_heads_args &args) noexcept {
  if (args.texts == 0) return true;
  if (args.offsets == nullptr || args.offsets[0] < 0) return false;
  for (int64_t text = 0; text < args.texts; ++text) {
    const int64_t first = args.offsets[text];
    const int64_t last = args.offsets[text + 1];
    if (last <= first || last - first > BH_MAX_TEXT_TOKENS || last > args.num_tokens) return false;
  }
  return args.codes != nullptr;
}

bool heads_are_valid(const bh_predict_heads_args &args) noexcept {
  if (args.num_heads > 0 && args.heads == nullptr) return false;
  for (int64_t i = 0; i < args.num_heads; ++i) {
    if (!head_fits(args.heads[i], args.dim, args.quantization)) return false;
  }
  return true;
}

bool inputs_are_valid(const bh_predict_heads_args *args) noexcept {
  return args != nullptr && sizes_are_valid(*args) && texts_are_valid(*args) &&
         heads_are_valid(*args);
}

bool outputs_are_valid(const bh_predict_heads_args &args, int64_t bytes) noexcept {
  if (args.num_heads == 0 || args.texts == 0) return true;
  if (args.logits == nullptr || args.workspace == nullptr || args.workspace_bytes < bytes ||
      reinterpret_cast<uintptr_t>(args.workspace) % kHeadAlignment != 0) {
    return false;
  }
  for (int64_t i = 0; i < args.num_heads; ++i) {
    if (args.logits[i] == nullptr) return false;
    if (reinterpret_cast<uintptr_t>(args.logits[i]) % alignof(float) != 0) return false;
  }
  return true;
}

}  // namespace
}  // namespace bitheads

extern "C" {

int64_t bh_predict_heads_workspace(const bh_predict_heads_args *args) {
  if (!bitheads::inputs_are_valid(args)) return -1;
  return bitheads::make_plan(*args).bytes;
}

bh_status bh_predict_heads(const bh_predict_heads_args *args) {
  if (!bitheads::inputs_are_valid(args)) return BH_INVALID_ARGUMENT;
  const bitheads::PredictHeadsPlan plan = bitheads::make_plan(*args);
  if (!bitheads::outputs_are_valid(*args, plan.bytes)) return BH_INVALID_ARGUMENT;
  const bitheads::KernelTable *kernels = nullptr;
  const bh_status status = bitheads::find_kernels(args->level, &kernels);
  if (status != BH_OK) return status;
  if (args->num_heads == 0 || args->texts == 0) return BH_OK;
  const bitheads::DefaultFloatingPoint scope;
  kernels->predict_heads({*args, plan});
  return BH_OK;
}

int64_t bh_run_dot_products(bh_level level, int64_t multiply_adds) {
  const bitheads::KernelTable *kernels = nullptr;
  if (bitheads::find_kernels(level, &kernels) != BH_OK) return -1;
  return kernels->run_dot_products(multiply_adds);
}

}  // extern "C"
