# ringlog's own tools against Apache Kafka 3.9 and against ringlog, and Kafka's own beside those that go by their names: the
# same commands, the same answers but for ids, ports, directories, durations and the words of refusals, whose codes are
# compared. Sourced by scripts/interop; uses its work, HERE, RINGLOG and start_broker, TOOLS of tools.sh, and java_run,
# start_kafka and end_jvm of exchange.sh.

# Runs a command, again and again until it prints a pattern, five seconds at most: Kafka follows a changed setting of a
# broker a moment later.
settled() {
  local pattern=$1 deadline=$((SECONDS + 5)) said
  shift
  until said=$("$@") && grep -q -E -- "$pattern" <<<"$said" || ((SECONDS > deadline)); do
    sleep 0.1
  done
  echo "$said"
}

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
  settled log.cleaner.threads step config get --broker-default
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

# The tools by Kafka's names, and Kafka's own.
people_ours() { "$RINGLOG" kafka "$@"; }
people_theirs() {
  local class
  case $1 in
    topics) class=$TOOLS.TopicCommand ;;
    configs) class=kafka.admin.ConfigCommand ;;
    console-producer) class=kafka.tools.ConsoleProducer ;;
    console-consumer) class=$TOOLS.consumer.ConsoleConsumer ;;
    get-offsets) class=$TOOLS.GetOffsetShell ;;
    delete-records) class=$TOOLS.DeleteRecordsCommand ;;
    log-dirs) class=$TOOLS.LogDirsCommand ;;
    producer-perf-test) class=$TOOLS.ProducerPerformance ;;
    consumer-perf-test) class=$TOOLS.ConsumerPerformance ;;
  esac
  shift
  java_run "$class" "$@"
}

# What people_ours or people_theirs prints against one broker; of the performance tests how many records, not how fast.
people_by_kafkas_names() {
  local tools=$1 to=$2 offsets=$work/people/offsets.json number='-?[0-9]+([.,:-][0-9]+)*'
  named() {
    echo "\$ kafka $*"
    "$tools" "$@" --bootstrap-server "$to" 2>&1
    echo "exit $?"
  }
  named topics --create --topic kt --partitions 2 --replication-factor 1 --config max.message.bytes=4000
  named topics --create --topic kt
  named topics --create --topic kt --if-not-exists
  named topics --create --topic k.u --partitions 1
  named topics --create --topic kt2 --replication-factor 9
  named topics --create --topic 'no name'
  named topics --create --topic kt2 --config retention.sm=1
  named topics --create --topic kt2 --partitions 0
  named topics --create --topic kt3 --replica-assignment 1,1
  named topics --create --topic kt4 --replica-assignment 1:1
  named topics --create --topic kt4 --replica-assignment 1,1 --partitions 2
  named topics --create
  named topics --alter --topic kt --partitions 3
  named topics --alter --topic kt --partitions 1
  named topics --alter --topic none-such --partitions 3
  named topics --alter --topic kt --config retention.ms=1
  named topics --describe --topic kt
  named topics --describe --topic none-such
  named topics --describe --topic none-such --if-exists
  named topics --describe --under-replicated-partitions
  named topics --describe --at-min-isr-partitions --topic kt
  named topics --describe --unavailable-partitions
  named topics --describe --topics-with-overrides --topic kt
  named topics --list
  named topics --list --topic 'k.*'
  named topics --delete --topic none-such
  named topics --delete --topic kt3
  named topics --list --exclude-internal
  named topics
  named configs --entity-type topics --entity-name kt --alter --add-config max.message.bytes=900000
  named configs --entity-type topics --entity-name kt --alter --add-config 'cleanup.policy=[compact,delete],retention.ms=100000000000'
  named configs --entity-type topics --entity-name kt --alter --add-config retention.ms=soon
  named configs --entity-type topics --entity-name kt --describe
  named configs --topic kt --describe --all
  named configs --entity-type topics --describe
  named configs --topic kt --alter --delete-config cleanup.policy,retention.ms
  named configs --topic kt --alter --delete-config cleanup.policy
  named configs --topic none-such --alter --add-config retention.ms=1
  named configs --broker 1 --describe
  named configs --broker 1 --alter --add-config log.cleaner.threads=2
  settled '=2 sensitive' named configs --broker 1 --describe
  named configs --broker 1 --alter --delete-config log.cleaner.threads
  named configs --entity-type brokers --entity-default --alter --add-config log.cleaner.threads=2
  settled =2 named configs --broker-defaults --describe
  named configs --broker-defaults --alter --delete-config log.cleaner.threads
  named configs --broker 1 --alter --add-config broker.id=7
  named configs --broker one --describe
  named configs --describe
  printf 'a:1\nb:2\nc:3\nd:NIL\n' |
    named console-producer --topic kt --property parse.key=true --property key.separator=: --property null.marker=NIL
  printf 'h:1,i:2\tk\tv\n' | named console-producer --topic k.u --property parse.key=true --property parse.headers=true
  printf 'no key\n' | named console-producer --topic kt --property parse.key=true --property key.separator=:
  printf 'x\n' | named console-producer --topic k.u --compression-codec
  printf 'x\n' | named console-producer --topic k.u --compression-codec lz5
  printf 'x\n' |
    named console-producer --topic k.u --request-required-acks 1 --sync --producer-property linger.ms=5
  named console-consumer --topic k.u --partition 0 --offset earliest --max-messages 3 --property print.key=true \
    --property print.partition=true --property print.offset=true --property print.headers=true
  named console-consumer --topic k.u --partition 0 --from-beginning --max-messages 2 --property print.value=false \
    --property print.key=true --property null.literal=NONE --property 'key.separator=|'
  named console-consumer --topic k.u --partition 0 --offset 1 --timeout-ms 2000
  named console-consumer --topic k.u --partition 0 --offset -1 --timeout-ms 2000
  named console-consumer --topic k.u --partition 0 --offset soon --timeout-ms 2000
  named console-consumer --topic k.u --offset 1 --timeout-ms 2000
  named console-consumer --partition 0 --timeout-ms 2000
  named get-offsets
  named get-offsets --topic kt --time earliest
  named get-offsets --topic k.u --time -3 --partitions 0,2
  named get-offsets --topic kt --time 1
  named get-offsets --topic-partitions 'kt:0-2,k.u'
  named get-offsets --topic none-such
  named get-offsets --topic kt --time soon
  printf '{"partitions":[{"topic":"kt","partition":1,"offset":-1}],"version":1}' >"$offsets"
  named delete-records --offset-json-file "$offsets"
  printf '{"partitions":[{"topic":"kt"}]}' >"$offsets"
  named delete-records --offset-json-file "$offsets"
  named delete-records --offset-json-file "$work/people/none.json"
  # A broker lists partitions in any order.
  named log-dirs --describe --topic-list k.u | sed -E -e 's/"size":[0-9]+/"size":N/g' -e 's/(logDir":)"[^"]*"/\1DIR/'
  named log-dirs --describe --topic-list kt | grep -o '"partition":"kt-[0-9]"' | sort
  named log-dirs --describe --topic-list kt --broker-list 1,7
  performs() {
    echo "\$ kafka $*"
    "$tools" "$@" 2>&1 | sed -E "s/$number/N/g" | uniq
    echo "exit ${PIPESTATUS[0]}"
  }
  performs producer-perf-test --topic k.u --num-records 2000 --record-size 100 --throughput -1 \
    --producer-props "bootstrap.servers=$to"
  performs producer-perf-test --topic k.u --num-records 200 --record-size 100 --throughput 1000 \
    --producer-props "bootstrap.servers=$to" acks=1 compression.type=lz4
  named get-offsets --topic k.u
  performs consumer-perf-test --topic k.u --messages 2000 --bootstrap-server "$to"
  performs consumer-perf-test --topic k.u --messages 9000 --bootstrap-server "$to" --timeout 2000
  performs consumer-perf-test --topic k.u --messages 2000 --bootstrap-server "$to" --hide-header
  performs consumer-perf-test --topic k.u --messages 2000 --bootstrap-server "$to" --show-detailed-stats \
    --reporting-interval 1
}

