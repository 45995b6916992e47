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
  people_by_kafkas_names "$to"
}

# The same for the tools that go by Kafka's names, and for the load generator: how many records, not how fast.
people_by_kafkas_names() {
  local to=$1 figures='s/[0-9]+([.,:-][0-9]+)*/N/g'
  named() {
    echo "\$ ringlog kafka $*"
    "$RINGLOG" kafka "$@" --bootstrap-server "$to" 2>&1
    echo "exit $?"
  }
  named topics --create --topic kt --partitions 2 --replication-factor 1 --config max.message.bytes=4000
  named topics --create --topic kt
  named topics --alter --topic kt --partitions 3
  named topics --alter --topic kt --partitions 1
  named topics --describe --topic kt
  named topics --describe --topic none-such
  named topics --list
  named configs --entity-type topics --entity-name kt --alter --add-config max.message.bytes=3000
  named configs --entity-type topics --entity-name kt --alter --add-config retention.ms=soon
  named configs --entity-type topics --entity-name kt --describe
  printf 'a:1\nb:2\nc:3\n' |
    named console-producer --topic kt --property parse.key=true --property key.separator=:
  named console-consumer --topic kt --from-beginning --max-messages 3 --property print.key=true \
    --property print.partition=true --property print.offset=true
  named get-offsets --topic kt
  named get-offsets --topic kt --time earliest
  printf '{"partitions":[{"topic":"kt","partition":0,"offset":-1}],"version":1}' >"$work/people/delete.json"
  named delete-records --offset-json-file "$work/people/delete.json"
  named log-dirs --describe --topic-list kt | grep -o '"partition":"kt-[0-9]"' | sort
  echo "\$ ringlog kafka producer-perf-test"
  "$RINGLOG" kafka producer-perf-test --topic kt --num-records 2000 --record-size 100 --throughput -1 \
    --producer-props "bootstrap.servers=$to" 2>&1 | tail -n 1 | sed -E "$figures"
  named consumer-perf-test --topic kt --messages 2000 | sed -E "$figures"
  named get-offsets --topic kt | awk -F: '/^kt/ { records += $3 } /^exit/ { print records, $0 }'
  echo "\$ ringlog bench end-to-end"
  "$RINGLOG" bench end-to-end -b "$to" --records 5000 --rate 5000 --warm-up 0s --check -q 2>&1 | grep -o 'Checked: 5,000 records'
}

# Ids are 22 letters of base64; the rest is as it says.
people_mask() {
  sed -E -e "s/$1/HOST:PORT/g" -e 's/ in [0-9.]+ s \(.*\/s\)/ in TIME/' -e 's/^(ringlog: |Error while executing [a-z]+ command : |topic ).*(\([A-Z_]+\))/\1\2/' \
    -e 's/(id +|"id":"|TopicId: )[A-Za-z0-9_-]{22}/\1ID/'
}

people_agree() {
  diff "$1" "$2" >"$exchange/diff"
}

# And they would not agree if an answer were wrong: a record's value, an exit code, a line too few.
people_notice() {
  local planted wrong=$exchange/planted
  for planted in '0,/"value":"1"/s//"value":"9"/' '0,/^exit 1$/s//exit 0/' '$d'; do
    sed "$planted" "$1" >"$wrong"
    if cmp -s "$1" "$wrong"; then
      echo "planted nothing: $planted"
      return 1
    fi
    if people_agree "$wrong" "$2"; then
      echo "a wrong answer goes unnoticed: $planted"
      return 1
    fi
    echo "  and notices a wrong answer: $planted"
  done
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
  if ! people_agree "$theirs" "$ours"; then
    echo "the tools differ between Kafka (<) and ringlog (>):"
    head -n 40 "$exchange/diff"
    return 1
  fi
  people_notice "$theirs" "$ours" || return 1
  echo "people: $(grep -c '^\$ ' "$ours") commands, the same against Kafka 3.9 and ringlog"
}
