//! The resources of a document, by module, and the addresses by which they are named.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use serde_json::Value;

use crate::diagnostic::{Origin, Source};

/// The index of an instance: `count` gives numbers, `for_each` strings.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Key {
    Number(u64),
    Text(String),
}

impl Key {
    pub(super) fn of(value: &Value) -> Option<Self> {
        match value {
            Value::Number(n) => n.as_u64().map(Key::Number),
            Value::String(text) => Some(Key::Text(text.clone())),
            _ => None,
        }
    }

    /// Whether they name the same instance: `each.key` is a string where `count` has numbers.
    pub(super) fn fits(&self, other: &Key) -> bool {
        match (self, other) {
            (Key::Number(n), Key::Text(text)) | (Key::Text(text), Key::Number(n)) => {
                *text == n.to_string()
            }
            (one, other) => one == other,
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::Number(n) => write!(f, "[{n}]"),
            Key::Text(text) => write!(f, "[{text:?}]"),
        }
    }
}

/// A module on the way to a resource: its name, and the index of its instance.
pub(super) type Step = (String, Option<Key>);

/// One part of an address or reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Segment {
    Name(String),
    Index(Key),
}

impl Segment {
    pub(super) fn name(&self) -> Option<&str> {
        match self {
            Segment::Name(name) => Some(name),
            Segment::Index(_) => None,
        }
    }
}

/// The parts of `module.web["blue"].group_id`.
pub(super) fn segments(text: &str) -> Vec<Segment> {
    let mut parts = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        if let Some(quoted) = rest.strip_prefix("[\"") {
            let mut key = String::new();
            let mut chars = quoted.char_indices();
            rest = "";
            while let Some((at, c)) = chars.next() {
                match c {
                    '"' => {
                        let after = &quoted[at + 1..];
                        rest = after.strip_prefix(']').unwrap_or(after);
                        break;
                    }
                    '\\' => key.extend(chars.next().map(|(_, escaped)| escaped)),
                    c => key.push(c),
                }
            }
            parts.push(Segment::Index(Key::Text(key)));
        } else if let Some(index) = rest.strip_prefix('[') {
            let (number, after) = index.split_once(']').unwrap_or((index, ""));
            let key = number.parse().map_or_else(|_| Key::Text(number.into()), Key::Number);
            parts.push(Segment::Index(key));
            rest = after;
        } else {
            rest = rest.strip_prefix('.').unwrap_or(rest);
            let end = rest.find(['.', '[']).unwrap_or(rest.len());
            parts.push(Segment::Name(rest[..end].to_owned()));
            rest = &rest[end..];
        }
    }
    parts
}

/// The modules of `module.web["blue"].module.rules`.
fn steps(address: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut parts = segments(address).into_iter().peekable();
    while let Some(part) = parts.next() {
        if part.name() != Some("module") {
            continue;
        }
        let Some(Segment::Name(name)) = parts.next() else { continue };
        let key = match parts.next_if(|part| matches!(part, Segment::Index(_))) {
            Some(Segment::Index(key)) => Some(key),
            _ => None,
        };
        steps.push((name, key));
    }
    steps
}

/// One resource or data source.
#[derive(Clone, Debug)]
pub(super) struct Resource<'a> {
    /// `module.web["blue"].aws_security_group.this`.
    pub(super) address: String,
    /// The module that it is in.
    pub(super) module: Vec<Step>,
    /// `aws_security_group.this`, or `data.aws_vpc.main`.
    pub(super) base: String,
    /// `aws_security_group`.
    pub(super) kind: &'a str,
    /// Its instance's index.
    pub(super) key: Option<Key>,
    /// Whether it is read and not managed.
    pub(super) is_data: bool,
    /// Its attributes; what is unknown until the plan is applied is absent.
    pub(super) values: &'a Value,
}

impl Resource<'_> {
    /// A string attribute that is known and not empty.
    pub(super) fn text(&self, attribute: &str) -> Option<&str> {
        self.values.get(attribute)?.as_str().filter(|text| !text.is_empty())
    }

    /// Its id; its address where the id is unknown.
    pub(super) fn id(&self) -> String {
        self.text("id").map_or_else(|| self.address.clone(), str::to_owned)
    }
}

/// What `terraform show -json` prints.
#[derive(Debug)]
pub(super) struct Document<'a> {
    pub(super) source: Arc<Source>,
    /// All resources; those of a plan as they will be.
    pub(super) resources: Vec<Resource<'a>>,
    /// Whether it is a plan, in which attributes may be unknown.
    pub(super) is_plan: bool,
    /// The whole of it.
    pub(super) top: &'a Value,
    by_base: HashMap<(Vec<Step>, String), Vec<usize>>,
    /// Every module instance that has resources.
    pub(super) modules: Vec<Vec<Step>>,
    /// What the configuration says of resources, by the names of their modules and their own.
    blocks: HashMap<(Vec<&'a str>, &'a str), &'a Value>,
}

