// Makes calls of the kernels' C ABI that it reads from stdin, and writes what they gave to stdout;
// arm_calls.py writes the one and reads the other. The kernels run at the active level, whose name
// comes first. Every array ends where a page begins that no one may touch.
#include <sys/mman.h>
#include <unistd.h>

#include <cfenv>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "bitheads/kernels.h"

namespace {

[[noreturn]] void fail(const char *what) {
  std::fprintf(stderr, "run_calls: %s\n", what);
  std::exit(1);
}

void check(bh_status status) {
  if (status != BH_OK) fail(bh_status_message(status));
}

// Bytes whose last one is the last before a page that no one may touch.
class Guarded {
 public:
  explicit Guarded(int64_t bytes) : bytes_(static_cast<size_t>(bytes)) {
    const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    const size_t inner = (bytes_ + page - 1) / page * page;
    mapped_ = inner + page;
    memory_ = static_cast<uint8_t *>(
        mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (memory_ == MAP_FAILED || mprotect(memory_ + inner, page, PROT_NONE) != 0) fail("no memory");
    data_ = memory_ + inner - bytes_;
  }
  ~Guarded() { munmap(memory_, mapped_); }
  Guarded(const Guarded &) = delete;
  Guarded &operator=(const Guarded &) = delete;

  uint8_t *data() const { return data_; }
  size_t bytes() const { return bytes_; }

 private:
  size_t bytes_;
  size_t mapped_;
  uint8_t *memory_;
  uint8_t *data_;
};

using Array = std::unique_ptr<Guarded>;

void read_bytes(void *to, size_t bytes) {
  if (std::fread(to, 1, bytes, stdin) != bytes) fail("the calls end within one");
}

int64_t read_int() {
  int64_t value;
  read_bytes(&value, sizeof value);
  return value;
}

// An array is its number of bytes and they; null is -1.
Array read_array() {
  const int64_t bytes = read_int();
  if (bytes < 0) return nullptr;
  Array array = std::make_unique<Guarded>(bytes);
  read_bytes(array->data(), array->bytes());
  return array;
}

template <class Item>
Item *items(const Array &array) {
  return array == nullptr ? nullptr : reinterpret_cast<Item *>(array->data());
}

void write_array(const Array &array) {
  std::fwrite(array->data(), 1, array->bytes(), stdout);
}

// The floating-point mode of some callers: subnormals flushed, rounding up.
uint64_t odd_floating_point() {
#if defined(__aarch64__)
  uint64_t mode;
  __asm__ volatile("mrs %0, fpcr" : "=r"(mode));
  mode |= uint64_t{1} << 24 | uint64_t{1} << 22;
  __asm__ volatile("msr fpcr, %0" : : "r"(mode));
  return mode;
#else
  std::fesetround(FE_UPWARD);
  return FE_UPWARD;
#endif
}

uint64_t floating_point() {
#if defined(__aarch64__)
  uint64_t mode;
  __asm__ volatile("mrs %0, fpcr" : "=r"(mode));
  return mode;
#else
  return static_cast<uint64_t>(std::fegetround());
#endif
}

template <class Function>
void call(bool oddly, const Function &function) {
  if (!oddly) return check(function());
  std::fenv_t saved;
  std::fegetenv(&saved);
  const uint64_t mode = odd_floating_point();
  const bh_status status = function();
  const bool is_kept = floating_point() == mode;
  std::fesetenv(&saved);
  check(status);
  if (!is_kept) fail("a call did not put the caller's floating-point mode back");
}

void run_pool_and_pack() {
  bh_pool_and_pack_args args{};
  args.num_layers = read_int();
  args.dtype = static_cast<bh_dtype>(read_int());
  args.rows = read_int();
  args.seq = read_int();
  args.dim = read_int();
  args.quantization = static_cast<bh_quantization>(read_int());
  args.order = static_cast<bh_order>(read_int());
  args.num_tokens = read_int();
  const bool oddly = read_int() != 0;
  const int64_t times = read_int();
  std::vector<Array> arrays;
  std::vector<bh_layer> layers;
  for (int64_t i = 0; i < args.num_layers; ++i) {
    bh_layer layer{};
    layer.row_stride_bytes = read_int();
    layer.token_stride_bytes = read_int();
    const int64_t first = read_int();
    arrays.push_back(read_array());
    layer.data = arrays.back()->data() + first;
    layers.push_back(layer);
  }
  args.layers = layers.data();
  const Array lengths = read_array();
  const Array token_offsets = read_array();
  const Array layer_weights = read_array();
  const Array thresholds = read_array();
  const Array inverse_scale = read_array();
  const Array zero_point = read_array();
  const Array codes = read_array();
  args.lengths = items<int64_t>(lengths);
  args.token_offsets = items<int64_t>(token_offsets);
  args.layer_weights = items<float>(layer_weights);
  args.thresholds = items<float>(thresholds);
  args.inverse_scale = items<float>(inverse_scale);
  args.zero_point = items<float>(zero_point);
  args.codes = items<uint8_t>(codes);
  for (int64_t i = 0; i < times; ++i) {
    call(oddly, [&] { return bh_pool_and_pack(&args); });
  }
  write_array(codes);
}

// A block of bytes at a multiple of 64.
Array make_block(int64_t bytes) {
  Array block = std::make_unique<Guarded>((bytes + 63) / 64 * 64);
  std::memset(block->data(), 0xFF, block->bytes());
  return block;
}

Array read_head(bh_quantization quantization, int64_t dim, bool oddly, int64_t &classes) {
  bh_head_weights weights{};
  weights.quantization = quantization;
  weights.dim = dim;
  weights.position_pooling = static_cast<bh_position_pooling>(read_int());
  weights.attention_heads = read_int();
  weights.inner = read_int();
  weights.classes = classes = read_int();
  const Array query = read_array();
  const Array value = read_array();
  const Array dense = read_array();
  const Array dense_bias = read_array();
  const Array output = read_array();
  const Array output_bias = read_array();
  weights.query = items<float>(query);
  weights.value = items<float>(value);
  weights.dense = items<float>(dense);
  weights.dense_bias = items<float>(dense_bias);
  weights.output = items<float>(output);
  weights.output_bias = items<float>(output_bias);
  const int64_t bytes = bh_head_bytes(&weights);
  if (bytes < 0) fail("a head's sizes are refused");
  Array head = make_block(bytes);
  bh_head *laid_out = reinterpret_cast<bh_head *>(head->data());
  call(oddly, [&] { return bh_lay_out_head(&weights, laid_out); });
  return head;
}

void run_predict_heads() {
  bh_predict_heads_args args{};
  args.quantization = static_cast<bh_quantization>(read_int());
  args.dim = read_int();
  args.num_tokens = read_int();
  args.texts = read_int();
  args.num_heads = read_int();
  const bool oddly = read_int() != 0;
  const int64_t times = read_int();
  const Array codes = read_array();
  const Array offsets = read_array();
  args.codes = items<uint8_t>(codes);
  args.offsets = items<int64_t>(offsets);
  std::vector<Array> blocks;
  std::vector<Array> logits;
  std::vector<const bh_head *> heads;
  std::vector<float *> outputs;
  for (int64_t i = 0; i < args.num_heads; ++i) {
    int64_t classes = 0;
    blocks.push_back(read_head(args.quantization, args.dim, oddly, classes));
    heads.push_back(reinterpret_cast<bh_head *>(blocks.back()->data()));
    logits.push_back(std::make_unique<Guarded>(args.texts * classes * 4));
    outputs.push_back(items<float>(logits.back()));
  }
  args.heads = heads.data();
  args.logits = outputs.data();
  args.workspace_bytes = bh_predict_heads_workspace(&args);
  if (args.workspace_bytes < 0) fail("a call is refused");
  const Array workspace = make_block(args.workspace_bytes);
  args.workspace = workspace->data();
  for (int64_t i = 0; i < times; ++i) {
    call(oddly, [&] { return bh_predict_heads(&args); });
  }
  for (const Array &array : logits) write_array(array);
}

void run_floats_of_halves() {
  const int64_t count = read_int();
  const Array halves = read_array();
  const Array floats = std::make_unique<Guarded>(4 * count);
  check(bh_floats_of_halves(items<uint16_t>(halves), count, items<float>(floats), BH_LEVEL_ACTIVE));
  write_array(floats);
}

}  // namespace

int main() {
  bh_level level = BH_LEVEL_ACTIVE;
  check(bh_active_level(&level));
  std::printf("%s\n", bh_level_name(level));
  if (bh_run_dot_products(level, 1000) < 1000) fail("too few dot products were run");
  for (int kind = std::getchar(); kind != EOF; kind = std::getchar()) {
    switch (kind) {
      case 'p':
        run_pool_and_pack();
        break;
      case 'h':
        run_predict_heads();
        break;
      case 'f':
        run_floats_of_halves();
        break;
      default:
        fail("an unknown call");
    }
  }
  return std::fflush(stdout) == 0 ? 0 : 1;
}
