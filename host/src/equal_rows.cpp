#include "equal_rows.h"

#include <set>
#include <utility>

#include "same_text.h"

namespace bitheads {

bool EqualRows::Equal::operator()(const TextOf &a, const TextOf &b) const {
  return a.call->wants_embeddings() == b.call->wants_embeddings() &&
         are_same(a.call->texts[a.text], b.call->texts[b.text]);
}

bool EqualRows::is_running(const std::shared_ptr<Call> &call, size_t text) const {
  return running_.count({call, text}) > 0;
}

void EqualRows::ride(const CallRow &row) {
  running_.at({row.owner, row.index}).push_back(row);
}

void EqualRows::wait(const CallRow &row) {
  waiting_[{row.owner, row.index}].emplace(row.turn, row);
}

void EqualRows::forget(const CallRow &row) {
  const auto found = waiting_.find({row.owner, row.index});
  if (found == waiting_.end()) return;
  found->second.erase(row.turn);
  if (found->second.empty()) waiting_.erase(found);
}

EqualRows::Started EqualRows::start(const CallRows &taken) {
  std::set<Turn> due;
  for (const CallRow &row : taken) due.insert(row.turn);
  Started started;
  for (const CallRow &row : taken) {
    const TextOf text{row.owner, row.index};
    if (running_.count(text) > 0) continue;  // goes with one before it
    CallRows &with_it = running_[text];
    const auto waiting = waiting_.find(text);
    for (const auto &[turn, other] : waiting->second) {
      if (turn == row.turn) continue;
      with_it.push_back(other);
      if (due.count(turn) == 0) started.early.push_back(other);
    }
    waiting_.erase(waiting);
    started.encoded.push_back(row);
  }
  return started;
}

CallRows EqualRows::end(const CallRow &encoded) {
  const auto found = running_.find({encoded.owner, encoded.index});
  if (found == running_.end()) return {};  // all was let go of since
  CallRows rows = std::move(found->second);
  running_.erase(found);
  return rows;
}

void EqualRows::clear() {
  waiting_.clear();
  running_.clear();
}

}  // namespace bitheads
