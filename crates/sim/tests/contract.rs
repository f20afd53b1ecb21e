//! The simulated hypervisor keeps the contract that every driver must: so what the stories show of it holds.

use holdfast_core::action::{Fact, Found, Order};
use holdfast_core::lease::{Death, DeathProof, Incarnation, Lease, Token};
use holdfast_core::signal::{AgentSign, HypervisorSign, RunState, Seen};
use holdfast_core::subject::{HostName, VmName};
use holdfast_drivers::{Driver, Injection, Question, contract};
use holdfast_sim::{Hypervisor, Story};
use holdfast_witness::Eyewitness;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(5);

fn hypervisor(vm: &str) -> Hypervisor {
    let story: Story = format!("contract: a VM of nobody\n\nhost atlas\n{vm}\n").parse().expect("a story");
    Hypervisor::new(&story)
}

fn names() -> (VmName, HostName) {
    ("web".parse().expect("a name"), "atlas".parse().expect("a name"))
}

#[tokio::test]
async fn the_simulated_hypervisor_keeps_the_contract() {
    let (vm, host) = names();
    for setup in ["off", "off, without agent", "off, large", "off, cannot reset, cannot link"] {
        let driver = hypervisor(&format!("vm web on atlas, {setup}"));
        let kept = contract::check(&driver, &vm, &host, LIMIT).await;
        assert!(kept.is_ok(), "{setup}: {kept:?}");
    }
}

#[tokio::test]
async fn a_running_vm_is_found_running_and_its_agent_answers() {
    let (vm, _) = names();
    let driver = hypervisor("vm web on atlas");
    let found = driver.inspect(&vm).await.expect("it is known");
    assert!(
        matches!(found, Found::Running { seen, lease: None, .. } if seen.incarnation() == Incarnation(1)),
        "{found:?}"
    );
    let heard =
        driver.ask(&vm, &Question::Services(vec![("db".parse().expect("a name"), 5432)]), LIMIT).await;
    let listens = |g: &holdfast_drivers::Glimpse| {
        matches!(g.seen, Seen::Agent(AgentSign::Service { listens: true, waiting: 0, .. }))
    };
    assert!(heard.iter().any(listens), "{heard:?}");
}

#[tokio::test]
async fn a_failed_disk_pauses_the_vm_and_nothing_is_started_beside_it() {
    let (vm, host) = names();
    let driver = hypervisor("vm web on atlas");
    driver.inject(&vm, &Injection::DiskError(true)).await.expect("it can be injected");
    let told = loop {
        let glimpse = driver.next_event().await;
        if let Seen::Hypervisor(HypervisorSign::State(state)) = glimpse.seen {
            break state;
        }
    };
    assert_eq!(told, RunState::IoError);
    let dead = DeathProof::witnessed(Eyewitness::here(), vm.clone(), Incarnation(1), Death::HostRebooted);
    let lease = Lease::after(&dead, Token(9), host); // a witness that lies
    let second = driver.perform(&vm, &Order::Start { lease }, LIMIT).await;
    assert!(second.as_ref().is_err_and(|error| !error.is_unknown()), "{second:?} (I1)");
    let off = Order::PowerOff { incarnation: Incarnation(1), token: Token(1) };
    let off = driver.perform(&vm, &off, LIMIT).await;
    assert!(matches!(off, Ok(Fact::Died(_))), "a refused start burns no token: {off:?}");
}
