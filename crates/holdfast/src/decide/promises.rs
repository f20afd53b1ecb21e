//! The last look before anything is done: promises that no decision may break are checked once more here, in release
//! builds too, by what was handed over before and not by what the engine believes (SAFETY section 1).
//!
//! A broken one is a fault of Holdfast itself. Then nothing that changes anything is handed over any more: it watches,
//! records and tells until a person restarts it, and no VM is touched (I7).

use holdfast_core::action::{Action, ActionId, Order, Reason};
use holdfast_core::lease::{Incarnation, Token};
use holdfast_core::subject::VmName;
use std::collections::BTreeMap;

/// A promise that a decision would have broken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// A second start under one lease, or one under a lease older than one already used: two could write.
    #[error("I1, I2: {vm} would be started as #{} under lease {}, after #{} under lease {}", .now.0.0, .now.1.0, .before.0.0, .before.1.0)]
    StartedBefore {
        /// The VM.
        vm: VmName,
        /// This start and its lease.
        now: (Incarnation, Token),
        /// The newest known.
        before: (Incarnation, Token),
    },
    /// A start under the lease of another VM.
    #[error("I2: {vm} would be started under a lease of {of}")]
    LeaseOfAnother {
        /// The VM.
        vm: VmName,
        /// Whose lease it is.
        of: VmName,
    },
    /// An order for a start that is over, or under a lease that is.
    #[error("I3: {order} of {vm} names #{} under lease {}, after #{} under lease {}", .now.0.0, .now.1.0, .before.0.0, .before.1.0)]
    Outdated {
        /// The VM.
        vm: VmName,
        /// What was to be done.
        order: &'static str,
        /// What it names.
        now: (Incarnation, Token),
        /// The newest known.
        before: (Incarnation, Token),
    },
    /// Nobody asked for it, and a person maintains the VM.
    #[error("I5: {order} of {vm}, which is in maintenance and was not asked for by a person")]
    Maintained {
        /// The VM.
        vm: VmName,
        /// What was to be done.
        order: &'static str,
    },
    /// Its record may be lost.
    #[error("I8: {order} of {vm} before its record {record} is safe; safe is {safe}")]
    Unrecorded {
        /// The VM.
        vm: VmName,
        /// What was to be done.
        order: &'static str,
        /// The number of its record.
        record: u64,
        /// The last record that is safe.
        safe: u64,
    },
    /// It was handed over before.
    #[error("I9: action {} ({order} of {vm}) a second time", .action.0)]
    Repeated {
        /// The VM.
        vm: VmName,
        /// What was to be done.
        order: &'static str,
        /// Its number.
        action: ActionId,
    },
}

/// How far the journal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OnRecord {
    /// The record of what is looked at; `None` if it is in a checkpoint, which is safe.
    pub record: Option<u64>,
    /// The last record that is safe.
    pub safe: u64,
}

/// What was handed over so far, and whether it may go on.
#[derive(Debug, Default)]
pub struct Promises {
    last: ActionId,
    newest: BTreeMap<VmName, (Incarnation, Token)>,
    broken: Option<Broken>,
}

impl Promises {
    /// The first that was broken, if any ever was.
    pub const fn broken(&self) -> Option<&Broken> {
        self.broken.as_ref()
    }

    /// Looks at one action that is about to be handed over. `maintained`: its VM is in maintenance.
    ///
    /// # Errors
    /// It must not be: this one would break a promise, or an earlier one would have, and it changes something.
    pub fn look(&mut self, action: &Action, on_record: OnRecord, maintained: bool) -> Result<(), Broken> {
        let harmless = matches!(action.order, Order::Inspect | Order::Capture { .. } | Order::Reach { .. });
        if let Some(broken) = self.broken.as_ref().filter(|_| !harmless) {
            return Err(broken.clone());
        }
        if let Err(broken) = self.keeps(action, on_record, maintained) {
            self.broken.get_or_insert(broken.clone());
            return Err(broken);
        }
        self.last = self.last.max(action.id);
        if let Some(named) = named(&action.order) {
            self.newest.insert(action.vm.clone(), named);
        }
        Ok(())
    }

    fn keeps(&self, action: &Action, on_record: OnRecord, maintained: bool) -> Result<(), Broken> {
        let (vm, order) = (action.vm.clone(), action.order.name());
        if action.id <= self.last {
            return Err(Broken::Repeated { vm, order, action: action.id });
        }
        if let Some(record) = on_record.record.filter(|record| *record > on_record.safe) {
            return Err(Broken::Unrecorded { vm, order, record, safe: on_record.safe });
        }
        let asked = matches!(action.reason, Reason::Command(_));
        if maintained && !asked && action.order.is_destructive() {
            return Err(Broken::Maintained { vm, order });
        }
        if let Order::Start { lease } = &action.order
            && *lease.vm() != action.vm
        {
            return Err(Broken::LeaseOfAnother { vm, of: lease.vm().clone() });
        }
        let (Some(now), Some(before)) = (named(&action.order), self.newest.get(&action.vm).copied()) else {
            return Ok(());
        };
        let starts = matches!(action.order, Order::Start { .. });
        match (now.0.cmp(&before.0), now.1.cmp(&before.1)) {
            (is, was) if is.is_lt() || was.is_lt() => Err(if starts {
                Broken::StartedBefore { vm, now, before }
            } else {
                Broken::Outdated { vm, order, now, before }
            }),
            (is, was) if starts && (is.is_eq() || was.is_eq()) => {
                Err(Broken::StartedBefore { vm, now, before })
            }
            _ => Ok(()),
        }
    }
}

