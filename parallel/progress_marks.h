// What this process is doing, marked by the threads that do it and read by one that watches whether
// it goes on (runtime/watchdog.h). One set of marks a process, as there is one job that it works
// on: code that takes long anywhere marks its progress without being handed anything.
//
// A mark costs a few relaxed atomic stores, and no lock. Marks made at the same time as they are
// read may be read half; once nothing is marked any more, what is read is right.
#pragma once

#include <array>
#include <cstdint>
#include <string>

namespace hypermoe {

// From here on this process works on step `step`, counted from 1.
void MarkStep(int64_t step);
// From here on it is in the part of its work called `phase`, a string literal of one word.
void MarkPhase(const char* phase);
// It has come further: call this about once a second or more in whatever may take minutes without a
// collective, such as after each tensor or batch. Not while nothing gets done: a loop that marks
// and waits looks alive for ever.
void MarkProgress();

// Marks a collective while it lives; Communicator does it for every one.
class CollectiveMark {
 public:
  // The next collective of this process begins. `kind` is a string literal.
  CollectiveMark(const char* kind, const std::string& group);
  // Collective `number`, begun before, is waited for or tested. This is no progress.
  CollectiveMark(const char* kind, const std::string& group, int64_t number);
  ~CollectiveMark();
  CollectiveMark(const CollectiveMark&) = delete;
  CollectiveMark& operator=(const CollectiveMark&) = delete;

  // Collectives are numbered from 1 through all groups of a process. All ranks call them in the
  // same order, but for reductions that backward starts when it can: kMaxPendingReductions
  // (gradient_reducer.h) at most by which one rank may be ahead. One that is further back is
  // behind.
  int64_t number() const { return number_; }

 private:
  CollectiveMark(const char* kind, const std::string& group, int64_t number, bool counts);

  int64_t number_;
  bool counts_;  // its end is progress
};

struct Progress {
  int64_t marks = 0;  // how often there has been progress: stands still where the process does
  int64_t step = 0;   // 0: none yet
  const char* phase = "";
  int64_t collectives = 0;  // begun so far
  // The collective this process is in, or was in last; 0: none yet.
  int64_t collective = 0;
  const char* kind = "";
  std::array<char, 16> group = {};  // its group's name, cut where it is longer
  bool inside = false;              // it has not returned
};
Progress ReadProgress();

// Called with `what` at the begin of every phase and of every collective ("forward", "all_to_all"),
// by the thread that marks it; null: nobody. For tests that stop a process at a chosen point.
using ProgressHook = void (*)(const char* what);
void SetProgressHook(ProgressHook hook);

}  // namespace hypermoe
