//! How things look on a terminal, the same in every command.

use anstyle::{AnsiColor, Style};

/// Green passes, red is dropped, the rest is dim.
pub(crate) fn verdict(verdict: &str) -> Style {
    match verdict {
        "pass" => Style::new().fg_color(Some(AnsiColor::Green.into())),
        "drop" => Style::new().fg_color(Some(AnsiColor::Red.into())),
        _ => Style::new().dimmed(),
    }
}

/// `1234567` as `1,234,567`.
pub(crate) fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn digits_are_grouped_by_three() {
        let grouped = super::grouped;
        assert_eq!([grouped(0), grouped(999), grouped(1000)], ["0", "999", "1,000"]);
        assert_eq!(grouped(12_345_678), "12,345,678");
    }
}
