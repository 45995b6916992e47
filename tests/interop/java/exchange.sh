# ringlog and Apache Kafka 3.9 take turns on one log directory. Sourced by scripts/interop; uses its work, HERE, client,
# start_broker and stop_broker.
#
#   ringlog writes, stops        DumpLogSegments accepts every file; Kafka serves the records and writes more, stops
#   ringlog goes on              with its tree: the old topics with their new records; by --import: all of them; it
#                                writes, stops, and that Kafka comes back with its ZooKeeper: the topics this one knows
#   ringlog writes, is killed    Kafka serves the same records and writes more, is killed
#   ringlog --import             serves all of it
#
# Two never have it at once: a Kafka is refused while ringlog runs, and ringlog while a Kafka runs or closes its logs.
#
# Every JVM is small and short-lived, so it compiles with the first compiler only.

readonly JVM_LIMIT_S=60 KAFKA_STOP_LIMIT_S=30 TREE=ringlog-metadata.redb CLEAN=.kafka_cleanshutdown
readonly USED_BY_JVM='is in use by process [0-9]* (java), a ringlog or a Kafka'
declare -A jvm_pids=()

# Runs in a shell of its own; `lib` names other libraries than Kafka 3.9's.
java_command() {
  local level=$1
  shift
  exec java -Xmx512m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 "-Dinterop.level=$level" \
    "-Dlog4j.configuration=file:$HERE/java/log4j.properties" -cp "$work/maven/classes:${lib:-$work/maven/lib}/*" "$@"
}

# Runs a program to its end.
java_run() { (export -f java_command; export work HERE lib; client bash -c 'java_command OFF "$@"' java "$@"); }

# Starts one that stays, and waits for a line of its output.
start_jvm() {
  local name=$1 mark=$2 deadline=$((SECONDS + JVM_LIMIT_S))
  shift 2
  : >"$exchange/$name.log"
  (java_command INFO "$@") >"$exchange/$name.log" 2>&1 &
  jvm_pids[$name]=$!
  # Else bash would report its end by a signal.
  disown
  until grep -q -- "$mark" "$exchange/$name.log"; do
    if ! kill -0 "${jvm_pids[$name]}" 2>/dev/null || ((SECONDS > deadline)); then
      echo "$name does not start:"
      tail -n 20 "$exchange/$name.log"
      return 1
    fi
    sleep 0.1
  done
}

# Ends one by a signal; nothing but the exit is waited for.
end_jvm() {
  local name=$1 signal=$2 pid=${jvm_pids[$1]} deadline=$((SECONDS + KAFKA_STOP_LIMIT_S))
  # One that was asked to end before may have.
  kill "-$signal" "$pid" 2>/dev/null
  while kill -0 "$pid" 2>/dev/null; do
    if ((SECONDS > deadline)); then
      echo "$name does not end"
      kill -9 "$pid"
    fi
    sleep 0.1
  done
  unset "jvm_pids[$name]"
}

# A Kafka on $data, with a ZooKeeper that knows what ringlog left there, or is another Kafka's; `kafka_settings` has more
# lines for its file; sets `kafka`.
start_kafka() {
  local name=$1 zookeeper
  start_jvm "zoo-$name" '^zookeeper ' Zoo "$exchange/zoo-${2:-$name}" "$data" || return 1
  zookeeper=$(sed -n 's/^zookeeper //p' "$exchange/zoo-$name.log")
  cat >"$exchange/$name.properties" <<END
broker.id=1
listeners=PLAINTEXT://127.0.0.1:0
zookeeper.connect=$zookeeper
log.dirs=$data
log.retention.ms=-1
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=2
offsets.topic.num.partitions=2
group.initial.rebalance.delay.ms=0
${kafka_settings:-}
END
  start_jvm "$name" '^INFO \[KafkaServer id=1\] started' kafka.Kafka "$exchange/$name.properties" || return 1
  kafka=$(sed -n 's/.*Awaiting socket connections on \(127.0.0.1:[0-9]*\)\..*/\1/p' "$exchange/$name.log")
}

