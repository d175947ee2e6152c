#!/usr/bin/env bash
# Everything that only a GPU can show, in five minutes, without a network:
#
#     bench/on_gpu.sh [--out DIR] [--seconds N] [--python PYTHON] [--only PART]... [--rehearse]
#
#   --out DIR        where logs and run files go [reports/gpu]; DIR/summary.txt is the summary, which is also printed last
#   --seconds N      time for all parts together [300]; parts that it does not reach are listed as not run: on an H200
#                    that is the last one, torch-compile, which takes minutes
#   --python PYTHON  interpreter with torch and what segcore needs [python3]; segcore itself is taken from this checkout
#   --only PART      run this part alone (repeatable); --help lists them
#   --rehearse       run all parts on the CPU with tiny networks, to see that they run; the figures mean nothing
#
# Each part has its own time limit. A part that fails or is cut off keeps what it has printed, and the next one runs.
# Exit code: 0 if every part that ran passed, 1 if one failed, 2 for wrong options or no GPU. No setting of the GPU is
# changed. onnxruntime's part needs onnxruntime-gpu, energy and clocks need nvidia-ml-py; without them they say so.
set -u
root=$(cd "$(dirname "$0")/.." && pwd)
out=$root/reports/gpu seconds=300 python=python3 device=cuda only=()
known="machine tests onnxruntime commands clocks bench pair forward compiled"

fail() { echo "on_gpu.sh: $1" >&2; exit 2; }
while [ $# -gt 0 ]; do
    case $1 in
        --out | --seconds | --python | --only)
            [ $# -gt 1 ] || fail "$1 wants a value"
            case $1 in
                --out) out=$2 ;;
                --seconds) seconds=$2 ;;
                --python) python=$2 ;;
                --only) case " $known " in *" $2 "*) only+=("$2") ;; *) fail "no part $2; there are: $known" ;; esac ;;
            esac
            shift ;;
        --rehearse) device=cpu ;;
        --help | -h) sed -n '2,/^set -u/s/^# \{0,1\}//p' "$0"; echo "parts: $known"; exit 0 ;;
        *) fail "unknown option $1; --help lists them" ;;
    esac
    shift
done
case $seconds in '' | *[!0-9]*) fail "--seconds $seconds: wanted a whole number" ;; esac
mkdir -p "$out" || fail "cannot write $out"
out=$(cd "$out" && pwd)
cd "$root" || exit 2
export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1 COLUMNS=150
export SEGCORE_CACHE=${SEGCORE_CACHE:-$out/cache} SEGCORE_TEST_DEVICE=$device
"$python" -c 'import segcore.inference.pipeline' || fail "$python cannot import segcore: install what is missing"
if [ $device = cuda ]; then
    "$python" -c 'import torch, sys; sys.exit(not torch.cuda.is_available())' || fail "torch finds no GPU; --rehearse runs on the CPU"
fi

# Without an installed segcore, pytest does not find its plugin.
found='import sys, importlib.metadata as m; sys.exit("segcore" not in m.entry_points(group="pytest11").names)'
plugin=$("$python" -c "$found" || echo "-p segcore.pytest_plugin")

