#!/bin/sh
# ArviZ 1.x on what ArviZ 0.23 wrote: netCDF from this checkout's environment, read in one of Python 3.12 or later
# without torch. What was seen is kept in benchmarks/results/arviz1.txt.
#
#   PYTHON=python3.12 sh tests/arviz1/check.sh [FOLDER]
set -eu
cd "$(dirname "$0")/../.."
folder=${1:-$(mktemp -d)}
python=${PYTHON:-python3.12}
mkdir -p "$folder"
[ -x "$folder/venv/bin/python" ] || "$python" -m venv "$folder/venv"
"$folder/venv/bin/python" -c "import arviz" 2>/dev/null ||
    "$folder/venv/bin/pip" install --quiet --constraint constraints.txt "arviz>=1.2" h5netcdf h5py matplotlib
OMP_NUM_THREADS=1 .venv/bin/python tests/arviz1/write.py "$folder"
"$folder/venv/bin/python" tests/arviz1/read.py "$folder/posterior.nc" "$folder/pyro.nc"
