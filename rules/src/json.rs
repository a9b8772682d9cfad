//! A JSON value with its path: typed fields, each fault reported where it is. What AWS's answers and
//! Terraform's output are read with.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;

use crate::diagnostic::{Diagnostic, Origin, SourceKind};
use crate::text;

/// A value and where it is. `null` counts as left out.
#[derive(Clone, Debug)]
pub(crate) struct Cursor<'a> {
    pub(crate) at: Origin,
    pub(crate) value: &'a Value,
}

impl<'a> Cursor<'a> {
    pub(crate) fn get(&self, key: &str) -> Option<Cursor<'a>> {
        let value = self.value.get(key).filter(|value| !value.is_null())?;
        Some(Cursor { at: self.at.field(key), value })
    }

    /// The elements of a list; none if it is left out.
    pub(crate) fn list(&self, key: &str, out: &mut Vec<Diagnostic>) -> Vec<Cursor<'a>> {
        let Some(list) = self.get(key) else { return Vec::new() };
        let Some(elements) = list.value.as_array() else {
            list.expected("a list", out);
            return Vec::new();
        };
        let place = |i| self.at.field(&format!("{key}[{i}]"));
        elements.iter().enumerate().map(|(i, value)| Cursor { at: place(i), value }).collect()
    }

    pub(crate) fn text(&self, key: &str, out: &mut Vec<Diagnostic>) -> Option<&'a str> {
        let field = self.get(key)?;
        let text = field.value.as_str();
        if text.is_none() {
            field.expected("a string", out);
        }
        text
    }

    /// A field that every answer has; reported if it is not there.
    pub(crate) fn required(&self, key: &str, out: &mut Vec<Diagnostic>) -> Option<&'a str> {
        if self.get(key).is_none() {
            out.push(Diagnostic::error(
                "MissingParameter",
                &self.at,
                format!("{key:?} is missing"),
                again(&self.at),
            ));
        }
        self.text(key, out)
    }

    pub(crate) fn flag(&self, key: &str, out: &mut Vec<Diagnostic>) -> Option<bool> {
        let field = self.get(key)?;
        let flag = field.value.as_bool();
        if flag.is_none() {
            field.expected("true or false", out);
        }
        flag
    }

    pub(crate) fn number(&self, key: &str, out: &mut Vec<Diagnostic>) -> Option<i64> {
        let field = self.get(key)?;
        let number = field.value.as_i64();
        if number.is_none() {
            field.expected("a whole number", out);
        }
        number
    }

    /// A range; one with host bits is stored canonical, as AWS stores it (SEMANTICS 2.8).
    pub(crate) fn cidr(
        &self,
        key: &str,
        family: Option<bool>,
        out: &mut Vec<Diagnostic>,
    ) -> Option<IpNet> {
        self.get(key)?.cidr_itself(family, out)
    }

    /// The same, of the value itself.
    pub(crate) fn cidr_itself(
        &self,
        family: Option<bool>,
        out: &mut Vec<Diagnostic>,
    ) -> Option<IpNet> {
        let Some(written) = self.value.as_str() else {
            self.expected("a string", out);
            return None;
        };
        let at = &self.at;
        let (range, had_host_bits) = match text::cidr(written) {
            Ok(found) => found,
            Err(message) => {
                out.push(invalid(at, message, "write a range such as 10.0.0.0/8"));
                return None;
            }
        };
        if family.is_some_and(|ipv6| ipv6 != matches!(range, IpNet::V6(_))) {
            let message = format!("{written:?} is of the wrong family");
            out.push(invalid(at, message, "IPv4 and IPv6 ranges have fields of their own"));
            return None;
        }
        if had_host_bits {
            out.push(Diagnostic::warning(
                "host-bits",
                at,
                format!("{written:?} has host bits set and is stored as \"{range}\""),
                format!("write \"{range}\""),
            ));
        }
        Some(range)
    }

    pub(crate) fn address(&self, key: &str, out: &mut Vec<Diagnostic>) -> Option<IpAddr> {
        let text = self.text(key, out)?;
        let address = text.parse().ok();
        if address.is_none() {
            let message = format!("{text:?} is no IP address");
            out.push(invalid(&self.at.field(key), message, again(&self.at)));
        }
        address
    }

    pub(crate) fn expected(&self, what: &str, out: &mut Vec<Diagnostic>) {
        let found = match self.value {
            Value::Null => "null",
            Value::Bool(_) => "true or false",
            Value::Number(_) => "a number",
            Value::String(_) => "a string",
            Value::Array(_) => "a list",
            Value::Object(_) => "an object",
        };
        let message = format!("expected {what}, found {found}");
        out.push(invalid(&self.at, message, again(&self.at)));
    }
}

pub(crate) fn invalid(at: &Origin, message: String, mend: &str) -> Diagnostic {
    Diagnostic::error("InvalidParameterValue", at, message, mend)
}

/// How to mend what the program that wrote the JSON does not write.
pub(crate) fn again(at: &Origin) -> &'static str {
    match at.source.kind {
        SourceKind::Terraform => "save the output of `terraform show -json` again, whole",
        SourceKind::Aws | SourceKind::Native => {
            "save the answer of `aws ec2 describe-*` again, whole"
        }
    }
}
