#include "word_tokens.h"

#include <algorithm>
#include <array>
#include <optional>
#include <unordered_map>
#include <utility>

#include "utf8.h"

namespace bitheads {
namespace {

constexpr size_t kEncodeTexts = 1 << 13;  // in one call of the tokenizer
// How many chunks more than one are tried together, where one by itself has other tokens.
constexpr std::array<size_t, 8> kReach = {0, 1, 2, 3, 5, 8, 13, 21};
constexpr size_t kGrowWords = 16;  // whose ends are tried in one call
constexpr size_t kMaxStuck = 8;    // so many calls without a token's end: the rest is one piece
constexpr size_t kMaxSharedBytes = 256;  // of words that share tokens, looked at by characters
constexpr size_t kNobody = static_cast<size_t>(-1);

using IdsBegin = Ids::const_iterator;

bool is_line_break(char byte) {
  return byte == '\n' || byte == '\r';
}

Ids joined(const Ids &first, const Ids &second) {
  Ids all = first;
  all.insert(all.end(), second.begin(), second.end());
  return all;
}

bool starts_with(const Ids &ids, const Ids &beginning) {
  return ids.size() >= beginning.size() &&
         std::equal(beginning.begin(), beginning.end(), ids.begin());
}

}  // namespace

BlankTokens BlankTokens::read(const Json &json) {
  const auto ids = json.at("ids").get<Ids>();
  return {{ids.begin(), ids.end()}, json.at("are_of_words").get<bool>()};
}

// One call: its texts, their words, and the ids of all parts of texts that were asked for.
class WordTokenFinder::Call {
 public:
  Call(const Encode &encode, const BlankTokens &blanks, const Habits &habits,
       const std::vector<EncodedText> &texts)
      : encode_(encode), blanks_(blanks), habits_(habits), texts_(texts) {}

  std::vector<std::vector<WordTokens>> run() {
    for (size_t text = 0; text < texts_.size(); ++text) split(text);
    flush();
    for (size_t text = 0; text < texts_.size(); ++text) align(text);
    find_bounds();
    for (const Unit &unit : units_) want_shared(unit);
    flush();
    std::vector<std::vector<WordTokens>> found(texts_.size());
    for (const Unit &unit : units_) add_words(unit, found[unit.text]);
    return found;
  }

 private:
  // Words up to the next blank, with the blanks before them.
  struct Chunk {
    size_t from, end;    // bytes
    size_t first, last;  // words
  };

  // The tokens before this one are of the words before that one.
  struct Bound {
    size_t word;
    size_t token;
  };

  // Chunks that have the same tokens by themselves as in their text.
  struct Unit {
    size_t text;
    size_t first_chunk;
    size_t from, end;    // bytes
    size_t first, last;  // words
    IdsBegin ids;
    size_t num_tokens;
    std::vector<Bound> bounds = {};
  };

  // The ids of a part of a text; none where they cannot be told from those of what is before it.
  struct Part {
    IdsBegin ids;
    size_t size;
  };

  // A unit whose beginnings are encoded, each a word longer.
  struct Growth {
    Unit *unit;
    size_t from;   // where they begin, in bytes
    size_t token;  // and with which token
    size_t next;   // the first word that was not tried
    size_t stuck;  // calls without success
  };

  std::string key(size_t text, size_t from, size_t end) const {
    const std::string_view part = texts_[text].text.substr(from, end - from);
    return from == 0 ? std::string(part) : habits_.anchor + std::string(part);
  }

  using Entry = std::pair<const std::string, Ids>;

  // Asks for what `part` gives, which then costs no call of its own.
  Entry *want(size_t text, size_t from, size_t end) {
    const auto [place, is_new] = parts_.try_emplace(key(text, from, end));
    if (is_new) wanted_.push_back(&*place);
    return &*place;
  }

  void flush() {
    for (size_t begin = 0; begin < wanted_.size(); begin += kEncodeTexts) {
      const size_t end = std::min(begin + kEncodeTexts, wanted_.size());
      std::vector<std::string_view> keys;
      for (size_t i = begin; i < end; ++i) keys.push_back(wanted_[i]->first);
      std::vector<Ids> encoded = encode_(keys);
      for (size_t i = begin; i < end; ++i) wanted_[i]->second = std::move(encoded[i - begin]);
    }
    wanted_.clear();
  }

  std::optional<Part> part(size_t text, size_t from, size_t end) {
    const Entry *entry = want(text, from, end);
    flush();
    const Ids &ids = entry->second;
    if (from == 0) return Part{ids.begin(), ids.size()};
    const Ids &before = habits_.anchor_ids;
    if (!starts_with(ids, before)) return std::nullopt;
    return Part{ids.begin() + static_cast<ptrdiff_t>(before.size()), ids.size() - before.size()};
  }

