// Laying out heads: AVX-512.
#include "dispatch.h"
#include "lay_out_rows_loop.h"

namespace bitheads {

const LayOutLoops lay_out_avx512 = kLoops;

}  // namespace bitheads