# Whether Kafka had anything to say against the directory: a warning of any part but its ZooKeeper client. One that is
# to be expected may be named.
check_complaints() {
  local found
  found=$(grep -E '^(WARN|ERROR|FATAL) ' "$exchange/$1.log" | grep -v -E "\((org\.apache|kafka)\.zookeeper\.${2:+|$2}")
  [[ -z $found ]] && return 0
  echo "$1 complains:"
  head -n 10 <<<"$found"
  return 1
}

same() {
  cmp -s "$1" "$2" && return 0
  echo "$1 and $2 differ:"
  diff -a "$1" "$2" | head -n 6 | cut -c 1-300
  return 1
}

# Exit code 1 if DumpLogSegments finds fault with a file of a directory, or leaves one out.
dump_segments() {
  local directory=$1 out=$exchange/dump-log-segments file fault=0
  local indexes logs
  mapfile -t logs < <(find "$directory" -type f \( -name '*.log' -o -name '*.index' -o -name '*.timeindex' \
    -o -name '*.txnindex' -o -name '*.snapshot' \))
  mapfile -t indexes < <(printf '%s\n' "${logs[@]}" | grep -E '\.(index|timeindex)$')
  dump_into "$out" --deep-iteration "${logs[@]}" || fault=1
  for file in "${logs[@]}"; do
    grep -q -F -x "Dumping $file" "$out" && continue
    echo "not dumped: $file"
    fault=1
  done
  grep -E 'isvalid: false|[Mm]ismatch|out of order|[Nn]on-consecutive|invalid bytes|corrupt|Exception' "$out" && fault=1
  ((fault)) && return 1
  dump_into "$out" --index-sanity-check "${indexes[@]}" || fault=1
  for file in "${indexes[@]}"; do
    [[ -s $file ]] || grep -q -F -x "$file is empty." "$out" && continue
    grep -q -F -x "$file passed sanity check." "$out" && continue
    echo "insane: $file"
    fault=1
  done
  return "$fault"
}

dump_into() {
  local out=$1 how=$2 IFS=,
  shift 2
  java_run kafka.tools.DumpLogSegments "$how" --files "$*" >"$out" 2>&1 && return 0
  grep -m 1 Exception "$out" || tail -n 1 "$out"
  return 1
}

# Flips the byte of a file at an offset.
flip() {
  local byte
  byte=$(od -An -tu1 -j "$2" -N 1 "$1")
  printf "\\x$(printf %x $((byte ^ 255)))" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}

# DumpLogSegments accepts what ringlog wrote.
check_segments() {
  local copy=$exchange/copy
  cp -r "$data" "$copy"
  dump_segments "$copy" || return 1
  echo "DumpLogSegments accepts $(find "$copy" -name '*.log' | wc -l) segments"
  # The golden files have text that a JVM prints as its machine's locale allows, and indexes with a killed Kafka's zeros,
  # at which its sanity check breaks off.
  same_dumps "$copy" --print-data-log --index-sanity-check && same_dumps "$HERE/../golden/kafka-3.9/unclean" || return 1
  rm -r "$copy"
}

