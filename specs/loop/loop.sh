#!/bin/sh
# An agent works, a rule reviews what it did, a model learns from that, and the agent works again: README.md.
#
#     sh specs/loop/loop.sh FOLDER [SPEC [--set ...]]
#
# FOLDER must be new; everything is written there. Run it at the root of the repository, with Atlas on the PATH.
set -eu
folder=$1
spec=${2:-specs/loop/sft.yaml}
shift $(($# < 2 ? $# : 2))

mkdir -p "$(dirname "$folder")"
mkdir "$folder" || { echo "everything is written to a folder of its own: name a new one, or remove $folder" >&2; exit 2; }
folder=$(cd "$folder" && pwd)
export ATLAS_HOME="$folder/home" ATLAS_TRACES="$folder/traces"
export OMP_NUM_THREADS=1 # more threads make models this small slower
here=specs/loop
student=specs/quickstart/student

run() {
    printf '\n$ %s\n' "$*"
    "$@"
}

# 1. The agent works.
run python $here/tasks.py "$folder" --practice "${PRACTICE_TASKS:-200}" --fresh "${FRESH_TASKS:-200}"
run python $here/agent.py "$folder/practice.jsonl" --model $student --tag practice
run atlas traces import "$ATLAS_TRACES"

# 2. Rules review. The second lets methods ask these tasks again; no text of a failed attempt is ever imitated.
run atlas traces approve --tag practice --scorer answer --outcome passed --by rule:answer-passed
run atlas traces approve --tag practice --scorer answer --outcome failed --by rule:ask-again

# 3. The model learns.
run atlas submit "$spec" "$@"
trained=$(atlas ls --limit 1 --json | python -c 'import json, sys; print(json.load(sys.stdin)[0]["run_dir"])')/checkpoints/final

# 4. The agent works on fresh tasks, with the old weights and with the new ones.
run python $here/agent.py "$folder/fresh.jsonl" --model $student --tag fresh --tag before
run python $here/agent.py "$folder/fresh.jsonl" --model "$trained" --tag fresh --tag after
run atlas traces import "$ATLAS_TRACES"
run atlas traces quarantine --tag fresh --by rule:measured-on
run python $here/compare.py before after

cat <<END

Look at the sessions:    ATLAS_HOME=$ATLAS_HOME atlas dashboard
then, in the browser:    http://localhost:8501/traces?tag=after&scorer=unaided&outcome=failed
The trained model:       $trained
END
