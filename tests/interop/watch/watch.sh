# What scripts/interop does in its stage watch: Prometheus' and Grafana's own code over a broker's metrics, and over the
# dashboard and the alerts of ops/.

readonly WATCH_PLANTED=14

watch_fetch() {
  need go &&
    cp "$HERE"/watch/*.go "$HERE"/watch/go.* "$work/watch/" &&
    fetch go -C "$work/watch" mod download
}

watch_run() { client "$work/watch/watch" "$RINGLOG" "$bootstrap" "$admin/metrics" ops "$@"; }

watch_check() {
  local admin found log=$work/watch/planted
  client go -C "$work/watch" build -o watch . || return 1
  # Flushed now and then: in page-cache mode a log that is appended to is not, and there would be no flush to draw.
  start_broker watch --admin-listen 127.0.0.1:0 --set auto.create.topics.enable=false --set log.flush.interval.ms=500 ||
    return 1
  admin=$(sed -n 's|^ *admin *\(http://[0-9.:]*\)/metrics.*|\1|p' "$work/watch/banner")
  watch_run || return 1
  if watch_run planted >"$log"; then
    echo "the planted faults went unnoticed"
    return 1
  fi
  found=$(grep -c '^FAILED planted' "$log")
  if ((found != WATCH_PLANTED)); then
    echo "$found of $WATCH_PLANTED planted faults were caught:"
    cat "$log"
    return 1
  fi
  echo "watch: caught $found planted faults"
}
