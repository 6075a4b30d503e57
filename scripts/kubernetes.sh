#!/bin/sh
# What dask-kubernetes installs into a cluster, without what it needs to run, for the test of the recipe: PYTHON FOLDER.
# Does nothing where it is.
set -eu
[ -d "$2/dask_kubernetes" ] ||
    "$1" -m pip --disable-pip-version-check install --quiet --no-deps --target "$2" dask-kubernetes==2026.3.0
