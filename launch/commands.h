// The commands of the program: what each takes on its command line and does.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "configs/run.pb.h"
#include "launch/run_job.h"
#include "runtime/status.h"

namespace CLI {
class App;
class Validator;
}  // namespace CLI

namespace hypermoe {

class Communicator;

// Each adds its options to `app`; what it returns runs the command with the values that were parsed
// into them.
JobBody DefinePrepare(CLI::App& app);
JobBody DefinePretrain(CLI::App& app);
JobBody DefineFinetune(CLI::App& app);
JobBody DefineEvaluate(CLI::App& app);
JobBody DefineGenerate(CLI::App& app);
JobBody DefineScore(CLI::App& app);
JobBody DefineImport(CLI::App& app);
JobBody DefineExport(CLI::App& app);
JobBody DefineVerify(CLI::App& app);
JobBody DefineUpcycle(CLI::App& app);
JobBody DefineGrow(CLI::App& app);
JobBody DefineCheckpoint(CLI::App& app);
JobBody DefineInspect(CLI::App& app);
JobBody DefineEnv(CLI::App& app);

// --set PATH=VALUE, once for each change. The vector must outlive the parsing.
void AddSetOption(CLI::App& app, std::vector<std::string>* overrides, const std::string& help);

// --task, whose help lists the tasks, and --data. The strings must outlive the parsing.
void AddTaskOptions(CLI::App& app, std::string* task, std::string* folder);

// Accepts numbers from `min` to `max`; unlike CLI::Range no NaN, and its message is readable.
// Leaves it to the option to refuse fractions where it is an integer.
CLI::Validator Within(double min, double max);

// Sets the threads of LibTorch in this process and returns them: `configured`, or where it is 0
// this rank's share of the cores it may use.
int UseThreads(int configured);

// An error unless `degree` ranks can share a set of experts in this world; 0 means the default
// degree.
absl::Status CheckExpertDegree(int degree, int world_size);

// What a finished model can still be given by --set.
struct LayoutOverrides {
  MeshConfig mesh;    // with its defaults
  std::string dtype;  // "": as trained
};
// `fields`: those that the command allows, of mesh.* and runtime.dtype.
absl::StatusOr<LayoutOverrides> ReadLayoutOverrides(const std::vector<std::string>& overrides,
                                                    const std::vector<std::string>& fields,
                                                    int world_size);
// Those of commands that compute with the model, whose result may differ by rounding.
const std::vector<std::string>& ComputingFields();

// Writes `text` to stdout and flushes: a full disk or a closed pipe is an error, not a silent loss.
absl::Status WriteStdout(const std::string& text);

// The same by rank 0 for all. Collective over `world`; the same status on every rank.
absl::Status WriteResult(const std::string& text, Communicator& world);

}  // namespace hypermoe
