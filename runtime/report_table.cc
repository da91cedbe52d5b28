#include "runtime/report_table.h"

#include "absl/strings/str_cat.h"
#include "runtime/svg_canvas.h"

namespace hypermoe {
namespace {

constexpr char kStyle[] = R"(
:root { color-scheme: light dark; --ink: #1c2430; --soft: #5d6878; --paper: #ffffff; --line: #d9dee6; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ee; --soft: #98a3b3; --paper: #14181e; --line: #333b47; } }
body { margin: 0 auto; max-width: 1100px; padding: 1.5rem 1rem 3rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0 0 1rem; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .3rem; }
p, figcaption { color: var(--soft); margin: .15rem 0 .5rem; max-width: 75ch; }
.table { overflow-x: auto; } .row { display: flex; flex-wrap: wrap; gap: 1rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .3rem 0 .8rem; }
th, td { padding: .3rem .9rem .3rem 0; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th { color: var(--soft); font-weight: 500; } th:first-child, td:first-child { text-align: left; }
figure { margin: .6rem 0 1.2rem; } svg { display: block; max-width: 100%; height: auto; }
)";

std::string CsvCell(const std::string& cell) {
  if (cell.find_first_of(",\"\r\n") == std::string::npos) return cell;
  std::string quoted = "\"";
  for (const char c : cell) quoted += c == '"' ? "\"\"" : std::string(1, c);
  return quoted + "\"";
}

std::string CsvLine(const std::vector<std::string>& cells) {
  std::string line;
  for (size_t i = 0; i < cells.size(); ++i)
    absl::StrAppend(&line, i > 0 ? "," : "", CsvCell(cells[i]));
  return line + "\n";
}

}  // namespace

std::string CsvText(const ReportTable& table) {
  std::string text = CsvLine(table.columns);
  for (const std::vector<std::string>& row : table.rows) text += CsvLine(row);
  return text;
}

std::string GeneratorTag(const std::string& program) {
  return absl::StrCat("<meta name=\"generator\" content=\"", EscapeMarkup(program), "\">");
}

HtmlPage::HtmlPage(const std::string& title, const std::string& program)
    : title_(EscapeMarkup(title)), program_(program) {}

void HtmlPage::Heading(const std::string& text) {
  absl::StrAppend(&body_, "<h2>", EscapeMarkup(text), "</h2>\n");
}

void HtmlPage::Paragraph(const std::string& text) {
  absl::StrAppend(&body_, "<p>", EscapeMarkup(text), "</p>\n");
}

void HtmlPage::Table(const ReportTable& table) {
  body_ += "<div class=\"table\"><table>\n<thead><tr>";
  for (const std::string& column : table.columns)
    absl::StrAppend(&body_, "<th scope=\"col\">", EscapeMarkup(column), "</th>");
  body_ += "</tr></thead>\n<tbody>\n";
  for (const std::vector<std::string>& row : table.rows) {
    body_ += "<tr>";
    for (const std::string& cell : row)
      absl::StrAppend(&body_, "<td>", EscapeMarkup(cell), "</td>");
    body_ += "</tr>\n";
  }
  body_ += "</tbody>\n</table></div>\n";
}

void HtmlPage::Figure(const std::string& svg, const std::string& caption) {
  absl::StrAppend(&body_, "<figure>\n", svg, "<figcaption>", EscapeMarkup(caption),
                  "</figcaption>\n</figure>\n");
}

std::string HtmlPage::Finish() const {
  return absl::StrCat(
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n",
      GeneratorTag(program_), "\n<title>", title_, "</title>\n<style>", kStyle,
      "</style>\n</head>\n<body>\n<h1>", title_, "</h1>\n", body_, "</body>\n</html>\n");
}

}  // namespace hypermoe
