"""What a machine without network needs to build HyperMoE, unpacked from Debian 12's packages into one folder."""

import glob
import os
import re
import shutil
import subprocess
import tempfile

LIMIT_BYTES = 60 * 10**6
CONTENTS = "packages.txt"  # in the folder: the packages and their versions, a line each
LIBRARIES = "usr/lib/x86_64-linux-gnu"
PLUGINS = (f"{LIBRARIES}/openmpi/lib/openmpi3", f"{LIBRARIES}/pmix2/lib/pmix")

# Debian's package, and what is kept of it; LIB is LIBRARIES, * matches / too.
PACKAGES = {
    "libopenmpi3": "LIB/libmpi.so.* LIB/libopen-*.so.* LIB/libmca_common_*.so.* LIB/openmpi/lib/openmpi3/*",
    "openmpi-bin": "usr/bin/orterun usr/bin/orted usr/bin/opal_wrapper etc/openmpi/*",
    "openmpi-common": "usr/share/openmpi/*",
    "libopenmpi-dev": "LIB/openmpi/include/mpi*.h LIB/openmpi/include/openmpi/mpiext/* LIB/openmpi/lib/libmpi.so",
    "libhwloc15": "LIB/libhwloc.so.*",
    "libevent-core-2.1-7": "LIB/libevent_core-*",
    "libevent-pthreads-2.1-7": "LIB/libevent_pthreads-*",
    "libpmix2": "LIB/libpmix.so.* LIB/pmix2/*",
    "libmunge2": "LIB/libmunge.so.*",
    "libudev1": "LIB/libudev.so.*",
    "libabsl20220623": "LIB/libabsl_*",
    "libabsl-dev": "usr/include/* LIB/libabsl_*.so LIB/cmake/*",
    "protobuf-compiler": "usr/bin/protoc",
    "libprotoc32": "LIB/libprotoc.so.*",
    "libprotobuf32": "LIB/libprotobuf.so.*",
    "libprotobuf-dev": "usr/include/* LIB/libprotobuf.a LIB/libprotobuf.so",
    "libgtest-dev": "usr/include/* LIB/*.a LIB/cmake/*",
    "libgmock-dev": "usr/include/* LIB/*.a LIB/cmake/*",
    "libcli11-dev": "usr/include/* *cmake*",
    "nlohmann-json3-dev": "usr/include/* *cmake*",
    "libxxhash0": "LIB/*.so.*",
    "libxxhash-dev": "usr/include/* LIB/*.so",
    "libisal2": "LIB/*.so.*",
    "libisal-dev": "usr/include/* LIB/*.so",
    "libpcre2-8-0": "LIB/*.so.*",
    "libpcre2-dev": "usr/include/* LIB/libpcre2-8.so",
    "libsentencepiece0": "LIB/libsentencepiece.so.*",
    "libsentencepiece-dev": "usr/include/* LIB/libsentencepiece.so",
    # Static: its library must not stand before the one that the machine's own programs were made with.
    "libssl-dev": "usr/include/* LIB/libcrypto.a",
}
# What Debian's alternatives would set up.
LINKS = {"usr/bin/mpicc": "opal_wrapper", "usr/bin/mpirun": "orterun", "usr/bin/mpiexec": "orterun"}
# Every machine that can compile and run Python has these.
OF_THE_SYSTEM = re.compile(r"(ld-linux-x86-64|libc|libm|libdl|librt|libpthread|libgcc_s|libstdc\+\+|libz)\.so")


class PackageError(Exception):
    """Why there is no package, in one line."""


def output_of(command, folder):
    done = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise PackageError(f"{' '.join(command)} failed: {last}")
    return done.stdout


def download(names, folder):
    command = ["apt-get", "download", "-q", "-o", "APT::Sandbox::User=root", *names]
    try:
        output_of(command, folder)
    except PackageError:
        output_of(["apt-get", "update", "-q"], folder)  # the lists may be missing or old
        output_of(command, folder)


