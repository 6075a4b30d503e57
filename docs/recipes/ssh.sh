#!/bin/bash
# lungmix on machines that are reached by ssh without a password: ssh.sh "host1 host2" WORKERS_EACH STORE SOURCE...
# STORE and SOURCES lie under the same paths on all of them, and so does the environment that `python` belongs to.
set -euo pipefail
hosts=$1 each=$2
shift 2
here=${DASK_HOST:-$(hostname -I | cut -d' ' -f1)}
python=$(command -v python)
settings="MALLOC_TRIM_THRESHOLD_=134217728 MALLOC_MMAP_THRESHOLD_=134217728 ZARR_THREADING__MAX_WORKERS=1"

folder=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null; wait; rm -rf "$folder"' EXIT

DASK_DISTRIBUTED__SCHEDULER__WORKER_SATURATION=1.0 \
    "$python" -m dask scheduler --host "$here" --port 0 --no-dashboard --scheduler-file "$folder/scheduler.json" &
until [ -s "$folder/scheduler.json" ]; do sleep 0.2; done
address=$("$python" -c 'import json, sys; print(json.load(open(sys.argv[1]))["address"])' "$folder/scheduler.json")
for host in $hosts; do
    # -tt: the workers end with this connection. What they print is not the output of lungmix.
    ssh -tt -o BatchMode=yes ${SSH_OPTIONS:-} "$host" "env $settings ${WORKER_ENV:-} $python -m dask worker $address \
        --nworkers $each --nthreads 1 --memory-limit 2GB --no-dashboard --death-timeout 60" </dev/null >&2 &
done
lungmix run "$@" --scheduler "$address"
