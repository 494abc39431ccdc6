// All device code as one translation unit: one compiler call makes the one fat binary, without
// relocatable device code and a link, and its report covers every kernel.
#include "grouped_dense.cu"
#include "packed_attention_pool.cu"
#include "pool_and_pack.cu"
#include "pool_positions.cu"
