// How the communicator over NCCL fails and ends, over the stand-in for libnccl.
#include <ATen/ops/ones.h>
#include <c10/util/Exception.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <stdexcept>
#include <thread>
#include <utility>

#include "parallel/nccl_communicator.h"
#include "tests/support/nccl_test.h"

namespace hypermoe {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

// Whatever finds a failure in the background first aborts the group, names it, and is the last to
// do something with it.
TEST(NcclFailuresTest, FailuresInTheBackgroundAbortTheGroup) {
  const std::function<void(Communicator&, PendingCollective&)> finders[] = {
      [](Communicator&, PendingCollective& pending) { pending.Test(); },
      [](Communicator&, PendingCollective& pending) { pending.Wait(); },
      [](Communicator& group, PendingCollective&) { group.CheckTransport(); },
      [](Communicator& group, PendingCollective&) { group.AllReduceSum(at::ones({3})); }};
  for (const auto& find : finders) {
    auto world = NcclWorld();
    auto part = world->Split("part", 0, World()->rank());
    const at::Tensor values = at::ones({3});
    auto pending = part->StartAllReduceSum(values);
    const std::string place = " in group 'part' (rank " + std::to_string(World()->rank()) + " of ";
    EXPECT_EQ(CommErrorOf([&] { part->CheckTransport(); }), "no CommError");
    recording_nccl::FailInBackground("part");
    recording_nccl::Take();
    EXPECT_THAT(
        CommErrorOf([&] { find(*part, *pending); }),
        AllOf(HasSubstr(place), HasSubstr("remote process exited"), HasSubstr("peer gone")));
    recording_nccl::FailInBackground("");
    for (int i = 0; i < 2; ++i) {
      EXPECT_THAT(CommErrorOf([&] { part->Broadcast(values, 0); }),
                  AllOf(HasSubstr(place), HasSubstr("aborted before"), HasSubstr("peer gone")));
    }
    EXPECT_THAT(CommErrorOf([&] { part->CheckTransport(); }), HasSubstr("aborted before"));
    world->AllReduceSum(values);  // another group is well
    pending.reset();
    part.reset();
    std::vector<std::string> ends;
    for (const NcclCall& call : recording_nccl::Take()) {
      if (call.group == "part") ends.push_back(call.name);
    }
    EXPECT_THAT(ends, ElementsAre("ncclCommAbort"));
  }
}

// A watchdog's thread: it does not wait for a call that may itself wait for other ranks.
TEST(NcclFailuresTest, OtherThreadsFindFailuresInTheBackground) {
  const auto world = NcclWorld();
  const auto found_by_thread = [&] {
    std::string found;
    std::thread([&] { found = CommErrorOf([&] { world->CheckTransport(); }); }).join();
    return found;
  };
  std::string during_call;
  recording_nccl::InNext("ncclAllReduce", [&] {
    recording_nccl::FailInBackground("world");
    during_call = found_by_thread();
  });
  world->AllReduceSum(at::ones({3}));
  EXPECT_EQ(during_call, "no CommError");
  EXPECT_THAT(found_by_thread(), AllOf(HasSubstr("group 'world'"), HasSubstr("peer gone")));
  recording_nccl::FailInBackground("");
  EXPECT_THAT(CommErrorOf([&] { world->AllReduceSum(at::ones({3})); }),
              HasSubstr("aborted before: work in the background"));
}

TEST(NcclFailuresTest, FailedCallsAreNamedWithNcclsText) {
  const std::pair<const char*, std::function<void(Communicator&)>> cases[] = {
      {"ncclAllReduce", [](Communicator& group) { group.AllReduceSum(at::ones({3})); }},
      {"ncclReduceScatter",
       [](Communicator& group) { group.StartReduceScatterSum(at::ones({group.size()})); }},
      {"ncclReduce",
       [](Communicator& group) { group.StartReduceScatterSum(at::ones({group.size() + 1})); }},
      {"ncclAllGather",
       [](Communicator& group) { group.AllGatherParts(at::ones({group.size()})); }},
      {"ncclBroadcast", [](Communicator& group) { group.Broadcast(at::ones({3}), 0); }},
      {"ncclAlltoAll",
       [](Communicator& group) { group.AllToAllEqualRows(at::ones({group.size()})); }},
      {"ncclSend",
       [](Communicator& group) {
         const std::vector<int64_t> rows(group.size(), 1);
         group.AllToAllRows(at::ones({group.size()}), rows, rows);
       }},
      {"ncclGroupEnd",
       [](Communicator& group) { group.AllGatherParts(at::ones({group.size() + 1})); }}};
  for (const auto& [name, call] : cases) {
    auto world = NcclWorld();
    recording_nccl::FailNext(name);
    recording_nccl::Take();
    EXPECT_THAT(CommErrorOf([&] { call(*world); }),
                AllOf(HasSubstr(" in group 'world' (rank " + std::to_string(World()->rank())),
                      HasSubstr("unhandled system error: cable unplugged")))
        << name;
    world.reset();
    std::vector<std::string> names;
    for (const NcclCall& made : recording_nccl::Take()) names.push_back(made.name);
    EXPECT_THAT(names, AllOf(Contains(name), Contains("ncclCommAbort").Times(1),
                             Not(Contains("ncclCommDestroy"))));
    // No group was left open.
    EXPECT_EQ(std::count(names.begin(), names.end(), "ncclGroupStart"),
              std::count(names.begin(), names.end(), "ncclGroupEnd"))
        << name;
  }
}

TEST(NcclFailuresTest, NamesTheGroupThatCannotBeMade) {
  recording_nccl::FailNext("ncclCommInitRankConfig");
  EXPECT_THAT(
      CommErrorOf([] { NcclWorld(); }),
      AllOf(HasSubstr("ncclCommInitRankConfig in group 'world'"), HasSubstr("cable unplugged")));
  if (World()->rank() == 0) recording_nccl::FailNext("ncclGetUniqueId");
  EXPECT_THAT(CommErrorOf([] { NcclWorld(); }),
              AllOf(HasSubstr("ncclGetUniqueId on rank 0 of group 'world'"),
                    HasSubstr("unhandled system error")));
  const auto world = NcclWorld();
  recording_nccl::FailNext("ncclCommSplit");
  EXPECT_THAT(CommErrorOf([&] { world->Split("half", 0, World()->rank()); }),
              AllOf(HasSubstr("ncclCommSplit in group 'half'"), HasSubstr("cable unplugged")));
}

TEST(NcclFailuresTest, VersionsThatDifferAreNamed) {
  recording_nccl::SetVersion(World()->rank() == 1 ? 22703 : 22809);
  EXPECT_THAT(CommErrorOf([] { NcclWorld(); }),
              HasSubstr("NCCL in group 'world' is 2.28.9 on rank 0 but 2.27.3 on rank 1"));
  recording_nccl::SetVersion(0);
}

TEST(NcclFailuresTest, OrderlyEndsDestroyAndOthersAbort) {
  const auto ends_of = [](const std::function<void()>& action) {
    std::vector<std::string> ends;
    for (const std::string& name : NamesOf(action)) {
      if (name == "ncclCommDestroy" || name == "ncclCommAbort") ends.push_back(name);
    }
    return ends;
  };
  EXPECT_THAT(ends_of([] { NcclWorld()->AllReduceSum(at::ones({3})); }),
              ElementsAre("ncclCommDestroy"));
  EXPECT_THAT(ends_of([] {
                try {
                  const auto world = NcclWorld();
                  throw std::runtime_error("something else");
                } catch (const std::runtime_error&) {
                }
              }),
              ElementsAre("ncclCommAbort"));
  // Nobody waited for a reduction.
  EXPECT_THAT(ends_of([] {
                const auto world = NcclWorld();
                world->StartAllReduceSum(at::ones({3}));
              }),
              ElementsAre("ncclCommAbort"));
  // Or for an exchange.
  EXPECT_THAT(ends_of([] {
                const auto world = NcclWorld();
                world->StartAllToAllEqualRows(at::ones({world->size()}));
              }),
              ElementsAre("ncclCommAbort"));
}

// This program is linked with what stands in for NCCL's own factory in programs for CPUs.
TEST(NcclFailuresTest, ProgramsForCpusRefuse) {
  EXPECT_THROW(NewNcclCommunicator(NewSelfCommunicator("alone")), c10::Error);
}

}  // namespace
}  // namespace hypermoe
