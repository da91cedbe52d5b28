// Saving beside training on one rank: what is in the files, when a checkpoint has its name, and
// what a file system that fails at any moment leaves behind.
#include "runtime/checkpoint_saver.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <future>
#include <set>
#include <stdexcept>
#include <thread>

#include "parallel/steady_seconds.h"
#include "tests/support/checkpoint_fixture.h"
#include "tests/support/file_calls.h"

namespace hypermoe {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::Contains;
using testing::ElementsAre;
using testing::Ge;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::SizeIs;

std::vector<std::string> Names(const std::string& folder) {
  std::vector<std::string> names;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error))
    names.push_back(entry.path().filename());
  std::sort(names.begin(), names.end());
  return names;
}

mode_t ModeOf(const std::string& path) {
  struct stat info;
  return stat(path.c_str(), &info) == 0 ? info.st_mode & 0777 : 0;
}

class CheckpointSaverTest : public CheckpointTest {
 protected:
  CheckpointSaver Saver(CheckpointSaverHooks hooks = {}, int64_t newest = 0) {
    return SaverIn(run_.path(), std::move(hooks), newest);
  }
  CheckpointSaver SaverIn(const std::string& run_dir, CheckpointSaverHooks hooks = {},
                          int64_t newest = 0) {
    return {run_dir,
            info_,
            mesh_,
            newest,
            [this](const std::string& note) { notes_.push_back(note); },
            std::move(hooks)};
  }

  CheckpointConfig& Config() { return *info_.config.mutable_checkpoint(); }

  // Names of what is not as it was filled with `salt` in the checkpoint of a step.
  std::vector<std::string> WrongIn(const std::string& checkpoint, int64_t step, int salt) {
    TaggedModel model({});
    const absl::Status loaded =
        LoadCheckpoint(checkpoint, kNumExperts, model.buffers(), model.optimizer(), *mesh_.world);
    EXPECT_TRUE(loaded.ok()) << loaded;
    EXPECT_EQ(model.optimizer().steps(), step);
    std::vector<std::string> wrong = model.WrongValues(salt), moments = model.WrongMoments(salt);
    wrong.insert(wrong.end(), moments.begin(), moments.end());
    return wrong;
  }

  std::vector<std::string> notes_;
};

// Lets a thread go on when the test says so.
class Gate {
 public:
  void Open() { opened_.set_value(); }
  std::function<void(const std::string&)> HoldsAt(const std::string& phase) {
    return [phase, opened = opened_future_](const std::string& now) {
      if (now == phase) opened.wait();
    };
  }

 private:
  std::promise<void> opened_;
  std::shared_future<void> opened_future_ = opened_.get_future().share();
};

// Saves tags of 1, changes every tensor before the writer has read one, and saves tags of 2.
void SaveTwiceChangingInBetween(CheckpointSaver& saver, TaggedModel& model, Gate& gate) {
  model.Fill(1, 10);
  ASSERT_TRUE(saver.Save(10, model.buffers(), model.optimizer()).ok());
  model.Fill(2, 20);
  gate.Open();
  ASSERT_TRUE(saver.Save(20, model.buffers(), model.optimizer()).ok());
  model.Fill(3, 30);
  ASSERT_TRUE(saver.Wait().ok());
}

TEST_F(CheckpointSaverTest, WritesWhatTheTensorsWereWhateverTheyBecome) {
  Gate gate;
  CheckpointSaver saver = Saver({gate.HoldsAt("write")});
  TaggedModel model({});
  SaveTwiceChangingInBetween(saver, model, gate);
  EXPECT_THAT(WrongIn(Folder(10), 10, 1), IsEmpty());
  EXPECT_THAT(WrongIn(Folder(20), 20, 2), IsEmpty());
  EXPECT_THAT(WrongIn(Folder(20), 20, 1), Not(IsEmpty()));
  EXPECT_EQ(saver.newest(), 20);
  EXPECT_THAT(notes_, ElementsAre(HasSubstr("saved " + Folder(10)), HasSubstr(Folder(20))));
}

// The control of the test above: a snapshot that is not a copy is noticed.
TEST_F(CheckpointSaverTest, ASnapshotThatSharesTheTensorsMemoryIsNoticed) {
  Gate gate;
  CheckpointSaver saver =
      Saver({gate.HoldsAt("write"), [](const at::Tensor& like) { return like; }});
  TaggedModel model({});
  SaveTwiceChangingInBetween(saver, model, gate);
  // The writer of the first save began after the change.
  EXPECT_THAT(WrongIn(Folder(10), 10, 1),
              AllOf(Contains("wte.weight"), Contains("second wte.weight")));
}

