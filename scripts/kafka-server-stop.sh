#!/usr/bin/env bash
# Kafka's stop script: asks the broker that kafka-server-start.sh started with the same LOG_DIR to stop in order (SIGTERM).
# It does not wait until that is done, as Kafka's does not. Unlike Kafka's it ends no other broker of the machine.
set -euo pipefail

here=$(dirname "$(readlink -f "$0")")
LOG_DIR=${LOG_DIR:-$here/../logs}
pid_file=$LOG_DIR/kafkaServer.pid

pid=$(cat "$pid_file" 2>/dev/null || true)
# The number may be another process's by now.
if [[ ! $pid =~ ^[0-9]+$ ]] || ! tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" | grep -q 'ringlog.* serve --config '; then
    echo "No kafka server to stop" >&2
    echo "(none was started by kafka-server-start.sh with LOG_DIR=$LOG_DIR)" >&2
    exit 1
fi
kill -s "${SIGNAL:-TERM}" "$pid"
rm -f "$pid_file"
