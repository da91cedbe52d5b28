#include "runtime/task_settings.h"

namespace hypermoe {

ExampleLengths LengthsOf(const Task& task, const DataConfig& data) {
  const TaskDefaults defaults = task.defaults();
  return {data.source_length() > 0 ? data.source_length() : defaults.source_length,
          data.target_length() > 0 ? data.target_length() : defaults.target_length};
}

BeamSearchOptions SearchOf(const Task& task, const DecodingConfig& decoding) {
  const TaskDefaults defaults = task.defaults();
  const auto chosen = [](int64_t given, int64_t of_task) { return given >= 0 ? given : of_task; };
  BeamSearchOptions search;
  search.beams = chosen(decoding.beams(), defaults.beams);
  search.length_penalty = decoding.length_penalty();
  search.no_repeat_ngram = chosen(decoding.no_repeat_ngram(), defaults.no_repeat_ngram);
  search.min_length = 1 + chosen(decoding.min_length(), defaults.min_length);
  search.max_length = 1 + chosen(decoding.max_length(), defaults.max_length);
  return search;
}

}  // namespace hypermoe
