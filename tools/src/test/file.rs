//! Test files: TOML, read whole and checked before anything is judged. `docs/guides/policy-tests.md` has
//! the format.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use serde::Deserialize;
use toml::Spanned;

use super::claim::Claim;
use super::expect::Expectation;
use crate::cli::{OnReload, TrafficArgs, address_or_cidr};
use crate::explain::Question;
use crate::failure::Failure;
use crate::replay::At;

/// Files of a directory that are tests.
pub(super) const ENDING: &str = ".test.toml";
/// Tracked flows at once, as `replay` has it.
const MAX_FLOWS: usize = 1 << 20;

/// A file with tests.
#[derive(Debug)]
pub(super) struct TestFile {
    pub(super) path: PathBuf,
    pub(super) tests: Vec<Test>,
}

/// One test.
#[derive(Debug)]
pub(super) struct Test {
    pub(super) name: String,
    /// Where it begins, from 1.
    pub(super) line: usize,
    pub(super) policy: Vec<PathBuf>,
    pub(super) traffic: TrafficArgs,
    pub(super) on_reload: OnReload,
    pub(super) body: Body,
}

#[derive(Debug)]
pub(super) enum Body {
    /// Packets by hand.
    Steps(Vec<Step>),
    Captures {
        captures: Vec<PathBuf>,
        at: Vec<At>,
        claims: Vec<Stated>,
    },
}

/// A claim, and where it stands.
#[derive(Debug)]
pub(super) struct Stated {
    pub(super) line: usize,
    pub(super) text: String,
    pub(super) claim: Claim,
}

/// One step, and where it stands.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) line: usize,
    pub(super) text: String,
    pub(super) what: What,
}

#[derive(Debug)]
pub(super) enum What {
    Packet(Box<Question>, Expectation),
    Wait(Duration),
    Reload(Vec<PathBuf>),
}

/// The file as it is written. Keys of the whole file hold for tests that do not say otherwise.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    policy: Option<OneOrMore>,
    interface: Option<OneOrMore>,
    local: Option<OneOrMore>,
    offload: Option<bool>,
    max_flows: Option<usize>,
    on_reload: Option<RawOnReload>,
    #[serde(default)]
    test: Vec<Spanned<RawTest>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTest {
    name: String,
    policy: Option<OneOrMore>,
    interface: Option<OneOrMore>,
    local: Option<OneOrMore>,
    offload: Option<bool>,
    max_flows: Option<usize>,
    on_reload: Option<RawOnReload>,
    steps: Option<Vec<Spanned<String>>>,
    capture: Option<OneOrMore>,
    at: Option<OneOrMore>,
    expect: Option<Vec<Spanned<String>>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "expected a string or a list of strings")]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum RawOnReload {
    Keep,
    Rejudge,
}

impl OneOrMore {
    fn list(this: Option<&Self>) -> Vec<String> {
        match this {
            None => Vec::new(),
            Some(OneOrMore::One(one)) => vec![one.clone()],
            Some(OneOrMore::More(more)) => more.clone(),
        }
    }
}

/// The test files of these paths: files, and of directories those that end so.
pub(super) fn find(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    let mut found = Vec::new();
    for path in paths {
        if !path.is_dir() {
            found.push(path.clone());
            continue;
        }
        let unreadable = |error| Failure::Io(format!("cannot read {}: {error}", path.display()));
        let entries = fs::read_dir(path).map_err(unreadable)?;
        let mut inside = Vec::new();
        for entry in entries {
            let file = entry.map_err(unreadable)?.path();
            if file.to_string_lossy().ends_with(ENDING) && file.is_file() {
                inside.push(file);
            }
        }
        if inside.is_empty() {
            return Err(Failure::Usage(format!(
                "{}: the directory holds no file that ends in {ENDING}; name the test files \
                 themselves",
                path.display()
            )));
        }
        inside.sort();
        found.extend(inside);
    }
    Ok(found)
}

