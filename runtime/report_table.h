// A table of a report, as a file for other programs and as a part of a page.
#pragma once

#include <string>
#include <vector>

namespace hypermoe {

struct ReportTable {
  std::vector<std::string> columns;
  std::vector<std::vector<std::string>> rows;  // as many cells as columns
};

// RFC 4180, with line feeds alone: the columns' names, then a line a row; cells with commas, quotes
// or line breaks are quoted.
std::string CsvText(const ReportTable& table);

// What a page holds near its beginning if `program` has made it.
std::string GeneratorTag(const std::string& program);

// A page of one file that needs no other one and no network: style and pictures are part of it. All
// texts are escaped; pictures (runtime/svg_chart.h) stand in it as they are.
class HtmlPage {
 public:
  // `program` makes it: GeneratorTag.
  HtmlPage(const std::string& title, const std::string& program);

  void Heading(const std::string& text);
  void Paragraph(const std::string& text);
  void Table(const ReportTable& table);
  void Figure(const std::string& svg, const std::string& caption);
  // Figures that follow, up to the end, stand beside each other where there is room.
  void BeginRow() { body_ += "<div class=\"row\">\n"; }
  void EndRow() { body_ += "</div>\n"; }

  std::string Finish() const;

 private:
  std::string title_, program_, body_;
};

}  // namespace hypermoe
