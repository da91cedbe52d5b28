#include "tests/support/tiny_task.h"

#include <array>
#include <fstream>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"

namespace hypermoe {
namespace {

constexpr std::array<const char*, 5> kThings = {"film", "story", "music", "end of it all", "cast"};
constexpr std::array<const char*, 4> kGood = {"moving", "a joy", "bright", "well made and warm"};
constexpr std::array<const char*, 4> kBad = {"dull", "a bore", "grey", "badly made and cold"};

template <typename Words>
std::string Pick(const Words& words, int number) {
  return words[static_cast<size_t>(number) % words.size()];
}

void WriteSentences(const std::string& path, int count, int first) {
  std::ofstream file(path);
  file << "sentence\tlabel\n";
  for (int i = first; i < first + count; ++i) {
    const bool good = i % 3 != 0;
    file << "the " << Pick(kThings, i) << " is " << (good ? Pick(kGood, i / 5) : Pick(kBad, i / 5))
         << (i % 4 == 0 ? " , they say" : "") << "\t" << (good ? 1 : 0) << "\n";
  }
}

// Who has what, and who is asked for. `answers`: "" for the right one.
void WritePassages(const std::string& path, int count, int first,
                   const std::vector<std::string>& answers) {
  constexpr std::array<const char*, 4> kNames = {"Ann", "Bo", "Cleo", "Dimitri"};
  nlohmann::json articles = nlohmann::json::array();
  for (int i = first; i < first + count; ++i) {
    const std::string thing = Pick(kThings, i), name = Pick(kNames, i / 2);
    const std::string context =
        absl::StrCat(name, " likes the ", thing, i % 3 == 0 ? ", and nobody else does." : ".");
    const auto given = static_cast<size_t>(i - first);
    const std::string answer = given < answers.size() ? answers[given] : name;
    const nlohmann::json right = {{"text", answer}, {"answer_start", 0}};
    const nlohmann::json question = {{"id", absl::StrCat("q", i)},
                                     {"question", absl::StrCat("Who likes the ", thing, "?")},
                                     {"answers", nlohmann::json::array({right})}};
    const nlohmann::json paragraph = {{"context", context},
                                      {"qas", nlohmann::json::array({question})}};
    const nlohmann::json article = {{"title", name},
                                    {"paragraphs", nlohmann::json::array({paragraph})}};
    articles.push_back(article);
  }
  std::ofstream(path) << nlohmann::json{{"version", "1.1"}, {"data", articles}}.dump();
}

}  // namespace

void WriteSentiments(const std::string& folder) {
  WriteSentences(folder + "/train.tsv", 26, 0);
  WriteSentences(folder + "/dev.tsv", 7, 100);
}

void WriteQuestions(const std::string& folder) { WriteQuestions(folder, {}); }

void WriteQuestions(const std::string& folder, const std::vector<std::string>& dev_answers) {
  WritePassages(folder + "/train-v1.1.json", 24, 0, {});
  WritePassages(folder + "/dev-v1.1.json", 7, 100, dev_answers);
}

void WriteText(const std::string& folder) {
  std::ofstream train(folder + "/train.txt"), valid(folder + "/valid.txt");
  for (int i = 0; i < 30; ++i)
    train << "the " << Pick(kThings, i) << " is " << Pick(kGood, i / 5) << " .\n";
  for (int i = 0; i < 7; ++i)
    valid << "the " << Pick(kThings, i) << " is " << Pick(kBad, i) << " .\n";
}

RunConfig TinyTaskConfig(ModelConfig::Kind kind, RuntimeConfig::Dtype dtype,
                         const std::string& task, const std::string& folder) {
  RunConfig config = TinySwitchConfig(kind, kind == ModelConfig::dense ? 1 : 6, dtype);
  config.mutable_model()->set_pad_id(357);
  config.mutable_model()->set_decoder_start_id(357);
  config.mutable_data()->set_task(task);
  config.mutable_data()->set_folder(folder);
  config.mutable_decoding()->set_max_length(6);
  return config;
}

}  // namespace hypermoe
