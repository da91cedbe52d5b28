// A report as a folder: index.html, a page of one file, and beside it the page's pictures (.svg)
// and the numbers behind them (.csv) for other programs.
#pragma once

#include <map>
#include <string>

#include "runtime/report_table.h"
#include "runtime/status.h"

namespace hypermoe {

class ReportFolder {
 public:
  // `program`: what makes it; a folder that it has made it may replace.
  ReportFolder(const std::string& title, const std::string& program)
      : program_(program), page_(title, program) {}

  HtmlPage& page() { return page_; }
  // A picture in NAME.svg and on the page, or in the file alone.
  void Figure(const std::string& name, const std::string& svg, const std::string& caption);
  void Picture(const std::string& name, const std::string& svg) { files_[name + ".svg"] = svg; }
  void Csv(const std::string& name, const ReportTable& table) {
    files_[name + ".csv"] = CsvText(table);
  }

  // Whether the report may be written as the folder `output`: UsageError if that is a file, holds
  // something that is not a report of the same program, or lies in a checkpoint, which would be
  // damaged by it.
  static absl::Status Check(const std::string& output, const std::string& program);

  // Writes the files, each of which is there whole or not at all, index.html last, so that a page
  // never shows what is not there yet. Pictures and tables of an older report that this one has not
  // are removed. Check's errors and IoError. Local.
  absl::Status Write(const std::string& output) const;

 private:
  std::string program_;
  HtmlPage page_;
  std::map<std::string, std::string> files_;  // contents by name, without index.html
};

}  // namespace hypermoe