TEST_F(CheckpointSaverTest, TakesMemoryForTheFirstCopyOnly) {
  int taken = 0;
  CheckpointSaver saver = Saver({{}, [&taken](const at::Tensor& like) {
                                   ++taken;
                                   return CheckpointSnapshot::NewHostMemory(like);
                                 }});
  TaggedModel model({});
  for (const int64_t step : {1, 2, 3}) {
    model.Fill(static_cast<int>(step), step);
    ASSERT_TRUE(saver.Save(step, model.buffers(), model.optimizer()).ok());
    EXPECT_EQ(taken, 3 * 3);  // values and two moments of three groups
  }
  ASSERT_TRUE(saver.Wait().ok());
  EXPECT_THAT(WrongIn(Folder(3), 3, 3), IsEmpty());
}

TEST_F(CheckpointSaverTest, WritesTheLastAndWithoutBackgroundAtOnceAndCopiesNothing) {
  const auto none = [](const at::Tensor& like) {
    ADD_FAILURE() << "a copy was made";
    return like;
  };
  TaggedModel model({});
  model.Fill(1, 5);
  CheckpointSaver saver = Saver({{}, none});
  ASSERT_TRUE(saver.SaveLast(5, model.buffers(), model.optimizer()).ok());
  EXPECT_EQ(saver.newest(), 5);
  EXPECT_THAT(notes_, ElementsAre(HasSubstr("saved " + Folder(5))));
  ASSERT_TRUE(saver.SaveLast(5, model.buffers(), model.optimizer()).ok());  // is there already
  Config().set_asynchronous(false);
  CheckpointSaver waiting = Saver({{}, none}, 5);
  model.Fill(2, 6);
  ASSERT_TRUE(waiting.Save(6, model.buffers(), model.optimizer()).ok());
  EXPECT_FALSE(waiting.working());
  EXPECT_THAT(WrongIn(Folder(6), 6, 2), IsEmpty());
  EXPECT_THAT(notes_, SizeIs(2));
}

// What is wrong with the order in which the files of a checkpoint became durable and it got its
// name, at `said` said to be saved.
std::vector<std::string> OrderProblems(const std::vector<FileCall>& calls,
                                       const std::string& checkpoint, double said) {
  const auto none = calls.end();
  const auto last = [&](const std::string& name, ino_t inode) {
    const auto found = std::find_if(calls.rbegin(), calls.rend(), [&](const FileCall& call) {
      return call.name == name && call.inode == inode;
    });
    return found == calls.rend() ? none : std::prev(found.base());
  };
  std::vector<std::string> problems;
  const auto named = std::find_if(calls.begin(), none, [&](const FileCall& call) {
    return call.name == "rename" && call.path == checkpoint;
  });
  if (named == none) return {"it got no name"};
  for (const std::string& name : Names(checkpoint)) {
    struct stat info;
    EXPECT_EQ(stat((checkpoint + "/" + name).c_str(), &info), 0);
    const auto written = last("pwrite", info.st_ino), synced = last("fsync", info.st_ino),
               in_folder = last("rename", info.st_ino), folder_synced = last("fsync", named->inode);
    if (written == none || synced == none || synced < written || synced > named)
      problems.push_back(name + " was not durable");
    if (folder_synced == none || folder_synced < in_folder || folder_synced > named)
      problems.push_back(name + " had no durable name in the folder");
  }
  const std::string parent = fs::path(checkpoint).parent_path();
  const auto parent_synced = std::find_if(named, none, [&](const FileCall& call) {
    return call.name == "fsync" && call.path == parent;
  });
  if (parent_synced == none || parent_synced->seconds > said)
    problems.push_back("its own name was not durable when it was said to be saved");
  return problems;
}

