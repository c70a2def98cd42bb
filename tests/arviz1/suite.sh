#!/bin/sh
# The tests that meet ArviZ, on 1.x: laid over this checkout's environment, which may have 0.23 (its Python 3.11 does).
#
#   sh tests/arviz1/suite.sh [FOLDER]
set -eu
cd "$(dirname "$0")/../.."
folder=${1:-$(mktemp -d)}
.venv/bin/pip install --quiet --no-deps --ignore-requires-python --target "$folder" \
    "arviz==1.3.0" "arviz-base==1.3.1" "arviz-plots==1.3.2" "arviz-stats==1.3.3" lazy_loader
OMP_NUM_THREADS=1 PYTHONPATH="$folder" .venv/bin/python -m pytest -q -m "not slow" tests/diagnostics tests/comparison \
    tests/posterior/test_psis.py tests/posterior/test_posterior.py tests/calibration/test_ranks.py
