//! The patterns after all lines were read: what online could not yet be seen as one is joined here.
//!
//! Two patterns become one if they differ only in how many values stand in a row (`delete <*>` and
//! `delete <*> <*>`, `10.0.0.1` and `10.0.0.1,10.0.0.2`) or in empty brackets (`()` and `(<*>)`); patterns
//! become one around values of many forms ([`super::forms`]) and around two words that change together
//! ([`super::pairs`]).

use super::census::Words;
use super::forms::{join_forms, join_wider};
use super::hash::fold;
use super::miner::Miner;
use super::pairs::join_pairs;
use super::part::{Part, Pattern, PatternId};
use super::template::Template;
use super::token::{Value, Values, What};
use super::weave::Asked;
use std::collections::BTreeMap;

/// Patterns that are one.
#[derive(Clone, Debug)]
pub struct Group {
    /// The oldest of them.
    pub id: PatternId,
    /// So many lines.
    pub count: u64,
    /// The first line, counted from 1.
    pub first: u64,
    /// The last.
    pub last: u64,
    /// What all these lines have in common.
    pub template: Template,
    /// The pattern that it was split off.
    pub of: Option<PatternId>,
}

/// All patterns, the older first.
#[derive(Clone, Debug, Default)]
pub struct View {
    groups: Vec<Group>,
    of: BTreeMap<PatternId, PatternId>,
}

impl View {
    /// All patterns, the older first.
    #[must_use]
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// All patterns that became this one, itself among them, also those that the miner made one before.
    pub fn members(&self, id: PatternId) -> impl Iterator<Item = PatternId> {
        let others = self.of.iter().filter(move |(_, into)| **into == id).map(|(member, _)| *member);
        std::iter::once(id).chain(others.filter(move |member| *member != id))
    }

    /// All patterns that were split off this one, or off one that was.
    pub fn split_off(&self, id: PatternId) -> impl Iterator<Item = PatternId> {
        let comes_of = move |group: &&Group| {
            let mut of = group.of;
            while let Some(parent) = of.filter(|parent| *parent != id) {
                of = self.find(parent).and_then(|group| group.of);
            }
            of.is_some()
        };
        self.groups.iter().filter(comes_of).map(|group| group.id)
    }

    /// What became of a pattern; none if it left for want of room.
    #[must_use]
    pub fn find(&self, id: PatternId) -> Option<&Group> {
        let id = self.of.get(&id).copied().unwrap_or(id);
        self.groups.binary_search_by_key(&id, |group| group.id).ok().map(|at| &self.groups[at])
    }
}

impl Miner {
    /// The patterns of all lines so far. The miner itself is left as it is.
    #[must_use]
    pub fn view(&self) -> View {
        let mut last = self.clone();
        let all = last.places.iter().flatten().filter(|pattern| pattern.of.is_none());
        let mut ids: Vec<PatternId> = all.map(|pattern| pattern.id).collect();
        ids.sort_unstable();
        ids.iter().for_each(|id| last.weave(*id, Asked::Finally));
        let patterns = ids.iter().filter_map(|id| last.get(*id));
        let mut drafts: Vec<Draft> = Vec::new();
        let mut by_key: BTreeMap<u64, usize> = BTreeMap::new();
        for pattern in patterns {
            let draft = Draft::new(pattern);
            match by_key.get(&draft.key()) {
                Some(at) => drafts[*at].join(draft),
                None => {
                    by_key.insert(draft.key(), drafts.len());
                    drafts.push(draft);
                }
            }
        }
        let drafts = join_pairs(join_wider(join_forms(drafts)));
        let mut view = View::default();
        for draft in drafts {
            view.of.extend(draft.members.iter().map(|member| (*member, draft.id)));
            view.groups.push(draft.group());
        }
        let split_off = last.places.iter().flatten().filter(|pattern| pattern.of.is_some());
        view.groups.extend(split_off.map(|pattern| Draft::new(pattern).group()));
        view.groups.sort_by_key(|group| group.id);
        for gone in last.merged.keys() {
            let into = last.resolve(*gone);
            let into = view.of.get(&into).copied().unwrap_or(into);
            view.of.insert(*gone, into);
        }
        for group in &mut view.groups {
            let of = last.came_of(group.id);
            group.of = of.map(|of| view.of.get(&of).copied().unwrap_or(of));
        }
        view
    }
}

/// A word, a mark, or all values that stand in a row.
#[derive(Clone, Debug)]
pub(super) struct Unit {
    pub gap: bool,
    pub is_values: bool,
    pub parts: Vec<Part>,
}

const VALUES: u64 = 0x2545_f491_4f6c_dd1d;

impl Unit {
    /// What it counts as when drafts are compared.
    pub fn key(&self) -> u64 {
        if self.is_values { VALUES ^ u64::from(self.gap) } else { self.parts.first().map_or(0, Part::key) }
    }

