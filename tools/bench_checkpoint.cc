// Times the saving and loading of checkpoints, and beside them what `dd` does on the same file
// system, by as many processes at once:
//
//   save           SaveCheckpoint: durable on return
//   load           LoadCheckpoint of files that the system has forgotten; `cached`: that it has not
//   no digests     the same without computing and comparing digests, which no user can ask for: all
//                  that belongs to a rank is still read before any of it is taken
//   digests        the digests alone of what a rank writes, in memory
//   dd             bs=4M, with oflag=direct, conv=fsync and iflag=direct
//
// Each rank writes and reads parameters and moments of experts of its own. A time is that of the
// slowest rank; medians of the rounds, in which the cases take turns.
#include <ATen/ops/from_blob.h>
#include <ATen/ops/rand.h>
#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "launch/commands.h"
#include "parallel/adamw.h"
#include "parallel/gradient_bucket.h"
#include "runtime/agreement.h"
#include "runtime/checkpoint.h"
#include "runtime/config_loader.h"
#include "runtime/hashed_file.h"
#include "tools/benchmark.h"

extern char** environ;

namespace hypermoe {
namespace {

namespace fs = std::filesystem;

constexpr int kExpertsOfRank = 8;

struct Arguments {
  std::string folder = ".", only;
  int mebibytes = 256, rounds = 5;
  bool json = false;
};

// The state of a rank: float32 values of experts, and two moments of each.
class State {
 public:
  State(int64_t bytes, const ProcessMesh& mesh)
      : num_experts_(kExpertsOfRank * mesh.world->size()) {
    constexpr int64_t kColumns = 1024;
    constexpr int64_t kRowBytes = 3 * sizeof(float) * kColumns;  // values and moments
    Parameter parameter;
    parameter.name = "h.0.mlp.experts.expert_{e}.c_fc.weight";
    parameter.group = ParameterGroup::kExpert;
    parameter.first_expert = int64_t{kExpertsOfRank} * mesh.world->rank();
    parameter.value = at::rand({kExpertsOfRank,
                                std::max<int64_t>(1, bytes / kExpertsOfRank / kRowBytes), kColumns})
                          .set_requires_grad(true);
    parameters_.push_back(std::move(parameter));
    buffers_ = MakeFlatBuffers(parameters_);
    buckets_ = MakeGradientBuckets(buffers_, mesh, int64_t{64} << 20);
    optimizer_ = std::make_unique<AdamW>(buffers_, buckets_, AdamWOptions{}, /*sharded=*/false);
  }

  std::vector<FlatBuffer>& buffers() { return buffers_; }
  AdamW& optimizer() { return *optimizer_; }
  int num_experts() const { return num_experts_; }
  int64_t bytes() const { return 3 * parameters_[0].value.nbytes(); }
  const at::Tensor& values() const { return parameters_[0].value; }

 private:
  int num_experts_;
  std::vector<Parameter> parameters_;
  std::vector<FlatBuffer> buffers_;
  std::vector<GradientBucket> buckets_;
  std::unique_ptr<AdamW> optimizer_;
};

// Has the system forget what it has cached of durable files.
absl::Status Forget(const std::string& folder) {
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (!entry.is_regular_file()) continue;
    ASSIGN_OR_RETURN(const FileHandle file, OpenInput(entry.path()));
    posix_fadvise(file.get(), 0, 0, POSIX_FADV_DONTNEED);
  }
  return absl::OkStatus();
}

absl::Status RunProgram(std::vector<std::string> words) {
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  pid_t process = 0;
  const int error =
      posix_spawnp(&process, arguments[0], nullptr, nullptr, arguments.data(), environ);
  int ended = 0;
  if (error != 0 || waitpid(process, &ended, 0) != process || ended != 0)
    return IoError(absl::StrCat(words[0], " failed: its own message is above"));
  return absl::OkStatus();
}

// What is timed. Further ones only need a line in Bench::Cases.
struct Case {
  std::string name;
  std::function<absl::Status()> prepare;  // not timed; may be empty
  std::function<absl::Status()> run;      // by every rank
  bool optional = false;                  // not every file system can do it; then left out
};

class Bench {
 public:
  Bench(const Arguments& arguments, std::string run_dir, ProcessMesh mesh)
      : arguments_(arguments),
        run_dir_(std::move(run_dir)),
        mesh_(std::move(mesh)),
        state_(int64_t{arguments.mebibytes} << 20, mesh_) {}

  absl::Status Execute();

