//! Our dirty bitmaps: `holdfast-WHOSE-NUMBER`. A later one has a higher number, and each records what was written
//! since it began. The oldest is of the last point; later ones are of attempts that made none: whoever goes on where one of them
//! was cut off needs to know what was written since.

use serde::Deserialize;
use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};

const OURS: &str = "holdfast-";
/// So many of each of us stay: the oldest two, as the first attempt may be the one that came far, and the newest.
const MOST: usize = 8;
const OLDEST: usize = 2;

/// One row of what QEMU tells of bitmaps. Those without a name are QEMU's own.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Bitmap {
    name: String,
    recording: bool,
    inconsistent: bool,
}

impl Bitmap {
    /// Whose it is, if it is ours.
    fn whose(&self) -> Option<&str> {
        Some(self.name.strip_prefix(OURS)?.rsplit_once('-')?.0)
    }
}

/// Arguments that name a bitmap of a node.
pub fn of(node: &str, name: &str) -> Value {
    json!({ "node": node, "name": name })
}

/// The name of a bitmap that begins now.
pub fn fresh(whose: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{OURS}{whose}-{:016x}", now.as_micros())
}

/// Whether one of them is called so.
pub fn has(all: &[Bitmap], name: &str) -> bool {
    all.iter().any(|bitmap| bitmap.name == name)
}

/// Those that tell what was written since they began, the oldest first; otherwise, why there is none, unless there never was one.
pub fn usable(all: &[Bitmap], whose: &str) -> (Vec<String>, Option<String>) {
    let own = || all.iter().filter(|bitmap| bitmap.whose() == Some(whose));
    let usable = own().filter(|bitmap| !bitmap.inconsistent && bitmap.recording);
    let mut names: Vec<String> = usable.map(|bitmap| bitmap.name.clone()).collect();
    names.sort();
    let is_lost = names.is_empty() && own().next().is_some();
    let why = "its QEMU was killed, or its image changed by others: what was written since the last point is not known";
    (names, is_lost.then(|| why.to_owned()))
}

/// Those that a crash made useless. One that rests has lost the one that went on in its place.
pub fn broken<'a>(all: &'a [Bitmap], whose: &'a str) -> impl Iterator<Item = &'a str> {
    let own = all.iter().filter(move |bitmap| bitmap.whose() == Some(whose));
    own.filter(|bitmap| bitmap.inconsistent || !bitmap.recording).map(|bitmap| bitmap.name.as_str())
}

/// All of them but this one.
pub fn others(all: &[Bitmap], whose: &str, but: &str) -> Vec<String> {
    let own = all.iter().filter(|bitmap| bitmap.whose() == Some(whose) && bitmap.name != but);
    own.map(|bitmap| bitmap.name.clone()).collect()
}

/// For each of us that has several bitmaps, the actions of one transaction after which all of them record, and each tells what
/// any later one did; those that are too many are gone. Where the newest does not record, nobody knows what was written since:
/// these are left as they are.
pub fn joining(node: &str, all: &[Bitmap]) -> Vec<Vec<Value>> {
    let mut own: Vec<&Bitmap> =
        all.iter().filter(|bitmap| bitmap.whose().is_some() && !bitmap.inconsistent).collect();
    own.sort_by(|a, b| (a.whose(), &a.name).cmp(&(b.whose(), &b.name)));
    let actions = own.chunk_by(|a, b| a.whose() == b.whose()).map(|own| join(node, own));
    actions.filter(|actions| !actions.is_empty()).collect()
}

