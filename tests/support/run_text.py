"""Runs the program that its first argument is: for `outer_filter`, which takes a file."""

import sys

if __name__ == "__main__":
    exec(compile(sys.argv[1], "<text>", "exec"))  # noqa: S102 - a test's own words
