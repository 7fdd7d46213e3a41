#!/usr/bin/env bash
# Six GPUs train, two draw. Not run here.
#   examples/launch_8b.sh examples/accelerate_fsdp.yaml PROMPTS.jsonl --k 8 --n 32
#   examples/launch_8b.sh examples/accelerate_deepspeed_zero3.yaml PROMPTS.jsonl --k 8 --n 32
set -euo pipefail
config=$1
shift
model=${MODEL:-Qwen/Qwen3-8B-Base}

CUDA_VISIBLE_DEVICES=6,7 VLLM_SERVER_DEV_MODE=1 vllm serve "$model" \
  --data-parallel-size 2 --max-model-len 4096 \
  --weight-transfer-config '{"backend": "nccl"}' \
  --logprobs-mode processed_logprobs --max-logprobs -1 &
server=$!
trap 'kill "$server"' EXIT
# The first start downloads and compiles: wait until the server answers, or is gone.
until curl --silent --fail --output /dev/null http://localhost:8000/health; do
  kill -0 "$server" || { echo "the vLLM server has ended: see its lines above" >&2; exit 1; }
  sleep 5
done

CUDA_VISIBLE_DEVICES=0,1,2,3,4,5 accelerate launch --config_file "$config" \
  examples/train_8b.py --model "$model" "$@"
