//! Java's properties format, as `server.properties` uses it.
//!
//! `#` and `!` start comments; `=`, `:` or white space ends a name; a backslash at the end of a line goes on in the next
//! one, elsewhere it escapes (`\t \n \r \f \uXXXX`, any other character stands for itself). Bytes are Latin-1, as Java
//! reads them. A later line of the same name wins.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use thiserror::Error;

#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("line {line}: \\u needs four hexadecimal digits after it")]
pub struct BadEscape {
    /// Where the logical line starts, from 1.
    pub line: usize,
}

/// Names and values in the order of their names.
pub fn parse(bytes: &[u8]) -> Result<BTreeMap<String, String>, BadEscape> {
    let text: String = bytes.iter().map(|byte| char::from(*byte)).collect();
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let mut properties = BTreeMap::new();
    let mut lines = text.split('\n').zip(1..);
    while let Some((first, line)) = lines.next() {
        let first = first.trim_start_matches(is_blank);
        if first.is_empty() || first.starts_with(['#', '!']) {
            continue;
        }
        let mut logical = first.to_owned();
        while ends_open(&logical) {
            logical.pop();
            let Some((next, _)) = lines.next() else { break };
            logical.push_str(next.trim_start_matches(is_blank));
        }
        let (name, value) = split(&logical);
        let unescaped = |text| unescape(text).ok_or(BadEscape { line });
        properties.insert(unescaped(name)?, unescaped(value)?.trim().to_owned());
    }
    Ok(properties)
}

fn is_blank(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\u{c}')
}

/// Whether the line ends in a backslash that is not itself escaped.
fn ends_open(line: &str) -> bool {
    line.bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 1
}

/// Name and value, both still escaped.
fn split(line: &str) -> (&str, &str) {
    let mut escaped = false;
    let end = line.find(|character| {
        let ends = !escaped && (is_blank(character) || character == '=' || character == ':');
        escaped = !escaped && character == '\\';
        ends
    });
    let Some(end) = end else { return (line, "") };
    let rest = line[end..].trim_start_matches(is_blank);
    let value = rest.strip_prefix(['=', ':']).unwrap_or(rest);
    (&line[..end], value.trim_start_matches(is_blank))
}

fn unescape(text: &str) -> Option<String> {
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character != '\\' {
            plain.push(character);
            continue;
        }
        match characters.next() {
            Some('t') => plain.push('\t'),
            Some('n') => plain.push('\n'),
            Some('r') => plain.push('\r'),
            Some('f') => plain.push('\u{c}'),
            Some('u') => {
                let digits: String = characters.by_ref().take(4).collect();
                let code = Some(digits).filter(|digits| digits.len() == 4)?;
                let code = u32::from_str_radix(&code, 16).ok()?;
                // Half of a surrogate pair is no character; Java would keep it, nothing here can.
                plain.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            Some(other) => plain.push(other),
            None => {}
        }
    }
    Some(plain)
}

/// For the fuzz tests: any bytes give an answer.
pub fn fuzz_properties(bytes: &[u8]) {
    if let Ok(properties) = parse(bytes) {
        assert!(properties.len() <= bytes.len(), "a name needs a byte");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(text: &str) -> Vec<(String, String)> {
        parse(text.as_bytes()).unwrap().into_iter().collect()
    }

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.into(), value.into())
    }

    #[test]
    fn separators_comments_and_blank_lines_are_javas() {
        let text = "# comment\n! another\n\na=1\nb : 2\n  c 3  \nd=\ne\nf==x\ng=a=b:c\r\nh=1\ra=9";
        let expected =
            [("a", "9"), ("b", "2"), ("c", "3"), ("d", ""), ("e", ""), ("f", "=x"), ("g", "a=b:c"), ("h", "1")];
        assert_eq!(parsed(text), expected.map(|(name, value)| pair(name, value)));
    }

    #[test]
    fn a_backslash_continues_a_line_or_escapes() {
        assert_eq!(parsed("a=1,\\\n   2,\\\r\n\t3\nb=2"), [pair("a", "1,2,3"), pair("b", "2")]);
        assert_eq!(parsed("a=1\\\n\nb=2"), [pair("a", "1"), pair("b", "2")]);
        assert_eq!(parsed("a=c:\\\\\nb=1"), [pair("a", "c:\\"), pair("b", "1")]);
        assert_eq!(parsed("a\\ b\\=c=\\u0041\\t.\\q"), [pair("a b=c", "A\t.q")]);
        assert_eq!(parsed("a=1\\"), [pair("a", "1")]);
        assert_eq!(parse(b"ok=1\r\na=\\u00g1"), Err(BadEscape { line: 2 }));
        assert_eq!(parse(b"a=\\u12"), Err(BadEscape { line: 1 }));
    }

    #[test]
    fn bytes_beyond_ascii_are_latin_1() {
        assert_eq!(parse(b"a=\xe9").unwrap()["a"], "\u{e9}");
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_or_refused(bytes in proptest::collection::vec(
            prop_oneof![any::<u8>(), prop::sample::select(b"\\u\n\r=: #ab1".to_vec())], 0..200)) {
            fuzz_properties(&bytes);
        }
    }
}
