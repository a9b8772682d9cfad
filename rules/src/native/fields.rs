//! A TOML table as a reader of policies wants it: typed fields, each fault reported where it is.

use std::collections::HashMap;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::diagnostic::{Diagnostic, Origin, Source, SourceKind};

/// Parses a file; syntax errors go to `out`, and then there is no table.
pub(super) fn parse<'i>(
    name: &str,
    text: &'i str,
    out: &mut Vec<Diagnostic>,
) -> Option<(Spanned<DeTable<'i>>, Arc<Source>)> {
    let (table, errors) = DeTable::parse_recoverable(text);
    let line_starts: Vec<usize> =
        std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
    let line = |at: usize| line_starts.partition_point(|&start| start <= at) as u32;
    let mut lines = HashMap::new();
    if errors.is_empty() {
        note_lines(&mut lines, "", table.get_ref(), &line);
    } else {
        for (n, error) in errors.iter().enumerate() {
            lines.insert(format!("syntax[{n}]"), line(error.span().map_or(0, |span| span.start)));
        }
    }
    let source = Arc::new(Source { name: name.to_owned(), kind: SourceKind::Native, lines });
    for (n, error) in errors.iter().enumerate() {
        out.push(Diagnostic::error(
            "syntax",
            &Origin::new(&source, format!("syntax[{n}]")),
            format!("not valid TOML: {}", error.message()),
            "correct this line; docs/policy.md shows the form",
        ));
    }
    errors.is_empty().then_some((table, source))
}

/// Notes the line of every key and array element, by path.
fn note_lines(
    lines: &mut HashMap<String, u32>,
    path: &str,
    table: &DeTable<'_>,
    line: &impl Fn(usize) -> u32,
) {
    for (key, value) in table {
        let name = key.get_ref();
        let path = if path.is_empty() { name.to_string() } else { format!("{path}.{name}") };
        note_value(lines, &path, value, line);
        lines.insert(path, line(key.span().start));
    }
}

fn note_value(
    lines: &mut HashMap<String, u32>,
    path: &str,
    value: &Spanned<DeValue<'_>>,
    line: &impl Fn(usize) -> u32,
) {
    match value.get_ref() {
        DeValue::Table(table) => note_lines(lines, path, table, line),
        DeValue::Array(array) => {
            for (i, element) in array.iter().enumerate() {
                let path = format!("{path}[{i}]");
                note_value(lines, &path, element, line);
                lines.insert(path, line(element.span().start));
            }
        }
        _ => {}
    }
}

/// The fields of one table. Every getter reports a value of the wrong type and then answers as if
/// the field were left out.
pub(super) struct Fields<'a, 'i> {
    /// Where the table is.
    pub(super) at: Origin,
    table: &'a DeTable<'i>,
}

impl<'a, 'i> Fields<'a, 'i> {
    /// Reports keys that are not among `known`.
    pub(super) fn new(
        table: &'a DeTable<'i>,
        at: Origin,
        known: &[&str],
        out: &mut Vec<Diagnostic>,
    ) -> Self {
        for (key, _) in table {
            let name = key.get_ref().as_ref();
            if !known.contains(&name) {
                let mend = match nearest(name, known) {
                    Some(near) => format!("did you mean {near:?}?"),
                    None => format!("remove it; known here: {}", known.join(", ")),
                };
                let message = format!("unknown key {name:?}");
                out.push(Diagnostic::error("unknown-key", &at.field(name), message, mend));
            }
        }
        Fields { at, table }
    }

    fn get(&self, key: &str) -> Option<&'a DeValue<'i>> {
        self.table.get(key).map(Spanned::get_ref)
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    fn wrong_type(&self, key: &str, found: &DeValue<'_>, what: &str, out: &mut Vec<Diagnostic>) {
        out.push(wrong_type(&self.at.field(key), found, what));
    }

    pub(super) fn string(&self, key: &str, out: &mut Vec<Diagnostic>) -> Option<String> {
        let value = self.get(key)?;
        let text = value.as_str().map(str::to_owned);
        if text.is_none() {
            self.wrong_type(key, value, "a string", out);
        }
        text
    }

    /// A field that must be there; empty, and reported, if it is not.
    pub(super) fn required(&self, key: &str, out: &mut Vec<Diagnostic>) -> String {
        if !self.has(key) {
            out.push(Diagnostic::error(
                "MissingParameter",
                &self.at,
                format!("{key:?} is missing"),
                format!("add {key} = …"),
            ));
        }
        let text = self.string(key, out);
        if text.as_deref() == Some("") {
            out.push(Diagnostic::error(
                "InvalidParameterValue",
                &self.at.field(key),
                format!("{key:?} is empty"),
                "give it a value",
            ));
        }
        text.unwrap_or_default()
    }

    pub(super) fn boolean(&self, key: &str, out: &mut Vec<Diagnostic>) -> Option<bool> {
        let value = self.get(key)?;
        let flag = value.as_bool();
        if flag.is_none() {
            self.wrong_type(key, value, "true or false", out);
        }
        flag
    }

    /// A boolean where the field may also be of another type, which is not reported.
    pub(super) fn boolean_or_other(&self, key: &str) -> Option<bool> {
        self.get(key)?.as_bool()
    }

    /// A string where the field may also be of another type, which is not reported.
    pub(super) fn string_or_other(&self, key: &str) -> Option<&'a str> {
        self.get(key)?.as_str()
    }

