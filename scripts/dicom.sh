#!/usr/bin/env bash
# The validators dciodvfy and dcentvfy from Debian, for the tests of DICOM files. Does nothing where they are.
set -euo pipefail
if command -v dciodvfy >/dev/null && command -v dcentvfy >/dev/null; then
    exit 0
fi
as_root=()
if [ "$(id -u)" -ne 0 ]; then
    as_root=(sudo)
fi
"${as_root[@]}" apt-get update
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends dicom3tools