  // A part's number of tokens, if they are those that a text has from a place on.
  static std::optional<size_t> tokens_at(const std::optional<Part> &part, IdsBegin ids,
                                         size_t num_ids) {
    if (!part || part->size > num_ids) return std::nullopt;
    const auto end = part->ids + static_cast<ptrdiff_t>(part->size);
    return std::equal(part->ids, end, ids) ? std::optional(part->size) : std::nullopt;
  }

  std::optional<size_t> tokens_in(const Unit &unit, size_t token, size_t from, size_t end) {
    return tokens_at(part(unit.text, from, end), unit.ids + static_cast<ptrdiff_t>(token),
                     unit.num_tokens - token);
  }

  void split(size_t text) {
    const std::string_view whole = texts_[text].text;
    const size_t prefix = texts_[text].prefix_bytes;
    std::vector<Place> words = find_words(whole.substr(0, prefix));
    for (const Place &word : find_words(whole.substr(prefix))) {
      words.push_back({word.start + prefix, word.end + prefix});
    }
    std::vector<Chunk> chunks;
    for (size_t first = 0, from = 0; first < words.size();) {
      size_t last = first + 1;
      while (last < words.size() && words[last].start == words[last - 1].end) ++last;
      size_t end = words[last - 1].end;
      while (habits_.lines_end && end < whole.size() && is_line_break(whole[end])) ++end;
      chunks.push_back({from, end, first, last});
      from = end;
      first = last;
    }
    words_.push_back(std::move(words));
    chunks_.push_back(std::move(chunks));
    for (const Chunk &chunk : chunks_.back()) {
      want(text, chunk.from, chunk.end);
      want_words({text, 0, chunk.from, chunk.end, chunk.first, chunk.last, {}, 0});
      const size_t start = words_[text][chunk.first].start;
      if (has_odd_blanks(text, chunk.from, start)) {
        want(text, chunk.from, start + code_point_at(whole, start).bytes);
        for (const size_t end : ends_of_blanks(text, chunk.from, start)) {
          want(text, chunk.from, end);
        }
      }
      if (const size_t last = words_[text][chunk.last - 1].end; last < chunk.end) {
        want(text, chunk.from, last);
      }
    }
  }

  bool has_odd_blanks(size_t text, size_t from, size_t start) const {
    return from < start && texts_[text].text.substr(from, start - from) != " ";
  }

  // Where blanks before a word may end that have tokens of their own: at the word, before the last
  // of them, which may be of the word's token, and before all the spaces.
  std::vector<size_t> ends_of_blanks(size_t text, size_t from, size_t start) const {
    const std::string_view whole = texts_[text].text;
    std::vector<size_t> ends = {start, char_before(whole, start), start};
    while (ends[2] > from && whole[ends[2] - 1] == ' ') --ends[2];
    ends.erase(std::remove(ends.begin(), ends.end(), from), ends.end());
    return ends;
  }

  // Where a unit's word is encoded by itself: from the end of the word before it.
  Place place_alone(const Unit &unit, size_t word) const {
    const std::vector<Place> &words = words_[unit.text];
    return {word == unit.first ? unit.from : words[word - 1].end,
            word + 1 == unit.last ? unit.end : words[word].end};
  }

  void want_words(const Unit &unit) {
    for (size_t word = unit.first; word < unit.last && unit.first + 1 < unit.last; ++word) {
      const Place place = place_alone(unit, word);
      want(unit.text, place.start, place.end);
    }
  }

  // Cuts a text into units.
  void align(size_t text) {
    const std::vector<Chunk> &chunks = chunks_[text];
    const Ids &ids = *texts_[text].ids;
    const size_t first_unit = units_.size();
    size_t token = 0;
    for (size_t chunk = 0; chunk < chunks.size();) {
      std::optional<Reach> reached = reach(text, chunk, token);
      if (!reached && units_.size() > first_unit) {
        // What is before may have had the same tokens by chance: an unknown word's is one only.
        const Unit &before = units_.back();
        const auto before_token = static_cast<size_t>(before.ids - ids.begin());
        reached = reach(text, before.first_chunk, before_token, chunk);
        if (reached) {
          chunk = before.first_chunk;
          token = before_token;
          units_.pop_back();
        }
      }
      const bool is_found = reached.has_value();
      if (!is_found) reached = Reach{chunks.size() - 1, ids.size() - token};
      const Chunk &last = chunks[reached->chunk];
      units_.push_back({text, chunk, chunks[chunk].from,
                        is_found ? last.end : texts_[text].text.size(), chunks[chunk].first,
                        last.last, ids.begin() + static_cast<ptrdiff_t>(token),
                        reached->num_tokens});
      token += reached->num_tokens;
      chunk = reached->chunk + 1;
    }
  }

