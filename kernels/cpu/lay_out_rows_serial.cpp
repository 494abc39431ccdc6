// Laying out heads: the portable level.
#include "lay_out_rows_loop.h"

namespace bitheads {

const LayOutLoops kLayOutSerial = kLoops;

}  // namespace bitheads
