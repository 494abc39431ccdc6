// A budget in place of a precision: which ways to compute an encoder are exact enough for `auto`.
// The rule is that of engine/sessions/agreement.py.
#ifndef BITHEADS_HOST_AGREEMENT_H
#define BITHEADS_HOST_AGREEMENT_H

#include <string>
#include <vector>

#include "bundle.h"

namespace bitheads {

// Throws Error(invalid_input) for a budget that is no share of signs, or that has nothing to choose
// among because a precision is named; nothing without a budget.
void check_min_sign_agreement(const Options &options);

// The precisions that `auto` may take of this bundle on a processor, best guess first; at least
// one. `asked` is checked already. Throws Error(backend) if the bundle's build measured nothing, or
// if nothing that this machine has agrees so well.
std::vector<std::string> precisions_within(const Manifest &manifest, double asked, bool has_bf16);

}  // namespace bitheads

#endif
