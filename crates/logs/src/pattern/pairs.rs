//! Two words that change together: `registering class A for class B`.
//!
//! No two such lines differ in one word only, so no hole shows it. Here patterns meet without each two of
//! their words. This takes more of them than a hole does, and both words have to be new nearly each time:
//! statements of a program share words, names do not.

use super::hash::fold;
use super::view::{Draft, Unit};
use std::collections::BTreeSet;

/// Words of a pattern of which each two are tried.
const MOST_WORDS: usize = 12;

/// So many patterns that differ in two words are one, where the rest has so many words.
const fn enough(words: usize) -> usize {
    match words {
        0..3 => usize::MAX,
        3 => 16,
        _ => 8,
    }
}

const HOLE: u64 = 0x9c6e_6877_736c_46e3;

/// Joins drafts that differ in two words.
pub(super) fn join_pairs(drafts: Vec<Draft>) -> Vec<Draft> {
    let mut alike: Vec<(u64, u16, u16, u32)> = Vec::new();
    for (index, draft) in drafts.iter().enumerate() {
        let words: Vec<usize> = (0..draft.units.len()).filter(|at| draft.units[*at].is_word()).collect();
        let words = &words[..words.len().min(MOST_WORDS)];
        for (nth, first) in words.iter().enumerate() {
            for second in &words[nth + 1..] {
                let key = key_without(&draft.units, *first, *second);
                alike.push((key, *first as u16, *second as u16, index as u32));
            }
        }
    }
    alike.sort_unstable();
    let mut drafts: Vec<Option<Draft>> = drafts.into_iter().map(Some).collect();
    for same in alike.chunk_by(|a, b| (a.0, a.1, a.2) == (b.0, b.1, b.2)) {
        let (_, first, second, _) = same[0];
        let places = [usize::from(first), usize::from(second)];
        let members = same.iter().map(|(.., index)| *index as usize);
        let members: Vec<usize> = members.filter(|index| drafts[*index].is_some()).collect();
        if are_names(&members, &drafts, places) {
            join(&members, &mut drafts, places);
        }
    }
    drafts.into_iter().flatten().collect()
}

fn key_without(units: &[Unit], first: usize, second: usize) -> u64 {
    let key = |(at, unit): (usize, &Unit)| {
        if at == first || at == second { HOLE ^ u64::from(unit.gap) } else { unit.key() }
    };
    units.iter().enumerate().map(key).fold(0, |hash, key| fold(hash ^ key, HOLE))
}

/// Whether there are enough of them, and three in four have a word of their own at either place.
fn are_names(members: &[usize], drafts: &[Option<Draft>], places: [usize; 2]) -> bool {
    let Some(draft) = members.first().and_then(|index| drafts[*index].as_ref()) else { return false };
    let both = places.iter().map(|at| draft.words(*at..at + 1)).sum::<usize>();
    let rest = draft.words(0..draft.units.len()) - both;
    members.len() >= enough(rest)
        && places.iter().all(|at| {
            let keys = members
                .iter()
                .filter_map(|index| drafts[*index].as_ref())
                .map(|draft| draft.units[*at].key());
            keys.collect::<BTreeSet<u64>>().len() * 4 >= members.len() * 3
        })
}

fn join(members: &[usize], drafts: &mut [Option<Draft>], places: [usize; 2]) {
    let mut widened = members.iter().filter_map(|index| {
        let mut draft = drafts[*index].take()?;
        places.iter().for_each(|at| draft.widen(*at));
        Some(draft)
    });
    let Some(mut joined) = widened.next() else { return };
    widened.for_each(|draft| joined.join(draft));
    drafts[members[0]] = Some(joined);
}
