# Whether programs for GPUs are built beside those for CPUs, and how.
#
# Every program `p` is linked from the same objects twice: as `p` with the libraries named *_no_cuda, in which what needs
# a GPU throws, and, where HYPERMOE_CUDA is on, as `p-cuda` with those named *_cuda and LibTorch::cuda.
#
# Defines HYPERMOE_HAS_CUDA, LibTorch::cuda and hypermoe_program().

if(NOT HYPERMOE_CUDA MATCHES "^(AUTO|ON|OFF)$")
  message(FATAL_ERROR "HYPERMOE_CUDA is '${HYPERMOE_CUDA}': expected AUTO, ON or OFF")
endif()

set(HYPERMOE_HAS_CUDA OFF)
set(cuda_missing "")
if(NOT HYPERMOE_CUDA STREQUAL OFF)
  if(DEFINED ENV{CUDA_HOME} AND NOT DEFINED ENV{CUDACXX} AND EXISTS $ENV{CUDA_HOME}/bin/nvcc)
    set(ENV{CUDACXX} $ENV{CUDA_HOME}/bin/nvcc)
  endif()
  include(CheckLanguage)
  if(NOT CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES 90)  # for the check alone
  endif()
  check_language(CUDA)
  if(NOT CMAKE_CUDA_COMPILER)
    set(cuda_missing "there is no CUDA compiler: put nvcc in PATH or set CUDA_HOME to the toolkit's folder")
  elseif(NOT EXISTS ${LIBTORCH_DIR}/lib/libtorch_cuda.so)
    set(cuda_missing "${LIBTORCH_DIR}/lib has no libtorch_cuda.so: run launch/setup -DHYPERMOE_CUDA=ON, which fetches it, or "
                     "give a LibTorch with CUDA")
  endif()
  if(NOT cuda_missing)
    set(HYPERMOE_HAS_CUDA ON)
  elseif(HYPERMOE_CUDA STREQUAL ON)
    message(FATAL_ERROR "HYPERMOE_CUDA is ON, but " ${cuda_missing})
  else()
    message(STATUS "Programs for GPUs are left out: " ${cuda_missing})
  endif()
endif()

if(HYPERMOE_HAS_CUDA)
  # Hopper's own instructions need the a; code for the newest can be compiled further for what comes after it.
  set(CMAKE_CUDA_ARCHITECTURES ${HYPERMOE_CUDA_ARCHITECTURES})
  if(NOT CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES 80-real 90a-real 100)
  endif()
  set(CMAKE_CUDA_RUNTIME_LIBRARY Shared)  # LibTorch's own
  set(CMAKE_CUDA_FLAGS_RELEASE "-O3")
  enable_language(CUDA)
  set(CMAKE_CUDA_STANDARD 17)  # the highest that CMake 3.25 knows for nvcc
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${CMAKE_CXX_COMPILER_LAUNCHER})
  # Contracted multiply-adds are wanted here: their results do not depend on who runs them.
  add_compile_options("$<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-Wall,-Wextra$<$<BOOL:${HYPERMOE_WERROR}>:;-Werror;all-warnings>>")
  find_package(CUDAToolkit REQUIRED)

  # The first alone is not enough for CMake 4, which takes the folder of whichever libcudart.so it meets.
  set(toolkit_libraries ${CUDAToolkit_LIBRARY_DIR} ${CUDAToolkit_TARGET_DIR}/lib64)
  # LibTorch brings NCCL's library, or the toolkit has it; the process has one, and this is its header.
  get_filename_component(libtorch_parent ${LIBTORCH_DIR} DIRECTORY)
  set(nvidia_folders ${libtorch_parent}/nvidia)
  file(GLOB nvidia_libraries ${nvidia_folders}/*/lib)
  find_path(NCCL_INCLUDE_DIR nccl.h HINTS ${nvidia_folders}/nccl/include ${CUDAToolkit_INCLUDE_DIRS} REQUIRED)
  find_library(NCCL_LIBRARY NAMES nccl libnccl.so.2 HINTS ${nvidia_folders}/nccl/lib ${toolkit_libraries} REQUIRED)

  add_library(LibTorch::cuda INTERFACE IMPORTED)
  target_include_directories(LibTorch::cuda INTERFACE ${CUDAToolkit_INCLUDE_DIRS} ${NCCL_INCLUDE_DIR})
  # Kernels are found by what registers itself when the library is loaded, so it must not be dropped as unused.
  target_link_libraries(LibTorch::cuda INTERFACE LibTorch::cpu
    -Wl,--no-as-needed ${LIBTORCH_DIR}/lib/libtorch_cuda.so ${LIBTORCH_DIR}/lib/libc10_cuda.so -Wl,--as-needed
    CUDA::cudart)
  foreach(folder ${nvidia_libraries} ${toolkit_libraries})
    target_link_options(LibTorch::cuda INTERFACE -Wl,-rpath,${folder} -Wl,-rpath-link,${folder})
  endforeach()
endif()

# Each layer adds what it has.
add_library(hypermoe_no_cuda INTERFACE)
if(HYPERMOE_HAS_CUDA)
  add_library(hypermoe_cuda INTERFACE)
  target_link_libraries(hypermoe_cuda INTERFACE LibTorch::cuda)
endif()

# hypermoe_program(<name> SOURCES <files> LIBS <libraries> [TEST])
# TEST: into tests/, where programs are not for users.
function(hypermoe_program name)
  cmake_parse_arguments(arg "TEST" "" "SOURCES;LIBS" ${ARGN})
  add_executable(${name} ${arg_SOURCES})
  target_link_libraries(${name} ${arg_LIBS} hypermoe_no_cuda)
  set(programs ${name})
  if(HYPERMOE_HAS_CUDA)
    # The same objects, compiled once.
    add_executable(${name}-cuda $<TARGET_OBJECTS:${name}>)
    set_target_properties(${name}-cuda PROPERTIES LINKER_LANGUAGE CXX)
    target_link_libraries(${name}-cuda ${arg_LIBS} hypermoe_cuda)
    list(APPEND programs ${name}-cuda)
  endif()
  if(arg_TEST)
    set_target_properties(${programs} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  endif()
endfunction()
