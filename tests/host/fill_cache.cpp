// What the host's cache holds, by the allocator's own count: fill_cache SITUATION. Also built with
// the address sanitizer, of which the counts are not compared.
#include <malloc.h>

#include <chrono>
#include <cstdio>
#include <cstring>
#include <memory>

#include "codes_cache.h"
#include "same_text.h"

namespace {

using bitheads::CodesCache;
using bitheads::hash_of;
using bitheads::Kept;
using bitheads::Tokens;

Tokens make_text(size_t number, size_t num_tokens = 3) {
  Tokens text;
  for (size_t i = 0; i < num_tokens; ++i) {
    text.ids.push_back(static_cast<int32_t>(number >> (8 * i)) & 0xff);
  }
  return text;
}

std::shared_ptr<const Kept> make_kept(const Tokens &text, size_t code_bytes = 8, size_t dim = 0) {
  auto kept = std::make_shared<Kept>();
  kept->text = text;
  kept->codes.assign(text.ids.size() * code_bytes, static_cast<uint8_t>(text.ids[0]));
  kept->embedding.assign(dim, 0.5F);
  return kept;
}

int64_t allocated() {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  return 0;
#else
  const auto found = mallinfo2();
  return static_cast<int64_t>(found.uordblks + found.hblkhd);
#endif
}

// Whether all is within the bound at every step, by both counts.
bool fill(int64_t max_bytes, size_t code_bytes, size_t dim) {
  const int64_t before = allocated();
  CodesCache cache(max_bytes);
  bool is_within = true;
  for (size_t i = 0; i < 200000; ++i) {
    const Tokens text = make_text(i);
    cache.put(hash_of(text), make_kept(text, code_bytes, dim));
    if (i % 3 == 0) cache.get(make_text(i / 2), hash_of(make_text(i / 2)), false);
    is_within = is_within && cache.bytes() <= max_bytes;
    if (i % 1000 == 0) is_within = is_within && allocated() - before <= max_bytes;
  }
  // Not because next to nothing is kept.
  return is_within && cache.bytes() > max_bytes - 10000 && cache.size() > 100;
}

void bounded() {
  std::puts(fill(1 << 17, 8, 0) ? "within" : "not within");
  std::puts(fill(4 << 20, 8, 0) ? "within" : "not within");
  std::puts(fill(4 << 20, 8, 24) ? "within" : "not within");
  std::puts(fill(30 << 20, 8, 0) ? "within" : "not within");
}

// Texts that come again stay, however many come once.
void scanned() {
  CodesCache cache(1 << 20);
  size_t num_hits = 0;
  for (size_t turn = 0; turn < 100; ++turn) {
    for (size_t i = 0; i < 300; ++i) {
      const Tokens again = make_text(i);
      num_hits += cache.get(again, hash_of(again), false) ? 1 : 0;
      cache.put(hash_of(again), make_kept(again));
      for (size_t j = 0; j < 10; ++j) {
        const Tokens once = make_text(1000 + (turn * 300 + i) * 10 + j);
        cache.put(hash_of(once), make_kept(once));
      }
    }
  }
  std::puts(num_hits > 97 * 300 ? "they stay" : "they go");
}

// Texts of one hash, which are made here, have each their own.
void collisions() {
  CodesCache cache(1 << 20);
  constexpr uint64_t kHash = 7;
  size_t num_wrong = 0;
  for (size_t i = 0; i < 200; ++i) {
    num_wrong += cache.get(make_text(i), kHash, false) == nullptr ? 0 : 1;
    cache.put(kHash, make_kept(make_text(i)));
  }
  for (size_t i = 0; i < 200; ++i) {
    const auto kept = cache.get(make_text(i), kHash, false);
    num_wrong += kept && kept->codes[0] == static_cast<uint8_t>(i) ? 0 : 1;
  }
  Tokens pair = make_text(1);
  pair.num_first = 2;
  num_wrong += cache.get(pair, kHash, false) == nullptr ? 0 : 1;
  pair.num_first = 3;  // all that there are
  num_wrong += cache.get(pair, kHash, false) ? 0 : 1;
  std::printf("%zu wrong, %zu texts\n", num_wrong, cache.size());
}

// An embedding is had where somebody asked for it, and is not lost to somebody who does not.
void embeddings() {
  CodesCache cache(1 << 20);
  const Tokens text = make_text(5);
  const uint64_t hash = hash_of(text);
  const auto say = [&] {
    const bool plain = cache.get(text, hash, false) != nullptr;
    const bool with_it = cache.get(text, hash, true) != nullptr;
    std::printf("%d %d, %zu texts, %lld bytes\n", plain, with_it, cache.size(),
                static_cast<long long>(cache.bytes() - CodesCache(1 << 20).bytes()));
  };
  cache.put(hash, make_kept(text));
  say();
  cache.put(hash, make_kept(text, 8, 24));
  say();
  cache.put(hash, make_kept(text));
  say();
  CodesCache none(0);
  none.put(hash, make_kept(text));
  std::printf("%zu texts, %lld bytes\n", none.size(), static_cast<long long>(none.bytes()));
  CodesCache small(4000);  // of which no text gets more than a tenth
  small.put(hash, make_kept(text, 40));
  std::printf("%zu texts\n", small.size());
}

}  // namespace

int main(int argc, char **argv) {
  if (argc != 2) return 2;
  const auto is = [&](const char *name) { return std::strcmp(argv[1], name) == 0; };
  if (is("bounded")) return bounded(), 0;
  if (is("scanned")) return scanned(), 0;
  if (is("collisions")) return collisions(), 0;
  if (is("embeddings")) return embeddings(), 0;
  return 2;
}
