//! Our dirty bitmaps: `holdfast-WHOSE-NUMBER`. A later one has a higher number, and each records what was written
//! since it began.

use serde::Deserialize;
use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};

const OURS: &str = "holdfast-";

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

/// The one that tells what was written since the last point; otherwise, why there is none, unless there never was one.
pub fn usable(all: &[Bitmap], whose: &str) -> (Option<String>, Option<String>) {
    let own = || all.iter().filter(|bitmap| bitmap.whose() == Some(whose));
    let usable = own().filter(|bitmap| !bitmap.inconsistent && bitmap.recording);
    match usable.min_by(|a, b| a.name.cmp(&b.name)) {
        Some(bitmap) => (Some(bitmap.name.clone()), None),
        None if own().next().is_some() => {
            let why = "its QEMU was killed, or its image changed by others: what was written since the last point is not known";
            (None, Some(why.to_owned()))
        }
        None => (None, None),
    }
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

/// For each of us that has several bitmaps, the actions of one transaction after which the oldest records, and tells what
/// any of them did. Where the newest does not record, nobody knows what was written since: these are left as they are.
pub fn joining(node: &str, all: &[Bitmap]) -> Vec<Vec<Value>> {
    let mut own: Vec<&Bitmap> =
        all.iter().filter(|bitmap| bitmap.whose().is_some() && !bitmap.inconsistent).collect();
    own.sort_by(|a, b| (a.whose(), &a.name).cmp(&(b.whose(), &b.name)));
    own.chunk_by(|a, b| a.whose() == b.whose()).filter_map(|own| join(node, own)).collect()
}

fn join(node: &str, own: &[&Bitmap]) -> Option<Vec<Value>> {
    let (oldest, later) = own.split_first()?;
    if !later.last()?.recording {
        return None;
    }
    let action = |kind: &str, data: Value| json!({ "type": kind, "data": data });
    let names: Vec<&str> = later.iter().map(|bitmap| bitmap.name.as_str()).collect();
    let merge = json!({ "node": node, "target": oldest.name, "bitmaps": names });
    let mut actions = vec![action("block-dirty-bitmap-merge", merge)];
    if !oldest.recording {
        actions.push(action("block-dirty-bitmap-enable", of(node, &oldest.name)));
    }
    actions.extend(later.iter().map(|bitmap| action("block-dirty-bitmap-remove", of(node, &bitmap.name))));
    Some(actions)
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
    fn several_bitmaps_become_the_oldest_and_those_of_others_are_left_alone() {
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
        assert_eq!(
            kinds(&joined[0]),
            ["merge holdfast-a-1 [holdfast-a-2]", "enable holdfast-a-1 null", "remove holdfast-a-2 null"]
        );
        assert_eq!(joining("disk0", &all[..3]), Vec::<Vec<Value>>::new());
        // What was written after the only one came to rest, or the last one, is in none.
        let mut resting = vec![bitmap("holdfast-a-1", false, false)];
        assert_eq!(joining("disk0", &resting), Vec::<Vec<Value>>::new());
        assert_eq!(usable(&resting, "a").0, None);
        resting.push(bitmap("holdfast-a-2", false, false));
        assert_eq!(joining("disk0", &resting), Vec::<Vec<Value>>::new());
        assert_eq!(broken(&resting, "a").count(), 2);
        resting.push(bitmap("holdfast-a-3", false, true));
        assert_eq!((joining("disk0", &resting).len(), broken(&resting, "a").count()), (0, 3));
    }

    #[test]
    fn a_bitmap_is_used_only_by_whose_it_is_and_only_if_it_records() {
        let all = [bitmap("holdfast-a-1", true, false), bitmap("holdfast-b-b-1", true, true)];
        assert_eq!(usable(&all, "a"), (Some("holdfast-a-1".into()), None));
        let (none, why) = usable(&all, "b-b");
        assert!(none.is_none() && why.is_some_and(|why| why.contains("was killed")));
        assert_eq!(usable(&all, "b"), (None, None));
        assert_eq!(broken(&all, "b-b").collect::<Vec<_>>(), ["holdfast-b-b-1"]);
        assert_eq!(others(&all, "a", "holdfast-a-2"), ["holdfast-a-1"]);
        let name = fresh("main");
        assert!(name.starts_with("holdfast-main-") && name.len() == "holdfast-main-".len() + 16, "{name}");
    }
}
