// Golden files that cannot be what they say are refused before the model runs.
#include "runtime/golden_file.h"

#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "runtime/safetensors.h"
#include "tests/support/temporary_folder.h"

namespace hypermoe {
namespace {

using testing::HasSubstr;

class GoldenFileTest : public testing::Test {
 protected:
  GoldenFileTest() {
    model_.set_vocab_size(10);
    model_.set_sequence_length(8);
    tensors_ = {{"input_ids", at::zeros({2, 6}, at::kLong)},
                {"labels", at::zeros({2, 6}, at::kLong)},
                {"logits", at::zeros({2, 6, 10}, at::kDouble)}};
    metadata_ = {{"dtype", "float64"}};
  }
  at::Tensor& Tensor(const std::string& name) {
    for (NamedTensor& named : tensors_) {
      if (named.name == name) return named.tensor;
    }
    tensors_.push_back({name, {}});
    return tensors_.back().tensor;
  }
  absl::StatusOr<GoldenFile> Open() {
    const std::string path = folder_ / "golden.safetensors";
    EXPECT_TRUE(WriteSafetensors(path, tensors_, metadata_).ok());
    return OpenGoldenFile(path, model_);
  }
  void ExpectRefused(const std::string& part) {
    const auto golden = Open();
    ASSERT_FALSE(golden.ok()) << "expected: " << part;
    EXPECT_EQ(ExitCodeOf(golden.status()), ExitCode::kBadData);
    EXPECT_THAT(std::string(golden.status().message()), HasSubstr(part));
    EXPECT_THAT(std::string(golden.status().message()), HasSubstr("golden.safetensors"));
  }

  ModelConfig model_;
  TemporaryFolder folder_;
  std::vector<NamedTensor> tensors_;
  std::map<std::string, std::string> metadata_;
};

TEST_F(GoldenFileTest, ReadsEntriesWithoutThePrefix) {
  Tensor("grad.transformer.wte.weight") = at::ones({10, 4}, at::kDouble);
  Tensor("tokens.greedy") = at::ones({2, 3}, at::kLong);
  metadata_["tokens.greedy"] =
      R"({"do_sample": false, "max_new_tokens": 3, "num_beams": 1, "prompt_length": 6})";
  const auto golden = Open();
  ASSERT_TRUE(golden.ok()) << golden.status().message();
  EXPECT_EQ(golden->entries.count("grad.wte.weight"), 1u);
  EXPECT_EQ(golden->entries.count("input_ids"), 0u);
  ASSERT_EQ(golden->decodings.size(), 1u);
  EXPECT_EQ(golden->decodings[0].prompt_length, 6);
  EXPECT_EQ(golden->decodings[0].new_tokens, 3);
  EXPECT_TRUE(golden->decodings[0].cached);
}

TEST_F(GoldenFileTest, NoCacheByNameOrSetting) {
  Tensor("tokens.greedy") = at::ones({2, 3}, at::kLong);
  Tensor("tokens.greedy_nocache") = at::ones({2, 3}, at::kLong);
  metadata_["tokens.greedy"] = R"({"max_new_tokens": 3, "prompt_length": 2, "use_cache": false})";
  metadata_["tokens.greedy_nocache"] = R"({"max_new_tokens": 3, "prompt_length": 2})";
  const auto golden = Open();
  ASSERT_TRUE(golden.ok()) << golden.status().message();
  ASSERT_EQ(golden->decodings.size(), 2u);
  EXPECT_FALSE(golden->decodings[0].cached);
  EXPECT_FALSE(golden->decodings[1].cached);
}

// What Hugging Face's generate() was given, as it writes it down.
TEST_F(GoldenFileTest, ReadsTheSettingsOfHuggingFace) {
  model_.set_family(ModelConfig::switch_transformers);
  model_.set_end_id(1);
  Tensor("attention_mask") = at::ones({2, 6}, at::kLong);
  Tensor("tokens.beam3_lp2") = at::ones({2, 5}, at::kLong);
  metadata_["tokens.beam3_lp2"] = R"({"num_beams": 3, "length_penalty": 2.0, "max_new_tokens": 6,
      "min_new_tokens": 2, "eos_token_id": 4, "pad_token_id": 3, "decoder_start_token_id": 2,
      "do_sample": false, "temperature": 1.0, "top_k": 50, "num_return_sequences": 1,
      "repetition_penalty": 1.0, "forced_eos_token_id": null, "early_stopping": null})";
  const auto golden = Open();
  ASSERT_TRUE(golden.ok()) << golden.status().message();
  ASSERT_EQ(golden->decodings.size(), 1u);
  const GoldenDecoding& decoding = golden->decodings[0];
  EXPECT_EQ(decoding.beams, 3);
  EXPECT_EQ(decoding.length_penalty, 2);
  EXPECT_EQ(decoding.max_length, 7);
  EXPECT_EQ(decoding.min_length, 3);
  EXPECT_EQ(decoding.start_id, 2);
  EXPECT_EQ(decoding.end_id, 4);
  EXPECT_EQ(decoding.pad_id, 3);
  for (const char* settings :
       {R"({"max_length": 6, "repetition_penalty": 1.2})", R"({"max_length": 6, "unheard_of": 1})",
        R"({"min_length": 6})", R"({"max_length": 6, "num_return_sequences": 2})"}) {
    metadata_["tokens.beam3_lp2"] = settings;
    ExpectRefused("expected a JSON object");
  }
  metadata_["tokens.beam3_lp2"] = R"({"max_length": 6, "pad_token_id": 10})";
  ExpectRefused("names the token 10");
}

