#!/bin/sh
# Packages from Debian, as root or through sudo: PACKAGE...
set -eu
as_root=
[ "$(id -u)" -eq 0 ] || as_root=sudo
$as_root apt-get update
$as_root env DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends "$@"