# Our kafka-dump-log prints of every file of a directory what Kafka's prints, asked in each of these ways. The order of
# complaints, which Kafka keeps by hash, is left aside.
same_dumps() {
  local directory=$1 how file found files=() IFS=,
  shift
  mapfile -t found < <(find "$directory" -type f \( -name '*.log' -o -name '*.index' -o -name '*.timeindex' \
    -o -name '*.txnindex' -o -name '*.snapshot' \) | sort)
  for file in "${found[@]}"; do
    # Kafka's tool breaks off at an index of zeros beside an empty log, which a killed Kafka leaves.
    [[ $file == *index && ! -s ${file%.*}.log ]] || files+=("$file")
  done
  for how in --deep-iteration --verify-index-only "$@"; do
    java_run kafka.tools.DumpLogSegments "$how" --files "${files[*]}" >"$exchange/theirs" 2>"$exchange/theirs.errors"
    "$RINGLOG" kafka dump-log "$how" --files "${files[*]}" >"$exchange/ours" 2>"$exchange/ours.errors" || return 1
    same "$exchange/ours" "$exchange/theirs" || return 1
    sort -o "$exchange/ours.errors" "$exchange/ours.errors"
    grep -v '^SLF4J' "$exchange/theirs.errors" | sort >"$exchange/theirs.sorted"
    same "$exchange/ours.errors" "$exchange/theirs.sorted" || return 1
  done
  echo "kafka-dump-log prints what Kafka's prints of ${#files[@]} files"
}

# And it would not if a byte were wrong.
check_flipped_bytes() {
  local planted name reason
  # In a record, in the first entry's position, in its timestamp, and in the checksum's reach.
  for planted in log:100 index:6 timeindex:2 snapshot:12; do
    name=$exchange/planted-${planted%:*}
    mkdir "$name"
    cp -r "$data/first.zstd-0" "$name/"
    flip "$(find "$name" -name "*.${planted%:*}" -size +0 | sort | head -n 1)" "${planted#*:}"
    if dump_segments "$name" >"$exchange/planted"; then
      echo "a flipped byte in a ${planted%:*} goes unnoticed"
      return 1
    fi
    reason=$(grep -o -m 1 -E 'isvalid: false|(Found|Snapshot is|Exception) .*' "$exchange/planted" | head -n 1)
    echo "  and notices a flipped byte in a ${planted%:*}: ${reason:0:60}"
  done
}

# Has ringlog serve $data, look at it or change it, and end by `stop_broker` or `kill_broker`.
ringlog_turn() {
  local end=$1 flags=$2
  shift 2
  # Words on purpose: flags.
  start_broker exchange $flags --set log.retention.ms=-1 && java_run Exchange "$bootstrap" "$@" && "$end" && return 0
  echo "ringlog's turn failed: $flags $*"
  return 1
}

kill_broker() {
  kill -9 "$broker_pid"
  wait "$broker_pid" 2>/dev/null
  broker_pid=
}

kafka_turn() {
  local name=$1 before=$2 after=$3 prefix=$4 signal=$5
  start_kafka "$name" && java_run Exchange "$kafka" "$exchange/$name" && same "$before" "$exchange/$name" &&
    java_run Exchange "$kafka" "$after" "$prefix" transactions && kafka_keeps_ringlog_out "$name" "$signal" || return 1
  end_jvm "$name" "$signal"
  end_jvm "zoo-$name" KILL
  check_complaints "$name"
}

# What ringlog says on $data. It is refused in any case, since it is told another id than the directory's.
refusal() {
  client "$RINGLOG" serve --data "$data" --set listeners=PLAINTEXT://127.0.0.1:0 --set broker.id=99 --admin-listen none \
    2>&1 >/dev/null
}

# A Kafka keeps ringlog out as long as it runs, and asked to end, until its logs are closed.
kafka_keeps_ringlog_out() {
  local name=$1 signal=$2 told deadline=$((SECONDS + KAFKA_STOP_LIMIT_S)) tries=0
  told=$(refusal)
  if ! grep -q "$USED_BY_JVM" <<<"$told"; then
    echo "ringlog takes a directory that $name uses: $told"
    return 1
  fi
  [[ $signal == TERM ]] || return 0
  kill -TERM "${jvm_pids[$name]}"
  while told=$(refusal) || grep -q "$USED_BY_JVM" <<<"$told"; do
    ((++tries, SECONDS > deadline)) && break
  done
  if [[ $told != *'belongs to another broker'* || ! -e $data/$CLEAN ]]; then
    echo "ringlog takes a directory that $name still closes: $told"
    return 1
  fi
  echo "ringlog is kept out while Kafka runs and closes its logs ($tries tries)"
}

