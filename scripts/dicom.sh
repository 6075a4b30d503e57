#!/bin/sh
# The validators dciodvfy and dcentvfy, for the tests of DICOM files. Does nothing where they are.
set -eu
command -v dciodvfy >/dev/null && command -v dcentvfy >/dev/null || "$(dirname "$0")/debian.sh" dicom3tools