impl TestFile {
    /// # Errors
    /// Everything that is wrong with the file, each with its line.
    pub(super) fn read(path: &Path) -> Result<Self, Failure> {
        let text = fs::read_to_string(path)
            .map_err(|error| Failure::Io(format!("cannot read {}: {error}", path.display())))?;
        Self::parse(path, &text)
    }

    fn parse(path: &Path, text: &str) -> Result<Self, Failure> {
        let raw: RawFile = toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(1, |span| line_of(text, span.start));
            Failure::Usage(format!("{}:{line}: {}", path.display(), error.message()))
        })?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let reader = Reader { folder, text, raw: &raw };
        let mut faults = Vec::new();
        let tests = raw.test.iter().filter_map(|test| reader.test(test, &mut faults)).collect();
        if raw.test.is_empty() {
            faults.push((1, "the file has no [[test]]".to_owned()));
        }
        if faults.is_empty() {
            return Ok(TestFile { path: path.to_owned(), tests });
        }
        let lines =
            faults.iter().map(|(line, fault)| format!("{}:{line}: {fault}", path.display()));
        Err(Failure::Usage(lines.collect::<Vec<_>>().join("\n       ")))
    }

    /// The files and directories that its results depend on.
    pub(super) fn depends_on(&self) -> Vec<PathBuf> {
        let mut paths = vec![self.path.clone()];
        for test in &self.tests {
            paths.extend(test.policy.iter().cloned());
            match &test.body {
                Body::Steps(steps) => {
                    for step in steps {
                        if let What::Reload(files) = &step.what {
                            paths.extend(files.iter().cloned());
                        }
                    }
                }
                Body::Captures { captures, at, .. } => {
                    paths.extend(captures.iter().cloned());
                    paths.extend(at.iter().map(|at| at.path().to_owned()));
                }
            }
        }
        paths.sort();
        paths.dedup();
        paths
    }
}

/// What reading a test takes from its file.
struct Reader<'a> {
    folder: &'a Path,
    text: &'a str,
    raw: &'a RawFile,
}

/// What is wrong, and in which line.
type Faults = Vec<(usize, String)>;

