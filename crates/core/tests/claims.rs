//! A lease that is not given: the VM is looked at first, and then it is tried ever more rarely.

use holdfast_core::action::{Action, Ended, Fact, Found, Order, Outcome};
use holdfast_core::engine::Engine;
use holdfast_core::input::{Input, Started};
use holdfast_core::lease::{Death, DeathProof, Incarnation, Lease, Token};
use holdfast_core::policy::{Mode, Policies, VmPolicy};
use holdfast_core::subject::{HostName, VmName};
use holdfast_core::time::{Duration, Timestamp};
use holdfast_witness::Eyewitness;
use std::collections::VecDeque;

/// What was ordered in so many seconds of a VM that is off and meant to run: the names of the orders. Leases are given from the
/// `given`th time on that one is asked for.
fn ordered(seconds: u64, given: usize) -> Vec<&'static str> {
    let (host, vm): (HostName, VmName) = ("atlas".parse().expect("a name"), "web".parse().expect("a name"));
    let dead =
        DeathProof::witnessed(Eyewitness::here(), vm.clone(), Incarnation(9), Death::NotFound { pid: 7 });
    let (mut engine, mut now) = (Engine::new(), Timestamp::from_secs(1));
    let policy = VmPolicy { mode: Mode::Armed, autostart: true, ..VmPolicy::default() };
    let mut policies = Policies::default();
    policies.vms.insert(vm, policy);
    let started = Started { host: host.clone(), boot: "b".into(), wall_offset: 0 };
    let mut inputs = VecDeque::from([Input::Started(started), Input::Configured(policies)]);
    let (mut orders, mut claims) = (Vec::new(), 0);
    for _ in 0..seconds * 50 {
        inputs.push_back(Input::Tick);
        while let Some(input) = inputs.pop_front() {
            for Action { id, order, .. } in engine.step(now, &input).actions {
                orders.push(order.name());
                let ended = match order {
                    Order::Inspect => Ended::Done(Fact::Found(Found::Dead(dead.clone()))),
                    Order::TakeLease { proof } => {
                        claims += 1;
                        if claims < given {
                            Ended::Failed {
                                why: "the lease is for incarnation #37, and #9 was asked about".into(),
                            }
                        } else {
                            Ended::Done(Fact::Leased(Lease::after(&proof, Token(1), host.clone())))
                        }
                    }
                    Order::Start { .. } => Ended::Done(Fact::Started { pid: 8 }),
                    Order::Capture { .. }
                    | Order::Reach { .. }
                    | Order::Perform { .. }
                    | Order::PowerOff { .. }
                    | Order::Adopt { .. }
                    | Order::Rewind { .. }
                    | Order::ReleaseLease { .. } => panic!("it is only started"),
                };
                inputs.push_back(Input::Outcome(Outcome { action: id, ended }));
            }
        }
        now = now + Duration::from_millis(20);
    }
    orders
}

#[test]
fn a_lease_that_is_not_given_is_asked_for_at_once_and_then_ever_more_rarely() {
    let orders = ordered(60, usize::MAX);
    let claims = orders.iter().filter(|order| **order == "take-lease").count();
    assert!((4..=8).contains(&claims), "{orders:?}"); // at 0, 0, 1, 3, 7, 15, 31 s
    let looks = orders.iter().filter(|order| **order == "inspect").count();
    assert!((claims..=claims + 1).contains(&looks), "each time it is looked at first: {orders:?}");
}

#[test]
fn once_the_lease_is_given_it_is_started() {
    let orders = ordered(8, 4);
    assert_eq!(orders.last(), Some(&"start"), "{orders:?}");
}