 private:
  std::vector<Case> Cases();
  absl::Status Save();
  absl::Status Load(Digests digests);
  absl::Status Digest() const;
  absl::Status CopyByDd(const std::string& from, const std::string& to, const std::string& how);
  absl::StatusOr<double> Time(const Case& one);
  absl::Status Report(const std::vector<Case>& cases,
                      const std::vector<std::vector<double>>& seconds) const;

  const Arguments& arguments_;
  const std::string run_dir_;
  const ProcessMesh mesh_;
  State state_;
};

absl::Status Bench::Save() {
  CheckpointInfo info;
  ASSIGN_OR_RETURN(info.config,
                   LoadConfig("", {absl::StrCat("model.num_experts=", state_.num_experts())}));
  info.step = 1;
  info.world_size = mesh_.world->size();
  info.expert_parallel = mesh_.expert->size();
  return SaveCheckpoint(run_dir_, info, state_.buffers(), state_.optimizer(), mesh_);
}

absl::Status Bench::Load(Digests digests) {
  return LoadCheckpoint(CheckpointFolder(run_dir_, 1).path(), state_.num_experts(),
                        state_.buffers(), state_.optimizer(), *mesh_.world, digests);
}

// As many bytes as the rank writes: the values three times, for moments are as large.
absl::Status Bench::Digest() const {
  const char* data = static_cast<const char*>(state_.values().const_data_ptr());
  const auto size = static_cast<int64_t>(state_.values().nbytes());
  size_t digits = 0;
  for (int times = 0; times < 3; ++times) {
    for (int64_t begin = 0; begin < size; begin += kChunkBytes)
      digits += DigestOf(data + begin, std::min(kChunkBytes, size - begin)).xxh3_128.size();
  }
  return digits > 0 ? absl::OkStatus() : InternalError("nothing was digested");
}

absl::Status Bench::CopyByDd(const std::string& from, const std::string& to,
                             const std::string& how) {
  const int64_t blocks = std::max<int64_t>(1, state_.bytes() / kChunkBytes);
  return RunProgram({"dd", "if=" + from, "of=" + to, how, "bs=4M", "status=none",
                     absl::StrCat("count=", blocks)});
}

std::vector<Case> Bench::Cases() {
  const std::string own = absl::StrCat(run_dir_, "/dd_", mesh_.world->rank());
  const auto cache = [this] { return Load(Digests::kIgnore); };
  // Read before it is forgotten: what lies below the system, such as a machine that hosts this one,
  // may keep it too, and must for all cases or none.
  const auto forget = [this, cache] {
    RETURN_IF_ERROR(cache());
    return Forget(run_dir_);
  };
  const auto read = [=, this] { return CopyByDd(own, "/dev/null", "iflag=direct"); };
  return {
      {"save", {}, [this] { return Save(); }},
      {"digests", {}, [this] { return Digest(); }},
      {"load", forget, [this] { return Load(Digests::kCheck); }},
      {"load, no digests", forget, [this] { return Load(Digests::kIgnore); }},
      {"load, cached", cache, [this] { return Load(Digests::kCheck); }},
      {"load, cached, no digests", cache, [this] { return Load(Digests::kIgnore); }},
      {"dd write direct",
       {},
       [=, this] { return CopyByDd("/dev/zero", own, "oflag=direct"); },
       /*optional=*/true},
      {"dd write fsync", {}, [=, this] { return CopyByDd("/dev/zero", own, "conv=fsync"); }},
      {"dd read direct", read, read, /*optional=*/true},
  };
}

// Seconds of the slowest rank; not a number where the case cannot be run.
absl::StatusOr<double> Bench::Time(const Case& one) {
  RETURN_IF_ERROR(Agree(*mesh_.world, one.prepare ? one.prepare() : absl::OkStatus()));
  mesh_.world->Barrier();
  const auto begin = std::chrono::steady_clock::now();
  const absl::Status status = one.run();
  double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  const absl::Status agreed = Agree(*mesh_.world, status);
  if (!agreed.ok() && one.optional) return std::nan("");
  RETURN_IF_ERROR(agreed);
  mesh_.world->AllReduceMax(at::from_blob(&seconds, {1}, at::kDouble));
  return seconds;
}

absl::Status Bench::Execute() {
  std::vector<Case> cases = Cases();
  std::erase_if(cases,
                [this](const Case& one) { return !absl::StrContains(one.name, arguments_.only); });
  RETURN_IF_ERROR(Save());  // what is loaded, whatever is timed
  std::vector<std::vector<double>> seconds(cases.size());
  for (int round = 0; round <= arguments_.rounds; ++round) {  // the first one warms up
    for (size_t turn = 0; turn < cases.size(); ++turn) {
      // Back and forth: what a case leaves the system to do is not always another's burden.
      const size_t i = round % 2 == 0 ? turn : cases.size() - 1 - turn;
      ASSIGN_OR_RETURN(const double taken, Time(cases[i]));
      if (round > 0) seconds[i].push_back(taken);
    }
  }
  return Agree(*mesh_.world, mesh_.world->rank() == 0 ? Report(cases, seconds) : absl::OkStatus());
}

absl::Status Bench::Report(const std::vector<Case>& cases,
                           const std::vector<std::vector<double>>& seconds) const {
  const auto bytes = static_cast<double>(state_.bytes()) * mesh_.world->size();
  const nlohmann::json machine = DescribeMachine(mesh_.world->size(), UseThreads(0));
  std::string text =
      arguments_.json ? nlohmann::json{{"machine", machine}}.dump() + "\n" : MachineText(machine);
  if (!arguments_.json)
    absl::StrAppendFormat(&text, "%-26s %10s %10s %10s %10s\n", "", "GB", "seconds", "GB/s",
                          "(quartiles)");
  std::map<std::string, double> medians;
  for (size_t i = 0; i < cases.size(); ++i) {
    if (std::isnan(seconds[i][0])) continue;
    const Quartiles quartiles = QuartilesOf(seconds[i]);
    medians[cases[i].name] = quartiles.median;
    if (arguments_.json) {
      text += nlohmann::json{{"case", cases[i].name},
                             {"bytes", bytes},
                             {"seconds", quartiles.median},
                             {"lower_quartile", quartiles.lower},
                             {"upper_quartile", quartiles.upper},
                             {"gb_per_second", bytes / quartiles.median / 1e9}}
                  .dump() +
              "\n";
    } else {
      absl::StrAppendFormat(&text, "%-26s %10.3f %10.3f %10.3f %10.3f %.3f\n", cases[i].name,
                            bytes / 1e9, quartiles.median, bytes / quartiles.median / 1e9,
                            bytes / quartiles.upper / 1e9, bytes / quartiles.lower / 1e9);
    }
  }
  const auto share = [&](const std::string& of, double part) {
    const double ratio = part / medians.at(of);
    text += arguments_.json
                ? nlohmann::json{{"digest_share_of", of}, {"share", ratio}}.dump() + "\n"
                : absl::StrFormat("digests take %.1f%% of: %s\n", 100 * ratio, of);
  };
  if (medians.contains("save") && medians.contains("digests")) share("save", medians["digests"]);
  for (const std::string of : {"load", "load, cached"}) {
    const auto without = medians.find(of + ", no digests");
    if (medians.contains(of) && without != medians.end()) share(of, medians[of] - without->second);
  }
  return WriteStdout(text);
}

// A folder of rank 0's making for all. Collective.
absl::StatusOr<std::string> MakeFolder(const std::string& parent, Communicator& world) {
  std::string path = parent + "/bench_checkpoint.XXXXXX";
  absl::Status status;
  if (world.rank() == 0 && mkdtemp(path.data()) == nullptr)
    status = ErrnoError(parent, "create a folder in it", errno);
  RETURN_IF_ERROR(Agree(world, status));
  return world.AllGatherText(path)[0];
}

absl::Status Run(const Arguments& arguments, std::shared_ptr<Communicator> world) {
  UseThreads(0);
  ASSIGN_OR_RETURN(const std::string folder, MakeFolder(arguments.folder, *world));
  absl::Status status =
      Bench(arguments, folder, ProcessMesh::Create(world, world->size())).Execute();
  world->Barrier();
  std::error_code error;
  if (world->rank() == 0) fs::remove_all(folder, error);
  return status;
}

int Main(int argc, char** argv) {
  CLI::App app("Times saving and loading of checkpoints beside dd on the same file system.",
               "bench_checkpoint");
  Arguments arguments;
  app.add_option("--folder", arguments.folder,
                 "Where to write: on the file system that is to be measured")
      ->type_name("DIR")
      ->capture_default_str();
  AddNumber(app, "--mebibytes", &arguments.mebibytes, 1, "What each rank writes and reads");
  AddNumber(app, "--rounds", &arguments.rounds, 1, "Rounds, of which the median counts");
  app.add_option("--only", arguments.only, "Time only the cases whose name contains this")
      ->type_name("TEXT");
  app.add_flag("--json", arguments.json, "JSON lines instead of a table");
  app.footer("Example:\n  launch/mpirun -np 2 build/bench_checkpoint --folder /scratch");
  return RunBenchmark(argc, argv, app, [&arguments](std::shared_ptr<Communicator> world) {
    return Run(arguments, std::move(world));
  });
}

}  // namespace
}  // namespace hypermoe

int main(int argc, char** argv) { return hypermoe::Main(argc, argv); }
