//! A strict reader of Prometheus' text format 0.0.4, stricter than Prometheus itself: every family has help and type, and
//! stands in one piece.

use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, PartialEq)]
pub struct Sample {
    pub name: String,
    pub labels: Vec<(String, String)>,
    pub value: f64,
}

#[derive(Debug, Default, PartialEq)]
pub struct Family {
    pub kind: String,
    pub samples: Vec<Sample>,
}

pub type Families = BTreeMap<String, Family>;

impl Sample {
    pub fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|(label, _)| label == name).map(|(_, value)| value.as_str())
    }
}

/// The sum of all samples of this name that have these labels.
pub fn sum(families: &Families, name: &str, labels: &[(&str, &str)]) -> f64 {
    let samples = families.values().flat_map(|family| &family.samples).filter(|sample| sample.name == name);
    let has_all = |sample: &&Sample| labels.iter().all(|(label, value)| sample.label(label) == Some(value));
    samples.filter(has_all).map(|sample| sample.value).sum()
}

/// Reads a whole text.
pub fn parse(text: &str) -> Result<Families, String> {
    if !text.ends_with('\n') {
        return Err("the last line is not ended".to_owned());
    }
    let mut families = Families::new();
    let mut open: Option<(String, Family)> = None;
    let mut helped: Option<String> = None;
    for line in text.lines() {
        let wrong = |what: &str| Err(format!("{what}: {line}"));
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap_or((rest, ""));
            if !is_name(name) || help.trim().is_empty() || helped.is_some() {
                return wrong("no help of a family");
            }
            close(&mut families, open.take())?;
            helped = Some(name.to_owned());
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let Some((name, kind)) = rest.split_once(' ') else { return wrong("no type") };
            if helped.take().as_deref() != Some(name) || !["counter", "gauge", "histogram"].contains(&kind) {
                return wrong("no type behind its help");
            }
            if families.contains_key(name) {
                return wrong("a family twice");
            }
            open = Some((name.to_owned(), Family { kind: kind.to_owned(), samples: Vec::new() }));
        } else {
            let sample = parse_sample(line).map_err(|what| format!("{what}: {line}"))?;
            let Some((name, family)) = &mut open else { return wrong("a sample of no family") };
            let suffixes: &[&str] = if family.kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
            if !suffixes.iter().any(|suffix| sample.name.strip_suffix(suffix) == Some(name)) {
                return wrong("a sample of another family");
            }
            if family.kind == "counter" && !name.ends_with("_total") || sample.value.is_nan() {
                return wrong("no counter");
            }
            if family.kind != "gauge" && sample.value < 0.0 {
                return wrong("less than nothing");
            }
            family.samples.push(sample);
        }
    }
    close(&mut families, open.take())?;
    if helped.is_some() { Err("help without a type".to_owned()) } else { Ok(families) }
}

fn close(families: &mut Families, family: Option<(String, Family)>) -> Result<(), String> {
    let Some((name, family)) = family else { return Ok(()) };
    let mut seen = BTreeSet::new();
    for sample in &family.samples {
        let mut labels = sample.labels.clone();
        labels.sort();
        let names: BTreeSet<&String> = sample.labels.iter().map(|(label, _)| label).collect();
        if names.len() != labels.len() || !seen.insert((&sample.name, labels)) {
            return Err(format!("a series or a label twice: {sample:?}"));
        }
    }
    if family.kind == "histogram" {
        check_histogram(&name, &family)?;
    }
    families.insert(name, family);
    Ok(())
}

/// Every series has ascending bounds, counts that do not fall, the same count at the end, and a sum.
fn check_histogram(name: &str, family: &Family) -> Result<(), String> {
    let mut series: BTreeMap<Vec<(String, String)>, Vec<(f64, f64)>> = BTreeMap::new();
    for sample in family.samples.iter().filter(|sample| sample.name.ends_with("_bucket")) {
        let bound = sample.label("le").ok_or_else(|| format!("a bucket without le: {sample:?}"))?;
        let bound = number(bound).ok_or_else(|| format!("no bound: {sample:?}"))?;
        let labels = sample.labels.iter().filter(|(label, _)| label != "le").cloned().collect();
        series.entry(labels).or_default().push((bound, sample.value));
    }
    for (labels, buckets) in &series {
        let ascend = buckets.is_sorted_by(|one, next| one.0 < next.0 && one.1 <= next.1);
        let last = buckets.last().copied().unwrap_or_default();
        let of = |suffix: &str| {
            let full = format!("{name}_{suffix}");
            family.samples.iter().find(|sample| sample.name == full && sample.labels == *labels).map(|of| of.value)
        };
        if !ascend || last.0 != f64::INFINITY || of("count") != Some(last.1) || of("sum").is_none() {
            return Err(format!("no histogram: {name} {labels:?}"));
        }
    }
    let (counts, sums) = ["_count", "_sum"]
        .map(|suffix| family.samples.iter().filter(|sample| sample.name.ends_with(suffix)).count())
        .into();
    if (counts, sums) == (series.len(), series.len()) {
        Ok(())
    } else {
        Err(format!("a series without buckets: {name}"))
    }
}

