#!/usr/bin/env bash
# PyRadiomics in an environment of its own, for the test that lets it read our batch: PYTHON FOLDER. Does nothing where
# it is. Its last release has no wheels for Python 3.11 and later, and needs its build tools to be there beforehand.
set -euo pipefail
python=$1 folder=$2
if [ -x "$folder/bin/pyradiomics" ]; then
    exit 0
fi
here=$(cd "$(dirname "$0")/.." && pwd)
rm -rf "$folder"
"$python" -m venv "$folder"
pip=("$folder/bin/python" -m pip --disable-pip-version-check install --quiet)
"${pip[@]}" "pip>=25.1"
"${pip[@]}" --constraint "$here/constraints.txt" --group "$here/pyproject.toml:pyradiomics"
# The release asks configparser for a name that Python 3.12 took away.
cat > "$("$folder/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/sitecustomize.py" <<'PYTHON'
import configparser

if not hasattr(configparser, "SafeConfigParser"):

    class SafeConfigParser(configparser.ConfigParser):
        readfp = configparser.ConfigParser.read_file

    configparser.SafeConfigParser = SafeConfigParser
PYTHON
"${pip[@]}" --no-build-isolation --constraint "$here/constraints.txt" pyradiomics==3.0.1
