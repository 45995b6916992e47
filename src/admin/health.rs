//! `/healthz` and `/readyz`: the state of the process in JSON.

#![forbid(unsafe_code)]

use serde_json::{Value, json};

use super::{LogDir, Source};

/// One object: `state`, `recovery` and `log_dirs`.
pub fn text(source: &dyn Source) -> String {
    let recovery = source.recovery();
    let log_dir = |log_dir: LogDir| {
        let state = if log_dir.online { "online" } else { "offline" };
        json!({"path": log_dir.path.to_string_lossy(), "state": state})
    };
    let log_dirs: Vec<Value> = source.log_dirs().into_iter().map(log_dir).collect();
    let object = json!({
        "state": source.state().name(),
        "recovery": {
            "logs_total": recovery.logs_total,
            "logs_done": recovery.logs_done,
            "bytes_total": recovery.bytes_total,
            "bytes_done": recovery.bytes_done,
        },
        "log_dirs": log_dirs,
    });
    format!("{object}\n")
}
