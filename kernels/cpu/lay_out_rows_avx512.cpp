// Laying out heads: AVX-512.
#include "lay_out_rows_loop.h"

namespace bitheads {

const LayOutLoops kLayOutAvx512 = kLoops;

}  // namespace bitheads
