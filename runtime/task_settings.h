// What the configuration makes of a task: the task's own values where it says nothing.
#pragma once

#include <cstdint>

#include "configs/run.pb.h"
#include "runtime/beam_search.h"
#include "runtime/example_rows.h"
#include "runtime/task.h"

namespace hypermoe {

// data.source_length and target_length, or the task's.
ExampleLengths LengthsOf(const Task& task, const DataConfig& data);

// Of sections decoding and the task; lengths count the start token. end_id and known_ids are not
// set.
BeamSearchOptions SearchOf(const Task& task, const DecodingConfig& decoding);

}  // namespace hypermoe
