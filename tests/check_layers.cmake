# Includes point down the layers only, and MPI and NCCL are seen in their own files only:
#   cmake -DROOT=<source tree> -P tests/check_layers.cmake
# With -DSELF_TEST=<scratch folder> it plants one violation of each kind into a small tree there and requires that the
# check names it, and that the clean tree passes.
cmake_minimum_required(VERSION 3.25)

# What each layer may include.
set(allowed_kernels kernels)
set(allowed_parallel parallel ${allowed_kernels})
set(allowed_configs configs)
set(allowed_model model configs ${allowed_parallel})
set(allowed_runtime runtime ${allowed_model})
set(allowed_launch launch ${allowed_runtime})
set(layers kernels parallel configs model runtime launch)
set(allowed_tests tests tools ${layers})
set(allowed_tools tools ${layers})
set(folders ${layers} tests tools)

set(transport_headers "(mpi|mpi-ext|nccl)\\.h")
# nccl_group is a part of nccl_communicator; the test's stand-in for libnccl defines what nccl.h declares, over MPI.
string(CONCAT transport_files "^(parallel/[a-z0-9_]*_communicator\\.(cc|cu)|parallel/nccl_group\\.(h|cc)|"
  "launch/distributed_init\\.cc|tests/support/recording_nccl\\.cc)$")
# The first two cost 10 to 25 s of compilation a file, the others fight with LibTorch's macros.
set(banned_headers "torch/torch\\.h|ATen/ATen\\.h|absl/log/.*|glog/.*|fmt/.*|spdlog/.*")

# Appends to `violations` what is wrong with `header`, included by `file` (both relative to the root).
macro(check_include file line header)
  string(REGEX MATCH "^[^/]+" layer "${file}")
  string(REGEX MATCH "^[^/]+" target "${header}")
  string(STRIP "${line}" shown)
  if("${header}" MATCHES "^${transport_headers}$" AND NOT "${file}" MATCHES "${transport_files}")
    list(APPEND violations "${file}: ${shown}: only parallel/*_communicator.cc and launch/distributed_init.cc may")
  elseif("${header}" MATCHES "^(${banned_headers})$")
    list(APPEND violations "${file}: ${shown}: banned, see the comment in tests/check_layers.cmake")
  elseif("${header}" MATCHES "^\\.\\.?/" OR ("${shown}" MATCHES "\"" AND NOT "${header}" MATCHES "/"))
    list(APPEND violations "${file}: ${shown}: include by the path from the root")
  elseif("${target}" IN_LIST folders AND NOT "${target}" IN_LIST allowed_${layer} AND "${header}" MATCHES "/")
    list(JOIN allowed_${layer} ", " allowed)
    list(APPEND violations "${file}: ${shown}: ${layer} may include only ${allowed}")
  endif()
endmacro()

function(find_violations root result)
  set(violations)
  set(num_files 0)
  foreach(folder ${folders})
    file(GLOB_RECURSE sources RELATIVE ${root}
      ${root}/${folder}/*.h ${root}/${folder}/*.cc ${root}/${folder}/*.cu ${root}/${folder}/*.cuh)
    foreach(file ${sources})
      math(EXPR num_files "${num_files} + 1")
      file(STRINGS ${root}/${file} lines REGEX "^[ \t]*#[ \t]*include")
      foreach(line IN LISTS lines)
        if("${line}" MATCHES "include[ \t]*[<\"]([^>\"]+)[>\"]")
          check_include("${file}" "${line}" "${CMAKE_MATCH_1}")
        endif()
      endforeach()
    endforeach()
  endforeach()
  if(num_files EQUAL 0)
    set(violations "no source file found under ${root}")
  endif()
  set(${result} "${violations}" PARENT_SCOPE)
endfunction()

# file | include line | what the check must say, "" where it must say nothing
set(self_test_cases
  "kernels/a.h|#include \"parallel/b.h\"|kernels may include only kernels"
  "parallel/a.cc|#include \"model/b.h\"|parallel may include only"
  "parallel/a.cc|#include \"configs/run.pb.h\"|parallel may include only"
  "model/a.h|  #  include <runtime/b.h>|model may include only"
  "runtime/a.cc|#include \"launch/b.h\"|runtime may include only"
  "configs/a.cc|#include \"kernels/b.h\"|configs may include only"
  "launch/a.cc|#include \"tests/support/b.h\"|launch may include only"
  "runtime/deep/a.cc|#include \"../launch/b.h\"|path from the root"
  "runtime/a.cc|#include \"b.h\"|path from the root"
  "runtime/a.cc|#include <mpi.h>|only parallel/"
  "tests/parallel/a_test.cc|#include <mpi.h>|only parallel/"
  "parallel/token_dispatcher.cc|#include <nccl.h>|only parallel/"
  "tests/support/recording_nccl.h|#include <nccl.h>|only parallel/"
  "kernels/a.cc|#include <torch/torch.h>|banned"
  "runtime/a.cc|#include \"absl/log/log.h\"|banned"
  "parallel/mpi_communicator.cc|#include <mpi.h>|"
  "launch/distributed_init.cc|#include <mpi.h>|"
  "parallel/nccl_group.h|#include <nccl.h>|"
  "tests/support/recording_nccl.cc|#include <nccl.h>|"
  "launch/a.cc|#include \"kernels/b.h\"|"
  "tests/runtime/a_test.cc|#include \"launch/b.h\"|"
  "runtime/a.cc|// includes of \"launch/b.h\" are forbidden|"
  "kernels/a.cc|#include <model.h>|"
)

function(self_test scratch)
  foreach(case IN LISTS self_test_cases)
    string(REGEX MATCH "^([^|]*)[|](.*)[|]([^|]*)$" _ "${case}")
    set(file "${CMAKE_MATCH_1}")
    set(line "${CMAKE_MATCH_2}")
    set(wanted "${CMAKE_MATCH_3}")
    file(REMOVE_RECURSE ${scratch})
    file(WRITE ${scratch}/runtime/clean.cc "#include \"model/batch.h\"\n#include <vector>\n")
    file(WRITE ${scratch}/${file} "${line}\n")
    find_violations(${scratch} found)
    if("${wanted}" STREQUAL "" AND found)
      message(FATAL_ERROR "the check refuses what is allowed: ${file}: ${line}: ${found}")
    elseif(NOT "${wanted}" STREQUAL "")
      list(LENGTH found num_found)
      string(FIND "${found}" "${wanted}" position)
      if(NOT num_found EQUAL 1 OR position EQUAL -1 OR NOT "${found}" MATCHES "^${file}")
        message(FATAL_ERROR "the check misses ${file}: ${line}: found '${found}', wanted one line with '${wanted}'")
      endif()
    endif()
  endforeach()
  file(REMOVE_RECURSE ${scratch})
  list(LENGTH self_test_cases num_cases)
  message(STATUS "${num_cases} planted includes were judged rightly")
endfunction()

if(SELF_TEST)
  self_test(${SELF_TEST})
else()
  find_violations(${ROOT} violations)
  if(violations)
    list(JOIN violations "\n  " text)
    message(FATAL_ERROR "includes that break the layers (see README.md, \"Layers\"):\n  ${text}")
  endif()
endif()
