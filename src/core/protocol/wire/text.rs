//! Strings of the wire as Java reads them.
//!
//! A client may send any bytes where the protocol says UTF-8: `client.id=caf\xe9` is a configuration file in Latin-1. Kafka
//! makes text of all of them (`new String(bytes, UTF_8)`): what is malformed becomes U+FFFD, and the request goes on, to be
//! answered or refused for what it says. So a string never damages a message.

use std::borrow::Cow;

/// What stands for malformed bytes.
const REPLACEMENT: char = char::REPLACEMENT_CHARACTER;

/// The text of some bytes: lent where they are UTF-8, else with U+FFFD for each malformed piece.
///
/// Pieces are Unicode's "maximal subparts", as everywhere, except for an encoded surrogate: Java takes its bytes for one
/// piece, as far as they are there (`String.decodeUTF8_UTF16`).
pub fn decode(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => Cow::Owned(replaced(bytes)),
    }
}

fn replaced(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    // Continuation bytes of an encoded surrogate that may still follow.
    let mut of_surrogate = 0;
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        if !chunk.valid().is_empty() {
            of_surrogate = 0;
        }
        match (chunk.invalid(), of_surrogate) {
            ([], _) => {}
            ([0xa0..=0xbf], 2) => of_surrogate = 1,
            ([0x80..=0xbf], 1) => of_surrogate = 0,
            (malformed, _) => {
                text.push(REPLACEMENT);
                of_surrogate = if malformed == [0xed] { 2 } else { 0 };
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes and text, both in hexadecimal, of Java 17's `new String(bytes, UTF_8)`.
    const GOLDEN: &str = include_str!("../../../../tests/golden/protocol/java-text.txt");

    fn bytes_of(hexadecimal: &str) -> Vec<u8> {
        let digit = |digit: u8| char::from(digit).to_digit(16).expect("a digit") as u8;
        hexadecimal.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
    }

    #[test]
    fn malformed_bytes_become_what_java_makes_of_them() {
        let mut count = 0;
        for line in GOLDEN.lines().filter(|line| !line.starts_with('#')) {
            let (bytes, text) = line.split_once('\t').expect("two fields");
            assert_eq!(decode(&bytes_of(bytes)).as_bytes(), bytes_of(text), "{bytes}");
            count += 1;
        }
        assert!(count > 1000, "{count}");
    }

    #[test]
    fn what_is_utf_8_is_lent() {
        for text in ["", "a", "café", "\u{10ffff}\u{fffd}"] {
            assert!(matches!(decode(text.as_bytes()), Cow::Borrowed(lent) if lent == text));
        }
        assert_eq!(decode(b"caf\xe9"), "caf\u{fffd}");
    }
}