rm -f "$out"/*.log "$out"/summary.txt
began=$SECONDS

part() { # NAME LIMIT COMMAND: run a part, at most LIMIT seconds of it
    local name=$1 limit=$2 left=$((seconds - (SECONDS - began))) start=$SECONDS code
    shift 2
    if [ ${#only[@]} -gt 0 ]; then case " ${only[*]} " in *" $name "*) ;; *) return ;; esac; fi
    if [ $left -lt 10 ]; then
        echo "$name: not run, no time is left" >>"$out/summary.txt"
        return
    fi
    [ $left -lt "$limit" ] && limit=$left
    echo "== $name"
    timeout --kill-after=5 "$limit" "$@" >"$out/$name.log" 2>&1
    code=$?
    case $code in
        0) echo "$name: passed in $((SECONDS - start)) s" >>"$out/summary.txt" ;;
        124 | 137) echo "$name: CUT OFF after $((SECONDS - start)) s" >>"$out/summary.txt" ;;
        *) echo "$name: FAILED ($code) after $((SECONDS - start)) s" >>"$out/summary.txt" ;;
    esac
}

segcore() { "$python" -m segcore "$@"; }
bench() { # NAME OPTIONS: a bench run that is kept as NAME.json
    local name=$1
    shift
    "$python" -m pytest bench $plugin -q -W default -k chelsea -p no:cacheprovider --segcore-device $device --segcore-offline \
        --segcore-size $size --benchmark-json "$out/$name.json" --segcore-wait 0 --benchmark-max-time $time "$@"
}
each() { # COMMANDS: run all, fail if one does
    local code=0 command
    for command in "$@"; do
        echo "\$ $command"
        $command || code=1
    done
    return $code
}
export -f segcore bench each
if [ $device = cuda ]; then
    size=640 time=0.3 networks="--segcore-model embedded --segcore-model fcn_resnet101" batch=8
    precisions="--segcore-precision fp32 --segcore-precision bf16 --segcore-precision fp16"
    graphs="--segcore-runtime torch-graphs" rounds=20 fcn="--model fcn_resnet101" processes=3 compiled=--compiled
else
    size=64 time=0.01 networks="--segcore-model embedded --segcore-model lraspp_mobilenet_v3_large" batch=2
    precisions="--segcore-precision fp32" graphs="" rounds=2 fcn="--model lraspp_mobilenet_v3_large" processes=2
    compiled=
fi
export python plugin out device size time
gpu="$python bench/performance/gpu.py --device $device --rounds $rounds --batch 1 --batch $batch"

gpu_one="$python bench/performance/gpu.py --device $device --rounds $rounds --batch 1 --size $size"

machine() {
    nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm,power.limit --format=csv,noheader
    each "segcore devices" "segcore runtimes --device $device"
}
commands() {
    local photo=skimage:chelsea.png
    photo=$("$python" -c 'import skimage, pathlib; print(pathlib.Path(skimage.__file__).parent / "data" / "chelsea.png")')
    each "segcore segment $photo --model embedded --device $device --size $size --profile --out $out/segmented" \
        "segcore best --model embedded --device $device --size $size --rounds 5 --runtime torch --runtime torch-graphs --precision fp32 --precision bf16"
}
pair() {
    local name code
    for name in first second; do
        bench $name --segcore-model embedded --segcore-batch 1 --segcore-precision fp32 --segcore-processes $processes || return 1
    done
    segcore gate "$out/first.json" "$out/second.json"
    code=$?
    [ $code = 0 ] || [ $code = 3 ] # two runs of the same code may be too few to be sure, but nothing has regressed
}
export -f machine commands pair
export gpu gpu_one compiled networks precisions graphs processes fcn

tests="$python -m pytest -q -W default -m cuda -p no:cacheprovider --durations=8 tests/inference/test_cuda.py tests/measurement/test_gpu.py"
export tests

# Nothing is timed in these.
part machine 60 bash -c machine &
part tests 90 $tests -k "not compile and not onnx and not tensorrt" &
part onnxruntime 90 $tests -k "onnx or tensorrt" &
part commands 90 bash -c commands &
wait
part clocks 100 bash -c 'each "$gpu --size $size --what peaks --what transfer --what stages" \
    "$gpu --what parity --size $((size / 2))"'
part bench 120 bash -c "bench run $networks $precisions --segcore-runtime torch $graphs --segcore-batch $batch --segcore-processes 1"
part pair 110 bash -c pair
part forward 60 bash -c 'each "$gpu --size $size --what forward" "$gpu --size $size --what stages --what forward $fcn --weights random"'
part compiled 300 bash -c 'each "$tests -k compile" "$gpu_one --what forward $compiled --precision fp32"'

for log in "$out"/*.log; do
    echo
    echo "-- $(basename "$log" .log)"
    tail -n 60 "$log"
done
echo
cat "$out/summary.txt"
! grep -qE "FAILED|CUT OFF" "$out/summary.txt"