  struct Reach {
    size_t chunk;  // the last
    size_t num_tokens;
  };

  // The fewest chunks from one on, `least` among them, that together have the text's tokens.
  std::optional<Reach> reach(size_t text, size_t chunk, size_t token, size_t least = 0) {
    const std::vector<Chunk> &chunks = chunks_[text];
    const Ids &ids = *texts_[text].ids;
    for (const size_t more : kReach) {
      const size_t last = std::min(chunk + more, chunks.size() - 1);
      if (last < least) continue;
      const auto tokens =
          tokens_at(part(text, chunks[chunk].from, chunks[last].end),
                    ids.begin() + static_cast<ptrdiff_t>(token), ids.size() - token);
      if (tokens) return Reach{last, *tokens};
      if (last + 1 == chunks.size()) break;
    }
    return std::nullopt;
  }

  void find_bounds() {
    for (const Unit &unit : units_) want_words(unit);
    flush();
    std::vector<Growth> growing;
    for (Unit &unit : units_) {
      if (!find_words_alone(unit)) growing.push_back({&unit, unit.from, 0, unit.first, 0});
    }
    while (!growing.empty()) {
      for (const Growth &growth : growing) {
        for (size_t word = growth.next; word < last_to_try(growth); ++word) {
          want(growth.unit->text, growth.from, words_[growth.unit->text][word].end);
        }
      }
      flush();
      std::vector<Growth> rest;
      for (Growth &growth : growing) {
        if (grow(growth)) rest.push_back(growth);
      }
      growing = std::move(rest);
    }
  }

  // Whether the tokens of the unit's words are those of each by itself.
  bool find_words_alone(Unit &unit) {
    size_t token = 0;
    for (size_t word = unit.first; word < unit.last; ++word) {
      const Place place = place_alone(unit, word);
      const auto tokens = unit.first + 1 == unit.last
                              ? std::optional(unit.num_tokens)
                              : tokens_in(unit, token, place.start, place.end);
      if (!tokens) break;
      token += *tokens;
      unit.bounds.push_back({word + 1, token});
    }
    if (unit.bounds.size() == unit.last - unit.first && token == unit.num_tokens) return true;
    unit.bounds.clear();
    return false;
  }

  static size_t last_to_try(const Growth &growth) {
    return std::min(growth.next + kGrowWords, growth.unit->last - 1);
  }

  // Adds the bounds that are found by a few words; whether there is more to do.
  bool grow(Growth &growth) {
    Unit &unit = *growth.unit;
    const std::vector<Place> &words = words_[unit.text];
    const size_t last = last_to_try(growth);
    bool is_found = false;
    for (size_t word = growth.next; word < last; ++word) {
      const auto tokens = tokens_in(unit, growth.token, growth.from, words[word].end);
      const size_t least = unit.bounds.empty() ? 0 : unit.bounds.back().token;
      if (tokens && growth.token + *tokens >= least) {
        unit.bounds.push_back({word + 1, growth.token + *tokens});
        is_found = true;
      }
    }
    if (last + 1 >= unit.last) {
      unit.bounds.push_back({unit.last, unit.num_tokens});
      return false;
    }
    growth.next = last;
    const size_t from = growth.from;
    if (is_found) restart(growth);
    growth.stuck = growth.from > from ? 0 : growth.stuck + 1;
    if (growth.stuck == kMaxStuck) {
      unit.bounds.push_back({unit.last, unit.num_tokens});
      return false;
    }
    return true;
  }

  // Behind the last word whose end is a token's for sure: those after it that add no token may be
  // within the unknown word's, which is the same however long it is.
  void restart(Growth &growth) const {
    const std::vector<Bound> &bounds = growth.unit->bounds;
    const size_t tokens = bounds.back().token;
    const auto sure = std::find_if(bounds.rbegin(), bounds.rend(),
                                   [&](const Bound &bound) { return bound.token < tokens; });
    if (sure == bounds.rend()) return;
    const size_t end = words_[growth.unit->text][sure->word - 1].end;
    if (end > growth.from) {
      growth.from = end;
      growth.token = sure->token;
    }
  }

  // Words of a unit that share several tokens.
  struct Shared {
    Bound begin, end;
    size_t from;         // where what is encoded begins, in bytes
    size_t first_token;  // and with which token
    size_t start, stop;  // bytes between which tokens may begin
  };