TEST_F(CheckpointSaverTest, HasItsNameOnlyWhenAllIsDurable) {
  std::vector<FileCall> calls;
  double said = 0;
  {
    const WatchedFileCalls watch(run_.path());
    CheckpointSaver saver(run_.path(), info_, mesh_, 0,
                          [&said](const std::string&) { said = SteadySeconds(); });
    TaggedModel model({});
    model.Fill(1, 7);
    ASSERT_TRUE(saver.Save(7, model.buffers(), model.optimizer()).ok());
    ASSERT_TRUE(saver.Wait().ok());
    calls = watch.calls();
  }
  ASSERT_THAT(Names(Folder(7)), SizeIs(2));
  EXPECT_THAT(OrderProblems(calls, Folder(7), said), IsEmpty());

  // Controls: one thing less, or another order, is seen each time.
  EXPECT_THAT(OrderProblems(calls, Folder(7), 0), SizeIs(1));  // said to be saved too early
  std::set<ino_t> synced;
  for (const FileCall& call : calls) {
    const bool needed = call.path.find("step_") != std::string::npos ||
                        call.path == fs::path(Folder(7)).parent_path();
    if (call.name == "fsync" && needed) synced.insert(call.inode);
  }
  EXPECT_THAT(synced, SizeIs(Ge(4)));  // two files, their folder, its parent
  for (const ino_t inode : synced) {
    std::vector<FileCall> fewer = calls;
    std::erase_if(
        fewer, [&](const FileCall& call) { return call.name == "fsync" && call.inode == inode; });
    EXPECT_THAT(OrderProblems(fewer, Folder(7), said), Not(IsEmpty())) << inode;
  }
  const auto published = std::find_if(calls.begin(), calls.end(), [&](const FileCall& call) {
    return call.name == "rename" && call.path == Folder(7);
  });
  ASSERT_NE(published, calls.end());
  std::rotate(calls.begin(), published, published + 1);  // published first
  EXPECT_THAT(OrderProblems(calls, Folder(7), said), SizeIs(4));
}

// Saves step 2, filled with 2, while call number `fail_at` below `run_dir` fails.
void SaveWithAFailure(int64_t fail_at, int error, const std::string& run_dir,
                      CheckpointSaver& saver, absl::Status* status, FileCall* failed) {
  TaggedModel model({});
  model.Fill(2, 2);
  const WatchedFileCalls watch(run_dir, fail_at, error);
  *status = saver.Save(2, model.buffers(), model.optimizer());
  status->Update(saver.Wait());
  *failed = watch.failed();
}

// Whichever call fails: what is there can be loaded, and step 1 is there unless step 2 is.
TEST_F(CheckpointSaverTest, NoFailingCallCostsACheckpoint) {
  Config().set_keep(1);
  int outcomes[2] = {0, 0};
  std::set<std::string> kinds;
  for (int64_t fail_at = 0;; ++fail_at) {
    SCOPED_TRACE(fail_at);
    const std::string run_dir = run_ / std::to_string(fail_at);
    CheckpointSaver saver = SaverIn(run_dir);
    TaggedModel model({});
    model.Fill(1, 1);
    ASSERT_TRUE(saver.SaveLast(1, model.buffers(), model.optimizer()).ok());
    notes_.clear();
    absl::Status status;
    FileCall failed;
    SaveWithAFailure(fail_at, fail_at % 2 == 0 ? ENOSPC : EIO, run_dir, saver, &status, &failed);
    const std::vector<std::string> names = Names(run_dir + "/checkpoints");
    const std::string second = run_dir + "/checkpoints/step_00000002",
                      first = run_dir + "/checkpoints/step_00000001";
    if (failed.name.empty()) {
      ASSERT_TRUE(status.ok()) << status;
      EXPECT_THAT(names, ElementsAre("latest", "step_00000002"));
      break;
    }
    kinds.insert(failed.name);
    ++outcomes[status.ok()];
    if (fs::exists(second)) {
      EXPECT_THAT(WrongIn(second, 2, 2), IsEmpty()) << failed.path;
    }
    if (fs::exists(first)) {
      EXPECT_THAT(WrongIn(first, 1, 1), IsEmpty()) << failed.path;
    }
    EXPECT_EQ(status.ok(), saver.newest() == 2) << failed.path;
    if (status.ok()) {
      // The new one was durable; what failed was to remove the old one.
      EXPECT_TRUE(fs::exists(second));
      EXPECT_THAT(notes_, Contains(HasSubstr("old checkpoints stay")));
      continue;
    }
    EXPECT_EQ(ExitCodeOf(status), ExitCode::kIo) << status;
    EXPECT_THAT(Message(status), AllOf(HasSubstr("the checkpoint of step 2 could not be saved"),
                                       HasSubstr(fail_at % 2 == 0 ? "No space left on device"
                                                                  : "Input/output error")));
    EXPECT_TRUE(fs::exists(first)) << "removed before the new one was durable: " << failed.path;
    for (const std::string& name : names) EXPECT_THAT(name, Not(HasSubstr(".tmp")));
    EXPECT_THAT(notes_, IsEmpty());
  }
  EXPECT_GE(outcomes[false], 10);
  EXPECT_GE(outcomes[true], 1);
  EXPECT_THAT(kinds, ElementsAre("fsync", "linkat", "mkdir", "pwrite", "rename"));
}

