#!/usr/bin/env bash
# sbatch cluster/slurm.sh --corpus meld-st:DIR --storage DIR ...
# A sweep in one allocation; the options go to sweep.py. See docs/clusters.md.
# Fill in: account, partition, time and the sizes below. Submit it from the repository. All nodes must see the repository
# and --storage. Before its time ends, Slurm signals the job, which requeues itself and then resumes the sweep.
#SBATCH --job-name=fair-ser
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --mem=512G
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@300
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:?submit this script with sbatch}"
# shellcheck disable=SC1091
. .venv/bin/activate

# Other Rays are not affected: the job has its own ports and temporary folder, and ends only processes that it started.
export RAY_AUTH_MODE=token # with ~/.ray/auth_token, which `ray get-auth-token --generate` writes
export HF_HOME="${HF_HOME:-$HOME/.cache/huggingface}"
port=$((20000 + SLURM_JOB_ID % 20000))
folder="/tmp/ray-$SLURM_JOB_ID" # on every node, mode 700, because everybody can write to Ray's own folder inside it
cores="${SLURM_CPUS_PER_TASK:-1}"
gpus="${SLURM_GPUS_ON_NODE:-0}"
export SRUN_CPUS_PER_TASK="$cores" # since Slurm 22.05 srun does not inherit it from sbatch; Ray would get one core
ulimit -Sn "$(ulimit -Hn)"
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head="${nodes[0]}" # the node of this script
address="$(srun --nodes=1 --ntasks=1 --nodelist="$head" hostname --ip-address | awk '{print $1}')"

steps=()
end() {
  trap - EXIT USR1
  for ((i = ${#steps[@]} - 1; i >= 0; i--)); do # the sweep before Ray, each within a minute
    kill "${steps[i]}" 2>/dev/null || continue
    seconds=0
    while ((seconds++ < 60)) && kill -0 "${steps[i]}" 2>/dev/null; do sleep 1; done
    kill -9 "${steps[i]}" 2>/dev/null || true
    wait "${steps[i]}" || true
  done
  for _ in 1 2 3; do # Ray's agents write for some more seconds
    if srun --overlap rm -rf "$folder"; then break; fi
    sleep 2
  done
}
trap end EXIT
requeue() {
  echo "the time limit is near: requeued"
  end
  scontrol requeue "$SLURM_JOB_ID"
  exit 0
}
trap requeue USR1

srun --overlap rm -rf "$folder"
srun --overlap mkdir -m 700 "$folder"
resources=(--num-cpus="$cores" --num-gpus="$gpus" --min-worker-port=0 --max-worker-port=0)
srun --overlap --nodes=1 --ntasks=1 --nodelist="$head" \
  ray start --head --block --node-ip-address="$address" --port="$port" --temp-dir="$folder/r" \
  --include-dashboard=false --ray-client-server-port="$((port + 20000))" --resources='{"driver":1000}' \
  "${resources[@]}" &
steps+=($!)
export RAY_ADDRESS="$address:$port"
connect="exec 3<>/dev/tcp/$address/$port"
timeout 300 bash -c "until $connect; do kill -0 $! || exit; sleep 1; done" 2>/dev/null # stop waiting if the head has ended

if ((${#nodes[@]} > 1)); then
  others=$((${#nodes[@]} - 1))
  srun --overlap --nodes="$others" --ntasks="$others" --exclude="$head" \
    ray start --block --address="$RAY_ADDRESS" "${resources[@]}" &
  steps+=($!)
fi
timeout 600 python - "${#nodes[@]}" <<'PYTHON'
import sys
import time

import ray

ray.init(logging_level="ERROR", log_to_driver=False)
while sum(node["Alive"] for node in ray.nodes()) < int(sys.argv[1]):
    time.sleep(2)
PYTHON

python study/sweep.py "$@" &
sweep=$!
steps+=("$sweep")
wait "$sweep"