  template <class Work>
  void for_each_shared(const Unit &unit, const Work &work) const {
    const std::vector<Place> &words = words_[unit.text];
    Bound begin = {unit.first, 0};
    for (const Bound &end : unit.bounds) {
      const Place place = {words[begin.word].start, words[end.word - 1].end};
      const bool is_near = place.end - unit.from <= kMaxSharedBytes;
      if (end.word - begin.word > 1 && end.token - begin.token > 1 &&
          place.end - place.start <= kMaxSharedBytes && (is_near || begin.word > unit.first)) {
        work(Shared{begin, end, is_near ? unit.from : words[begin.word - 1].end,
                    is_near ? 0 : begin.token, place.start, place.end});
      }
      begin = end;
    }
  }

  template <class Work>
  void for_each_end(const Unit &unit, const Shared &shared, const Work &work) const {
    const std::string_view text = texts_[unit.text].text;
    for (size_t at = shared.start; at < shared.stop;) {
      at += code_point_at(text, at).bytes;
      work(at);
    }
  }

  void want_shared(const Unit &unit) {
    for_each_shared(unit, [&](const Shared &shared) {
      for_each_end(unit, shared, [&](size_t end) { want(unit.text, shared.from, end); });
    });
  }

  // The word that each token of a unit begins in, or kNobody.
  std::vector<size_t> find_owners(const Unit &unit) {
    std::vector<size_t> owners(unit.num_tokens, kNobody);
    Bound begin = {unit.first, 0};
    for (const Bound &end : unit.bounds) {
      const auto owner = owners.begin();
      std::fill(owner + static_cast<ptrdiff_t>(begin.token),
                owner + static_cast<ptrdiff_t>(end.token), begin.word);
      begin = end;
    }
    for_each_shared(unit, [&](const Shared &shared) { share(unit, shared, owners); });
    give_from_prefix(unit, owners);
    return owners;
  }

  // A token of the prefix's last word and the text's first one is of the latter.
  void give_from_prefix(const Unit &unit, std::vector<size_t> &owners) const {
    const std::vector<Place> &words = words_[unit.text];
    const size_t prefix = texts_[unit.text].prefix_bytes;
    const auto first = std::find_if(words.begin() + static_cast<ptrdiff_t>(unit.first),
                                    words.begin() + static_cast<ptrdiff_t>(unit.last),
                                    [&](const Place &word) { return word.start >= prefix; });
    const auto word = static_cast<size_t>(first - words.begin());
    const bool is_cut_there = std::any_of(unit.bounds.begin(), unit.bounds.end(),
                                          [&](const Bound &bound) { return bound.word == word; });
    if (word == unit.first || is_cut_there) return;
    const auto last =
        std::find_if(owners.rbegin(), owners.rend(), [&](size_t owner) { return owner < word; });
    if (last != owners.rend()) *last = word;
  }

  void share(const Unit &unit, const Shared &shared, std::vector<size_t> &owners) {
    const std::vector<Place> &words = words_[unit.text];
    std::unordered_map<size_t, size_t> starts;  // of tokens, in bytes
    for_each_end(unit, shared, [&](size_t end) {
      const auto tokens = tokens_in(unit, shared.first_token, shared.from, end);
      if (tokens) starts[shared.first_token + *tokens] = end;
    });
    size_t owner = shared.begin.word;
    for (size_t token = shared.begin.token + 1; token < shared.end.token; ++token) {
      // One that begins within a character, of which it has some bytes, is of the word before.
      if (const auto start = starts.find(token); start != starts.end()) {
        while (owner != kNobody && words[owner].end <= start->second) {
          owner = owner + 1 < shared.end.word ? owner + 1 : kNobody;
        }
      }
      owners[token] = owner;
    }
  }

  void add_words(const Unit &unit, std::vector<WordTokens> &found) {
    const std::vector<Place> &words = words_[unit.text];
    const size_t prefix = texts_[unit.text].prefix_bytes;
    const std::vector<size_t> owners = find_owners(unit);
    const auto first_token = static_cast<size_t>(unit.ids - texts_[unit.text].ids->begin());
    const size_t begin = tokens_of_blanks(unit);
    const size_t end = std::max(begin, tokens_of_words(unit));
    for (size_t token = begin; token < end;) {
      const size_t word = owners[token];
      size_t stop = token + 1;
      while (stop < end && owners[stop] == word) ++stop;
      const size_t start = word == kNobody ? stop : skip_blanks(unit, word, token, stop);
      if (start < stop && words[word].start >= prefix) {
        found.push_back({{words[word].start - prefix, words[word].end - prefix},
                         first_token + start,
                         stop - start});
      }
      token = stop;
    }
  }

