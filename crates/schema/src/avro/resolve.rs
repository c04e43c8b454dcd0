//! What is done when a schema has been read and all its names are known: names used before their definition find it,
//! unions and defaults are looked at once more.

use std::collections::{HashMap, HashSet};

use super::defaults::{Defaults, Refused, Resolved};
use super::parse::{MOST_PROBLEMS, Parser};
use super::{Kind, NodeId, Problem, Rule, Strictness, hazards};

/// Finishes one file, whose types begin at `first`.
pub(super) fn resolve(parser: &mut Parser<'_>, first: usize) {
    let targets = targets(parser);
    if !parser.problems.is_empty() {
        return;
    }
    check_unions(parser, first, &targets);
    if parser.strictness == Strictness::Strict && parser.problems.is_empty() && !targets.is_empty() {
        // Without a name used before its definition the first look has seen all there is.
        let problems = Walk::new(parser, &targets).all();
        parser.problems.extend(problems);
    }
    for node in &mut parser.nodes[first..] {
        replace(&mut node.kind, &targets);
    }
    if parser.strictness == Strictness::Strict && parser.problems.is_empty() {
        note_hazards(parser, first, &targets);
    }
}

fn note_hazards(parser: &mut Parser<'_>, first: usize, targets: &HashMap<NodeId, NodeId>) {
    let mut notes = Vec::new();
    let mut forwards: Vec<_> = targets.iter().collect();
    forwards.sort_unstable();
    for (forward, target) in forwards {
        // A type within its own definition is no surprise to anybody.
        if parser.encloses(*target, *forward) {
            continue;
        }
        let message = format!(
            "`{}` is used before its definition, which only Java and few others read",
            parser.nodes[*target as usize].kind
        );
        let path = parser.paths[*forward as usize].to_string();
        notes.push(Problem::new(Rule::UsedBeforeDefined, path, message));
    }
    for at in first..parser.nodes.len() {
        let Kind::Record(record) = &parser.nodes[at].kind else {
            continue;
        };
        for field in &record.fields {
            let Some(default) = &field.default else {
                continue;
            };
            let path = || format!("{}/fields/{}/default", parser.paths[at], field.name);
            notes.extend(hazards::of_default(&parser.nodes, field.schema, default, path));
        }
    }
    parser.notes.extend(notes);
}

fn targets(parser: &mut Parser<'_>) -> HashMap<NodeId, NodeId> {
    let mut targets = HashMap::new();
    for forward in std::mem::take(&mut parser.forwards) {
        let Kind::Forward(name) = &parser.nodes[forward as usize].kind else {
            continue;
        };
        match parser.names.get(name) {
            Some(target) => {
                targets.insert(forward, *target);
            }
            None if parser.problems.len() < MOST_PROBLEMS => {
                let message = format!("nothing defines the type `{name}`");
                let path = parser.paths[forward as usize].to_string();
                parser.problems.push(Problem::new(Rule::UndefinedName, path, message));
            }
            None => {}
        }
    }
    targets
}

fn check_unions(parser: &mut Parser<'_>, first: usize, targets: &HashMap<NodeId, NodeId>) {
    for at in first..parser.nodes.len() {
        let Kind::Union(branches) = &parser.nodes[at].kind else {
            continue;
        };
        let mut seen = HashSet::new();
        let twice = branches.iter().find_map(|branch| {
            let id = targets.get(branch).unwrap_or(branch);
            let kind = &parser.nodes[*id as usize].kind;
            let name = kind.named().map_or(kind.word(), |named| named.name.full());
            (!seen.insert(name)).then_some(name)
        });
        if let Some(name) = twice {
            let message = format!("`{name}` stands in the union twice");
            let path = parser.paths[at].to_string();
            parser.problems.push(Problem::new(Rule::InvalidUnion, path, message));
        }
    }
}

fn replace(kind: &mut Kind, targets: &HashMap<NodeId, NodeId>) {
    let follow = |id: &mut NodeId| {
        if let Some(target) = targets.get(id) {
            *id = *target;
        }
    };
    match kind {
        Kind::Array(inner) | Kind::Map(inner) => follow(inner),
        Kind::Union(branches) => branches.iter_mut().for_each(follow),
        Kind::Record(record) => record.fields.iter_mut().for_each(|field| follow(&mut field.schema)),
        Kind::Null
        | Kind::Boolean
        | Kind::Int
        | Kind::Long
        | Kind::Float
        | Kind::Double
        | Kind::Bytes
        | Kind::String
        | Kind::Fixed(_)
        | Kind::Enum(_)
        | Kind::Forward(_) => {}
    }
}

