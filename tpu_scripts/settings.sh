# shellcheck shell=bash
# Sourced by the scripts here: takes the settings from the flags and the
# environment, leaves other arguments in `rest`, defines what the scripts share.

# shellcheck disable=SC2034  # the scripts use it
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

fail() {
  printf 'error: %s\n' "$1" >&2
  exit 2
}

# A script's help: the comment at its head, then the settings.
help() {
  sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"
  cat <<'END'
Settings, as flags or as environment variables (--name=a or NAME=a):
  --name=NAME        of the TPU; needed
  --zone=ZONE        needed, e.g. us-west4-a
  --project=PROJECT  default: gcloud's own
  --type=TYPE        default: v5litepod-8
  --version=VERSION  of the VM's software; default: v2-alpha-tpuv5-lite
  --spot             SPOT=1: cheap, and may be taken away at any moment
  --queued           QUEUED=1: wait in line for it, as a queued resource
  --bucket=BUCKET    is mounted as the folder `bucket` of the VM's copy
  --worker=WORKER    of which `logs` tells: 0, 1, … or all; default: 0
  --dry-run          print the exact commands, run nothing
CREATE_FLAGS         further flags of gcloud's create, e.g. --network=a
PAUSE, RETRIES       seconds between two looks or tries (30); tries in a row on
                     a healthy TPU that may fail within ten minutes (10)
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

# The words of a command as a shell reads them back, whatever is in them.
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

# Shows a command and runs it; under --dry-run, only shows it.
call() {
  if [[ -n $DRY_RUN ]]; then
    quoted "$@"
  else
    printf '+ %s\n' "$(quoted "$@")" >&2
    "$@"
  fi
}

# on_workers WORKERS COMMAND: runs it on them; gcloud exits with its code.
on_workers() {
  call gcloud compute tpus tpu-vm ssh "$NAME" "${where[@]}" \
    --worker="$1" --command="$2"
}

# state KIND FIELD: what gcloud says of it; GONE where there is none, UNKNOWN
# (and why, on stderr) where gcloud cannot say.
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