# And Kafka while ringlog runs.
ringlog_keeps_kafka_out() {
  start_broker exchange --set log.retention.ms=-1 || return 1
  if start_kafka kept-out >"$exchange/told"; then
    echo "Kafka takes a directory that ringlog uses"
    return 1
  fi
  unset "jvm_pids[kept-out]"
  end_jvm zoo-kept-out KILL
  stop_broker && grep -q "Failed to acquire lock on file .lock in $data" "$exchange/kept-out.log" &&
    echo "Kafka is kept out while ringlog runs" && return 0
  cat "$exchange/told"
  return 1
}

# The Kafka of before, with its own ZooKeeper, which knows neither ringlog's topics nor its leader epochs.
kafka_returns() {
  grep -v '^between\.' "$1" >"$exchange/old"
  start_kafka kafka-1-again kafka-1 && java_run Exchange "$kafka" "$exchange/kafka-1-again" &&
    same "$exchange/old" "$exchange/kafka-1-again" || return 1
  end_jvm kafka-1-again TERM
  end_jvm zoo-kafka-1-again KILL
  # Its leader epochs are older than the logs'.
  check_complaints kafka-1-again '^WARN \[LeaderEpochCache .* caused truncation of conflicting entries'
}

# What Kafka's own coordinators write into their topics, by its clients and tools.
kafka_coordinates() {
  local group=(org.apache.kafka.tools.consumer.group.ConsumerGroupCommand --bootstrap-server "$kafka" --group console)
  java_run Coordinators "$kafka" &&
    java_run org.apache.kafka.tools.consumer.ConsoleConsumer --bootstrap-server "$kafka" --topic one --group console \
      --from-beginning --max-messages 3 --timeout-ms 30000 >"$exchange/consumed" 2>&1 &&
    java_run "${group[@]}" --topic one:0 --reset-offsets --to-earliest --execute >"$exchange/reset" &&
    java_run "${group[@]}" --delete >"$exchange/deleted" &&
    java_run org.apache.kafka.tools.ProducerPerformance --topic one --num-records 2000 --record-size 10 --throughput 1000 \
      --transactional-id perf --transaction-duration-ms 100 --producer-props "bootstrap.servers=$kafka" >"$exchange/produced"
}

# Our decoders of those topics say what Kafka's say: of what a Kafka wrote, and of records in every version and damaged ones.
coordinator_dumps() {
  local exchange=$work/coordinators data=$work/coordinators/data
  mkdir -p "$exchange"
  # ZooKeeper begins with the cluster id of a ringlog.
  start_broker coordinators && stop_broker && start_kafka coordinators && kafka_coordinates || return 1
  end_jvm coordinators TERM
  end_jvm zoo-coordinators KILL
  java_run CoordinatorRecords "$exchange/made" &&
    same_decoded --offsets-decoder 'by hand' "$exchange"/made/offsets/*.log "$data"/__consumer_offsets-*/*.log &&
    same_decoded --transaction-log-decoder another "$exchange"/made/transactions/*.log "$data"/__transaction_state-*/*.log
}

# Byte for byte, of all these files; and a changed letter of a word that is in one of them makes a difference.
same_decoded() {
  local decoder=$1 word=$2 IFS=, file records
  shift 2
  LC_ALL=C.UTF-8 java_run kafka.tools.DumpLogSegments "$decoder" --files "$*" 2>/dev/null >"$exchange/theirs" &&
    "$RINGLOG" kafka dump-log "$decoder" --files "$*" >"$exchange/ours" && same "$exchange/ours" "$exchange/theirs" ||
    return 1
  records=$(grep -c -a '^| .* payload: ' "$exchange/ours")
  file=$(grep -l -a "$word" "$@" | head -n 1)
  sed "s/$word/${word%?}x/" "$file" >"$exchange/00000000000000000000.log"
  # Without the batches' lines, which have a checksum.
  "$RINGLOG" kafka dump-log "$decoder" --files "$file" | grep -a '^| ' >"$exchange/sound"
  "$RINGLOG" kafka dump-log "$decoder" --files "$exchange/00000000000000000000.log" | grep -a '^| ' >"$exchange/planted"
  if cmp -s "$exchange/sound" "$exchange/planted"; then
    echo "a changed letter of $word goes unnoticed"
    return 1
  fi
  echo "kafka-dump-log $decoder prints what Kafka's prints of $records records, and a changed letter makes a difference"
}

