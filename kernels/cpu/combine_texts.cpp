// bh_combine_texts: two texts' vectors to the codes that a pair half reads. No level: this is
// little work beside that half's.
#include <cmath>
#include <cstring>
#include <limits>

#include "bitheads/kernels.h"
#include "default_floating_point.h"

namespace bitheads {
namespace {

constexpr float kLargest = std::numeric_limits<float>::max();
constexpr int64_t kChunk = 16;  // products of 2^26 that an int32 has room for

bool is_valid(const bh_combine_texts_args &args) noexcept {
  if (args.texts < 0 || args.size < 1 || args.size > BH_MAX_VECTOR_SIZE || args.num_pairs < 0) {
    return false;
  }
  if (args.num_pairs == 0) return true;
  if (args.vectors == nullptr || args.pairs == nullptr || args.codes == nullptr ||
      args.workspace == nullptr) {
    return false;
  }
  for (int64_t i = 0; i < 2 * args.num_pairs; ++i) {
    if (args.pairs[i] < 0 || args.pairs[i] >= args.texts) return false;
  }
  return true;
}

// Half to even: what is added leaves no bits for a fraction. |x| < 2^22.
float rounded(float x) noexcept {
  constexpr float kNoFraction = 12582912.0f;  // 1.5 * 2^23
  return (x + kNoFraction) - kNoFraction;
}

float finite(float x) noexcept {
  const float bounded = x > kLargest ? kLargest : (x < -kLargest ? -kLargest : x);
  return bounded == bounded ? bounded : 0.0f;
}

int64_t dot(const int16_t *a, const int16_t *b, int64_t size) noexcept {
  int64_t sum = 0;
  int64_t i = 0;
  for (; i + kChunk <= size; i += kChunk) {
    int32_t chunk = 0;
    for (int64_t j = i; j < i + kChunk; ++j) chunk += int32_t{a[j]} * int32_t{b[j]};
    sum += chunk;
  }
  for (; i < size; ++i) sum += int32_t{a[i]} * int32_t{b[i]};
  return sum;
}

// One text's vector as integers, and what makes its root mean square 1.
class FixedVector {
 public:
  FixedVector(int16_t *items, int64_t size) noexcept : items_(items), size_(size) {}

  // Of the text in this row; nothing to do if it is the one that is here.
  void take(const float *vectors, int64_t row) noexcept {
    if (row == row_) return;
    row_ = row;
    const float *vector = vectors + row * size_;
    // As integers magnitudes are in the same order, and their maximum needs no order of its own.
    int32_t largest = 0;
    for (int64_t i = 0; i < size_; ++i) {
      const int32_t magnitude = magnitude_bits(finite(vector[i]));
      largest = magnitude > largest ? magnitude : largest;
    }
    const float scale = power_of_two(largest == 0 ? 0 : exponent_for(largest));
    for (int64_t i = 0; i < size_; ++i) {
      items_[i] = static_cast<int16_t>(static_cast<int32_t>(rounded(finite(vector[i]) * scale)));
    }
    squares_ = dot(items_, items_, size_);
    if (squares_ == 0) {
      gain_ = 0;
      return;
    }
    gain_ = 1.0f / std::sqrt(static_cast<float>(squares_) / static_cast<float>(size_));
  }

  const int16_t *items() const noexcept { return items_; }
  int64_t squares() const noexcept { return squares_; }
  float at(int64_t i) const noexcept { return static_cast<float>(items_[i]) * gain_; }

 private:
  static int32_t magnitude_bits(float x) noexcept {
    int32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    return bits & std::numeric_limits<int32_t>::max();
  }

  // 12 - floor(log2 x), at most 100; a subnormal's exponent is below what the bound is for.
  static int32_t exponent_for(int32_t bits) noexcept {
    const int32_t exponent = 12 - ((bits >> 23) - 127);
    return exponent > 100 ? 100 : exponent;
  }

  // Of -115 to 100, so a normal number.
  static float power_of_two(int32_t exponent) noexcept {
    const uint32_t bits = static_cast<uint32_t>(exponent + 127) << 23;
    float x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
  }

  int16_t *items_;
  int64_t size_;
  int64_t row_ = -1;
  int64_t squares_ = 0;
  float gain_ = 0;
};

uint8_t clamped(float code) noexcept {
  const float least = code < 0.0f ? 0.0f : code;
  return static_cast<uint8_t>(static_cast<int32_t>(least > 255.0f ? 255.0f : least));
}

void write_cosine(const FixedVector &a, const FixedVector &b, int64_t size,
                  uint8_t *codes) noexcept {
  double cosine = 0;
  if (a.squares() != 0 && b.squares() != 0) {
    const auto product = static_cast<double>(dot(a.items(), b.items(), size));
    const double squares = static_cast<double>(a.squares()) * static_cast<double>(b.squares());
    cosine = product / std::sqrt(squares);
  }
  double step = std::nearbyint((cosine + 1.0) * 32767.5);
  step = step < 0 ? 0 : (step > 65535 ? 65535 : step);
  const auto number = static_cast<uint32_t>(step);
  codes[0] = static_cast<uint8_t>(number >> 8);
  codes[1] = static_cast<uint8_t>(number & 255);
}

void combine(const FixedVector &a, const FixedVector &b, int64_t size, uint8_t *codes) noexcept {
  uint8_t *first = codes;
  uint8_t *second = codes + size;
  uint8_t *difference = codes + 2 * size;
  uint8_t *product = codes + 3 * size;
  for (int64_t i = 0; i < size; ++i) first[i] = clamped(rounded(a.at(i) * 32.0f) + 128.0f);
  for (int64_t i = 0; i < size; ++i) second[i] = clamped(rounded(b.at(i) * 32.0f) + 128.0f);
  for (int64_t i = 0; i < size; ++i) {
    difference[i] = clamped(rounded(std::fabs(a.at(i) - b.at(i)) * 32.0f));
  }
  for (int64_t i = 0; i < size; ++i) {
    product[i] = clamped(rounded((a.at(i) * b.at(i)) * 8.0f) + 128.0f);
  }
  write_cosine(a, b, size, codes + 4 * size);
}

}  // namespace
}  // namespace bitheads

extern "C" {

bh_status bh_combine_texts(const bh_combine_texts_args *args) {
  if (args == nullptr || !bitheads::is_valid(*args)) return BH_INVALID_ARGUMENT;
  const bitheads::DefaultFloatingPoint scope;
  const int64_t size = args->size;
  bitheads::FixedVector a(args->workspace, size);
  bitheads::FixedVector b(args->workspace + size, size);
  for (int64_t pair = 0; pair < args->num_pairs; ++pair) {
    a.take(args->vectors, args->pairs[2 * pair]);
    b.take(args->vectors, args->pairs[2 * pair + 1]);
    bitheads::combine(a, b, size, args->codes + pair * (4 * size + 2));
  }
  return BH_OK;
}

}  // extern "C"
