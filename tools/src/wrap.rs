//! Text for people: wrapped at a fixed width, so that it can be pasted into a ticket.

/// Columns of a line.
pub(crate) const WIDTH: usize = 100;

/// `text` in lines of at most [`WIDTH`] columns, the first of which begins at column `first` and
/// all others at `indent`. Words are never broken, nor what stands between backticks, which is meant
/// to be copied: one that is too long stands alone.
pub(crate) fn wrap(text: &str, first: usize, indent: usize) -> String {
    let mut wrapped = String::new();
    let mut column = first;
    for (n, word) in words(text).iter().enumerate() {
        let len = word.chars().count();
        if n > 0 && column + 1 + len > WIDTH {
            wrapped.push('\n');
            wrapped.extend(std::iter::repeat_n(' ', indent));
            column = indent;
        } else if n > 0 {
            wrapped.push(' ');
            column += 1;
        }
        wrapped.push_str(word);
        column += len;
    }
    wrapped
}

/// Words; what stands between backticks is one.
fn words(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match words.last_mut().filter(|last| last.matches('`').count() % 2 == 1) {
            Some(open) => {
                open.push(' ');
                open.push_str(word);
            }
            None => words.push(word.to_owned()),
        }
    }
    words
}

/// `s` unless there is one.
pub(crate) const fn plural(n: usize) -> &'static str {
    if n == 1 { "" } else { "s" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_at_the_width_and_words_are_whole() {
        let text = "word ".repeat(60);
        let wrapped = wrap(&text, 30, 8);
        let lines: Vec<_> = wrapped.lines().collect();
        assert!(lines[0].len() <= WIDTH - 30, "{wrapped}");
        assert!(lines[1..].iter().all(|l| l.len() <= WIDTH && l.starts_with("        word")));
        assert_eq!(wrapped.split_whitespace().count(), 60);
        let long = "x".repeat(150);
        assert_eq!(wrap(&long, 0, 4), long);
        let code = format!("add {} `ingress tcp 22 from 10.0.0.0/8` to it", "x".repeat(80));
        assert!(wrap(&code, 0, 2).contains("\n  `ingress tcp 22 from 10.0.0.0/8` to it"));
    }
}
