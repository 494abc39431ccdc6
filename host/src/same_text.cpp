#include "same_text.h"

#include <algorithm>
#include <random>

namespace bitheads {
namespace {

// Tokens with type id 0.
size_t num_first(const Tokens &text) {
  return std::min(text.num_first, text.ids.size());
}

struct SipKey {
  SipKey() {
    std::random_device random;
    for (uint64_t *half : {&low, &high}) *half = uint64_t{random()} << 32 | random();
  }
  uint64_t low = 0;
  uint64_t high = 0;
};

uint64_t rotate(uint64_t word, int bits) {
  return word << bits | word >> (64 - bits);
}

class SipHash {
 public:
  explicit SipHash(const SipKey &key)
      : v0_(key.low ^ 0x736f6d6570736575),
        v1_(key.high ^ 0x646f72616e646f6d),
        v2_(key.low ^ 0x6c7967656e657261),
        v3_(key.high ^ 0x7465646279746573) {}

  void add(uint64_t word) {
    v3_ ^= word;
    round();
    v0_ ^= word;
  }

  uint64_t finish() {
    v2_ ^= 0xff;
    for (int i = 0; i < 3; ++i) round();
    return v0_ ^ v1_ ^ v2_ ^ v3_;
  }

 private:
  void round() {
    v0_ += v1_;
    v2_ += v3_;
    v1_ = rotate(v1_, 13) ^ v0_;
    v3_ = rotate(v3_, 16) ^ v2_;
    v0_ = rotate(v0_, 32);
    v2_ += v1_;
    v0_ += v3_;
    v1_ = rotate(v1_, 17) ^ v2_;
    v3_ = rotate(v3_, 21) ^ v0_;
    v2_ = rotate(v2_, 32);
  }

  uint64_t v0_, v1_, v2_, v3_;
};

}  // namespace

bool are_same(const Tokens &a, const Tokens &b) {
  return num_first(a) == num_first(b) && a.ids == b.ids;
}

uint64_t hash_of(const Tokens &text) {
  static const SipKey key;
  SipHash hash(key);
  hash.add(uint64_t{text.ids.size()} << 32 | num_first(text));
  for (size_t i = 0; i < text.ids.size(); i += 2) {
    const auto first = static_cast<uint32_t>(text.ids[i]);
    const auto second = i + 1 < text.ids.size() ? static_cast<uint32_t>(text.ids[i + 1]) : 0;
    hash.add(uint64_t{first} << 32 | second);
  }
  return hash.finish();
}

}  // namespace bitheads
