// Laying out heads: AVX2.
#include "lay_out_rows_loop.h"

namespace bitheads {

const LayOutLoops kLayOutAvx2 = kLoops;

}  // namespace bitheads
