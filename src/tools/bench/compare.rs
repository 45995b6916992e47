//! Earlier runs beside this one, from their JSON.

#![forbid(unsafe_code)]

use std::path::Path;

use serde_json::Value;

use super::failures;
use super::figures::{grouped, milliseconds};
use crate::failure::Failure;

pub const HEADINGS: [&str; 8] = ["RUN", "RECORDS/S", "MB/S", "P50", "P99", "P99.9", "MAX", "BROKER S/GB"];

/// One run's figures, as cells under [`HEADINGS`].
pub fn row(name: &str, run: &Value) -> Option<Vec<String>> {
    let side = [&run["consumed"], &run["produced"]].into_iter().find(|side| side.is_object())?;
    let rate = side["records_per_s"].as_f64()?;
    let shown = |value: &Value, show: fn(f64) -> String| value.as_f64().map_or_else(|| "-".to_owned(), show);
    let decimal = |value: f64| format!("{value:.2}");
    let latency = &side["latency_ms"];
    let mut cells =
        vec![name.to_owned(), grouped(rate.round() as u64), shown(&side["mb_per_s"], |rate| format!("{rate:.1}"))];
    cells.extend(["p50", "p99", "p99.9", "max"].map(|percentile| shown(&latency[percentile], milliseconds)));
    cells.push(shown(&run["broker_cpu"]["s_per_gb"], decimal));
    Some(cells)
}

/// The row of a file that `--json` wrote.
pub fn read(path: &Path) -> Result<Vec<String>, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| failures::file(path, &error))?;
    let name = path.file_stem().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned());
    let run = serde_json::from_str(&text).ok();
    run.and_then(|run| row(&name, &run))
        .ok_or_else(|| Failure::Usage(format!("{} is not what 'ringlog bench --json' prints", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_an_earlier_run_becomes_a_row_and_anything_else_is_wrong_usage() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("before.json");
        let run = r#"{"produced": {"records_per_s": 12345.6, "mb_per_s": 1.25, "latency_ms": {"p50": 0.5, "p99": 20.0}},
            "consumed": null, "broker_cpu": {"s_per_gb": 0.5}}"#;
        std::fs::write(&path, run).expect("written");
        assert_eq!(read(&path).expect("a run"), ["before", "12,346", "1.2", "0.500", "20.0", "-", "-", "0.50"]);
        for wrong in ["", "{}", "[]", r#"{"produced": {}}"#] {
            std::fs::write(&path, wrong).expect("written");
            assert!(matches!(read(&path), Err(Failure::Usage(_))), "{wrong}");
        }
    }
}
