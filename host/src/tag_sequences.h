// Tags of words, of which one that goes on with a span comes after a word of that span alone:
// outside of any span, and for each label the word that begins a span and those that go on with it,
// O, B-first, I-first, B-second, I-second and so on. The kernels compute both for Python, too
// (engine/kinds/tag_sequences.py); what, to the bit, is in kernels/SPEC.md.
#ifndef BITHEADS_HOST_TAG_SEQUENCES_H
#define BITHEADS_HOST_TAG_SEQUENCES_H

#include <cstddef>
#include <cstdint>
#include <vector>

namespace bitheads {

// Both take the logits of all words of some texts, float [words, 1 + 2 labels], and the texts'
// offsets into the words, [texts + 1], from 0 on. They throw Error(invalid_input) for offsets that
// go back.

// The tag of each word: of each text those of its likeliest sequence.
std::vector<int64_t> best_tags(const float *logits, const std::vector<int64_t> &offsets,
                               size_t labels);

// How likely each word is of a span with each label, float [words, labels].
std::vector<float> label_probabilities(const float *logits, const std::vector<int64_t> &offsets,
                                       size_t labels);

}  // namespace bitheads

#endif
