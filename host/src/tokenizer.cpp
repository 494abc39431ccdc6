#include "tokenizer.h"

#include <algorithm>
#include <deque>
#include <iterator>
#include <stdexcept>

#include "error.h"
#include "session.h"
#include "utf8.h"

namespace bitheads {
namespace {

// These are as in engine/texts/tokenize.py, so that both cut very long texts at the same place.
constexpr size_t kCharsPerToken = 16;
constexpr size_t kMaxChars = 1 << 18;
constexpr size_t kCutMargin = 128;
constexpr size_t kChunkBytes = 1 << 19;
constexpr size_t kChunkTexts = 1 << 12;

const char *const again =
    "Make it again: bitheads host-tokenizer --bundle DIR --force, with the "
    "openvino-tokenizers of this library's OpenVINO.";

void check_text(std::string_view text, size_t index) {
  if (const size_t at = find_invalid_utf8(text); at < text.size()) {
    fail(Status::invalid_input, "text ", index, ": byte ", at,
         " begins no code point, expected UTF-8. Convert the text, or replace what is none.");
  }
}

size_t size_of(const Json &json) {
  if (!json.is_number_unsigned() || json.get<uint64_t>() > 1) {
    throw std::invalid_argument("a type id that is neither 0 nor 1");
  }
  return json.get<size_t>();
}

}  // namespace

Template Template::read(const Json &json, size_t texts) {
  Template read;
  read.own = json.at("own").get<std::vector<Ids>>();
  for (const Json &type : json.at("text_types")) read.text_types.push_back(size_of(type));
  for (const Ids &own : read.own) read.num_own += own.size();
  for (const Json &type : json.at("own_types")) read.num_own_second += size_of(type);
  if (read.own.size() != texts + 1 || read.text_types.size() != texts ||
      json.at("own_types").size() != read.num_own) {
    throw std::invalid_argument("a template that is not one of " + std::to_string(texts) +
                                " texts");
  }
  return read;
}

Tokens Template::join(const std::vector<Ids> &parts) const {
  Tokens tokens;
  tokens.ids = own[0];
  size_t num_second = num_own_second;
  for (size_t i = 0; i < parts.size(); ++i) {
    tokens.ids.insert(tokens.ids.end(), parts[i].begin(), parts[i].end());
    tokens.ids.insert(tokens.ids.end(), own[i + 1].begin(), own[i + 1].end());
    num_second += text_types[i] * parts[i].size();
  }
  tokens.num_first = tokens.ids.size() - num_second;
  return tokens;
}

std::vector<size_t> cut_longest_first(const std::vector<size_t> &lengths, size_t budget) {
  size_t total = 0;
  for (const size_t length : lengths) total += length;
  if (total <= budget) return lengths;
  if (lengths.size() == 1) return {budget};
  const size_t shorter = std::min({lengths[0], lengths[1], budget / 2});
  if (lengths[0] <= lengths[1]) return {shorter, budget - shorter};
  return {budget - shorter, shorter};
}

bool Tokenizer::is_in(const fs::path &folder) {
  std::error_code ignored;
  return fs::exists(folder / "host" / "tokenizer_graph.json", ignored);
}

Tokenizer::Tokenizer(ov::Core &core, const fs::path &bundle, const Manifest &manifest, bool verify,
                     int threads)
    : what_("tokenizer " + (bundle / "host").string()),
      max_length_(static_cast<size_t>(manifest.max_length)),
      prefix_(manifest.spec.prefix) {
  const fs::path folder = bundle / "host";
  const std::string &what = what_;
  const Json content = read_hashed_json(folder / "tokenizer_graph.json", what, again);
  try {
    const auto source = manifest.artifacts.find("tokenizer.json");
    if (source == manifest.artifacts.end() ||
        content.at("tokenizer_sha256").get<std::string>() != source->second.sha256) {
      fail(Status::bundle, what, ": was made of another tokenizer.json. ", again);
    }
    single_ = Template::read(content.at("single"), 1);
    pair_ = Template::read(content.at("pair"), 2);
    if (single_.num_own + 1 > max_length_ || pair_.num_own + 2 > max_length_) {
      fail(Status::bundle, what,
           ": the tokenizer's own tokens leave no room for texts: the maximum ", "length is ",
           max_length_, ". Export the bundle again.");
    }
    if (const auto blanks = content.find("blanks"); blanks != content.end()) {
      word_tokens_ = std::make_unique<WordTokenFinder>(
          [this](const std::vector<std::string_view> &texts) { return run(texts); },
          BlankTokens::read(*blanks));
    }
    for (const char *name : {"tokenizer.xml", "tokenizer.bin"}) {
      const Json &expected = content.at("files").at(name);
      if (verify && hash_file(folder / name, Status::bundle, what).sha256 !=
                        expected.at("sha256").get<std::string>()) {
        fail(Status::bundle, what, ": ", name, " was changed. ", again);
      }
    }
  } catch (const Json::exception &error) {
    fail(Status::bundle, what, ": is malformed (", error.what(), "). ", again);
  } catch (const std::invalid_argument &error) {
    fail(Status::bundle, what, ": has ", error.what(), ". ", again);
  }
  try {
    const auto model = core.read_model((folder / "tokenizer.xml").string());
    request_ = core.compile_model(model, "CPU", cpu_properties(threads)).create_infer_request();
  } catch (const std::exception &error) {
    fail(Status::backend, what, ": OpenVINO cannot load it (", error.what(), "). ", again);
  }
  if (!prefix_.empty()) check_prefix(manifest);
}

// A pair is cut longest text first, so half of the tokens are the first text's for sure.
void Tokenizer::check_prefix(const Manifest &manifest) {
  const bool has_second = pair_.num_own_second > 0 || pair_.text_types[0] + pair_.text_types[1] > 0;
  size_t room = max_length_ - single_.num_own;
  if (manifest.token_types != 1 || !has_second) {
    room = std::min(room, (max_length_ - pair_.num_own) / 2);
  }
  const size_t bare_size = prefix_.find_last_not_of(' ') + 1;
  const std::string_view bare = std::string_view(prefix_).substr(0, bare_size);
  size_t tokens = run({prefix_}).front().size();
  if (!bare.empty()) tokens = std::max(tokens, run({bare}).front().size());
  const size_t chars = count_chars(prefix_);
  const size_t most_chars = kCharsPerToken * max_length_ / 2;
  if (tokens >= room || chars > most_chars) {
    fail(Status::bundle, "prefix ", show_prefix(prefix_), ": got ", tokens, " tokens and ", chars,
         " characters, expected at most ", room > 0 ? room - 1 : 0, " and ", most_chars,
         ", so that texts have room: the maximum length is ", max_length_,
         ". Export the bundle again, with a shorter --prefix or a larger --max-length.");
  }
}

void Tokenizer::check(const std::vector<Text> &texts) {
  for (size_t i = 0; i < texts.size(); ++i) {
    check_text(texts[i].first, i);
    check_text(texts[i].second, i);
  }
}

std::vector<CutTokens> Tokenizer::operator()(const std::vector<Text> &texts, bool words) {
  if (words && !word_tokens_) {
    fail(Status::bundle, what_,
         ": was written without what finding words takes, which heads of the kind token_label "
         "read. ",
         again);
  }
  check(texts);
  const size_t long_chars = kCharsPerToken * max_length_;
  std::vector<CutTokens> all;
  std::vector<std::string_view> chunk;
  std::deque<std::string> prefixed;  // the chunk's first texts, if there is a prefix
  size_t bytes = 0;
  const auto is_long = [&](std::string_view text) {
    return text.size() > long_chars && count_chars(text) > long_chars;
  };
  for (size_t i = 0, first = 0; i < texts.size(); ++i) {
    if (!prefix_.empty()) prefixed.push_back(prefix_ + texts[i].first);
    const std::string &first_text = prefix_.empty() ? texts[i].first : prefixed.back();
    for (const std::string *text : {&first_text, &texts[i].second}) {
      if ((text == &first_text || texts[i].is_pair) && !is_long(*text)) {
        chunk.push_back(*text);
        bytes += text->size();
      }
    }
    if (i + 1 < texts.size() && bytes < kChunkBytes && chunk.size() < kChunkTexts) continue;
    std::vector<Ids> encoded = run(chunk);
    auto next = encoded.begin();
    auto next_prefixed = prefixed.begin();
    std::vector<Item> items;
    for (; first <= i; ++first) {
      Item item;
      const auto add = [&](std::string_view text) {
        item.parts.push_back(is_long(text) ? encode_long(text) : Encoded{std::move(*next++), text});
        item.is_whole = item.is_whole && item.parts.back().read.size() == text.size();
      };
      add(prefix_.empty() ? texts[first].first : *next_prefixed++);
      if (texts[first].is_pair) add(texts[first].second);
      items.push_back(std::move(item));
    }
    std::vector<CutTokens> joined;
    for (const Item &item : items) joined.push_back(join(item));
    if (words) add_words(items, joined);
    std::move(joined.begin(), joined.end(), std::back_inserter(all));
    chunk.clear();
    prefixed.clear();
    bytes = 0;
  }
  return all;
}

CutTokens Tokenizer::join(const Item &item) const {
  const Template &around = item.parts.size() == 2 ? pair_ : single_;
  std::vector<size_t> lengths;
  for (const Encoded &part : item.parts) lengths.push_back(part.ids.size());
  const size_t budget = max_length_ > around.num_own ? max_length_ - around.num_own : 0;
  const std::vector<size_t> kept = cut_longest_first(lengths, budget);
  std::vector<Ids> parts;
  for (size_t i = 0; i < kept.size(); ++i) {
    const Ids &ids = item.parts[i].ids;
    parts.emplace_back(ids.begin(), ids.begin() + static_cast<ptrdiff_t>(kept[i]));
  }
  return {around.join(parts), kept != lengths || !item.is_whole};
}

// Words of which no token is left are left out.
void Tokenizer::add_words(const std::vector<Item> &items, std::vector<CutTokens> &joined) {
  std::vector<EncodedText> texts;
  std::vector<size_t> places;
  for (size_t i = 0; i < items.size(); ++i) {
    const Encoded &text = items[i].parts.front();
    if (items[i].parts.size() == 1) {
      texts.push_back({text.read, prefix_.size(), &text.ids});
      places.push_back(i);
    }
  }
  const std::vector<std::vector<WordTokens>> found = (*word_tokens_)(texts);
  const size_t before = single_.own[0].size();
  for (size_t i = 0; i < found.size(); ++i) {
    CutTokens &tokens = joined[places[i]];
    const size_t kept = tokens.tokens.ids.size() - single_.num_own;
    const std::string_view text = texts[i].text.substr(prefix_.size());
    size_t at = 0;
    int32_t chars = 0;
    const auto chars_to = [&](size_t byte) {
      chars += static_cast<int32_t>(count_chars(text.substr(at, byte - at)));
      at = byte;
      return chars;
    };
    for (const WordTokens &word : found[i]) {
      if (word.first_token >= kept) break;
      const int32_t start = chars_to(word.place.start);
      const int32_t end = chars_to(word.place.end);
      tokens.words.push_back(
          {static_cast<int32_t>(before + word.first_token),
           static_cast<int32_t>(std::min(word.num_tokens, kept - word.first_token)), start, end,
           static_cast<int32_t>(word.place.start), static_cast<int32_t>(word.place.end)});
    }
  }
}

// As much of a very long text as can matter: a beginning that alone fills the maximum length gives
// the same first tokens as the whole text, as tokenizers work word by word; one that does not is
// made longer.
Tokenizer::Encoded Tokenizer::encode_long(std::string_view text) {
  size_t chars = kCharsPerToken * max_length_;
  while (true) {
    const std::string_view beginning = cut_at_space(text, chars);
    Ids ids = std::move(run({beginning}).front());
    if (beginning.size() == text.size() || chars >= kMaxChars || fills(ids, beginning)) {
      return {std::move(ids), beginning};
    }
    chars = std::min(4 * chars, kMaxChars);
  }
}

// Whether the maximum length is reached well before the end, where the cut may matter.
bool Tokenizer::fills(const Ids &ids, std::string_view beginning) {
  const size_t chars = count_chars(beginning);
  if (ids.size() < max_length_ || chars <= kCutMargin) return false;
  const Ids before = std::move(run({first_chars(beginning, chars - kCutMargin)}).front());
  return before.size() >= max_length_ &&
         std::equal(ids.begin(), ids.begin() + static_cast<ptrdiff_t>(max_length_), before.begin());
}

std::vector<Ids> Tokenizer::run(const std::vector<std::string_view> &texts) {
  std::vector<Ids> all;
  if (texts.empty()) return all;
  try {
    ov::Tensor input(ov::element::string, {texts.size()});
    std::copy(texts.begin(), texts.end(), input.data<std::string>());
    const std::lock_guard<std::mutex> hold(lock_);
    request_.set_input_tensor(input);
    request_.infer();
    const ov::Tensor begins = request_.get_tensor("begins");
    const ov::Tensor ends = request_.get_tensor("ends");
    const ov::Tensor ids = request_.get_tensor("ids");
    const auto *begin = begins.data<int32_t>();
    const auto *end = ends.data<int32_t>();
    const auto *id = ids.data<int32_t>();
    const auto size = static_cast<int64_t>(ids.get_size());
    if (size == 0) {  // where nothing is left of any text, the graph reports one
      all.resize(texts.size());
      return all;
    }
    for (size_t i = 0; i < texts.size(); ++i) {
      if (begins.get_size() != texts.size() || ends.get_size() != texts.size() || begin[i] < 0 ||
          end[i] < begin[i] || end[i] > size) {
        throw std::length_error("tokens of other texts than were given");
      }
      all.emplace_back(id + begin[i], id + end[i]);
    }
  } catch (const std::exception &error) {
    fail(Status::backend, "tokenizer: failed on ", texts.size(), " texts: ", error.what(), ". ",
         again);
  }
  return all;
}

}  // namespace bitheads
