// Tags of words, of which one that goes on with a span comes after a word of that span alone:
// outside of any span, and for each label the word that begins a span and those that go on with it,
// O, B-first, I-first, B-second, I-second and so on. A sequence is as likely as the exponential of
// its logits' sum. engine/kinds/tag_sequences.py has the same rules.
#ifndef BITHEADS_HOST_TAG_SEQUENCES_H
#define BITHEADS_HOST_TAG_SEQUENCES_H

#include <cstddef>
#include <vector>

namespace bitheads {

// The tag of each word of a text, from logits float [words, 1 + 2 labels]. Each word's likeliest,
// if they may follow each other so. Else those with the largest sum of logits, in double, of all
// that may (Viterbi's algorithm); of equal sums, the first tag, and of a span its beginning.
std::vector<size_t> best_tags(const float *logits, size_t words, size_t labels);

// How likely each word of a text is of a span with each label, float [words, labels]; over all
// sequences, in double (the forward-backward algorithm).
std::vector<float> label_probabilities(const float *logits, size_t words, size_t labels);

}  // namespace bitheads

#endif
