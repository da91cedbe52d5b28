"""What the project's scripts share: exit codes, errors that end them with one line, files written whole."""

import argparse
import os

USAGE, BAD_DATA, DEFECT, IO = 64, 65, 70, 74  # exit codes, as in the README


class Failure(Exception):
    """Ends the program with one line and this exit code."""

    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


def read(path):
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise Failure(IO, f"{path} could not be read: {error.strerror}") from None


def write(path, text):
    """Whole or not at all."""
    try:
        with open(path + ".part", "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        os.replace(path + ".part", path)
    except OSError as error:
        raise Failure(IO, f"{path} could not be written: {error.strerror}") from None


class Parser(argparse.ArgumentParser):
    def error(self, message):
        raise Failure(USAGE, f"{message}; see tools/{self.prog} --help")
