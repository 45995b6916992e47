//! `/healthz` and `/readyz`: the state of the process in JSON.

#![forbid(unsafe_code)]

use serde_json::{Value, json};

use super::{LogDir, Recovery, Source, State};

/// How much of the recovery is done, from 0 to 1: of the logs or of their bytes, whichever is less. Totals grow while
/// logs look at their files, so it may fall.
fn fraction(recovery: &Recovery, state: State) -> f64 {
    if state != State::Recovering {
        return 1.0;
    }
    let share = |done: u64, total: u64| if total == 0 { None } else { Some(done as f64 / total as f64) };
    let logs = share(recovery.logs_done, recovery.logs_total).unwrap_or(0.0);
    share(recovery.bytes_done, recovery.bytes_total).unwrap_or(1.0).min(logs).min(1.0)
}

/// One object: `state`, `ready`, `recovery` and `log_dirs`.
pub fn text(source: &dyn Source) -> String {
    let (recovery, now) = (source.recovery(), source.state());
    let log_dir = |log_dir: LogDir| {
        let state = if log_dir.online { "online" } else { "offline" };
        json!({"path": log_dir.path.to_string_lossy(), "state": state})
    };
    let log_dirs: Vec<Value> = source.log_dirs().into_iter().map(log_dir).collect();
    let object = json!({
        "state": now.name(),
        "ready": now == State::Serving,
        "recovery": {
            "fraction": fraction(&recovery, now),
            "logs_total": recovery.logs_total,
            "logs_done": recovery.logs_done,
            "bytes_total": recovery.bytes_total,
            "bytes_done": recovery.bytes_done,
        },
        "log_dirs": log_dirs,
    });
    format!("{object}\n")
}
