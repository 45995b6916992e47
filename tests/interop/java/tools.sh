# Kafka's command line tools, of 3.9 and of 4, against ringlog; what they print is checked, not only how they end.
# Sourced by scripts/interop; uses its work and HERE, and java_command.
#
# kafka-consumer-perf-test is not among them: it can only subscribe, which needs groups.

readonly TOOLS=org.apache.kafka.tools TOOL_LIMIT_S=60 TOOL_RECORDS=200
tools_passed=0 tools_failed=0

# Runs a tool with the libraries of a version; `said` is what it printed, both streams.
tool() {
  said=$(export -f java_command && export work HERE &&
    lib=$1 timeout -k 10 "$TOOL_LIMIT_S" bash -c 'java_command OFF "$@"' tool "${@:2}" 2>&1 | grep -v '^SLF4J')
}

# Counts one check: what a tool said must hold a line of this pattern.
says() {
  local name=$1 pattern=$2
  if grep -q -E -- "$pattern" <<<"$said"; then
    tools_passed=$((tools_passed + 1))
    return
  fi
  tools_failed=$((tools_failed + 1))
  echo "FAILED $name: no line is like $pattern in:"
  head -n 6 <<<"$said" | cut -c 1-300
}

# All tools of one version: the directory of its libraries, a prefix for topics, and the classes and options that have moved.
tools_of() {
  local lib=$1 prefix=$2 producer=$3 versions=$4 property=$5 to=(--bootstrap-server "$bootstrap") codec lines
  local topic=$prefix.tools
  tool "$lib" "$versions" "${to[@]}"
  says "$prefix kafka-broker-api-versions" "^$bootstrap \(id: 1 "
  says "$prefix kafka-broker-api-versions" 'Fetch\(1\): [0-9]+ to 17 '
  tool "$lib" $TOOLS.ClusterTool cluster-id "${to[@]}"
  says "$prefix kafka-cluster" '^Cluster ID: .'

  tool "$lib" $TOOLS.TopicCommand "${to[@]}" --create --topic "$topic" --partitions 2 --config retention.ms=-1
  says "$prefix kafka-topics --create" "^Created topic $topic\.$"
  tool "$lib" $TOOLS.TopicCommand "${to[@]}" --create --topic "$topic"
  says "$prefix kafka-topics --create, again" "Topic '$topic' already exists"
  tool "$lib" $TOOLS.TopicCommand "${to[@]}" --alter --topic "$topic" --partitions 3
  tool "$lib" $TOOLS.TopicCommand "${to[@]}" --describe --topic "$topic"
  says "$prefix kafka-topics --describe" "PartitionCount: 3.*ReplicationFactor: 1.*Configs: .*retention\.ms=-1"
  says "$prefix kafka-topics --describe" "Partition: 2.*Leader: 1.*Replicas: 1.*Isr: 1"
  tool "$lib" $TOOLS.TopicCommand "${to[@]}" --alter --topic "$topic" --partitions 2
  says "$prefix kafka-topics --alter to fewer" 'InvalidPartitionsException|which is higher than the requested 2'

  tool "$lib" kafka.admin.ConfigCommand "${to[@]}" --alter --topic "$topic" --add-config max.message.bytes=2000
  says "$prefix kafka-configs --alter" "^Completed updating config for topic $topic\.$"
  tool "$lib" kafka.admin.ConfigCommand "${to[@]}" --describe --topic "$topic"
  says "$prefix kafka-configs --describe" 'max\.message\.bytes=2000 sensitive=false synonyms=\{DYNAMIC_TOPIC_CONFIG:max\.message'
  tool "$lib" kafka.admin.ConfigCommand "${to[@]}" --alter --topic "$topic" --add-config retention.ms=soon
  says "$prefix kafka-configs --alter with a wrong value" 'InvalidConfigurationException'
  tool "$lib" kafka.admin.ConfigCommand "${to[@]}" --describe --broker 1 --all
  says "$prefix kafka-configs --describe --broker" 'broker\.id=1 sensitive=false synonyms=\{STATIC_BROKER_CONFIG'

  for codec in none gzip snappy lz4 zstd; do
    topic=$prefix.$codec.console
    lines=$(for ((number = 0; number < TOOL_RECORDS; number++)); do echo "key-$number:$codec $codec $codec $number"; done)
    tool "$lib" "$producer" "${to[@]}" --topic "$topic" --compression-codec "$codec" "$property" parse.key=true \
      "$property" key.separator=: <<<"$lines"
    tool "$lib" $TOOLS.consumer.ConsoleConsumer "${to[@]}" --topic "$topic" --partition 0 --offset earliest \
      --max-messages $TOOL_RECORDS --timeout-ms 30000 --property print.key=true --property key.separator=:
    says "$prefix kafka-console-consumer $codec" "^Processed a total of $TOOL_RECORDS messages"
    said=$(diff <(grep '^key-' <<<"$said") - <<<"$lines" && echo same)
    says "$prefix kafka-console-producer $codec" '^same$'
  done

  topic=$prefix.zstd.console
  tool "$lib" $TOOLS.GetOffsetShell "${to[@]}" --topic "$topic"
  says "$prefix kafka-get-offsets" "^$topic:0:$TOOL_RECORDS$"
  echo "{\"version\":1,\"partitions\":[{\"topic\":\"$topic\",\"partition\":0,\"offset\":50}]}" >"$work/maven/offsets.json"
  tool "$lib" $TOOLS.DeleteRecordsCommand "${to[@]}" --offset-json-file "$work/maven/offsets.json"
  says "$prefix kafka-delete-records" "partition: $topic-0.*low_watermark: 50"
  tool "$lib" $TOOLS.GetOffsetShell "${to[@]}" --topic "$topic" --time earliest
  says "$prefix kafka-get-offsets --time earliest" "^$topic:0:50$"
  tool "$lib" $TOOLS.LogDirsCommand "${to[@]}" --describe --topic-list "$topic"
  says "$prefix kafka-log-dirs" "\"partition\":\"$topic-0\",\"size\":[1-9]"
  tool "$lib" $TOOLS.ProducerPerformance --topic "$prefix-perf" --num-records 5000 --record-size 200 --throughput -1 \
    --producer-props "bootstrap.servers=$bootstrap" compression.type=lz4
  says "$prefix kafka-producer-perf-test" '^5000 records sent, .* 99\.9th'
  tool "$lib" $TOOLS.TopicCommand "${to[@]}" --delete --topic "$prefix-perf"
  tool "$lib" $TOOLS.TopicCommand "${to[@]}" --list
  says "$prefix kafka-topics --list" "^$topic$"
  said=$(grep -c "^$prefix-perf$" <<<"$said")
  says "$prefix kafka-topics --delete" '^0$'
}

run_tools() {
  tools_of "$work/maven/lib" tools3 kafka.tools.ConsoleProducer kafka.admin.BrokerApiVersionsCommand --property
  tools_of "$work/maven/lib4" tools4 $TOOLS.ConsoleProducer $TOOLS.BrokerApiVersionsCommand --reader-property
  echo "tools: $tools_passed checks passed, $tools_failed failed"
  ((tools_failed == 0))
}

# A wrong expectation.
plant_tool() {
  tool "$work/maven/lib" $TOOLS.ClusterTool cluster-id --bootstrap-server "$bootstrap"
  says "planted: another answer" '^Cluster ID: none'
}
