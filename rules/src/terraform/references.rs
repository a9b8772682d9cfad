//! Which object an attribute will name that is unknown until the plan is applied.
//!
//! A plan's configuration tells of an expression only what it refers to. References are followed
//! through variables, outputs and attributes to the resources at their end. Where several are left,
//! and the attribute has room for one, nothing is guessed. Locals are not in a plan: one can only be
//! made of what its module can name, so if that is one resource of the right kind, it is that.

use std::cell::{Cell, RefCell};

use serde_json::Value;

use super::tree::{Document, Key, Resource, Segment, Step, call, segments};

/// What is looked for: the types of resources, and how their ids begin.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub(super) kinds: &'static [&'static str],
    pub(super) prefix: &'static str,
}

pub(super) const VPC: Wanted = Wanted { kinds: &["aws_vpc", "aws_default_vpc"], prefix: "vpc-" };
pub(super) const SUBNET: Wanted =
    Wanted { kinds: &["aws_subnet", "aws_default_subnet"], prefix: "subnet-" };
pub(super) const GROUP: Wanted =
    Wanted { kinds: &["aws_security_group", "aws_default_security_group"], prefix: "sg-" };
pub(super) const ACL: Wanted =
    Wanted { kinds: &["aws_network_acl", "aws_default_network_acl"], prefix: "acl-" };
pub(super) const PREFIX_LIST: Wanted =
    Wanted { kinds: &["aws_ec2_managed_prefix_list", "aws_prefix_list"], prefix: "pl-" };
pub(super) const INTERFACE: Wanted =
    Wanted { kinds: &["aws_network_interface", "aws_instance"], prefix: "eni-" };

/// What an expression may name.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Resources, by index in the document.
    pub(super) resources: Vec<usize>,
    /// Ids that are written out.
    pub(super) literals: Vec<String>,
    /// Not all of these need be meant.
    pub(super) is_vague: bool,
}

impl Found {
    /// The ids of all, and whether each is unknown before the plan is applied.
    pub(super) fn ids(&self, document: &Document<'_>) -> Vec<(String, bool)> {
        let resources = self.resources.iter().map(|&n| {
            let resource = &document.resources[n];
            (resource.id(), resource.text("id").is_none())
        });
        let literals = self.literals.iter().map(|id| (id.clone(), false));
        let mut ids: Vec<(String, bool)> = Vec::new();
        for id in resources.chain(literals) {
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
        ids
    }
}

/// Where an expression stands: its module, and the `count` or `for_each` around it.
struct Scope<'a> {
    module: Vec<Step>,
    key: Option<Key>,
    for_each: Option<&'a Value>,
}

/// Follows references.
pub(super) struct Resolver<'a, 'd> {
    document: &'d Document<'a>,
    /// Steps that may still be taken for one question: a hostile plan could have no end.
    fuel: Cell<u32>,
    /// How far the question has come from where it began.
    depth: Cell<u32>,
    /// Where an index that is computed was taken to be that of the instance itself.
    pub(super) assumed: RefCell<Vec<String>>,
}

/// Steps for one question.
const FUEL: u32 = 20_000;
/// Steps one after the other: modules do not nest deeper.
const DEPTH: u32 = 100;

impl<'a, 'd> Resolver<'a, 'd> {
    pub(super) fn new(document: &'d Document<'a>) -> Self {
        Resolver { document, fuel: Cell::new(0), depth: Cell::new(0), assumed: RefCell::default() }
    }

    /// What the attribute of a resource may name; `None`: nobody wrote it.
    pub(super) fn attribute(
        &self,
        resource: &Resource<'a>,
        attribute: &str,
        wanted: Wanted,
    ) -> Option<Found> {
        let expression = self.document.expression(resource, attribute)?;
        self.fuel.set(FUEL);
        let mut found = Found::default();
        let assumed = self.assumed.borrow().len();
        self.expression(expression, &self.scope(resource), wanted, &mut found);
        if self.assumed.borrow().len() > assumed {
            self.assumed.borrow_mut().truncate(assumed);
            self.assumed.borrow_mut().push(format!("{}.{attribute}", resource.address));
        }
        match self.fuel.get() {
            0 => Some(Found::default()),
            _ => Some(found),
        }
    }

