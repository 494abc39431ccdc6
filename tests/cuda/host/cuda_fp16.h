// Stands in for CUDA's header of this name when kernels are compiled for the host.
#include "host_cuda.h"
