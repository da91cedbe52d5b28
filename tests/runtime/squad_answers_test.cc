#include "runtime/squad_answers.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "runtime/lower_case.h"

namespace hypermoe {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(SquadAnswersTest, PublishedNormalization) {
  AnswerNormalizer normalizer;
  EXPECT_THAT(normalizer.Words("`Needs\tA_LOT of the 'normalization'.\"\xE2\x80\x98"),
              ElementsAre("needs", "alot", "of", "normalization\xE2\x80\x98"));
  EXPECT_THAT(normalizer.Words("needs no normalization"),
              ElementsAre("needs", "no", "normalization"));
}

TEST(SquadAnswersTest, ArticlesAreWholeWords) {
  AnswerNormalizer normalizer;
  EXPECT_THAT(normalizer.Words("The theatre, an antler & a-la-carte"),
              ElementsAre("theatre", "antler", "alacarte"));
  EXPECT_THAT(normalizer.Words("the\xE2\x80\x94"
                               "an"),
              ElementsAre("\xE2\x80\x94"));  // a dash
  EXPECT_THAT(normalizer.Words("a\xC3\xA9 \xC3\xA9"
                               "a a1"),
              ElementsAre("a\xC3\xA9",
                          "\xC3\xA9"
                          "a",
                          "a1"));
  EXPECT_THAT(normalizer.Words("A. the An"), IsEmpty());
  EXPECT_THAT(normalizer.Words(""), IsEmpty());
}

TEST(SquadAnswersTest, WhiteSpaceOfAllKinds) {
  AnswerNormalizer normalizer;
  EXPECT_THAT(normalizer.Words("1\xC2\xA0"
                               "2\xE2\x80\x89"
                               "3\xE3\x80\x80"
                               "4\x1C"
                               "5\v6"),
              ElementsAre("1", "2", "3", "4", "5", "6"));
  // Neither a zero-width space nor what is no UTF-8 separates words.
  EXPECT_THAT(normalizer.Words("1\xE2\x80\x8B"
                               "2 3\xFF"
                               "4"),
              ElementsAre("1\xE2\x80\x8B"
                          "2",
                          "3\xFF"
                          "4"));
}

TEST(SquadAnswersTest, CapitalSigmaByItsPlace) {
  AnswerNormalizer normalizer;
  // As Python's str.lower; punctuation that may stand within words does not end them.
  EXPECT_THAT(normalizer.Words("\xCE\x91\xCE\xA3 \xCE\xA3 \xCE\x91\xCE\xA3\xCE\x91 "
                               "\xCE\x91\xCE\xA3'\xCE\x91 \xCE\x91\xCE\xA3'"),
              ElementsAre("\xCE\xB1\xCF\x82", "\xCF\x83", "\xCE\xB1\xCF\x83\xCE\xB1",
                          "\xCE\xB1\xCF\x83\xCE\xB1", "\xCE\xB1\xCF\x82"));
}

TEST(SquadAnswersTest, WordsF1CountsRepetition) {
  EXPECT_DOUBLE_EQ(WordsF1({"a", "b", "b"}, {"b", "c"}), 2. / 5);
  EXPECT_DOUBLE_EQ(WordsF1({"b", "x", "b"}, {"b", "b"}), 4. / 5);
  EXPECT_EQ(WordsF1({"a"}, {"b"}), 0);
  EXPECT_EQ(WordsF1({}, {"b"}), 0);
  EXPECT_EQ(WordsF1({}, {}), 0);
}

TEST(LowerCaseTest, AllScripts) {
  EXPECT_EQ(LowerCase("AbZ [@09"), "abz [@09");
  EXPECT_EQ(LowerCase("\xC3\x89\xC3\x97\xC3\x9F"), "\xC3\xA9\xC3\x97\xC3\x9F");  // no case: x, ss
  EXPECT_EQ(LowerCase("\xD0\x96\xC4\x80\xC4\x81"), "\xD0\xB6\xC4\x81\xC4\x81");
  EXPECT_EQ(LowerCase("\xE1\xBA\x9E"), "\xC3\x9F");              // capital sharp s: shorter
  EXPECT_EQ(LowerCase("\xC8\xBA"), "\xE2\xB1\xA5");              // A with stroke: longer
  EXPECT_EQ(LowerCase("\xC4\xB0"), "i\xCC\x87");                 // I with dot: two
  EXPECT_EQ(LowerCase("\xF0\x90\x90\x80"), "\xF0\x90\x90\xA8");  // Deseret
  EXPECT_EQ(LowerCase("A\xC3"), "a\xC3");                        // cut short
  EXPECT_EQ(LowerCase("\xC3"
                      "A\xFF"
                      "B"),
            "\xC3"
            "a\xFF"
            "b");
}

}  // namespace
}  // namespace hypermoe