def unpack(archive, patterns, folder):
    """The files of a .deb that match; every pattern must match one."""
    patterns = ["./" + pattern for pattern in patterns.replace("LIB/", f"{LIBRARIES}/").split()]
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", archive], stdout=subprocess.PIPE) as process:
        done = subprocess.run(["tar", "-x", "-C", folder, "--no-same-owner", "--wildcards", *patterns], stdin=process.stdout,
                              capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"})
    if done.returncode != 0 or process.returncode != 0:
        first = (done.stderr.strip().splitlines() or ["dpkg-deb could not read it"])[0]
        raise PackageError(f"{os.path.basename(archive)}: {first}; is this Debian 12?")


def files_below(folder):
    return [os.path.join(root, name) for root, _, names in os.walk(folder) for name in names]


def merge_include_folders(folder):
    """Headers of usr/include/x86_64-linux-gnu, which a compiler searches in / alone, into usr/include."""
    special = os.path.join(folder, "usr/include/x86_64-linux-gnu")
    for path in files_below(special):
        target = os.path.join(folder, "usr/include", os.path.relpath(path, special))
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.replace(path, target)
    shutil.rmtree(special, ignore_errors=True)


def missing_libraries(folder):
    """{file: libraries that it needs and neither the folder nor every system has}."""
    files = files_below(folder)
    there = {os.path.basename(path) for path in files if os.path.exists(path)}
    missing = {}
    for path in files:
        if os.path.islink(path):
            continue
        with open(path, "rb") as file:
            if file.read(4) != b"\x7fELF":
                continue
        needed = re.findall(r"\(NEEDED\).*\[(.*)\]", output_of(["readelf", "-d", path], folder))
        lacking = [name for name in needed if name not in there and not OF_THE_SYSTEM.match(name)]
        if lacking:
            missing[path] = lacking
    return missing


def remove_unusable_plugins(folder):
    """Plugins for networks and libraries that are not in the package: Open MPI takes those that are there."""
    while True:
        missing = missing_libraries(folder)
        removable = [path for path in missing
                     if os.path.relpath(os.path.dirname(path), folder) in PLUGINS
                     or os.path.basename(path).startswith("libmca_common_")]
        for path in removable:
            os.remove(path)
        for path in files_below(folder):
            if os.path.islink(path) and not os.path.exists(path):
                os.remove(path)
        if not removable:
            break
    if missing:
        path, names = sorted(missing.items())[0]
        raise PackageError(f"{os.path.relpath(path, folder)} needs {', '.join(names)}, which no package of the list brings")


def make_package(folder, packages=None, links=None, limit=LIMIT_BYTES):
    """Makes or replaces the folder, which is at most `limit` bytes; returns its size."""
    packages = PACKAGES if packages is None else packages
    folder = os.path.abspath(folder)
    if os.path.exists(folder) and not os.path.exists(os.path.join(folder, CONTENTS)):
        raise PackageError(f"{folder} is there and no package: give another folder, or remove it")
    os.makedirs(os.path.dirname(folder), exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".gpu_package.", dir=os.path.dirname(folder)) as scratch:
        archives, made = os.path.join(scratch, "archives"), os.path.join(scratch, "made")
        os.mkdir(archives)
        os.mkdir(made)
        download(packages, archives)
        contents = []
        for name, patterns in packages.items():
            archive = glob.glob(os.path.join(archives, f"{name}_*.deb"))
            if len(archive) != 1:
                raise PackageError(f"apt-get download left {len(archive)} files for {name}")
            unpack(archive[0], patterns, made)
            contents.append(f"{name} {output_of(['dpkg-deb', '-f', archive[0], 'Version'], made).strip()}\n")
        merge_include_folders(made)
        for path, target in (LINKS if links is None else links).items():
            os.symlink(target, os.path.join(made, path))
        remove_unusable_plugins(made)
        with open(os.path.join(made, CONTENTS), "w", encoding="utf-8") as file:
            file.writelines(contents)
        size = sum(os.lstat(path).st_size for path in files_below(made))
        if size > limit:
            raise PackageError(f"the package is {size / 1e6:.1f} MB, more than {limit / 1e6:g} MB: keep less in "
                               "tools/gpu_check_package.py")
        os.chmod(made, 0o755)
        shutil.rmtree(folder, ignore_errors=True)
        os.rename(made, folder)
    return size


def package_environment(folder, environment):
    """The environment in which CMake, compilers, protoc and Open MPI find the package's parts."""
    folder = os.path.abspath(folder)
    pmix = os.path.join(folder, LIBRARIES, "pmix2")
    result = dict(environment, MPI_HOME=os.path.join(folder, "usr"),
                  OPAL_PREFIX=os.path.join(folder, "usr"), OPAL_SYSCONFDIR=os.path.join(folder, "etc/openmpi"),
                  # Debian gives PMIx each folder in full, so that the prefix alone moves nothing.
                  PMIX_PREFIX=pmix, PMIX_LIBDIR=f"{pmix}/lib", PMIX_PKGLIBDIR=f"{pmix}/lib/pmix",
                  PMIX_PKGDATADIR=f"{pmix}/share/pmix")
    additions = {"PATH": [os.path.join(folder, "usr/bin")], "LD_LIBRARY_PATH": [os.path.join(folder, LIBRARIES)],
                 "CMAKE_PREFIX_PATH": [os.path.join(folder, "usr")],
                 # As the compiler's own folders: after those that are given to it.
                 "C_INCLUDE_PATH": [os.path.join(folder, "usr/include")],
                 "CPLUS_INCLUDE_PATH": [os.path.join(folder, "usr/include")]}
    for name, folders in additions.items():
        result[name] = os.pathsep.join(folders + [part for part in [environment.get(name)] if part])
    return result
