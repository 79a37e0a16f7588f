#!/bin/sh
# test_package.sh DIST PYTHON [TESTS…]: unpacks the source archive elsewhere and runs a good part of its quick tests there, or
# those that are named, with the wheel installed and not the files that lie around.
set -eu
dist=$(cd "$1" && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$2" -m venv "$folder/venv"
shift 2
"$folder/venv/bin/python" -m pip install --quiet "$(echo "$dist"/*.whl)[dev]"
tar xzf "$dist"/*.tar.gz -C "$folder"
cd "$folder"/epoch_oci-*
[ $# -gt 0 ] || set -- tests/contract tests/test_[a-r]*.py
"$folder/venv/bin/python" -m compileall -q "$folder"/venv/lib/python3*/site-packages/epoch_oci
"$folder/venv/bin/epoch-oci" demo
# Not `python -m pytest`: that would import the package that lies here.
"$folder/venv/bin/pytest" -q -n 2 --dist loadgroup -p no:cacheprovider \
    -m "not long and not live and not peer" "$@"
