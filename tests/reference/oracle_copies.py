#!/usr/bin/env python3
"""Are the cases in ../shared all among the copies in tests/data, byte for byte, and so verified?

usage: oracle_copies.py SOURCE_DIR    exit code 77: no ../shared beside this checkout
"""

import filecmp
import glob
import os
import sys


def same(a, b):
    names = sorted(os.listdir(a))
    return names == sorted(os.listdir(b)) and filecmp.cmpfiles(a, b, names, shallow=False)[0] == names


def main():
    source = sys.argv[1]
    copies = glob.glob(os.path.join(source, "tests/data/*/"))
    cases = sorted(glob.glob(os.path.join(source, "../shared/data/oracle/*/*/")))
    if not cases:
        print("no ../shared/data/oracle: skipped")
        return 77
    missing = [case for case in cases if not any(same(case, copy) for copy in copies)]
    print(f"{len(cases)} cases, without a copy in tests/data: {missing or 'none'}")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
