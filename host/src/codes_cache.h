// What is kept of texts that were encoded before, within a bound of bytes. The policy is that of
// engine/serve/codes_cache.py.
#ifndef BITHEADS_HOST_CODES_CACHE_H
#define BITHEADS_HOST_CODES_CACHE_H

#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <unordered_map>
#include <vector>

#include "bitheads/bitheads.hpp"

namespace bitheads {

// A text's token ids, which say whether it is this text, and what its encoder pass gave.
struct Kept {
  Tokens text;
  std::vector<uint8_t> codes;
  std::vector<float> embedding;  // empty: nobody asked for it
};

// Hashes that were added lately: the last `count`, and up to twice as many; and some others, by
// mistake. Two generations of Bloom filters.
class Lately {
 public:
  explicit Lately(int64_t count);
  void add(uint64_t hash);
  bool has(uint64_t hash) const;
  int64_t bytes() const { return static_cast<int64_t>(now_.size() + before_.size()); }

 private:
  int64_t count_;
  int64_t added_ = 0;
  std::vector<uint8_t> now_, before_;
};

// What is kept, by text: S3-FIFO (Yang et al. 2023) with bytes for its sizes. Not thread-safe.
//
// Texts that come once pass through a tenth of it, so that a million of them do not push out those
// that come again and again; a hit moves nothing. Which have passed through is remembered, in a
// sixtieth of the memory.
class CodesCache {
 public:
  // max_bytes: of all that it holds, what the allocator takes for it included; 0 holds nothing.
  explicit CodesCache(int64_t max_bytes);

  int64_t max_bytes() const { return max_bytes_; }
  int64_t bytes() const { return bytes_; }
  size_t size() const { return places_.size(); }

  // What is kept of the text with this hash, with its embedding if that is wanted; else null.
  std::shared_ptr<const Kept> get(const Tokens &text, uint64_t hash, bool embedding);
  // Others may have to go for it. It is taken in place of what lacks the embedding.
  void put(uint64_t hash, std::shared_ptr<const Kept> kept);

 private:
  struct Entry {
    std::shared_ptr<const Kept> kept;
    uint64_t hash;
    uint8_t hits;
    bool is_new;
  };
  using List = std::list<Entry>;
  using Places = std::unordered_multimap<uint64_t, List::iterator>;  // a hash may be of several

  Places::iterator find(const Tokens &text, uint64_t hash);
  void replace(Entry &entry, std::shared_ptr<const Kept> kept);
  void fit();
  void push_out_new();
  void push_out_old();
  void forget(List &list, List::iterator entry);

  int64_t max_bytes_;
  Lately gone_;
  int64_t bytes_;
  int64_t new_bytes_ = 0;
  List new_, old_;  // those that came once, and those that came again; the oldest first
  Places places_;
};

}  // namespace bitheads

#endif