/// The start that an order is for, and the lease that it is given under, where it changes something.
fn named(order: &Order) -> Option<(Incarnation, Token)> {
    match order {
        Order::Perform { incarnation, token, .. } | Order::PowerOff { incarnation, token } => {
            Some((*incarnation, *token))
        }
        Order::Start { lease } => Some((lease.incarnation(), lease.token())),
        Order::Inspect
        | Order::Capture { .. }
        | Order::Reach { .. }
        | Order::Rewind { .. }
        | Order::TakeLease { .. }
        | Order::Adopt { .. }
        | Order::ReleaseLease { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use holdfast_core::action::{CommandId, Operation};
    use holdfast_core::incident::IncidentId;
    use holdfast_core::lease::{Death, DeathProof, Lease};
    use holdfast_core::time::Timestamp;
    use holdfast_witness::Eyewitness;

    const SAFE: OnRecord = OnRecord { record: Some(7), safe: 7 };

    fn action(id: u64, order: Order) -> Action {
        let (vm, reason) = ("web".parse().unwrap(), Reason::Incident(IncidentId(1)));
        Action { id: ActionId(id), vm, reason, order, deadline: Timestamp::NEVER }
    }

    fn start_of(vm: &str, incarnation: u64, token: u64) -> Order {
        let (vm, before) = (vm.parse().unwrap(), Incarnation(incarnation - 1));
        let dead = DeathProof::witnessed(Eyewitness::here(), vm, before, Death::HostRebooted);
        Order::Start { lease: Lease::after(&dead, Token(token), "atlas".parse().unwrap()) }
    }

    fn off(incarnation: u64, token: u64) -> Order {
        Order::PowerOff { incarnation: Incarnation(incarnation), token: Token(token) }
    }

    fn reset(incarnation: u64, token: u64) -> Order {
        let (incarnation, token) = (Incarnation(incarnation), Token(token));
        Order::Perform { incarnation, token, operation: Operation::Reset }
    }

    /// What is said of the last of them, where all before it may be done.
    fn told(orders: Vec<Order>) -> Result<(), Broken> {
        let mut promises = Promises::default();
        let mut result = Ok(());
        for (n, order) in orders.into_iter().enumerate() {
            assert_eq!(result, Ok(()), "before {}", order.name());
            result = promises.look(&action(n as u64 + 1, order), SAFE, false);
        }
        result
    }

    #[test]
    fn a_recovery_breaks_nothing_i1_i2_i3() {
        let recovery = [Order::Inspect, reset(3, 11), off(3, 11), start_of("web", 4, 12), reset(4, 12)];
        assert_eq!(told(recovery.to_vec()), Ok(()));
        assert_eq!(told(vec![start_of("web", 4, 12), off(4, 12), start_of("web", 5, 13)]), Ok(()));
    }

    #[test]
    fn no_lease_starts_twice_and_none_of_another_vm_does_i1_i2() {
        let (web, other) = (start_of("web", 4, 12), start_of("db", 5, 13));
        for again in [web.clone(), start_of("web", 4, 13), start_of("web", 5, 12), start_of("web", 3, 13)] {
            assert!(matches!(told(vec![web.clone(), again]), Err(Broken::StartedBefore { .. })));
        }
        assert!(matches!(told(vec![web, other]), Err(Broken::LeaseOfAnother { .. })));
    }

    #[test]
    fn what_is_over_is_not_touched_again_i3() {
        for late in [off(3, 11), reset(3, 12), reset(4, 11)] {
            assert!(matches!(told(vec![start_of("web", 4, 12), late]), Err(Broken::Outdated { .. })));
        }
    }

    #[test]
    fn in_maintenance_only_a_person_acts_i5() {
        let look = |asked: bool, order: Order| {
            let mut action = action(1, order);
            if asked {
                action.reason = Reason::Command(CommandId(1));
            }
            Promises::default().look(&action, SAFE, true)
        };
        assert!(matches!(look(false, off(3, 11)), Err(Broken::Maintained { .. })));
        assert_eq!(look(true, off(3, 11)), Ok(()));
        assert_eq!(look(false, Order::Inspect), Ok(()));
    }

    #[test]
    fn nothing_is_done_before_its_record_is_safe_nor_twice_i8_i9() {
        let look =
            |record| Promises::default().look(&action(1, off(3, 11)), OnRecord { record, safe: 7 }, false);
        assert!(matches!(look(Some(8)), Err(Broken::Unrecorded { .. })));
        assert_eq!(look(None), Ok(()), "a checkpoint is safe");
        let mut promises = Promises::default();
        assert_eq!(promises.look(&action(5, off(3, 11)), SAFE, false), Ok(()));
        let again = promises.look(&action(5, off(3, 11)), SAFE, false);
        assert!(matches!(again, Err(Broken::Repeated { .. })));
    }

    #[test]
    fn after_a_broken_promise_it_only_looks() {
        let mut promises = Promises::default();
        assert!(promises.look(&action(1, off(3, 11)), SAFE, true).is_err());
        assert!(promises.look(&action(2, off(3, 11)), SAFE, false).is_err(), "this one would have been fine");
        assert_eq!(promises.look(&action(3, Order::Inspect), SAFE, false), Ok(()));
        assert!(matches!(promises.broken(), Some(Broken::Maintained { .. })));
    }
}