TEST_F(CheckpointSaverTest, GoesOnAfterAFailureWhereThatIsWanted) {
  Config().set_on_save_error(CheckpointConfig::continue_);
  for (const bool asynchronous : {true, false}) {
    Config().set_asynchronous(asynchronous);
    const std::string run_dir = run_ / (asynchronous ? "beside" : "waiting");
    CheckpointSaver saver = SaverIn(run_dir);
    // The second call that writes: in the middle of a file's content or the manifest.
    absl::Status status;
    FileCall failed;
    SaveWithAFailure(4, ENOSPC, run_dir, saver, &status, &failed);
    EXPECT_TRUE(status.ok()) << status;
    EXPECT_FALSE(failed.name.empty());
    EXPECT_THAT(notes_, ElementsAre(AllOf(HasSubstr("warning: the checkpoint of step 2"),
                                          HasSubstr("No space left on device"))));
    EXPECT_EQ(saver.newest(), 0);
    EXPECT_THAT(Names(run_dir + "/checkpoints"), IsEmpty());
    TaggedModel model({});
    model.Fill(3, 3);
    EXPECT_TRUE(saver.Save(3, model.buffers(), model.optimizer()).ok());
    EXPECT_TRUE(saver.Wait().ok());
    EXPECT_THAT(WrongIn(run_dir + "/checkpoints/step_00000003", 3, 3), IsEmpty());
    // Nothing follows the last one.
    const WatchedFileCalls watch(run_dir, 0, ENOSPC);
    EXPECT_EQ(ExitCodeOf(saver.SaveLast(4, model.buffers(), model.optimizer())), ExitCode::kIo);
    notes_.clear();
  }
}

TEST_F(CheckpointSaverTest, ThrowsWhereItIsWaitedForWhatTheThreadThrew) {
  CheckpointSaver saver =
      Saver({[](const std::string&) { throw std::runtime_error("on the thread"); }});
  TaggedModel model({});
  ASSERT_TRUE(saver.Save(1, model.buffers(), model.optimizer()).ok());
  EXPECT_THROW((void)saver.Wait(), std::runtime_error);
}

// As when training ends by an exception: the destructor waits neither for ever nor for nothing.
TEST_F(CheckpointSaverTest, CanBeDestroyedWhileItSaves) {
  TaggedModel model({});
  model.Fill(1, 1);
  for (const std::string phase : {"write", "publish"}) {
    auto ended = std::make_shared<int>();
    const std::weak_ptr<int> running = ended;
    Gate gate;
    {
      CheckpointSaver saver =
          Saver({[hold = gate.HoldsAt(phase), ended](const std::string& now) { hold(now); }});
      ended.reset();
      ASSERT_TRUE(saver.Save(1, model.buffers(), model.optimizer()).ok());
      if (phase == "publish") {
        while (saver.working()) std::this_thread::yield();
        ASSERT_TRUE(saver.Advance(0).ok());
      }
      EXPECT_TRUE(saver.working());
    }
    EXPECT_FALSE(running.expired());
    EXPECT_FALSE(fs::exists(Folder(1)));
    gate.Open();
    while (!running.expired()) std::this_thread::yield();
  }
  { ASSERT_TRUE(Saver().Save(2, model.buffers(), model.optimizer()).ok()); }  // not stuck
  // What all these have left does not matter to the next.
  CheckpointSaver saver = Saver();
  ASSERT_TRUE(saver.SaveLast(3, model.buffers(), model.optimizer()).ok());
  EXPECT_THAT(Names(run_ / "checkpoints"), Not(Contains(HasSubstr(".tmp"))));
}

// 0777 and 0666 less the umask at the end, for nobody else before.
TEST_F(CheckpointSaverTest, IsForTheUserAloneUntilItIsComplete) {
  int64_t step = 0;
  for (const mode_t mask : {0022, 0027, 0007, 0077, 0000}) {
    const mode_t old = umask(mask);
    ++step;
    std::vector<mode_t> before;
    {
      CheckpointSaver saver =
          Saver({[&](const std::string&) { before.push_back(ModeOf(Folder(step) + ".tmp")); }});
      TaggedModel model({});
      EXPECT_TRUE(saver.Save(step, model.buffers(), model.optimizer()).ok());
      EXPECT_TRUE(saver.Wait().ok());
    }
    umask(old);
    EXPECT_THAT(before, ElementsAre(0700, 0700)) << std::oct << mask;
    EXPECT_EQ(ModeOf(Folder(step)), mode_t{0777} & ~mask);
    for (const std::string& name : Names(Folder(step)))
      EXPECT_EQ(ModeOf(Folder(step) + "/" + name), mode_t{0666} & ~mask) << name;
  }
}

}  // namespace
}  // namespace hypermoe
