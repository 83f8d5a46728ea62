#!/bin/sh
# Install the project and one dependency group: tools/install.sh FOLDER GROUP DJANGO
set -eu
folder=$1 group=$2 django=$3
echo "Installing Outgrow${django:+, Django $django} and what '$group' needs into $folder."
set -- --editable '.[local]' --group "$group"
if [ -n "$django" ]; then set -- "$@" "django==$django.*"; fi
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check "$@"
touch "$folder/.$group"