# Kafka's classes still say of each frame what the golden table says; a Kafka that looks into produced batches takes and
# refuses the same frames as ringlog, which names its own code for damage; and a frame of another outcome is noticed.
codec_table() {
  local exchange=$work/codecs data=$work/codecs/data table=$HERE/../golden/codecs/kafka-3.9.1.txt
  mkdir -p "$exchange"
  java_run CodecTable make >"$exchange/table" && same "$table" "$exchange/table" || return 1
  start_broker codecs && java_run CodecTable produce "$table" "$bootstrap" >"$exchange/ours" || return 1
  # The first frame that is taken, cut by a byte.
  awk -F '\t' -v OFS='\t' '!done && $5 != "refused" && /^lz4/ { sub(/..$/, "", $4); done = 1 } 1' "$table" >"$exchange/cut"
  stop_broker && rm -r "$data" && start_broker codecs &&
    java_run CodecTable produce "$exchange/cut" "$bootstrap" >"$exchange/planted" && stop_broker || return 1
  rm -r "$data"
  start_broker codecs && stop_broker && start_kafka codecs || return 1
  java_run CodecTable produce "$table" "$kafka" >"$exchange/kafka" || return 1
  end_jvm codecs TERM
  end_jvm zoo-codecs KILL
  sed 's/: -1$/: 87/' "$exchange/kafka" >"$exchange/theirs"
  same "$exchange/ours" "$exchange/theirs" || return 1
  if cmp -s "$exchange/planted" "$exchange/theirs"; then
    echo "a frame of another outcome goes unnoticed"
    return 1
  fi
  echo "$(wc -l <"$exchange/ours") frames are taken and refused as by Kafka, and a cut one is noticed"
}

maven_after() {
  exchange=$work/exchange
  data=$exchange/data
  mkdir -p "$exchange"
  ringlog_turn stop_broker "" "$exchange/ringlog-1" first && check_segments && check_flipped_bytes &&
    ringlog_keeps_kafka_out &&
    kafka_turn kafka-1 "$exchange/ringlog-1" "$exchange/kafka-1-end" second TERM || return 1

  # The tree is still ringlog's own: it knows none of Kafka's topics, and all new records of the others.
  ringlog_turn stop_broker "" "$exchange/ringlog-2" && grep -v '^second\.' "$exchange/kafka-1-end" >"$exchange/old" &&
    same "$exchange/old" "$exchange/ringlog-2" && rm "$data/$TREE" &&
    ringlog_turn stop_broker --import "$exchange/ringlog-3" &&
    same "$exchange/kafka-1-end" "$exchange/ringlog-3" || return 1

  ringlog_turn stop_broker "" "$exchange/between" between && kafka_returns "$exchange/between" || return 1

  ringlog_turn kill_broker "" "$exchange/ringlog-4" third &&
    kafka_turn kafka-2 "$exchange/ringlog-4" "$exchange/kafka-2-end" fourth KILL && rm "$data/$TREE" &&
    ringlog_turn stop_broker --import "$exchange/ringlog-5" &&
    same "$exchange/kafka-2-end" "$exchange/ringlog-5" && check_segments || return 1
  ! grep ERROR "$exchange/broker.log" && coordinator_dumps && codec_table && repeated && settings && people
}
