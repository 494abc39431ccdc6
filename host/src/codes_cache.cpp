#include "codes_cache.h"

#include <algorithm>
#include <utility>

#include "same_text.h"

namespace bitheads {
namespace {

// What an entry takes beside its numbers: nodes of the list and the table, vectors, what the
// allocator rounds up. tests/host/fill_cache.cpp compares the sum with the allocator's own.
constexpr int64_t kEntryBytes = 320;
// One part in so many is for texts that came once.
constexpr int64_t kNewShare = 10;
// Bytes of the cache for each hash that is remembered without its codes, at least.
constexpr int64_t kBytesPerGone = 256;
// Hits that are counted of an entry: as many rounds it outlasts.
constexpr uint8_t kMostHits = 3;
// Entries that go another round before one goes for good: who waits for this waits no longer.
constexpr int kRounds = 64;
// Bits of a filter that a hash sets.
constexpr int kBits = 4;

int64_t bytes_of(const Kept &kept) {
  const size_t numbers = kept.text.ids.size() * sizeof(int32_t) + kept.codes.size() +
                         kept.embedding.size() * sizeof(float);
  return static_cast<int64_t>(numbers) + kEntryBytes;
}

size_t filter_bytes(int64_t count) {
  size_t size = count > 0 ? 1 : 0;
  while (size > 0 && static_cast<int64_t>(size) <= count) size *= 2;  // a byte or two for each
  return size;
}

// Calls use(byte, bit in it) for each of a hash's bits, until one says no; the hash is random as it
// is.
template <class Use>
bool each_bit(uint64_t hash, size_t bytes, const Use &use) {
  const uint64_t step = hash >> 32 | 1;
  for (int i = 0; i < kBits; ++i, hash += step) {
    const uint64_t bit = hash & (8 * bytes - 1);
    if (!use(bit >> 3, static_cast<uint8_t>(1 << (bit & 7)))) return false;
  }
  return true;
}

}  // namespace

Lately::Lately(int64_t count)
    : count_(count), now_(filter_bytes(count)), before_(filter_bytes(count)) {}

void Lately::add(uint64_t hash) {
  each_bit(hash, now_.size(), [&](size_t byte, uint8_t bit) { return now_[byte] |= bit, true; });
  if (++added_ < count_) return;
  before_.swap(now_);
  std::fill(now_.begin(), now_.end(), uint8_t{0});
  added_ = 0;
}

bool Lately::has(uint64_t hash) const {
  for (const auto *filter : {&now_, &before_}) {
    const auto is_set = [&](size_t byte, uint8_t bit) { return ((*filter)[byte] & bit) != 0; };
    if (!filter->empty() && each_bit(hash, filter->size(), is_set)) return true;
  }
  return false;
}

CodesCache::CodesCache(int64_t max_bytes)
    : max_bytes_(max_bytes), gone_(max_bytes / kBytesPerGone), bytes_(gone_.bytes()) {}

CodesCache::Places::iterator CodesCache::find(const Tokens &text, uint64_t hash) {
  const auto [begin, end] = places_.equal_range(hash);
  const auto found = std::find_if(
      begin, end, [&](const auto &place) { return are_same(place.second->kept->text, text); });
  return found == end ? places_.end() : found;
}

std::shared_ptr<const Kept> CodesCache::get(const Tokens &text, uint64_t hash, bool embedding) {
  const auto found = find(text, hash);
  if (found == places_.end()) return nullptr;
  Entry &entry = *found->second;
  if (embedding && entry.kept->embedding.empty()) return nullptr;
  entry.hits = std::min<uint8_t>(entry.hits + 1, kMostHits);
  return entry.kept;
}

void CodesCache::put(uint64_t hash, std::shared_ptr<const Kept> kept) {
  const int64_t bytes = bytes_of(*kept);
  if (bytes > max_bytes_ / kNewShare) return;
  if (const auto found = find(kept->text, hash); found != places_.end()) {
    replace(*found->second, std::move(kept));
  } else {
    const bool is_new = !gone_.has(hash);
    List &list = is_new ? new_ : old_;
    list.push_back({std::move(kept), hash, 0, is_new});
    places_.emplace(hash, std::prev(list.end()));
    bytes_ += bytes;
    new_bytes_ += is_new ? bytes : 0;
  }
  fit();
}

void CodesCache::replace(Entry &entry, std::shared_ptr<const Kept> kept) {
  if (kept->embedding.empty() || !entry.kept->embedding.empty()) return;
  const int64_t more = bytes_of(*kept) - bytes_of(*entry.kept);
  bytes_ += more;
  new_bytes_ += entry.is_new ? more : 0;
  entry.kept = std::move(kept);
}

void CodesCache::fit() {
  while (bytes_ > max_bytes_) {
    if (!new_.empty() && (new_bytes_ * kNewShare > max_bytes_ || old_.empty())) {
      push_out_new();
    } else {
      push_out_old();
    }
  }
}

// The oldest of those that came once, unless it has come again since.
void CodesCache::push_out_new() {
  const auto oldest = new_.begin();
  new_bytes_ -= bytes_of(*oldest->kept);
  if (oldest->hits > 0) {
    oldest->hits = 0;
    oldest->is_new = false;
    old_.splice(old_.end(), new_, oldest);
  } else {
    gone_.add(oldest->hash);
    forget(new_, oldest);
  }
}

// The oldest of which nobody has asked since its last round, if it is found soon.
void CodesCache::push_out_old() {
  for (int i = 0; i < kRounds && old_.front().hits > 0; ++i) {
    --old_.front().hits;
    old_.splice(old_.end(), old_, old_.begin());
  }
  forget(old_, old_.begin());
}

void CodesCache::forget(List &list, List::iterator entry) {
  bytes_ -= bytes_of(*entry->kept);
  const auto [begin, end] = places_.equal_range(entry->hash);
  places_.erase(std::find_if(begin, end, [&](const auto &place) { return place.second == entry; }));
  list.erase(entry);
}

}  // namespace bitheads
