#!/bin/sh
# Make a virtual environment: tools/venv.sh FOLDER. The interpreter is $PYTHON.
set -eu
folder=$1
python=${PYTHON:-python3}

fail() {
    echo "$1" >&2
    exit 1
}

command -v "$python" >/dev/null || fail "There is no $python. Install Python 3.11 or later."
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "$("$python" --version) is too old: Outgrow needs Python 3.11 or later. Try: make PYTHON=python3.12 ..."
echo "Making the virtual environment $folder with $("$python" --version)."
"$python" -m venv "$folder" || {
    rm -rf "$folder"
    fail "$python has no venv. On Debian and Ubuntu: apt-get install python3-venv"
}
# The pip that comes with an interpreter may be too old for dependency groups.
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
