#!/usr/bin/env bash
# Kafka's start script over `ringlog serve`:
#   kafka-server-start.sh [-daemon] server.properties [--override name=value]... [ringlog's own flags]
# With -daemon the broker goes on in the background, its output in $LOG_DIR/kafkaServer.out (LOG_DIR: logs beside scripts).
# $LOG_DIR/kafkaServer.pid is what kafka-server-stop.sh ends.
set -euo pipefail

usage() {
    echo "USAGE: $0 [-daemon] server.properties [--override property=value]* [flags of 'ringlog serve']" >&2
    exit 1
}

here=$(dirname "$(readlink -f "$0")")
built=$here/../target/release/ringlog
ringlog=${RINGLOG:-$([[ -x $built ]] && echo "$built" || echo ringlog)}
LOG_DIR=${LOG_DIR:-$here/../logs}
readonly START_LIMIT_S=5

daemon=no
if [[ ${1-} == -daemon ]]; then
    daemon=yes
    shift
fi
[[ $# -gt 0 && $1 != -* ]] || usage
flags=(serve --config "$1")
shift
while [[ $# -gt 0 ]]; do
    if [[ $1 == --override ]]; then
        [[ ${2-} == *=* ]] || usage
        flags+=(--set "$2")
        shift
    else
        flags+=("$1")
    fi
    shift
done

mkdir -p "$LOG_DIR"
pid_file=$LOG_DIR/kafkaServer.pid
output=$LOG_DIR/kafkaServer.out
if [[ $daemon == no ]]; then
    echo $$ >"$pid_file"
    exec "$ringlog" "${flags[@]}"
fi
nohup "$ringlog" "${flags[@]}" >"$output" 2>&1 </dev/null &
pid=$!
echo "$pid" >"$pid_file"
# A wrong setting should be told here, and not only in the file.
deadline=$((SECONDS + START_LIMIT_S))
until grep -q ' serves ' "$output"; do
    if ! kill -0 "$pid" 2>/dev/null; then
        rm -f "$pid_file"
        cat "$output" >&2
        exit 1
    fi
    if ((SECONDS >= deadline)); then
        echo "the broker is still starting; see $output" >&2
        break
    fi
    sleep 0.05
done
