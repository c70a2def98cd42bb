#!/bin/bash
# One job of SLURM per participant, without Dask. Copy, change the lines marked HERE, and submit:
#
#   pyroqmri cohort DATA OUT participant --signal msdki --recipe hierarchical --dry-run     # what there is
#   ls -d DATA/sub-* | xargs -n 1 basename > participants.txt
#   sbatch --array=1-$(wc -l < participants.txt)%50 cohort_array.sh
#
# The fit comes first, from some or all participants, on one node:
#
#   pyroqmri cohort DATA LEARNED participant --signal msdki --recipe hierarchical --participant-label 01 02 03 04
#
# and at the end one run writes the whole table and does what is missing:
#
#   pyroqmri cohort DATA OUT participant --fit LEARNED/fit
#SBATCH --job-name=pyroqmri
#SBATCH --cpus-per-task=1
#SBATCH --mem=10G
#SBATCH --time=02:00:00
#SBATCH --output=slurm-%A_%a.log

set -euo pipefail
data=DATA        # HERE: the BIDS data set
out=OUT          # HERE: its derivatives
fit=LEARNED/fit  # HERE: the fit of the cohort

export OMP_NUM_THREADS=1
participant=$(sed -n "${SLURM_ARRAY_TASK_ID}p" participants.txt)
# SIGTERM at the time limit ends it cleanly; what is done is not done again
exec pyroqmri cohort "$data" "$out" participant --fit "$fit" --participant-label "$participant" --n-workers 1 --quiet
