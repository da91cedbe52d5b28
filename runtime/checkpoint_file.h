// One file of a checkpoint, of which nothing is given out that has not been compared with the
// digests in the manifest: chunk by chunk, only those that hold what is asked for.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <future>
#include <memory>
#include <string>
#include <vector>

#include "parallel/partition.h"
#include "runtime/checkpoint_manifest.h"
#include "runtime/file_util.h"
#include "runtime/safetensors.h"
#include "runtime/status.h"

namespace hypermoe {

class CheckpointFile {
 public:
  // Opens the file `name` of the checkpoint; `manifest` is the checkpoint's, and must outlive this.
  // DataError if it is not there with its size; IoError if it cannot be opened.
  static absl::StatusOr<std::unique_ptr<CheckpointFile>> Open(const std::string& checkpoint,
                                                              const std::string& name,
                                                              const CheckpointManifest& manifest,
                                                              Digests digests = Digests::kCheck);

  // Reads a chunk and compares it with its digest, at the first call only. DataError: damaged, or
  // the medium does not give it; names the file, the bytes, and the tensors that lie in them.
  absl::Status CheckChunk(int64_t index);
  int64_t num_chunks() const { return static_cast<int64_t>(digest_.chunks.size()); }

  // The tensor, after checking the chunks that it and the file's header lie in. It shares the
  // file's mapping: never write to it. DataError: damaged, or not in the file as the manifest says.
  absl::StatusOr<at::Tensor> Read(const std::string& tensor);
  // That the header, after checking its chunks, says of every tensor of the manifest that is in
  // this file what the manifest says, and has no others.
  absl::Status CheckHeader();

 private:
  CheckpointFile(std::string name, const CheckpointManifest& manifest,
                 std::shared_ptr<const MappedFile> file, Digests digests);
  absl::Status CheckBytes(int64_t begin, int64_t end);
  RowRange BytesOf(int64_t chunk) const;
  bool WaitFor(int64_t chunk);
  absl::Status CompareChunk(int64_t begin, int64_t end, bool readable,
                            const std::string& expected) const;
  absl::Status OpenHeader();
  absl::Status CheckEntry(const std::string& tensor) const;
  std::string TensorsIn(int64_t begin, int64_t end) const;

  std::string name_;
  const CheckpointManifest& manifest_;
  const ChunkedDigest& digest_;
  std::shared_ptr<const MappedFile> file_;
  Digests digests_;
  std::vector<bool> checked_;  // by chunk: whole
  int64_t coming_chunk_ = 0;   // that is being read ahead
  std::future<bool> coming_;   // whether the medium gives it; not valid: none is
  std::shared_ptr<const SafetensorsFile> safetensors_;  // once the header has been checked
};

}  // namespace hypermoe