    /// Whether it is a word of any sort.
    pub fn is_word(&self) -> bool {
        let word = |part: &Part| matches!(part.what, What::Word | What::Name | What::Numbered);
        self.parts.first().is_some_and(word)
    }

    fn join(&mut self, other: &Self) {
        let alike = self.parts.len() == other.parts.len()
            && self.parts.iter().zip(&other.parts).all(|(part, other)| part.key() == other.key());
        if alike {
            self.parts.iter_mut().zip(&other.parts).for_each(|(part, other)| part.absorb(other));
        } else {
            let parts = self.parts.iter().chain(&other.parts);
            self.parts = vec![several(self.gap, parts)];
        }
    }
}

/// One variable in place of several parts.
fn several<'a>(gap: bool, parts: impl Iterator<Item = &'a Part>) -> Part {
    let mut values = Values::default();
    parts.for_each(|part| values.add_all(part.values));
    values.add(Value::Several);
    Part {
        gap,
        what: What::Value(Value::Several),
        hash: 0,
        text: "".into(),
        varied: true,
        values,
        words: Words::None,
    }
}

/// One line of the view in the making.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    id: PatternId,
    members: Vec<PatternId>,
    count: u64,
    first: u64,
    last: u64,
    pub units: Vec<Unit>,
}

impl Draft {
    fn new(pattern: &Pattern) -> Self {
        let Pattern { id, count, first, last, .. } = *pattern;
        Self { id, members: vec![id], count, first, last, units: units(&pattern.parts) }
    }

    fn key(&self) -> u64 {
        self.units.iter().fold(0, |key, unit| fold(key ^ unit.key(), VALUES))
    }

    fn count_in(&mut self, other: &Self) {
        self.id = self.id.min(other.id);
        self.members.extend(&other.members);
        self.count += other.count;
        self.first = self.first.min(other.first);
        self.last = self.last.max(other.last);
    }

    /// Takes in one of as many units.
    pub fn join(&mut self, other: Self) {
        self.count_in(&other);
        self.units.iter_mut().zip(&other.units).for_each(|(unit, other)| unit.join(other));
    }

    /// Takes in one that has something of another form at the place of one unit.
    pub fn join_form(&mut self, at: usize, other: Self) {
        self.count_in(&other);
        let behind = self.units.len() - at - 1;
        let to = other.units.len() - behind;
        let gap = self.units[at].gap;
        let form = other.units[at..to].iter().flat_map(|unit| &unit.parts);
        self.units[at].parts = vec![several(gap, self.units[at].parts.iter().chain(form))];
        for (unit, other) in self.units[..at].iter_mut().zip(&other.units) {
            unit.join(other);
        }
        for (unit, other) in self.units[at + 1..].iter_mut().zip(&other.units[to..]) {
            unit.join(other);
        }
    }

    /// Makes a variable of the word there.
    pub fn widen(&mut self, at: usize) {
        self.units[at].is_values = true;
        self.units[at].parts.iter_mut().for_each(Part::widen);
    }

    /// How many telling words these units have.
    pub fn words(&self, units: std::ops::Range<usize>) -> usize {
        let units = self.units[units].iter().filter(|unit| !unit.is_values);
        units.flat_map(|unit| &unit.parts).filter(|part| part.is_telling()).count()
    }

    fn group(&self) -> Group {
        let template = Template::of(self.units.iter().flat_map(|unit| &unit.parts));
        Group { id: self.id, count: self.count, first: self.first, last: self.last, template, of: None }
    }
}

/// The parts of a pattern, with values in a row as one, also where there are none within brackets.
fn units(parts: &[Part]) -> Vec<Unit> {
    let mut units: Vec<Unit> = Vec::new();
    let mut at = 0;
    while let Some(part) = parts.get(at) {
        let mut end = at + 1;
        if is_value(part) {
            while let Some(more) = one_more(parts, end) {
                end = more;
            }
        }
        let closes = |open: &str, close: &str| {
            let before = at.checked_sub(1).map(|before| &parts[before]);
            before.is_some_and(|before| &*before.text == open) && &*part.text == close && !part.gap
        };
        if part.what == What::Mark && (closes("(", ")") || closes("[", "]")) {
            units.push(Unit { gap: false, is_values: true, parts: Vec::new() });
        }
        units.push(Unit { gap: part.gap, is_values: is_value(part), parts: parts[at..end].to_vec() });
        at = end;
    }
    units
}

fn is_value(part: &Part) -> bool {
    matches!(part.what, What::Value(_))
}

/// Behind one more value in the row: after a blank, after a comma, or glued to the last by a colon.
fn one_more(parts: &[Part], at: usize) -> Option<usize> {
    let part = parts.get(at)?;
    if is_value(part) && part.gap {
        return Some(at + 1);
    }
    let next = parts.get(at + 1).filter(|next| is_value(next))?;
    let follows = match &*part.text {
        "," => true,
        ":" => !next.gap,
        _ => false,
    };
    (follows && part.what == What::Mark && !part.gap).then_some(at + 2)
}
