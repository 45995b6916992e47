# Settings asked of a running Apache Kafka 3.9 and of ringlog alike: the same changes while they run, and the same files at the
# start. Sourced by scripts/interop after exchange.sh; uses its functions. The rows are those of tests/golden/settings, which a
# unit test holds ringlog's verdicts to; this holds the rows to Kafka, and the processes to the rows.

readonly CHECKS=$HERE/../golden/settings/kafka-3.9.1-checks.txt SETTINGS_START_LIMIT_S=20

# Rows on which the two differ on purpose (`DIFFERENCES` of src/core/config/golden.rs), as patterns for grep -E.
readonly SETTINGS_DIFFER=$'^(broker|all)\t(ssl|sasl)\\.|\tssl\\.protocol=a|metric\\.reporters=|principal\\.builder\\.class=|\\.class=no\\.such|'\
$'=NaN|=-0\\.1|=0x1p3|=٣|log\\.flush\\.interval\\.ms=-|\tlog\\.cleaner\\.max\\.compaction\\.lag\\.ms=8|'\
$'overrides=(:5|host_1:5|no\\.such\\.host\\.invalid:5)'

# The golden rows of changes, without their verdicts: what to ask.
settings_asked() { grep -v '^#' "$CHECKS" | grep -P '^(broker|all|topic)\t' | sed -E 's/\t[^\t]*\t[^\t]*$//'; }

# Asks for all changes at an address; kind, settings and verdict of each, without words.
settings_verdicts() {
  java_run GoldenChecks alter "$exchange/asked" "$1" >"$2.rows" && sed -E 's/\t[^\t]*$//' "$2.rows" >"$2"
}

# Whether two lists of verdicts are the same, but where they differ on purpose.
settings_agree() {
  local one=$1 other=$2
  same <(grep -v -E "$SETTINGS_DIFFER" "$one") <(grep -v -E "$SETTINGS_DIFFER" "$other")
}

# The code with which a start on this file ends; `taken` if it serves.
settings_start() {
  local file=$1 data=$exchange/started deadline=$((SECONDS + SETTINGS_START_LIMIT_S)) pid code
  rm -rf "$data" && mkdir -p "$data"
  : >"$exchange/started.banner"
  "$RINGLOG" serve --config "$file" --admin-listen none >"$exchange/started.banner" 2>"$exchange/started.log" &
  pid=$!
  until grep -q '^ringlog .* serves' "$exchange/started.banner"; do
    if ! kill -0 "$pid" 2>/dev/null; then
      wait "$pid"
      code=$?
      ((code == 2)) && echo refused || echo "ended with $code"
      return
    fi
    ((SECONDS > deadline)) && break
    sleep 0.02
  done
  kill -9 "$pid"
  wait "$pid" 2>/dev/null
  echo taken
}

# Files whose settings are about values, not about addresses to bind or directories to make.
settings_files() {
  local checked=0 row kind verdict ours file=$exchange/start.properties
  local -a fields
  while IFS= read -r row; do
    IFS=$'\t' read -r -a fields <<<"$row"
    verdict=$(awk -F'\t' '{print $(NF-1)}' <<<"$row")
    {
      printf 'listeners=PLAINTEXT://127.0.0.1:0\nlog.dirs=%s\n' "$exchange/started"
      awk -F'\t' '{for (at = 2; at < NF - 1; at++) print $at}' <<<"$row"
    } >"$file"
    ours=$(settings_start "$file")
    if [[ $ours != "$verdict" ]]; then
      echo "a file with ${fields[*]:1}: Kafka $verdict, ringlog $ours: $(head -n 1 "$exchange/started.log")"
      return 1
    fi
    checked=$((checked + 1))
  done < <(grep -P "$1" "$CHECKS")
  echo "settings: ringlog starts, or does not, on $checked files as Kafka does"
}

readonly SETTINGS_FILES='^start\t(log\.retention\.(ms|minutes|hours)=(-1|0|1)\t|log\.roll\.ms=[01]\t|broker\.id=(5000|-1)\t|log\.dirs=\t|'\
'max\.connections\.per\.ip=0\t|log\.cleaner\.(threads|dedupe)|replica\.fetch\.wait|connections\.max\.idle\.ms=10[01]\t|'\
'queued\.max\.request\.bytes=1|advertised\.listeners=\t|inter\.broker\.listener\.name=)'

settings() {
  # The defaults' retention, by which other settings are judged.
  local exchange=$work/settings data=$work/settings/data kafka_settings=log.retention.ms=604800000
  mkdir -p "$exchange"
  client javac -cp "$work/maven/lib/*" -d "$work/maven/classes" "$HERE/../golden/settings/GoldenChecks.java" || return 1
  settings_asked >"$exchange/asked"
  # ZooKeeper begins with the cluster id of a ringlog.
  start_broker settings && settings_verdicts "$bootstrap" "$exchange/ringlog" && stop_broker || return 1
  rm -rf "$data"/checked-0
  start_kafka settings && settings_verdicts "$kafka" "$exchange/kafka" || return 1
  end_jvm settings TERM
  end_jvm zoo-settings KILL
  grep -v '^#' "$CHECKS" | grep -P '^(broker|all|topic)\t' | sed -E 's/\t[^\t]*$//' >"$exchange/golden"
  same "$exchange/golden" "$exchange/kafka" && settings_agree "$exchange/golden" "$exchange/ringlog" || return 1
  # A wrong row: a limit that Kafka refuses.
  sed -E $'s/^(all\tmax\\.connections=0\t).*/\\1NONE/' "$exchange/golden" >"$exchange/planted"
  if cmp -s "$exchange/golden" "$exchange/planted" || settings_agree "$exchange/planted" "$exchange/ringlog" >/dev/null; then
    echo "a planted row of settings goes unnoticed"
    return 1
  fi
  echo "settings: Kafka and ringlog say the same to $(wc -l <"$exchange/asked") changes, and a planted row is noticed"
  settings_files "$SETTINGS_FILES"
}