# The load generator: how many records, not how fast.
people_bench() {
  echo "\$ ringlog bench end-to-end"
  "$RINGLOG" bench end-to-end -b "$1" --records 5000 --rate 5000 --warm-up 0s --check -q 2>&1 | grep -o 'Checked: 5,000 records'
}

# Ids are 22 letters of base64; Kafka's tool lists a topic's settings in the order of a hash table; the rest is as it says.
people_mask() {
  sed -E -e "s/$1/HOST:PORT/g" -e 's/ in [0-9.]+ s \(.*\/s\)/ in TIME/' -e 's/^(ringlog: |Error while executing [a-z]+ command : |topic ).*(\([A-Z_]+\))/\1\2/' \
    -e '/\([A-Z_]+\)$/!s/^(Error while executing topic command : ).*/\1/' \
    -e 's/(id +|"id":"|TopicId: )[A-Za-z0-9_-]{22}/\1ID/g' \
    -e 's/(Configs: )(retention.ms=-1),(max.message.bytes=.*)/\1\3,\2/' -e '/^SLF4J/d'
}

# Without the words of commands that failed: Kafka's are traces of its stack.
people_outcomes() {
  awk '/^\$ / { body = "" } { body = body $0 "\n" } /^exit 0$/ { printf "%s", body } /^exit [1-9]/ { split(body, lines, "\n"); print lines[1]; print }' "$1"
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

people_compare() {
  people_agree "$1" "$2" && return 0
  echo "$3:"
  head -n 40 "$exchange/diff"
  return 1
}

# Starts a Kafka without topics. The ZooKeeper of these tests begins with what a ringlog has left: here a cluster id.
people_kafka() {
  data=$exchange/$1-data/data
  mkdir -p "$exchange/$1-data"
  start_broker "people/$1-data" && stop_broker && start_kafka "$1"
}

people_end_kafka() {
  end_jvm "$1" KILL
  end_jvm "zoo-$1" KILL
}

# Whether a command prints a line of this pattern; counted, and told if not.
people_expect() {
  local pattern=$1 said
  shift
  said=$("$RINGLOG" "$@" -b "$kafka" --timeout 60s 2>&1)
  people_checks=$((people_checks + 1))
  grep -q -E -- "$pattern" <<<"$said" && return 0
  echo "FAILED ringlog $*: no line is like $pattern in:"
  head -n 10 <<<"$said"
  return 1
}

# Two Kafkas, of which one dies under a producer: the tools find every leader, and the new ones, and each record is there once.
people_cluster() {
  local properties=$exchange/other.properties deadline ended people_checks=0 limit_s=30
  people_kafka one || return 1
  mkdir -p "$exchange/other-data"
  sed -e 's/^broker.id=.*/broker.id=2/' -e "s|^log.dirs=.*|log.dirs=$exchange/other-data|" "$exchange/one.properties" \
    >"$properties"
  start_jvm other '^INFO \[KafkaServer id=2\] started' kafka.Kafka "$properties" || return 1
  people_expect '^ +2 +127.0.0.1:' cluster info &&
    people_expect "^log.dirs +$exchange/other-data +STATIC_BROKER_CONFIG" config get --broker 2 log.dirs &&
    people_expect '4 partitions x 2 replicas' topic create both -p 4 -r 2 &&
    people_expect '^ +[0-3] +2 +0 +2,1 +2,1 ' topic describe both &&
    people_expect 'Checked: 5,000 records .* none lost, none twice' \
      bench end-to-end --topic both --clients 2 --records 5000 --rate 5000 --warm-up 0s --check -q &&
    people_expect '^both +3 +1$' records delete -t both --before 1 &&
    people_expect '4 partitions x 2 replicas' topic create survives -p 4 -r 2 || return 1
  for ((thousand = 0; thousand < 60; thousand++)); do
    seq $((thousand * 1000)) $((thousand * 1000 + 999)) | sed 's/.*/&:&/'
    sleep 0.05
  done | "$RINGLOG" produce survives -K : -b "$kafka" --timeout 60s >"$exchange/survives" 2>&1 &
  ended=$! deadline=$((SECONDS + limit_s))
  until (($("$RINGLOG" offsets survives -b "$kafka" | awk '/^survives/ { sum += $4 } END { print sum + 0 }') > 5000)); do
    if ((SECONDS > deadline)); then
      echo "nothing is produced: $(cat "$exchange/survives")"
      return 1
    fi
    sleep 0.1
  done
  end_jvm other KILL
  wait "$ended"
  cat "$exchange/survives"
  people_expect '^ +[0-3] +1 +1 +2,1 +1 ' topic describe survives && grep -q -E 'sent 60000 records.*retries' "$exchange/survives" &&
    "$RINGLOG" consume survives -e -q -f '%s\n' -b "$kafka" | sort -n | cmp - <(seq 0 59999) || return 1
  people_end_kafka one
  echo "people: $people_checks checks of the tools on two Kafkas; one died under a producer, whose records are all there, once"
}

people() {
  exchange=$work/people
  mkdir -p "$exchange"
  local kafkas=$exchange/kafkas-tools named=$exchange/our-tools-by-name theirs=$exchange/kafka ours=$exchange/ringlog
  people_kafka first || return 1
  people_by_kafkas_names people_theirs "$kafka" 2>&1 | people_mask "$kafka" >"$kafkas"
  people_end_kafka first
  people_kafka second || return 1
  people_by_kafkas_names people_ours "$kafka" 2>&1 | people_mask "$kafka" >"$named"
  { people_steps "$kafka"; people_bench "$kafka"; } 2>&1 | people_mask "$kafka" | cat "$named" - >"$theirs"
  people_end_kafka second
  # Kafka's defaults, where our own differ for one node.
  start_broker people --set log.retention.ms=-1 || return 1
  { people_by_kafkas_names people_ours "$bootstrap"; people_steps "$bootstrap"; people_bench "$bootstrap"; } 2>&1 |
    people_mask "$bootstrap" >"$ours"
  stop_broker || return 1
  people_outcomes "$kafkas" >"$kafkas.outcomes"
  people_outcomes "$named" >"$named.outcomes"
  people_compare "$kafkas.outcomes" "$named.outcomes" "Kafka's tools (<) differ from those of the same names here (>)" &&
    people_compare "$theirs" "$ours" "the tools differ between Kafka (<) and ringlog (>)" &&
    people_notice "$theirs" "$ours" || return 1
  echo "people: $(grep -c '^\$ ' "$kafkas") commands, the same by Kafka's tools and by ours;" \
    "$(grep -c '^\$ ' "$ours"), the same against Kafka 3.9 and ringlog"
  people_cluster
}
