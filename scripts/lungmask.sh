#!/usr/bin/env bash
# lungmask, MONAI, TorchIO and PyTorch for the CPU, in an environment of its own above that of the tests: PYTHON FOLDER.
# Does nothing where it is complete. Where there is no such PyTorch, says so, and the tests marked `lungmask` are left out.
# LUNGMIX_TORCH names another release; on Linux the plain name gives one with CUDA, which is gigabytes large.
set -euo pipefail
python=$1 folder=$2 torch=${LUNGMIX_TORCH:-torch==2.13.0+cpu}
packages=("$torch" lungmask==0.2.22 monai==1.6.1 torchio==1.2.1)
# An environment of an earlier version of this file lacks some of the packages.
if [ "$(cat "$folder/complete" 2> /dev/null)" = "${packages[*]}" ]; then
    exit 0
fi
here=$(cd "$(dirname "$0")/.." && pwd)
rm -rf "$folder"
"$python" -m venv --without-pip "$folder"
site=$("$folder/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
# What the tests have is not installed again.
"$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > "$site/tests.pth"
pip=("$folder/bin/python" -m pip --disable-pip-version-check install --quiet)
if "${pip[@]}" --constraint "$here/constraints.txt" "${packages[@]}"; then
    "$folder/bin/python" -c 'import lungmask, monai, torchio'
    echo "${packages[*]}" > "$folder/complete"
else
    rm -rf "$folder"
    echo "There is no $torch for this Python: the tests marked lungmask are left out (LUNGMIX_TORCH names another)." >&2
fi