impl Reader<'_> {
    fn test(&self, test: &Spanned<RawTest>, faults: &mut Faults) -> Option<Test> {
        let line = line_of(self.text, test.span().start);
        let (test, file) = (test.get_ref(), self.raw);
        let before = faults.len();
        let policy = self.paths(test.policy.as_ref().or(file.policy.as_ref()));
        if policy.is_empty() {
            faults.push((line, format!("{:?} has no policy: give it `policy = FILE`", test.name)));
        }
        let local = OneOrMore::list(test.local.as_ref().or(file.local.as_ref()));
        let mut nets: Vec<IpNet> = Vec::new();
        for text in &local {
            match address_or_cidr(text) {
                Ok(net) => nets.push(net),
                Err(fault) => faults.push((line, format!("local = {text:?}: {fault}"))),
            }
        }
        let traffic = TrafficArgs {
            interface: OneOrMore::list(test.interface.as_ref().or(file.interface.as_ref())),
            direction: None,
            local: nets,
            offload: test.offload.or(file.offload).unwrap_or(false),
            max_flows: test.max_flows.or(file.max_flows).unwrap_or(MAX_FLOWS),
        };
        let on_reload = match test.on_reload.or(file.on_reload) {
            Some(RawOnReload::Rejudge) => OnReload::Rejudge,
            _ => OnReload::Keep,
        };
        let body = match (&test.steps, &test.capture) {
            (Some(steps), None) => {
                for (key, is_given) in
                    [("expect", test.expect.is_some()), ("at", test.at.is_some())]
                {
                    if is_given {
                        let fault = format!("{:?}: `{key}` is for tests of a `capture`", test.name);
                        faults.push((line, fault));
                    }
                }
                let read = |step| self.step(step, faults);
                let steps: Vec<_> = steps.iter().filter_map(read).collect();
                if !steps.iter().any(|step| matches!(step.what, What::Packet(..))) {
                    faults.push((line, format!("{:?} has no packet: it tests nothing", test.name)));
                }
                Body::Steps(steps)
            }
            (None, Some(captures)) => Body::Captures {
                captures: self.paths(Some(captures)),
                at: self.changes(test, line, faults),
                claims: self.claims(test, line, faults),
            },
            _ => {
                let fault = format!(
                    "{:?} needs either `steps` (packets by hand) or `capture` with `expect`",
                    test.name
                );
                faults.push((line, fault));
                return None;
            }
        };
        let name = test.name.clone();
        (faults.len() == before).then_some(Test { name, line, policy, traffic, on_reload, body })
    }

    /// `PACKET => EXPECTATION`, `after 601 s`, `after reload of FILE`.
    fn step(&self, step: &Spanned<String>, faults: &mut Faults) -> Option<Step> {
        let line = line_of(self.text, step.span().start);
        let text = step.get_ref().trim();
        match self.what(text) {
            Ok(what) => Some(Step { line, text: text.to_owned(), what }),
            Err(fault) => {
                faults.push((line, fault));
                None
            }
        }
    }

    fn what(&self, text: &str) -> Result<What, String> {
        if let Some(files) = text.strip_prefix("after reload of ") {
            let files = files.split(',').map(|file| self.folder.join(file.trim()));
            return Ok(What::Reload(files.collect()));
        }
        if let Some(time) = text.strip_prefix("after ") {
            return duration(time).map(What::Wait);
        }
        let (packet, expected) = text.rsplit_once("=>").ok_or_else(|| {
            format!(
                "{text:?}: expected `PACKET => pass` or `=> drop`, `after 601 s`, or `after reload \
                 of FILE`"
            )
        })?;
        let expected = Expectation::parse(expected)?;
        let question = Question::read(&[packet.trim().to_owned()], "the packet");
        let question = question.map_err(|failure| match failure {
            Failure::Usage(text) => text,
            other => other.to_string(),
        })?;
        Ok(What::Packet(Box::new(question), expected))
    }

    fn changes(&self, test: &RawTest, line: usize, faults: &mut Faults) -> Vec<At> {
        let mut changes = Vec::new();
        for text in OneOrMore::list(test.at.as_ref()) {
            match At::parse(&text) {
                Ok(at) => changes.push(at.within(self.folder)),
                Err(fault) => faults.push((line, format!("at = {text:?}: {fault}"))),
            }
        }
        changes
    }

    fn claims(&self, test: &RawTest, line: usize, faults: &mut Faults) -> Vec<Stated> {
        let mut claims = Vec::new();
        for stated in test.expect.iter().flatten() {
            let (line, text) = (line_of(self.text, stated.span().start), stated.get_ref());
            match Claim::parse(text) {
                Ok(claim) => claims.push(Stated { line, text: text.trim().to_owned(), claim }),
                Err(fault) => faults.push((line, fault)),
            }
        }
        if test.expect.as_ref().is_none_or(Vec::is_empty) {
            faults.push((line, format!("{:?} has no `expect`: it tests nothing", test.name)));
        }
        claims
    }

    fn paths(&self, paths: Option<&OneOrMore>) -> Vec<PathBuf> {
        OneOrMore::list(paths).iter().map(|path| self.folder.join(path)).collect()
    }
}

/// `601 s`, `1.5 s`, `10 min`, `2 h`, `250 ms`.
fn duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let unit = match unit.trim() {
        "ms" => Some(0.001),
        "s" | "second" | "seconds" => Some(1.0),
        "min" | "minute" | "minutes" => Some(60.0),
        "h" | "hour" | "hours" => Some(3600.0),
        _ => None,
    };
    let number: Option<f64> = number.parse().ok();
    let seconds = number.zip(unit).map(|(number, unit)| number * unit);
    let duration = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let bounded = duration.filter(|duration| *duration < Duration::from_secs(4_000_000_000));
    bounded.ok_or_else(|| {
        format!("after {text:?}: expected a time such as 601 s, 10 min, 2 h or 250 ms")
    })
}

