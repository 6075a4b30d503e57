#!/bin/sh
# The client of OpenSSH, for the tests of the recipe that calls it. Does nothing where it is.
set -eu
command -v ssh >/dev/null || "$(dirname "$0")/debian.sh" openssh-client
