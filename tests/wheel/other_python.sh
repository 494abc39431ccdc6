#!/usr/bin/env bash
# Builds the wheel for Python 3.12 and later with Debian 13's Python 3.13, and runs the kernel tests and, if a bundle is
# given, predictions there: other_python.sh FOLDER [BUNDLE]. FOLDER becomes a root folder of Debian's; 1 GB.
# It must be run by root, and wants debootstrap.
set -euo pipefail
root=$(realpath -m "$1")
bundle=${2:+$(realpath "$2")}
cd "$(dirname "$0")/../.."

[[ -e $root/usr/bin/python3.13 ]] || debootstrap --variant=minbase --include=python3-venv,python3-dev,g++ trixie "$root"
trap 'umount "$root/proc" "$root/dev"' EXIT
mount -t proc proc "$root/proc"
mount --bind /dev "$root/dev"

rm -rf "$root"/{source,wheels,built,environment,bundle}
mkdir "$root"/{source,wheels}
git ls-files -z | tar --null --files-from - --create | tar --extract --directory "$root/source"
[[ -z $bundle ]] || cp -r "$bundle" "$root/bundle"
# From here, so that this machine's settings of pip need not hold there.
env -u PIP_CONSTRAINT "${PYTHON:-python3}" -m pip download --quiet --only-binary=:all: --python-version 3.13 \
  --dest "$root/wheels" scikit-build-core nanobind cmake ninja numpy openvino safetensors tokenizers tqdm pytest hypothesis ml_dtypes

chroot "$root" env -i PATH=/usr/bin:/bin HOME=/root bash -euo pipefail -s <<'THERE'
install="/environment/bin/python -m pip --disable-pip-version-check"
python3 -m venv /environment
$install wheel --quiet --no-index --find-links /wheels --no-deps --wheel-dir /built /source
ls /built
[[ -e $(echo /built/bitheads-*-cp312-abi3-*.whl) ]]
$install install --quiet --no-index --find-links /wheels /built/*.whl pytest hypothesis ml_dtypes
cd /tmp
/environment/bin/bitheads --version
if [[ -d /bundle ]]; then
  /environment/bin/bitheads predict --bundle /bundle --demo </dev/null
fi
# One of its packages may warn where those of constraints.txt do not.
cd /source/tests
/environment/bin/python -m pytest -q -p no:cacheprovider -W default --ignore kernels/arm kernels
THERE
