//! Which names a topic may have (Kafka 3.9 `Topic`).

#![forbid(unsafe_code)]

/// The longest name; with a partition number after it, it is a directory's.
pub const TOPIC_NAME_BYTES_MAX: usize = 249;

/// Why `name` can't be a topic's.
pub fn check(name: &str) -> Result<(), String> {
    let reason = match name {
        "" => "the empty string is not allowed".to_owned(),
        "." | ".." => format!("'{name}' is not allowed"),
        _ if name.len() > TOPIC_NAME_BYTES_MAX => {
            format!("the length of '{name}' is longer than the max allowed length {TOPIC_NAME_BYTES_MAX}")
        }
        _ if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)) => {
            format!("'{name}' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'")
        }
        _ => return Ok(()),
    };
    Err(format!("Topic name is invalid: {reason}"))
}

/// Whether `name` has a character that metric names turn into another.
pub fn can_collide(name: &str) -> bool {
    name.contains(['.', '_'])
}

/// Two names collide if this is the same for both.
pub fn unified(name: &str) -> String {
    name.replace('.', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kafkas() {
        for good in ["a", "A.b_c-9", "...", &"x".repeat(249)] {
            assert_eq!(check(good), Ok(()));
        }
        for bad in ["", ".", "..", "a b", "a/b", "\u{e9}", "a\0", &"x".repeat(250)] {
            assert!(check(bad).is_err(), "{bad:?}");
        }
        assert!(can_collide("a.b") && can_collide("a_b") && !can_collide("a-b"));
        assert_eq!(unified("a.b_c"), unified("a_b.c"));
    }
}
