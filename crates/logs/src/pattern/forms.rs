//! Values of many forms: where one line has a number, another has `Some(3)` or `{ code: 5 }`.

use super::hash::fold;
use super::view::{Draft, Unit};
use std::collections::BTreeMap;

/// Tokens that one value of another form may have.
const LONGEST_FORM: usize = 24;

/// Patterns that begin, or end, alike and are compared; where there are more, it is no sign of anything.
const MOST_ALIKE: usize = 400;

/// So many other forms at the place of a value make all of them values, among so many words.
const fn enough(words: usize) -> usize {
    match words {
        0 | 1 => usize::MAX,
        2..6 => 3,
        6..9 => 2,
        _ => 1,
    }
}

/// Which drafts begin and which end with the same units: hashes in order, each with a draft's index.
#[derive(Default)]
struct Alike {
    starts: Vec<(u64, u32)>,
    ends: Vec<(u64, u32)>,
}

impl Alike {
    fn new(drafts: &[Draft]) -> Self {
        let mut alike = Self::default();
        for (index, draft) in drafts.iter().enumerate() {
            add(&mut alike.starts, draft.units.iter(), index as u32);
            add(&mut alike.ends, draft.units.iter().rev(), index as u32);
        }
        alike.starts.sort_unstable();
        alike.ends.sort_unstable();
        alike
    }

    /// Drafts around the same value: those that begin so or those that end so, whichever are fewer.
    fn around(&self, front: &[Unit], behind: &[Unit]) -> impl Iterator<Item = usize> {
        let starts = find(&self.starts, front.iter().fold(0, step));
        let ends = find(&self.ends, behind.iter().rev().fold(0, step));
        let fewer =
            [starts, ends].into_iter().filter(|alike| !alike.is_empty()).min_by_key(|alike| alike.len());
        let fewer = fewer.filter(|alike| alike.len() <= MOST_ALIKE).unwrap_or_default();
        fewer.iter().map(|(_, index)| *index as usize)
    }
}

fn step(hash: u64, unit: &Unit) -> u64 {
    fold(hash ^ unit.key(), 0x2545_f491_4f6c_dd1d)
}

fn add<'a>(alike: &mut Vec<(u64, u32)>, units: impl Iterator<Item = &'a Unit>, index: u32) {
    let mut hash = 0;
    for unit in units {
        hash = step(hash, unit);
        alike.push((hash, index));
    }
}

fn find(alike: &[(u64, u32)], hash: u64) -> &[(u64, u32)] {
    let from = alike.partition_point(|(other, _)| *other < hash);
    let length = alike[from..].partition_point(|(other, _)| *other == hash);
    &alike[from..from + length]
}

/// Joins drafts that have a value where others have something of another form.
pub(super) fn join_forms(drafts: Vec<Draft>) -> Vec<Draft> {
    let alike = Alike::new(&drafts);
    let mut drafts: Vec<Option<Draft>> = drafts.into_iter().map(Some).collect();
    for index in 0..drafts.len() {
        let length = drafts[index].as_ref().map_or(0, |draft| draft.units.len());
        for at in 0..length {
            let Some(draft) = &drafts[index] else { break };
            let words = draft.words(0..at) + draft.words(at + 1..length);
            if !draft.units[at].is_values || words < 2 {
                continue;
            }
            let near = alike.around(&draft.units[..at], &draft.units[at + 1..]);
            let fits = |other: &usize| {
                *other != index && drafts[*other].as_ref().is_some_and(|other| has_form(draft, at, other))
            };
            let others: Vec<usize> = near.filter(fits).collect();
            if others.len() < enough(words) {
                continue;
            }
            let Some(mut draft) = drafts[index].take() else { break };
            for other in others {
                if let Some(other) = drafts[other].take() {
                    draft.join_form(at, other);
                }
            }
            drafts[index] = Some(draft);
        }
    }
    drafts.into_iter().flatten().collect()
}

/// Whether another draft is the same but for another form of the value there. More text before or behind a
/// value is no form of it.
fn has_form(draft: &Draft, at: usize, other: &Draft) -> bool {
    let (front, behind) = (&draft.units[..at], &draft.units[at + 1..]);
    let Some(length @ 1..=LONGEST_FORM) = other.units.len().checked_sub(front.len() + behind.len()) else {
        return false;
    };
    let form = &other.units[at..at + length];
    let same = |some: &[Unit], others: &[Unit]| some.iter().zip(others).all(|(a, b)| a.key() == b.key());
    let begins = form[0].is_values && form.get(1).is_some_and(|next| next.gap);
    let ends = form[length - 1].is_values && form[length - 1].gap;
    form[0].gap == draft.units[at].gap
        && (length == 1 || !(begins || ends))
        && same(front, &other.units)
        && same(behind, &other.units[at + length..])
}

/// Joins drafts into one that has values where they have words, at several places at once.
pub(super) fn join_wider(drafts: Vec<Draft>) -> Vec<Draft> {
    let mut alike: BTreeMap<(usize, usize, u64), Vec<usize>> = BTreeMap::new();
    for (index, draft) in drafts.iter().enumerate() {
        for (at, unit) in draft.units.iter().enumerate() {
            if unit.parts.first().is_some_and(|part| part.is_telling()) {
                alike.entry((draft.units.len(), at, unit.key())).or_default().push(index);
            }
        }
    }
    let mut drafts: Vec<Option<Draft>> = drafts.into_iter().map(Some).collect();
    for index in 0..drafts.len() {
        let Some(mut draft) = drafts[index].take() else { continue };
        let values = draft.units.iter().filter(|unit| unit.is_values).count();
        if values >= 2 && draft.words(0..draft.units.len()) >= 3 {
            let near = draft.units.iter().enumerate();
            let near = near.filter_map(|(at, unit)| alike.get(&(draft.units.len(), at, unit.key())));
            let near = near.min_by_key(|near| near.len()).filter(|near| near.len() <= MOST_ALIKE);
            for other in near.into_iter().flatten() {
                if drafts[*other].as_ref().is_some_and(|other| is_wider(&draft, other))
                    && let Some(other) = drafts[*other].take()
                {
                    draft.join(other);
                }
            }
        }
        drafts[index] = Some(draft);
    }
    drafts.into_iter().flatten().collect()
}

/// Whether one draft has all marks and words of another, but for values at some places.
fn is_wider(draft: &Draft, other: &Draft) -> bool {
    let fits = |(unit, other): (&Unit, &Unit)| {
        unit.key() == other.key() || (unit.is_values && unit.gap == other.gap && other.is_word())
    };
    draft.units.len() == other.units.len() && draft.units.iter().zip(&other.units).all(fits)
}
