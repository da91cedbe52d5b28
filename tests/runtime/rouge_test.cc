#include "runtime/rouge.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "runtime/porter_stemmer.h"

namespace hypermoe {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(RougeTest, Words) {
  EXPECT_THAT(SplitForRouge("The 3 Dogs' caf\xC3\xA9_bar", false),
              ElementsAre("the", "3", "dogs", "caf", "bar"));
  EXPECT_THAT(SplitForRouge("The running dogs ran", true), ElementsAre("the", "run", "dog", "ran"));
  // The kelvin sign's lower case is k.
  EXPECT_THAT(SplitForRouge("273 \xE2\x84\xAA", false), ElementsAre("273", "k"));
  EXPECT_THAT(SplitForRouge(" ./ ", false), IsEmpty());
  EXPECT_THAT(SplitLinesForRouge("a b\n\n.\nc", false),
              ElementsAre(ElementsAre("a", "b"), IsEmpty(), ElementsAre("c")));
}

// Published with google-research's rouge.
TEST(RougeTest, PublishedScores) {
  const RougeScore one = RougeRuns({"testing"}, {"testing", "one", "two"}, 1);
  EXPECT_DOUBLE_EQ(one.precision, 1);
  EXPECT_DOUBLE_EQ(one.recall, 1. / 3);
  EXPECT_DOUBLE_EQ(one.f, 0.5);
  const auto lines = SplitLinesForRouge("w1 w2 w6 w7 w8\nw1 w3 w8 w9 w5", false);
  const RougeScore sum = RougeLines(lines, SplitLinesForRouge("w1 w2 w3 w4 w5", false));
  EXPECT_NEAR(sum.precision, 0.4, 1e-9);
  EXPECT_NEAR(sum.recall, 0.8, 1e-9);
  EXPECT_NEAR(sum.f, 0.5333, 5e-5);
}

TEST(RougeTest, NothingToCompareIsZero) {
  const RougeWords some = {"a"}, none;
  for (const RougeScore& score :
       {RougeRuns(none, some, 1), RougeRuns(some, none, 1), RougeRuns(none, none, 1),
        RougeRuns(some, some, 2), RougeSubsequence(none, some), RougeSubsequence(some, none),
        RougeLines({}, {some}), RougeLines({some}, {}), RougeLines({none}, {none})}) {
    EXPECT_EQ(score.precision, 0);
    EXPECT_EQ(score.recall, 0);
    EXPECT_EQ(score.f, 0);
  }
}

TEST(RougeTest, RunsAreClipped) {
  const RougeScore score = RougeRuns({"a", "b", "a", "b", "a"}, {"a", "b", "a"}, 2);
  EXPECT_DOUBLE_EQ(score.precision, 0.5);  // ab, ba, ab, ba
  EXPECT_DOUBLE_EQ(score.recall, 1);
}

size_t LongestCommon(const RougeWords& a, size_t i, const RougeWords& b, size_t j) {
  if (i == a.size() || j == b.size()) return 0;
  if (a[i] == b[j]) return 1 + LongestCommon(a, i + 1, b, j + 1);
  return std::max(LongestCommon(a, i + 1, b, j), LongestCommon(a, i, b, j + 1));
}

TEST(RougeTest, SubsequencesAgainstRecursion) {
  std::mt19937 random(1);
  const auto words = [&] {
    RougeWords result(1 + random() % 9);
    for (std::string& word : result) word = std::string(1, static_cast<char>('a' + random() % 4));
    return result;
  };
  for (int round = 0; round < 100; ++round) {
    const RougeWords answer = words(), reference = words();
    const auto hits = static_cast<double>(LongestCommon(answer, 0, reference, 0));
    const RougeScore score = RougeSubsequence(answer, reference);
    EXPECT_DOUBLE_EQ(score.precision, hits / static_cast<double>(answer.size()));
    EXPECT_DOUBLE_EQ(score.recall, hits / static_cast<double>(reference.size()));
    // Of one line each, the same.
    EXPECT_DOUBLE_EQ(RougeLines({answer}, {reference}).f, score.f);
  }
}

// As NLTK 3.10 has them: each rule, and each of its changes to Porter's algorithm.
TEST(PorterStemmerTest, StemsOfNltk) {
  const std::vector<std::pair<std::string, std::string>> stems = {{"caresses", "caress"},
                                                                  {"ponies", "poni"},
                                                                  {"ties", "tie"},
                                                                  {"flies", "fli"},
                                                                  {"dies", "die"},
                                                                  {"cats", "cat"},
                                                                  {"spied", "spi"},
                                                                  {"died", "die"},
                                                                  {"feed", "feed"},
                                                                  {"agreed", "agre"},
                                                                  {"plastered", "plaster"},
                                                                  {"bled", "bled"},
                                                                  {"motoring", "motor"},
                                                                  {"sing", "sing"},
                                                                  {"conflated", "conflat"},
                                                                  {"troubled", "troubl"},
                                                                  {"sized", "size"},
                                                                  {"hopping", "hop"},
                                                                  {"tanned", "tan"},
                                                                  {"falling", "fall"},
                                                                  {"hissing", "hiss"},
                                                                  {"fizzed", "fizz"},
                                                                  {"failing", "fail"},
                                                                  {"filing", "file"},
                                                                  {"enjoy", "enjoy"},
                                                                  {"happy", "happi"},
                                                                  {"sky", "sky"},
                                                                  {"by", "by"},
                                                                  {"relational", "relat"},
                                                                  {"conditional", "condit"},
                                                                  {"rational", "ration"},
                                                                  {"valenci", "valenc"},
                                                                  {"hesitanci", "hesit"},
                                                                  {"digitizer", "digit"},
                                                                  {"conformabli", "conform"},
                                                                  {"radicalli", "radic"},
                                                                  {"differentli", "differ"},
                                                                  {"vileli", "vile"},
                                                                  {"analogousli", "analog"},
                                                                  {"vietnamization", "vietnam"},
                                                                  {"predication", "predic"},
                                                                  {"operator", "oper"},
                                                                  {"feudalism", "feudal"},
                                                                  {"decisiveness", "decis"},
                                                                  {"hopefulness", "hope"},
                                                                  {"callousness", "callous"},
                                                                  {"formaliti", "formal"},
                                                                  {"sensitiviti", "sensit"},
                                                                  {"sensibiliti", "sensibl"},
                                                                  {"analogi", "analog"},
                                                                  {"geologi", "geolog"},
                                                                  {"hopefulli", "hope"},
                                                                  {"triplicate", "triplic"},
                                                                  {"formative", "form"},
                                                                  {"formalize", "formal"},
                                                                  {"electriciti", "electr"},
                                                                  {"electrical", "electr"},
                                                                  {"hopeful", "hope"},
                                                                  {"goodness", "good"},
                                                                  {"revival", "reviv"},
                                                                  {"allowance", "allow"},
                                                                  {"inference", "infer"},
                                                                  {"airliner", "airlin"},
                                                                  {"gyroscopic", "gyroscop"},
                                                                  {"adjustable", "adjust"},
                                                                  {"defensible", "defens"},
                                                                  {"irritant", "irrit"},
                                                                  {"replacement", "replac"},
                                                                  {"adjustment", "adjust"},
                                                                  {"dependent", "depend"},
                                                                  {"adoption", "adopt"},
                                                                  {"opinion", "opinion"},
                                                                  {"communism", "commun"},
                                                                  {"activate", "activ"},
                                                                  {"angulariti", "angular"},
                                                                  {"homologous", "homolog"},
                                                                  {"effective", "effect"},
                                                                  {"bowdlerize", "bowdler"},
                                                                  {"probate", "probat"},
                                                                  {"rate", "rate"},
                                                                  {"cease", "ceas"},
                                                                  {"ease", "eas"},
                                                                  {"controll", "control"},
                                                                  {"roll", "roll"},
                                                                  {"skies", "sky"},
                                                                  {"dying", "die"},
                                                                  {"innings", "inning"},
                                                                  {"news", "news"},
                                                                  {"howe", "howe"},
                                                                  {"proceed", "proceed"},
                                                                  {"sayy", "sayi"},
                                                                  {"syzygy", "syzygi"},
                                                                  {"yyyy", "yyyi"},
                                                                  {"nationalli", "nation"},
                                                                  {"owed", "owe"},
                                                                  {"oed", "o"},
                                                                  {"ion", "ion"},
                                                                  {"1980s", "1980"},
                                                                  {"1990ing", "1990ing"}};
  for (const auto& [word, stem] : stems) EXPECT_EQ(PorterStem(word), stem) << word;
}

}  // namespace
}  // namespace hypermoe
