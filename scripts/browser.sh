#!/bin/sh
# Chromium and its driver, for the tests that look through a browser. Does nothing where they are.
set -eu
command -v chromium >/dev/null && command -v chromedriver >/dev/null ||
    "$(dirname "$0")/debian.sh" chromium chromium-driver