TEST_F(GoldenFileTest, RefusesInputsThatAreMissingOrWrong) {
  const std::vector<NamedTensor> good = tensors_;
  tensors_ = {good[1], good[2]};
  ExpectRefused("has no input_ids");
  tensors_ = {good[0], good[2]};
  ExpectRefused("has no labels");
  tensors_ = good;
  Tensor("input_ids") = at::zeros({2, 6}, at::kInt);
  ExpectRefused("input_ids is I32 [2,6]");
  Tensor("input_ids") = at::zeros({12}, at::kLong);
  ExpectRefused("input_ids is I64 [12]");
  Tensor("input_ids") = at::zeros({0, 6}, at::kLong);
  ExpectRefused("not empty");
  Tensor("input_ids") = at::zeros({3, 6}, at::kLong);
  ExpectRefused("the same shape");
  Tensor("input_ids") = Tensor("labels") = at::zeros({2, 9}, at::kLong);
  ExpectRefused("9 positions");
}

TEST_F(GoldenFileTest, RefusesIdsOutsideTheVocabulary) {
  for (const int64_t id : {-1, -100, 10}) {
    Tensor("input_ids") = at::full({2, 6}, id, at::kLong);
    ExpectRefused("outside 0 .. 9");
  }
  Tensor("input_ids") = at::zeros({2, 6}, at::kLong);
  for (const int64_t id : {-1, 10}) {
    Tensor("labels") = at::full({2, 6}, id, at::kLong);
    ExpectRefused("outside 0 .. 9");
  }
  Tensor("labels") = at::full({2, 6}, -100, at::kLong);
  EXPECT_TRUE(Open().ok());
}

TEST_F(GoldenFileTest, RefusesEntriesAgainstTheHeader) {
  metadata_["dtype"] = "float32";
  ExpectRefused("'logits' is F64, its header says F32");
  metadata_["dtype"] = "bfloat16";
  ExpectRefused("\"bfloat16\"");
  metadata_.clear();
  ExpectRefused("no \"dtype\"");
}

TEST_F(GoldenFileTest, RefusesWhatProvesNothing) {
  tensors_.pop_back();
  ExpectRefused("nothing to compare");
}

TEST_F(GoldenFileTest, RefusesAGradientGivenTwice) {
  Tensor("grad.transformer.ln_f.bias") = Tensor("grad.ln_f.bias") = at::ones({4}, at::kDouble);
  ExpectRefused("'grad.ln_f.bias' twice");
}

TEST_F(GoldenFileTest, RefusesDecodingsThatAreNotGreedyOrDoNotFit) {
  Tensor("tokens.greedy") = at::ones({2, 3}, at::kLong);
  ExpectRefused("tokens.greedy is ''");
  for (const char* settings : {"", "[]", "{", R"({"max_new_tokens": 3})", R"({"prompt_length": 2})",
                               R"({"max_new_tokens": 3, "prompt_length": 2, "num_beams": 3})",
                               R"({"max_new_tokens": 3, "prompt_length": 2, "do_sample": true})",
                               R"({"max_new_tokens": 3, "prompt_length": 2, "min_length": 9})",
                               R"({"max_new_tokens": "3", "prompt_length": 2})",
                               R"({"max_new_tokens": 3.5, "prompt_length": 2})",
                               R"({"max_new_tokens": 18446744073709551615, "prompt_length": 2})"}) {
    metadata_["tokens.greedy"] = settings;
    ExpectRefused("expected a JSON object");
  }
  // Six ids are there, and eight positions: the last token needs none.
  for (const char* settings : {R"({"max_new_tokens": 3, "prompt_length": 0})",
                               R"({"max_new_tokens": 3, "prompt_length": 7})",
                               R"({"max_new_tokens": 0, "prompt_length": 2})",
                               R"({"max_new_tokens": 4, "prompt_length": 6})",
                               R"({"max_new_tokens": 9223372036854775807, "prompt_length": 6})"}) {
    metadata_["tokens.greedy"] = settings;
    ExpectRefused("positions");
  }
}

}  // namespace
}  // namespace hypermoe