impl<'a> Document<'a> {
    pub(super) fn new(source: Arc<Source>, top: &'a Value) -> Self {
        let is_plan = top.get("planned_values").is_some();
        let mut document = Document {
            source,
            resources: Vec::new(),
            is_plan,
            top,
            by_base: HashMap::new(),
            modules: Vec::new(),
            blocks: HashMap::new(),
        };
        if let Some(root) = top.get("configuration").and_then(|all| all.get("root_module")) {
            document.configured(&mut Vec::new(), root);
        }
        let values = if is_plan { "planned_values" } else { "values" };
        document.module(top.get(values).and_then(|values| values.get("root_module")), false);
        // What data sources were read as stands with what was there before.
        let before =
            top.get("prior_state").and_then(|state| state.get("values")?.get("root_module"));
        document.module(before.filter(|_| is_plan), true);
        document
    }

    fn module(&mut self, module: Option<&'a Value>, only_data: bool) {
        let Some(module) = module else { return };
        let list = |key: &str| module.get(key).and_then(Value::as_array).into_iter().flatten();
        let path = module.get("address").and_then(Value::as_str).map(steps).unwrap_or_default();
        for resource in list("resources") {
            let text = |key: &str| resource.get(key).and_then(Value::as_str);
            let (Some(kind), Some(name)) = (text("type"), text("name")) else { continue };
            let is_data = text("mode") == Some("data");
            if only_data && !is_data {
                continue;
            }
            let base = format!("{}{kind}.{name}", if is_data { "data." } else { "" });
            let key = resource.get("index").and_then(Key::of);
            let known = self.instances(&path, &base);
            if known.iter().any(|&n| self.resources[n].key == key) {
                continue;
            }
            let address = text("address").map_or_else(|| base.clone(), str::to_owned);
            let values = resource.get("values").unwrap_or(&Value::Null);
            let indices = self.by_base.entry((path.clone(), base.clone())).or_default();
            indices.push(self.resources.len());
            let module = path.clone();
            self.resources.push(Resource { address, module, base, kind, key, is_data, values });
        }
        if !path.is_empty() {
            self.modules.push(path);
        }
        for child in list("child_modules") {
            self.module(Some(child), only_data);
        }
    }

    /// The instances of a resource of a module.
    pub(super) fn instances(&self, module: &[Step], base: &str) -> &[usize] {
        self.by_base.get(&(module.to_vec(), base.to_owned())).map_or(&[], Vec::as_slice)
    }

    /// The configuration of a module, if the document has it: plans do.
    pub(super) fn configuration(&self, module: &[Step]) -> Option<&'a Value> {
        let root = self.top.get("configuration")?.get("root_module")?;
        module.iter().try_fold(root, |module, (name, _)| call(module, name)?.get("module"))
    }

    /// Notes what the configuration of a module says of its resources.
    fn configured(&mut self, path: &mut Vec<&'a str>, module: &'a Value) {
        for block in module.get("resources").and_then(Value::as_array).into_iter().flatten() {
            if let Some(address) = block.get("address").and_then(Value::as_str) {
                self.blocks.entry((path.clone(), address)).or_insert(block);
            }
        }
        let calls = module.get("module_calls").and_then(Value::as_object);
        for (name, call) in calls.into_iter().flatten() {
            if let Some(module) = call.get("module") {
                path.push(name);
                self.configured(path, module);
                path.pop();
            }
        }
    }

    /// What the configuration says of a resource: its expressions, and `for_each`.
    pub(super) fn block(&self, resource: &Resource<'_>) -> Option<&'a Value> {
        let path = resource.module.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>();
        self.blocks.get(&(path, resource.base.as_str())).copied()
    }

    /// The expression of an attribute; `None`: nobody wrote it.
    pub(super) fn expression(&self, resource: &Resource<'_>, attribute: &str) -> Option<&'a Value> {
        self.block(resource)?.get("expressions")?.get(attribute)
    }

    /// Where a resource is.
    pub(super) fn at(&self, resource: &Resource<'_>) -> Origin {
        Origin::new(&self.source, resource.address.as_str())
    }
}

/// The call of a module by its name.
pub(super) fn call<'a>(module: &'a Value, name: &str) -> Option<&'a Value> {
    module.get("module_calls")?.get(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_split_at_dots_outside_of_keys() {
        let name = |text: &str| Segment::Name(text.into());
        let key = |text: &str| Segment::Index(Key::Text(text.into()));
        assert_eq!(
            segments("module.a[\"x.y\\\"]\"].b[3].id"),
            [
                name("module"),
                name("a"),
                key("x.y\"]"),
                name("b"),
                Segment::Index(Key::Number(3)),
                name("id")
            ]
        );
        assert_eq!(
            steps("module.a[\"x.y\"].module.b"),
            [("a".into(), Some(Key::Text("x.y".into()))), ("b".into(), None)]
        );
        for text in ["", ".", "[", "[\"", "a[\"b", "a..b", "[]]["] {
            segments(text);
            steps(text);
        }
    }
}