fn parse_sample(line: &str) -> Result<Sample, String> {
    let name_end = line.find(['{', ' ']).ok_or("no value")?;
    let (name, mut rest) = line.split_at(name_end);
    let mut labels = Vec::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            let (label, value) = rest.split_once("=\"").ok_or("no label")?;
            if !is_name(label) || label.contains(':') {
                return Err("no label's name".to_owned());
            }
            let (value, behind) = unescape(value)?;
            labels.push((label.to_owned(), value));
            rest = match (behind.strip_prefix(','), behind.strip_prefix('}')) {
                (Some(next), _) => next,
                (_, Some(end)) => {
                    rest = end;
                    break;
                }
                _ => return Err("labels do not end".to_owned()),
            };
        }
    }
    let value = rest.strip_prefix(' ').and_then(number).ok_or("no value")?;
    if !is_name(name) {
        return Err("no name".to_owned());
    }
    Ok(Sample { name: name.to_owned(), labels, value })
}

/// A label's value up to its closing quote, and what follows that.
fn unescape(text: &str) -> Result<(String, &str), String> {
    let mut value = String::new();
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Ok((value, &text[at + 1..])),
            '\\' => match letters.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, escaped @ ('\\' | '"'))) => value.push(escaped),
                _ => return Err("no escape".to_owned()),
            },
            letter => value.push(letter),
        }
    }
    Err("a value does not end".to_owned())
}

fn number(text: &str) -> Option<f64> {
    match text {
        "+Inf" => Some(f64::INFINITY),
        _ if text.starts_with(|first: char| first.is_ascii_digit() || first == '-') => text.parse().ok(),
        _ => None,
    }
}

fn is_name(text: &str) -> bool {
    let is_letter = |letter: char| letter.is_ascii_alphabetic() || letter == '_' || letter == ':';
    text.starts_with(is_letter) && text.chars().all(|letter| is_letter(letter) || letter.is_ascii_digit())
}

#[test]
fn a_text_reads_as_what_it_says() {
    let text = "# HELP a_total Some.\n# TYPE a_total counter\na_total{b=\"x\\\\\\\"\\n\",c=\"\"} 5\na_total 1e3\n\
                # HELP h Some.\n# TYPE h histogram\nh_bucket{le=\"0.5\"} 1\nh_bucket{le=\"+Inf\"} 2\nh_sum 7\nh_count 2\n";
    let families = parse(text).expect("the format");
    let labels = vec![("b".to_owned(), "x\\\"\n".to_owned()), ("c".to_owned(), String::new())];
    assert_eq!(families["a_total"].samples[0], Sample { name: "a_total".to_owned(), labels, value: 5.0 });
    assert_eq!((sum(&families, "a_total", &[]), sum(&families, "a_total", &[("c", "")])), (1005.0, 5.0));
}

#[test]
fn what_is_wrong_is_refused() {
    let head = "# HELP a Some.\n# TYPE a gauge\n";
    let histogram = "# HELP a Some.\n# TYPE a histogram\n";
    for wrong in [
        "a 1\n".to_owned(),
        format!("{head}a 1"),
        format!("{head}b 1\n"),
        format!("{head}a\n"),
        format!("{head}a one\n"),
        format!("{head}a NaN\n"),
        format!("{head}a 1 \n"),
        format!("{head}a 1\na 1\n"),
        format!("{head}a{{b=\"c\"}} 1\na{{b=\"c\"}} 2\n"),
        format!("{head}a{{b=\"c\",b=\"d\"}} 1\n"),
        format!("{head}a{{b=\"c}} 1\n"),
        format!("{head}a{{b=\"\\c\"}} 1\n"),
        format!("{head}a{{b=c}} 1\n"),
        format!("{head}a{{0b=\"c\"}} 1\n"),
        format!("{head}a 1\n{head}a{{b=\"c\"}} 1\n"),
        "# TYPE a gauge\na 1\n".to_owned(),
        "# HELP a Some.\na 1\n".to_owned(),
        "# HELP a\n# TYPE a gauge\n".to_owned(),
        "# HELP a Some.\n# TYPE a counter\na 1\n".to_owned(),
        "# HELP a_total Some.\n# TYPE a_total counter\na_total -1\n".to_owned(),
        format!("{histogram}a_bucket{{le=\"1\"}} 1\na_sum 1\na_count 1\n"),
        format!("{histogram}a_bucket{{le=\"1\"}} 2\na_bucket{{le=\"+Inf\"}} 1\na_sum 1\na_count 1\n"),
        format!(
            "{histogram}a_bucket{{le=\"2\"}} 1\na_bucket{{le=\"1\"}} 1\na_bucket{{le=\"+Inf\"}} 1\na_sum 1\na_count 1\n"
        ),
        format!("{histogram}a_bucket{{le=\"+Inf\"}} 1\na_sum 1\na_count 2\n"),
        format!("{histogram}a_bucket{{le=\"+Inf\"}} 1\na_count 1\n"),
        format!("{histogram}a_sum 1\na_count 1\n"),
    ] {
        assert!(parse(&wrong).is_err(), "{wrong}");
    }
}
