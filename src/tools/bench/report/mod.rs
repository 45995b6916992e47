//! The report: one page that needs nothing else, with settings, figures and charts.

#![forbid(unsafe_code)]

mod charts;

use std::fmt::Write as _;

use serde_json::Value;

use self::charts::Line;
use super::figures::{PERCENTILES, Row, Summary, grouped, milliseconds};
use super::settings::Mode;
use super::{civil, compare};

const STYLE: &str = include_str!("style.css");
/// What the lines of latency over time are.
const LATENCY_LINES: [&str; 4] = ["p50", "p99", "p99.9", "largest"];

/// The whole page.
///
/// # Errors
/// In words, if a chart can't be drawn.
pub fn page(summary: &Summary<'_>) -> Result<String, String> {
    let mut page = String::new();
    let title = format!("ringlog bench {}", summary.settings.mode.name());
    let _ = write!(
        page,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n\
         <h1>{title}</h1>\n<p>{}</p>\n",
        escaped(&summary.headline())
    );
    for note in summary.notes() {
        let _ = writeln!(page, "<p class=\"note\">{}</p>", escaped(&note));
    }
    page.push_str(&figures(summary));
    page.push_str(&charts(summary)?);
    page.push_str(&details(summary));
    page.push_str("</main>\n</body>\n</html>\n");
    Ok(page)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn table(headings: &[String], rows: &[Vec<String>]) -> String {
    let mut table = String::from("<div class=\"scroll\"><table>\n<thead><tr>");
    headings.iter().for_each(|heading| {
        let _ = write!(table, "<th>{}</th>", escaped(heading));
    });
    table.push_str("</tr></thead>\n<tbody>\n");
    for row in rows {
        table.push_str("<tr>");
        row.iter().for_each(|cell| {
            let _ = write!(table, "<td>{}</td>", escaped(cell));
        });
        table.push_str("</tr>\n");
    }
    table.push_str("</tbody></table></div>\n");
    table
}

fn figures(summary: &Summary<'_>) -> String {
    let outcome = summary.outcome;
    let mut headings: Vec<String> = ["", "records", "records/s", "MB/s", "requests"].map(str::to_owned).to_vec();
    let flow = summary.sides().into_iter().map(|(name, _, figures)| {
        let per_second = |count: f64| if outcome.seconds > 0.0 { count / outcome.seconds } else { 0.0 };
        vec![
            name.to_owned(),
            grouped(figures.records),
            grouped(per_second(figures.records as f64).round() as u64),
            format!("{:.1}", per_second(figures.bytes as f64 / 1e6)),
            grouped(figures.requests),
        ]
    });
    let mut text = format!("<h2>Summary</h2>\n{}", table(&headings, &flow.collect::<Vec<_>>()));
    headings = vec!["latency, ms".to_owned(), "mean".to_owned()];
    headings.extend(PERCENTILES.map(|percentile| format!("p{percentile}")));
    headings.push("max".to_owned());
    let shown = |ms: Option<f64>| ms.map_or_else(|| "-".to_owned(), milliseconds);
    let latencies = summary.sides().into_iter().map(|(_, what, figures)| {
        let mut cells = vec![what.to_owned(), shown(figures.mean_ms())];
        cells.extend(PERCENTILES.map(|percentile| shown(figures.percentile_ms(percentile))));
        cells.push(shown(figures.max_ms()));
        cells
    });
    text.push_str(&table(&headings, &latencies.collect::<Vec<_>>()));
    let json = summary.json();
    let cost = |of: &Value, name: &str| of[name].as_f64().map_or_else(|| "-".to_owned(), |cost| format!("{cost:.2}"));
    let cpu = [("broker", &json["broker_cpu"]), ("this client", &json["client_cpu"])];
    let rows = cpu.into_iter().filter(|(_, cpu)| cpu.is_object()).map(|(name, cpu)| {
        vec![name.to_owned(), cost(cpu, "seconds"), cost(cpu, "s_per_gb"), cost(cpu, "us_per_request")]
    });
    let headings = ["CPU time", "seconds", "seconds/GB", "microseconds/request"].map(str::to_owned);
    text.push_str(&table(&headings, &rows.collect::<Vec<_>>()));
    let compared = summary.compared();
    if !compared.is_empty() {
        let headings = compare::HEADINGS.map(|heading| heading.to_lowercase());
        text.push_str("<h2>Beside earlier runs</h2>\n");
        text.push_str(&table(&headings, &compared));
    }
    text
}

fn figure(title: &str, legend: &[&str], svg: &str) -> String {
    // The second of two may hide the first: it is dashed.
    let class = if legend.len() == 2 { " class=\"pair\"" } else { "" };
    let mut text = format!("<figure{class}>\n<figcaption><strong>{title}</strong>");
    // One line needs no name beside the title's.
    for (colour, name) in legend.iter().enumerate().filter(|_| legend.len() > 1) {
        let _ = write!(text, " <span class=\"key\"><span class=\"swatch{colour}\"></span>{name}</span>");
    }
    let _ = write!(text, "</figcaption>\n{svg}</figure>\n");
    text
}

fn charts(summary: &Summary<'_>) -> Result<String, String> {
    let failed = |error: Box<dyn std::error::Error>| format!("a chart can't be drawn: {error}");
    let rows = &summary.rows;
    let seconds = summary.outcome.seconds;
    let points = |value: &dyn Fn(&Row) -> Option<f64>| -> Vec<(f64, f64)> {
        rows.iter().filter_map(|row| value(row).map(|value| (row.at_seconds(), value))).collect()
    };
    let sides = |produced: &dyn Fn(&Row) -> f64, consumed: &dyn Fn(&Row) -> f64| {
        let mut lines = Vec::new();
        if summary.settings.mode.produces() {
            lines.push(Line { colour: 0, points: points(&|row| Some(produced(row))) });
        }
        if summary.settings.mode.consumes() {
            lines.push(Line { colour: lines.len(), points: points(&|row| Some(consumed(row))) });
        }
        lines
    };
    let names: &[&str] = match summary.settings.mode {
        Mode::Produce => &["produced"],
        Mode::Consume => &["consumed"],
        Mode::EndToEnd => &["produced", "consumed"],
    };
    let records = sides(&|row| row.produced.records_per_second, &|row| row.consumed.records_per_second);
    let megabytes = sides(&|row| row.produced.megabytes_per_second, &|row| row.consumed.megabytes_per_second);
    let mut text = String::from("<h2>Over time</h2>\n");
    let svg = charts::over_time("records/s", seconds, &records).map_err(failed)?;
    text.push_str(&figure("Throughput in records", names, &svg));
    let svg = charts::over_time("MB/s", seconds, &megabytes).map_err(failed)?;
    text.push_str(&figure("Throughput in bytes of batches", names, &svg));
    let latencies: Vec<Line> = (0..LATENCY_LINES.len())
        .map(|index| Line { colour: index, points: points(&|row| row.latencies.map(|latencies| latencies[index])) })
        .collect();
    let svg = charts::latency_over_time(seconds, &latencies).map_err(failed)?;
    let what = summary.sides().last().map_or("", |side| side.1);
    text.push_str(&figure(&format!("Latency of each second, {what}"), &LATENCY_LINES, &svg));

    let sides = summary.sides();
    let histograms: Vec<_> =
        sides.iter().enumerate().filter_map(|(at, side)| Some((at, side.2.latencies()?))).collect();
    let names: Vec<&str> = sides.iter().map(|side| side.1).collect();
    if !histograms.is_empty() {
        let svg = charts::by_percentile(&histograms).map_err(failed)?;
        text.push_str("<h2>Whole run</h2>\n");
        text.push_str(&figure("Latency by percentile", &names, &svg));
    }
    Ok(text)
}

/// Settings and machine, as two lists.
fn details(summary: &Summary<'_>) -> String {
    let shown = |value: &Value| match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(all) => all.iter().map(|one| one.as_str().unwrap_or_default()).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    };
    let json = summary.json();
    let mut text = String::from("<h2>Settings and machine</h2>\n<div class=\"lists\">\n");
    let mut machine = json["machine"].clone();
    if let Value::Object(machine) = &mut machine {
        machine.insert("ringlog".to_owned(), json["ringlog"].clone());
        let started = i64::try_from(summary.outcome.start_wall_ns / 1_000_000).unwrap_or(0);
        machine.insert("started".to_owned(), Value::String(format!("{} UTC", civil::text(started))));
    }
    for part in [&json["settings"], &machine] {
        text.push_str("<dl>\n");
        for (name, value) in part.as_object().into_iter().flatten() {
            let _ = writeln!(text, "<dt>{}</dt><dd>{}</dd>", escaped(&name.replace('_', " ")), escaped(&shown(value)));
        }
        text.push_str("</dl>\n");
    }
    text.push_str("</div>\n");
    text
}
