//! Numbers as people read them.
#![forbid(unsafe_code)]

/// A count with its thousands apart, e.g. `1,204`.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A time, given in milliseconds, with a unit that fits.
pub(super) fn ms(time: f64) -> String {
    match time {
        time if time < 0.0005 => "0".to_owned(),
        time if time < 1.0 => format!("{:.0} µs", time * 1e3),
        time if time < 10.0 => format!("{time:.1} ms"),
        time if time < 1000.0 => format!("{time:.0} ms"),
        time if time < 100_000.0 => format!("{:.2} s", time / 1e3),
        time => format!("{:.0} s", time / 1e3),
    }
}

/// A word for one or for several, with the number.
pub(super) fn several(number: u64, one: &str, more: &str) -> String {
    match number {
        1 => format!("1 {one}"),
        _ => format!("{} {more}", count(number)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!(
            [count(0), count(999), count(1204), count(1_000_000)],
            ["0", "999", "1,204", "1,000,000"]
        );
        assert_eq!(
            [ms(0.25), ms(3.21), ms(250.0), ms(2500.0)],
            ["250 µs", "3.2 ms", "250 ms", "2.50 s"]
        );
        assert_eq!(several(1, "file", "files"), "1 file");
        assert_eq!(several(2000, "file", "files"), "2,000 files");
    }
}
