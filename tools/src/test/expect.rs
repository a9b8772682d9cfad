//! What a test expects of one packet: `pass`, `drop no-rule`, `pass reply by sg-web/ingress-1`.

use std::fmt;

use crate::found::{Fate, Found};

/// What a packet is expected to become; what is not said may be anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Expectation {
    fate: Fate,
    reason: Option<String>,
    rule: Option<String>,
    state: Option<String>,
    mtu: Option<u16>,
}

const STATES: [&str; 5] = ["new", "established", "reply", "related", "untracked"];

impl Expectation {
    /// `FATE [REASON] [by RULE] [state STATE] [mtu BYTES]`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut words = text.split_whitespace().map(|word| word.trim_end_matches(','));
        let fate = match words.next() {
            Some("pass") => Fate::Pass,
            Some("drop") => Fate::Drop,
            Some("skip") => Fate::Skip,
            Some("held") => Fate::Held,
            Some(other) => {
                return Err(format!("{other:?}: expected pass, drop, skip or held after =>"));
            }
            None => return Err("nothing after =>: write what is expected, pass or drop".into()),
        };
        let mut expected = Expectation { fate, reason: None, rule: None, state: None, mtu: None };
        while let Some(word) = words.next() {
            let mut value = |what: &str| {
                words.next().map(str::to_owned).ok_or_else(|| format!("{word}: {what} is missing"))
            };
            match word {
                "by" => expected.rule = Some(value("the rule, such as sg-web/ingress-1,")?),
                "state" => {
                    let state = value("the state")?;
                    if !STATES.contains(&&state[..]) {
                        let states = STATES.join(", ");
                        return Err(format!("state {state}: no such state; there are {states}"));
                    }
                    expected.state = Some(state);
                }
                "mtu" => {
                    let mtu = value("the number of bytes")?;
                    let bytes = mtu.parse().map_err(|_| format!("mtu {mtu}: expected bytes"))?;
                    expected.mtu = Some(bytes);
                }
                reason => {
                    check_reason(fate, reason)?;
                    expected.reason = Some(reason.to_owned());
                }
            }
        }
        Ok(expected)
    }

    /// Whether that is what came of it.
    pub(super) fn holds(&self, found: &Found) -> bool {
        let is = |wanted: &Option<String>, found: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| found == Some(wanted))
        };
        self.fate == found.fate
            && is(&self.reason, Some(found.reason))
            && (is(&self.rule, found.rule.as_deref())
                || is(&self.rule, found.admitted_by.as_deref()))
            && is(&self.state, found.state)
            && self.mtu.is_none_or(|mtu| found.mtu == Some(mtu))
    }
}

/// Fails with the reasons that there are.
pub(super) fn check_reason(fate: Fate, reason: &str) -> Result<(), String> {
    let reasons = fate.reasons();
    match reasons.contains(&reason) {
        true => Ok(()),
        false => Err(format!(
            "{reason:?} is no reason to {}; there are {}",
            fate.as_str(),
            if reasons.is_empty() { "none".to_owned() } else { reasons.join(", ") }
        )),
    }
}

impl fmt::Display for Expectation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.fate.as_str())?;
        for (word, value) in [(" ", &self.reason), (" by ", &self.rule), (" state ", &self.state)] {
            if let Some(value) = value {
                write!(f, "{word}{value}")?;
            }
        }
        match self.mtu {
            Some(mtu) => write!(f, " mtu {mtu}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_must_hold_and_nothing_else() {
        let found = Found {
            fate: Fate::Pass,
            reason: "reply",
            rule: None,
            admitted_by: Some("sg-1/ingress-1".into()),
            state: Some("reply"),
            mtu: Some(1500),
        };
        for (text, holds) in [
            ("pass", true),
            ("pass reply", true),
            ("pass reply, by sg-1/ingress-1, state reply, mtu 1500", true),
            ("pass established", false),
            ("pass by sg-1/ingress-2", false),
            ("pass state new", false),
            ("pass mtu 1400", false),
            ("drop", false),
            ("held", false),
        ] {
            let expected = Expectation::parse(text).expect(text);
            assert_eq!(expected.holds(&found), holds, "{text}");
            let again = Expectation::parse(&expected.to_string()).expect(text);
            assert_eq!(again, expected);
        }
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for (text, error) in [
            ("", "nothing after =>"),
            ("accept", "\"accept\": expected pass, drop"),
            ("drop reply", "\"reply\" is no reason to drop; there are malformed"),
            ("pass by", "by: the rule, such as sg-web/ingress-1, is missing"),
            ("pass state old", "no such state; there are new"),
            ("pass mtu big", "expected bytes"),
        ] {
            let found = Expectation::parse(text).expect_err(text);
            assert!(found.contains(error), "{text}: {found}");
        }
    }
}
