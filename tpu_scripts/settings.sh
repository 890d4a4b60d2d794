# shellcheck shell=bash
# Sourced by the scripts here. Reads the settings from the flags and the
# environment, puts all other arguments into `rest`, and defines shared
# functions.

# shellcheck disable=SC2034  # the scripts use it
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

fail() {
  printf 'error: %s\n' "$1" >&2
  exit 2
}

# Prints a script's help: the comment at its top, then the settings.
help() {
  sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"
  cat <<'END'
Settings, as flags or as environment variables (--name=a or NAME=a):
  --name=NAME        name of the TPU; required
  --zone=ZONE        zone of the TPU, such as us-west4-a; required
  --project=PROJECT  Google Cloud project; default: gcloud's own setting
  --type=TYPE        accelerator type; default: v5litepod-8
  --version=VERSION  software version of the VM; default: v2-alpha-tpuv5-lite
  --spot             SPOT=1: use a spot VM, which is cheap but may be preempted
                     at any time
  --queued           QUEUED=1: request the TPU as a queued resource
  --bucket=BUCKET    bucket to mount as the folder `bucket` in the VM's copy of
                     Tessera; default: none
  --worker=WORKER    worker whose log `logs` shows: 0, 1, … or all; default: 0
  --dry-run          DRY_RUN=1: print the exact commands without running them
CREATE_FLAGS         additional flags of gcloud's create, such as --network=a
PAUSE                seconds between two status checks or attempts; default: 30
RETRIES              `run` gives up after this many failures in a row on a
                     healthy TPU, each within ten minutes; default: 10
END
  exit
}

rest=()
while (($#)); do
  case $1 in
    --help) help ;;
    --dry-run) DRY_RUN=1 ;;
    --spot) SPOT=1 ;;
    --queued) QUEUED=1 ;;
    --name=* | --zone=* | --project=* | --type=* | --version=* | --bucket=* | \
      --worker=*)
      key=$(tr '[:lower:]' '[:upper:]' <<<"${1%%=*}")
      printf -v "${key#--}" %s "${1#*=}"
      ;;
    --)
      shift
      rest+=("$@")
      break
      ;;
    *) rest+=("$1") ;;
  esac
  shift
done
[[ -n ${NAME:-} ]] || fail "--name=NAME (or NAME=…) is missing; see --help"
[[ -n ${ZONE:-} ]] || fail "--zone=ZONE (or ZONE=…) is missing; see --help"
export NAME ZONE PROJECT=${PROJECT:-} BUCKET=${BUCKET:-}
export TYPE=${TYPE:-v5litepod-8} VERSION=${VERSION:-v2-alpha-tpuv5-lite}
export SPOT=${SPOT:-} QUEUED=${QUEUED:-} DRY_RUN=${DRY_RUN:-}
export PAUSE=${PAUSE:-30} RETRIES=${RETRIES:-10}
for key in SPOT QUEUED DRY_RUN; do
  [[ ${!key} != 0 ]] || printf -v "$key" ''
done
where=(--zone="$ZONE")
[[ -z $PROJECT ]] || where+=(--project="$PROJECT")

no_arguments() {
  ((${#rest[@]} == 0)) || fail "unknown argument ${rest[0]}; see --help"
}

# Quotes the words of a command for a shell, whatever characters they contain.
quoted() {
  local word line='' quote="'\\''"
  for word; do
    case $word in
      '' | *[!A-Za-z0-9_=./:@,+-]*) word="'${word//\'/$quote}'" ;;
    esac
    line+="${line:+ }$word"
  done
  printf '%s\n' "$line"
}

# Prints a command and runs it; with --dry-run, only prints it.
call() {
  if [[ -n $DRY_RUN ]]; then
    quoted "$@"
  else
    printf '+ %s\n' "$(quoted "$@")" >&2
    "$@"
  fi
}

# on_workers WORKERS COMMAND: runs a command on workers; gcloud returns its exit
# code.
on_workers() {
  call gcloud compute tpus tpu-vm ssh "$NAME" "${where[@]}" \
    --worker="$1" --command="$2"
}

# state KIND FIELD: prints the state that gcloud reports; GONE if the resource
# does not exist; UNKNOWN if gcloud fails, with the reason on stderr.
state() {
  local said
  if said=$(gcloud compute tpus "$1" describe "$NAME" "${where[@]}" \
    --format="value($2)" --verbosity=error 2>&1); then
    printf '%s\n' "$said"
  elif [[ $said == *NOT_FOUND* ]]; then
    echo GONE
  else
    printf '%s\n' "$said" >&2
    echo UNKNOWN
  fi
}
