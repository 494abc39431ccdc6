#include "call.h"

#include <algorithm>
#include <iterator>
#include <new>

#include "error.h"
#include "same_text.h"

namespace bitheads {

Failure current_failure() noexcept {
  try {
    throw;
  } catch (const Error &error) {
    return {error.status(), error.what()};
  } catch (const std::bad_alloc &) {
    return {Status::internal, kNoMemory};
  } catch (const std::exception &error) {
    return {Status::internal, error.what()};
  } catch (...) {
    return {Status::internal, "an exception that is no std::exception"};
  }
}

void Call::add(std::vector<Tokens> tokens, const Heads &asked) {
  parts.push_back({texts.size(), asked});
  std::move(tokens.begin(), tokens.end(), std::back_inserter(texts));
}

void Call::prepare() {
  for (const Tokens &text : texts) {
    hashes.push_back(hash_of(text));
    features.offsets.push_back(features.offsets.back() + static_cast<int64_t>(text.ids.size()));
  }
  if (keeps_codes) {
    features.codes.resize(static_cast<size_t>(num_tokens() * features.code_bytes));
  }
  features.embeddings.resize(texts.size() * static_cast<size_t>(features.embedding_dim));
  for (size_t i = 0; i < parts.size(); ++i) {
    const size_t end = i + 1 < parts.size() ? parts[i + 1].first : texts.size();
    for (const auto &head : parts[i].heads) {
      const size_t rows =
          head->kind->is_of_words() ? features.words->table.size() : end - parts[i].first;
      parts[i].outputs.emplace_back(rows * head->block_outputs());
    }
  }
  num_waiting = texts.size();
}

Call::Part &Call::part_of(size_t text) {
  size_t i = parts.size() - 1;
  while (text < parts[i].first) --i;
  return parts[i];
}

void Call::end(std::optional<Failure> failure) noexcept {
  {
    const std::lock_guard<std::mutex> hold(lock_);
    if (has_ended_) return;
    has_ended_ = true;
    failure_ = std::move(failure);
    changed_.notify_all();
  }
  try {
    if (done) done(shared_from_this());
  } catch (...) {  // who is told that a call has ended is no reason not to answer the next
  }
}

bool Call::has_ended() const {
  const std::lock_guard<std::mutex> hold(lock_);
  return has_ended_;
}

void Call::wait() const {
  process_.check();
  std::unique_lock<std::mutex> hold(lock_);
  changed_.wait(hold, [&] { return has_ended_; });
  if (failure_) throw Error(failure_->status, failure_->message);
}

bool Call::wait_for(std::chrono::nanoseconds time) const {
  constexpr std::chrono::hours kForever(24 * 365);  // so that no sum of times is too large
  process_.check();
  std::unique_lock<std::mutex> hold(lock_);
  return changed_.wait_for(hold, std::min<std::chrono::nanoseconds>(time, kForever),
                           [&] { return has_ended_; });
}

std::vector<Prediction> Call::predictions() const {
  std::vector<std::vector<Prediction>> of_parts;
  for (const Part &part : parts) {
    const bool is_of_two = !part.heads.empty() && part.heads.front()->form == Form::two_texts;
    of_parts.push_back(
        answers_of(part.heads, is_of_two ? pair_outputs : part.outputs, features.words));
  }
  std::vector<size_t> next(parts.size());
  std::vector<Prediction> answers;
  for (const auto &head : heads) {
    for (size_t i = 0; i < parts.size(); ++i) {
      if (next[i] < parts[i].heads.size() && parts[i].heads[next[i]] == head) {
        answers.push_back(std::move(of_parts[i][next[i]++]));
        break;
      }
    }
  }
  return answers;
}

}  // namespace bitheads
