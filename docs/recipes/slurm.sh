#!/bin/bash
# lungmix as one SLURM job: sbatch --ntasks=8 slurm.sh STORE SOURCE... and any options of `lungmix run`.
# One task is one worker; scheduler and client run beside the first.
#SBATCH --job-name=lungmix
#SBATCH --ntasks=4
#SBATCH --cpus-per-task=1
#SBATCH --mem-per-cpu=2500M
#SBATCH --time=04:00:00
set -euo pipefail

# module load python/3.12; source ~/lungmix/bin/activate
export MALLOC_TRIM_THRESHOLD_=134217728 MALLOC_MMAP_THRESHOLD_=134217728 ZARR_THREADING__MAX_WORKERS=1
export DASK_DISTRIBUTED__SCHEDULER__WORKER_SATURATION=1.0

# The folder must be seen by all nodes of the job; only its owner may read it.
folder=$(mktemp -d "$PWD/lungmix-XXXXXX")
trap 'kill $(jobs -p) 2>/dev/null; wait; rm -rf "$folder"' EXIT

dask scheduler --scheduler-file "$folder/scheduler.json" --port 0 --no-dashboard ${DASK_HOST:+--host "$DASK_HOST"} &
until [ -s "$folder/scheduler.json" ]; do sleep 0.2; done
srun dask worker --scheduler-file "$folder/scheduler.json" --nthreads 1 --memory-limit 2GB --no-dashboard \
    --local-directory "${TMPDIR:-/tmp}" ${DASK_HOST:+--host "$DASK_HOST"} &

lungmix run "$@" --scheduler-file "$folder/scheduler.json"
