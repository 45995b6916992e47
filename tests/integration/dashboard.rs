//! The Grafana dashboard asks for nothing that a broker does not tell.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;

use crate::prometheus::Families;

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/ops/grafana/ringlog.json");

/// Words of PromQL that stand where a metric's name could.
const WORDS: &[&str] =
    &["by", "without", "on", "ignoring", "group_left", "group_right", "bool", "and", "or", "unless", "offset"];

/// A selector: the metric, and the labels that it is matched by.
#[derive(Debug, PartialEq)]
pub struct Selector {
    metric: String,
    labels: Vec<String>,
    /// Every label that the expression groups by.
    grouped: Vec<String>,
}

/// What an expression of PromQL selects, as far as dashboards write it: functions, operators, ranges, groupings.
fn selectors(expression: &str) -> Vec<Selector> {
    let words = words(expression);
    let (mut found, mut grouped): (Vec<Selector>, Vec<String>) = (Vec::new(), Vec::new());
    let mut index = 0;
    while index < words.len() {
        let (word, next) = (words[index].as_str(), words.get(index + 1).map(String::as_str));
        let closed_by = |closing: &str, from: usize| {
            let end = words[from..].iter().position(|word| word == closing).map_or(words.len(), |end| from + end);
            words[from..end].to_vec()
        };
        let names = |inside: &[String]| -> Vec<String> {
            inside.iter().filter(|word| word.starts_with(is_letter)).cloned().collect()
        };
        if WORDS.contains(&word) && next == Some("(") {
            let inside = closed_by(")", index + 2);
            index += inside.len() + 2;
            grouped.extend(names(&inside));
        } else if word == "[" {
            index += closed_by("]", index + 1).len() + 1;
        } else if word.starts_with(is_letter) && !WORDS.contains(&word) && !next.is_some_and(is_after_function) {
            let mut labels = Vec::new();
            if next == Some("{") {
                let inside = closed_by("}", index + 2);
                index += inside.len() + 2;
                labels = names(&inside);
            }
            found.push(Selector { metric: word.to_owned(), labels, grouped: Vec::new() });
        }
        index += 1;
    }
    found.iter_mut().for_each(|selector| selector.grouped.clone_from(&grouped));
    found
}

/// `sum(` and `sum by (`
fn is_after_function(word: &str) -> bool {
    ["(", "by", "without"].contains(&word)
}

fn is_letter(letter: char) -> bool {
    letter.is_ascii_alphabetic() || letter == '_'
}

/// Names, and every other letter on its own; without strings and spaces.
fn words(expression: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let (mut is_quoted, mut is_name) = (false, false);
    for letter in expression.chars() {
        if letter == '"' {
            is_quoted = !is_quoted;
        }
        let goes_on = is_name && (is_letter(letter) || letter.is_ascii_digit());
        is_name = !is_quoted && (goes_on || is_letter(letter) || letter.is_ascii_digit());
        match words.last_mut() {
            _ if is_quoted || letter == '"' || letter.is_whitespace() => {}
            Some(last) if goes_on => last.push(letter),
            _ => words.push(letter.to_string()),
        }
    }
    words
}

/// What an expression selects that is not there, or by labels that its metric does not have.
fn missing(expression: &str, families: &Families) -> Vec<String> {
    // Prometheus puts these on what it scrapes.
    let given = ["instance", "job"];
    let mut missing = Vec::new();
    for selector in selectors(expression) {
        let samples = families.values().flat_map(|family| &family.samples).filter(|of| of.name == selector.metric);
        let labels: BTreeSet<&str> =
            samples.clone().flat_map(|sample| &sample.labels).map(|(name, _)| &**name).collect();
        if samples.count() == 0 {
            missing.push(selector.metric.clone());
            continue;
        }
        let asked = selector.labels.iter().chain(&selector.grouped);
        let unknown = asked.filter(|label| !labels.contains(label.as_str()) && !given.contains(&label.as_str()));
        missing.extend(unknown.map(|label| format!("{} by {label}", selector.metric)));
    }
    missing
}

fn collect(value: &Value, expressions: &mut Vec<String>) {
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                match value {
                    Value::String(text) if key == "expr" => expressions.push(text.clone()),
                    value => collect(value, expressions),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| collect(value, expressions)),
        _ => {}
    }
}

/// Holds the whole dashboard against what a broker has told.
pub fn check(families: &Families) {
    let text = fs::read_to_string(PATH).expect("the dashboard");
    let dashboard: Value = serde_json::from_str(&text).expect("JSON");
    let mut expressions = Vec::new();
    collect(&dashboard, &mut expressions);
    assert!(expressions.len() > 50, "{} expressions", expressions.len());
    for expression in &expressions {
        let missing = missing(expression, families);
        assert!(missing.is_empty(), "{missing:?} in {expression}");
        assert!(expression.contains("$instance"), "of all brokers: {expression}");
    }
    let panels = dashboard["panels"].as_array().expect("panels");
    let ids: BTreeSet<u64> = panels.iter().map(|panel| panel["id"].as_u64().expect("an id")).collect();
    assert_eq!(ids.len(), panels.len(), "ids are unique");
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{}", panel["title"]);
    }
}

#[test]
fn selectors_are_found_in_expressions_and_nothing_else_is() {
    let expression =
        r#"histogram_quantile(0.99, sum by (le, api) (rate(a_bucket{api=~"b|c", x!="d_total{"}[$__rate_interval])))"#;
    let found = selectors(expression);
    let strings = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    let expected =
        Selector { metric: "a_bucket".to_owned(), labels: strings(&["api", "x"]), grouped: strings(&["le", "api"]) };
    assert_eq!(found, [expected]);
    let names = |expression| selectors(expression).into_iter().map(|found| found.metric).collect::<Vec<_>>();
    assert_eq!(names("max(a{b=\"c\"} / d) * 100 - time()"), ["a", "d"]);
    assert_eq!(names("topk(10, a) > bool 5 or b offset 5"), ["a", "b"]);
}

#[test]
fn a_name_or_a_label_that_is_not_there_is_caught() {
    let text = "# HELP a_total A.\n# TYPE a_total counter\na_total{api=\"x\"} 1\n# HELP b B.\n# TYPE b gauge\n";
    let families = crate::prometheus::parse(text).expect("the format");
    assert!(missing("sum by (api, instance) (rate(a_total{instance=~\"$instance\"}[5m]))", &families).is_empty());
    assert_eq!(missing("sum(rate(a_totals[5m]))", &families), ["a_totals"]);
    assert_eq!(missing("a_total / b", &families), ["b"], "a family without samples draws nothing");
    assert_eq!(missing("sum by (apis) (a_total{shard=\"0\"})", &families), ["a_total by shard", "a_total by apis"]);
}