/// The line of a byte, from 1.
fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> String {
        let parsed = TestFile::parse(Path::new("dir/web.test.toml"), text);
        match parsed.expect_err(text) {
            Failure::Usage(fault) => fault,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn keys_of_the_file_hold_for_its_tests() {
        let text = r#"
policy = "p.toml"
interface = "eni-1"
on_reload = "rejudge"
[[test]]
name = "one"
steps = [
  "tcp 198.51.100.7:1 -> 10.0.1.10:22 S => drop no-rule",
  "after 10 min",
  "after reload of a.toml, b.toml",
]
[[test]]
name = "two"
policy = ["q.toml", "r"]
interface = []
capture = "web.pcap"
at = "12.5=late.toml"
expect = ["nothing passes"]
"#;
        let file = TestFile::parse(Path::new("dir/web.test.toml"), text).expect("it is good");
        let [one, two] = &file.tests[..] else { panic!("{file:?}") };
        assert_eq!((one.line, two.line), (5, 12));
        assert_eq!(one.policy, [PathBuf::from("dir/p.toml")]);
        assert_eq!(two.policy, [PathBuf::from("dir/q.toml"), "dir/r".into()]);
        assert_eq!((one.traffic.interface.len(), two.traffic.interface.len()), (1, 0));
        let Body::Steps(steps) = &one.body else { panic!("{one:?}") };
        assert_eq!(steps.iter().map(|step| step.line).collect::<Vec<_>>(), [8, 9, 10]);
        assert!(matches!(steps[1].what, What::Wait(wait) if wait == Duration::from_secs(600)));
        let depends = file.depends_on();
        for path in ["p.toml", "q.toml", "r", "a.toml", "b.toml", "web.pcap", "late.toml"] {
            assert!(depends.contains(&Path::new("dir").join(path)), "{path}: {depends:?}");
        }
    }

    #[test]
    fn everything_that_is_wrong_is_told_with_its_line() {
        let text = r#"
[[test]]
name = "a"
steps = [
  "tcp 1.2.3.4 -> 10.0.1.10:22 => drop",
  "tcp 1.2.3.4:1 -> 10.0.1.10:22 S",
  "after some time",
  "tcp 1.2.3.4:1 -> 10.0.1.10:22 S => refuse",
]
[[test]]
name = "b"
policy = "p.toml"
capture = "web.pcap"
local = "10.0.0.0/40"
at = "noon"
"#;
        let fault = fault(text);
        for expected in [
            "dir/web.test.toml:2: \"a\" has no policy",
            "dir/web.test.toml:5: the packet cannot be read",
            "dir/web.test.toml:6: \"tcp 1.2.3.4:1 -> 10.0.1.10:22 S\": expected `PACKET => pass`",
            "dir/web.test.toml:7: after \"some time\": expected a time",
            "dir/web.test.toml:8: \"refuse\": expected pass, drop",
            "dir/web.test.toml:10: local = \"10.0.0.0/40\": expected an address",
            "dir/web.test.toml:10: at = \"noon\": expected TIME=FILE",
            "dir/web.test.toml:10: \"b\" has no `expect`",
        ] {
            assert!(fault.contains(expected), "{expected}: {fault}");
        }
    }

    #[test]
    fn what_tests_nothing_is_an_error() {
        for (text, expected) in [
            ("", ":1: the file has no [[test]]"),
            (
                "[[test]]\nname = \"a\"\npolicy = \"p\"\nsteps = []",
                "has no packet: it tests nothing",
            ),
            ("[[test]]\nname = \"a\"\npolicy = \"p\"", "needs either `steps`"),
            ("[[test]]\nname = \"a\"\npolicy = \"p\"\nstep = []", ":4: unknown field `step`"),
            ("[[test]]\nname = \"a\"\npolicy = 7", "expected a string or a list of strings"),
            ("[[test]", ":1: "),
        ] {
            let fault = fault(text);
            assert!(fault.contains(expected), "{text}: {fault}");
        }
    }
}
