//! The lease store of one host: a file that says which incarnation of each VM may run.

use holdfast_core::lease::{DeathProof, Incarnation, Lease, Sighting, Token};
use holdfast_core::subject::{HostName, VmName};
use std::collections::BTreeMap;

/// Leases, and the tokens given out.
#[derive(Clone, Debug)]
pub(crate) struct LeaseStore {
    holder: HostName,
    leases: BTreeMap<VmName, Lease>,
    last: Token,
    /// As it was before the newest lease: what a store that skips its sync finds after a power cut.
    before: (BTreeMap<VmName, Lease>, Token),
}

impl LeaseStore {
    pub(crate) const fn new(holder: HostName) -> Self {
        let before = (BTreeMap::new(), Token(0));
        Self { holder, leases: BTreeMap::new(), last: Token(0), before }
    }

    /// The lease on record.
    pub(crate) fn of(&self, vm: &VmName) -> Option<&Lease> {
        self.leases.get(vm)
    }

    /// The newest incarnation that was ever leased.
    pub(crate) fn newest(&self, vm: &VmName) -> Incarnation {
        self.of(vm).map_or(Incarnation::NONE, |lease| lease.incarnation())
    }

    /// Writes a lease for what was seen running, under a new token.
    pub(crate) fn adopt(&mut self, vm: &VmName, seen: Sighting) -> Lease {
        self.grant(|token, holder| Lease::adopting(vm.clone(), seen, token, holder))
    }

    fn grant(&mut self, lease: impl FnOnce(Token, HostName) -> Lease) -> Lease {
        self.before = (self.leases.clone(), self.last);
        self.last.0 += 1;
        let lease = lease(self.last, self.holder.clone());
        self.leases.insert(lease.vm().clone(), lease.clone());
        lease
    }

    /// With `forgets-leases`: the newest lease was never made safe.
    pub(crate) fn cut_power(&mut self) {
        (self.leases, self.last) = self.before.clone();
    }

    /// The lease for the incarnation after the dead one; refused if that is not the newest.
    pub(crate) fn take(&mut self, proof: &DeathProof) -> Result<Lease, String> {
        let newest = self.newest(proof.vm());
        if proof.incarnation() < newest {
            let dead = proof.incarnation();
            return Err(format!("incarnation {dead} is dead, but the newest is {newest}"));
        }
        Ok(self.grant(|token, holder| Lease::after(proof, token, holder)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_core::lease::Death;
    use holdfast_witness::Eyewitness;

    #[test]
    fn the_death_of_an_old_incarnation_gives_no_lease() {
        let vm: VmName = "web".parse().expect("a name");
        let mut store = LeaseStore::new("atlas".parse().expect("a name"));
        let dead =
            |n| DeathProof::witnessed(Eyewitness::here(), vm.clone(), Incarnation(n), Death::NeverStarted);
        assert_eq!(store.take(&dead(0)).map(|lease| lease.incarnation()), Ok(Incarnation(1)));
        assert_eq!(store.take(&dead(1)).map(|lease| lease.incarnation()), Ok(Incarnation(2)));
        assert!(store.take(&dead(1)).is_err());
        assert_eq!(store.of(&vm).map(|lease| lease.token()), Some(Token(2)));
    }
}
