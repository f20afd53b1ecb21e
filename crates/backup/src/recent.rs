//! What was used of late, within a bound of bytes: whatever was not used for longest goes first.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::sync::Arc;

/// Contents under names of their own.
pub struct Recent<K> {
    most: usize,
    held: usize,
    uses: u64,
    all: HashMap<K, (Arc<[u8]>, u64)>,
    by_use: BTreeMap<u64, K>,
}

impl<K: Copy + Eq + Hash> Recent<K> {
    /// Nothing yet, and never more than so many bytes of content.
    pub fn new(most: usize) -> Self {
        Self { most, held: 0, uses: 0, all: HashMap::new(), by_use: BTreeMap::new() }
    }

    /// Bytes of content that are held.
    pub const fn held(&self) -> usize {
        self.held
    }

    /// What is held under this name, which is used by that.
    pub fn get(&mut self, name: K) -> Option<Arc<[u8]>> {
        let (content, used) = self.all.get_mut(&name)?;
        self.by_use.remove(used);
        self.uses += 1;
        *used = self.uses;
        self.by_use.insert(self.uses, name);
        Some(Arc::clone(content))
    }

    /// Holds this too, unless it is more than may be held at all.
    pub fn put(&mut self, name: K, content: Arc<[u8]>) {
        self.forget(name);
        if content.len() > self.most {
            return;
        }
        while self.held + content.len() > self.most {
            let Some(oldest) = self.by_use.first_key_value().map(|(_, name)| *name) else { break };
            self.forget(oldest);
        }
        self.uses += 1;
        self.held += content.len();
        self.by_use.insert(self.uses, name);
        self.all.insert(name, (content, self.uses));
    }

    fn forget(&mut self, name: K) {
        if let Some((content, used)) = self.all.remove(&name) {
            self.by_use.remove(&used);
            self.held -= content.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_used_for_longest_goes_first_and_the_bound_holds() {
        let mut recent = Recent::new(100);
        for name in 0..4 {
            recent.put(name, Arc::from([name; 30]));
            assert!(recent.held() <= 100);
        }
        assert!(recent.get(0).is_none() && recent.get(1).is_some());
        recent.put(4, Arc::from([4; 30]));
        assert!(recent.get(2).is_none(), "1 was used after it");
        recent.put(1, Arc::from([9; 40]));
        assert_eq!((recent.get(1).as_deref(), recent.held()), (Some(&[9; 40][..]), 100));
        recent.put(5, Arc::from([5; 101]));
        assert!(recent.get(5).is_none() && recent.held() == 100, "it alone is more than all");
    }
}
