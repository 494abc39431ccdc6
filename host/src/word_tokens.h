// Which tokens are a word's. The tokenizer's graph gives ids and no places, so parts of the texts
// are encoded once more: where the ids of a beginning are the first of the whole's, a token ends
// there.
#ifndef BITHEADS_HOST_WORD_TOKENS_H
#define BITHEADS_HOST_WORD_TOKENS_H

#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "json.h"
#include "words.h"

namespace bitheads {

using Ids = std::vector<int32_t>;

// What is known of a tokenizer's tokens of blanks, which `bitheads host-tokenizer` writes down.
struct BlankTokens {
  std::unordered_set<int32_t> ids;
  // Whether one that stands between a blank and a word is the word's, not the blank's.
  bool are_of_words = false;

  // Throws Json::exception.
  static BlankTokens read(const Json &json);
};

// A word, where it is in its text, and its tokens, which are one after the other.
struct WordTokens {
  Place place;
  size_t first_token;
  size_t num_tokens;
};

// A text, as it was given to the tokenizer, and what came out.
struct EncodedText {
  std::string_view text;  // behind the prefix's bytes
  size_t prefix_bytes;
  const Ids *ids;  // of all of it
};

class WordTokenFinder {
 public:
  // The ids of texts, without the tokenizer's own.
  using Encode = std::function<std::vector<Ids>(const std::vector<std::string_view> &)>;

  WordTokenFinder(Encode encode, BlankTokens blanks)
      : encode_(std::move(encode)), blanks_(std::move(blanks)) {}

  // The words of each text that have a token, their places in the text behind the prefix. May be
  // called from many threads. Throws what `encode` throws.
  std::vector<std::vector<WordTokens>> operator()(const std::vector<EncodedText> &texts);

 private:
  // What was found out about the tokenizer, once.
  struct Habits {
    std::string anchor;  // a character to which no token of what follows is joined
    Ids anchor_ids;
    bool lines_end = false;  // whether a line break may be one token with what is before it
  };
  class Call;

  const Habits &habits();

  Encode encode_;
  BlankTokens blanks_;
  std::once_flag once_;
  Habits habits_;
};

}  // namespace bitheads

#endif
