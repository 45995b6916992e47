//! Values of arguments that several commands take.

/// A number of bytes, also as `64k`, `16m`, `1g` or with `KiB`, `MiB`, `GiB`.
pub fn bytes(text: &str) -> Result<u64, String> {
    let lower = text.to_ascii_lowercase();
    let digits = lower.trim_end_matches(|character: char| !character.is_ascii_digit());
    let unit: u64 = match &lower[digits.len()..] {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        _ => return Err("write bytes as a number, or with k, m or g".to_owned()),
    };
    let number = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(unit)).filter(|bytes| *bytes > 0);
    number.ok_or_else(|| "write bytes as a number above 0, or with k, m or g".to_owned())
}