  // The tokens that stand for no more than the blanks before a unit, where that can be told.
  size_t tokens_of_blanks(const Unit &unit) {
    const size_t start = words_[unit.text][unit.first].start;
    if (!has_odd_blanks(unit.text, unit.from, start)) return 0;
    const std::string_view text = texts_[unit.text].text;
    if (const auto all = tokens_in(unit, 0, unit.from, start)) {
      // An unknown word's token may be that of the blank before it, too: then one letter adds none.
      const size_t letter = start + code_point_at(text, start).bytes;
      const auto more = tokens_in(unit, 0, unit.from, letter);
      return *all > 0 && more && *more == *all ? *all - 1 : *all;
    }
    for (const size_t end : ends_of_blanks(unit.text, unit.from, start)) {
      if (const auto tokens = tokens_in(unit, 0, unit.from, end)) return *tokens;
    }
    return 0;
  }

  // The tokens up to the end of a unit's last word.
  size_t tokens_of_words(const Unit &unit) {
    const size_t end = words_[unit.text][unit.last - 1].end;
    if (end == unit.end) return unit.num_tokens;
    if (const auto tokens = tokens_in(unit, 0, unit.from, end)) return *tokens;
    size_t tokens = unit.num_tokens;
    while (tokens > 0 && is_of_blanks(unit, tokens - 1)) --tokens;
    return tokens;
  }

  size_t skip_blanks(const Unit &unit, size_t word, size_t token, size_t stop) const {
    const std::string_view text = texts_[unit.text].text;
    const size_t start = words_[unit.text][word].start;
    const bool is_behind = start > 0 && is_blank(text, char_before(text, start));
    if (blanks_.are_of_words || !is_behind) return token;
    while (token + 1 < stop && is_of_blanks(unit, token)) ++token;  // a word may be a mark itself
    return token;
  }

  bool is_of_blanks(const Unit &unit, size_t token) const {
    return blanks_.ids.count(unit.ids[static_cast<ptrdiff_t>(token)]) > 0;
  }

  const Encode &encode_;
  const BlankTokens &blanks_;
  const Habits &habits_;
  const std::vector<EncodedText> &texts_;
  std::vector<std::vector<Place>> words_;   // of each text, the prefix's first
  std::vector<std::vector<Chunk>> chunks_;  // of each text
  std::vector<Unit> units_;
  std::unordered_map<std::string, Ids> parts_;
  std::vector<Entry *> wanted_;
};

const WordTokenFinder::Habits &WordTokenFinder::habits() {
  std::call_once(once_, [this] {
    Habits found;
    // A character that none of these changes, and none is lost behind.
    for (const char *anchor : {"\xe4\xb8\xad", ")", ";", "+", "]", "a"}) {
      const std::string before = anchor;
      const std::vector<std::string> asked = {before,        before + "a",
                                              before + "'",  before + "1",
                                              before + "-",  before + "\xf0\x90\x80\x80",
                                              before + "\n", before + " b"};
      const std::vector<Ids> ids = encode_({asked.begin(), asked.end()});
      bool is_sound = true;
      for (size_t i = 1; i < asked.size(); ++i) {
        const bool may_be_none = i + 2 >= asked.size();
        is_sound = is_sound && starts_with(ids[i], ids[0]) &&
                   (may_be_none || ids[i].size() > ids[0].size());
      }
      if (is_sound || found.anchor.empty()) {
        found.anchor = before;
        found.anchor_ids = ids[0];
      }
      if (is_sound) break;
    }
    const auto behind = [&](const Ids &ids) {
      const auto skipped = static_cast<ptrdiff_t>(std::min(found.anchor_ids.size(), ids.size()));
      return Ids(ids.begin() + skipped, ids.end());
    };
    const std::string line = found.anchor + "\nb";
    const std::string word = found.anchor + "b";
    const std::vector<Ids> ids =
        encode_({"ab", "ab\nb", "ab.", "ab.\n", "ab.\nb", std::string_view(line), word});
    const bool lines_begin =
        joined(ids[0], behind(ids[5])) == ids[1] && joined(ids[2], behind(ids[5])) == ids[4];
    found.lines_end = !lines_begin && joined(ids[3], behind(ids[6])) == ids[4];
    habits_ = std::move(found);
  });
  return habits_;
}

std::vector<std::vector<WordTokens>> WordTokenFinder::operator()(
    const std::vector<EncodedText> &texts) {
  return Call(encode_, blanks_, habits(), texts).run();
}

}  // namespace bitheads
