//! Sizes as people write them: `512M`, `8G`.
#![forbid(unsafe_code)]

/// Reads a size in bytes, with an optional suffix `K`, `M`, `G` or `T` (powers of 1024).
///
/// # Errors
/// A sentence that says what a size looks like.
pub(crate) fn parse(text: &str) -> Result<u64, String> {
    let wrong = || format!("'{text}' is not a size; write for example 512M or 8G");
    let trimmed = text.trim_end_matches(['B', 'b']).trim_end_matches('i');
    let digits = trimmed.trim_end_matches(|last: char| last.is_ascii_alphabetic());
    let shift = match trimmed[digits.len()..].to_ascii_uppercase().as_str() {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return Err(wrong()),
    };
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    number
        .checked_mul(1 << shift)
        .filter(|&bytes| bytes > 0)
        .ok_or_else(wrong)
}

/// Writes a size for people, e.g. `1.5 GiB`.
pub(crate) fn show(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let step = (bytes.max(1).ilog2() / 10).min(4);
    if step == 0 {
        return format!("{bytes} B");
    }
    let scaled = bytes as f64 / (1u64 << (10 * step)) as f64;
    format!("{scaled:.1} {}", UNITS[step as usize])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        assert_eq!(parse("4096"), Ok(4096));
        assert_eq!(parse("512M"), Ok(512 << 20));
        assert_eq!(parse("8g"), Ok(8 << 30));
        assert_eq!(parse("1GiB"), Ok(1 << 30));
        for wrong in ["", "0", "G", "8X", "-1", "1.5G", "99999999999T"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_are_shown_in_the_largest_fitting_unit() {
        assert_eq!(show(0), "0 B");
        assert_eq!(show(1023), "1023 B");
        assert_eq!(show(3 << 29), "1.5 GiB");
    }
}