    /// An integer in `first..=last`.
    pub(super) fn integer<T: TryFrom<i64>>(
        &self,
        key: &str,
        (first, last): (i64, i64),
        out: &mut Vec<Diagnostic>,
    ) -> Option<T> {
        integer(&self.at.field(key), key, self.get(key)?, (first, last), out)
    }

    /// An array of integers in `first..=last`.
    pub(super) fn integers<T: TryFrom<i64>>(
        &self,
        key: &str,
        range: (i64, i64),
        out: &mut Vec<Diagnostic>,
    ) -> Vec<T> {
        let elements = self.elements(key, out).into_iter();
        elements.filter_map(|(at, value)| integer(&at, key, value, range, out)).collect()
    }

    /// A string, or a whole number as its digits: `protocol = "tcp"` and `protocol = 47`,
    /// `ports = "443"` and `ports = 443` are all natural to write.
    pub(super) fn word(&self, key: &str, out: &mut Vec<Diagnostic>) -> Option<String> {
        match self.get(key)? {
            DeValue::Integer(n) if n.radix() == 10 => Some(n.as_str().to_owned()),
            DeValue::String(s) => Some(s.to_string()),
            other => {
                self.wrong_type(key, other, "a string or a whole number", out);
                None
            }
        }
    }

    /// The elements of an array, with their places; none if the field is left out.
    fn elements(&self, key: &str, out: &mut Vec<Diagnostic>) -> Vec<(Origin, &'a DeValue<'i>)> {
        let Some(value) = self.get(key) else { return Vec::new() };
        let Some(array) = value.as_array() else {
            self.wrong_type(key, value, "an array", out);
            return Vec::new();
        };
        let place = |i| self.at.field(&format!("{key}[{i}]"));
        array.iter().enumerate().map(|(i, e)| (place(i), e.get_ref())).collect()
    }

    /// An array of strings.
    pub(super) fn strings(&self, key: &str, out: &mut Vec<Diagnostic>) -> Vec<(Origin, String)> {
        let mut strings = Vec::new();
        for (at, value) in self.elements(key, out) {
            match value.as_str() {
                Some(text) => strings.push((at, text.to_owned())),
                None => out.push(wrong_type(&at, value, "a string")),
            }
        }
        strings
    }

    /// An array of tables, each with the keys `known`.
    pub(super) fn tables(
        &self,
        key: &str,
        known: &[&str],
        out: &mut Vec<Diagnostic>,
    ) -> Vec<Fields<'a, 'i>> {
        let mut tables = Vec::new();
        for (at, value) in self.elements(key, out) {
            match value.as_table() {
                Some(table) => tables.push(Fields::new(table, at, known, out)),
                None => out.push(wrong_type(&at, value, "a table")),
            }
        }
        tables
    }

    /// A table with the keys `known`.
    pub(super) fn table(
        &self,
        key: &str,
        known: &[&str],
        out: &mut Vec<Diagnostic>,
    ) -> Option<Fields<'a, 'i>> {
        let value = self.get(key)?;
        match value.as_table() {
            Some(table) => Some(Fields::new(table, self.at.field(key), known, out)),
            None => {
                self.wrong_type(key, value, "a table", out);
                None
            }
        }
    }
}

fn integer<T: TryFrom<i64>>(
    at: &Origin,
    key: &str,
    value: &DeValue<'_>,
    (first, last): (i64, i64),
    out: &mut Vec<Diagnostic>,
) -> Option<T> {
    let Some(integer) = value.as_integer() else {
        out.push(wrong_type(at, value, "a whole number"));
        return None;
    };
    let number = i64::from_str_radix(integer.as_str(), integer.radix()).ok();
    let fits = number.filter(|n| (first..=last).contains(n)).and_then(|n| T::try_from(n).ok());
    if fits.is_none() {
        out.push(Diagnostic::error(
            "InvalidParameterValue",
            at,
            format!("{key} = {} is out of range", integer.as_str()),
            format!("choose a value in {first}-{last}"),
        ));
    }
    fits
}

fn wrong_type(at: &Origin, found: &DeValue<'_>, what: &str) -> Diagnostic {
    Diagnostic::error(
        "InvalidParameterValue",
        at,
        format!("expected {what}, found {}", found.type_str()),
        format!("write {what}"),
    )
}

/// The known key that was probably meant: the nearest by edits, if at most a third of its letters
/// differ.
#[must_use]
pub fn nearest<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    let near = known.iter().map(|key| (edits(name, key), *key)).min()?;
    (near.0 * 3 <= near.1.len().max(3)).then_some(near.1)
}

/// Levenshtein distance.
fn edits(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, to) in b.chars().enumerate() {
            let replaced = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_key_is_suggested_only_if_it_is_near() {
        let known = ["ingress", "egress", "description"];
        assert_eq!(nearest("ingres", &known), Some("ingress"));
        assert_eq!(nearest("desciption", &known), Some("description"));
        assert_eq!(nearest("colour", &known), None);
    }
}
