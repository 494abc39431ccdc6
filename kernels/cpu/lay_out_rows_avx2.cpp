// Laying out heads: AVX2.
#include "dispatch.h"
#include "lay_out_rows_loop.h"

namespace bitheads {

const LayOutLoops lay_out_avx2 = kLoops;

}  // namespace bitheads