fn join(node: &str, own: &[&Bitmap]) -> Vec<Value> {
    let action = |kind: &str, data: Value| json!({ "type": kind, "data": data });
    let mut actions = Vec::new();
    if own.last().is_none_or(|newest| !newest.recording) {
        return actions;
    }
    for (at, resting) in own.iter().enumerate().filter(|(_, bitmap)| !bitmap.recording) {
        let later: Vec<&str> = own[at + 1..].iter().map(|bitmap| bitmap.name.as_str()).collect();
        let merge = json!({ "node": node, "target": resting.name, "bitmaps": later });
        actions.push(action("block-dirty-bitmap-merge", merge));
        actions.push(action("block-dirty-bitmap-enable", of(node, &resting.name)));
    }
    let too_many = own.iter().skip(OLDEST).take(own.len().saturating_sub(MOST));
    actions.extend(too_many.map(|bitmap| action("block-dirty-bitmap-remove", of(node, &bitmap.name))));
    actions
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bitmap(name: &str, recording: bool, inconsistent: bool) -> Bitmap {
        Bitmap { name: name.into(), recording, inconsistent }
    }

    fn kinds(actions: &[Value]) -> Vec<String> {
        let word = |action: &Value| {
            let (kind, data) = (&action["type"], &action["data"]);
            format!(
                "{kind} {} {}",
                data["name"].as_str().or(data["target"].as_str()).unwrap_or(""),
                data["bitmaps"]
            )
        };
        actions
            .iter()
            .map(|action| word(action).replace("block-dirty-bitmap-", "").replace('"', ""))
            .collect()
    }

    #[test]
    fn several_bitmaps_record_all_that_came_after_them_and_those_of_others_are_left_alone() {
        let all = [
            bitmap("", false, false),
            bitmap("mine", true, false),
            bitmap("holdfast-b-2", true, false),
            bitmap("holdfast-a-1", false, false),
            bitmap("holdfast-a-2", true, false),
            bitmap("holdfast-broken-1", false, true),
        ];
        let joined = joining("disk0", &all);
        assert_eq!(joined.len(), 1);
        assert_eq!(kinds(&joined[0]), ["merge holdfast-a-1 [holdfast-a-2]", "enable holdfast-a-1 null"]);
        assert_eq!(joining("disk0", &all[..3]), Vec::<Vec<Value>>::new());
        // What was written after the only one came to rest, or the last one, is in none.
        let mut resting = vec![bitmap("holdfast-a-1", false, false)];
        assert_eq!(joining("disk0", &resting), Vec::<Vec<Value>>::new());
        assert_eq!(usable(&resting, "a").0, Vec::<String>::new());
        resting.push(bitmap("holdfast-a-2", false, false));
        assert_eq!(joining("disk0", &resting), Vec::<Vec<Value>>::new());
        assert_eq!(broken(&resting, "a").count(), 2);
        resting.push(bitmap("holdfast-a-3", false, true));
        assert_eq!((joining("disk0", &resting).len(), broken(&resting, "a").count()), (0, 3));
    }

    #[test]
    fn of_many_attempts_the_first_and_the_newest_stay() {
        let names: Vec<String> = (0..10).map(|at| format!("holdfast-a-{at}")).collect();
        let mut all: Vec<Bitmap> = names.iter().map(|name| bitmap(name, false, false)).collect();
        all[9].recording = true;
        let joined = kinds(&joining("disk0", &all).remove(0));
        assert_eq!(joined.len(), 9 * 2 + 2, "{joined:?}");
        assert_eq!(
            joined[14..16],
            ["merge holdfast-a-7 [holdfast-a-8,holdfast-a-9]", "enable holdfast-a-7 null"]
        );
        assert_eq!(joined[18..], ["remove holdfast-a-2 null", "remove holdfast-a-3 null"]);
        all.iter_mut().for_each(|bitmap| bitmap.recording = true);
        assert_eq!(kinds(&joining("disk0", &all).remove(0)), joined[18..]);
        assert_eq!(joining("disk0", &all[..8]), Vec::<Vec<Value>>::new(), "they record already");
        assert_eq!(usable(&all, "a"), (names, None));
    }

    #[test]
    fn a_bitmap_is_used_only_by_whose_it_is_and_only_if_it_records() {
        let all = [bitmap("holdfast-a-1", true, false), bitmap("holdfast-b-b-1", true, true)];
        assert_eq!(usable(&all, "a"), (vec!["holdfast-a-1".into()], None));
        let (none, why) = usable(&all, "b-b");
        assert!(none.is_empty() && why.is_some_and(|why| why.contains("was killed")));
        assert_eq!(usable(&all, "b"), (Vec::new(), None));
        assert_eq!(broken(&all, "b-b").collect::<Vec<_>>(), ["holdfast-b-b-1"]);
        assert_eq!(others(&all, "a", "holdfast-a-2"), ["holdfast-a-1"]);
        let name = fresh("main");
        assert!(name.starts_with("holdfast-main-") && name.len() == "holdfast-main-".len() + 16, "{name}");
    }
}