/// The second look at defaults, in the order in which Java finishes records: it decides which are finished when a default
/// is looked at.
struct Walk<'p, 'a> {
    parser: &'p Parser<'a>,
    targets: &'p HashMap<NodeId, NodeId>,
    begun: HashSet<NodeId>,
    finished: HashSet<NodeId>,
    met: HashSet<NodeId>,
    problems: Vec<Problem>,
}

enum Step {
    Enter(NodeId),
    Leave(NodeId),
}

/// One walk from a named type; a name used before its definition begins another within it.
struct Frame {
    steps: Vec<Step>,
    visited: HashSet<NodeId>,
}

impl<'p, 'a> Walk<'p, 'a> {
    fn new(parser: &'p Parser<'a>, targets: &'p HashMap<NodeId, NodeId>) -> Self {
        Self {
            parser,
            targets,
            begun: HashSet::new(),
            finished: HashSet::new(),
            met: HashSet::new(),
            problems: Vec::new(),
        }
    }

    fn all(mut self) -> Vec<Problem> {
        for named in &self.parser.order {
            self.from(*named);
        }
        self.problems
    }

    fn from(&mut self, start: NodeId) {
        let frame = |start| Frame {
            steps: vec![Step::Enter(start)],
            visited: HashSet::new(),
        };
        let mut frames = vec![frame(start)];
        while let Some(top) = frames.last_mut() {
            match top.steps.pop() {
                None => {
                    frames.pop();
                }
                Some(Step::Leave(record)) => self.finish(record),
                Some(Step::Enter(id)) => {
                    if let Some(target) = self.enter(id, top) {
                        frames.push(frame(target));
                    }
                }
            }
        }
    }

    /// Where a walk from another type has to come first, that type.
    fn enter(&mut self, id: NodeId, frame: &mut Frame) -> Option<NodeId> {
        match &self.parser.nodes[id as usize].kind {
            Kind::Array(inner) | Kind::Map(inner) => frame.steps.push(Step::Enter(*inner)),
            Kind::Union(branches) => frame.steps.extend(branches.iter().map(|branch| Step::Enter(*branch))),
            Kind::Record(record) if !self.finished.contains(&id) && frame.visited.insert(id) => {
                self.begun.insert(id);
                frame.steps.push(Step::Leave(id));
                let fields = record.fields.iter().rev();
                frame.steps.extend(fields.map(|field| Step::Enter(field.schema)));
            }
            Kind::Forward(_) if self.met.insert(id) => {
                let target = *self.targets.get(&id)?;
                let is_record = matches!(self.parser.nodes[target as usize].kind, Kind::Record(_));
                return (is_record && !self.begun.contains(&target)).then_some(target);
            }
            Kind::Null
            | Kind::Boolean
            | Kind::Int
            | Kind::Long
            | Kind::Float
            | Kind::Double
            | Kind::Bytes
            | Kind::String
            | Kind::Fixed(_)
            | Kind::Enum(_)
            | Kind::Record(_)
            | Kind::Forward(_) => {}
        }
        None
    }

    fn finish(&mut self, id: NodeId) {
        let nodes = &self.parser.nodes;
        let Kind::Record(record) = &nodes[id as usize].kind else {
            return;
        };
        if self.finished.contains(&id) {
            return;
        }
        for field in &record.fields {
            let Some(default) = &field.default else {
                continue;
            };
            let resolved = Resolved {
                targets: self.targets,
                finished: &self.finished,
            };
            if let Err(why) = Defaults::resolved(nodes, resolved).check(field.schema, default) {
                self.refuse(id, &field.name, default.shown(), &why);
            }
        }
        self.finished.insert(id);
    }

    fn refuse(&mut self, record: NodeId, field: &str, default: String, why: &Refused) {
        let path = format!("{}/fields/{field}/default", self.parser.paths[record as usize]);
        let message = format!("the default {default} of field `{field}` {why}");
        self.problems.push(Problem::new(Rule::InvalidDefault, path, message));
    }
}
