// One folder for all ranks of a test, made and removed by rank 0.
#pragma once

#include <optional>
#include <string>

#include "tests/support/mpi_test.h"
#include "tests/support/temporary_folder.h"

namespace hypermoe {

class SharedFolder {
 public:
  SharedFolder() {
    if (World()->rank() == 0) folder_.emplace();
    const std::string path = World()->AllGatherText(folder_ ? folder_->path() : "")[0];
    if (!folder_) folder_.emplace(path);
  }
  ~SharedFolder() { World()->Barrier(); }
  const std::string& path() const { return folder_->path(); }
  std::string operator/(const std::string& name) const { return *folder_ / name; }

 private:
  std::optional<TemporaryFolder> folder_;
};

}  // namespace hypermoe
