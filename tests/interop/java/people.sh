# ringlog's own tools against Apache Kafka 3.9 and against ringlog: the same commands, the same answers but for ids, ports,
# directories, durations and the words of refusals, whose codes are compared. Sourced by scripts/interop; uses its work,
# HERE, RINGLOG and start_broker, and start_kafka and end_jvm of exchange.sh.

# What is printed and how it ends, by every tool, against one broker.
people_steps() {
  local to=$1 codec
  step() {
    echo "\$ ringlog $*"
    "$RINGLOG" "$@" -b "$to" --timeout 30s 2>&1
    echo "exit $?"
  }
  step topic create orders -p 3 -r 1 -c retention.ms=-1
  step topic create orders
  step topic create 'no name'
  step topic create many -r 9
  step topic list
  step topic list --json
  step topic describe orders
  step topic describe oders
  printf 'a:1\nb:2\nc:NIL\n' | step produce orders -K : --null NIL -H h=1 --timestamp 2026-01-31T12:00Z
  step consume orders -e -f '%t %p %o %T %k %s %h\n' --null NIL
  step consume orders -e --json
  step consume orders -p 0 -o 99
  step consume orders -e --isolation read_committed -q
  for codec in none gzip:1 snappy lz4:9 zstd:1; do
    step topic create "${codec%:*}"
    seq 1 5000 | step produce "${codec%:*}" -z "$codec" --timestamp 1700000000000
    step consume "${codec%:*}" -o -3 -e --json
  done
  step produce none --acks 1 --whole -k key "$HERE/java/people.sh"
  step consume none -o -1 -e -f '%k %S\n'
  step offsets
  step offsets none gzip --at 1 --json
  step offsets none --at 2023-11-14T22:13:20Z
  step topic add-partitions orders --to 5
  step topic add-partitions orders --to 2
  step topic alter orders --set max.message.bytes=5000 --unset retention.ms
  step config get --topic orders
  step config set --topic orders cleanup.policy=delete --append cleanup.policy=compact
  step config get --topic orders --json
  step config get --topic orders retention.sm
  step config set --topic orders retention.ms=soon
  step config set --broker-default log.cleaner.threads=2
  step config get --broker-default
  step config set --broker-default --delete log.cleaner.threads
  step config get --broker 77
  head -c 9000 /dev/zero | tr '\0' x | step produce orders --whole
  step records delete -t none --before 100
  step records delete -t none --before @2024-01-01
  step records delete -t gzip --before all
  step records delete -t gzip --before 99999999
  step consume none -o 5 -c 1
  step topic describe none --json
  step topic delete none gzip nothing
  step topic list
  "$RINGLOG" cluster info --versions -b "$to" >/dev/null || echo "cluster info failed"
}

# Ids are 22 letters of base64; the rest is as it says.
people_mask() {
  sed -E -e "s/$1/HOST:PORT/g" -e 's/ in [0-9.]+ s \(.*\/s\)/ in TIME/' -e 's/^(ringlog: ).*(\([A-Z_]+\))/\1\2/' \
    -e 's/(id +|"id":")[A-Za-z0-9_-]{22}/\1ID/'
}

people() {
  local theirs=$work/people/kafka ours=$work/people/ringlog
  exchange=$work/people
  data=$exchange/first/data
  mkdir -p "$exchange/first"
  # The ZooKeeper of these tests begins with what a ringlog has left: here nothing but a cluster id.
  start_broker people/first && stop_broker && start_kafka people || return 1
  people_steps "$kafka" 2>&1 | people_mask "$kafka" >"$theirs"
  end_jvm people KILL
  end_jvm zoo-people KILL
  # Kafka's defaults, where our own differ for one node.
  start_broker people --set log.retention.ms=-1 || return 1
  people_steps "$bootstrap" 2>&1 | people_mask "$bootstrap" >"$ours"
  stop_broker || return 1
  if ! diff "$theirs" "$ours" >"$exchange/diff"; then
    echo "the tools differ between Kafka (<) and ringlog (>):"
    head -n 40 "$exchange/diff"
    return 1
  fi
  echo "people: $(grep -c '^\$ ' "$ours") commands, the same against Kafka 3.9 and ringlog"
}
