#!/usr/bin/env python3
"""tools/gpu_check --package on small packages of our own; apt-get is faked, dpkg-deb is not. Nothing is downloaded.

    tests/tools/gpu_check_package_test.py
"""

import glob
import os
import shutil
import subprocess
import sys
import unittest
import unittest.mock

SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(SOURCE, "tools"))

import gpu_check_package  # noqa: E402
from in_folder import InFolder, write_program  # noqa: E402


@unittest.skipUnless(shutil.which("dpkg-deb"), "no dpkg-deb")
class PackageTest(InFolder):
    def setUp(self):
        super().setUp()
        os.makedirs(self.path("bin"))
        write_program(self.path("bin", "apt-get"), f'#!/bin/sh\n[ "$1" = update ] || cp {self.path("*.deb")} .\n')
        path = unittest.mock.patch.dict(os.environ, PATH=self.path("bin") + os.pathsep + os.environ["PATH"])
        path.start()
        self.addCleanup(path.stop)

    def add(self, name, files):
        """A package; a file is its text, or ("link", target)."""
        root = self.path("trees", name)
        for path, content in {"DEBIAN/control": f"Package: {name}\nVersion: 1.5-2\nArchitecture: all\nMaintainer: a <a@b>\n"
                              "Description: a\n", **files}.items():
            path = os.path.join(root, path)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            if isinstance(content, tuple):
                os.symlink(content[1], path)
            else:
                with open(path, "wb") as file:
                    file.write(content.encode() if isinstance(content, str) else content)
        subprocess.run(["dpkg-deb", "-b", root, self.path(f"{name}_1.5-2_all.deb")], check=True, capture_output=True)

    def make(self, packages, limit=10**6, links=None):
        return gpu_check_package.make_package(self.path("made"), packages, links or {}, limit)

    def files(self):
        return sorted(os.path.relpath(path, self.path("made")) for path in gpu_check_package.files_below(self.path("made")))

    def test_keeps_what_matches(self):
        self.add("liba", {"usr/include/a/b.h": "x" * 1000, "usr/include/x86_64-linux-gnu/a/c.h": "y",
                          "usr/share/doc/a": "z" * 5000,
                          "usr/lib/x86_64-linux-gnu/liba.so": ("link", "liba.so.1"),
                          "usr/lib/x86_64-linux-gnu/liba.so.1": "library",
                          "usr/lib/x86_64-linux-gnu/libnone.so": ("link", "libnone.so.1")})
        size = self.make({"liba": "usr/include/* LIB/*.so*"}, links={"usr/include/d.h": "a/b.h"})
        self.assertTrue(1000 < size < 1200, size)
        self.assertEqual(self.files(), ["packages.txt", "usr/include/a/b.h", "usr/include/a/c.h", "usr/include/d.h",
                                        "usr/lib/x86_64-linux-gnu/liba.so", "usr/lib/x86_64-linux-gnu/liba.so.1"])
        with open(self.path("made", "packages.txt"), encoding="utf-8") as file:
            self.assertEqual(file.read(), "liba 1.5-2\n")
        # Made again, it is replaced.
        os.remove(self.path("made", "usr/include/a/b.h"))
        self.make({"liba": "usr/include/*"})
        self.assertEqual(self.files(), ["packages.txt", "usr/include/a/b.h", "usr/include/a/c.h"])

    def fails(self, pattern, *arguments, **options):
        with self.assertRaisesRegex(gpu_check_package.PackageError, pattern):
            self.make(*arguments, **options)
        self.assertEqual(glob.glob(self.path(".gpu_package*")), [])

    def test_a_package_above_the_limit_is_none(self):
        self.add("liba", {"usr/include/b.h": "x" * 1000})
        self.fails("the package is 0.0 MB, more than 0.0005 MB", {"liba": "usr/include/*"}, limit=500)
        self.assertFalse(os.path.exists(self.path("made")))

    def test_what_is_not_as_expected_is_an_error(self):
        self.add("liba", {"usr/include/b.h": "x"})
        self.fails(r"liba_1.5-2_all.deb: tar: ./usr/bin/.: Not found in archive; is this Debian 12", {"liba": "usr/include/* usr/bin/*"})
        self.fails("left 0 files for libb", {"libb": "usr/include/*"})
        os.makedirs(self.path("made"))
        self.fails("is there and no package", {"liba": "usr/include/*"})
        write_program(self.path("bin", "apt-get"), "#!/bin/sh\necho 'E: no network' >&2\nexit 100\n")
        os.rmdir(self.path("made"))
        self.fails("apt-get update .*failed: E: no network", {"liba": "usr/include/*"})

    def compiled(self, name, *needed):
        """The bytes of a shared library."""
        subprocess.run(["gcc", "-shared", "-nostdlib", "-Wl,--no-as-needed", f"-Wl,-soname,{name}", "-o", self.path(name),
                        "-x", "c", "/dev/null", "-x", "none", *[self.path(other) for other in needed]], check=True)
        with open(self.path(name), "rb") as file:
            return file.read()

    @unittest.skipUnless(shutil.which("gcc"), "no gcc")
    def test_plugins_that_lack_a_library_are_left_out(self):
        present, absent = self.compiled("libpresent.so"), self.compiled("libabsent.so")
        self.assertTrue(absent)
        plugins = gpu_check_package.PLUGINS[0]
        self.add("liba", {"usr/lib/x86_64-linux-gnu/libpresent.so": present,
                          f"{plugins}/good.so": self.compiled("good.so", "libpresent.so"),
                          f"{plugins}/bad.so": self.compiled("bad.so", "libpresent.so", "libabsent.so")})
        self.make({"liba": "LIB/*"})
        self.assertEqual(self.files(), ["packages.txt", "usr/lib/x86_64-linux-gnu/libpresent.so", f"{plugins}/good.so"])
        # Anything else must be complete.
        self.add("libb", {"usr/bin/b": self.compiled("b", "libabsent.so")})
        self.fails("usr/bin/b needs libabsent.so, which no package of the list brings", {"libb": "usr/*"})

    def test_the_list_covers_what_setup_installs(self):
        with open(os.path.join(SOURCE, "launch", "setup"), encoding="utf-8") as file:
            text = file.read()
        wanted = set(text.partition("packages=(")[2].partition(")")[0].split())
        tools = {"g++", "cmake", "ninja-build", "ccache", "python3"}
        self.assertTrue(tools < wanted, wanted)
        self.assertEqual(wanted - tools - set(gpu_check_package.PACKAGES), set())

    def test_environment(self):
        made = gpu_check_package.package_environment("/p", {"PATH": "/bin", "LANG": "C"})
        self.assertEqual((made["PATH"], made["LANG"], made["OPAL_PREFIX"]), ("/p/usr/bin:/bin", "C", "/p/usr"))
        self.assertEqual(made["LD_LIBRARY_PATH"], "/p/usr/lib/x86_64-linux-gnu")


if __name__ == "__main__":
    unittest.main()
