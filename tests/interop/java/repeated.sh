# Requests that name an element more than once, asked of a running Apache Kafka 3.9 and of ringlog alike. Sourced by
# scripts/interop after exchange.sh; uses its functions.

repeated() {
  local exchange=$work/repeated data=$work/repeated/data
  mkdir -p "$exchange/ringlog"
  # ZooKeeper begins with the cluster id of a ringlog.
  start_broker repeated && stop_broker && start_kafka repeated && start_broker repeated/ringlog || return 1
  java_run Repeated "$bootstrap" "$kafka" || return 1
  if java_run Repeated "$bootstrap" "$kafka" planted >"$exchange/planted" || ! grep -q '^FAILED planted' "$exchange/planted"; then
    echo "another question goes unnoticed"
    return 1
  fi
  end_jvm repeated TERM
  end_jvm zoo-repeated KILL
  stop_broker
}
