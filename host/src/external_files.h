// Which files beside an ONNX graph its weights are in.
#ifndef BITHEADS_HOST_EXTERNAL_FILES_H
#define BITHEADS_HOST_EXTERNAL_FILES_H

#include <set>
#include <string>
#include <string_view>

namespace bitheads {

// Their names. Where an entry gives several, all are listed, though only the last would count.
// Throws std::invalid_argument for what is no protobuf. See engine/files/external_files.py.
std::set<std::string> external_files(std::string_view graph);

}  // namespace bitheads

#endif
