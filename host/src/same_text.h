// Whether two texts are the same to the encoder: their token ids and the types of these.
#ifndef BITHEADS_HOST_SAME_TEXT_H
#define BITHEADS_HOST_SAME_TEXT_H

#include <cstdint>

#include "bitheads/bitheads.hpp"

namespace bitheads {

bool are_same(const Tokens &a, const Tokens &b);

// The same of texts that are the same. SipHash-1-3 (Aumasson and Bernstein 2012) under a key of
// this process: nobody can send texts that all have one hash. Others may have it too: compare.
uint64_t hash_of(const Tokens &text);

}  // namespace bitheads

#endif
