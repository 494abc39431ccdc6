// Rows of the tables that ids choose from: a lookup past a table's end is undefined.
#ifndef BITHEADS_HOST_TABLE_ROWS_H
#define BITHEADS_HOST_TABLE_ROWS_H

#include <cstdint>
#include <limits>

namespace bitheads {

struct TableRows {
  int64_t vocabulary = std::numeric_limits<int64_t>::max();  // that if the table is not found
  int64_t token_types = 0;  // 0: the encoder reads none, or the bundle does not say
};

}  // namespace bitheads

#endif