    fn scope(&self, resource: &Resource<'a>) -> Scope<'a> {
        Scope {
            module: resource.module.clone(),
            key: resource.key.clone(),
            for_each: self.document.block(resource).and_then(|b| b.get("for_each_expression")),
        }
    }

    fn expression(&self, expression: &Value, scope: &Scope<'a>, wanted: Wanted, found: &mut Found) {
        let (fuel, depth) = (self.fuel.get(), self.depth.get());
        if fuel == 0 || depth == DEPTH {
            return self.fuel.set(0);
        }
        self.fuel.set(fuel - 1);
        self.depth.set(depth + 1);
        self.parts(expression, scope, wanted, found);
        self.depth.set(depth);
    }

    fn parts(&self, expression: &Value, scope: &Scope<'a>, wanted: Wanted, found: &mut Found) {
        if let Some(constant) = expression.get("constant_value") {
            literals(constant, wanted, found);
        }
        let references = expression.get("references").and_then(Value::as_array);
        let references: Vec<&str> =
            references.into_iter().flatten().filter_map(Value::as_str).collect();
        // `a.b[0].id` is followed by `a.b[0]` and `a.b`, which say no more.
        let mut last = "";
        for reference in &references {
            let is_part = last
                .strip_prefix(reference)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']));
            if !is_part {
                last = reference;
                self.reference(&segments(reference), &references, scope, wanted, found);
            }
        }
        // A block within, or several.
        let blocks = match expression {
            Value::Array(blocks) => blocks.iter().collect(),
            _ => Vec::new(),
        };
        for block in blocks.into_iter().filter_map(Value::as_object) {
            block.values().for_each(|part| self.expression(part, scope, wanted, found));
        }
    }

    fn reference(
        &self,
        parts: &[Segment],
        beside: &[&str],
        scope: &Scope<'a>,
        wanted: Wanted,
        found: &mut Found,
    ) {
        let names = |n: usize| parts.get(n).and_then(Segment::name).unwrap_or_default();
        match names(0) {
            "var" => self.variable(names(1), scope, wanted, found),
            "module" => self.output(&parts[1..], beside, scope, wanted, found),
            "local" => self.local(scope, wanted, found),
            "each" if names(1) == "value" => self.each(scope, wanted, found),
            "each" | "count" | "path" | "terraform" | "self" => {}
            first => {
                let is_data = first == "data";
                let at = usize::from(is_data);
                let base = match is_data {
                    true => format!("data.{}.{}", names(1), names(2)),
                    false => format!("{}.{}", names(0), names(1)),
                };
                let key = match parts.get(at + 2) {
                    Some(Segment::Index(key)) => Some(key),
                    _ => None,
                };
                let attribute = parts.get(at + 2..).unwrap_or(&[]).iter().find_map(Segment::name);
                let instances = self.document.instances(&scope.module, &base);
                for n in self.chosen(instances, key, beside, scope, found) {
                    self.resource(n, attribute, wanted, found);
                }
            }
        }
    }

    /// The instances of several that a reference means.
    fn chosen(
        &self,
        instances: &[usize],
        key: Option<&Key>,
        beside: &[&str],
        scope: &Scope<'a>,
        found: &mut Found,
    ) -> Vec<usize> {
        let with = |key: &Key| -> Vec<usize> {
            let fits = |n: &usize| {
                self.document.resources[*n].key.as_ref().is_some_and(|own| own.fits(key))
            };
            instances.iter().copied().filter(fits).collect()
        };
        if let Some(key) = key {
            return with(key);
        }
        if instances.len() < 2 {
            return instances.to_vec();
        }
        match own_key(beside, scope).map(|key| with(&key)) {
            Some(one) if !one.is_empty() => {
                self.assumed.borrow_mut().push(String::new());
                one
            }
            Some(_) => {
                found.is_vague = true;
                instances.to_vec()
            }
            None => instances.to_vec(),
        }
    }

    fn resource(&self, n: usize, attribute: Option<&str>, wanted: Wanted, found: &mut Found) {
        let resource = &self.document.resources[n];
        let names_itself = match attribute {
            None | Some("id") => true,
            Some("default_network_acl_id") => resource.kind == "aws_default_network_acl",
            Some(name) => name == "primary_network_interface_id",
        };
        if wanted.kinds.contains(&resource.kind) && names_itself {
            if !found.resources.contains(&n) {
                found.resources.push(n);
            }
            return;
        }
        let Some(attribute) = attribute else { return };
        let of_vpc = |kind: &str| {
            self.document.resources.iter().position(|other| {
                other.kind == kind && other.module == resource.module && !other.is_data
            })
        };
        if let Some(known) = resource.values.get(attribute) {
            literals(known, wanted, found);
        } else if let Some(expression) = self.document.expression(resource, attribute) {
            self.expression(expression, &self.scope(resource), wanted, found);
        } else if VPC.kinds.contains(&resource.kind) && attribute.starts_with("default_") {
            // A VPC's own, which a resource of this configuration may have taken over.
            let kind = attribute.strip_suffix("_id").map(|name| format!("aws_{name}"));
            let own = kind.and_then(|kind| of_vpc(&kind));
            let own = own.filter(|&n| wanted.kinds.contains(&self.document.resources[n].kind));
            match own {
                Some(n) => found.resources.push(n),
                None => found.literals.push(format!("{}.{attribute}", resource.address)),
            }
        }
    }

    fn variable(&self, name: &str, scope: &Scope<'a>, wanted: Wanted, found: &mut Found) {
        let Some(((module, key), parents)) = scope.module.split_last() else {
            let variables = self.document.top.get("variables");
            let value = variables.and_then(|variables| variables.get(name)?.get("value"));
            if let Some(value) = value {
                literals(value, wanted, found);
            }
            return;
        };
        let parent = self.document.configuration(parents);
        let Some(call) = parent.and_then(|parent| call(parent, module)) else { return };
        if let Some(expression) = call.get("expressions").and_then(|all| all.get(name)) {
            let scope = Scope {
                module: parents.to_vec(),
                key: key.clone(),
                for_each: call.get("for_each_expression"),
            };
            self.expression(expression, &scope, wanted, found);
        } else if let Some(default) =
            call.get("module").and_then(|m| m.get("variables")?.get(name)?.get("default"))
        {
            literals(default, wanted, found);
        }
    }

    /// `web["blue"].group_id`: an output of a module that is called here, or all of them.
    fn output(
        &self,
        parts: &[Segment],
        beside: &[&str],
        scope: &Scope<'a>,
        wanted: Wanted,
        found: &mut Found,
    ) {
        let name = parts.first().and_then(Segment::name).unwrap_or_default();
        let key = match parts.get(1) {
            Some(Segment::Index(key)) => Some(key.clone()),
            _ => None,
        };
        let output = parts.iter().skip(1).find_map(Segment::name);
        let depth = scope.module.len();
        let is_called = |path: &&Vec<Step>| {
            path.len() == depth + 1
                && path.starts_with(&scope.module)
                && path.last().is_some_and(|(own, _)| own == name)
        };
        let mut instances: Vec<&Vec<Step>> =
            self.document.modules.iter().filter(is_called).collect();
        let own = own_key(beside, scope).filter(|_| key.is_none() && instances.len() > 1);
        if own.is_some() {
            self.assumed.borrow_mut().push(String::new());
        }
        if let Some(key) = key.or(own) {
            instances.retain(|path| {
                path.last().and_then(|(_, own)| own.as_ref()).is_some_and(|own| own.fits(&key))
            });
        }
        for module in instances {
            let configuration = self.document.configuration(module);
            let outputs = configuration.and_then(|c| c.get("outputs")?.as_object());
            for (name, described) in outputs.into_iter().flatten() {
                if output.is_none_or(|output| output == name)
                    && let Some(expression) = described.get("expression")
                {
                    let scope = Scope { module: module.clone(), key: None, for_each: None };
                    self.expression(expression, &scope, wanted, found);
                }
            }
        }
    }

    /// All that a local of this module can be made of.
    fn local(&self, scope: &Scope<'a>, wanted: Wanted, found: &mut Found) {
        let mut all = Found::default();
        for (n, resource) in self.document.resources.iter().enumerate() {
            if resource.module == scope.module
                && wanted.kinds.contains(&resource.kind)
                && resource.text("id").is_none()
            {
                all.resources.push(n);
            }
        }
        if let Some(((module, _), parents)) = scope.module.split_last() {
            let parent = self.document.configuration(parents);
            let call = parent.and_then(|parent| call(parent, module));
            let given = call.and_then(|call| call.get("expressions")?.as_object());
            for name in given.into_iter().flatten().map(|(name, _)| name) {
                self.variable(name, scope, wanted, &mut all);
            }
        }
        let own = self.document.configuration(&scope.module);
        let calls = own.and_then(|module| module.get("module_calls")?.as_object());
        for name in calls.into_iter().flatten().map(|(name, _)| name) {
            self.output(&[Segment::Name(name.clone())], &[], scope, wanted, &mut all);
        }
        all.resources.retain(|&n| self.document.resources[n].text("id").is_none());
        all.literals.clear();
        found.is_vague |= all.is_vague || all.resources.len() != 1;
        for n in all.resources {
            if !found.resources.contains(&n) {
                found.resources.push(n);
            }
        }
    }

    /// `each.value`.
    fn each(&self, scope: &Scope<'a>, wanted: Wanted, found: &mut Found) {
        let (Some(for_each), Some(key)) = (scope.for_each, &scope.key) else { return };
        if let Some(map) = for_each.get("constant_value") {
            if let (Value::Object(map), Key::Text(key)) = (map, key)
                && let Some(value) = map.get(key)
            {
                literals(value, wanted, found);
            }
            return;
        }
        // `for_each = aws_subnet.data` makes an instance for each of that.
        let outer = Scope { module: scope.module.clone(), key: None, for_each: None };
        let mut all = Found::default();
        self.expression(for_each, &outer, wanted, &mut all);
        let of_one = all.resources.iter().all(|&n| {
            let (one, first) =
                (&self.document.resources[n], &self.document.resources[all.resources[0]]);
            (&one.module, &one.base) == (&first.module, &first.base)
        });
        let same: Vec<usize> = all
            .resources
            .iter()
            .copied()
            .filter(|&n| self.document.resources[n].key.as_ref().is_some_and(|own| own.fits(key)))
            .collect();
        match same[..] {
            [one] if of_one && all.literals.is_empty() => found.resources.push(one),
            _ => {
                found.is_vague |= all.resources.len() + all.literals.len() > 1;
                found.resources.extend(all.resources);
                found.literals.extend(all.literals);
            }
        }
    }
}

/// The index that an expression with `each` or `count` beside a resource means: that of the
/// instance itself, or what `each.value` is.
fn own_key(beside: &[&str], scope: &Scope<'_>) -> Option<Key> {
    if beside.iter().any(|reference| matches!(*reference, "each.key" | "count.index")) {
        return scope.key.clone();
    }
    let by_value = beside.contains(&"each.value");
    let map = scope.for_each.filter(|_| by_value)?.get("constant_value")?;
    match scope.key.as_ref()? {
        Key::Text(key) => map.get(key).and_then(Key::of),
        Key::Number(_) => None,
    }
}

/// Ids in a value that is written out.
fn literals(value: &Value, wanted: Wanted, found: &mut Found) {
    match value {
        Value::String(text) => {
            let is_id = text.starts_with(wanted.prefix) || text.contains("/sg-");
            if is_id && !found.literals.contains(text) {
                found.literals.push(text.clone());
            }
        }
        Value::Array(list) => list.iter().for_each(|value| literals(value, wanted, found)),
        Value::Object(map) => map.values().for_each(|value| literals(value, wanted, found)),
        _ => {}
    }
}
