// Laying out heads: the portable level.
#include "dispatch.h"
#include "lay_out_rows_loop.h"

namespace bitheads {

const LayOutLoops lay_out_serial = kLoops;

}  // namespace bitheads
