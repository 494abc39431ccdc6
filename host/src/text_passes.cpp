#include "text_passes.h"

#include <algorithm>
#include <cstdlib>
#include <mutex>
#include <set>

#include "error.h"
#include "forms.h"

namespace bitheads {
namespace {

std::string find_tokenizers_library(const Options &options) {
  if (!options.tokenizers_library.empty()) return options.tokenizers_library;
  const char *named = std::getenv("BITHEADS_TOKENIZERS_LIBRARY");
  return named != nullptr && *named != '\0' ? named : BITHEADS_DEFAULT_TOKENIZERS_LIBRARY;
}

// Adds each library once: the core keeps a library as often as it is given it.
void add_operations(ov::Core &core, const std::string &library) {
  static std::mutex lock;
  static auto *const added = new std::set<std::string>;
  const std::lock_guard<std::mutex> hold(lock);
  if (added->count(library) == 0) {
    core.add_extension(library);
    added->insert(library);
  }
}

// A text that was cut was read up to the end of its last word.
std::shared_ptr<const Words> words_of(const std::vector<CutTokens> &texts) {
  auto words = std::make_shared<Words>();
  for (const CutTokens &text : texts) {
    words->table.insert(words->table.end(), text.words.begin(), text.words.end());
    words->offsets.push_back(static_cast<int64_t>(words->table.size()));
    const Word last = text.words.empty() ? Word{} : text.words.back();
    words->truncated_at.push_back(text.truncated ? last.end : -1);
    words->truncated_at_byte.push_back(text.truncated ? last.end_byte : -1);
  }
  return words;
}

// What is known of each different text, for each text of a call.
std::vector<CutTokens> at_places(const std::vector<CutTokens> &cut,
                                 const std::vector<size_t> &places) {
  std::vector<CutTokens> found;
  found.reserve(places.size());
  for (const size_t place : places) found.push_back(cut[place]);
  return found;
}

// The same of rows of numbers.
std::vector<float> at_places(const std::vector<float> &values, size_t rows,
                             const std::vector<size_t> &places) {
  const size_t width = values.size() / rows;
  std::vector<float> found;
  found.reserve(places.size() * width);
  for (const size_t place : places) {
    const auto row = values.begin() + static_cast<std::ptrdiff_t>(place * width);
    found.insert(found.end(), row, row + static_cast<std::ptrdiff_t>(width));
  }
  return found;
}

// Token ids of texts, which `cut` no longer has afterwards.
std::vector<Tokens> take_tokens(std::vector<CutTokens> &cut) {
  std::vector<Tokens> tokens;
  tokens.reserve(cut.size());
  for (CutTokens &text : cut) tokens.push_back(std::move(text.tokens));
  return tokens;
}

// Says in `features` what is known of texts beside their token ids.
void know_texts(const std::vector<Text> &texts, const std::vector<CutTokens> &cut, bool words,
                PackedFeatures &features) {
  features.num_truncated =
      std::count_if(cut.begin(), cut.end(), [](const CutTokens &text) { return text.truncated; });
  features.is_pair = forms_of(texts);
  if (words) features.words = words_of(cut);
}

}  // namespace

TextPasses::TextPasses(ov::Core &core, const fs::path &folder, const Manifest &manifest,
                       const Options &options, Encoder &encoder)
    : encoder_(encoder) {
  if (!Tokenizer::is_in(folder)) {
    no_tokenizer_ = "bundle " + folder.string() +
                    ": no tokenizer for this library in it. Make it once: bitheads "
                    "host-tokenizer --bundle " +
                    folder.string();
    return;
  }
  const std::string library = find_tokenizers_library(options);
  try {
    add_operations(core, library);
  } catch (const std::exception &error) {
    no_tokenizer_ = "tokenizer: " + library + " cannot be loaded (" + error.what() +
                    "). Set BITHEADS_TOKENIZERS_LIBRARY to libopenvino_tokenizers.so of the "
                    "package openvino-tokenizers.";
    return;
  }
  tokenizer_ = std::make_unique<Tokenizer>(core, folder, manifest, options.verify, options.threads);
}

std::vector<Tokens> TextPasses::tokenize(const std::vector<Text> &texts, bool words,
                                         PackedFeatures &features) {
  if (!tokenizer_) fail(Status::backend, no_tokenizer_);
  std::vector<CutTokens> cut = (*tokenizer_)(texts, words);
  std::vector<Tokens> tokens = take_tokens(cut);
  know_texts(texts, cut, words, features);
  return tokens;
}

PackedFeatures TextPasses::encode(const std::vector<Text> &texts, bool words, bool embeddings) {
  if (!tokenizer_) fail(Status::backend, no_tokenizer_);
  Tokenizer::check(texts);  // before they are told apart, and characters are counted
  const auto distinct = distinct_of(texts);
  const std::vector<Text> &once = distinct ? distinct->texts : texts;
  const std::vector<size_t> places = distinct ? distinct->places : std::vector<size_t>{};
  auto chunks = cut_chunks(once, encoder_.max_batch_tokens());
  std::vector<CutTokens> cut;
  std::vector<PackedFeatures> parts;
  if (chunks.size() > 1 && may_be_renumbered(once)) {
    parts = encode_chunks(once, chunks, words, embeddings, cut);
  } else {
    chunks = {every_text(once.size())};
    parts.push_back(encode_one_chunk(once, words, embeddings, cut));
  }
  PackedFeatures features = in_order(std::move(parts), chunks, places);
  if (distinct) cut = at_places(cut, places);
  know_texts(texts, cut, words, features);
  return features;
}

std::optional<DistinctTexts> TextPasses::distinct_of(const std::vector<Text> &texts) const {
  return may_be_renumbered(texts) ? find_distinct(texts) : std::nullopt;
}

bool TextPasses::may_be_renumbered(const std::vector<Text> &texts) const {
  const auto is_pair = [](const Text &text) { return text.is_pair; };
  return encoder_.token_types() != 1 || std::none_of(texts.begin(), texts.end(), is_pair);
}

PackedFeatures TextPasses::encode_one_chunk(const std::vector<Text> &texts, bool words,
                                            bool embeddings, std::vector<CutTokens> &cut) {
  cut = (*tokenizer_)(texts, words);
  return encoder_.encode(take_tokens(cut), embeddings);
}

std::vector<PackedFeatures> TextPasses::encode_chunks(const std::vector<Text> &texts,
                                                      const std::vector<Chunk> &chunks, bool words,
                                                      bool embeddings,
                                                      std::vector<CutTokens> &cut) {
  cut.resize(texts.size());
  Ahead<std::shared_ptr<const std::vector<Tokens>>> ahead(chunks.size(), [&](size_t i) {
    std::vector<Text> chosen;
    for (const size_t text : chunks[i]) chosen.push_back(texts[text]);
    std::vector<CutTokens> found = (*tokenizer_)(chosen, words);
    auto tokens = std::make_shared<const std::vector<Tokens>>(take_tokens(found));
    for (size_t j = 0; j < found.size(); ++j) cut[chunks[i][j]] = std::move(found[j]);
    return tokens;
  });
  return encoder_.encode_chunks([&] { return ahead.is_at_end() ? nullptr : ahead.next(); },
                                embeddings);
}

Outputs TextPasses::encode_and_predict(const std::vector<Text> &texts, const Heads &heads) {
  if (!tokenizer_) fail(Status::backend, no_tokenizer_);
  Tokenizer::check(texts);  // before they are told apart
  PackedFeatures ignored;
  const auto distinct = distinct_of(texts);
  const std::vector<Text> &once = distinct ? distinct->texts : texts;
  Outputs outputs = encoder_.encode_and_predict(tokenize(once, false, ignored), heads).value();
  if (!distinct) return outputs;
  for (std::vector<float> &rows : outputs) rows = at_places(rows, once.size(), distinct->places);
  return outputs;
}

}  // namespace bitheads
